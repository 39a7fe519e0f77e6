//! The record of one key and its transitions, as a pure function: no clock, no
//! I/O, no randomness but [`LeaseId::random`]. Every store applies
//! [`apply`] inside its own transaction or mirrors it; no store invents a rule.
//!
//! ```text
//! absent, Released ──acquire──► Locked{lease, step, phase} ──complete──► Cached
//!                                 │  ▲ extend: the lease lives on, nothing else
//!                                 │  │ enter(Claimed | Dispatched): with a step
//!                                 │  └ take over: lapsed AND Claimed
//!                                 ├─ release ► Released{last verdict}
//!                                 └─ abandon ► Indeterminate{since, cause}
//! Indeterminate ── resolve ► Released or Cached
//!               ── the lost lease itself: complete ► Cached, release ► Released
//! ```
//!
//! A record lives as long as its store keeps it: `Locked` for the lease **and**
//! a retention that is written in it, so that a lapsed lease is *seen* (what is
//! left is less than the retention) and never guessed from two clocks.

mod codec;
mod orphan;
mod sealed;
mod transition;
mod verdict;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

#[cfg(feature = "encrypted")]
pub(crate) use self::codec::{decode_outcome, encode_outcome};
pub use self::orphan::settle_orphan;
pub(crate) use self::sealed::readable;
pub use self::transition::apply;
pub use self::verdict::{MAX_REFUSAL_BYTES, Refusal, Resolution};
use crate::key::{Fingerprint, ParseKeyError, read_hex, write_hex};
use crate::outcome::{Kept, Outcome};

/// How long a [`RecordState::Released`] is kept: long enough for any late
/// command of a dead connection to find it.
pub const RELEASED_FOR: Duration = Duration::from_secs(600);

/// Who holds a lease: 128 random bits, new for every execution.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId([u8; 16]);

impl LeaseId {
    /// A lease that nobody else has, from the operating system's randomness.
    pub fn random() -> Self {
        let mut bytes = [0; 16];
        // Without randomness two holders could share a lease: better no lease.
        getrandom::fill(&mut bytes).expect("the operating system has randomness");
        Self(bytes)
    }

    /// The lease with these bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl FromStr for LeaseId {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        read_hex(text).map(Self).ok_or(ParseKeyError)
    }
}

/// What a holder may be doing under its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Nothing is on the wire and no attempt is unproven: once lapsed, somebody
    /// else may take over.
    Claimed,
    /// A request may be on the wire: once lapsed, nobody may send another.
    Dispatched,
}

/// The version of a record that somebody saw, for compare-and-set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Seen {
    /// The record's revision, raised by every write.
    pub rev: u64,
    /// The lease that wrote it.
    pub lease: LeaseId,
}

/// A record as it stands in a store.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Raised by every write.
    pub rev: u64,
    /// Who wrote it.
    pub lease: LeaseId,
    /// The number of the last step that this lease took.
    pub step: u32,
    /// How long the record outlives its lease (`Locked`), or how long it was to
    /// live when it was written (all others).
    pub retention: Duration,
    /// What the request asks for.
    pub fingerprint: Fingerprint,
    /// The state and its data.
    pub content: Content,
}

/// The state part of a [`Record`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Content {
    /// Somebody holds the lease, or held it until it lapsed.
    Locked(Phase),
    /// The outcome is known.
    Cached {
        /// The outcome, or its status alone.
        outcome: Arc<Outcome>,
        /// How much of it is there.
        kept: Kept,
    },
    /// A request was sent and its fate is unknown.
    Indeterminate {
        /// Since when, by the clock of the process that noticed.
        since: SystemTime,
        /// What happened.
        cause: Arc<str>,
    },
    /// Nothing was executed; the next one may.
    Released {
        /// What those who waited are told.
        verdict: Option<Refusal>,
    },
}

/// A record as a reader sees it, with times by the store's clock.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum RecordState {
    /// Somebody holds the key.
    Locked {
        /// What they may be doing.
        phase: Phase,
        /// What is left of the lease; zero once it has lapsed.
        lease_left: Duration,
        /// The version seen.
        seen: Seen,
        /// What their request asks for.
        fingerprint: Fingerprint,
    },
    /// The outcome is known.
    Cached {
        /// The outcome, or its status alone: see `kept`.
        outcome: Arc<Outcome>,
        /// How long the record lives on, at least: zero where the store was
        /// not asked for it.
        left: Duration,
        /// How much of the outcome the record holds.
        kept: Kept,
        /// The version seen.
        seen: Seen,
        /// What the request asked for.
        fingerprint: Fingerprint,
    },
    /// A request was sent and its fate is unknown.
    Indeterminate {
        /// Since when, by the clock of the process that noticed.
        since: SystemTime,
        /// What happened.
        cause: Arc<str>,
        /// How long ago that is by the store's clock.
        age: Duration,
        /// The version seen.
        seen: Seen,
        /// What the request asked for.
        fingerprint: Fingerprint,
    },
    /// Nothing was executed and nobody holds the key.
    Released {
        /// What those who waited are told.
        verdict: Option<Refusal>,
        /// The version seen.
        seen: Seen,
    },
}

