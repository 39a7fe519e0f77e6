//! The platform's answer, what it proves, and the reply that callers get. Plain data:
//! nothing here decides, stores or sends.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode};

mod reply;
mod response;

pub use self::reply::{Reply, Served};

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
    /// proves: see [`classify`](crate::genesys::classify).
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
