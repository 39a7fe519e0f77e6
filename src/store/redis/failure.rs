//! What a failed command says about itself: the server's own error, or that no
//! answer came. It turns both into [`StoreError`]s and never repeats anything.

use redis::{ErrorKind, RedisError};

use crate::error::StoreError;

/// Why a command has no reply.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// The server answered with this error.
    Server {
        /// Its first word, `OOM` say.
        code: String,
        /// The whole of it.
        text: String,
    },
    /// No answer: the command may have been applied or not.
    Lost(String),
}

/// The codes with which a server refuses to write and has written nothing.
const REFUSALS: [&str; 5] = ["OOM", "NOREPLICAS", "READONLY", "MISCONF", "NOPERM"];

impl Failure {
    /// For a reply of a shape that no Redis sends.
    pub(super) fn unexpected_reply() -> &'static str {
        "the server's reply has a shape that none of these commands has"
    }

    /// The server's error code, where it answered.
    pub(super) fn code(&self) -> Option<&str> {
        match self {
            Self::Server { code, .. } => Some(code),
            Self::Lost(_) => None,
        }
    }

    /// Whether the server refused to write: then it may still answer a read.
    pub(super) fn is_refusal(&self) -> bool {
        self.code().is_some_and(|code| REFUSALS.contains(&code))
    }

    /// Whether the connection is of no more use: it broke, the server behind
    /// it has become a replica (a new connection may find the primary), or
    /// wants another password.
    pub(super) fn ends_connection(&self) -> bool {
        match self.code() {
            Some(code) => code == "READONLY" || code == "NOAUTH",
            None => true,
        }
    }
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        let text = error.to_string();
        // A transaction's error carries those of its commands.
        if let Some(first) = error
            .clone()
            .into_server_errors()
            .as_deref()
            .and_then(<[_]>::first)
        {
            let code = first.1.code().to_owned();
            let text = match first.1.details() {
                Some(details) => format!("{code} {details}"),
                None => code.clone(),
            };
            return Self::Server { code, text };
        }
        match error.kind() {
            ErrorKind::Server(_) => Self::Server {
                code: error.code().unwrap_or("ERR").into(),
                text,
            },
            _ => Self::Lost(text),
        }
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        let refused = failure.is_refusal();
        match failure {
            Failure::Server { text, .. } if refused => Self::refused(text),
            Failure::Server { code, .. } if code == "WRONGTYPE" => {
                Self::unreadable("the key holds another type of value, not a record")
            }
            Failure::Server { text, .. } | Failure::Lost(text) => Self::unavailable(text),
        }
    }
}
