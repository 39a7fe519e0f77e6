//! The reply that a caller gets: an outcome that all callers of a key share, and where it
//! was served from. It changes nothing of the outcome but the headers of one connection.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Outcome, StoredBody};
use crate::key::IdempotencyKey;

/// The answer to a caller: the outcome, which all callers of the key share, and where it
/// was served from.
#[derive(Clone, Debug)]
pub struct Reply {
    pub(super) outcome: Arc<Outcome>,
    key: IdempotencyKey,
    served: Served,
    recorded: bool,
    stored_body: StoredBody,
}

impl Reply {
    pub(crate) fn new(key: IdempotencyKey, outcome: Arc<Outcome>, served: Served) -> Self {
        Self {
            stored_body: outcome.stored_body(),
            outcome,
            key,
            served,
            recorded: true,
        }
    }

    /// This reply for a replay: see [`Outcome::replayable`].
    pub(crate) fn replayable(mut self) -> Self {
        self.outcome = self.outcome.replayable();
        self
    }

    pub(crate) fn with_served(mut self, served: Served) -> Self {
        self.served = served;
        self
    }

    pub(crate) fn with_recorded(mut self, recorded: bool) -> Self {
        self.recorded = recorded;
        self
    }

    pub(crate) fn with_stored_body(mut self, stored_body: StoredBody) -> Self {
        self.stored_body = stored_body;
        self
    }

    /// The HTTP status of the platform's answer.
    pub fn status(&self) -> StatusCode {
        self.outcome.status
    }

    /// Whether the status is 2xx. A reply can also be the platform's refusal: a 400 is an
    /// answer.
    pub fn is_success(&self) -> bool {
        self.status().is_success()
    }

    /// The value of a header; `None` if it is absent or not visible ASCII.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.outcome.header(name)
    }

    /// All headers. A reply from the store or from memory lacks `Set-Cookie` and the
    /// hop-by-hop headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.outcome.headers
    }

    /// The body's bytes; empty if the record holds none: see
    /// [`stored_body`](Self::stored_body).
    pub fn body(&self) -> &Bytes {
        &self.outcome.body
    }

    /// The body read as JSON.
    ///
    /// # Errors
    ///
    /// Those of `serde_json::from_slice`.
    pub fn json<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_slice(self.body())
    }

    /// The outcome that all replies for this key share.
    pub fn outcome(&self) -> &Arc<Outcome> {
        &self.outcome
    }

    /// The request's key.
    pub fn key(&self) -> IdempotencyKey {
        self.key
    }

    /// Where this reply came from.
    pub fn served(&self) -> Served {
        self.served
    }

    /// Whether the outcome is in the store, so that a later request gets the same reply.
    /// `false` for a refusal that proves that nothing was executed, such as a 403, and
    /// for an outcome that the store has not accepted yet.
    pub fn recorded(&self) -> bool {
        self.recorded
    }

    /// How much of the outcome this reply holds. A replay of a `sensitive` request, or of
    /// an answer too large for the store, has the status only. Also the first reply
    /// lacks a body larger than `max_response_bytes`.
    pub fn stored_body(&self) -> StoredBody {
        self.stored_body
    }
}

/// Where a [`Reply`] came from. As JSON it is its label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Served {
    /// This caller's request was the one sent to the platform.
    Upstream,
    /// This caller joined another caller's execution in this process.
    Joined,
    /// A recent outcome in this process's memory.
    Memory,
    /// The store: this or another process executed the request earlier.
    Store,
}

impl Served {
    /// A stable lower-case label for metrics and spans.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Upstream => "upstream",
            Self::Joined => "joined",
            Self::Memory => "memory",
            Self::Store => "store",
        }
    }
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
