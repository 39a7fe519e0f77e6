//! Strings: where their plain runs end, their escapes and RFC 8785's spelling of them, and
//! the order of member names. Nothing here allocates.

use std::cmp::Ordering;

use crate::error::ParseError;

/// The first position from `pos` on whose byte is a quote, a backslash or a
/// control character; the text's length if there is none.
#[inline]
pub(crate) fn plain_end(bytes: &[u8], mut pos: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    while let Some(chunk) = bytes.get(pos..).and_then(<[u8]>::first_chunk::<8>) {
        let word = u64::from_le_bytes(*chunk);
        // Eight bytes at a time: a byte's high bit is set if it is less than the
        // subtrahend. A borrow can set bits only above a true hit, so that the lowest
        // hit is exact.
        let quote = word ^ (ONES * b'"' as u64);
        let backslash = word ^ (ONES * b'\\' as u64);
        let hits = (word.wrapping_sub(ONES * 0x20) & !word)
            | (quote.wrapping_sub(ONES) & !quote)
            | (backslash.wrapping_sub(ONES) & !backslash);
        let hits = hits & HIGH;
        if hits != 0 {
            return pos + (hits.trailing_zeros() / 8) as usize;
        }
        pos += 8;
    }
    while let Some(&byte) = bytes.get(pos) {
        if byte < 0x20 || byte == b'"' || byte == b'\\' {
            break;
        }
        pos += 1;
    }
    pos
}

/// Reads the escape whose backslash is at `at`: its character and its end.
pub(super) fn escape(bytes: &[u8], at: usize) -> Result<(char, usize), ParseError> {
    let Some(&kind) = bytes.get(at + 1) else {
        return Err(ParseError::new(at + 1, "the text ends inside a string"));
    };
    let character = match kind {
        b'"' | b'\\' | b'/' => char::from(kind),
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return unicode_escape(bytes, at),
        _ => return Err(ParseError::new(at, "unknown escape")),
    };
    Ok((character, at + 2))
}

fn unicode_escape(bytes: &[u8], at: usize) -> Result<(char, usize), ParseError> {
    let lone = ParseError::new(at, "lone surrogate");
    let first = code_unit(bytes, at + 2)?;
    if let Some(character) = char::from_u32(first) {
        return Ok((character, at + 6));
    }
    if first >= 0xDC00 || !bytes.get(at + 6..).is_some_and(|b| b.starts_with(b"\\u")) {
        return Err(lone);
    }
    let second = code_unit(bytes, at + 8)?;
    if !(0xDC00..=0xDFFF).contains(&second) {
        return Err(lone);
    }
    let scalar = 0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00);
    char::from_u32(scalar).map(|c| (c, at + 12)).ok_or(lone)
}

/// Four hex digits.
fn code_unit(bytes: &[u8], at: usize) -> Result<u32, ParseError> {
    let mut unit = 0;
    for pos in at..at + 4 {
        let Some(&digit) = bytes.get(pos) else {
            return Err(ParseError::new(pos, "the text ends inside a string"));
        };
        let Some(value) = char::from(digit).to_digit(16) else {
            return Err(ParseError::new(pos, "expected a hex digit"));
        };
        unit = unit << 4 | value;
    }
    Ok(unit)
}

/// A character inside a string by RFC 8785 (section 3.2.2.2).
pub(super) fn spell(character: char, buffer: &mut [u8; 6]) -> &[u8] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let short = match character {
        '"' => b'"',
        '\\' => b'\\',
        '\u{8}' => b'b',
        '\u{c}' => b'f',
        '\n' => b'n',
        '\r' => b'r',
        '\t' => b't',
        '\0'..='\u{1f}' => {
            let code = character as usize;
            *buffer = [
                b'\\',
                b'u',
                b'0',
                b'0',
                DIGITS[code >> 4],
                DIGITS[code & 15],
            ];
            return buffer;
        }
        _ => return character.encode_utf8(buffer).as_bytes(),
    };
    buffer[..2].copy_from_slice(&[b'\\', short]);
    &buffer[..2]
}

/// The position of a member name in the text, between its quotes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Name {
    /// The first eight bytes as a number: if two numbers differ, they order the names.
    prefix: u64,
    start: usize,
    end: usize,
    escaped: bool,
}

