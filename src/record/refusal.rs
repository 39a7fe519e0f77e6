//! Why nothing was executed, as a `Released` record reports it to waiters in other
//! processes. It decides no transition.

use std::time::Duration;

use serde::Serialize;

use super::{StoredOutcome, serialize};
use crate::outcome::StoredBody;

/// The largest refusal that a `Released` record holds for waiters. With its header, such a
/// record is below 64 KiB.
pub const MAX_REFUSAL_BYTES: usize = 48 * 1024;

/// Why nothing was executed, for waiters in other processes.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Refusal {
    /// The platform refused; this is its answer, as far as it is stored.
    Refused(StoredOutcome),
    /// The platform asked the holder to wait longer than it would.
    RateLimited {
        /// How long, from when the record was written.
        #[serde(rename = "retry_after_ms", serialize_with = "serialize::length")]
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
