//! Reads the second line of a record and its body: which members the JSON of a state may
//! have. It does not know the words of the states.

use std::borrow::Cow;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use memchr::memchr;
use serde::Deserialize;

use super::json_bytes::JsonBytes;
use super::json_notes::{Note, number, text};
use crate::error::StoreError;
use crate::key::RecordName;
use crate::outcome::{Outcome, StoredBody};
use crate::record::{About, Attempts, Caller, Cause, Holder, Origin, Resolved, StoredOutcome};

/// All members that the JSON of any state may have. Unknown members are ignored, and so are
/// notes for people of another type.
#[derive(Deserialize)]
pub(super) struct RecordJson<'a> {
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(default)]
    sent_ms: Option<u64>,
    #[serde(default)]
    attempts: Option<u32>,
    #[serde(default)]
    attempt_timeout_ms: Option<u64>,
    #[serde(default)]
    pub(super) retry_after_ms: Option<u64>,
    #[serde(default)]
    pub(super) status: Option<u16>,
    #[serde(borrow, default)]
    headers: Vec<(Cow<'a, str>, JsonBytes<'a>)>,
    #[serde(borrow, default)]
    omitted: Option<Cow<'a, str>>,
    #[serde(default)]
    body: Option<usize>,
    #[serde(default)]
    apart: Option<bool>,
    #[serde(borrow, default)]
    action: Note<'a>,
    #[serde(borrow, default)]
    own_key: Note<'a>,
    #[serde(borrow, default)]
    scope: Note<'a>,
    #[serde(borrow, default)]
    label: Note<'a>,
    #[serde(borrow, default)]
    sealed: Note<'a>,
    #[serde(borrow, default)]
    host: Note<'a>,
    #[serde(borrow, default)]
    process: Note<'a>,
    #[serde(borrow, default)]
    started_ms: Note<'a>,
    #[serde(borrow, default)]
    cause: Note<'a>,
    #[serde(borrow, default)]
    correlation_id: Note<'a>,
    #[serde(borrow, default)]
    answered_ms: Note<'a>,
    #[serde(borrow, default)]
    resolved_ms: Note<'a>,
    #[serde(borrow, default)]
    resolved_by: Note<'a>,
}

/// The one member that names the record.
#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
}

impl<'a> RecordJson<'a> {
    /// The JSON of the record of that name, and the bytes behind it.
    pub(super) fn read(
        name: Option<&RecordName>,
        bytes: &'a [u8],
    ) -> Result<(Self, &'a [u8]), StoreError> {
        let (json, rest) = line(bytes)?;
        // UTF-8 is checked once, not for each string.
        let stored: Result<Self, _> = match std::str::from_utf8(json) {
            Ok(json) => serde_json::from_str(json),
            Err(_) => serde_json::from_slice(json),
        };
        let stored = stored.map_err(|error| damaged(&error))?;
        is_of(name, stored.name.as_deref())?;
        Ok((stored, rest))
    }

    /// The same of a record that holds at most a refusal; `None` where the refusal cannot
    /// be read. The record must have its own name.
    pub(super) fn read_refusal(
        name: &RecordName,
        bytes: &'a [u8],
    ) -> Result<Option<(Self, &'a [u8])>, StoreError> {
        let (json, rest) = line(bytes)?;
        let named: Named<'_> = serde_json::from_slice(json).map_err(|error| damaged(&error))?;
        is_of(Some(name), named.name.as_deref())?;
        let stored = serde_json::from_slice(json).ok();
        Ok(stored.map(|stored| (stored, rest)))
    }

    pub(super) fn attempts(&self) -> Result<Attempts, StoreError> {
        let (Some(count), Some(timeout)) = (self.attempts, self.attempt_timeout_ms) else {
            return Err(StoreError::unreadable("its attempts are missing"));
        };
        let sent = match self.sent_ms {
            None => None,
            Some(ms) => {
                let sent = moment(ms);
                Some(sent.ok_or_else(|| StoreError::unreadable("its time is out of range"))?)
            }
        };
        Ok(Attempts {
            sent,
            count,
            timeout: Duration::from_millis(timeout),
        })
    }

    pub(super) fn about(&self) -> About {
        let holder = || {
            Some(Holder {
                host: text(&self.host)?,
                process: number(&self.process)?.try_into().ok()?,
                started: moment(number(&self.started_ms)?)?,
            })
        };
        About {
            action: self.action(),
            caller: self.caller(),
            holder: holder().map(Arc::new),
        }
    }

