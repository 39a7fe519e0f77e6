//! The errors that carry a cause: of sending, of fetching a token, of the store, and
//! of an unknown outcome. Each says what its failure proves; none decides what follows.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use super::{BoxError, RetryHint};

/// Why the outcome of a request is unknown: a text, such as `the platform answered 502`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnknownOutcome(Arc<str>);

impl UnknownOutcome {
    pub(crate) fn text(&self) -> Arc<str> {
        self.0.clone()
    }
}

impl<T: Into<Arc<str>>> From<T> for UnknownOutcome {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl Deref for UnknownOutcome {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// A request without a whole answer, and whether it might have been executed.
#[derive(Clone)]
pub struct SendError {
    may_have_left: bool,
    cause: SharedCause,
}

impl SendError {
    /// Proof that the whole request has not left this process, and never will.
    pub fn before_sending(cause: impl Into<BoxError>) -> Self {
        Self::by(true, cause)
    }

    /// The whole request might have left this process.
    ///
    /// The text of the cause is written into the record and returned to every caller.
    /// It should name what failed, and contain nothing of the request or the answer.
    pub fn after_sending(cause: impl Into<BoxError>) -> Self {
        Self::by(false, cause)
    }

    /// Before sending if `is_unsent`, which needs proof; else after sending.
    pub(crate) fn by(is_unsent: bool, cause: impl Into<BoxError>) -> Self {
        Self {
            may_have_left: !is_unsent,
            cause: share(cause),
        }
    }

    /// Whether the whole request might have left this process.
    pub fn may_have_left(&self) -> bool {
        self.may_have_left
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.may_have_left {
            "no whole answer, and the request might have been sent"
        } else {
            "the request was not sent"
        })
    }
}

/// A `TokenSource` could not obtain a token.
#[derive(Clone)]
pub struct TokenError {
    kind: TokenErrorKind,
    cause: SharedCause,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TokenErrorKind {
    Failed,
    Rejected,
    RateLimited(Duration),
}

impl TokenError {
    /// A failure that might pass: the endpoint was unreachable, slow or broken.
    pub fn new(cause: impl Into<BoxError>) -> Self {
        Self {
            kind: TokenErrorKind::Failed,
            cause: share(cause),
        }
    }

    /// The endpoint refused the client. A retry with the same credentials has the same
    /// result.
    pub fn rejected(cause: impl Into<BoxError>) -> Self {
        Self {
            kind: TokenErrorKind::Rejected,
            cause: share(cause),
        }
    }

    /// The endpoint limits the rate of token requests. The engine waits for
    /// `retry_after`, at least for its own backoff and at most for an hour.
    pub fn rate_limited(retry_after: Duration) -> Self {
        Self {
            kind: TokenErrorKind::RateLimited(retry_after),
            cause: share("the token endpoint limits the rate of requests"),
        }
    }

    /// How long the endpoint asked to wait, if it did.
    pub fn retry_after(&self) -> Option<Duration> {
        match self.kind {
            TokenErrorKind::RateLimited(wait) => Some(wait),
            TokenErrorKind::Failed | TokenErrorKind::Rejected => None,
        }
    }

    /// This error with the rest of its wait, if it has one.
    pub(crate) fn with_left(mut self, left: Duration) -> Self {
        if let TokenErrorKind::RateLimited(wait) = &mut self.kind {
            *wait = left;
        }
        self
    }

    /// Whether the endpoint refused the client itself.
    pub fn is_rejected(&self) -> bool {
        self.kind == TokenErrorKind::Rejected
    }

    pub(super) fn hint(&self) -> RetryHint {
        match self.kind {
            TokenErrorKind::Rejected => RetryHint::Never,
            TokenErrorKind::RateLimited(wait) => RetryHint::After(wait),
            TokenErrorKind::Failed => RetryHint::After(Duration::from_secs(5)),
        }
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TokenErrorKind::Failed => f.write_str("the token request failed"),
            TokenErrorKind::Rejected => f.write_str("the token endpoint refused the client"),
            TokenErrorKind::RateLimited(wait) => {
                write!(
                    f,
                    "token requests are rate limited for another {} s",
                    wait.as_secs_f64().ceil()
                )
            }
        }
    }
}

/// A store command that failed.
#[derive(Clone)]
pub struct StoreError {
    kind: StoreErrorKind,
    cause: SharedCause,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StoreErrorKind {
    Unavailable,
    /// Unavailable, with proof that the command was not sent.
    Unsent,
    Refused(RefusalKind),
    Unreadable,
    Undurable,
}

/// Why a store refused a command, which decides what the engine does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefusalKind {
    /// The record is too large, or the store is full. The engine sends a smaller form of
    /// the same event at once.
    TooLarge,
    /// The store accepts no commands, or no writes, at the moment. The engine sends the
    /// same event again later.
    NotNow,
    /// The store does not permit the command: an operator must grant it.
    NotAllowed,
}

impl StoreError {
    /// The store might have applied the command.
    pub fn unavailable(cause: impl Into<BoxError>) -> Self {
        Self {
            kind: StoreErrorKind::Unavailable,
            cause: share(cause),
        }
    }

