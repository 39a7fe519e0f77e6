//! Records that cannot be read: what is wrong with them, and their removal.

use redis::Value;

use super::super::carrier::Carrier;
use super::super::scripts::{self, Args};
use super::{TOO_LARGE, read_state, unexpected};
use crate::error::{RefusalKind, StoreError};
use crate::key::RecordName;
use crate::store::UnreadableRecord;

/// How a record of any version begins.
const FAMILY: &[u8] = b"genesys-once/";

/// The version of the records that this version writes.
const VERSION: u32 = 3;

/// What is wrong with a record; `None` where there is none, or it can be read.
pub(in super::super) async fn unreadable(
    link: &impl Carrier,
    name: &RecordName,
    key: &str,
) -> Result<Option<UnreadableRecord>, StoreError> {
    let record = |reason: &StoreError| {
        let reason = std::error::Error::source(reason).map(ToString::to_string);
        UnreadableRecord::new(name.clone(), reason.unwrap_or_default())
    };
    let parts = match scripts::IDENTIFY
        .read(link, key)
        .await
        .map_err(StoreError::from)
    {
        Ok(Value::Array(parts)) => parts,
        Ok(_) => return Err(unexpected()),
        // Of another type: there are no bytes to know it by.
        Err(reason) if reason.is_unreadable() => return Ok(Some(record(&reason))),
        Err(error) => return Err(error),
    };
    let (stamp, reason, bytes) = match parts.as_slice() {
        [] => return Ok(None),
        [
            Value::BulkString(stamp),
            Value::BulkString(bytes),
            Value::Int(left),
        ] => match read_state(name, bytes, *left) {
            Ok(_) => return Ok(None),
            Err(reason) => (stamp, reason, bytes),
        },
        [
            Value::BulkString(stamp),
            Value::Int(_),
            Value::BulkString(bytes),
        ] => (stamp, StoreError::unreadable(TOO_LARGE), bytes),
        _ => return Err(unexpected()),
    };
    let record = record(&reason).with_stamp(String::from_utf8_lossy(stamp).as_ref());
    Ok(Some(match is_newer(bytes) {
        true => record.newer(),
        false => record,
    }))
}

/// Removes a record that is what was listed, and says whether it was.
pub(in super::super) async fn discard(
    link: &impl Carrier,
    record: &UnreadableRecord,
) -> Result<bool, StoreError> {
    let Some(stamp) = record.stamp().filter(|_| !record.is_newer()) else {
        let reason = "only an operator of the store may remove it, by the store's own means";
        return Err(StoreError::refused_as(RefusalKind::NotAllowed, reason));
    };
    let (key, args) = (record.name().to_string(), Args::with_room(0).word(stamp));
    match scripts::DISCARD.run(link, &key, &args).await? {
        Value::Int(gone) => Ok(gone == 1),
        _ => Err(unexpected()),
    }
}

/// Whether a record says that a later version wrote it.
fn is_newer(bytes: &[u8]) -> bool {
    let version = bytes.strip_prefix(FAMILY);
    let version = version.and_then(|rest| rest.split(u8::is_ascii_whitespace).next());
    version.is_some_and(|version| {
        let number = std::str::from_utf8(version).map(str::parse::<u32>);
        // What is no number was not written by this version, or one before.
        !matches!(number, Ok(Ok(0..=VERSION)))
    })
}
