//! What a failed command says about itself: the server's own error, or that no
//! answer came. It turns both into [`StoreError`]s and never repeats anything.

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
    /// No answer: the command may have been applied or not.
    Lost(String),
    /// There was no connection to send it on: nothing was applied.
    Unsent(String),
    /// No connection was free to send it on: nothing was applied.
    Busy(String),
    /// What the server has is larger than anything asked for: the connection has
    /// ended before it was read.
    TooLarge,
}

/// The server does not have that key, another one does; nothing was applied.
pub(crate) const MOVED: &str = "MOVED";

/// The same, for this once.
pub(crate) const ASK: &str = "ASK";

/// A replica is asked to write, and has not.
pub(crate) const READONLY: &str = "READONLY";

/// What a server's error code says of a command that it has not run: the whole of
/// it was refused, and why.
fn refusal(code: &str) -> Option<RefusalKind> {
    Some(match code {
        "OOM" => RefusalKind::TooLarge,
        // A fail-over, a replica or a disk that is missing, a start, another
        // program's script, a slot without a server or on the move.
        READONLY | "NOREPLICAS" | "MISCONF" | "LOADING" | "BUSY" | "TRYAGAIN" | "CLUSTERDOWN"
        | "MASTERDOWN" | MOVED | ASK => RefusalKind::NotNow,
        "NOPERM" => RefusalKind::NotAllowed,
        _ => return None,
    })
}

impl CommandError {
    /// For a reply of a shape that no Redis sends.
    pub(crate) fn unexpected() -> Self {
        Self::Lost("the server's reply has a shape that none of these commands has".into())
    }

    /// The error that a reply is, if it is one.
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

    /// The reply, or the error that it is.
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

    /// Why the server refused the command, where it did: it may still answer a read.
    pub(crate) fn refusal(&self) -> Option<RefusalKind> {
        self.code().and_then(refusal)
    }

    /// Whether another server may have the key by now.
    pub(crate) fn calls_for_refresh(&self) -> bool {
        let codes = [MOVED, ASK, READONLY, "CLUSTERDOWN"];
        self.code().is_some_and(|code| codes.contains(&code))
    }

    /// Whether the connection is of no more use: it broke, the server behind
    /// it has become a replica (a new connection may find the primary), or
    /// wants another password.
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
