//! The platform's answer, what it proves, and the reply that callers get. Plain data:
//! nothing here decides, stores or sends.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode};
use serde::de::DeserializeOwned;

use crate::key::IdempotencyKey;

/// A whole answer of the platform: status, headers and body, byte for byte.
///
/// `Debug` shows the status, the header names and the body's length, never
/// their contents: answers hold customer records.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct Outcome {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    /// The parts are an encrypted outcome, which only `Encrypted` can open.
    sealed: bool,
    body_end: BodyEnd,
}

/// How the end of an answer's body is known. It is not recorded: a replay was judged
/// before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BodyEnd {
    /// The answer says where the body ends: by its length, a last chunk, or a status
    /// without a body. [`Outcome::new`] assumes it.
    #[default]
    Marked,
    /// The connection ended, which might have cut the body ("close-delimited", RFC 9112
    /// section 6.3).
    Closed,
    /// The end is not known, and the outcome has no body: it is larger than the engine
    /// accepts.
    Unread,
}

/// The header with the id of the key that a sealed outcome was encrypted with.
#[cfg(feature = "encrypted")]
pub(crate) const SEALED_WITH: HeaderName = HeaderName::from_static("encryption-key-id");

/// Headers of one connection (RFC 9110 section 7.6.1) or one browser (cookies), which no
/// replay repeats.
pub(crate) const NOT_KEPT: [&str; 11] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
];

/// Whether a replay has this header.
pub(crate) fn is_kept(name: &HeaderName) -> bool {
    !NOT_KEPT.contains(&name.as_str())
}

impl Outcome {
    /// An outcome with these parts.
    pub fn new(status: StatusCode, headers: HeaderMap, body: impl Into<Bytes>) -> Self {
        Self {
            status,
            headers,
            body: body.into(),
            sealed: false,
            body_end: BodyEnd::default(),
        }
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The headers, repeated ones included.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The status, for a change.
    pub fn status_mut(&mut self) -> &mut StatusCode {
        &mut self.status
    }

    /// The headers, for a change.
    pub fn headers_mut(&mut self) -> &mut HeaderMap {
        &mut self.headers
    }

    /// The body's bytes as the platform sent them.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The body, for a change.
    pub fn body_mut(&mut self) -> &mut Bytes {
        &mut self.body
    }

    /// This outcome with another [`BodyEnd`]. [`Unread`](BodyEnd::Unread) removes the
    /// body.
    ///
    /// An [`Upstream`](crate::Upstream) sets it, because it decides what an answer
    /// proves: see [`classify`](crate::classify).
    #[must_use]
    pub fn with_body_end(mut self, end: BodyEnd) -> Self {
        self.body_end = end;
        if end == BodyEnd::Unread {
            self.body = Bytes::new();
        }
        self
    }

    /// How the end of the body is known.
    pub fn body_end(&self) -> BodyEnd {
        self.body_end
    }

    /// How much of the outcome is here.
    pub(crate) fn stored_body(&self) -> StoredBody {
        match self.body_end {
            BodyEnd::Unread => StoredBody::OmittedTooLarge,
            BodyEnd::Marked | BodyEnd::Closed => StoredBody::Full,
        }
    }

    /// The approximate bytes of its headers and body in memory.
    pub(crate) fn weight(&self) -> usize {
        // The map's overhead for a header.
        const HEADER: usize = 64;
        let headers = self.headers.iter();
        let headers = headers.map(|(name, value)| name.as_str().len() + value.len() + HEADER);
        headers.sum::<usize>() + self.body.len()
    }

    /// An encrypted outcome as a store holds it: the key's id in the headers, everything
    /// else in the body. No platform answers with its status.
    pub(crate) fn sealed(headers: HeaderMap, body: impl Into<Bytes>) -> Self {
        let status = StatusCode::from_u16(599).expect("100 to 999 are statuses");
        Self {
            sealed: true,
            ..Self::new(status, headers, body)
        }
    }

    /// This outcome with its body, which a store keeps separately.
    #[cfg(feature = "redis")]
    pub(crate) fn with_body(&self, body: Bytes) -> Self {
        Self {
            body,
            ..self.clone()
        }
    }

    /// Whether this is an encrypted outcome as a store holds it, which `Encrypted` around
    /// that store opens. The engine never returns one: it is
    /// [`Error::RecordUnreadable`](crate::Error::RecordUnreadable).
    pub fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// This outcome for a replay: without the headers of one connection.
    pub(crate) fn replayable(self: Arc<Self>) -> Arc<Self> {
        if self.headers.keys().all(is_kept) {
            return self;
        }
        let mut outcome = Arc::unwrap_or_clone(self);
        for name in NOT_KEPT {
            outcome.headers.remove(name);
        }
        Arc::new(outcome)
    }

    /// Status and headers, with an empty body.
    pub(crate) fn without_body(&self) -> Self {
        let mut outcome = self.clone();
        outcome.body = Bytes::new();
        outcome
    }

    /// The status alone, of an answer that must not or cannot be stored. There is no
    /// digest of the body: a short body of known form could be found by trial.
    pub(crate) fn status_only(&self) -> Self {
        Self::new(self.status, HeaderMap::new(), "")
    }

    /// The value of a header; `None` if it is absent or not visible ASCII.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outcome")
            .field("status", &self.status)
            .field("headers", &self.headers.keys().collect::<Vec<_>>())
            .field("body_bytes", &self.body.len())
            .finish()
    }
}

/// The answer to a caller: the outcome, which all callers of the key share, and where it
/// was served from.
#[derive(Clone, Debug)]
pub struct Reply {
    outcome: Arc<Outcome>,
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

    /// The body's bytes. Empty where the record holds none: see
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

/// Where a [`Reply`] came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
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

/// How much of an outcome a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoredBody {
    /// Status, headers and body.
    Full,
    /// The status alone: the request was marked sensitive.
    OmittedSensitive,
    /// The status alone: the answer is larger than `max_response_bytes`, or than the
    /// store accepts.
    OmittedTooLarge,
}

/// What an answer proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// Executed, or finally refused: recorded and replayed.
    Final,
    /// Proven not executed.
    NotExecuted(Recovery),
    /// The request might have been executed.
    Unknown,
}

/// What to do after an answer that proves that nothing was executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Recovery {
    /// Wait as long as the platform asks, then retry.
    Retry,
    /// Drop the token that was refused, then send once more with a fresh one.
    RenewToken,
    /// Return the answer to every waiter, and record no outcome.
    PassThrough,
}