    pub(super) fn caller(&self) -> Caller {
        Caller {
            own_key: text(&self.own_key),
            scope: text(&self.scope),
            label: text(&self.label),
            sealed: text(&self.sealed),
        }
    }

    pub(super) fn origin(&self) -> Origin {
        let at = number(&self.resolved_ms).and_then(moment);
        Origin {
            action: self.action(),
            answered: number(&self.answered_ms).and_then(moment),
            attempts: self.attempts.unwrap_or_default(),
            resolved: at.map(|at| Resolved {
                at,
                by: text(&self.resolved_by),
            }),
        }
    }

    pub(super) fn cause(&self) -> Option<Cause> {
        Some(Cause {
            text: text(&self.cause)?,
            correlation_id: text(&self.correlation_id),
        })
    }

    fn action(&self) -> Option<crate::request::ActionId> {
        match &self.action {
            Note::Text(id) => id.parse().ok(),
            _ => None,
        }
    }

    pub(super) fn outcome(self, rest: &[u8]) -> Result<StoredOutcome, StoreError> {
        match self.separate_body(rest)? {
            (stored, None) => Ok(stored),
            _ => Err(StoreError::unreadable("its body is stored separately")),
        }
    }

    /// The same where the body might be separate. Then the outcome has none, and the second
    /// value is the length of the body.
    pub(super) fn separate_body(
        self,
        rest: &[u8],
    ) -> Result<(StoredOutcome, Option<usize>), StoreError> {
        let (Some(status), Some(length)) = (self.status, self.body) else {
            return Err(StoreError::unreadable("it has no outcome"));
        };
        let status = StatusCode::from_u16(status).map_err(StoreError::unreadable)?;
        let apart = (self.apart == Some(true)).then_some(length);
        let length = if apart.is_some() { 0 } else { length };
        let body = rest
            .get(..length)
            .ok_or_else(|| StoreError::unreadable("its body is cut"))?;
        // A text editor adds a line feed at the end of a file.
        if rest[length..].iter().any(|b| !matches!(b, b'\r' | b'\n')) {
            return Err(StoreError::unreadable(
                "malformed body: longer than its length in the JSON",
            ));
        }
        let mut headers = HeaderMap::with_capacity(self.headers.len().min(64));
        for (name, value) in self.headers {
            let name = HeaderName::from_str(&name).map_err(StoreError::unreadable)?;
            let value =
                HeaderValue::from_bytes(&value.into_bytes()?).map_err(StoreError::unreadable)?;
            // A platform sends fewer headers than a map holds.
            let added = headers.try_append(name, value);
            added.map_err(StoreError::unreadable)?;
        }
        let body = Bytes::copy_from_slice(body);
        let stored_body = match self.omitted.as_deref() {
            None => StoredBody::Full,
            Some("sensitive") => StoredBody::OmittedSensitive,
            Some("too large") => StoredBody::OmittedTooLarge,
            Some("sealed") => {
                let sealed = Outcome::sealed(headers, body);
                return Ok((StoredOutcome::full(sealed), apart));
            }
            Some(_) => {
                return Err(StoreError::unreadable(
                    "unknown reason for an omitted outcome",
                ));
            }
        };
        let stored = StoredOutcome {
            outcome: Arc::new(Outcome::new(status, headers, body)),
            body: stored_body,
        };
        Ok((stored, apart))
    }
}

/// The line of JSON, and the bytes behind it.
fn line(bytes: &[u8]) -> Result<(&[u8], &[u8]), StoreError> {
    let end = memchr(b'\n', bytes);
    let end = end.ok_or_else(|| StoreError::unreadable("its JSON is cut"))?;
    Ok((&bytes[..end], &bytes[end + 1..]))
}

fn damaged(error: &serde_json::Error) -> StoreError {
    // The message of serde_json might quote the record: say only where.
    StoreError::unreadable(format!("its JSON is damaged at column {}", error.column()))
}

fn is_of(name: Option<&RecordName>, own: Option<&str>) -> Result<(), StoreError> {
    let is_own = match (name, own) {
        (Some(name), Some(own)) => name.is(own),
        (name, own) => name.is_none() && own.is_none(),
    };
    if is_own {
        Ok(())
    } else {
        Err(StoreError::unreadable("its name is that of another record"))
    }
}

fn moment(ms: u64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_millis(ms))
}
