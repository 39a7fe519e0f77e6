//! The borders between values in a stream of RESP3, in either direction: a command is a
//! value, too. It stores no byte of any value, and refuses one that is too large before
//! the rest of it is received.

/// The most values within one value: a map of a cluster with a shard for each slot.
const MAX_VALUES: u64 = 200_000;

/// The longest line: a simple string, an error or a number.
const MAX_LINE: usize = 64 << 10;

/// The state of reading.
#[derive(Debug)]
pub(crate) struct RespFraming {
    /// The most bytes that one value may have.
    bound: u64,
    /// Values that the current value still needs.
    open: u64,
    /// Values so far within the current value, and their bytes.
    values: u64,
    bytes: u64,
    /// Remaining bytes of a string, its line end included.
    skip: u64,
    line: Option<Line>,
    /// Bytes of the last read up to the end of its last complete value.
    pub(crate) whole: usize,
}

/// An incomplete line.
#[derive(Debug)]
struct Line {
    kind: u8,
    length: usize,
    number: u64,
    is_negative: bool,
    is_number: bool,
}

/// Why a stream is not read further.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FramingError {
    /// A value is larger than the bound.
    TooLarge,
    /// It is not RESP.
    Malformed,
}

impl RespFraming {
    pub(crate) fn new(bound: usize) -> Self {
        Self {
            bound: bound as u64,
            open: 0,
            values: 0,
            bytes: 0,
            skip: 0,
            line: None,
            whole: 0,
        }
    }

