//! Finishes the record of an execution by its progress, however long the store is
//! unavailable: for a flight actor, and for the root after an actor died. It decides nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::shared::Shared;
use crate::error::{StoreError, chain};
use crate::execution::{Progress, Resend};
use crate::key::IdempotencyKey;
use crate::store::Store as _;
use crate::telemetry;

/// The first pause after a failed attempt while the store answers others; doubled up to the
/// store's time-out.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// How many bytes of outcomes an engine keeps for unfinished records.
const MAX_UNFINISHED_BYTES: u64 = 64 << 20;
/// What an entry counts in addition to its outcome.
const ENTRY_BYTES: u64 = 512;

/// Finishes the record. Returns for how long the store replays the full outcome; `None` if it
/// does not.
///
/// It retries for as long as the record is retained. After the first failure the outcome
/// counts towards [`MAX_UNFINISHED_BYTES`]; an outcome beyond that is given up. When the
/// engine ends, one more attempt is made. `failed` is called after each failed attempt, and
/// again after each time-out of the store without another attempt.
pub(super) async fn finish(
    shared: &Shared,
    key: IdempotencyKey,
    progress: &Progress,
    failed: impl Fn(&StoreError),
) -> Option<Duration> {
    let (store, name) = (&*shared.store, shared.name(key));
    let end = Instant::now() + shared.terms.indeterminate_ttl;
    let mut pause = FIRST_PAUSE;
    let mut kept = None;
    loop {
        let is_cut = *shared.cut.read();
        let error = match progress.finish_record(store, &name, Resend::Never).await {
            Ok(finished) => return Some(finished.replayed_for).filter(|ttl| !ttl.is_zero()),
            Err(error) => error,
        };
        failed(&error);
        if kept.is_none() {
            kept = shared.unfinished.keep(progress.weight());
        }
        let why = if is_cut {
            "the engine has stopped"
        } else if error.is_unreadable() {
            "the record is unreadable"
        } else if Instant::now() >= end {
            "the retention of the record has passed"
        } else if kept.is_none() {
            "too many outcomes wait for the store"
        } else {
            let jitter = 0.5 + shared.terms.ambient.fraction() / 2.0;
            let still_failing = async {
                loop {
                    sleep(store.limit()).await;
                    failed(&error);
                }
            };
            tokio::select! {
                biased;
                () = shared.cut_off() => {}
                () = store.again(&name, pause.mul_f64(jitter)) => {}
                () = sleep_until(end) => {}
                () = still_failing => {}
            }
            pause = (pause * 2).min(store.limit()).max(FIRST_PAUSE);
            continue;
        };
        telemetry::contained(|| {
            tracing::warn!(
                %name,
                why,
                error = chain(&error),
                "could not finish a record; it ends when its lease expires"
            );
        });
        return None;
    }
}

/// The weight of the outcomes that wait for the store.
#[derive(Debug, Default)]
pub(crate) struct Unfinished(AtomicU64);

impl Unfinished {
    /// Reserves room for an outcome of this many bytes, until the result is dropped.
    fn keep(&self, bytes: usize) -> Option<UnfinishedEntry<'_>> {
        let bytes = ENTRY_BYTES + bytes as u64;
        let more = |taken: u64| {
            let taken = taken + bytes;
            (taken <= MAX_UNFINISHED_BYTES).then_some(taken)
        };
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .ok()
            .map(|_| UnfinishedEntry { all: self, bytes })
    }
}

struct UnfinishedEntry<'a> {
    all: &'a Unfinished,
    bytes: u64,
}

impl Drop for UnfinishedEntry<'_> {
    fn drop(&mut self) {
        self.all.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
