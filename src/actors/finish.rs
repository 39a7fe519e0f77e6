//! Ends the record of an execution by what is known of it, however long the
//! store is away: for the actor of a flight, and for the root where an actor
//! died. It decides nothing; what is known stands in the execution's progress.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::shared::Shared;
use crate::error::{StoreError, chain};
use crate::execution::{Progress, Resend};
use crate::key::IdempotencyKey;
use crate::store::Store as _;
use crate::telemetry;

/// The first pause after a try that failed, with a store that answers others;
/// doubled up to the store's time-out.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Bytes of outcomes that an engine keeps for records that are not finished.
const MAX_UNFINISHED_BYTES: u64 = 64 << 20;
/// What each of them counts besides its outcome.
const ENTRY_BYTES: u64 = 512;

/// Finishes the record; returns for how long the store replays the whole outcome
/// from now on, where that is how the record ended.
///
/// It tries until the store takes it, for as long as the record is retained.
/// After the first failure the outcome counts towards [`MAX_UNFINISHED_BYTES`];
/// what exceeds them is given up, as is what the end of the engine cuts off
/// after one more try. `failed` hears of each try that failed, and again
/// for each of the store's time-outs that passes without another.
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
            "the engine has ended"
        } else if error.is_unreadable() {
            "the record is unreadable"
        } else if Instant::now() >= end {
            "the record is not retained any longer"
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
                "gave up finishing a record; the lapse of its lease will"
            );
        });
        return None;
    }
}

/// What the outcomes weigh that wait for the store to take them.
#[derive(Debug, Default)]
pub(crate) struct Unfinished(AtomicU64);

impl Unfinished {
    /// Room for one of so many bytes, until the result is dropped.
    fn keep(&self, bytes: usize) -> Option<StoredBody<'_>> {
        let bytes = ENTRY_BYTES + bytes as u64;
        let more = |taken: u64| {
            let taken = taken + bytes;
            (taken <= MAX_UNFINISHED_BYTES).then_some(taken)
        };
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .ok()
            .map(|_| StoredBody { all: self, bytes })
    }
}

struct StoredBody<'a> {
    all: &'a Unfinished,
    bytes: u64,
}

impl Drop for StoredBody<'_> {
    fn drop(&mut self) {
        self.all.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
