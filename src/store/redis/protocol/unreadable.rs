//! Records that cannot be read: the reason, and their removal. It removes no other record.

use redis::Value;

use super::scripts::{self, ScriptArgs};
use super::stored_record::{StoredRecord, TOO_LARGE};
use crate::error::StoreError;
use crate::key::RecordName;
use crate::store::UnreadableRecord;
use crate::store::redis::connection::command_error::CommandError;
use crate::store::redis::connection::transport::Transport;

/// Why a record cannot be read; `None` where it can, or is absent.
pub(crate) async fn unreadable(
    transport: &impl Transport,
    name: &RecordName,
    key: &str,
) -> Result<Option<UnreadableRecord>, StoreError> {
    let record = |reason: &StoreError| UnreadableRecord::of(name.clone(), reason);
    let parts = match scripts::IDENTIFY
        .read(transport, key)
        .await
        .map_err(StoreError::from)
    {
        Ok(Value::Array(parts)) => parts,
        Ok(_) => return Err(CommandError::unexpected().into()),
        // A value of another type has no bytes that identify it.
        Err(reason) if reason.is_unreadable() => return Ok(Some(record(&reason))),
        Err(error) => return Err(error),
    };
    let (stamp, reason, bytes) = match parts.as_slice() {
        [] => return Ok(None),
        [
            Value::BulkString(stamp),
            Value::BulkString(bytes),
            Value::Int(left),
        ] => match StoredRecord::read(name, bytes, *left) {
            Ok(_) => return Ok(None),
            Err(reason) => (stamp, reason, bytes),
        },
        [
            Value::BulkString(stamp),
            Value::Int(_),
            Value::BulkString(bytes),
        ] => (stamp, StoreError::unreadable(TOO_LARGE), bytes),
        _ => return Err(CommandError::unexpected().into()),
    };
    let record = record(&reason).with_stamp(String::from_utf8_lossy(stamp).as_ref());
    Ok(Some(record.written_as(bytes)))
}

/// Removes a record if it is still the listed one, and returns whether it was.
pub(crate) async fn discard(
    transport: &impl Transport,
    record: &UnreadableRecord,
) -> Result<bool, StoreError> {
    let stamp = record.removable()?;
    let (key, args) = (
        record.name().to_string(),
        ScriptArgs::with_room(0).word(&**stamp),
    );
    match scripts::DISCARD.run(transport, &key, &args).await? {
        Value::Int(gone) => Ok(gone == 1),
        _ => Err(CommandError::unexpected().into()),
    }
}
