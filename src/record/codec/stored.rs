//! The second line of a record and what follows it: which members the JSON of a
//! state has, and how a body stands behind it. It knows no state's word.

use std::borrow::Cow;
use std::str::FromStr as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

use super::MAX_NUMBER;
use super::stored_bytes::StoredBytes;
use crate::error::StoreError;
use crate::key::RecordName;
use crate::outcome::{Kept, Outcome, is_kept};
use crate::record::Attempts;

/// Writes one line of JSON.
pub(super) fn write_json(to: &mut Vec<u8>, json: &impl Serialize) {
    serde_json::to_writer(&mut *to, json)
        .expect("these types have string keys only and no failing Serialize");
    to.push(b'\n');
}

/// Writes an outcome: its JSON, then its body.
pub(super) fn write_outcome(
    to: &mut Vec<u8>,
    name: Option<Name<'_>>,
    outcome: &Outcome,
    kept: Kept,
) {
    write_json(to, &StoredOutcome::of(name, outcome, kept));
    to.extend_from_slice(&outcome.body);
}

/// A record's own name, written without a copy.
pub(super) struct Name<'a>(pub(super) &'a RecordName);

impl Serialize for Name<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self.0)
    }
}

#[derive(Serialize)]
pub(super) struct StoredAttempts<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<Name<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sent_ms: Option<u64>,
    attempts: u32,
    attempt_timeout_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cause: Option<Cow<'a, str>>,
}

impl<'a> StoredAttempts<'a> {
    pub(super) fn of(name: Option<Name<'a>>, attempts: &Attempts) -> Self {
        Self {
            name,
            sent_ms: attempts.sent.map(wall_ms),
            attempts: attempts.count,
            attempt_timeout_ms: millis(attempts.timeout),
            cause: None,
        }
    }
}

#[derive(Serialize)]
pub(super) struct StoredWait<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<Name<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) retry_after_ms: Option<u64>,
}

#[derive(Serialize)]
struct StoredOutcome<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<Name<'a>>,
    status: u16,
    headers: Vec<(&'a str, StoredBytes<'a>)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    omitted: Option<&'static str>,
    /// Bytes of the body, which follows the JSON.
    body: usize,
}

impl<'a> StoredOutcome<'a> {
    fn of(name: Option<Name<'a>>, outcome: &'a Outcome, kept: Kept) -> Self {
        let headers = outcome
            .headers
            .iter()
            .filter(|(name, _)| is_kept(name))
            .map(|(name, value)| (name.as_str(), StoredBytes::of(value.as_bytes())))
            .collect();
        let omitted = match kept {
            // Whoever does not know this word refuses the record.
            _ if outcome.is_sealed() => Some("sealed"),
            Kept::Whole => None,
            Kept::Sensitive => Some("sensitive"),
            Kept::TooLarge => Some("too large"),
        };
        Self {
            name,
            status: outcome.status_code.as_u16(),
            headers,
            omitted,
            body: outcome.body.len(),
        }
    }
}

/// All that the JSON of any state may hold; unknown members are ignored.
#[derive(Deserialize)]
pub(super) struct Stored<'a> {
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(default)]
    sent_ms: Option<u64>,
    #[serde(default)]
    attempts: Option<u32>,
    #[serde(default)]
    attempt_timeout_ms: Option<u64>,
    #[serde(borrow, default)]
    pub(super) cause: Option<Cow<'a, str>>,
    #[serde(default)]
    pub(super) retry_after_ms: Option<u64>,
    #[serde(default)]
    pub(super) status: Option<u16>,
    #[serde(borrow, default)]
    headers: Vec<(Cow<'a, str>, StoredBytes<'a>)>,
    #[serde(borrow, default)]
    omitted: Option<Cow<'a, str>>,
    #[serde(default)]
    body: Option<usize>,
}

impl<'a> Stored<'a> {
    /// The JSON of the record of that name, and the bytes behind it.
    pub(super) fn read(
        name: Option<&RecordName>,
        bytes: &'a [u8],
    ) -> Result<(Self, &'a [u8]), StoreError> {
        let end = bytes.iter().position(|&b| b == b'\n');
        let end = end.ok_or_else(|| StoreError::unreadable("its JSON is cut"))?;
        let stored: Self = serde_json::from_slice(&bytes[..end]).map_err(|error| {
            // The message of serde_json may quote the record: say only where.
            StoreError::unreadable(format!("its JSON is damaged at column {}", error.column()))
        })?;
        let own = name.map(RecordName::to_string);
        if stored.name.as_deref() != own.as_deref() {
            return Err(StoreError::unreadable("it is a copy of another record"));
        }
        Ok((stored, &bytes[end + 1..]))
    }

    pub(super) fn attempts(&self) -> Result<Attempts, StoreError> {
        let (Some(count), Some(timeout)) = (self.attempts, self.attempt_timeout_ms) else {
            return Err(StoreError::unreadable("it does not say what was sent"));
        };
        let sent = match self.sent_ms.map(Duration::from_millis) {
            None => None,
            Some(ms) => Some(
                UNIX_EPOCH
                    .checked_add(ms)
                    .ok_or_else(|| StoreError::unreadable("its time is out of range"))?,
            ),
        };
        Ok(Attempts {
            sent,
            count,
            timeout: Duration::from_millis(timeout),
        })
    }

    pub(super) fn outcome(self, rest: &[u8]) -> Result<(Outcome, Kept), StoreError> {
        let (Some(status), Some(length)) = (self.status, self.body) else {
            return Err(StoreError::unreadable("it has no outcome"));
        };
        let status = StatusCode::from_u16(status).map_err(StoreError::unreadable)?;
        let body = rest
            .get(..length)
            .ok_or_else(|| StoreError::unreadable("its body is cut"))?;
        // An editor ends a file with a line feed.
        if rest[length..].iter().any(|b| !matches!(b, b'\r' | b'\n')) {
            return Err(StoreError::unreadable("its body is longer than it says"));
        }
        let mut headers = HeaderMap::with_capacity(self.headers.len().min(64));
        for (name, value) in self.headers {
            let name = HeaderName::from_str(&name).map_err(StoreError::unreadable)?;
            let value =
                HeaderValue::from_bytes(&value.into_bytes()?).map_err(StoreError::unreadable)?;
            // More than any map holds is no answer of a platform.
            let added = headers.try_append(name, value);
            added.map_err(StoreError::unreadable)?;
        }
        let body = Bytes::copy_from_slice(body);
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

/// A time in whole milliseconds, rounded up.
pub(super) fn millis(time: Duration) -> u64 {
    let ms = time.as_nanos().div_ceil(1_000_000);
    u64::try_from(ms).map_or(MAX_NUMBER, |ms| ms.min(MAX_NUMBER))
}

/// Milliseconds since 1970.
fn wall_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
