//! The right to send one command to the store, and what its end tells the breaker.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::alive;
use super::{BreakerStore, caught, panicked};
use crate::error::StoreError;
use crate::policy::{Access, Failure};
use crate::telemetry::{self, GaugeGuard};

/// The right to send one command. Dropped without an end, it leaves the turn of
/// a probe to the next one.
pub(super) struct CommandPermit<'a> {
    pub(super) store: &'a BreakerStore,
    pub(super) command: &'static str,
    pub(super) shard: u64,
    pub(super) access: Access,
    pub(super) sent: Duration,
    pub(super) probe: bool,
}

/// What the end of a command changed.
pub(super) enum BreakerChange {
    None,
    Opened,
    Closed(Option<GaugeGuard>),
}

impl CommandPermit<'_> {
    /// Calls the store. A store may do its work before its future is first polled, so
    /// the call waits for the permit; it is made at once, so that no future of this
    /// crate carries its arguments.
    pub(super) fn send<T, F>(
        self,
        call: impl FnOnce() -> F,
    ) -> impl Future<Output = Result<T, StoreError>>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let called = catch_unwind(AssertUnwindSafe(call));
        async move {
            match called {
                Ok(called) => self.answer(called).await,
                Err(_) => self.ended(Err(panicked()), false),
            }
        }
    }

    async fn answer<T>(
        self,
        called: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let limit = self.store.limit;
        let begun = self.store.origin + self.sent;
        // The future's own drop may panic, too.
        let answer = caught(async move { Ok(alive::within(begun, limit, called).await) }).await;
        let silent = matches!(answer, Ok(None));
        let answer = answer.and_then(|answer| {
            answer.unwrap_or_else(|| {
                let why = format!("no answer within {} s", limit.as_secs_f64());
                Err(StoreError::unavailable(why))
            })
        });
        self.ended(answer, silent)
    }

    fn ended<T>(mut self, answer: Result<T, StoreError>, silent: bool) -> Result<T, StoreError> {
        let now = self.store.origin.elapsed();
        let failure = Failure {
            sent: self.sent,
            now,
            silent,
            probe: self.probe,
        };
        // A store that refuses has answered.
        let unanswered = answer.as_ref().err().filter(|error| !error.is_definite());
        // What a store says of its failure is foreign code, too.
        let why = unanswered.map(|error| {
            let why = telemetry::contained(|| crate::error::chain(error));
            (failure, why.unwrap_or_default().into())
        });
        self.end(now, why);
        let (time, failed) = (now - self.sent, answer.is_err());
        let (namespace, command) = (&self.store.namespace, self.command);
        telemetry::contained(|| telemetry::store_command(namespace, command, time, failed));
        answer
    }

    fn end(&mut self, now: Duration, failure: Option<(Failure, Arc<str>)>) {
        if failure.is_none() && self.store.well.load(Ordering::Relaxed) {
            return;
        }
        let mut probe_ended = std::mem::take(&mut self.probe);
        let change = {
            let mut state = self.store.state();
            let was_closed = state.breakers.are_closed();
            match failure {
                Some((failure, why)) => {
                    state.breakers.failed(self.shard, self.access, failure);
                    state.why = why;
                }
                None => probe_ended |= state.breakers.answered(self.shard, self.access, now),
            }
            let well = state.breakers.are_well();
            self.store.well.store(well, Ordering::Relaxed);
            match (was_closed, state.breakers.are_closed()) {
                (true, false) => BreakerChange::Opened,
                (false, true) => BreakerChange::Closed(state.open.take()),
                _ => BreakerChange::None,
            }
        };
        if probe_ended {
            self.store.probe_ended.notify_waiters();
        }
        telemetry::contained(|| self.store.report(change));
    }
}

impl Drop for CommandPermit<'_> {
    fn drop(&mut self) {
        if self.probe {
            let now = self.store.origin.elapsed();
            let mut state = self.store.state();
            state.breakers.dropped(self.shard, self.access, now);
            drop(state);
            self.store.probe_ended.notify_waiters();
        }
    }
}
