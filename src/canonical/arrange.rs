//! Sorts members and leaves out ignored parts, after the whole text was read. It moves
//! each byte once, however deep it is nested, and holds nothing of objects in order.

use std::ops::Range;

use super::string::Name;
use crate::error::ParseError;

/// The parts to sort or to omit. Offsets are into the bytes in the order of reading.
#[derive(Debug, Default)]
pub(super) struct Arrangement {
    /// The members of the objects, and elements of the arrays, being read.
    open: Vec<Piece>,
    /// The contents that change, inner before outer.
    changes: Vec<Change>,
    /// Their pieces, in the order of writing.
    pieces: Vec<Piece>,
}

/// A member or an element. It has the size of a cache line, since many are moved.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) name: Name,
    pub(super) start: usize,
    /// Equal to `start` if it is ignored: nothing else is empty.
    pub(super) end: usize,
    /// The first change inside it; the last is before `changes_end`.
    pub(super) changes_start: usize,
    pub(super) changes_end: usize,
}

impl Piece {
    #[inline]
    fn is_ignored(&self) -> bool {
        self.start == self.end
    }
}

/// The content of a container, without its brackets, and the pieces that replace it.
#[derive(Clone, Copy, Debug)]
struct Change {
    start: usize,
    end: usize,
    /// The first of the changes inside it, which precede it.
    first_inside: usize,
    pieces_start: usize,
    pieces_end: usize,
}

/// A container whose content is being read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opened {
    start: usize,
    pieces: usize,
    changes: usize,
    in_order: bool,
}

impl Arrangement {
    pub(super) fn clear(&mut self) {
        self.open.clear();
        self.changes.clear();
        self.pieces.clear();
    }

    pub(super) fn bytes(&self) -> usize {
        let pieces = self.open.capacity() + self.pieces.capacity();
        pieces * size_of::<Piece>() + self.changes.capacity() * size_of::<Change>()
    }

    /// The number of changes so far.
    #[inline]
    pub(super) fn changes(&self) -> usize {
        self.changes.len()
    }

    /// Begins a container whose content starts at `start`.
    #[inline]
    pub(super) fn open(&self, start: usize) -> Opened {
        Opened {
            start,
            pieces: self.open.len(),
            changes: self.changes.len(),
            in_order: true,
        }
    }

    /// Adds what has been read as a part of `container`.
    pub(super) fn push(&mut self, container: &mut Opened, piece: Piece, text: &str) {
        // Pushed before it is compared: a piece whose address is taken before would be
        // built elsewhere and copied, the largest cost here.
        self.open.push(piece);
        if !container.in_order {
            return;
        }
        container.in_order = match self.open.get(container.pieces..) {
            Some([.., before, last]) => {
                !last.is_ignored() && before.name.compare(&last.name, text).is_lt()
            }
            Some([only]) => !only.is_ignored(),
            _ => true,
        };
    }

    /// Ends a container whose content ends at `end`.
    ///
    /// # Errors
    ///
    /// If two of its members have the same name.
    #[inline]
    pub(super) fn close(
        &mut self,
        container: Opened,
        end: usize,
        text: &str,
    ) -> Result<(), ParseError> {
        if container.in_order {
            self.open.truncate(container.pieces);
            return Ok(());
        }
        self.change(container, end, text)
    }

    fn change(&mut self, container: Opened, end: usize, text: &str) -> Result<(), ParseError> {
        let pieces = &mut self.open[container.pieces..];
        let compare = |a: &Piece, b: &Piece| a.name.compare(&b.name, text);
        pieces.sort_unstable_by(|a, b| compare(a, b).then(a.start.cmp(&b.start)));
        let repeated = pieces
            .windows(2)
            .filter(|pair| compare(&pair[0], &pair[1]).is_eq())
            .map(|pair| pair[1].name.offset())
            .min();
        if let Some(offset) = repeated {
            return Err(ParseError::new(offset, "duplicate member name"));
        }
        let pieces_start = self.pieces.len();
        let kept = &self.open[container.pieces..];
        if kept.iter().any(Piece::is_ignored) {
            let kept = kept.iter().filter(|piece| !piece.is_ignored());
            self.pieces.extend(kept);
        } else {
            // The common case: one copy for all.
            self.pieces.extend_from_slice(kept);
        }
        self.open.truncate(container.pieces);
        self.changes.push(Change {
            start: container.start,
            end,
            first_inside: container.changes,
            pieces_start,
            pieces_end: self.pieces.len(),
        });
        Ok(())
    }

