//! What the platform answered, how sure it is, and the reply that callers get.
//! Plain data: nothing here decides, stores or sends.

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
    /// These parts stand for others, which only `Encrypted` can open.
    sealed: bool,
    body_end: BodyEnd,
}

/// How the end of an answer's body is known. Not recorded: what is replayed was
/// judged by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BodyEnd {
    /// The answer itself says where the body ends: by its length, a last chunk, a
    /// status that has no body. Taken for so of every outcome made by
    /// [`Outcome::new`].
    #[default]
    Marked,
    /// The connection ended, which may have cut the body ("close-delimited", RFC
    /// 9112 section 6.3).
    Closed,
    /// It is not known, and there is no body here: it is larger than the engine
    /// accepts, and was not read or is not kept.
    Unread,
}

/// The header with the id of the key that a sealed outcome was encrypted with.
#[cfg(feature = "encrypted")]
pub(crate) const SEALED_WITH: HeaderName = HeaderName::from_static("encryption-key-id");

/// Headers of one connection or one browser, which no replay should repeat:
/// RFC 9110 section 7.6.1, and cookies.
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

    /// The status, to replace.
    pub fn status_mut(&mut self) -> &mut StatusCode {
        &mut self.status
    }

    /// The headers, to change.
    pub fn headers_mut(&mut self) -> &mut HeaderMap {
        &mut self.headers
    }

    /// The body's bytes as the platform sent them.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The body, to replace.
    pub fn body_mut(&mut self) -> &mut Bytes {
        &mut self.body
    }

    /// The same outcome, of whose body's end this is known. One that is
    /// [`Unread`](BodyEnd::Unread) has no body.
    ///
    /// An [`Upstream`](crate::Upstream) says by it how far its answers can be
    /// believed: [`classify`](crate::classify) goes by it.
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

    /// How much of the outcome there is.
    pub(crate) fn stored_body(&self) -> StoredBody {
        match self.body_end {
            BodyEnd::Unread => StoredBody::OmittedTooLarge,
            BodyEnd::Marked | BodyEnd::Closed => StoredBody::Full,
        }
    }

    /// About how many bytes its headers and body take in memory.
    pub(crate) fn weight(&self) -> usize {
        // The map's own share of a header.
        const HEADER: usize = 64;
        let headers = self.headers.iter();
        let headers = headers.map(|(name, value)| name.as_str().len() + value.len() + HEADER);
        headers.sum::<usize>() + self.body.len()
    }

    /// What stands in a store for an outcome that is encrypted: the key's id in
    /// the headers, everything else in the body. Its status is none that a
    /// platform answers, so that nobody takes it for one.
    pub(crate) fn sealed(headers: HeaderMap, body: impl Into<Bytes>) -> Self {
        let status = StatusCode::from_u16(599).expect("100 to 999 are statuses");
        Self {
            sealed: true,
            ..Self::new(status, headers, body)
        }
    }

    /// This outcome with another body: its own, which a store keeps apart.
    #[cfg(feature = "redis")]
    pub(crate) fn with_body(&self, body: Bytes) -> Self {
        Self {
            body,
            ..self.clone()
        }
    }

    /// Whether this is an encrypted outcome as a store holds it, whose parts
    /// mean nothing: `Encrypted` around that store opens it. The engine never
    /// hands one out; it is
    /// [`Error::RecordUnreadable`](crate::Error::RecordUnreadable).
    pub fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// This outcome as it is replayed: without the headers that are not kept.
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

    /// What is kept of an answer that may not, or cannot, be stored: its status. No
    /// digest of the body: whoever knows the form of a short one would find it by trying.
    pub(crate) fn status_only(&self) -> Self {
        Self::new(self.status, HeaderMap::new(), "")
    }

    /// The value of a header, where it is there and readable text.
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

/// The answer to a caller: the outcome, shared by everybody who asked, and
/// where it was served from.
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

    /// This reply as it is given again: its outcome without the headers that are
    /// not kept.
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

    /// Whether the status is 2xx. A reply may just as well be the platform's
    /// refusal: a 400 is an answer, too.
    pub fn is_success(&self) -> bool {
        self.status().is_success()
    }

    /// The value of a header, where it is there and readable text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.outcome.header(name)
    }

    /// All headers. A reply from the store or from memory lacks `Set-Cookie`
    /// and the hop-by-hop headers, which belong to one connection.
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

    /// Whether the outcome is in the store, so that a later request gets the
    /// same reply. `false` for a refusal that proves that nothing was executed
    /// (a 403, say), and for an outcome that the store could not take yet.
    pub fn recorded(&self) -> bool {
        self.recorded
    }

    /// How much of the outcome this reply holds: a replay of a `sensitive`
    /// request or of an answer too large for the store has its status only. The
    /// first reply, too, lacks a body that is larger than `max_response_bytes`.
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
    /// Another caller's execution in this process was under way and served
    /// this one too.
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
    /// store can take.
    OmittedTooLarge,
}

/// What an answer proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// Executed, or refused for good: recorded and replayed.
    Final,
    /// Proven not executed.
    NotExecuted(Recovery),
    /// Nothing is proven: it may have been executed.
    Unknown,
}

/// What to do after an answer that proves that nothing was executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Recovery {
    /// Wait as long as the platform asks, then try again.
    Retry,
    /// Drop the token that was refused, then send once more with a fresh one.
    RenewToken,
    /// Give the answer to every waiter and record nothing.
    PassThrough,
}
