//! A record as it was found, its body still apart perhaps, and what becomes of it:
//! the state with its body, read after the record.

use std::time::Duration;

use redis::{Cmd, Value};

use super::super::bodies::Large;
use super::super::carrier::Carrier;
use super::super::scripts::{self, MAX_RECORD_BYTES};
use super::{CENTURY, TOO_LARGE, look, unexpected};
use crate::error::StoreError;
use crate::key::RecordName;
use crate::record::{Claim, Content, Record, RecordState};
use crate::telemetry::contained;

/// How often a record is read whose body goes while it is read.
const READS: usize = 3;

/// A record, and where its body is.
pub(super) struct Found {
    record: Record,
    /// The length of a body that is apart.
    apart: Option<usize>,
    left: Duration,
}

impl Found {
    /// What a server returned, and the milliseconds that it lives on.
    pub(super) fn read(name: &RecordName, bytes: &[u8], left: i64) -> Result<Self, StoreError> {
        if bytes.len() > MAX_RECORD_BYTES {
            return Err(StoreError::unreadable(TOO_LARGE));
        }
        let (record, apart) = Record::decode_parted(name, bytes)?;
        // Nothing of ours lives for ever: somebody has changed the key, and the script
        // that found it gave it its own time again.
        let left = u64::try_from(left).map_or(CENTURY, Duration::from_millis);
        Ok(Self {
            record,
            apart,
            left,
        })
    }

    pub(super) fn has_body_apart(&self) -> bool {
        self.apart.is_some()
    }

    pub(super) fn is_sealed(&self) -> bool {
        matches!(&self.record.content, Content::Cached { stored, .. } if stored.outcome.is_sealed())
    }

    pub(super) fn is_cached(&self) -> bool {
        matches!(self.record.content, Content::Cached { .. })
    }

    /// Whether it answers the request of this claim, or is in nobody's way.
    pub(super) fn is_for(&self, claim: &Claim) -> bool {
        self.record.fingerprint == claim.fingerprint || self.state().is_free()
    }

    /// What is read of it but for a body that is apart.
    pub(super) fn state(&self) -> RecordState {
        self.record.state(self.left)
    }

    /// The state with its body. A record whose body is gone, or is another's, was
    /// executed all the same: its status is what is known. `None` where the record
    /// itself is gone meanwhile.
    pub(super) async fn whole(
        self,
        link: &impl Carrier,
        large: Large<'_>,
        name: &RecordName,
        key: &str,
    ) -> Result<Option<RecordState>, StoreError> {
        let mut found = self;
        let mut missing = None;
        for _ in 0..READS {
            let Some(length) = found.apart else {
                return Ok(Some(found.state()));
            };
            let revision = found.record.revision();
            let body = Box::pin(large.get(key, revision.lease, length)).await?;
            if body.is_none() && missing.replace(revision) != Some(revision) {
                // Forgotten in between, perhaps.
                match Box::pin(look_once(link, name, key)).await? {
                    Some(now) => found = now,
                    None => return Ok(None),
                }
                continue;
            }
            if body.is_none() {
                contained(|| {
                    tracing::warn!(%name, "the body of a recorded outcome is gone from redis");
                });
            }
            found.record = found.record.with_body(body)?;
            return Ok(Some(found.state()));
        }
        Err(StoreError::unavailable(
            "the record changed again and again while its body was read",
        ))
    }
}

/// The record and the time that it lives on, of one moment.
pub(super) async fn look_once(
    link: &impl Carrier,
    name: &RecordName,
    key: &str,
) -> Result<Option<Found>, StoreError> {
    let Value::Array(both) = scripts::LOOK.read(link, key).await? else {
        return Err(unexpected());
    };
    match both.as_slice() {
        [Value::Int(_)] => Err(StoreError::unreadable(TOO_LARGE)),
        [Value::Nil, _] => Ok(None),
        [Value::BulkString(bytes), Value::Int(left)] => Found::read(name, bytes, *left).map(Some),
        _ => Err(unexpected()),
    }
}

/// The record by one plain command, where it has an outcome; its time is not read.
/// Else as a look has it.
pub(in super::super) async fn peek(
    link: &impl Carrier,
    large: Large<'_>,
    name: &RecordName,
    key: &str,
) -> Result<Option<RecordState>, StoreError> {
    let mut get = Cmd::with_capacity(2, key.len() + 3);
    get.arg("GET").arg(key);
    match link.command(key, &get).await {
        Ok(Value::Nil) => return Ok(None),
        Ok(Value::BulkString(bytes)) => {
            let found = Found::read(name, &bytes, 0)?;
            if found.is_cached() && !found.has_body_apart() {
                return Ok(Some(found.state()));
            }
        }
        Ok(_) => return Err(unexpected()),
        // What stands in the way of a read, a look says.
        Err(refusal) if refusal.refusal().is_some() => {}
        Err(failure) => return Err(failure.into()),
    }
    Box::pin(look(link, large, name, key)).await
}
