//! Puts every call to a store under a deadline and a circuit breaker, one for
//! each part, so that no execution hangs on one and nobody waits for one that is
//! known to be down. A store is foreign code: none of it runs under a lock, and
//! its panic is a failure of the one command.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::Notify;
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use self::writers::Writers;

use super::{BoxFuture, Store};
use crate::error::StoreError;
use crate::key::{IdempotencyKey, Namespace, RecordName};
use crate::policy::{Breakers, Failure, Pass};
use crate::record::{Answer, Event, RecordState};
use crate::telemetry::{self, Raised};

/// A store whose every call ends within `limit`, and at once while the breaker
/// is open. A call that is given up may still be applied, so it is
/// [`StoreError::unavailable`]; one that the breaker stopped was not sent.
pub(crate) struct Guarded {
    store: Arc<dyn Store>,
    limit: Duration,
    state: Mutex<State>,
    /// Wakes who waits for an open breaker: its probe has ended.
    turned: Notify,
    origin: Instant,
    namespace: Namespace,
    writers: Writers,
}

struct State {
    breakers: Breakers,
    /// Kept while a breaker is open.
    open: Option<Raised>,
}

impl Guarded {
    pub(crate) fn new(store: Arc<dyn Store>, limit: Duration, namespace: Namespace) -> Self {
        Self {
            store,
            limit,
            state: Mutex::new(State {
                breakers: Breakers::new(limit),
                open: None,
            }),
            turned: Notify::new(),
            origin: Instant::now(),
            namespace,
            writers: Writers::default(),
        }
    }

    /// How long one command may take.
    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    /// Whether every part of the store answers, as far as the last commands tell.
    pub(crate) fn is_up(&self) -> bool {
        self.state().breakers.are_closed()
    }

    /// Calls the store, once the breaker has let the command through and not
    /// before: a store may do its work before its future is first polled.
    async fn within<T, F>(
        &self,
        command: &'static str,
        name: &RecordName,
        call: impl FnOnce() -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        // A store may answer at once, whoever asks in a loop.
        consume_budget().await;
        match self.turn(self.part(name)) {
            Ok(turn) => turn.take(command, call).await,
            Err(_) => {
                telemetry::contained(|| telemetry::store_stopped(&self.namespace, command));
                let why = "the breaker is open: the last commands were not answered";
                Err(StoreError::unsent(why))
            }
        }
    }

    async fn look_once(&self, name: &RecordName) -> Result<Option<RecordState>, StoreError> {
        let state = self.store.look(name).await?;
        state.map(RecordState::readable).transpose()
    }

    /// The right to send a command; where the breaker is open, when the next
    /// probe is due, if none ends before.
    fn turn(&self, part: u64) -> Result<Turn<'_>, Instant> {
        let sent = self.origin.elapsed();
        let pass = self.state().breakers.pass(part, sent);
        let probe = match pass {
            Pass::Go => false,
            Pass::Probe => true,
            Pass::Stop(due) => return Err(self.origin + due),
        };
        Ok(Turn {
            guarded: self,
            part,
            sent,
            probe,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Plain data: no critical section leaves it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A breaker has opened, or the last one has closed. Subscribers and
    /// recorders are foreign code: told with no lock held, so that two changes
    /// may be told in either order.
    fn tell(&self, change: Change) {
        match change {
            Change::None => {}
            Change::Opened => {
                let mut raised = Some(telemetry::breaker_open(&self.namespace));
                {
                    let mut state = self.state();
                    // Closed again meanwhile, or opened once more: the gauge
                    // falls below.
                    if !state.breakers.are_closed() && state.open.is_none() {
                        state.open = raised.take();
                    }
                }
                drop(raised);
                telemetry::contained(|| {
                    tracing::warn!("the store does not answer; failing at once, and probing");
                });
            }
            Change::Closed(raised) => {
                drop(raised);
                telemetry::contained(|| tracing::info!("the store answers again"));
            }
        }
    }
}

/// The right to send one command. Dropped without an end, it leaves the turn of
/// a probe to the next one.
struct Turn<'a> {
    guarded: &'a Guarded,
    part: u64,
    sent: Duration,
    probe: bool,
}

/// What the end of a command changed.
enum Change {
    None,
    Opened,
    Closed(Option<Raised>),
}

impl Turn<'_> {
    async fn take<T, F>(
        mut self,
        command: &'static str,
        call: impl FnOnce() -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let Guarded {
            limit, namespace, ..
        } = self.guarded;
        // The future's own drop may panic, too.
        let answer = caught(async move { Ok(timeout(*limit, call()).await) }).await;
        let silent = matches!(answer, Ok(Err(_)));
        let answer = answer.and_then(|answer| {
            answer.unwrap_or_else(|_| {
                let why = format!("no answer within {} s", limit.as_secs_f64());
                Err(StoreError::unavailable(why))
            })
        });
        let now = self.guarded.origin.elapsed();
        let failure = Failure {
            sent: self.sent,
            now,
            silent,
            probe: self.probe,
        };
        // A store that refuses has answered.
        let answered = answer.as_ref().err().is_none_or(StoreError::is_definite);
        self.end(now, (!answered).then_some(failure));
        let (time, failed) = (now - self.sent, answer.is_err());
        telemetry::contained(|| telemetry::store_command(namespace, command, time, failed));
        answer
    }

