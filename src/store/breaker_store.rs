//! Puts every call to a store under a time limit and a circuit breaker, one for reads and
//! one for writes of each shard. So no execution hangs in a call, and none waits for a
//! shard that is known to be down. A store is foreign code: none of it runs under a lock,
//! and its panic fails only its own command.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, sleep, sleep_until};

use self::command_permit::{BreakerChange, CommandPermit, caught};
use self::least_writer::LeastWriter;
use super::{BoxFuture, ListQuery, Page, Store, UnreadableRecord};
use crate::error::StoreError;
use crate::key::{Fingerprint, Namespace, RecordName};
use crate::policy::{Breakers, CommandAccess, Pass};
use crate::record::{Answer, Event, RecordState};
use crate::telemetry::{self, GaugeGuard};

/// A store whose every call ends within `limit`, and at once while the breaker is open. A
/// call that reaches the limit might still be applied, so it is
/// [`StoreError::unavailable`]; one that the breaker stopped was not sent.
pub(crate) struct BreakerStore {
    store: Arc<dyn Store>,
    limit: Duration,
    state: Mutex<State>,
    /// No breaker has a failure, so no reader needs the lock. Written under the lock.
    well: AtomicBool,
    /// A probe has ended: wakes the waiters for an open breaker.
    probe_ended: Notify,
    origin: Instant,
    namespace: Namespace,
    least_writer: LeastWriter,
}

struct State {
    breakers: Breakers,
    /// Present while a breaker is open.
    open: Option<GaugeGuard>,
    /// Why the last unanswered command failed.
    why: Arc<str>,
}

impl BreakerStore {
    pub(crate) fn new(store: Arc<dyn Store>, limit: Duration, namespace: Namespace) -> Self {
        Self {
            store,
            limit,
            state: Mutex::new(State {
                breakers: Breakers::new(limit),
                open: None,
                why: "".into(),
            }),
            well: AtomicBool::new(true),
            probe_ended: Notify::new(),
            origin: Instant::now(),
            namespace,
            least_writer: LeastWriter::default(),
        }
    }

    /// How long one command may take.
    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    /// Whether every shard of the store answers, by the last commands.
    pub(crate) fn is_up(&self) -> bool {
        self.state().breakers.are_closed()
    }

