//! Why nothing was executed, as a `Released` record reports it to waiters in other
//! processes. It decides no transition.

use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::{StoredOutcome, serialize};
use crate::outcome::{Outcome, StoredBody};

/// The largest refusal that a `Released` record holds for waiters. With its header, such a
/// record is below 64 KiB.
pub const MAX_REFUSAL_BYTES: usize = 48 * 1024;

/// Why nothing was executed, for waiters in other processes.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Refusal {
    /// The platform refused; this is its answer, as far as it is stored.
    Refused(StoredOutcome),
    /// The platform asked the holder to wait longer than it would.
    RateLimited {
        /// How long, from when the record was written.
        retry_after: Duration,
    },
}

impl Refusal {
    /// The refusal as it is stored for a sensitive request: of an answer, the status alone.
    pub(crate) fn sensitive(self) -> Self {
        match self {
            Self::Refused(stored) => Self::Refused(stored.reduced(StoredBody::OmittedSensitive)),
            limited => limited,
        }
    }
}

/// A refusal as JSON. One that is stored in full has no member `kept`.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum RefusalJson<'a> {
    Refused(#[serde(serialize_with = "serialize::outcome")] &'a Arc<Outcome>),
    Reduced(&'a StoredOutcome),
    RateLimited {
        #[serde(rename = "retry_after_ms", serialize_with = "serialize::length")]
        retry_after: Duration,
    },
}

impl Serialize for Refusal {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let json = match self {
            Self::Refused(stored) if stored.body == StoredBody::Full => {
                RefusalJson::Refused(&stored.outcome)
            }
            Self::Refused(stored) => RefusalJson::Reduced(stored),
            Self::RateLimited { retry_after } => RefusalJson::RateLimited {
                retry_after: *retry_after,
            },
        };
        json.serialize(to)
    }
}
