//! Reads of a record: its first line and content by one command, and then a body
//! that is stored apart. It never writes.

use redis::{Cmd, Value};

use super::bodies::Large;
use super::scripts;
use super::stored_record::{Found, TOO_LARGE};
use crate::error::StoreError;
use crate::key::RecordName;
use crate::record::RecordState;
use crate::store::redis::connection::command_error::Failure;
use crate::store::redis::connection::transport::Carrier;
use crate::telemetry::contained;

/// How often a record is read whose body goes while it is read.
const READS: usize = 3;

/// The record, read together with the time that it lives on.
pub(crate) async fn look(
    link: &impl Carrier,
    large: Large<'_>,
    name: &RecordName,
    key: &str,
) -> Result<Option<RecordState>, StoreError> {
    match look_once(link, name, key).await? {
        Some(found) => whole(found, link, large, name, key).await,
        None => Ok(None),
    }
}

/// The same for a list, which has no bodies; but an encrypted outcome is one.
pub(crate) async fn look_for_list(
    link: &impl Carrier,
    large: Large<'_>,
    name: &RecordName,
    key: &str,
) -> Result<Option<RecordState>, StoreError> {
    match look_once(link, name, key).await? {
        Some(found) if found.is_sealed() => whole(found, link, large, name, key).await,
        found => Ok(found.map(|found| found.state())),
    }
}

/// The record and the time that it lives on, of one moment.
pub(crate) async fn look_once(
    link: &impl Carrier,
    name: &RecordName,
    key: &str,
) -> Result<Option<Found>, StoreError> {
    let Value::Array(both) = scripts::LOOK.read(link, key).await? else {
        return Err(Failure::unexpected().into());
    };
    match both.as_slice() {
        [Value::Int(_)] => Err(StoreError::unreadable(TOO_LARGE)),
        [Value::Nil, _] => Ok(None),
        [Value::BulkString(bytes), Value::Int(left)] => Found::read(name, bytes, *left).map(Some),
        _ => Err(Failure::unexpected().into()),
    }
}

/// The record by one plain command, where it has an outcome; its time is not read.
/// Else as a look has it.
pub(crate) async fn peek(
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
        Ok(_) => return Err(Failure::unexpected().into()),
        // What stands in the way of a read, a look says.
        Err(refusal) if refusal.refusal().is_some() => {}
        Err(failure) => return Err(failure.into()),
    }
    Box::pin(look(link, large, name, key)).await
}

/// The state with its body. A record whose body is gone, or is another's, was
/// executed all the same: its status is what is known. `None` where the record
/// itself is gone meanwhile.
pub(crate) async fn whole(
    mut found: Found,
    link: &impl Carrier,
    large: Large<'_>,
    name: &RecordName,
    key: &str,
) -> Result<Option<RecordState>, StoreError> {
    let mut missing = None;
    for _ in 0..READS {
        let Some(length) = found.apart else {
            return Ok(Some(found.state()));
        };
        let seen = found.record.seen();
        let body = Box::pin(large.get(key, seen.lease, length)).await?;
        if body.is_none() && missing.replace(seen) != Some(seen) {
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
