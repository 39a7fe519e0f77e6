//! Why nothing was executed, as a `Released` record reports it to waiters in other
//! processes. It decides no transition.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::shown;
use crate::outcome::{Outcome, StoredBody};

/// The largest refusal that a `Released` record hands to those who waited: with what
/// stands around it, a record of it is below 64 KiB.
pub const MAX_REFUSAL_BYTES: usize = 48 * 1024;

/// Why nothing was executed, for those who waited in other processes.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Refusal {
    /// The platform refused, and this was its answer.
    Refused(#[serde(serialize_with = "shown::outcome")] Arc<Outcome>),
    /// The platform refused, and this is what may be kept of its answer.
    Reduced {
        /// Its status.
        #[serde(serialize_with = "shown::outcome")]
        outcome: Arc<Outcome>,
        /// Why that is all.
        #[serde(serialize_with = "shown::kept")]
        kept: StoredBody,
    },
    /// The platform asked to wait longer than the holder would.
    RateLimited {
        /// How long, from when the record was written.
        #[serde(rename = "retry_after_ms", serialize_with = "shown::length")]
        retry_after: Duration,
    },
}

impl Refusal {
    /// What may be stored of it where nothing of an answer may be but its status.
    pub(crate) fn sensitive(self) -> Self {
        match self {
            Self::Refused(outcome) => Self::Reduced {
                outcome: Arc::new(outcome.status_only()),
                kept: StoredBody::OmittedSensitive,
            },
            reduced => reduced,
        }
    }
}
