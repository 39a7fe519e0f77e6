//! What most services call: execute, stats, shutdown. The methods for operators are in the
//! modules behind it, so that the page of `Engine` begins with these.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ractor::{ActorRef, ActorStatus};

use super::{Drained, Engine, EngineBuilder, EngineMessage, Inner, Stats};
use crate::actors::caller;
use crate::actors::shared::Shared;
use crate::error::Error;
use crate::key::Namespace;
use crate::outcome::{Reply, Served};
use crate::request::DataActionRequest;
use crate::store::Store as _;
use crate::telemetry;
use crate::upstream::Upstream;

impl Engine {
    /// The settings of a new engine for this upstream.
    pub fn builder(upstream: impl Upstream) -> EngineBuilder {
        EngineBuilder::new(Arc::new(upstream))
    }

    /// Executes a request once for its key, however many callers ask for it. Waits for
    /// the answer up to the engine's `deadline` (5 minutes by default).
    ///
    /// # Errors
    ///
    /// Any [`Error`]; [`Error::hint`] says what to do.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropping the future frees the caller's place and never
    /// cancels, repeats or leaks the execution (I2). Call it again for the outcome.
    pub async fn execute(&self, request: DataActionRequest) -> Result<Reply, Error> {
        self.execute_within(request, self.inner.deadline).await
    }

    /// [`execute`](Self::execute) with its own deadline.
    ///
    /// # Errors
    ///
    /// Those of [`execute`](Self::execute); [`Error::DeadlineExceeded`] after
    /// `limit`.
    ///
    /// # Cancel safety
    ///
    /// That of [`execute`](Self::execute).
    pub async fn execute_within(
        &self,
        request: DataActionRequest,
        limit: Duration,
    ) -> Result<Reply, Error> {
        let Inner { shared, root, .. } = &*self.inner;
        let span = telemetry::execute(&shared.namespace, &request);
        caller::execute(shared, root, &request, limit, span).await
    }

    /// The engine's root actor, for callers that are actors: send it
    /// [`EngineMessage::Execute`]. An `ActorRef` does not keep the engine alive.
    pub fn actor(&self) -> &ActorRef<EngineMessage> {
        &self.inner.root
    }

    /// The namespace of the records that this engine reads and writes.
    pub fn namespace(&self) -> &Namespace {
        &self.inner.shared.namespace
    }

    /// What the engine does now and has done since it started.
    pub fn stats(&self) -> Stats {
        let Shared {
            flights,
            counts,
            permits,
            tokens,
            cooldowns,
            backlog,
            ..
        } = &*self.inner.shared;
        let backlog = backlog.now();
        Stats {
            executions: flights.in_flight(),
            in_flight: permits.in_use().saturating_sub(backlog.limiter.executions),
            waiting: flights.capacity_used().saturating_sub(flights.in_flight()),
            served_upstream: counts.served(Served::Upstream),
            served_joined: counts.served(Served::Joined),
            served_memory: counts.served(Served::Memory),
            served_store: counts.served(Served::Store),
            calls_final: counts.calls_final.load(Ordering::Relaxed),
            calls_not_executed: counts.calls_not_executed.load(Ordering::Relaxed),
            calls_unknown: counts.calls_unknown.load(Ordering::Relaxed),
            store_up: self.inner.shared.store.is_up(),
            store_emptied: self.inner.shared.store.emptied(self.namespace()),
            token_valid_for: tokens.as_ref().and_then(|tokens| tokens.valid_for()),
            token_fetches: tokens.as_ref().map_or(0, |tokens| tokens.renewals()),
            cooldown: cooldowns.left(),
            backlog,
        }
    }

    /// Ends all cooldowns now: the platform's, those of single actions, and the token
    /// endpoint's. For operators that know that the limit is over.
    ///
    /// Waiting executions continue in a slow start, one first. If the platform still
    /// refuses, the next cooldown begins.
    pub fn end_cooldown(&self) {
        let Shared {
            cooldowns, tokens, ..
        } = &*self.inner.shared;
        if let Some(tokens) = tokens {
            tokens.end_cooldown();
        }
        cooldowns.end();
        telemetry::contained(|| tracing::info!("an operator ended all cooldowns"));
    }

    /// Stops the engine: admits no further request, lets executions finish for `grace`,
    /// then cuts them off. Every waiter gets an answer, and every record is finished by
    /// what is known. Calls may repeat and overlap: the shortest grace counts, and all
    /// calls return the same result.
    ///
    /// If the root was killed, nothing reports what finished, and `cut_off` might be too low.
    ///
    /// When it returns, only the handles of the engine refer to the store. Drop them
    /// before you open the file of a `FileStore` again.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not cancel the stop. It may be polled on any runtime.
    pub async fn shutdown(&self, grace: Duration) -> Drained {
        let mut drained = self.inner.drained.clone();
        let _ = self.inner.root.send_message(EngineMessage::close(grace));
        // A killed root sends no report.
        let lost = |_| Drained {
            finished: 0,
            cut_off: self.inner.shared.flights.lost(),
        };
        let report = drained.wait_for(Option::is_some).await;
        report.map_or_else(lost, |drained| drained.unwrap_or_default())
    }

    pub(super) fn is_running(&self) -> bool {
        self.inner.root.get_status() < ActorStatus::Draining
    }
}
