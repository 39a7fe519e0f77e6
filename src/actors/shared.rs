//! What all actors of one engine share: store, upstream, settings, counters. Plain data
//! behind an `Arc`; it is no actor's state.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::Span;

use super::access_log::AccessLog;
use super::backlog::WaitList;
use super::cooldown::Cooldowns;
use super::finish::Unfinished;
use super::idle::IdleActors;
use super::permits::Permits;
use super::posted::Posted;
use super::replays::Replays;
use super::resolution::Sightings;
use super::token::Tokens;
use super::unmatched::Unmatched;
use super::watcher::Watch;
use crate::error::Error;
use crate::execution::{Attempt, Terms};
use crate::flights::{Admission, Flights};
use crate::key::{IdempotencyKey, Namespace, RecordName};
use crate::outcome::{Reply, Served};
use crate::policy::{OnDuplicate, RetryPolicy};
use crate::record::Resolution;
use crate::request::{ActionId, DataActionRequest};
use crate::store::{BoxFuture, BreakerStore};
use crate::telemetry::{self, Meters, SpanSummary};
use crate::upstream::Upstream;

/// A hook that can resolve an indeterminate key.
pub(crate) type Reconcile =
    Arc<dyn Fn(DataActionRequest, Error) -> BoxFuture<'static, Option<Resolution>> + Send + Sync>;

pub(crate) struct Shared {
    pub store: Arc<BreakerStore>,
    pub upstream: Arc<dyn Upstream>,
    pub namespace: Namespace,
    pub terms: Terms,
    pub retry: RetryPolicy,
    pub on_duplicate: OnDuplicate,
    pub reconcile: Option<Reconcile>,
    pub flights: Arc<Flights>,
    pub idle: Arc<IdleActors>,
    pub tokens: Option<Tokens>,
    /// One permit for each call at the platform.
    pub permits: Arc<Permits>,
    /// The turn to ask the upstream's rate limit.
    pub turns: Arc<Permits>,
    pub max_payload_bytes: usize,
    pub replays: Replays,
    pub cooldowns: Arc<Cooldowns>,
    pub backlog: WaitList,
    pub unmatched: Unmatched,
    pub access_log: AccessLog,
    pub sightings: Sightings,
    /// The state of the watcher, if the setting is on.
    pub watch: Option<Watch>,
    /// Becomes true when executions are cut off.
    pub cut: Posted<bool>,
    /// The outcomes that wait for the store.
    pub unfinished: Unfinished,
    pub counts: Counts,
    pub meters: Arc<Meters>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn name(&self, key: IdempotencyKey) -> RecordName {
        RecordName::new(self.namespace.clone(), key)
    }

    /// Waits until executions are cut off.
    pub(crate) async fn cut_off(&self) {
        self.cut.wait_for(|cut| cut.then_some(())).await;
    }

    /// Waits, and records the time by its reason.
    pub(crate) async fn timed_wait<F: Future>(&self, by: &'static str, until: F) -> F::Output {
        telemetry::timed_wait(&self.namespace, by, until).await
    }
}

/// Counters since the start, read by `Engine::stats`.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    upstream: AtomicU64,
    joined: AtomicU64,
    memory: AtomicU64,
    store: AtomicU64,
    pub calls_final: AtomicU64,
    pub calls_not_executed: AtomicU64,
    pub calls_unknown: AtomicU64,
}

impl Counts {
    pub(crate) fn count_served(&self, served: Served) {
        self.of(served).fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn served(&self, served: Served) -> u64 {
        self.of(served).load(Ordering::Relaxed)
    }

    fn of(&self, served: Served) -> &AtomicU64 {
        match served {
            Served::Upstream => &self.upstream,
            Served::Joined => &self.joined,
            Served::Memory => &self.memory,
            Served::Store => &self.store,
        }
    }
}

impl Shared {
    /// Admits a request within the limits of payload and table.
    pub(crate) fn admit(&self, request: &DataActionRequest) -> Result<Admission, Error> {
        let (bytes, limit) = (request.payload().len(), self.max_payload_bytes);
        if bytes > limit {
            let reason = format!("{bytes} bytes, and max_payload_bytes is {limit}");
            return Err(Error::invalid_request("payload", reason));
        }
        self.unmatched.log(request);
        let admission = self.flights.join_or_begin(request)?;
        telemetry::contained(|| match &admission {
            Admission::First(_, guard) => guard.begin(&self.namespace),
            Admission::Joined(waiter) => waiter.link(),
            Admission::Recent(_) | Admission::Follows(_) => {}
        });
        Ok(admission)
    }

    /// An attempt of an execution ended.
    pub(crate) fn attempted(&self, action: &ActionId, attempt: &Attempt) {
        let Counts {
            calls_final,
            calls_not_executed,
            calls_unknown,
            ..
        } = &self.counts;
        let count = match attempt {
            Attempt::Executed(_) => Some(calls_final),
            Attempt::NotExecuted(..) => Some(calls_not_executed),
            Attempt::Indeterminate(_) | Attempt::UnknownOutcome(..) => Some(calls_unknown),
            Attempt::Lost(_) => None,
        };
        if let Some(count) = count {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.access_log.log(action, attempt);
    }

    /// A caller gets this answer; `summary` is that of the execution it waited for.
    pub(crate) fn answered(
        &self,
        span: &Span,
        summary: Option<&SpanSummary>,
        answer: &Result<Reply, Error>,
    ) {
        if let Ok(reply) = answer {
            self.counts.count_served(reply.served());
        }
        telemetry::contained(|| match answer {
            Ok(reply) => self.meters.served(reply),
            Err(error) => self.meters.failed(error),
        });
        telemetry::contained(|| telemetry::close_caller_span(span, summary, answer));
    }
}
