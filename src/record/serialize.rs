//! A record's state as JSON for other programs, by serde: times in milliseconds, bodies as
//! text where they are UTF-8. It knows no store.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

use super::codec::JsonBytes;
use super::{About, Holder, Revision};
use crate::key::Fingerprint;
use crate::outcome::{Outcome, StoredBody};
use crate::request::ActionId;

/// Milliseconds since 1970.
pub(crate) fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn time<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64(millis(*time))
}

pub(super) fn some_time<S: Serializer>(
    time: &Option<SystemTime>,
    to: S,
) -> Result<S::Ok, S::Error> {
    time.map(millis).serialize(to)
}

pub(crate) fn length<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

pub(crate) fn some_length<S: Serializer>(
    time: &Option<Duration>,
    to: S,
) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => length(time, to),
        None => to.serialize_none(),
    }
}

pub(super) fn action<S: Serializer>(action: &Option<ActionId>, to: S) -> Result<S::Ok, S::Error> {
    action.as_ref().map(ActionId::as_str).serialize(to)
}

pub(super) fn text<S: Serializer>(text: &Arc<str>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(text)
}

pub(super) fn some_text<S: Serializer>(text: &Option<Arc<str>>, to: S) -> Result<S::Ok, S::Error> {
    text.as_deref().serialize(to)
}

pub(super) fn about<S: Serializer>(about: &Arc<About>, to: S) -> Result<S::Ok, S::Error> {
    (**about).serialize(to)
}

pub(super) fn holder<S: Serializer>(
    holder: &Option<Arc<Holder>>,
    to: S,
) -> Result<S::Ok, S::Error> {
    holder.as_deref().serialize(to)
}

/// Whether a value is present, without the value.
pub(super) fn is_there<S: Serializer>(text: &Option<Arc<str>>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_bool(text.is_some())
}

pub(super) fn revision<S: Serializer>(revision: &Revision, to: S) -> Result<S::Ok, S::Error> {
    let mut fields = to.serialize_struct("Revision", 2)?;
    fields.serialize_field("rev", &revision.rev)?;
    fields.serialize_field("lease", &revision.lease.to_string())?;
    fields.end()
}

pub(super) fn fingerprint<S: Serializer>(print: &Fingerprint, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(print)
}

pub(super) fn stored_body<S: Serializer>(body: &StoredBody, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(match body {
        StoredBody::Full => "full",
        StoredBody::OmittedSensitive => "omitted_sensitive",
        StoredBody::OmittedTooLarge => "omitted_too_large",
    })
}

/// Status, headers in their order, and the body.
pub(super) fn outcome<S: Serializer>(outcome: &Arc<Outcome>, to: S) -> Result<S::Ok, S::Error> {
    let headers: Vec<_> = outcome
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str(), JsonBytes::of(value.as_bytes())))
        .collect();
    let mut fields = to.serialize_struct("Outcome", 3)?;
    fields.serialize_field("status", &outcome.status().as_u16())?;
    fields.serialize_field("headers", &headers)?;
    fields.serialize_field("body", &JsonBytes::of(outcome.body()))?;
    fields.end()
}