    fn end(&mut self, now: Duration, failure: Option<Failure>) {
        let mut turned = std::mem::take(&mut self.probe);
        let change = {
            let mut state = self.guarded.state();
            let was_closed = state.breakers.are_closed();
            match failure {
                Some(failure) => state.breakers.failed(self.part, failure),
                None => turned |= state.breakers.answered(self.part, now),
            }
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
            self.guarded.state().breakers.dropped(self.part, now);
            self.guarded.turned.notify_waiters();
        }
    }
}

/// A call of the store; its panic is a failure whose fate is unknown.
async fn caught<T>(call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let answer = AssertUnwindSafe(call).catch_unwind();
    let panicked = |_| Err(StoreError::unavailable("the store panicked"));
    answer.await.unwrap_or_else(panicked)
}

impl fmt::Debug for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded")
            .field("limit", &self.limit)
            .field("up", &self.is_up())
            .finish_non_exhaustive()
    }
}

impl Store for Guarded {
    fn apply<'a>(
        &'a self,
        name: &'a RecordName,
        event: Event,
    ) -> BoxFuture<'a, Result<Answer, StoreError>> {
        let command = telemetry::command(&event);
        Box::pin(async move {
            if let Event::Acquire { .. } | Event::TakeOver { .. } = &event
                && let Some(refusal) = self.outdated().await
            {
                return self.only_replays(name, &event, refusal).await;
            }
            let sent = self.within(command, name, move || self.store.apply(name, event));
            sent.await
        })
    }

    fn look<'a>(
        &'a self,
        name: &'a RecordName,
    ) -> BoxFuture<'a, Result<Option<RecordState>, StoreError>> {
        Box::pin(self.within("look", name, move || self.look_once(name)))
    }

    fn changed<'a>(&'a self, name: &'a RecordName) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let changed = caught(async move {
                self.store.changed(name).await;
                Ok(())
            });
            if changed.await.is_err() {
                // A notice that never comes: polling covers it.
                std::future::pending::<()>().await;
            }
        })
    }

    fn part(&self, name: &RecordName) -> u64 {
        catch_unwind(AssertUnwindSafe(|| self.store.part(name))).unwrap_or(0)
    }

    /// While the breaker is open, `pause` is not waited for: it has a pace of its
    /// own. One waiter at a time probes by a look; its success wakes all.
    fn again<'a>(&'a self, name: &'a RecordName, pause: Duration) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let part = self.part(name);
            let paused = sleep(pause);
            tokio::pin!(paused);
            let mut waited = false;
            loop {
                // Before the look at the breaker: what ends in between wakes, too.
                let turned = self.turned.notified();
                match self.turn(part) {
                    Ok(turn) if turn.probe => {
                        let _ = turn.take("look", || self.look_once(name)).await;
                    }
                    Ok(_) if waited => return,
                    Ok(_) => tokio::select! {
                        biased;
                        () = &mut paused => {}
                        () = turned => {}
                    },
                    Err(due) => tokio::select! {
                        biased;
                        () = sleep_until(due) => {}
                        () = turned => {}
                    },
                }
                waited = true;
            }
        })
    }

    fn unresolved<'a>(
        &'a self,
        namespace: &'a Namespace,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<(IdempotencyKey, RecordState)>, StoreError>> {
        // Listing walks the whole store: it has no fixed time.
        Box::pin(caught(async move {
            self.store.unresolved(namespace, limit).await
        }))
    }
}

#[cfg(test)]
mod tests;
mod writers;
