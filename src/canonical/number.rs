//! Numbers as exact decimals: their grammar, and ECMAScript's layout of the digits. No
//! number becomes a float or loses a digit.

use std::ops::Range;

use crate::error::ParseError;

/// The largest scientific exponent of a number, positive or negative, so that 64-bit
/// arithmetic never overflows.
const MAX_EXPONENT: i64 = 1_000_000_000_000_000;

/// Larger exponents in a text are read as this one: no text has enough digits to bring
/// such a number back into range.
const SATURATED: i64 = 1_000_000_000_000_000_000;

/// A number of the text.
#[derive(Debug)]
pub(super) struct Number {
    start: usize,
    whole: Range<usize>,
    /// Empty without a point.
    fraction: Range<usize>,
    /// As written; `None` without an exponent.
    exponent: Option<i64>,
    /// Where the number ends.
    pub(super) end: usize,
}

impl Number {
    /// Reads the number that starts at `start` with a minus sign or a digit.
    pub(super) fn read(bytes: &[u8], start: usize) -> Result<Self, ParseError> {
        let first = start + usize::from(bytes.get(start) == Some(&b'-'));
        let whole = first..digits_end(bytes, first)?;
        if bytes.get(first) == Some(&b'0') && whole.len() > 1 {
            return Err(ParseError::new(first + 1, "a digit after a leading zero"));
        }
        let mut end = whole.end;
        let mut fraction = end..end;
        if bytes.get(end) == Some(&b'.') {
            fraction = end + 1..digits_end(bytes, end + 1)?;
            end = fraction.end;
        }
        let mut exponent = None;
        if let Some(b'e' | b'E') = bytes.get(end) {
            let (read, exponent_end) = read_exponent(bytes, end + 1)?;
            (exponent, end) = (Some(read), exponent_end);
        }
        Ok(Self {
            start,
            whole,
            fraction,
            exponent,
            end,
        })
    }

    /// Where the canonical form ends, if the text begins with it: most numbers
    /// are canonical as they stand, or but for zeros behind the last decimal.
    /// `None` where that is not so, or not seen at a glance.
    pub(super) fn canonical_end(&self, bytes: &[u8]) -> Option<usize> {
        if self.exponent.is_some() || self.whole.len() > 21 {
            return None;
        }
        let zero = bytes.get(self.whole.start) == Some(&b'0');
        if self.fraction.is_empty() {
            // "-0" is the only integer that is not canonical.
            return (!zero || self.whole.start == self.start).then_some(self.end);
        }
        let fraction = &bytes[self.fraction.clone()];
        if zero && fraction.iter().take(6).all(|&digit| digit == b'0') {
            return None;
        }
        match fraction.iter().rposition(|&digit| digit != b'0') {
            Some(last) => Some(self.fraction.start + last + 1),
            None => Some(self.whole.end),
        }
    }

    /// Appends the canonical form: ECMAScript's layout (`Number::toString`, ECMA-262,
    /// 6.1.6.1.20; RFC 8785 section 3.2.2.3) of exactly the digits of the number.
    pub(super) fn write(&self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), ParseError> {
        let whole = &bytes[self.whole.clone()];
        let fraction = &bytes[self.fraction.clone()];
        let count = whole.len() + fraction.len();
        let is_digit = |digit: &u8| *digit != b'0';
        let Some(first) = whole.iter().chain(fraction).position(is_digit) else {
            out.push(b'0');
            return Ok(());
        };
        let zeros = whole.iter().chain(fraction).rev().position(is_digit);
        let last = count - zeros.unwrap_or(0);
        // The significant digits numbered `from..to`.
        let digits = |out: &mut Vec<u8>, from: usize, to: usize| {
            let (from, to) = (first + from, first + to);
            let point = whole.len();
            out.extend_from_slice(&whole[from.min(point)..to.min(point)]);
            out.extend_from_slice(&fraction[from.max(point) - point..to.max(point) - point]);
        };
        let k = last - first;
        let n = position(whole.len()) - position(first) + self.exponent.unwrap_or(0);
        if (n - 1).abs() > MAX_EXPONENT {
            return Err(ParseError::new(self.start, "number out of range"));
        }
        if self.whole.start != self.start {
            out.push(b'-');
        }
        match usize::try_from(n) {
            Ok(n @ 1..=21) if k <= n => {
                digits(out, 0, k);
                out.resize(out.len() + n - k, b'0');
            }
            Ok(n @ 1..=21) => {
                digits(out, 0, n);
                out.push(b'.');
                digits(out, n, k);
            }
            _ if -6 < n && n <= 0 => {
                out.extend_from_slice(b"0.");
                out.resize(out.len() + n.unsigned_abs() as usize, b'0');
                digits(out, 0, k);
            }
            _ => {
                digits(out, 0, 1);
                if k > 1 {
                    out.push(b'.');
                    digits(out, 1, k);
                }
                out.push(b'e');
                out.push(if n > 0 { b'+' } else { b'-' });
                write_integer((n - 1).unsigned_abs(), out);
            }
        }
        Ok(())
    }
}