    /// `read` with all changes applied: itself without changes, else the content of
    /// `buffer`.
    pub(super) fn apply<'b>(&self, read: &'b [u8], buffer: &'b mut Vec<u8>) -> &'b [u8] {
        if self.changes.is_empty() {
            return read;
        }
        if buffer.len() < read.len() {
            buffer.resize(read.len(), 0);
        }
        let mut writer = BackwardWriter {
            read,
            at: buffer.len(),
            buffer,
        };
        self.write(&mut writer, 0..read.len(), 0..self.changes.len());
        let at = writer.at;
        &buffer[at..]
    }

    /// Writes a part of the text with its `changes`, from the end: so the last of the
    /// remaining changes is the outermost. It recurses as deep as the text is nested.
    fn write(&self, out: &mut BackwardWriter<'_>, part: Range<usize>, changes: Range<usize>) {
        let mut end = part.end;
        let mut left = changes.end;
        while left > changes.start {
            let change = &self.changes[left - 1];
            out.copy(change.end..end);
            let pieces = &self.pieces[change.pieces_start..change.pieces_end];
            for (index, piece) in pieces.iter().enumerate().rev() {
                let inside = piece.changes_start..piece.changes_end;
                if inside.is_empty() {
                    out.copy(piece.start..piece.end);
                } else {
                    self.write(out, piece.start..piece.end, inside);
                }
                if index > 0 {
                    out.comma();
                }
            }
            end = change.start;
            left = change.first_inside;
        }
        out.copy(part.start..end);
    }
}

/// Two vector registers.
const BLOCK: usize = 32;

/// Fills a buffer from its end.
struct BackwardWriter<'b> {
    read: &'b [u8],
    buffer: &'b mut [u8],
    at: usize,
}

impl BackwardWriter<'_> {
    fn copy(&mut self, part: Range<usize>) {
        let length = part.len();
        // Most parts are short. A block of fixed size is copied without a call. Its
        // surplus is in front, where the next part overwrites it.
        if length <= BLOCK
            && let Some(from) = self.read[..part.end].last_chunk::<BLOCK>()
            && let Some(to) = self.buffer[..self.at].last_chunk_mut()
        {
            *to = *from;
        } else {
            self.buffer[self.at - length..self.at].copy_from_slice(&self.read[part]);
        }
        self.at -= length;
    }

    fn comma(&mut self) {
        self.at -= 1;
        self.buffer[self.at] = b',';
    }
}

#[cfg(test)]
mod tests {
    use crate::canonical::canonicalize;

    /// Members of each length near a block's, before and after another, in used working
    /// memory. Red if a longer part is copied as a block, and if changes inside a member
    /// are skipped.
    #[test]
    fn member_of_any_length_is_moved_whole() {
        let dirt = format!(r#"{{"b":"{0}","a":"{0}"}}"#, "#".repeat(400));
        canonicalize(dirt.as_bytes()).unwrap();
        for first in 0..2 * super::BLOCK {
            for second in 0..2 * super::BLOCK {
                let (a, b) = ("x".repeat(first), "y".repeat(second));
                for (json, expected) in [
                    (
                        format!(r#"{{"b":"{b}","a":"{a}"}}"#),
                        format!(r#"{{"a":"{a}","b":"{b}"}}"#),
                    ),
                    (
                        format!(r#"["{b}",{{"d":{{"y{b}":1,"{a}":2}},"c":"{a}"}}]"#),
                        format!(r#"["{b}",{{"c":"{a}","d":{{"{a}":2,"y{b}":1}}}}]"#),
                    ),
                ] {
                    let canonical = canonicalize(json.as_bytes()).unwrap();
                    assert_eq!(String::from_utf8(canonical).unwrap(), expected, "{json}");
                }
            }
        }
    }
}
