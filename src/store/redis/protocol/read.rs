//! Reads of a record: its first line and content by one command, and then a body
//! that is stored apart. It never writes.

use redis::{Cmd, Value};

use super::bodies::BodyStore;
use super::scripts;
use super::stored_record::{StoredRecord, TOO_LARGE};
use crate::error::StoreError;
use crate::key::RecordName;
use crate::record::RecordState;
use crate::store::redis::connection::command_error::CommandError;
use crate::store::redis::connection::transport::Transport;
use crate::telemetry::contained;

/// How often to read a record whose body is removed in the meantime.
const MAX_READS: usize = 3;

/// The record with its body.
pub(crate) async fn look(
    transport: &impl Transport,
    body_store: BodyStore<'_>,
    name: &RecordName,
    key: &str,
) -> Result<Option<RecordState>, StoreError> {
    match look_once(transport, name, key).await? {
        Some(found) => whole(found, transport, body_store, name, key).await,
        None => Ok(None),
    }
}

/// The same for a list, without separate bodies; an encrypted outcome is one body.
pub(crate) async fn look_for_list(
    transport: &impl Transport,
    body_store: BodyStore<'_>,
    name: &RecordName,
    key: &str,
) -> Result<Option<RecordState>, StoreError> {
    match look_once(transport, name, key).await? {
        Some(found) if found.is_sealed() => whole(found, transport, body_store, name, key).await,
        found => Ok(found.map(|found| found.state())),
    }
}

/// The record and its time to live, read at one moment.
pub(crate) async fn look_once(
    transport: &impl Transport,
    name: &RecordName,
    key: &str,
) -> Result<Option<StoredRecord>, StoreError> {
    let Value::Array(both) = scripts::LOOK.read(transport, key).await? else {
        return Err(CommandError::unexpected().into());
    };
    match both.as_slice() {
        [Value::Int(_)] => Err(StoreError::unreadable(TOO_LARGE)),
        [Value::Nil, _] => Ok(None),
        [Value::BulkString(bytes), Value::Int(left)] => {
            StoredRecord::read(name, bytes, *left).map(Some)
        }
        _ => Err(CommandError::unexpected().into()),
    }
}

/// The record by one plain `GET` where it has an outcome, without its time to live;
/// otherwise like [`look`].
pub(crate) async fn peek(
    transport: &impl Transport,
    body_store: BodyStore<'_>,
    name: &RecordName,
    key: &str,
) -> Result<Option<RecordState>, StoreError> {
    let mut get = Cmd::with_capacity(2, key.len() + 3);
    get.arg("GET").arg(key);
    match transport.command(key, &get).await {
        Ok(Value::Nil) => return Ok(None),
        Ok(Value::BulkString(bytes)) => {
            let found = StoredRecord::read(name, &bytes, 0)?;
            if found.is_cached() && !found.has_body_apart() {
                return Ok(Some(found.state()));
            }
        }
        Ok(_) => return Err(CommandError::unexpected().into()),
        // `look` returns the error of a refused read.
        Err(refusal) if refusal.refusal().is_some() => {}
        Err(failure) => return Err(failure.into()),
    }
    Box::pin(look(transport, body_store, name, key)).await
}

/// The state with its body. Where the body is gone or of another lease, the state has no
/// body: the request was still executed. `None` where the record itself is gone.
pub(crate) async fn whole(
    mut found: StoredRecord,
    transport: &impl Transport,
    body_store: BodyStore<'_>,
    name: &RecordName,
    key: &str,
) -> Result<Option<RecordState>, StoreError> {
    let mut missing = None;
    for _ in 0..MAX_READS {
        let Some(length) = found.apart else {
            return Ok(Some(found.state()));
        };
        let revision = found.record.revision();
        let body = Box::pin(body_store.get(key, revision.lease, length)).await?;
        if body.is_none() && missing.replace(revision) != Some(revision) {
            // The record might have been forgotten in the meantime.
            match Box::pin(look_once(transport, name, key)).await? {
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
        "the record changed on each of 3 attempts to read its body",
    ))
}
