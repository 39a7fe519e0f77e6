//! The right to send one command to the store, and what its end tells the breaker.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::alive;
use super::{Guarded, caught, panicked};
use crate::error::StoreError;
use crate::policy::{Access, Failure};
use crate::telemetry::{self, Raised};

/// The right to send one command. Dropped without an end, it leaves the turn of
/// a probe to the next one.
pub(super) struct Turn<'a> {
    pub(super) guarded: &'a Guarded,
    pub(super) command: &'static str,
    pub(super) part: u64,
    pub(super) access: Access,
    pub(super) sent: Duration,
    pub(super) probe: bool,
}

/// What the end of a command changed.
pub(super) enum Change {
    None,
    Opened,
    Closed(Option<Raised>),
}

impl Turn<'_> {
    /// Calls the store: not before, since a store may do its work before its future is
    /// first polled. The call is made at once, so that no future carries what it takes.
    pub(super) fn take<T, F>(
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
        let limit = self.guarded.limit;
        let begun = self.guarded.origin + self.sent;
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
        let now = self.guarded.origin.elapsed();
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
        let (namespace, command) = (&self.guarded.namespace, self.command);
        telemetry::contained(|| telemetry::store_command(namespace, command, time, failed));
        answer
    }

    fn end(&mut self, now: Duration, failure: Option<(Failure, Arc<str>)>) {
        if failure.is_none() && self.guarded.well.load(Ordering::Relaxed) {
            return;
        }
        let mut turned = std::mem::take(&mut self.probe);
        let change = {
            let mut state = self.guarded.state();
            let was_closed = state.breakers.are_closed();
            match failure {
                Some((failure, why)) => {
                    state.breakers.failed(self.part, self.access, failure);
                    state.why = why;
                }
                None => turned |= state.breakers.answered(self.part, self.access, now),
            }
            let well = state.breakers.are_well();
            self.guarded.well.store(well, Ordering::Relaxed);
            match (was_closed, state.breakers.are_closed()) {
                (true, false) => Change::Opened,
                (false, true) => Change::Closed(state.open.take()),
                _ => Change::None,
            }
        };
        if turned {
            self.guarded.turned.notify_waiters();
        }
        telemetry::contained(|| self.guarded.tell(change));
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.probe {
            let now = self.guarded.origin.elapsed();
            let mut state = self.guarded.state();
            state.breakers.dropped(self.part, self.access, now);
            drop(state);
            self.guarded.turned.notify_waiters();
        }
    }
}
