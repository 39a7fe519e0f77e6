//! The commands to a record, from holders, resolvers and operators, and a store's answers
//! to them. It decides nothing: `transition` does.

use std::sync::Arc;
use std::time::Duration;

use super::{
    About, Attempts, Origin, Phase, RecordState, Refusal, Resolution, Revision, StoredOutcome,
};
use crate::key::{Fingerprint, LeaseId, Version};

/// The holder, its request and its terms: the part that all events of a holder share.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// The holder's own lease.
    pub lease: LeaseId,
    /// What its request asks for.
    pub fingerprint: Fingerprint,
    /// How long the lease lives from each acquire, take-over, extend and enter.
    pub lease_ttl: Duration,
    /// How long a `Locked` record outlives its lease, and how long an `Indeterminate` one
    /// lives.
    pub retention: Duration,
    /// What the holder has sent, or is about to send.
    pub attempts: Attempts,
    /// The request and its holder, for people.
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

/// Why the outcome of a request is not known.
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

/// One command to a record. All are idempotent: after a lost reply, the same command again
/// returns what became of the first.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// Acquire an absent key, directly in `Dispatched`.
    Acquire {
        /// The holder and its request.
        claim: Claim,
    },
    /// Acquire a `Released` key, or one whose lease expired in `Claimed`; it is then
    /// `Claimed`. A lease that expired in `Dispatched` makes the record `Indeterminate`.
    TakeOver {
        /// The holder and its request.
        claim: Claim,
        /// The revision to change; any other is left alone.
        revision: Revision,
        /// The asker saw this revision for the whole length of its lease, by its own
        /// monotonic clock. So the lease has expired, whatever the store's clock shows.
        watched: bool,
    },
    /// Extend the lease; phase and step stay. It raises the revision, so that no other
    /// engine takes a live lease for an expired one.
    Extend {
        /// The holder and its request.
        claim: Claim,
        /// `Some(step)` where the holder is in `Dispatched`: an absent record (after a
        /// restart, an eviction, a flush) is written again with that step.
        dispatched: Option<u32>,
    },
    /// Change the phase.
    Enter {
        /// The holder and its request.
        claim: Claim,
        /// Higher than the step of the phase before.
        step: u32,
        /// The phase to enter. `Claimed` needs proof that nothing was executed.
        phase: Phase,
    },
    /// The outcome is known.
    Complete {
        /// The holder and its request.
        claim: Claim,
        /// The holder's step.
        step: u32,
        /// The outcome, as far as it is stored.
        stored: StoredOutcome,
        /// Where it comes from.
        origin: Origin,
        /// How long it lives.
        ttl: Duration,
    },
    /// Nothing was executed: release the key.
    Release {
        /// The holder and its request.
        claim: Claim,
        /// Higher than every step before.
        step: u32,
        /// What waiters receive.
        refusal: Option<Refusal>,
    },
    /// The request might have been executed: the key becomes indeterminate.
    Abandon {
        /// The holder and its request.
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
        /// The revision to change; any other is left alone.
        revision: Revision,
        /// The request to resolve; a record of any other is left alone.
        fingerprint: Fingerprint,
        /// What was found out.
        resolution: Resolution,
        /// Where an applied outcome comes from.
        origin: Origin,
        /// How long an applied outcome lives.
        ttl: Duration,
    },
    /// Forget the outcome of a `Cached` record, and of no other. The record becomes
    /// `Released` and keeps its time to live, so that no late command of its holder writes
    /// the outcome again.
    Forget {
        /// The forgetter's own lease.
        lease: LeaseId,
    },
}

/// What a store answers to an [`Event`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Answer {
    /// The record is as the event asked for, by this command or by an earlier one with the
    /// same event.
    Done,
    /// The lease in the record is another one, or the record is gone.
    NotHolder,
    /// The lease has reached a higher step already: a late command.
    StaleStep,
    /// The record belongs to a request that asks for something else.
    Mismatch,
    /// Not applied: this is the record now; `None` where there is none.
    Is(Option<RecordState>),
    /// To `TakeOver` of a lease that expired in `Dispatched`: this command made the record
    /// `Indeterminate`.
    Lost(RecordState),
}
