//! The three errors that carry a cause: of sending, of fetching a token, of the
//! store. Each says what its failure proves.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{BoxError, RetryHint};

/// A request that got no whole answer, and whether it may have been executed.
#[derive(Clone)]
pub struct SendError {
    may_have_left: bool,
    cause: SharedCause,
}

impl SendError {
    /// Proven: the whole request has not left this process, and never will.
    pub fn before_sending(cause: impl Into<BoxError>) -> Self {
        Self::by(true, cause)
    }

    /// The whole request may have left this process.
    ///
    /// What the cause says is written into the record and told to every caller:
    /// it should name what failed, and nothing of the request or the answer.
    pub fn after_sending(cause: impl Into<BoxError>) -> Self {
        Self::by(false, cause)
    }

    /// By the evidence that nothing has left, where there is any.
    pub(crate) fn by(is_unsent: bool, cause: impl Into<BoxError>) -> Self {
        Self {
            may_have_left: !is_unsent,
            cause: share(cause),
        }
    }

    /// Whether the whole request may have left this process.
    pub fn may_have_left(&self) -> bool {
        self.may_have_left
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.may_have_left {
            "no whole answer after the request may have been sent"
        } else {
            "the request was not sent"
        })
    }
}

/// No token could be had from a `TokenSource`.
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
    /// A failure that may pass: the endpoint was unreachable, slow or broken.
    pub fn new(cause: impl Into<BoxError>) -> Self {
        Self {
            kind: TokenErrorKind::Failed,
            cause: share(cause),
        }
    }

    /// The endpoint refused the client: trying again with the same credentials
    /// will not help.
    pub fn rejected(cause: impl Into<BoxError>) -> Self {
        Self {
            kind: TokenErrorKind::Rejected,
            cause: share(cause),
        }
    }

    /// The endpoint limits how often tokens are asked for. The engine leaves it alone
    /// for that long, but at least for its own backoff, and at most for an hour.
    pub fn rate_limited(retry_after: Duration) -> Self {
        Self {
            kind: TokenErrorKind::RateLimited(retry_after),
            cause: share("the token endpoint limits the rate of requests"),
        }
    }

    /// How long the endpoint asked to wait, where it did.
    pub fn retry_after(&self) -> Option<Duration> {
        match self.kind {
            TokenErrorKind::RateLimited(wait) => Some(wait),
            TokenErrorKind::Failed | TokenErrorKind::Rejected => None,
        }
    }

    /// The same error, with what is left of the time that it names, if it does.
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
    /// Unavailable, and known not to have been sent.
    Unsent,
    Refused(RefusalKind),
    Unreadable,
    Undurable,
}

/// Why a store refused a command, and so what the engine does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefusalKind {
    /// The record is too large, or the store is full: a smaller form of the same
    /// event might fit, and is sent at once.
    TooLarge,
    /// The store takes no commands, or no writes, at the moment: the same event is
    /// sent again, whole, later.
    NotNow,
    /// The store does not let this engine do that: an operator has to.
    NotAllowed,
}

impl StoreError {
    /// The command's fate is unknown: it may or may not have been applied.
    pub fn unavailable(cause: impl Into<BoxError>) -> Self {
        Self {
            kind: StoreErrorKind::Unavailable,
            cause: share(cause),
        }
    }

    /// The command was not sent, so it was not applied; the next one may be.
    pub(crate) fn unsent(cause: impl Into<BoxError>) -> Self {
        Self {
            kind: StoreErrorKind::Unsent,
            cause: share(cause),
        }
    }

    /// The store answered and refused to write, since the record is too large or
    /// the store is full: the command was not applied. A smaller form of it might
    /// fit; where that cannot help, see [`refused_as`](Self::refused_as).
    pub fn refused(cause: impl Into<BoxError>) -> Self {
        Self::refused_as(RefusalKind::TooLarge, cause)
    }

    /// The store answered and refused the command, which was not applied.
    pub fn refused_as(kind: RefusalKind, cause: impl Into<BoxError>) -> Self {
        Self {
            kind: StoreErrorKind::Refused(kind),
            cause: share(cause),
        }
    }

    /// There is a record, and it cannot be read: damaged, or written by a newer
    /// version. Never to be taken for an absent one.
    pub fn unreadable(reason: impl Into<BoxError>) -> Self {
        Self {
            kind: StoreErrorKind::Unreadable,
            cause: share(reason),
        }
    }

    /// The command was applied, and too few machines know of it to build on it.
    /// Nobody is to send it again in the hope of another answer: whoever sent it
    /// gives its lease back. To stores' wrappers it looks like `unavailable`,
    /// which leads to the same end, later.
    #[cfg(feature = "redis")]
    pub(crate) fn undurable(cause: impl Into<BoxError>) -> Self {
        Self {
            kind: StoreErrorKind::Undurable,
            cause: share(cause),
        }
    }

    /// Whether the command was applied without being safe.
    pub(crate) fn is_undurable(&self) -> bool {
        self.kind == StoreErrorKind::Undurable
    }

    /// Whether the store gave a definite answer, so that sending the command
    /// again finds out nothing.
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

    /// Whether a smaller form of the same event might be taken.
    pub(crate) fn wants_less(&self) -> bool {
        self.refusal() == Some(RefusalKind::TooLarge)
    }

    /// Whether the same event might be taken in a moment.
    pub(crate) fn is_not_now(&self) -> bool {
        self.refusal() == Some(RefusalKind::NotNow)
    }

    /// Whether the command was not even sent.
    pub(crate) fn is_unsent(&self) -> bool {
        self.kind == StoreErrorKind::Unsent
    }

    /// Whether a record is there but cannot be read.
    pub fn is_unreadable(&self) -> bool {
        self.kind == StoreErrorKind::Unreadable
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            StoreErrorKind::Unavailable | StoreErrorKind::Unsent => "the store did not answer",
            StoreErrorKind::Refused(RefusalKind::TooLarge) => "the store refused to write",
            StoreErrorKind::Refused(RefusalKind::NotNow) => {
                "the store does not take the command at the moment"
            }
            StoreErrorKind::Refused(RefusalKind::NotAllowed) => {
                "the store does not allow the command"
            }
            StoreErrorKind::Unreadable => "the record is unreadable",
            StoreErrorKind::Undurable => "the store could not make sure of the write",
        })
    }
}

type SharedCause = Arc<dyn std::error::Error + Send + Sync>;

fn share(cause: impl Into<BoxError>) -> SharedCause {
    Arc::from(cause.into())
}

/// `Debug` and `source()` alike for the three errors that carry a cause.
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
