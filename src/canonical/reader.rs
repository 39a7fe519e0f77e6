//! The strict reader: one pass over the bytes, which copies canonical parts unchanged. It
//! knows the grammar and the ignored pointers; it never reads its own output.

use std::ops::Range;

use super::MAX_DEPTH;
use super::arrange::{Arrangement, Piece};
use super::number::Number;
use super::pointer::{Node, PointerSet};
use super::string::{self, Name};
use crate::error::ParseError;

/// An end position, or an error. The error is boxed, so that both fit into the registers in
/// which a function returns.
type Read = Result<usize, Box<ParseError>>;

/// Reads one text. Functions pass the position as a value: as a field, each step would wait
/// for the previous step's store.
pub(super) struct Reader<'t, 's> {
    text: &'t str,
    bytes: &'t [u8],
    /// From here up to the position, the text is canonical and not staged yet: compact JSON
    /// is copied in long runs, or not at all.
    run: usize,
    depth: usize,
    ignored: &'s PointerSet,
    staged: &'s mut Vec<u8>,
    arrangement: &'s mut Arrangement,
}

impl<'t, 's> Reader<'t, 's> {
    pub(super) fn new(
        text: &'t str,
        ignored: &'s PointerSet,
        staged: &'s mut Vec<u8>,
        arrangement: &'s mut Arrangement,
    ) -> Self {
        Self {
            text,
            bytes: text.as_bytes(),
            run: 0,
            depth: 0,
            ignored,
            staged,
            arrangement,
        }
    }