impl Name {
    /// The name between `start` and `end`, which has been read and is valid;
    /// `escaped` where it contains a backslash.
    pub(crate) fn new(text: &str, start: usize, end: usize, escaped: bool) -> Self {
        // Inlined to stay in registers: a name in memory is stored in parts and loaded
        // whole, for which a processor waits.
        let prefix = if escaped {
            decoded_prefix(text.get(start..end).unwrap_or_default())
        } else {
            plain_prefix(text.as_bytes(), start, end)
        };
        Self {
            prefix,
            start,
            end,
            escaped,
        }
    }

    /// The name of an array's element, which keeps elements in their order.
    #[inline]
    pub(super) fn of_element(index: usize) -> Self {
        Self {
            prefix: index as u64,
            start: 0,
            end: 0,
            escaped: false,
        }
    }

    /// The opening quote's byte offset.
    pub(super) fn offset(&self) -> usize {
        self.start - 1
    }

    /// Compares by UTF-16 code units (RFC 8785, section 3.2.3).
    #[inline]
    pub(super) fn compare(&self, other: &Self, text: &str) -> Ordering {
        match self.prefix.cmp(&other.prefix) {
            Ordering::Equal => self.compare_whole(other, text),
            decided => decided,
        }
    }

    fn compare_whole(&self, other: &Self, text: &str) -> Ordering {
        if self.escaped || other.escaped {
            let units = |name: &Self| name.characters(text).flat_map(utf16);
            return units(self).cmp(units(other));
        }
        let (mine, others) = (self.raw(text).as_bytes(), other.raw(text).as_bytes());
        match mine.iter().zip(others).find(|(a, b)| a != b) {
            Some((&a, &b)) => rank(a).cmp(&rank(b)),
            None => mine.len().cmp(&others.len()),
        }
    }

    /// The name's characters, unescaped.
    pub(crate) fn characters<'t>(&self, text: &'t str) -> impl Iterator<Item = char> + use<'t> {
        unescaped(self.raw(text))
    }

    /// Whether this is a spelling of `name`.
    pub(crate) fn is(&self, name: &str, text: &str) -> bool {
        if self.escaped {
            self.characters(text).eq(name.chars())
        } else {
            self.raw(text) == name
        }
    }

    fn raw<'t>(&self, text: &'t str) -> &'t str {
        text.get(self.start..self.end).unwrap_or_default()
    }
}

/// The characters of a valid string between its quotes.
fn unescaped(raw: &str) -> impl Iterator<Item = char> {
    let mut pos = 0;
    std::iter::from_fn(move || {
        let next = raw.get(pos..)?.chars().next()?;
        if next != '\\' {
            pos += next.len_utf8();
            return Some(next);
        }
        let (character, end) = escape(raw.as_bytes(), pos).ok()?;
        pos = end;
        Some(character)
    })
}

#[cold]
fn decoded_prefix(raw: &str) -> u64 {
    let mut bytes = [0; 8];
    let mut length = 0;
    for character in unescaped(raw) {
        for &byte in character.encode_utf8(&mut [0; 4]).as_bytes() {
            if length == bytes.len() {
                return u64::from_be_bytes(bytes);
            }
            bytes[length] = rank(byte);
            length += 1;
        }
    }
    u64::from_be_bytes(bytes)
}

#[inline]
fn plain_prefix(bytes: &[u8], start: usize, end: usize) -> u64 {
    let length = end - start;
    let word = match bytes.get(start..).and_then(<[u8]>::first_chunk::<8>) {
        Some(chunk) => {
            let word = u64::from_be_bytes(*chunk);
            // Only the name counts, not the text after it.
            match length {
                0 => 0,
                1..8 => word & (u64::MAX << (64 - 8 * length)),
                _ => word,
            }
        }
        None => {
            let mut chunk = [0; 8];
            for (to, from) in chunk.iter_mut().zip(&bytes[start..end]) {
                *to = *from;
            }
            u64::from_be_bytes(chunk)
        }
    };
    if word & 0x8080_8080_8080_8080 == 0 {
        word
    } else {
        u64::from_be_bytes(word.to_be_bytes().map(rank))
    }
}

/// The rank of a UTF-8 byte in UTF-16's order: characters beyond U+FFFF are surrogates there
/// and come before U+E000..=U+FFFF.
#[inline]
fn rank(byte: u8) -> u8 {
    match byte {
        0xEE..=0xEF => byte + 5,
        0xF0..=0xF4 => byte - 2,
        _ => byte,
    }
}

fn utf16(character: char) -> impl Iterator<Item = u16> {
    let mut units = [0; 2];
    let length = character.encode_utf16(&mut units).len();
    units.into_iter().take(length)
}
