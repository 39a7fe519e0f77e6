//! A record as a reader sees it. It computes no time: `Record::state` does.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::{About, Attempts, Origin, Phase, Refusal, Revision, StoredOutcome, serialize};
use crate::key::{Fingerprint, Version};

/// A record as a reader sees it, with times by the store's clock.
///
/// As JSON it has the members that are named here and `state`: `locked`, `cached`,
/// `indeterminate` or `released`. Times are in milliseconds, since 1970 where they are
/// moments, and their names end with `_ms`; what is not known is `null`. A body is text, or
/// `{"base64": …}` where it is not UTF-8.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
#[non_exhaustive]
pub enum RecordState {
    /// A holder has the key.
    #[non_exhaustive]
    Locked {
        /// What the holder may be doing.
        phase: Phase,
        /// The rest of the lease, never more than its whole length; zero once it has
        /// expired.
        #[serde(rename = "lease_left_ms", serialize_with = "serialize::length")]
        lease_left: Duration,
        /// How long the lease lives from each extension. A reader that sees one revision
        /// for that long knows that the lease has expired, whatever the store's clock shows.
        #[serde(rename = "lease_ms", serialize_with = "serialize::length")]
        lease: Duration,
        /// What was sent under the lease.
        #[serde(flatten)]
        attempts: Attempts,
        /// The request and its holder.
        #[serde(flatten, serialize_with = "serialize::about")]
        about: Arc<About>,
        /// The revision that was read.
        #[serde(serialize_with = "serialize::revision")]
        revision: Revision,
        /// What the holder's request asks for.
        #[serde(serialize_with = "serialize::fingerprint")]
        fingerprint: Fingerprint,
    },
    /// The outcome is known.
    #[non_exhaustive]
    Cached {
        /// The outcome, as far as it is stored.
        #[serde(flatten)]
        stored: StoredOutcome,
        /// How long the record lives on, at least; zero where the read did not ask the
        /// store for it.
        #[serde(rename = "left_ms", serialize_with = "serialize::length")]
        left: Duration,
        /// Where the outcome comes from.
        #[serde(flatten)]
        origin: Origin,
        /// The revision that was read.
        #[serde(serialize_with = "serialize::revision")]
        revision: Revision,
        /// What the request asked for.
        #[serde(serialize_with = "serialize::fingerprint")]
        fingerprint: Fingerprint,
    },
    /// A request was sent and its outcome is unknown.
    #[non_exhaustive]
    Indeterminate {
        /// Since when: the time of sending, by the holder's wall clock.
        #[serde(rename = "since_ms", serialize_with = "serialize::time")]
        since: SystemTime,
        /// What happened.
        #[serde(serialize_with = "serialize::text")]
        cause: Arc<str>,
        /// The platform's id of its last answer, where it gave one.
        #[serde(serialize_with = "serialize::some_text")]
        correlation_id: Option<Arc<str>>,
        /// How long ago the record became indeterminate, by the store's clock; `None` where
        /// its time to live is absent, or longer than any that was written.
        #[serde(rename = "age_ms", serialize_with = "serialize::some_length")]
        age: Option<Duration>,
        /// How long after `since` the lost attempt might still run: the holder's attempt
        /// time-out and lease.
        #[serde(rename = "may_run_ms", serialize_with = "serialize::length")]
        may_run: Duration,
        /// What was sent, and when.
        #[serde(flatten)]
        attempts: Attempts,
        /// The request and its last holder.
        #[serde(flatten, serialize_with = "serialize::about")]
        about: Arc<About>,
        /// The revision that was read.
        #[serde(serialize_with = "serialize::revision")]
        revision: Revision,
        /// What the request asked for.
        #[serde(serialize_with = "serialize::fingerprint")]
        fingerprint: Fingerprint,
    },
    /// Nothing was executed and no holder has the key.
    #[non_exhaustive]
    Released {
        /// What waiters for the same request receive.
        refusal: Option<Refusal>,
        /// The revision that was read.
        #[serde(serialize_with = "serialize::revision")]
        revision: Revision,
        /// What the refused request asked for.
        #[serde(serialize_with = "serialize::fingerprint")]
        fingerprint: Fingerprint,
    },
}

impl RecordState {
    /// Whether a request might have been executed under this record, and its holder is
    /// lost: `Indeterminate`, or `Locked` with a lease in `Dispatched` that has expired. A
    /// list of indeterminate keys contains these.
    pub fn is_indeterminate(&self) -> bool {
        match self {
            Self::Indeterminate { .. } => true,
            Self::Locked {
                phase, lease_left, ..
            } => *phase == Phase::Dispatched && lease_left.is_zero(),
            Self::Cached { .. } | Self::Released { .. } => false,
        }
    }

    /// Whether nothing was executed under this record and no holder has the key, so that
    /// any request may acquire it: `Released`, or `Locked` with a lease in `Claimed` that
    /// has expired.
    pub fn is_free(&self) -> bool {
        match self {
            Self::Released { .. } => true,
            Self::Locked {
                phase, lease_left, ..
            } => *phase == Phase::Claimed && lease_left.is_zero(),
            Self::Cached { .. } | Self::Indeterminate { .. } => false,
        }
    }

    /// This state without its body, and the bytes of an encrypted outcome in it. Lists have
    /// no bodies; an encrypted outcome is complete or absent.
    pub(crate) fn for_list(mut self) -> (Self, usize) {
        let outcome = match &mut self {
            Self::Cached { stored, .. }
            | Self::Released {
                refusal: Some(Refusal::Refused(stored)),
                ..
            } => &mut stored.outcome,
            _ => return (self, 0),
        };
        let sealed = outcome.is_sealed().then_some(outcome.body().len());
        if sealed.is_none() && !outcome.body().is_empty() {
            *outcome = Arc::new(outcome.without_body());
        }
        (self, sealed.unwrap_or(0))
    }

    /// This state; its lease has expired where its revision is the watched one, which did
    /// not change for the whole length of the lease.
    pub(crate) fn expired_if(mut self, watched: Option<Revision>) -> Self {
        if let Self::Locked {
            lease_left,
            revision,
            ..
        } = &mut self
            && watched == Some(*revision)
        {
            *lease_left = Duration::ZERO;
        }
        self
    }

    /// The revision that was read.
    pub fn revision(&self) -> Revision {
        match self {
            Self::Locked { revision, .. }
            | Self::Cached { revision, .. }
            | Self::Indeterminate { revision, .. }
            | Self::Released { revision, .. } => *revision,
        }
    }

    /// The fingerprint to compare before a caller receives an outcome or a refusal.
    pub fn fingerprint(&self) -> Fingerprint {
        match self {
            Self::Locked { fingerprint, .. }
            | Self::Cached { fingerprint, .. }
            | Self::Indeterminate { fingerprint, .. }
            | Self::Released { fingerprint, .. } => *fingerprint,
        }
    }

    /// The execution and the request of this record: what `Engine::resolve` takes.
    pub fn version(&self) -> Version {
        Version {
            lease: self.revision().lease,
            fingerprint: self.fingerprint(),
        }
    }
}

impl From<&RecordState> for Version {
    fn from(state: &RecordState) -> Self {
        state.version()
    }
}
