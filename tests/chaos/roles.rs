//! Who works by which policy, and which keys are kept by which promise. Workers
//! act by it and the judge allows by it; nothing is done here.

use std::fmt;

use genesys_once::Namespace;

/// By what a worker executes keys of [`Realm::Held`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// `on_unknown(Hold)`.
    Hold,
    /// `on_unknown(Retry)`: an execution may repeat its own unproven attempts.
    Retry,
    /// `on_unknown(Hold)` with a `reconcile` hook that asks for the truth.
    Reconcile,
}

/// What is promised for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Realm {
    /// No second call, whoever asks where.
    Held,
    /// `on_store_down(FailOpen)`: no second call of one process.
    Open,
}

/// The parts in a run.
#[derive(Clone, Copy, Debug)]
pub struct Roles {
    /// By a worker's place.
    pub policies: &'static [Policy],
    /// Whether there are keys of [`Realm::Open`].
    pub open: bool,
}

impl Roles {
    pub fn realm(&self, number: u64) -> Realm {
        match self.open && number % 5 == 4 {
            true => Realm::Open,
            false => Realm::Held,
        }
    }
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

impl Realm {
    /// Whose records they are: those of the one are none of the other's.
    pub fn namespace(self) -> Namespace {
        format!("chaos-{self}").parse().unwrap()
    }

    pub fn parse(word: &str) -> Self {
        match word {
            "held" => Self::Held,
            "open" => Self::Open,
            other => panic!("no realm: {other}"),
        }
    }
}

impl fmt::Display for Realm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Held => "held",
            Self::Open => "open",
        })
    }
}
