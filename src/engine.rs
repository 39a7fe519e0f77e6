//! The handle that services embed. It admits requests and waits for answers; the
//! actors do all other work.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ractor::ActorRef;
use serde::Serialize;
use tokio::sync::watch;

use crate::actors::shared::Shared;
use crate::record::{length, some_length};

mod builder;
#[cfg(all(test, feature = "testing"))]
mod exactly_once;
mod handle;
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
