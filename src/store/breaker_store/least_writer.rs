//! The least version of a namespace's writers: an older engine acquires no keys, replays
//! recorded outcomes, and finishes its executions. The engine reads it once a minute, so
//! that an operator can raise it under a running engine.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::BreakerStore;
use super::command_permit::caught;
use crate::error::{RefusalKind, StoreError};
use crate::record::WRITER;
use crate::store::Store as _;

/// How often the version is read, and how soon again where the store did not answer.
const EVERY: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(1);

/// What is known of the version.
#[derive(Default)]
pub(super) struct LeastWriter(Mutex<Known>);

#[derive(Clone, Copy, Default)]
struct Known {
    least: u32,
    /// When it is read next; `None` where it was never read.
    next: Option<Instant>,
}

impl LeastWriter {
    fn known(&self) -> Known {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, least: u32, next: Instant) {
        let next = Some(next);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Known { least, next };
    }
}

impl BreakerStore {
    /// Why this engine may acquire no keys, where it is too old. The first caller after the
    /// due time reads the version; others use the known one meanwhile.
    pub(super) async fn outdated(&self) -> Option<StoreError> {
        let mut known = self.least_writer.known();
        let now = Instant::now();
        // A store that does not answer is probed by commands first.
        if known.next.is_none_or(|next| next <= now) && self.is_up() {
            self.least_writer.set(known.least, now + SOON);
            let asked = caught(async { self.store.least_writer(&self.namespace, WRITER).await });
            // The waiting command still needs its own time.
            if let Ok(Ok(least)) = Box::pin(timeout(self.limit / 4, asked)).await {
                self.least_writer.set(least, now + EVERY);
                known.least = least;
            }
        }
        let least = known.least;
        (least > WRITER).then(|| {
            StoreError::refused_as(
                RefusalKind::NotAllowed,
                format!(
                    "namespace {} requires writers of version {least} or later, found version {WRITER}: update this process",
                    self.namespace
                ),
            )
        })
    }
}
