//! The replies of scripts, read. It sends nothing.

use redis::Value;

use super::stored_record::{StoredRecord, TOO_LARGE};
use crate::error::StoreError;
use crate::key::RecordName;
use crate::record::{Answer, Record};
use crate::store::redis::connection::command_error::CommandError;

/// The reply of a script.
pub(crate) enum ScriptReply {
    Answer(Answer),
    /// The event was not applied: this is the record.
    Is(StoredRecord),
    /// The event was not applied: the body of its record is missing.
    BodyMissing,
}

/// Reads the reply of a script for an event.
pub(crate) fn read_reply(name: &RecordName, reply: Value) -> Result<ScriptReply, StoreError> {
    let words = match reply {
        // The usual case has the shortest form.
        Value::BulkString(word) if word == b"done" => return Ok(ScriptReply::Answer(Answer::Done)),
        Value::Array(words) => words,
        _ => return Err(CommandError::unexpected().into()),
    };
    let Some(Value::BulkString(word)) = words.first() else {
        return Err(CommandError::unexpected().into());
    };
    match (word.as_slice(), &words[1..]) {
        (b"done", []) => Ok(ScriptReply::Answer(Answer::Done)),
        (b"not-holder", []) => Ok(ScriptReply::Answer(Answer::NotHolder)),
        (b"stale-step", []) => Ok(ScriptReply::Answer(Answer::StaleStep)),
        (b"mismatch", []) => Ok(ScriptReply::Answer(Answer::Mismatch)),
        (b"no-body", []) => Ok(ScriptReply::BodyMissing),
        (b"is", []) => Ok(ScriptReply::Answer(Answer::Is(None))),
        (b"is", [Value::BulkString(bytes), Value::Int(left)]) => {
            Ok(ScriptReply::Is(StoredRecord::read(name, bytes, *left)?))
        }
        (b"lost", [Value::BulkString(bytes), Value::Int(left)]) => {
            let state = StoredRecord::read(name, bytes, *left)?.state();
            Ok(ScriptReply::Answer(Answer::Lost(state)))
        }
        (b"too-large", []) => Err(StoreError::unreadable(TOO_LARGE)),
        (b"unreadable", [Value::BulkString(line)]) => Err(match Record::decode(name, line) {
            Err(reason) => reason,
            Ok(_) => {
                StoreError::unreadable("malformed record header: not as this version writes it")
            }
        }),
        _ => Err(CommandError::unexpected().into()),
    }
}