/// Reads the exponent after the `e`, and its end.
#[inline(never)]
fn read_exponent(bytes: &[u8], pos: usize) -> Result<(i64, usize), ParseError> {
    let sign = bytes.get(pos).filter(|s| matches!(s, b'+' | b'-'));
    let first = pos + usize::from(sign.is_some());
    let end = digits_end(bytes, first)?;
    let size = bytes[first..end].iter().fold(0_i64, |size, digit| {
        (size.min(SATURATED / 10) * 10 + i64::from(digit - b'0')).min(SATURATED)
    });
    Ok((if sign == Some(&b'-') { -size } else { size }, end))
}

/// Where the digits from `pos` on end; at least one is needed.
fn digits_end(bytes: &[u8], pos: usize) -> Result<usize, ParseError> {
    let mut end = pos;
    while let Some(b'0'..=b'9') = bytes.get(end) {
        end += 1;
    }
    if end == pos {
        return Err(no_digit(bytes, pos));
    }
    Ok(end)
}

#[cold]
fn no_digit(bytes: &[u8], pos: usize) -> ParseError {
    let reason = if pos < bytes.len() {
        "expected a digit"
    } else {
        "the text ends inside a number"
    };
    ParseError::new(pos, reason)
}

/// A position in a text as a signed number. No text is longer than `isize::MAX` bytes.
fn position(pos: usize) -> i64 {
    i64::try_from(pos).unwrap_or(i64::MAX)
}

fn write_integer(mut value: u64, out: &mut Vec<u8>) {
    let start = out.len();
    loop {
        out.push(b'0' + (value % 10) as u8);
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out[start..].reverse();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A number that is copied and a number that is written digit by digit are equal.
    #[track_caller]
    fn assert_same_both_ways(text: &str) -> bool {
        let bytes = text.as_bytes();
        let number = Number::read(bytes, 0).unwrap();
        let mut written = Vec::new();
        number.write(bytes, &mut written).unwrap();
        let taken = number.canonical_end(bytes).map(|end| &bytes[..end]);
        assert!(taken.is_none_or(|taken| taken == written), "{text}");
        taken.is_some()
    }

    #[test]
    fn canonical_number_is_copied() {
        for text in ["0", "-7", "19.90", "20.00", "0.50", "0.000001", "-1.5"] {
            assert!(assert_same_both_ways(text), "{text}");
        }
        for text in ["-0", "0.0", "-0.00", "0.0000001", "1e2", "1.0e0"] {
            assert!(!assert_same_both_ways(text), "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        /// Red without each of the four guards in `canonical_end`.
        #[test]
        fn what_is_taken_is_what_would_be_written(
            text in "-?(0|[1-9][0-9]{0,4}|[1-9][0-9]{18,23})(\\.0{0,8}[0-9]{1,3}0{0,3})?(e-?[0-9])?",
        ) {
            assert_same_both_ways(&text);
        }
    }
}
