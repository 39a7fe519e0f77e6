//! The record of one key and its transitions, as a pure function: no clock, no
//! I/O, no randomness but [`LeaseId::random`]. Every store applies
//! [`apply`] inside its own transaction or mirrors it; no store invents a rule.
//!
//! ```text
//! absent ─────acquire────► Locked{lease, step, Dispatched} ──complete──► Cached
//! Released ──take over───► Locked{lease, step, Claimed}
//!                                 │  ▲ extend: the lease begins again, at another revision
//!                                 │  │ enter(Claimed | Dispatched): with a step
//!                                 │  └ take over, if expired in Claimed: Claimed again
//!                                 ├─ release ► Released{last refusal}
//!                                 └─ abandon ► Indeterminate{sent, cause}
//! Indeterminate ── resolve(not applied) ► Released, under the lost lease
//!               ── resolve(applied) ► Cached, under the resolver's own lease
//!               ── the lost lease itself: complete ► Cached, release ► Released
//! Cached ── forget ► Released, under the forgetter's own lease
//! ```
//!
//! A `Locked` record lives for its lease **and** for a retention that is written in it. So
//! a reader sees that the lease has expired: less than the retention is left. Without the
//! store's clock, a reader sees it too: one revision has not changed for the whole length
//! of the lease, by the reader's own monotonic clock.

mod about;
mod codec;
mod event;
mod orphan;
mod refusal;
mod resolution;
mod serialize;
mod state;
mod stored_outcome;
mod transition;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;

pub use self::about::{About, Caller, Holder, Origin, Resolved};
#[cfg(feature = "redis")]
pub(crate) use self::codec::MAGIC;
#[cfg(any(feature = "file", feature = "redis"))]
pub(crate) use self::codec::is_newer;
#[cfg(feature = "encrypted")]
pub(crate) use self::codec::{decode_caller, decode_outcome, encode_caller, encode_outcome};
pub use self::event::{Answer, Cause, Claim, Event};
pub use self::orphan::recover_orphan;
pub use self::refusal::{MAX_REFUSAL_BYTES, Refusal};
pub use self::resolution::Resolution;
pub(crate) use self::serialize::{length, some_length};
pub use self::state::RecordState;
pub use self::stored_outcome::StoredOutcome;
pub use self::transition::apply;
pub use crate::key::{
    Fingerprint, LeaseId, Namespace, ParseKeyError, ParseNamespaceError, RecordName, Version,
};

/// The version of the rules by which this crate writes records, raised whenever a
/// rule of the protocol changes. Each namespace has a least one: see
/// [`Store::least_writer`](crate::Store::least_writer).
pub const WRITER: u32 = 3;

/// How long a [`RecordState::Released`] lives: long enough for any late command of a dead
/// connection to find it.
pub const RELEASED_FOR: Duration = Duration::from_secs(600);

/// What a holder may be doing under its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Phase {
    /// Nothing is on the wire, and no attempt has an unknown outcome. Once the lease has
    /// expired, another execution may take over.
    Claimed,
    /// A request might be on the wire. Once the lease has expired, no engine may send
    /// another.
    Dispatched,
}

/// The revision of a record as a reader saw it, for compare-and-set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Revision {
    /// The record's revision, raised by every write and every extension.
    pub rev: u64,
    /// The lease that wrote it.
    pub lease: LeaseId,
}

/// What is known of an execution's attempts. The holder writes it before it sends each
/// attempt; it stays in the record when the outcome becomes unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Attempts {
    /// When the last attempt was sent, by the holder's wall clock; `None` where
    /// none was.
    #[serde(rename = "sent_ms", serialize_with = "serialize::some_time")]
    pub sent: Option<SystemTime>,
    /// Attempts so far, the last included.
    #[serde(rename = "attempts")]
    pub count: u32,
    /// How long one attempt may take: the holder's attempt time-out.
    #[serde(rename = "attempt_timeout_ms", serialize_with = "serialize::length")]
    pub timeout: Duration,
}

/// A record as it stands in a store.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Raised by every write and every extension of the lease.
    pub rev: u64,
    /// The lease that wrote it.
    pub lease: LeaseId,
    /// The number of the last step that this lease took.
    pub step: u32,
    /// How long the holder's lease lives from each extension.
    pub lease_ttl: Duration,
    /// How long the record outlives its lease (`Locked`), or its time to live when it was
    /// written (all others).
    pub retention: Duration,
    /// What the request asks for; of a `Released` record with a refusal, what
    /// the request asked for that the refusal is about.
    pub fingerprint: Fingerprint,
    /// The state and its data.
    pub content: Content,
}

/// The state part of a [`Record`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Content {
    /// A holder has the lease, or had it until it expired.
    Locked {
        /// What the holder may be doing.
        phase: Phase,
        /// What was sent under the lease.
        attempts: Attempts,
        /// The request and its holder.
        about: Arc<About>,
    },
    /// The outcome is known.
    Cached {
        /// The outcome, as far as it is stored.
        stored: StoredOutcome,
        /// Where it comes from.
        origin: Origin,
    },
    /// A request was sent and its outcome is unknown.
    Indeterminate {
        /// What was sent, and when.
        attempts: Attempts,
        /// The request and its holder.
        about: Arc<About>,
        /// What happened; `None` where the holder was lost while its request was under way.
        cause: Option<Cause>,
    },
    /// Nothing was executed; the next request may execute.
    Released {
        /// What waiters receive.
        refusal: Option<Refusal>,
    },
}

impl Record {
    /// How long this record lives from its last write or extension. No time to live of it
    /// is longer.
    pub fn lifetime(&self) -> Duration {
        match self.content {
            Content::Locked { .. } => self.lease_ttl.saturating_add(self.retention),
            _ => self.retention,
        }
    }

    /// What a reader sees of this record, which lives for `left` more by the store's clock.
    /// A store's clock can jump, so a lease never shows more than its whole length.
    pub fn state(&self, left: Duration) -> RecordState {
        let revision = self.revision();
        let fingerprint = self.fingerprint;
        match &self.content {
            Content::Locked {
                phase,
                attempts,
                about,
            } => RecordState::Locked {
                phase: *phase,
                lease_left: left.saturating_sub(self.retention).min(self.lease_ttl),
                lease: self.lease_ttl,
                attempts: *attempts,
                about: about.clone(),
                revision,
                fingerprint,
            },
            Content::Cached { stored, origin } => RecordState::Cached {
                stored: stored.clone(),
                left: left.min(self.retention),
                origin: origin.clone(),
                revision,
                fingerprint,
            },
            Content::Indeterminate {
                attempts,
                about,
                cause,
            } => RecordState::Indeterminate {
                since: attempts.sent.unwrap_or(SystemTime::UNIX_EPOCH),
                cause: match cause {
                    Some(cause) => cause.text.clone(),
                    None => self.lost_holder(),
                },
                correlation_id: cause
                    .as_ref()
                    .and_then(|cause| cause.correlation_id.clone()),
                age: self.retention.checked_sub(left),
                may_run: attempts.timeout.saturating_add(self.lease_ttl),
                attempts: *attempts,
                about: about.clone(),
                revision,
                fingerprint,
            },
            Content::Released { refusal } => RecordState::Released {
                refusal: refusal.clone(),
                revision,
                fingerprint,
            },
        }
    }

    /// The revision of this record.
    pub fn revision(&self) -> Revision {
        Revision {
            rev: self.rev,
            lease: self.lease,
        }
    }

    fn lost_holder(&self) -> Arc<str> {
        let lease = self.lease;
        format!("its holder (lease {lease}) was lost with a request under way").into()
    }
}
