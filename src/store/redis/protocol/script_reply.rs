//! What the scripts answer, in their own words.

use redis::Value;

use super::stored_record::{Found, TOO_LARGE};
use crate::error::StoreError;
use crate::key::RecordName;
use crate::record::{Answer, Record};
use crate::store::redis::connection::command_error::Failure;

/// What a script says.
pub(crate) enum Reply {
    Answer(Answer),
    /// The event was not applied: this is the record.
    Is(Found),
    /// The event was not applied: the body is not there that its record would name.
    NoBody,
}

/// What a script says became of the event.
pub(crate) fn read_reply(name: &RecordName, reply: Value) -> Result<Reply, StoreError> {
    let words = match reply {
        // The usual case, in the shortest form.
        Value::BulkString(word) if word == b"done" => return Ok(Reply::Answer(Answer::Done)),
        Value::Array(words) => words,
        _ => return Err(Failure::unexpected().into()),
    };
    let Some(Value::BulkString(word)) = words.first() else {
        return Err(Failure::unexpected().into());
    };
    match (word.as_slice(), &words[1..]) {
        (b"done", []) => Ok(Reply::Answer(Answer::Done)),
        (b"not-holder", []) => Ok(Reply::Answer(Answer::NotHolder)),
        (b"stale-step", []) => Ok(Reply::Answer(Answer::StaleStep)),
        (b"mismatch", []) => Ok(Reply::Answer(Answer::Mismatch)),
        (b"no-body", []) => Ok(Reply::NoBody),
        (b"is", []) => Ok(Reply::Answer(Answer::Is(None))),
        (b"is", [Value::BulkString(bytes), Value::Int(left)]) => {
            Ok(Reply::Is(Found::read(name, bytes, *left)?))
        }
        (b"lost", [Value::BulkString(bytes), Value::Int(left)]) => {
            let state = Found::read(name, bytes, *left)?.state();
            Ok(Reply::Answer(Answer::Lost(state)))
        }
        (b"too-large", []) => Err(StoreError::unreadable(TOO_LARGE)),
        (b"unreadable", [Value::BulkString(line)]) => Err(match Record::decode(name, line) {
            Err(reason) => reason,
            Ok(_) => StoreError::unreadable("its first line is not spelled as this version does"),
        }),
        _ => Err(Failure::unexpected().into()),
    }
}