    /// The permit to call the store now.
    ///
    /// # Errors
    ///
    /// [`StoreError::unsent`] while the breaker is open.
    async fn acquire_permit(
        &self,
        access: CommandAccess,
        command: &'static str,
        name: &RecordName,
    ) -> Result<CommandPermit<'_>, StoreError> {
        // A store may answer at once: a caller in a loop must yield.
        consume_budget().await;
        self.permit(self.shard(name), access, command).map_err(|_| {
            telemetry::contained(|| telemetry::store_stopped(&self.namespace, command));
            let why = self.state().why.clone();
            StoreError::unsent(format!(
                "the breaker is open: the last commands were not answered: {why}"
            ))
        })
    }

    /// Completes when a look that failed is worth repeating, as
    /// [`again`](Store::again) does for a write. One waiter at a time probes by a
    /// look; its success wakes all.
    pub(crate) async fn look_again(&self, name: &RecordName, pause: Duration) {
        self.next_attempt(name, pause, CommandAccess::Read).await;
    }

    async fn next_attempt(&self, name: &RecordName, pause: Duration, access: CommandAccess) {
        let shard = self.shard(name);
        let paused = sleep(pause);
        tokio::pin!(paused);
        let mut waited = false;
        loop {
            // Before the breaker is read: a probe that ends in between also wakes.
            let probe_ended = self.probe_ended.notified();
            // A look probes a store that cannot be read: it changes nothing.
            match self.permit(shard, CommandAccess::Read, "look") {
                Ok(permit) if permit.probe => {
                    let _ = permit.send(|| self.look_once(name)).await;
                    waited = true;
                    continue;
                }
                _ => {}
            }
            match self.due(shard, access) {
                None if waited => return,
                Some(Due::ByWrite) => return,
                None => tokio::select! {
                    biased;
                    () = &mut paused => {}
                    () = probe_ended => {}
                },
                Some(Due::At(due)) => tokio::select! {
                    biased;
                    () = sleep_until(due) => {}
                    () = probe_ended => {}
                },
            }
            waited = true;
        }
    }

    /// When the wait for an open breaker ends; `None` without one.
    fn due(&self, shard: u64, access: CommandAccess) -> Option<Due> {
        let state = self.state();
        let due = |access| Some(self.origin + state.breakers.due(shard, access)?);
        if let Some(due) = due(CommandAccess::Read) {
            return Some(Due::At(due));
        }
        let due = due(CommandAccess::Write).filter(|_| access == CommandAccess::Write)?;
        Some(if due <= Instant::now() {
            Due::ByWrite
        } else {
            Due::At(due)
        })
    }

    /// The answer to an acquire that cannot be sent, for the request `asked`: a replay of
    /// the record where the key has one. `refusal` where it has none, and for every other
    /// event.
    async fn only_replays(
        &self,
        name: &RecordName,
        asked: Option<Fingerprint>,
        refusal: StoreError,
    ) -> Result<Answer, StoreError> {
        let Some(asked) = asked else {
            return Err(refusal);
        };
        match self.look(name).await {
            Ok(Some(state)) if !state.is_free() && state.fingerprint() != asked => {
                Ok(Answer::Mismatch)
            }
            Ok(Some(state @ (RecordState::Cached { .. } | RecordState::Indeterminate { .. }))) => {
                Ok(Answer::Is(Some(state)))
            }
            Err(unreadable) if unreadable.is_unreadable() => Err(unreadable),
            _ => Err(refusal),
        }
    }

    async fn look_once(&self, name: &RecordName) -> Result<Option<RecordState>, StoreError> {
        let state = self.store.look(name).await?;
        state.map(RecordState::readable).transpose()
    }

    /// The permit to send a command. Where the breaker is open: when the next probe is due,
    /// unless one ends before.
    fn permit(
        &self,
        shard: u64,
        access: CommandAccess,
        command: &'static str,
    ) -> Result<CommandPermit<'_>, Instant> {
        let sent = self.origin.elapsed();
        let pass = match self.well.load(Ordering::Relaxed) {
            true => Pass::Go,
            false => self.state().breakers.pass(shard, access, sent),
        };
        let probe = match pass {
            Pass::Go => false,
            Pass::Probe => true,
            Pass::Stop(due) => return Err(self.origin + due),
        };
        Ok(CommandPermit {
            store: self,
            command,
            shard,
            access,
            sent,
            probe,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Plain data: a panic under the lock leaves it consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports that a breaker has opened, or that the last one has closed. Subscribers and
    /// recorders are foreign code: no lock is held, so two reports may arrive in either
    /// order.
    fn report(&self, change: BreakerChange) {
        match change {
            BreakerChange::None => {}
            BreakerChange::Opened => {
                let mut raised = Some(telemetry::breaker_open(&self.namespace));
                {
                    let mut state = self.state();
                    // Where it closed meanwhile, or opened again, the gauge falls below.
                    if !state.breakers.are_closed() && state.open.is_none() {
                        state.open = raised.take();
                    }
                }
                drop(raised);
                telemetry::contained(|| {
                    tracing::warn!("the store does not answer; failing at once, and probing");
                });
            }
            BreakerChange::Closed(raised) => {
                drop(raised);
                telemetry::contained(|| tracing::info!("the store answers again"));
            }
        }
    }
}

/// What ends the wait in an outage.
enum Due {
    /// A probe, then.
    At(Instant),
    /// The waiter's own write, as the probe.
    ByWrite,
}

impl fmt::Debug for BreakerStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BreakerStore")
            .field("limit", &self.limit)
            .field("up", &self.is_up())
            .finish_non_exhaustive()
    }
}

