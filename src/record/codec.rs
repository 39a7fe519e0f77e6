//! A record as bytes: one line of text that scripts read, one line of JSON, then the body
//! of the platform's answer, byte for byte. It decides no transition.
//!
//! ```text
//! genesys-once/3 STATE PHASE LEASE REV STEP FINGERPRINT LEASE_MS RETENTION_MS\n
//! {"name":"genesys-once:NAMESPACE:KEY",…}\n
//! BODY
//! ```
//!
//! A store may store a body separately, under another name. Then the JSON has
//! `"apart":true` beside the length of the body, and nothing follows it.
//!
//! The first line ends within 512 bytes. Its words are separated by one space; states and
//! phases are lower-case letters and `-`, numbers are decimal digits, at most 15, hex
//! digits are lower case. Words that follow the known ones, whatever bytes they have, and
//! unknown members of the JSON are ignored. Scripts read the line by the same rules
//! (`header.lua`). A reader refuses a newer version, an unknown state, a damaged line,
//! another record's name and a body that is cut. It accepts unknown notes for people and an
//! unknown reason for a release.

use std::str::FromStr;
use std::time::Duration;

use memchr::memchr;

pub(in crate::record) use self::json_bytes::JsonBytes;
use self::json_reader::RecordJson;
use self::json_writer::{LockJson, Name, RefusalJson, millis, write_json, write_outcome};
#[cfg(feature = "encrypted")]
use super::Caller;
#[cfg(feature = "encrypted")]
use super::StoredOutcome;
use super::{Content, Phase, Record, Refusal};
use crate::error::StoreError;
use crate::key::{RecordName, push_hex};

mod json_bytes;
mod json_notes;
mod json_reader;
mod json_writer;
#[cfg(feature = "redis")]
mod separate_body;
#[cfg(test)]
mod tests;

/// The first bytes of records of all versions.
const FAMILY: &str = "genesys-once/";

/// The first bytes of records of this version.
pub(crate) const MAGIC: &str = "genesys-once/3";

/// The version of the records that this crate reads and writes.
fn version() -> &'static str {
    MAGIC.strip_prefix(FAMILY).unwrap_or_default()
}

/// Whether a later version wrote a record that cannot be read. Then it is not damaged.
#[cfg(any(feature = "file", feature = "redis"))]
pub(crate) fn is_newer(bytes: &[u8]) -> bool {
    let written = bytes.strip_prefix(FAMILY.as_bytes());
    let written = written.and_then(|rest| rest.split(u8::is_ascii_whitespace).next());
    let number = |text: &[u8]| std::str::from_utf8(text).ok()?.parse::<u32>().ok();
    // No version up to this one wrote anything but a number.
    written.is_some_and(|written| {
        number(written).is_none_or(|written| Some(written) > number(version().as_bytes()))
    })
}

/// Digits of a number in the first line, at most: below 2^53, where numbers of
/// scripts are still exact integers.
const MAX_DIGITS: usize = 15;
const MAX_NUMBER: u64 = 999_999_999_999_999;

/// Room for the first line of any record.
const LINE: usize = 224;

/// Room for the member names and brackets of a record's JSON, its own name included.
const ROOM: usize = 512;

impl Record {
    /// The record as a store holds it under `name`.
    pub fn encode(&self, name: &RecordName) -> Vec<u8> {
        let (word, phase) = self.content.words();
        let mut bytes = Vec::with_capacity(LINE + self.content.room());
        for word in [MAGIC, " ", word, " ", phase, " "] {
            bytes.extend_from_slice(word.as_bytes());
        }
        push_hex(&mut bytes, self.lease.as_bytes());
        push_number(&mut bytes, self.rev);
        push_number(&mut bytes, self.step.into());
        bytes.push(b' ');
        push_hex(&mut bytes, self.fingerprint.as_bytes());
        push_number(&mut bytes, millis(self.lease_ttl));
        push_number(&mut bytes, millis(self.retention));
        bytes.push(b'\n');
        self.content.write(name, &mut bytes);
        bytes
    }

    /// Reads what [`encode`](Self::encode) wrote under the same name.
    ///
    /// # Errors
    ///
    /// `StoreError::unreadable` for a newer version, for another record's bytes
    /// and for anything damaged.
    pub fn decode(name: &RecordName, bytes: &[u8]) -> Result<Self, StoreError> {
        match Self::decode_separate(name, bytes)? {
            (record, None) => Ok(record),
            _ => Err(StoreError::unreadable("its body is stored separately")),
        }
    }

