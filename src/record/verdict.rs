//! What is said of a request that has no outcome of its own: why it was not
//! executed, or what somebody found out about it. It decides no transition.

use std::sync::Arc;
use std::time::Duration;

use crate::outcome::{Kept, Outcome};

/// The largest refusal that a `Released` record hands to those who waited.
pub const MAX_REFUSAL_BYTES: usize = 64 * 1024;

/// Why nothing was executed, for those who waited in other processes.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Refusal {
    /// The platform refused, and this was its answer.
    Refused(Arc<Outcome>),
    /// The platform refused, and this is what may be kept of its answer.
    Reduced {
        /// Its status, and the digest of its body.
        outcome: Arc<Outcome>,
        /// Why that is all.
        kept: Kept,
    },
    /// The platform asked to wait longer than the holder would.
    RateLimited {
        /// How long, from when the record was written.
        retry_after: Duration,
    },
}

impl Refusal {
    /// What may be stored of it where nothing of an answer may be but status
    /// and digest.
    pub(crate) fn sensitive(self) -> Self {
        match self {
            Self::Refused(outcome) => Self::Reduced {
                outcome: Arc::new(outcome.status_and_digest()),
                kept: Kept::Sensitive,
            },
            reduced => reduced,
        }
    }
}

/// How a person or a policy settles an indeterminate key.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Resolution {
    /// It was not executed: the next request may execute it.
    NotApplied,
    /// It was executed, and this is the outcome to replay.
    Applied(Outcome),
    /// It was executed, and this is what may be kept of its outcome; see
    /// [`sensitive`](Self::sensitive).
    Reduced {
        /// Its status, and the digest of its body.
        outcome: Outcome,
        /// Why that is all.
        kept: Kept,
    },
}

impl Resolution {
    /// The same, with nothing of the outcome but its status and the digest of
    /// its body: for a request that was marked
    /// [`sensitive`](crate::DataActionRequest::sensitive).
    ///
    /// The engine does this by itself with what a `reconcile` hook says of such
    /// a request. The record of an indeterminate key does not tell, so whoever
    /// calls `Engine::resolve` has to.
    ///
    /// ```
    /// use genesys_once::{Kept, Outcome, Resolution};
    /// use http::{HeaderMap, StatusCode};
    ///
    /// let found = Outcome::new(StatusCode::OK, HeaderMap::new(), r#"{"card": "4929…"}"#);
    /// let Resolution::Reduced { outcome, kept, .. } = Resolution::Applied(found).sensitive() else {
    ///     unreachable!()
    /// };
    /// assert_eq!((outcome.status_code, kept), (StatusCode::OK, Kept::Sensitive));
    /// assert!(outcome.body.is_empty());
    /// ```
    #[must_use]
    pub fn sensitive(self) -> Self {
        match self {
            Self::Applied(outcome) => Self::Reduced {
                outcome: outcome.status_and_digest(),
                kept: Kept::Sensitive,
            },
            reduced => reduced,
        }
    }

    /// The outcome to replay, and how much of it this is; `None` where it was
    /// not executed.
    pub(crate) fn into_outcome(self) -> Option<(Outcome, Kept)> {
        match self {
            Self::NotApplied => None,
            Self::Applied(outcome) => Some((outcome, Kept::Whole)),
            Self::Reduced { outcome, kept } => Some((outcome, kept)),
        }
    }
}
