//! What is asked of a record and what a store answers: the events of holders,
//! resolvers and operators. It decides nothing; `transition` does.

use std::sync::Arc;
use std::time::Duration;

use super::{
    About, Attempts, Origin, Phase, RecordState, Refusal, Resolution, Revision, StoredOutcome,
};
use crate::key::{Fingerprint, LeaseId, Version};

/// Who asks, and on what terms: the part that all events of a holder share.
#[derive(Clone, Debug, PartialEq)]
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
    /// What the holder has sent, or is about to send.
    pub attempts: Attempts,
    /// Whose request it is, and who the holder is, for people.
    pub about: Arc<About>,
}

impl Claim {
    /// Which execution of which request this is.
    pub fn version(&self) -> Version {
        Version {
            lease: self.lease,
            fingerprint: self.fingerprint,
        }
    }
}

/// Why the fate of a request is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// What happened.
    pub text: Arc<str>,
    /// The platform's id of its answer, where it gave one.
    pub correlation_id: Option<Arc<str>>,
}

impl<T: Into<Arc<str>>> From<T> for Cause {
    fn from(text: T) -> Self {
        Self {
            text: text.into(),
            correlation_id: None,
        }
    }
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
        revision: Revision,
        /// The asker has seen this version for the whole length of its lease, by
        /// its own monotonic clock: it has lapsed, whatever the store's clock says.
        watched: bool,
    },
    /// Keep the lease alive; changes no phase and no step. It raises the revision,
    /// so that no lease is taken for lapsed that lives on.
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
        /// The outcome, as far as it is stored.
        stored: StoredOutcome,
        /// Where it comes from.
        origin: Origin,
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
        /// What happened.
        cause: Cause,
    },
    /// A person or a policy resolves an indeterminate key.
    Resolve {
        /// The resolver's own lease: an applied outcome is written under it, so
        /// that the lost holder's own answer no longer counts.
        lease: LeaseId,
        /// The version that was seen; any other is left alone.
        revision: Revision,
        /// The request that is meant; any other's record is left alone.
        fingerprint: Fingerprint,
        /// What is found out.
        resolution: Resolution,
        /// Where an applied outcome comes from.
        origin: Origin,
        /// How long an applied outcome is kept.
        ttl: Duration,
    },
    /// Forget the outcome of a `Cached` record, and only that: it becomes
    /// `Released`, for as long as it would have lasted, so that no late command
    /// of its holder writes it again.
    Forget {
        /// The forgetter's own lease.
        lease: LeaseId,
    },
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
    /// Not applied: this is the record now; `None` where there is none.
    Is(Option<RecordState>),
    /// To `TakeOver` of a lease that lapsed in `Dispatched`: the record became
    /// `Indeterminate` by this very command.
    Lost(RecordState),
}