    /// Reads more bytes, and calls `begun` with the first byte of each outermost value; its
    /// error ends the reading.
    pub(crate) fn read<E: From<FramingError>>(
        &mut self,
        mut bytes: &[u8],
        mut begun: impl FnMut(u8) -> Result<(), E>,
    ) -> Result<(), E> {
        let length = bytes.len();
        self.whole = 0;
        while let Some((&byte, rest)) = bytes.split_first() {
            if self.is_complete() {
                self.whole = length - bytes.len();
            }
            if self.skip > 0 {
                let skipped = bytes
                    .len()
                    .min(usize::try_from(self.skip).unwrap_or(usize::MAX));
                self.skip -= skipped as u64;
                bytes = &bytes[skipped..];
                continue;
            }
            bytes = rest;
            match &mut self.line {
                None => {
                    if self.open == 0 {
                        begun(byte)?;
                        (self.open, self.values, self.bytes) = (1, 0, 0);
                    }
                    self.line = Some(Line::of(byte));
                }
                Some(line) => {
                    if line.push(byte)? {
                        continue;
                    }
                    let (line, length) = (self.line.take(), 2);
                    if let Some(line) = line {
                        self.take(&line, length + line.length as u64)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether the last value is complete.
    fn is_complete(&self) -> bool {
        self.open == 0 && self.skip == 0 && self.line.is_none()
    }

    fn take(&mut self, line: &Line, length: u64) -> Result<(), FramingError> {
        self.values += 1;
        self.open -= 1;
        self.grow(length)?;
        let number = || match line.is_number {
            true => Ok(line.number),
            false => Err(FramingError::Malformed),
        };
        let items = match line.kind {
            b'$' | b'=' | b'!' if !line.is_negative => {
                self.skip = number()?.saturating_add(2);
                self.grow(self.skip)?;
                0
            }
            b'*' | b'~' | b'>' if !line.is_negative => number()?,
            b'%' => number()?.saturating_mul(2),
            // Attributes of the value that follows.
            b'|' => number()?.saturating_mul(2).saturating_add(1),
            b'$' | b'*' | b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => 0,
            _ => return Err(FramingError::Malformed),
        };
        self.open = self.open.saturating_add(items);
        if self.values.saturating_add(self.open) > MAX_VALUES {
            return Err(FramingError::TooLarge);
        }
        Ok(())
    }

    fn grow(&mut self, bytes: u64) -> Result<(), FramingError> {
        self.bytes = self.bytes.saturating_add(bytes);
        match self.bytes > self.bound {
            true => Err(FramingError::TooLarge),
            false => Ok(()),
        }
    }
}

impl Line {
    fn of(kind: u8) -> Self {
        Self {
            kind,
            length: 0,
            number: 0,
            is_negative: false,
            is_number: true,
        }
    }

    /// Adds a byte; returns whether the line goes on.
    fn push(&mut self, byte: u8) -> Result<bool, FramingError> {
        self.length += 1;
        match byte {
            b'\n' => return Ok(false),
            b'\r' => {}
            b'0'..=b'9' => {
                let digit = u64::from(byte - b'0');
                self.number = self.number.saturating_mul(10).saturating_add(digit);
            }
            b'-' if self.length == 1 => self.is_negative = true,
            _ => self.is_number = false,
        }
        match self.length > MAX_LINE {
            true => Err(FramingError::TooLarge),
            false => Ok(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first bytes of the values in a stream, read in pieces of that size.
    fn kinds(stream: &[u8], piece: usize, bound: usize) -> Result<(String, bool), FramingError> {
        let (mut framing, mut kinds) = (RespFraming::new(bound), String::new());
        for piece in stream.chunks(piece) {
            framing.read::<FramingError>(piece, |kind| {
                kinds.push(kind.into());
                Ok(())
            })?;
        }
        Ok((kinds, framing.is_complete()))
    }

    /// Every type of value, in pieces of any size.
    #[test]
    fn values_are_separated() {
        let stream = b"*2\r\n$3\r\nGET\r\n$0\r\n\r\n+OK\r\n-ERR $5\r\n:-1\r\n$-1\r\n*-1\r\n_\r\n\
            #t\r\n,1.5e-3\r\n(123\r\n=7\r\ntxt:a\r\n\r\n!3\r\nERR\r\n%1\r\n+a\r\n*1\r\n:1\r\n\
            ~0\r\n>2\r\n+message\r\n$1\r\n*\r\n|1\r\n+ttl\r\n:1\r\n$1\r\nx\r\n*0\r\n";
        for piece in 1..stream.len() {
            let read = kinds(stream, piece, 1000).unwrap();
            assert_eq!(read, ("*+-:$*_#,(=!%~>|*".into(), true), "{piece}");
        }
        let (_, is_complete) = kinds(b"*2\r\n+a\r\n$3\r\nab", 100, 1000).unwrap();
        assert!(!is_complete);
    }

    /// Red when a value is refused only once all of it is received.
    #[test]
    fn large_value_is_refused_by_its_header() {
        for stream in [
            &b"$1001\r\n"[..],
            b"$1000000000000\r\n",
            b"$99999999999999999999999999\r\n",
            b"*2147483647\r\n",
            b"%18446744073709551615\r\n",
            b"*2\r\n$600\r\n",
        ] {
            let rest = [stream, &[b'a'; 600], b"\r\n$600\r\n"].concat();
            assert_eq!(
                kinds(&rest, 7, 1000),
                Err(FramingError::TooLarge),
                "{stream:?}"
            );
        }
        // A line without an end, and many null values.
        let endless = [b"+".as_slice(), &[b'a'; MAX_LINE + 1]].concat();
        assert_eq!(kinds(&endless, 1000, 1 << 30), Err(FramingError::TooLarge));
        let many = [b"*300000\r\n".as_slice(), &b"_\r\n".repeat(10)].concat();
        assert_eq!(kinds(&many, 1000, 1 << 30), Err(FramingError::TooLarge));
        for stream in [&b"hello\r\n"[..], b"$x\r\n", b"*1.5\r\n", b"$?\r\n"] {
            assert_eq!(
                kinds(stream, 3, 1000),
                Err(FramingError::Malformed),
                "{stream:?}"
            );
        }
    }
}