    /// Reads a record whose outcome might have its body separately. Then the outcome has
    /// none, and the second value is the length of the body.
    ///
    /// # Errors
    ///
    /// Those of [`decode`](Self::decode).
    pub(crate) fn decode_separate(
        name: &RecordName,
        bytes: &[u8],
    ) -> Result<(Self, Option<usize>), StoreError> {
        let (line, rest) = first_line(bytes, 512).ok_or_else(|| {
            StoreError::unreadable("malformed record: no header line in its first 512 bytes")
        })?;
        // What follows the known words may be anything.
        let mut words = line.split(|&b| b == b' ');
        let magic = words.next().unwrap_or_default();
        if magic != MAGIC.as_bytes() {
            return Err(StoreError::unreadable(
                match magic.strip_prefix(FAMILY.as_bytes()) {
                    Some(other) => {
                        let other = String::from_utf8_lossy(other);
                        format!("it has version {other:?}, this is version {}", version())
                    }
                    None => "it is not a record of genesys-once".into(),
                },
            ));
        }
        let mut known: [&[u8]; 8] = [b""; 8];
        for (found, word) in known.iter_mut().enumerate() {
            *word = words.next().ok_or_else(|| {
                StoreError::unreadable(format!(
                    "malformed record header: expected 8 fields, found {found}"
                ))
            })?;
        }
        let [
            word,
            phase,
            lease,
            rev,
            step,
            fingerprint,
            lease_ttl,
            retention,
        ] = known;
        let (rev, lease) = (number("revision", rev)?, hex("lease", lease)?);
        let step = u32::try_from(number("step", step)?)
            .map_err(|_| StoreError::unreadable("its step is damaged"))?;
        let fingerprint = hex("fingerprint", fingerprint)?;
        let lease_ttl = Duration::from_millis(number("lease time", lease_ttl)?);
        let retention = Duration::from_millis(number("retention", retention)?);
        let mut apart = None;
        let content = match (word, phase) {
            (b"locked", b"claimed") => read_locked(name, rest, Phase::Claimed)?,
            (b"locked", b"dispatched") => read_locked(name, rest, Phase::Dispatched)?,
            (b"cached", b"-") => {
                let (content, length) = read_cached(name, rest)?;
                apart = length;
                content
            }
            (b"indeterminate", b"-") => read_indeterminate(name, rest)?,
            // The key is free, whatever the kind of refusal.
            (b"released", phase) if is_word(phase) => read_released(name, rest)?,
            _ => return Err(StoreError::unreadable("unknown record state")),
        };
        let record = Self {
            rev,
            lease,
            step,
            lease_ttl,
            retention,
            fingerprint,
            content,
        };
        Ok((record, apart))
    }
}

fn push_number(to: &mut Vec<u8>, number: u64) {
    to.push(b' ');
    to.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// The first line and what follows it, where it ends within `limit` bytes.
fn first_line(bytes: &[u8], limit: usize) -> Option<(&[u8], &[u8])> {
    let end = memchr(b'\n', &bytes[..bytes.len().min(limit)])?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

fn is_word(word: &[u8]) -> bool {
    !word.is_empty() && word.iter().all(|b| b.is_ascii_lowercase() || *b == b'-')
}

fn number(field: &str, word: &[u8]) -> Result<u64, StoreError> {
    if (1..=MAX_DIGITS).contains(&word.len()) && word.iter().all(u8::is_ascii_digit) {
        let digit = |b: &u8| u64::from(b - b'0');
        return Ok(word.iter().fold(0, |number, b| number * 10 + digit(b)));
    }
    Err(StoreError::unreadable(format!("its {field} is damaged")))
}

fn hex<T: FromStr>(field: &str, word: &[u8]) -> Result<T, StoreError> {
    // All bytes, without an early end: the compiler compares many at once.
    let upper = word
        .iter()
        .fold(false, |upper, b| upper | b.is_ascii_uppercase());
    let text = std::str::from_utf8(word).ok().filter(|_| !upper);
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| StoreError::unreadable(format!("its {field} is damaged")))
}

impl Content {
    /// The words of a state in the first line.
    pub(crate) fn words(&self) -> (&'static str, &'static str) {
        match self {
            Self::Locked { phase, .. } => ("locked", phase.word()),
            Self::Cached { .. } => ("cached", "-"),
            Self::Indeterminate { .. } => ("indeterminate", "-"),
            Self::Released { refusal: None } => ("released", "-"),
            Self::Released { refusal: Some(_) } => ("released", "refused"),
        }
    }

    /// Writes what follows the first line: the JSON, and the body where there is one.
    pub(crate) fn write(&self, name: &RecordName, to: &mut Vec<u8>) {
        let name = Some(Name(name));
        match self {
            Self::Locked {
                attempts, about, ..
            } => write_json(to, &LockJson::of(name, attempts, about)),
            Self::Indeterminate {
                attempts,
                about,
                cause,
            } => {
                let stored = LockJson::of(name, attempts, about);
                write_json(to, &stored.with_cause(cause.as_ref()));
            }
            Self::Cached { stored, origin } => write_outcome(to, name, stored, Some(origin)),
            Self::Released { refusal } => match refusal {
                Some(Refusal::Refused(stored)) => write_outcome(to, name, stored, None),
                Some(Refusal::RateLimited { retry_after }) => {
                    let retry_after_ms = Some(millis(*retry_after));
                    write_json(
                        to,
                        &RefusalJson {
                            name,
                            retry_after_ms,
                        },
                    );
                }
                None => {
                    let retry_after_ms = None;
                    write_json(
                        to,
                        &RefusalJson {
                            name,
                            retry_after_ms,
                        },
                    );
                }
            },
        }
    }

    /// About how many bytes [`write`](Self::write) writes.
    pub(crate) fn room(&self) -> usize {
        match self {
            Self::Indeterminate { cause, .. } => {
                ROOM + cause.as_ref().map_or(0, |cause| cause.text.len())
            }
            Self::Cached { stored, .. }
            | Self::Released {
                refusal: Some(Refusal::Refused(stored)),
            } => ROOM + stored.outcome.weight(),
            Self::Locked { .. } | Self::Released { .. } => ROOM,
        }
    }
}

impl Phase {
    /// Its word in the first line.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Claimed => "claimed",
            Self::Dispatched => "dispatched",
        }
    }
}

