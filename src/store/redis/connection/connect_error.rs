//! Why a server could not be connected to, and the errors of the crate that it
//! becomes. No message ever holds the user's password.

use std::sync::Arc;
use std::time::Duration;

use redis::RedisError;

use crate::error::{Error, StoreError};

/// Why a server could not be connected to.
pub(crate) enum ConnectError {
    /// No reply within that time.
    Deadline(Duration),
    /// redis-rs returned an error.
    Redis(RedisError),
    /// No server of the expected role or identity could be reached.
    NoPrimary(String),
    /// The credentials provider gave no credentials.
    NoCredentials(String),
}

impl ConnectError {
    /// The message for a command that waited for the connection.
    pub(crate) fn at(&self, address: &str) -> String {
        match self {
            Self::Deadline(limit) => {
                format!("{address} did not answer within {} s", limit.as_secs_f64())
            }
            Self::Redis(error) => format!("{address}: {error}"),
            Self::NoPrimary(reason) => reason.clone(),
            Self::NoCredentials(reason) => format!("{address}: {reason}"),
        }
    }
}

/// The error for servers before 7.0.
pub(crate) const TOO_OLD: &str =
    "the server is older than Redis 7.0, which cannot look up and lock in one command";

pub(crate) fn invalid(reason: impl Into<Arc<str>>) -> Error {
    Error::invalid_config("redis url", reason)
}

/// The same error, with the address of the server.
pub(crate) fn of_server(error: Error, address: &str) -> Error {
    match error {
        Error::InvalidConfig { reason, .. } => invalid(format!("{address}: {reason}")),
        // These name the server already.
        other => other,
    }
}

pub(crate) fn unavailable(reason: String) -> Error {
    Error::StoreUnavailable {
        source: StoreError::unavailable(reason),
    }
}
