//! The strict reader: one pass over the bytes, which stages them as they are
//! wherever they are canonical already. It knows the grammar and what is
//! ignored; it never looks back at what it has staged.

use super::MAX_DEPTH;
use super::arrange::{Arrangement, Piece};
use super::number::Number;
use super::pointer::{Node, PointerSet};
use super::string::{self, Name};
use crate::error::ParseError;

/// Reads one text.
pub(super) struct Reader<'t, 's> {
    text: &'t str,
    bytes: &'t [u8],
    pos: usize,
    /// From here up to `pos` the text is canonical as it stands and not staged
    /// yet: compact JSON is copied in long runs, or not at all.
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
            pos: 0,
            run: 0,
            depth: 0,
            ignored,
            staged,
            arrangement,
        }
    }

    /// Reads the whole text. What it gives back, or else what is staged, is
    /// canonical but for what the arrangement says.
    pub(super) fn read(mut self) -> Result<Option<&'t [u8]>, ParseError> {
        if self.bytes.starts_with("\u{feff}".as_bytes()) {
            return Err(ParseError::new(0, "byte order mark"));
        }
        self.skip_space();
        self.value(self.ignored.root())?;
        let untouched = self.staged.is_empty();
        let untouched = untouched.then(|| &self.bytes[self.run..self.pos]);
        if untouched.is_none() {
            self.stage();
        }
        let end = self.space_end();
        if end < self.bytes.len() {
            return Err(ParseError::new(end, "text after the value"));
        }
        Ok(untouched)
    }

    fn value(&mut self, node: Option<Node>) -> Result<(), ParseError> {
        match self.bytes.get(self.pos) {
            Some(b'"') => {
                self.pos += 1;
                self.string().map(|_| ())
            }
            Some(b'{') => self.object(node),
            Some(b'[') => self.array(node),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.literal(b"true"),
            Some(b'f') => self.literal(b"false"),
            Some(b'n') => self.literal(b"null"),
            _ => Err(self.unexpected("expected a value")),
        }
    }

    fn object(&mut self, node: Option<Node>) -> Result<(), ParseError> {
        self.enter()?;
        if self.next_is(b'}') {
            self.depth -= 1;
            return Ok(());
        }
        let mut container = self.arrangement.open(self.staged_end());
        loop {
            let start = self.staged_end();
            let changes_start = self.arrangement.changes();
            if self.bytes.get(self.pos) != Some(&b'"') {
                return Err(self.unexpected("expected a member name"));
            }
            self.pos += 1;
            let name_start = self.pos;
            let escaped = self.string()?;
            let name_end = self.pos - 1;
            let below = match node {
                Some(node) => self.member(node, name_start, name_end, escaped),
                None => None,
            };
            self.skip_space();
            if self.bytes.get(self.pos) != Some(&b':') {
                return Err(self.unexpected("expected a colon"));
            }
            self.pos += 1;
            self.skip_space();
            self.value(below)?;
            // Made only now, so that it need not be kept over the value.
            let name = Name::new(self.text, name_start, name_end, escaped);
            let piece = self.piece(name, start, changes_start, below);
            self.arrangement.push(&mut container, piece, self.text);
            if self.after_part(b'}', "expected a comma or a closing brace")? {
                break;
            }
        }
        self.depth -= 1;
        let end = self.staged_end() - 1;
        self.arrangement.close(container, end, self.text)
    }

    fn array(&mut self, node: Option<Node>) -> Result<(), ParseError> {
        self.enter()?;
        if self.next_is(b']') {
            self.depth -= 1;
            return Ok(());
        }
        const EXPECTED: &str = "expected a comma or a closing bracket";
        let Some(node) = node else {
            // Nothing in here is ignored, and elements keep their order.
            loop {
                self.value(None)?;
                if self.after_part(b']', EXPECTED)? {
                    self.depth -= 1;
                    return Ok(());
                }
            }
        };
        let mut container = self.arrangement.open(self.staged_end());
        for index in 0.. {
            let start = self.staged_end();
            let changes_start = self.arrangement.changes();
            let below = self.ignored.element(node, index);
            self.value(below)?;
            let piece = self.piece(Name::of_element(index), start, changes_start, below);
            self.arrangement.push(&mut container, piece, self.text);
            if self.after_part(b']', EXPECTED)? {
                break;
            }
        }
        self.depth -= 1;
        let end = self.staged_end() - 1;
        self.arrangement.close(container, end, self.text)
    }

    /// Where a member of what is ignored stands; most payloads are read whole.
    #[cold]
    fn member(&self, node: Node, start: usize, end: usize, escaped: bool) -> Option<Node> {
        let name = Name::new(self.text, start, end, escaped);
        self.ignored.member(node, name, self.text)
    }

    /// What has been read since `start`.
    #[inline(always)]
    fn piece(&self, name: Name, start: usize, changes_start: usize, node: Option<Node>) -> Piece {
        let ignored = self.ignored.ends_at(node);
        Piece {
            name,
            start,
            end: if ignored { start } else { self.staged_end() },
            changes_start,
            changes_end: self.arrangement.changes(),
        }
    }

    /// Goes past an opening bracket and the space behind it.
    fn enter(&mut self) -> Result<(), ParseError> {
        if self.depth == MAX_DEPTH {
            return Err(ParseError::new(self.pos, "nested too deeply"));
        }
        self.depth += 1;
        self.pos += 1;
        self.skip_space();
        Ok(())
    }

    /// Goes past what follows a member or an element: whether it is the last.
    #[inline]
    fn after_part(&mut self, close: u8, expected: &'static str) -> Result<bool, ParseError> {
        self.skip_space();
        if self.next_is(close) {
            return Ok(true);
        }
        if !self.next_is(b',') {
            return Err(self.unexpected(expected));
        }
        self.skip_space();
        Ok(false)
    }

    /// Goes from behind the opening quote to behind the closing one: whether
    /// there was an escape between them.
    #[inline]
    fn string(&mut self) -> Result<bool, ParseError> {
        let end = string::plain_end(self.bytes, self.pos);
        if self.bytes.get(end) == Some(&b'"') {
            self.pos = end + 1;
            return Ok(false);
        }
        self.escaped_string(end).map(|()| true)
    }

    fn escaped_string(&mut self, mut end: usize) -> Result<(), ParseError> {
        loop {
            self.pos = end;
            match self.bytes.get(end) {
                Some(b'"') => {
                    self.pos += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    let (character, after) = string::escape(self.bytes, end)?;
                    let mut buffer = [0; 6];
                    let spelled = string::spell(character, &mut buffer);
                    if spelled != &self.bytes[end..after] {
                        self.stage();
                        self.staged.extend_from_slice(spelled);
                        self.run = after;
                    }
                    end = string::plain_end(self.bytes, after);
                }
                Some(_) => return Err(ParseError::new(end, "control character in a string")),
                None => return Err(ParseError::new(end, "the text ends inside a string")),
            }
        }
    }

    #[inline]
    fn number(&mut self) -> Result<(), ParseError> {
        let number = Number::read(self.bytes, self.pos)?;
        if !number.is_canonical(self.bytes) {
            self.stage();
            number.write(self.bytes, self.staged)?;
            self.run = number.end;
        }
        self.pos = number.end;
        Ok(())
    }

    fn literal(&mut self, literal: &'static [u8]) -> Result<(), ParseError> {
        for expected in literal {
            if self.bytes.get(self.pos) != Some(expected) {
                return Err(self.unexpected("expected a value"));
            }
            self.pos += 1;
        }
        Ok(())
    }

    #[inline]
    fn next_is(&mut self, byte: u8) -> bool {
        let found = self.bytes.get(self.pos) == Some(&byte);
        self.pos += usize::from(found);
        found
    }

    #[inline]
    fn skip_space(&mut self) {
        if self.bytes.get(self.pos).is_some_and(|&byte| byte <= b' ') {
            self.drop_space();
        }
    }

    fn drop_space(&mut self) {
        let end = self.space_end();
        if end > self.pos {
            self.stage();
            self.pos = end;
            self.run = end;
        }
    }

    fn space_end(&self) -> usize {
        let mut end = self.pos;
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.bytes.get(end) {
            end += 1;
        }
        end
    }

    /// Stages the run.
    #[inline]
    fn stage(&mut self) {
        self.staged
            .extend_from_slice(&self.bytes[self.run..self.pos]);
        self.run = self.pos;
    }

    /// Where the next byte would be staged.
    #[inline]
    fn staged_end(&self) -> usize {
        self.staged.len() + self.pos - self.run
    }

    #[cold]
    fn unexpected(&self, expected: &'static str) -> ParseError {
        let reason = if self.pos < self.bytes.len() {
            expected
        } else {
            "the text ends too early"
        };
        ParseError::new(self.pos, reason)
    }
}