/// The plain bytes of an encrypted outcome: its JSON and its body as in a record, without
/// the record's name.
#[cfg(feature = "encrypted")]
pub(crate) fn encode_outcome(stored: &StoredOutcome) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ROOM + stored.outcome.weight());
    write_outcome(&mut bytes, None, stored, None);
    bytes
}

/// Reads what [`encode_outcome`] wrote.
#[cfg(feature = "encrypted")]
pub(crate) fn decode_outcome(bytes: &[u8]) -> Result<StoredOutcome, StoreError> {
    let (stored, rest) = RecordJson::read(None, bytes)?;
    stored.outcome(rest)
}

/// The plain bytes of the caller's encrypted names for a request.
#[cfg(feature = "encrypted")]
pub(crate) fn encode_caller(caller: &Caller) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_json(&mut bytes, &json_writer::CallerJson::of(caller));
    bytes
}

/// Reads what [`encode_caller`] wrote.
#[cfg(feature = "encrypted")]
pub(crate) fn decode_caller(bytes: &[u8]) -> Option<Caller> {
    Some(RecordJson::read(None, bytes).ok()?.0.caller())
}

fn read_locked(name: &RecordName, bytes: &[u8], phase: Phase) -> Result<Content, StoreError> {
    let (stored, _) = RecordJson::read(Some(name), bytes)?;
    Ok(Content::Locked {
        phase,
        attempts: stored.attempts()?,
        about: stored.about().into(),
    })
}

fn read_cached(name: &RecordName, bytes: &[u8]) -> Result<(Content, Option<usize>), StoreError> {
    let (stored, rest) = RecordJson::read(Some(name), bytes)?;
    let origin = stored.origin();
    let (stored, apart) = stored.separate_body(rest)?;
    Ok((Content::Cached { stored, origin }, apart))
}

fn read_indeterminate(name: &RecordName, bytes: &[u8]) -> Result<Content, StoreError> {
    let (stored, _) = RecordJson::read(Some(name), bytes)?;
    Ok(Content::Indeterminate {
        attempts: stored.attempts()?,
        about: stored.about().into(),
        cause: stored.cause(),
    })
}

/// A refusal that cannot be read counts as absent: nothing was executed either way.
fn read_released(name: &RecordName, bytes: &[u8]) -> Result<Content, StoreError> {
    let Some((stored, rest)) = RecordJson::read_refusal(name, bytes)? else {
        return Ok(Content::Released { refusal: None });
    };
    let refusal = match (stored.status, stored.retry_after_ms) {
        (Some(_), _) => stored.outcome(rest).ok().map(Refusal::Refused),
        (None, Some(ms)) => Some(Refusal::RateLimited {
            retry_after: Duration::from_millis(ms),
        }),
        (None, None) => None,
    };
    Ok(Content::Released { refusal })
}
