//! The handle that services embed. It admits requests and waits for answers; the
//! actors do all other work.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ractor::{ActorRef, ActorStatus};
use serde::Serialize;
use tokio::sync::watch;

use crate::actors::caller;
use crate::actors::shared::Shared;
use crate::error::Error;
use crate::key::Namespace;
use crate::outcome::{Reply, Served};
use crate::record::{length, some_length};
use crate::request::DataActionRequest;
use crate::store::Store as _;
use crate::telemetry;
use crate::upstream::Upstream;

mod builder;
#[cfg(all(test, feature = "testing"))]
mod exactly_once;
mod lists;
mod records;
mod scoped;
#[cfg(feature = "tower")]
mod tower;

pub use self::builder::{EngineBuilder, Settings};
pub use self::lists::IndeterminateKeys;
pub use self::records::Forgotten;
pub use self::scoped::ScopedEngine;
pub use crate::actors::{Backlog, BacklogEntry, Drained, EngineMessage};

/// The grace of executions after the last `Engine` of a tree was dropped.
const GRACE_AFTER_DROP: Duration = Duration::from_secs(30);

/// Executes requests once per key. A cheap clone; all clones are one engine.
///
/// One engine has one upstream and one namespace. Two organisations are two engines,
/// which may share a store. Dropping the last clone stops the engine, also outside of a
/// runtime: it admits no further request and lets executions finish for 30 s. After
/// that it cuts them off and finishes their records by what is known.
/// [`shutdown`](Self::shutdown) does it now, and waits.
///
/// ```
/// # #[cfg(feature = "testing")] {
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use genesys_once::testing::{ScriptedUpstream, Step};
/// use genesys_once::{DataActionRequest, Engine, Served};
///
/// let upstream = ScriptedUpstream::new(|_| Step::ok(r#"{"refund": "R-1"}"#));
/// let engine = Engine::builder(upstream.clone()).start().await?;
///
/// let request = DataActionRequest::new("custom_-_refund", r#"{"order": 42}"#)?;
/// let reply = engine.execute(request).await?;
/// assert!(reply.is_success());
/// assert_eq!(reply.served(), Served::Upstream);
///
/// // The same request in another spelling: the same key, no second call.
/// let again = DataActionRequest::new("custom_-_refund", r#"{ "order": 42.0 }"#)?;
/// let reply = engine.execute(again).await?;
/// assert_eq!(reply.served(), Served::Memory);
/// assert_eq!(upstream.ledger().total(), 1);
/// # Ok::<(), genesys_once::Error>(())
/// # }).unwrap();
/// # }
/// ```
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    root: ActorRef<EngineMessage>,
    drained: watch::Receiver<Option<Drained>>,
    deadline: Duration,
    /// The tree lives as long as the embedder's supervisor.
    linked: bool,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !self.linked {
            // A stopped root accepts no message.
            let _ = self
                .root
                .send_message(EngineMessage::close(GRACE_AFTER_DROP));
        }
    }
}

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
            in_flight: permits.held().saturating_sub(backlog.limiter.executions),
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
    /// When it returns, only the handles of the engine refer to the store. Drop them
    /// before you open the file of a `FileStore` again.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not cancel the stop. It may be polled on any runtime.
    pub async fn shutdown(&self, grace: Duration) -> Drained {
        let mut drained = self.inner.drained.clone();
        let _ = self.inner.root.send_message(EngineMessage::close(grace));
        // A killed root sends no report: it has nothing to drain.
        match drained.wait_for(Option::is_some).await {
            Ok(drained) => drained.unwrap_or_default(),
            Err(_) => Drained::default(),
        }
    }

    fn is_running(&self) -> bool {
        self.inner.root.get_status() < ActorStatus::Stopping
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("namespace", self.namespace())
            .field("running", &self.is_running())
            .finish_non_exhaustive()
    }
}

/// What an engine does now and has done since it started.
///
/// As JSON it has the members that are named here. Durations are in milliseconds, and
/// their names end with `_ms`; an absent one is `null`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// Executions whose record is not finished.
    pub executions: usize,
    /// Calls at the platform, and executions about to make one: at most
    /// `max_in_flight`.
    pub in_flight: usize,
    /// Callers that wait for an answer.
    pub waiting: usize,
    /// Replies to the caller that began the execution.
    pub served_upstream: u64,
    /// Replies of an execution that another caller had begun.
    pub served_joined: u64,
    /// Replies from this process's memory.
    pub served_memory: u64,
    /// Replies from the store.
    pub served_store: u64,
    /// Calls with a final answer.
    pub calls_final: u64,
    /// Calls that were proven to be not executed.
    pub calls_not_executed: u64,
    /// Calls with an unknown outcome.
    pub calls_unknown: u64,
    /// Whether the store answers and accepts writes; `false` while the circuit breaker
    /// of any shard is open.
    pub store_up: bool,
    /// How often the store was found to have lost its records, or a shard's: see
    /// [`Store::emptied`](crate::Store::emptied).
    pub store_emptied: u64,
    /// For how long the current access token may be used; `None` if there is no token.
    #[serde(rename = "token_valid_for_ms", serialize_with = "some_length")]
    pub token_valid_for: Option<Duration>,
    /// Access tokens fetched.
    pub token_fetches: usize,
    /// What is left of the platform's cooldown, at most an hour; zero if there is none.
    /// The slow start after it does not count.
    #[serde(rename = "cooldown_ms", serialize_with = "length")]
    pub cooldown: Duration,
    /// What executions wait for, and for how long.
    pub backlog: Backlog,
}
