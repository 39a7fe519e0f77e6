//! Bytes as hex digits and back, by tables. It knows no type of the crate.

use std::fmt;

/// Writes bytes as lower-case hex digits.
pub(super) fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    // In large pieces: each write costs time.
    let mut text = [0; 64];
    for part in bytes.chunks(text.len() / 2) {
        // ASCII digits, so the conversion cannot fail.
        let digits = std::str::from_utf8(hex_digits(part, &mut text));
        f.write_str(digits.map_err(|_| fmt::Error)?)?;
    }
    Ok(())
}

/// Adds bytes as lower-case hex digits, without a formatter: each command writes names
/// and records.
pub(crate) fn push_hex(to: &mut Vec<u8>, bytes: &[u8]) {
    let mut text = [0; 64];
    for part in bytes.chunks(text.len() / 2) {
        to.extend_from_slice(hex_digits(part, &mut text));
    }
}

/// The digits of up to 32 bytes.
pub(super) fn hex_digits<'a>(bytes: &[u8], text: &'a mut [u8; 64]) -> &'a [u8] {
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&PAIRS[usize::from(*byte)]);
    }
    &text[..2 * bytes.len()]
}

/// The digits of each byte.
static PAIRS: [[u8; 2]; 256] = {
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        let digits = b"0123456789abcdef";
        pairs[byte] = [digits[byte >> 4], digits[byte & 15]];
        byte += 1;
    }
    pairs
};

/// Reads exactly `N` bytes of hex digits.
pub(super) fn read_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let value = |digit: u8| VALUES[usize::from(digit)];
    let mut bytes = [0; N];
    let mut seen = 0;
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let (high, low) = (value(pair[0]), value(pair[1]));
        seen |= high | low;
        *byte = high << 4 | low;
    }
    (seen < NO_DIGIT).then_some(bytes)
}

/// The value of each character as a hex digit.
static VALUES: [u8; 256] = {
    let mut values = [NO_DIGIT; 256];
    let mut value = 0;
    while value < 16 {
        let digit = b"0123456789abcdef"[value];
        values[digit as usize] = value as u8;
        values[digit.to_ascii_uppercase() as usize] = value as u8;
        value += 1;
    }
    values
};

const NO_DIGIT: u8 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_digits_are_those_of_char() {
        for byte in 0..128 {
            let digit = char::from(byte);
            let text = format!("{digit}7c{digit}");
            let expected = digit.to_digit(16).map(|value| {
                let value = value as u8;
                [value << 4 | 7, 0xc0 | value]
            });
            assert_eq!(read_hex::<2>(&text), expected, "{digit:?}");
        }
        // Longer than what is written in one piece.
        struct Long([u8; 77]);
        impl fmt::Display for Long {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(&self.0, f)
            }
        }
        let bytes = std::array::from_fn(|i| (i as u8).wrapping_mul(5));
        let text = Long(bytes).to_string();
        assert_eq!(read_hex(&text), Some(bytes));
        assert_eq!(text, text.to_lowercase());
    }
}
