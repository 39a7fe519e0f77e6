//! Writes what follows the first line: which members the JSON of a state has, and the body.
//! It reads nothing.

use std::time::Duration;

use serde::Serialize;

use super::MAX_NUMBER;
use super::json_bytes::JsonBytes;
use crate::key::RecordName;
use crate::outcome::{StoredBody, is_kept};
#[cfg(feature = "encrypted")]
use crate::record::Caller;
use crate::record::serialize::millis as wall_ms;
use crate::record::{About, Attempts, Cause, Origin, StoredOutcome};

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
    stored: &StoredOutcome,
    origin: Option<&Origin>,
) {
    write_json(to, &OutcomeJson::of(name, stored, origin));
    to.extend_from_slice(stored.outcome.body());
}

/// The same in `limit` bytes. Where they are not enough, the JSON says that the body is
/// separate, and the body is returned.
#[cfg(feature = "redis")]
pub(super) fn write_separate<'a>(
    to: &mut Vec<u8>,
    name: Option<Name<'_>>,
    stored: &'a StoredOutcome,
    origin: &Origin,
    limit: usize,
) -> Option<&'a bytes::Bytes> {
    let (from, body) = (to.len(), stored.outcome.body());
    let mut json = OutcomeJson::of(name, stored, Some(origin));
    write_json(to, &json);
    if to.len() - from + body.len() <= limit || body.is_empty() {
        to.extend_from_slice(body);
        return None;
    }
    to.truncate(from);
    json.apart = Some(true);
    write_json(to, &json);
    Some(body)
}

/// A record's own name.
pub(super) struct Name<'a>(pub(super) &'a RecordName);

impl Serialize for Name<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.text())
    }
}

/// The JSON of `Locked` and `Indeterminate`.
#[derive(Serialize)]
pub(super) struct LockJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<Name<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sent_ms: Option<u64>,
    attempts: u32,
    attempt_timeout_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    own_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sealed: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<&'a str>,
}

impl<'a> LockJson<'a> {
    pub(super) fn of(name: Option<Name<'a>>, attempts: &Attempts, about: &'a About) -> Self {
        let holder = about.holder.as_deref();
        Self {
            name,
            sent_ms: attempts.sent.map(wall_ms),
            attempts: attempts.count,
            attempt_timeout_ms: millis(attempts.timeout),
            action: about.action.as_ref().map(AsRef::as_ref),
            own_key: about.caller.own_key.as_deref(),
            scope: about.caller.scope.as_deref(),
            label: about.caller.label.as_deref(),
            sealed: about.caller.sealed.as_deref(),
            host: holder.map(|holder| &*holder.host),
            process: holder.map(|holder| holder.process),
            started_ms: holder.map(|holder| wall_ms(holder.started)),
            cause: None,
            correlation_id: None,
        }
    }

    pub(super) fn with_cause(mut self, cause: Option<&'a Cause>) -> Self {
        self.cause = cause.map(|cause| &*cause.text);
        self.correlation_id = cause.and_then(|cause| cause.correlation_id.as_deref());
        self
    }
}

/// The caller's names for a request, for encryption.
#[cfg(feature = "encrypted")]
#[derive(Serialize)]
pub(super) struct CallerJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    own_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'a str>,
}

#[cfg(feature = "encrypted")]
impl<'a> CallerJson<'a> {
    pub(super) fn of(caller: &'a Caller) -> Self {
        Self {
            own_key: caller.own_key.as_deref(),
            scope: caller.scope.as_deref(),
            label: caller.label.as_deref(),
        }
    }
}

#[derive(Serialize)]
pub(super) struct RefusalJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<Name<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) retry_after_ms: Option<u64>,
}

#[derive(Serialize)]
struct OutcomeJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<Name<'a>>,
    status: u16,
    headers: Vec<(&'a str, JsonBytes<'a>)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    omitted: Option<&'static str>,
    /// Bytes of the body, which follows the JSON.
    body: usize,
    /// Present where it does not: the store stores it under another name.
    #[serde(skip_serializing_if = "Option::is_none")]
    apart: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answered_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resolved_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resolved_by: Option<&'a str>,
}

impl<'a> OutcomeJson<'a> {
    fn of(name: Option<Name<'a>>, stored: &'a StoredOutcome, origin: Option<&'a Origin>) -> Self {
        let outcome = &stored.outcome;
        let headers = outcome
            .headers()
            .iter()
            .filter(|(name, _)| is_kept(name))
            .map(|(name, value)| (name.as_str(), JsonBytes::of(value.as_bytes())))
            .collect();
        let omitted = match stored.body {
            // A reader that does not know this word refuses the record.
            _ if outcome.is_sealed() => Some("sealed"),
            StoredBody::Full => None,
            StoredBody::OmittedSensitive => Some("sensitive"),
            StoredBody::OmittedTooLarge => Some("too large"),
        };
        let resolved = origin.and_then(|origin| origin.resolved.as_ref());
        Self {
            name,
            status: outcome.status().as_u16(),
            headers,
            omitted,
            body: outcome.body().len(),
            apart: None,
            action: origin.and_then(|origin| origin.action.as_ref().map(AsRef::as_ref)),
            answered_ms: origin.and_then(|origin| origin.answered.map(wall_ms)),
            attempts: origin.map(|origin| origin.attempts),
            resolved_ms: resolved.map(|resolved| wall_ms(resolved.at)),
            resolved_by: resolved.and_then(|resolved| resolved.by.as_deref()),
        }
    }
}

/// A time in whole milliseconds, rounded up.
pub(super) fn millis(time: Duration) -> u64 {
    let ms = time.as_nanos().div_ceil(1_000_000);
    u64::try_from(ms).map_or(MAX_NUMBER, |ms| ms.min(MAX_NUMBER))
}
