//! Why a server could not be connected to, and the errors of the crate that it
//! becomes. No message ever holds the user's password.

use std::sync::Arc;
use std::time::Duration;

use redis::RedisError;

use crate::error::{Error, StoreError};

/// Why a server could not be dialled.
pub(crate) enum ConnectError {
    /// Nothing came back in that time.
    Deadline(Duration),
    /// Something did.
    Redis(RedisError),
    /// The sentinels name no server that could be dialled.
    NoPrimary(String),
    /// There is nothing to log in with.
    NoCredentials(String),
}

impl ConnectError {
    /// For whoever waited for the connection.
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

/// What servers before 7.0 are told, however they give themselves away.
pub(crate) const TOO_OLD: &str =
    "the server is older than Redis 7.0, which cannot look up and lock in one command";

pub(crate) fn invalid(reason: impl Into<Arc<str>>) -> Error {
    Error::invalid_config("redis url", reason)
}

/// The same error, of one server among several.
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