    /// Reads the whole text. The result, or else the staged bytes, are canonical except for
    /// the arrangement.
    pub(super) fn read(mut self) -> Result<Option<&'t [u8]>, Box<ParseError>> {
        if self.bytes.starts_with("\u{feff}".as_bytes()) {
            return Err(ParseError::new(0, "byte order mark").into());
        }
        let start = self.skip_space(0);
        let end = self.value(start, self.ignored.root())?;
        let untouched = self.staged.is_empty();
        let untouched = untouched.then(|| &self.bytes[self.run..end]);
        if untouched.is_none() {
            self.stage(end, end);
        }
        let end = self.space_end(end);
        if end < self.bytes.len() {
            return Err(ParseError::new(end, "text after the value").into());
        }
        Ok(untouched)
    }

    /// Inlined into whatever contains values, where most of them are read in a
    /// few instructions.
    fn value(&mut self, pos: usize, node: Option<Node>) -> Read {
        match self.bytes.get(pos) {
            Some(b'"') => self.string(pos + 1).map(|(end, _)| end),
            Some(b'-' | b'0'..=b'9') => self.number(pos),
            Some(b'{') => self.object(pos, node),
            Some(b'[') => self.array(pos, node),
            Some(b't') => self.literal(pos, b"true"),
            Some(b'f') => self.literal(pos, b"false"),
            Some(b'n') => self.literal(pos, b"null"),
            _ => Err(self.unexpected(pos, "expected a value")),
        }
    }

    #[inline(never)]
    fn object(&mut self, pos: usize, node: Option<Node>) -> Read {
        let mut pos = self.enter(pos)?;
        if self.bytes.get(pos) == Some(&b'}') {
            self.depth -= 1;
            return Ok(pos + 1);
        }
        let mut container = self.arrangement.open(self.staged_end(pos));
        loop {
            let start = self.staged_end(pos);
            let changes_start = self.arrangement.changes();
            if self.bytes.get(pos) != Some(&b'"') {
                return Err(self.unexpected(pos, "expected a member name"));
            }
            let name_start = pos + 1;
            let (after_name, escaped) = self.string(name_start)?;
            let name_end = after_name - 1;
            let below = match node {
                Some(node) => self.member(node, name_start, name_end, escaped),
                None => None,
            };
            pos = self.skip_space(after_name);
            if self.bytes.get(pos) != Some(&b':') {
                return Err(self.unexpected(pos, "expected a colon"));
            }
            pos = self.skip_space(pos + 1);
            pos = self.value(pos, below)?;
            // Made after the value, so that it is not kept in memory meanwhile.
            let name = Name::new(self.text, name_start, name_end, escaped);
            let piece = self.piece(name, start..self.staged_end(pos), changes_start, below);
            self.arrangement.push(&mut container, piece, self.text);
            let part = self.after_part(pos, b'}', "expected a comma or a closing brace")?;
            pos = part.end;
            if part.is_last {
                break;
            }
        }
        self.depth -= 1;
        let end = self.staged_end(pos) - 1;
        self.arrangement.close(container, end, self.text)?;
        Ok(pos)
    }

    #[inline(never)]
    fn array(&mut self, pos: usize, node: Option<Node>) -> Read {
        let mut pos = self.enter(pos)?;
        if self.bytes.get(pos) == Some(&b']') {
            self.depth -= 1;
            return Ok(pos + 1);
        }
        const EXPECTED: &str = "expected a comma or a closing bracket";
        let Some(node) = node else {
            // No part of it is ignored, and elements keep their order.
            loop {
                pos = self.value(pos, None)?;
                let part = self.after_part(pos, b']', EXPECTED)?;
                pos = part.end;
                if part.is_last {
                    self.depth -= 1;
                    return Ok(pos);
                }
            }
        };
        let mut container = self.arrangement.open(self.staged_end(pos));
        for index in 0.. {
            let start = self.staged_end(pos);
            let changes_start = self.arrangement.changes();
            let below = self.ignored.element(node, index);
            pos = self.value(pos, below)?;
            let name = Name::of_element(index);
            let piece = self.piece(name, start..self.staged_end(pos), changes_start, below);
            self.arrangement.push(&mut container, piece, self.text);
            let part = self.after_part(pos, b']', EXPECTED)?;
            pos = part.end;
            if part.is_last {
                break;
            }
        }
        self.depth -= 1;
        let end = self.staged_end(pos) - 1;
        self.arrangement.close(container, end, self.text)?;
        Ok(pos)
    }

    /// The node of an ignored member; most payloads have none.
    #[cold]
    fn member(&self, node: Node, start: usize, end: usize, escaped: bool) -> Option<Node> {
        let name = Name::new(self.text, start, end, escaped);
        self.ignored.member(node, name, self.text)
    }

    /// What has been read and would be staged at `place`.
    fn piece(
        &self,
        name: Name,
        place: Range<usize>,
        changes_start: usize,
        node: Option<Node>,
    ) -> Piece {
        let ignored = self.ignored.ends_at(node);
        Piece {
            name,
            start: place.start,
            end: if ignored { place.start } else { place.end },
            changes_start,
            changes_end: self.arrangement.changes(),
        }
    }

    /// Goes past an opening bracket and the space behind it.
    fn enter(&mut self, pos: usize) -> Read {
        if self.depth == MAX_DEPTH {
            return Err(ParseError::new(pos, "nested too deeply").into());
        }
        self.depth += 1;
        Ok(self.skip_space(pos + 1))
    }

    /// Goes past what follows a member or an element.
    fn after_part(
        &mut self,
        pos: usize,
        close: u8,
        expected: &'static str,
    ) -> Result<AfterPart, Box<ParseError>> {
        let pos = self.skip_space(pos);
        match self.bytes.get(pos) {
            Some(b',') => Ok(AfterPart {
                end: self.skip_space(pos + 1),
                is_last: false,
            }),
            Some(&byte) if byte == close => Ok(AfterPart {
                end: pos + 1,
                is_last: true,
            }),
            _ => Err(self.unexpected(pos, expected)),
        }
    }

    /// From behind the opening quote: where the string ends, behind the closing
    /// one, and whether there is an escape in it.
    fn string(&mut self, pos: usize) -> Result<(usize, bool), Box<ParseError>> {
        let end = string::plain_end(self.bytes, pos);
        if self.bytes.get(end) == Some(&b'"') {
            return Ok((end + 1, false));
        }
        self.escaped_string(end).map(|end| (end, true))
    }

    #[inline(never)]
    fn escaped_string(&mut self, mut end: usize) -> Read {
        loop {
            match self.bytes.get(end) {
                Some(b'"') => return Ok(end + 1),
                Some(b'\\') => {
                    let (character, after) = string::escape(self.bytes, end)?;
                    let mut buffer = [0; 6];
                    let spelled = string::spell(character, &mut buffer);
                    if spelled != &self.bytes[end..after] {
                        self.stage(end, after);
                        self.staged.extend_from_slice(spelled);
                    }
                    end = string::plain_end(self.bytes, after);
                }
                Some(_) => {
                    let reason = "control character in a string";
                    return Err(ParseError::new(end, reason).into());
                }
                None => {
                    let reason = "the text ends inside a string";
                    return Err(ParseError::new(end, reason).into());
                }
            }
        }
    }

    fn number(&mut self, pos: usize) -> Read {
        let number = Number::read(self.bytes, pos)?;
        match number.canonical_end(self.bytes) {
            Some(end) if end == number.end => {}
            Some(end) => self.stage(end, number.end),
            None => {
                self.stage(pos, number.end);
                number.write(self.bytes, self.staged)?;
            }
        }
        Ok(number.end)
    }

    fn literal(&self, pos: usize, literal: &'static [u8]) -> Read {
        match self.bytes.get(pos..pos + literal.len()) {
            Some(found) if found == literal => Ok(pos + literal.len()),
            _ => Err(self.no_literal(pos, literal)),
        }
    }

    #[cold]
    fn no_literal(&self, pos: usize, literal: &'static [u8]) -> Box<ParseError> {
        let found = self.bytes[pos..].iter().zip(literal);
        let same = found.take_while(|(found, expected)| found == expected);
        self.unexpected(pos + same.count(), "expected a value")
    }

    fn skip_space(&mut self, pos: usize) -> usize {
        match self.bytes.get(pos) {
            Some(..=b' ') => self.drop_space(pos),
            _ => pos,
        }
    }

    #[inline(never)]
    fn drop_space(&mut self, pos: usize) -> usize {
        let end = self.space_end(pos);
        if end > pos {
            self.stage(pos, end);
        }
        end
    }

    fn space_end(&self, pos: usize) -> usize {
        let mut end = pos;
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.bytes.get(end) {
            end += 1;
        }
        end
    }

    /// Stages the run up to `end`; the next one begins at `next`.
    #[inline]
    fn stage(&mut self, end: usize, next: usize) {
        self.staged.extend_from_slice(&self.bytes[self.run..end]);
        self.run = next;
    }

    /// Where the byte at `pos` would be staged.
    fn staged_end(&self, pos: usize) -> usize {
        self.staged.len() + pos - self.run
    }

    #[cold]
    fn unexpected(&self, pos: usize, expected: &'static str) -> Box<ParseError> {
        let reason = if pos < self.bytes.len() {
            expected
        } else {
            "the text ends too early"
        };
        ParseError::new(pos, reason).into()
    }
}

/// After a member or an element: a comma, or the container's end.
struct AfterPart {
    /// The position after it, and after the space that follows a comma.
    end: usize,
    is_last: bool,
}
