//! A record as bytes: one line of text that scripts can match, then JSON.
//!
//! ```text
//! genesys-once/1 locked LEASE STEP REV PHASE RETENTION_MS FINGERPRINT\n{…}
//! ```
//!
//! A reader refuses what it does not know: a newer version, another word, a
//! damaged line. A release that changes the format first only reads it.

use std::borrow::Cow;
use std::io::Write as _;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

use self::stored_bytes::StoredBytes;
use super::{Content, Phase, Record, Refusal};
use crate::error::StoreError;
use crate::outcome::{Kept, Outcome};

mod stored_bytes;
#[cfg(test)]
mod tests;

const MAGIC: &str = "genesys-once/1";

/// What scripts can still count by one (2^53); nothing writes as often as that.
const MAX_REV: u64 = 1 << 53;

/// Room for the first line of any record.
const LINE: usize = 192;

/// Room for the names and brackets around what a record holds in JSON.
const ROOM: usize = 64;

/// Headers of one connection or one browser, which no replay should repeat:
/// RFC 9110 section 7.6.1, and cookies.
const NOT_KEPT: [&str; 11] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
];

impl Record {
    /// The record as a store keeps it.
    pub fn encode(&self) -> Vec<u8> {
        let (word, phase) = match &self.content {
            Content::Locked(Phase::Claimed) => ("locked", "claimed"),
            Content::Locked(Phase::Dispatched) => ("locked", "dispatched"),
            Content::Cached { .. } => ("cached", "-"),
            Content::Indeterminate { .. } => ("indeterminate", "-"),
            Content::Released { .. } => ("released", "-"),
        };
        let mut bytes = Vec::with_capacity(LINE + self.content.room());
        writeln!(
            bytes,
            "{MAGIC} {word} {} {} {} {phase} {} {}",
            self.lease,
            self.step,
            self.rev,
            u64::try_from(self.retention.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX),
            self.fingerprint,
        )
        .expect("a Vec takes everything");
        self.content.write(&mut bytes);
        bytes
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    ///
    /// `StoreError::unreadable` for a newer version and for anything damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let end = bytes.iter().take(512).position(|&b| b == b'\n');
        let line = end
            .and_then(|end| std::str::from_utf8(&bytes[..end]).ok())
            .ok_or_else(|| StoreError::unreadable("it does not begin with a line of a record"))?;
        let json = &bytes[line.len() + 1..];
        let mut words = line.split(' ');
        let magic = words.next().unwrap_or_default();
        if magic != MAGIC {
            return Err(StoreError::unreadable(
                match magic.strip_prefix("genesys-once/") {
                    Some(version) => format!("it has version {version:?}, this is version 1"),
                    None => "it is not a record of genesys-once".into(),
                },
            ));
        }
        let mut rest = [""; 7];
        let filled = rest.iter_mut().try_for_each(|word| {
            *word = words.next()?;
            Some(())
        });
        if filled.is_none() || words.next().is_some() {
            return Err(StoreError::unreadable("its first line has not eight words"));
        }
        let [word, lease, step, rev, phase, retention, fingerprint] = rest;
        let content = match (word, phase) {
            ("locked", "claimed") => Content::Locked(Phase::Claimed),
            ("locked", "dispatched") => Content::Locked(Phase::Dispatched),
            ("cached", "-") => read_cached(json)?,
            ("indeterminate", "-") => read_indeterminate(json)?,
            ("released", "-") => read_released(json)?,
            _ => return Err(StoreError::unreadable("it is in no known state")),
        };
        let rev = field("revision", rev)?;
        if rev > MAX_REV {
            return Err(StoreError::unreadable("its revision is beyond any"));
        }
        Ok(Self {
            rev,
            lease: field("lease", lease)?,
            step: field("step", step)?,
            retention: Duration::from_millis(field("retention", retention)?),
            fingerprint: field("fingerprint", fingerprint)?,
            content,
        })
    }
}

impl Content {
    /// The JSON part of a record: what differs between two `Complete`,
    /// `Release` or `Abandon` of the same holder.
    pub fn encode(&self) -> Vec<u8> {
        let mut json = Vec::with_capacity(self.room());
        self.write(&mut json);
        json
    }

    /// Writes what [`encode`](Self::encode) returns behind what is there.
    pub(crate) fn write(&self, to: &mut Vec<u8>) {
        let written = match self {
            Self::Locked(_) | Self::Released { verdict: None } => return,
            Self::Cached { outcome, kept } => {
                serde_json::to_writer(to, &StoredOutcome::of(outcome, *kept))
            }
            Self::Indeterminate { since, cause } => {
                let unknown = StoredUnknown {
                    since_ms: since
                        .duration_since(UNIX_EPOCH)
                        .unwrap_or_default()
                        .as_millis() as u64,
                    cause: cause.as_ref().into(),
                };
                serde_json::to_writer(to, &unknown)
            }
            Self::Released {
                verdict: Some(refusal),
            } => serde_json::to_writer(to, &StoredRefusal::of(refusal)),
        };
        written.expect("these types have string keys only and no failing Serialize");
    }

    /// About how many bytes [`encode`](Self::encode) returns.
    pub(crate) fn room(&self) -> usize {
        match self {
            Self::Locked(_) | Self::Released { verdict: None } => 0,
            Self::Cached { outcome, .. } => room(outcome),
            Self::Indeterminate { cause, .. } => ROOM + cause.len(),
            Self::Released {
                verdict: Some(Refusal::Refused(outcome) | Refusal::Reduced { outcome, .. }),
            } => room(outcome),
            Self::Released { .. } => ROOM,
        }
    }
}

