//! A record as bytes: one line of text that scripts can match, then JSON.
//!
//! ```text
//! genesys-once/1 locked LEASE STEP REV PHASE RETENTION_MS FINGERPRINT\n{…}
//! ```
//!
//! A reader refuses what it does not know: a newer version, another word, a
//! damaged line. A release that changes the format first only reads it.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::{Content, Phase, Record, Refusal};
use crate::error::StoreError;
use crate::outcome::{Kept, Outcome};

#[cfg(test)]
mod tests;

const MAGIC: &str = "genesys-once/1";

/// What scripts can still count by one (2^53); nothing writes as often as that.
const MAX_REV: u64 = 1 << 53;

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
        let mut bytes = format!(
            "{MAGIC} {word} {} {} {} {phase} {} {}\n",
            self.lease,
            self.step,
            self.rev,
            u64::try_from(self.retention.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX),
            self.fingerprint,
        )
        .into_bytes();
        bytes.extend(self.content.encode());
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
        let words: Vec<&str> = line.split(' ').collect();
        if words[0] != MAGIC {
            return Err(StoreError::unreadable(
                match words[0].strip_prefix("genesys-once/") {
                    Some(version) => format!("it has version {version:?}, this is version 1"),
                    None => "it is not a record of genesys-once".into(),
                },
            ));
        }
        let [_, word, lease, step, rev, phase, retention, fingerprint] = words[..] else {
            return Err(StoreError::unreadable("its first line has not eight words"));
        };
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
        let json = match self {
            Self::Locked(_) => return Vec::new(),
            Self::Cached { outcome, kept } => {
                serde_json::to_vec(&StoredOutcome::of(outcome, *kept))
            }
            Self::Indeterminate { since, cause } => serde_json::to_vec(&StoredUnknown {
                since_ms: since
                    .duration_since(UNIX_EPOCH)
                    .unwrap_or_default()
                    .as_millis() as u64,
                cause: cause.as_ref().into(),
            }),
            Self::Released { verdict: None } => return Vec::new(),
            Self::Released {
                verdict: Some(Refusal::Refused(outcome)),
            } => serde_json::to_vec(&StoredRefusal {
                refused: Some(StoredOutcome::of(outcome, Kept::Whole)),
                retry_after_ms: None,
            }),
            Self::Released {
                verdict: Some(Refusal::Reduced { outcome, kept }),
            } => serde_json::to_vec(&StoredRefusal {
                refused: Some(StoredOutcome::of(outcome, *kept)),
                retry_after_ms: None,
            }),
            Self::Released {
                verdict: Some(Refusal::RateLimited { retry_after }),
            } => serde_json::to_vec(&StoredRefusal {
                refused: None,
                retry_after_ms: Some(retry_after.as_millis() as u64),
            }),
        };
        json.expect("these types have string keys only and no failing Serialize")
    }
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

/// Bytes as a JSON string where they are text, else as `{"base64": "…"}`.
#[derive(Serialize)]
#[serde(untagged)]
enum StoredBytes<'a> {
    Text(Cow<'a, str>),
    Base64 { base64: String },
}

/// By hand: what serde derives for an untagged enum copies each value into a
/// tree of its own before it looks which of the two it is.
impl<'de: 'a, 'a> Deserialize<'de> for StoredBytes<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(EitherForm(PhantomData))
    }
}

struct EitherForm<'a>(PhantomData<&'a str>);

impl<'de: 'a, 'a> Visitor<'de> for EitherForm<'a> {
    type Value = StoredBytes<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text or base64")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(StoredBytes::Text(text.into()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(StoredBytes::Text(text.to_owned().into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        #[derive(Deserialize)]
        struct Base64 {
            base64: String,
        }
        let Base64 { base64 } = Base64::deserialize(MapAccessDeserializer::new(map))?;
        Ok(StoredBytes::Base64 { base64 })
    }
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

impl<'a> StoredBytes<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.into()),
            Err(_) => Self::Base64 {
                base64: BASE64.encode(bytes),
            },
        }
    }

    fn into_bytes(self) -> Result<Vec<u8>, StoreError> {
        match self {
            Self::Text(text) => Ok(text.into_owned().into_bytes()),
            Self::Base64 { base64 } => BASE64.decode(base64).map_err(StoreError::unreadable),
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
        let body = Bytes::from(self.body.into_bytes()?);
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