impl RecordState {
    /// Whether a request may have been executed under this record, and nobody is
    /// left who will find out: `Indeterminate`, or `Locked` with a lease in
    /// `Dispatched` that has lapsed. `Store::unresolved` lists these.
    pub fn is_unresolved(&self) -> bool {
        match self {
            Self::Indeterminate { .. } => true,
            Self::Locked {
                phase, lease_left, ..
            } => *phase == Phase::Dispatched && lease_left.is_zero(),
            Self::Cached { .. } | Self::Released { .. } => false,
        }
    }

    /// The version that was seen.
    pub fn seen(&self) -> Seen {
        match self {
            Self::Locked { seen, .. }
            | Self::Cached { seen, .. }
            | Self::Indeterminate { seen, .. }
            | Self::Released { seen, .. } => *seen,
        }
    }

    /// The fingerprint to compare before an answer is handed out; `Released`
    /// has none, since it holds nobody's answer.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        match self {
            Self::Locked { fingerprint, .. }
            | Self::Cached { fingerprint, .. }
            | Self::Indeterminate { fingerprint, .. } => Some(*fingerprint),
            Self::Released { .. } => None,
        }
    }
}

impl Record {
    /// What a reader sees of this record, `left` being the time that it lives
    /// on by the store's clock.
    pub fn state(&self, left: Duration) -> RecordState {
        let seen = self.seen();
        let fingerprint = self.fingerprint;
        match &self.content {
            Content::Locked(phase) => RecordState::Locked {
                phase: *phase,
                lease_left: left.saturating_sub(self.retention),
                seen,
                fingerprint,
            },
            Content::Cached { outcome, kept } => RecordState::Cached {
                outcome: outcome.clone(),
                left,
                kept: *kept,
                seen,
                fingerprint,
            },
            Content::Indeterminate { since, cause } => RecordState::Indeterminate {
                since: *since,
                cause: cause.clone(),
                age: self.retention.saturating_sub(left),
                seen,
                fingerprint,
            },
            Content::Released { verdict } => RecordState::Released {
                verdict: verdict.clone(),
                seen,
            },
        }
    }

    /// The version of this record.
    pub fn seen(&self) -> Seen {
        Seen {
            rev: self.rev,
            lease: self.lease,
        }
    }
}

/// Who asks, and on what terms: the part that all events of a holder share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The holder's own lease.
    pub lease: LeaseId,
    /// What its request asks for.
    pub fingerprint: Fingerprint,
    /// How long the lease lives from each acquire, take-over, extend and enter.
    pub lease_ttl: Duration,
    /// How long a `Locked` record outlives its lease, and how long an
    /// `Indeterminate` one is kept.
    pub retention: Duration,
}

/// One command to a record. All are idempotent: sending one again after a lost
/// reply finds out what became of it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// Take an absent key, straight into `Dispatched`.
    Acquire {
        /// Who asks.
        claim: Claim,
    },
    /// Take a `Released` key, or one whose holder lapsed in `Claimed`, into
    /// `Claimed`. One that lapsed in `Dispatched` becomes `Indeterminate`.
    TakeOver {
        /// Who asks.
        claim: Claim,
        /// The version that was seen; any other is left alone.
        seen: Seen,
        /// The asker's clock, written where the key becomes `Indeterminate`.
        now: SystemTime,
    },
    /// Keep the lease alive; changes no phase and no step.
    Extend {
        /// Who asks.
        claim: Claim,
        /// `Some(step)` where the holder is in `Dispatched`: an absent record
        /// (a restart, an eviction, a flush) is put back with that step.
        dispatched: Option<u32>,
    },
    /// Change the phase.
    Enter {
        /// Who asks.
        claim: Claim,
        /// Higher than the step of the phase before.
        step: u32,
        /// The phase to enter. `Claimed` needs proof that nothing was executed.
        phase: Phase,
    },
    /// The outcome is known.
    Complete {
        /// Who asks.
        claim: Claim,
        /// The holder's step.
        step: u32,
        /// The outcome, reduced beforehand to what is to be kept.
        outcome: Arc<Outcome>,
        /// How much of it that is.
        kept: Kept,
        /// How long it is kept.
        ttl: Duration,
    },
    /// Nothing was executed: give the key back.
    Release {
        /// Who asks.
        claim: Claim,
        /// Higher than every step before.
        step: u32,
        /// What those who waited are told.
        verdict: Option<Refusal>,
    },
    /// It may have been executed: hold the key until it is resolved.
    Abandon {
        /// Who asks.
        claim: Claim,
        /// Higher than every step before.
        step: u32,
        /// The asker's clock.
        since: SystemTime,
        /// What happened.
        cause: Arc<str>,
    },
    /// A person or a policy settles an indeterminate key.
    Resolve {
        /// The version that was seen; any other is left alone.
        seen: Seen,
        /// The settlement.
        resolution: Resolution,
        /// How long an `Applied` outcome is kept.
        ttl: Duration,
    },
    /// Remove a `Cached` record, and only that.
    Forget,
}

/// What a store answers to an [`Event`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Answer {
    /// The record now is as the event asked for, by this or an earlier sending
    /// of it.
    Done,
    /// The lease in the record is another one, or the record is gone.
    NotHolder,
    /// The lease took a higher step already: a late command.
    StaleStep,
    /// The record belongs to a request that asks for something else.
    Mismatch,
    /// Not applied, or (for `TakeOver` of a lapsed `Dispatched`) applied as
    /// `Indeterminate`: this is the record now; `None` where there is none.
    Is(Option<RecordState>),
}