    /// The command was not sent, so the store did not apply it.
    pub(crate) fn unsent(cause: impl Into<BoxError>) -> Self {
        Self {
            kind: StoreErrorKind::Unsent,
            cause: share(cause),
        }
    }

    /// The store did not apply the command, since the record is too large or the store
    /// is full. A smaller form of the record might fit; for other reasons, see
    /// [`refused_as`](Self::refused_as).
    pub fn refused(cause: impl Into<BoxError>) -> Self {
        Self::refused_as(RefusalKind::TooLarge, cause)
    }

    /// The store refused the command, and did not apply it.
    pub fn refused_as(kind: RefusalKind, cause: impl Into<BoxError>) -> Self {
        Self {
            kind: StoreErrorKind::Refused(kind),
            cause: share(cause),
        }
    }

    /// The record is damaged, or a newer release wrote it. It does not count as absent.
    pub fn unreadable(reason: impl Into<BoxError>) -> Self {
        Self {
            kind: StoreErrorKind::Unreadable,
            cause: share(reason),
        }
    }

    /// The store applied the command, but too few replicas confirmed it. Do not retry:
    /// the result would be the same. The holder releases its lease.
    #[cfg(feature = "redis")]
    pub(crate) fn undurable(cause: impl Into<BoxError>) -> Self {
        Self {
            kind: StoreErrorKind::Undurable,
            cause: share(cause),
        }
    }

    /// Whether the command was applied, and not replicated as the store requires.
    pub(crate) fn is_undurable(&self) -> bool {
        self.kind == StoreErrorKind::Undurable
    }

    /// Whether the store gave a definite answer: a retry has the same result.
    pub(crate) fn is_definite(&self) -> bool {
        use StoreErrorKind::{Unavailable, Unsent};
        !matches!(self.kind, Unavailable | Unsent)
    }

    /// Whether the store definitely did not apply the command.
    pub fn is_refused(&self) -> bool {
        self.refusal().is_some()
    }

    /// Why the store refused the command; `None` for any other failure.
    pub fn refusal(&self) -> Option<RefusalKind> {
        match self.kind {
            StoreErrorKind::Refused(kind) => Some(kind),
            _ => None,
        }
    }

    /// Whether the store might accept a smaller form of the same event.
    pub(crate) fn wants_less(&self) -> bool {
        self.refusal() == Some(RefusalKind::TooLarge)
    }

    /// Whether the store might accept the same event later.
    pub(crate) fn is_not_now(&self) -> bool {
        self.refusal() == Some(RefusalKind::NotNow)
    }

    /// Whether the store might have applied the command.
    pub(crate) fn might_be_applied(&self) -> bool {
        self.kind == StoreErrorKind::Unavailable || self.is_undurable()
    }

    /// Whether the command was not even sent.
    pub(crate) fn is_unsent(&self) -> bool {
        self.kind == StoreErrorKind::Unsent
    }

    /// Whether there is a record that cannot be read.
    pub fn is_unreadable(&self) -> bool {
        self.kind == StoreErrorKind::Unreadable
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            StoreErrorKind::Unavailable | StoreErrorKind::Unsent => "the store did not answer",
            StoreErrorKind::Refused(RefusalKind::TooLarge) => {
                "the store refused to write: the record is too large, or the store is full"
            }
            StoreErrorKind::Refused(RefusalKind::NotNow) => {
                "the store accepts no such command at the moment"
            }
            StoreErrorKind::Refused(RefusalKind::NotAllowed) => {
                "the store does not permit the command"
            }
            StoreErrorKind::Unreadable => "unreadable record",
            StoreErrorKind::Undurable => {
                "the write was applied but not replicated to enough replicas"
            }
        })
    }
}

type SharedCause = Arc<dyn std::error::Error + Send + Sync>;

fn share(cause: impl Into<BoxError>) -> SharedCause {
    Arc::from(cause.into())
}

/// `Debug` and `source()` of an error that carries a cause.
macro_rules! error_with_cause {
    ($type:ident, $($field:ident),+) => {
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($type))
                    $(.field(stringify!($field), &self.$field))+
                    .finish()
            }
        }

        impl std::error::Error for $type {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                Some(&*self.cause)
            }
        }
    };
}

error_with_cause!(SendError, may_have_left, cause);
error_with_cause!(TokenError, kind, cause);
error_with_cause!(StoreError, kind, cause);
