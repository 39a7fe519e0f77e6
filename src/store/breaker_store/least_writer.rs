//! The least version of a namespace's writers: an engine that is older takes no
//! keys, replays what is recorded, and finishes what it holds. It is looked at now
//! and then, so that a namespace may move on under a running engine.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::{BreakerStore, caught};
use crate::error::{RefusalKind, StoreError};
use crate::record::WRITER;
use crate::store::Store as _;

/// How often the version is looked at, and how soon again where the store did not
/// say.
const EVERY: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(1);

/// What is known of the version.
#[derive(Default)]
pub(super) struct LeastWriter(Mutex<Known>);

#[derive(Clone, Copy, Default)]
struct Known {
    least: u32,
    /// When it is looked at next; at once where it never was.
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
    /// Why this engine may take no keys, where it is too old. Who finds that the
    /// version is to be looked at does it; others go by what is known meanwhile.
    pub(super) async fn outdated(&self) -> Option<StoreError> {
        let mut known = self.least_writer.known();
        let now = Instant::now();
        // A store that does not answer is asked by its own commands first.
        if known.next.is_none_or(|next| next <= now) && self.is_up() {
            self.least_writer.set(known.least, now + SOON);
            let asked = caught(async { self.store.least_writer(&self.namespace, WRITER).await });
            // The command that waits for this has its own time yet.
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
                    "namespace {} takes writers of version {least} or later, this engine is of \
                 version {WRITER}",
                    self.namespace
                ),
            )
        })
    }
}
