//! The errors of commands: the server's own, or no reply. It converts both into
//! [`StoreError`]s, and never retries.

use std::fmt;

use redis::{ErrorKind, RedisError, Value};

use super::monitored_stream::TOO_LARGE;
use crate::error::{RefusalKind, StoreError};

/// Why a command has no reply.
#[derive(Clone, Debug)]
pub(crate) enum CommandError {
    /// The server answered with this error.
    Server {
        /// Its first word, `OOM` say.
        code: String,
        /// The whole of it.
        text: String,
    },
    /// No reply: the command might have been applied.
    Lost(String),
    /// There was no connection to send it on: nothing was applied.
    Unsent(String),
    /// No connection was free to send it on: nothing was applied.
    Busy(String),
    /// The reply is larger than any expected one: the connection was closed before the
    /// reply was read.
    TooLarge,
}

/// Another server has that key; nothing was applied.
pub(crate) const MOVED: &str = "MOVED";

/// Another server has that key while its slot moves; nothing was applied.
pub(crate) const ASK: &str = "ASK";

/// A replica refused to write.
pub(crate) const READONLY: &str = "READONLY";

/// Why the server refused the whole command, where the code proves that it did.
fn refusal(code: &str) -> Option<RefusalKind> {
    Some(match code {
        "OOM" => RefusalKind::TooLarge,
        // A fail-over, a missing replica or disk, a start, another program's script, a
        // slot without a server, a slot that moves.
        READONLY | "NOREPLICAS" | "MISCONF" | "LOADING" | "BUSY" | "TRYAGAIN" | "CLUSTERDOWN"
        | "MASTERDOWN" | MOVED | ASK => RefusalKind::NotNow,
        "NOPERM" => RefusalKind::NotAllowed,
        _ => return None,
    })
}

impl CommandError {
    /// The error for a reply of an unexpected type.
    pub(crate) fn unexpected() -> Self {
        Self::Lost("unexpected type of reply from the server".into())
    }

    /// The error in a reply, if it is one.
    pub(crate) fn from_reply(reply: &Value) -> Option<Self> {
        let Value::ServerError(error) = reply else {
            return None;
        };
        let code = error.code().to_owned();
        let text = match error.details() {
            Some(details) => format!("{code} {details}"),
            None => code.clone(),
        };
        Some(Self::Server { code, text })
    }

    /// The reply, or the error in it.
    pub(crate) fn check(reply: Value) -> Result<Value, Self> {
        match Self::from_reply(&reply) {
            Some(failure) => Err(failure),
            None => Ok(reply),
        }
    }

    /// The server's error code, where it answered.
    pub(crate) fn code(&self) -> Option<&str> {
        match self {
            Self::Server { code, .. } => Some(code),
            Self::Lost(_) | Self::Unsent(_) | Self::Busy(_) | Self::TooLarge => None,
        }
    }

    /// Why the server refused the command. It might still answer a read.
    pub(crate) fn refusal(&self) -> Option<RefusalKind> {
        self.code().and_then(refusal)
    }

    /// Whether another server might have the key now.
    pub(crate) fn calls_for_refresh(&self) -> bool {
        let codes = [MOVED, ASK, READONLY, "CLUSTERDOWN"];
        self.code().is_some_and(|code| codes.contains(&code))
    }

    /// Whether the connection must be replaced: it broke, its server has become a replica
    /// (a new connection might find the primary), or requires another password.
    pub(crate) fn ends_connection(&self) -> bool {
        match self.code() {
            Some(code) => code == READONLY || code == "NOAUTH",
            None => true,
        }
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => TOO_LARGE,
            Self::Server { text, .. }
            | Self::Lost(text)
            | Self::Unsent(text)
            | Self::Busy(text) => text,
        })
    }
}

impl From<RedisError> for CommandError {
    fn from(error: RedisError) -> Self {
        let text = error.to_string();
        match error.kind() {
            ErrorKind::Server(_) => Self::Server {
                code: error.code().unwrap_or("ERR").into(),
                text,
            },
            _ if text.contains(TOO_LARGE) => Self::TooLarge,
            _ => Self::Lost(text),
        }
    }
}

impl From<CommandError> for StoreError {
    fn from(failure: CommandError) -> Self {
        if let Some(kind) = failure.refusal() {
            return Self::refused_as(kind, failure.to_string());
        }
        match failure {
            CommandError::Server { code, .. } if code == "WRONGTYPE" => {
                Self::unreadable("the key holds another type of value, not a record")
            }
            CommandError::TooLarge => Self::unreadable(TOO_LARGE),
            CommandError::Busy(text) => Self::refused_as(RefusalKind::NotNow, text),
            CommandError::Server { text, .. }
            | CommandError::Lost(text)
            | CommandError::Unsent(text) => Self::unavailable(text),
        }
    }
}
