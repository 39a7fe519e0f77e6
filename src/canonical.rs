//! The canonical form of a JSON text: RFC 8785 without its losses, read strictly in one
//! pass over the bytes. Nothing here hashes, keeps a payload, or turns a number into a
//! float.
//!
//! The form has RFC 8785's rules: no white space, members sorted by the UTF-16 code units
//! of their names, its string escapes, its number layout. One rule differs, since the
//! RFC's would lose digits: numbers are exact decimals. So 9007199254740992 and
//! 9007199254740993 stay two numbers, while `1`, `1.0` and `10e-1` are one and `-0` is
//! `0`. If a number is the shortest form of a double, the text is the RFC's. Strings are
//! not normalised.
//!
//! Reading is strict (RFC 8259 and rules of I-JSON). Refused are duplicate member names
//! (compared after unescaping), lone surrogates, invalid UTF-8, a byte order mark, text
//! after the value, more than 128 nested containers, and numbers with a scientific
//! exponent beyond ±10^15.

use std::cell::Cell;

use crate::error::ParseError;

mod arrange;
mod number;
mod pointer;
mod reader;
mod string;

use arrange::Arrangement;
pub(crate) use pointer::{Pointer, PointerSet, element_index};
use reader::Reader;
pub(crate) use string::{Name, plain_end};

/// The deepest nesting of containers.
const MAX_DEPTH: usize = 128;

/// How much working memory a thread keeps between two calls, in bytes.
const MAX_KEPT_BYTES: usize = 512 * 1024;

/// Writes the canonical form of a JSON text.
///
/// Two texts have the same canonical form exactly if they have the same value, whatever
/// their white space, member order, string escapes and spelling of numbers. The work is
/// linear in the text's length, except for sorting members that are not in order. There
/// is no limit on the length: the engine has one (`max_payload_bytes`).
///
/// ```
/// use genesys_once::canonical::canonicalize;
///
/// let canonical = canonicalize(br#" { "b" : 1.50, "a" : [ 1E2, "\u00e9\/" ] } "#)?;
/// assert_eq!(canonical, r#"{"a":[100,"é/"],"b":1.5}"#.as_bytes());
///
/// let error = canonicalize(br#"{"a":1,"\u0061":2}"#).unwrap_err();
/// assert_eq!((error.offset, error.reason), (7, "duplicate member name"));
/// # Ok::<(), genesys_once::error::ParseError>(())
/// ```
///
/// # Errors
///
/// A [`ParseError`] with a byte offset: of the first byte that breaks the grammar, the
/// bracket that nests too deeply, a number out of range, an escape that is half a surrogate
/// pair, or the opening quote of a name that repeats another name of its object.
pub fn canonicalize(json: &[u8]) -> Result<Vec<u8>, ParseError> {
    with_canonical(json, &PointerSet::default(), <[u8]>::to_vec)
}

/// Calls `sink` once with the canonical form of `json` without the parts that `ignored`
/// points at. The bytes are the thread's working memory, or `json` itself if it is
/// canonical.
pub(crate) fn with_canonical<R>(
    json: &[u8],
    ignored: &PointerSet,
    sink: impl FnOnce(&[u8]) -> R,
) -> Result<R, ParseError> {
    let text = match std::str::from_utf8(json) {
        Ok(text) => text,
        Err(error) => return Err(first_error(json, error.valid_up_to())),
    };
    // Taken, not borrowed: a sink that calls this function finds an empty one.
    let kept = SCRATCH.try_with(Cell::take).unwrap_or_default();
    let mut scratch = kept.unwrap_or_default();
    let result = scratch.canonical(text, ignored).map(sink);
    if scratch.bytes() <= MAX_KEPT_BYTES {
        // Fails only while the thread ends.
        let _ = SCRATCH.try_with(|kept| kept.set(Some(scratch)));
    }
    result
}

/// The error of a text that is not UTF-8 from `valid_up_to` on: that, or an earlier error.
fn first_error(json: &[u8], valid_up_to: usize) -> ParseError {
    let prefix = json.get(..valid_up_to).unwrap_or_default();
    match canonicalize(prefix) {
        Err(error) if error.offset < valid_up_to => error,
        _ => ParseError::new(valid_up_to, "invalid UTF-8"),
    }
}

thread_local! {
    /// Kept so that only a thread's first key allocates. Boxed, so that taking it moves a
    /// pointer.
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

/// Working memory.
#[derive(Default)]
struct Scratch {
    /// The text read so far, canonical except for the order of members.
    staged: Vec<u8>,
    /// The parts to sort.
    arrangement: Arrangement,
    /// The result, if a part was sorted.
    arranged: Vec<u8>,
}

impl Scratch {
    fn canonical<'s>(
        &'s mut self,
        text: &'s str,
        ignored: &PointerSet,
    ) -> Result<&'s [u8], ParseError> {
        self.staged.clear();
        self.arrangement.clear();
        let in_order = Reader::new(text, ignored, &mut self.staged, &mut self.arrangement).read();
        // `staged` would otherwise copy this part of the text.
        let in_order = in_order.map_err(|error| *error)?.unwrap_or(&self.staged);
        Ok(self.arrangement.apply(in_order, &mut self.arranged))
    }

    fn bytes(&self) -> usize {
        self.staged.capacity() + self.arrangement.bytes() + self.arranged.capacity()
    }
}

#[cfg(test)]
mod tests;
