//! The permit to send one command to the store. It reports the command's end to the breaker
//! and decides nothing: `policy::breaker` does.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt as _;

use super::super::alive;
use super::BreakerStore;
use crate::error::StoreError;
use crate::policy::{CommandAccess, FailedCommand};
use crate::telemetry::{self, GaugeGuard};

/// The permit to send one command. If a probe's permit is dropped without an end, the next
/// command probes.
pub(super) struct CommandPermit<'a> {
    pub(super) store: &'a BreakerStore,
    pub(super) command: &'static str,
    pub(super) shard: u64,
    pub(super) access: CommandAccess,
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
    /// Calls the store: not before, since a store may do its work before its future is
    /// first polled. The call is made at once, so that no future carries what it takes.
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
        // The future's drop might panic as well.
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
        let failure = FailedCommand {
            sent: self.sent,
            now,
            silent,
            probe: self.probe,
        };
        // A refusal is an answer.
        let unanswered = answer.as_ref().err().filter(|error| !error.is_definite());
        // The error of a store is foreign code as well.
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

    fn end(&mut self, now: Duration, failure: Option<(FailedCommand, Arc<str>)>) {
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

/// A call of the store; a panic is a failure with an unknown outcome.
pub(super) async fn caught<T>(
    call: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let answer = AssertUnwindSafe(call).catch_unwind().await;
    answer.unwrap_or_else(|_| Err(panicked()))
}

fn panicked() -> StoreError {
    StoreError::unavailable("the store panicked")
}