impl Store for BreakerStore {
    fn apply<'a>(
        &'a self,
        name: &'a RecordName,
        event: Event,
    ) -> BoxFuture<'a, Result<Answer, StoreError>> {
        let command = telemetry::command(&event);
        Box::pin(async move {
            let asked = match &event {
                Event::Acquire { claim } => Some(claim.fingerprint),
                _ => None,
            };
            if let Event::Acquire { .. } | Event::TakeOver { .. } = &event
                && let Some(refusal) = self.outdated().await
            {
                return self.only_replays(name, asked, refusal).await;
            }
            let answer = match self
                .acquire_permit(CommandAccess::Write, command, name)
                .await
            {
                Ok(permit) => permit.send(|| self.store.apply(name, event)).await,
                Err(stopped) => Err(stopped),
            };
            match answer {
                Err(error) if error.is_unsent() || error.is_refused() => {
                    self.only_replays(name, asked, error).await
                }
                answer => answer,
            }
        })
    }

    fn look<'a>(
        &'a self,
        name: &'a RecordName,
    ) -> BoxFuture<'a, Result<Option<RecordState>, StoreError>> {
        Box::pin(async move {
            let permit = self
                .acquire_permit(CommandAccess::Read, "look", name)
                .await?;
            permit.send(|| self.look_once(name)).await
        })
    }

    fn peek<'a>(
        &'a self,
        name: &'a RecordName,
    ) -> BoxFuture<'a, Result<Option<RecordState>, StoreError>> {
        Box::pin(async move {
            let permit = self
                .acquire_permit(CommandAccess::Read, "look", name)
                .await?;
            let state = permit.send(|| self.store.peek(name)).await?;
            state.map(RecordState::readable).transpose()
        })
    }

    fn changed<'a>(&'a self, name: &'a RecordName) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let changed = caught(async move {
                self.store.changed(name).await;
                Ok(())
            });
            if changed.await.is_err() {
                // No notification arrives: polling replaces it.
                std::future::pending::<()>().await;
            }
        })
    }

    fn shard(&self, name: &RecordName) -> u64 {
        catch_unwind(AssertUnwindSafe(|| self.store.shard(name))).unwrap_or(0)
    }

    /// For a write. While the breaker is open it does not wait for `pause`: the breaker
    /// sets the time, and the next write probes.
    fn again<'a>(&'a self, name: &'a RecordName, pause: Duration) -> BoxFuture<'a, ()> {
        Box::pin(self.next_attempt(name, pause, CommandAccess::Write))
    }

    fn emptied(&self, namespace: &Namespace) -> u64 {
        catch_unwind(AssertUnwindSafe(|| self.store.emptied(namespace))).unwrap_or(0)
    }

    fn list<'a>(
        &'a self,
        namespace: &'a Namespace,
        query: &'a ListQuery,
    ) -> BoxFuture<'a, Result<Page, StoreError>> {
        Box::pin(caught(async move {
            let page = self.store.list(namespace, query).await?;
            let name = |key| RecordName::new(namespace.clone(), key);
            page.map(query, name, |_, state| state.readable())
        }))
    }

    fn walk_turn<'a>(
        &'a self,
        namespace: &'a Namespace,
        period: Duration,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(caught(async move {
            self.store.walk_turn(namespace, period).await
        }))
    }

    fn look_unreadable<'a>(
        &'a self,
        name: &'a RecordName,
    ) -> BoxFuture<'a, Result<Option<UnreadableRecord>, StoreError>> {
        Box::pin(async move {
            let permit = self
                .acquire_permit(CommandAccess::Read, "look", name)
                .await?;
            permit.send(|| self.store.look_unreadable(name)).await
        })
    }

    fn discard<'a>(
        &'a self,
        record: &'a UnreadableRecord,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(async move {
            let permit = self
                .acquire_permit(CommandAccess::Write, "forget", record.name())
                .await?;
            permit.send(|| self.store.discard(record)).await
        })
    }
}

mod command_permit;

mod least_writer;
#[cfg(test)]
mod tests;