/// About as many bytes as an outcome takes in JSON, quotes escaped.
fn room(outcome: &Outcome) -> usize {
    ROOM + outcome.weight() + outcome.body.len() / 4
}

#[derive(Serialize, Deserialize)]
struct StoredOutcome<'a> {
    status: u16,
    #[serde(borrow)]
    headers: Vec<(Cow<'a, str>, StoredBytes<'a>)>,
    #[serde(borrow)]
    body: StoredBytes<'a>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    omitted: Option<Cow<'a, str>>,
}

#[derive(Serialize, Deserialize)]
struct StoredUnknown<'a> {
    since_ms: u64,
    #[serde(borrow)]
    cause: Cow<'a, str>,
}

#[derive(Serialize, Deserialize)]
struct StoredRefusal<'a> {
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    refused: Option<StoredOutcome<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

impl<'a> StoredRefusal<'a> {
    fn of(refusal: &'a Refusal) -> Self {
        let refused = match refusal {
            Refusal::Refused(outcome) => StoredOutcome::of(outcome, Kept::Whole),
            Refusal::Reduced { outcome, kept } => StoredOutcome::of(outcome, *kept),
            Refusal::RateLimited { retry_after } => {
                return Self {
                    refused: None,
                    retry_after_ms: Some(retry_after.as_millis() as u64),
                };
            }
        };
        Self {
            refused: Some(refused),
            retry_after_ms: None,
        }
    }
}

impl<'a> StoredOutcome<'a> {
    fn of(outcome: &'a Outcome, kept: Kept) -> Self {
        let headers = outcome
            .headers
            .iter()
            .filter(|(name, _)| !NOT_KEPT.contains(&name.as_str()))
            .map(|(name, value)| (name.as_str().into(), StoredBytes::of(value.as_bytes())))
            .collect();
        let omitted = match kept {
            // Whoever does not know this word refuses the record.
            _ if outcome.is_sealed() => Some("sealed".into()),
            Kept::Whole => None,
            Kept::Sensitive => Some("sensitive".into()),
            Kept::TooLarge => Some("too large".into()),
        };
        Self {
            status: outcome.status_code.as_u16(),
            headers,
            body: StoredBytes::of(&outcome.body),
            omitted,
        }
    }

    fn read(self) -> Result<(Outcome, Kept), StoreError> {
        let status = StatusCode::from_u16(self.status).map_err(StoreError::unreadable)?;
        let mut headers = HeaderMap::with_capacity(self.headers.len());
        for (name, value) in self.headers {
            let name = HeaderName::from_str(&name).map_err(StoreError::unreadable)?;
            let value =
                HeaderValue::from_bytes(&value.into_bytes()?).map_err(StoreError::unreadable)?;
            headers.append(name, value);
        }
        let body = Bytes::from(self.body.into_bytes()?.into_owned());
        let kept = match self.omitted.as_deref() {
            None => Kept::Whole,
            Some("sensitive") => Kept::Sensitive,
            Some("too large") => Kept::TooLarge,
            Some("sealed") => return Ok((Outcome::sealed(headers, body), Kept::Whole)),
            Some(_) => {
                return Err(StoreError::unreadable(
                    "its outcome is left out for no known reason",
                ));
            }
        };
        Ok((Outcome::new(status, headers, body), kept))
    }
}

/// What is encrypted of an outcome: the JSON that stands for it in a record.
#[cfg(feature = "encrypted")]
pub(crate) fn encode_outcome(outcome: &Outcome, kept: Kept) -> Vec<u8> {
    serde_json::to_vec(&StoredOutcome::of(outcome, kept))
        .expect("this type has string keys only and no failing Serialize")
}

/// Reads what [`encode_outcome`] wrote.
pub(crate) fn decode_outcome(json: &[u8]) -> Result<(Outcome, Kept), StoreError> {
    parse::<StoredOutcome>(json)?.read()
}

fn read_cached(json: &[u8]) -> Result<Content, StoreError> {
    let (outcome, kept) = decode_outcome(json)?;
    Ok(Content::Cached {
        outcome: Arc::new(outcome),
        kept,
    })
}

fn read_indeterminate(json: &[u8]) -> Result<Content, StoreError> {
    let StoredUnknown { since_ms, cause } = parse(json)?;
    let since = SystemTime::UNIX_EPOCH
        .checked_add(Duration::from_millis(since_ms))
        .ok_or_else(|| StoreError::unreadable("its time is out of range"))?;
    Ok(Content::Indeterminate {
        since,
        cause: cause.into(),
    })
}

fn read_released(json: &[u8]) -> Result<Content, StoreError> {
    if json.is_empty() {
        return Ok(Content::Released { verdict: None });
    }
    let verdict = match parse(json)? {
        StoredRefusal {
            refused: Some(outcome),
            ..
        } => match outcome.read()? {
            (outcome, Kept::Whole) => Refusal::Refused(Arc::new(outcome)),
            (outcome, kept) => Refusal::Reduced {
                outcome: Arc::new(outcome),
                kept,
            },
        },
        StoredRefusal {
            retry_after_ms: Some(ms),
            ..
        } => Refusal::RateLimited {
            retry_after: Duration::from_millis(ms),
        },
        _ => return Err(StoreError::unreadable("its refusal says nothing")),
    };
    Ok(Content::Released {
        verdict: Some(verdict),
    })
}

fn parse<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, StoreError> {
    serde_json::from_slice(json).map_err(|error| {
        // The message of serde_json may quote the record: say only where.
        StoreError::unreadable(format!("its JSON is damaged at column {}", error.column()))
    })
}

fn field<T: FromStr>(name: &str, word: &str) -> Result<T, StoreError> {
    word.parse()
        .map_err(|_| StoreError::unreadable(format!("its {name} is damaged")))
}
