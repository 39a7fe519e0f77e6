//! The policy of each worker, for the workers and for the judge. It does nothing itself.

use std::fmt;

/// The policy by which a worker executes its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// `on_unknown(Hold)`.
    Hold,
    /// `on_unknown(Retry)`: an execution may repeat its own attempts with an unknown outcome.
    Retry,
    /// `on_unknown(Hold)` with a `reconcile` hook that asks for the truth.
    Reconcile,
}

impl Policy {
    pub fn parse(word: &str) -> Self {
        match word {
            "hold" => Self::Hold,
            "retry" => Self::Retry,
            "reconcile" => Self::Reconcile,
            other => panic!("no policy: {other}"),
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hold => "hold",
            Self::Retry => "retry",
            Self::Reconcile => "reconcile",
        })
    }
}
