//! The functions that the rest of the crate calls to count or time an event. They decide
//! nothing, and without the feature `metrics` they compile to nothing.

use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::Instant;

use super::contained;
use super::metric::{
    BREAKER_OPEN, ERRORS, EXECUTIONS, IN_FLIGHT, INDETERMINATE, INDETERMINATE_KEYS,
    INDETERMINATE_OLDEST, LEASES_LOST, METRICS, REFUSALS, REQUESTS, STORE_FAILURES, STORE_TIME,
    TOKEN_RENEWALS, WAIT_DURATION, WAITING,
};
use super::series::{GaugeGuard, Series, introduce};
use super::span_summary::SpanSummary;
use crate::error::Error;
use crate::key::{Namespace, RecordName};
use crate::outcome::{Reply, Served};
use crate::record::Event;
use crate::request::ActionId;

/// The series of one engine that its callers touch, made once.
#[derive(Clone, Debug)]
pub(crate) struct Meters {
    namespace: Namespace,
    upstream: Replies,
    joined: Replies,
    memory: Replies,
    store: Replies,
    waiting: Series,
    executions: Series,
    in_flight: Series,
}

/// Replies from one place.
#[derive(Clone, Debug)]
struct Replies {
    recorded: Series,
    unrecorded: Series,
}

impl Meters {
    pub(crate) fn new(namespace: &Namespace) -> Self {
        let served = |served: Served| {
            let of = |recorded| Series::of(&REQUESTS, namespace, &[served.as_str(), recorded]);
            let (recorded, unrecorded) = (of("true"), of("false"));
            Replies {
                recorded,
                unrecorded,
            }
        };
        Self {
            upstream: served(Served::Upstream),
            joined: served(Served::Joined),
            memory: served(Served::Memory),
            store: served(Served::Store),
            waiting: Series::plain(&WAITING, namespace),
            executions: Series::plain(&EXECUTIONS, namespace),
            in_flight: Series::plain(&IN_FLIGHT, namespace),
            namespace: namespace.clone(),
        }
    }

    /// A caller got a reply.
    pub(crate) fn served(&self, reply: &Reply) {
        let of = match reply.served() {
            Served::Upstream => &self.upstream,
            Served::Joined => &self.joined,
            Served::Memory => &self.memory,
            Served::Store => &self.store,
        };
        match reply.recorded() {
            true => of.recorded.count(),
            false => of.unrecorded.count(),
        }
    }

    /// A caller got an error.
    pub(crate) fn failed(&self, error: &Error) {
        Series::with(&ERRORS, &self.namespace, error.code()).count();
    }

    /// A caller waits, until the result is dropped.
    pub(crate) fn waiting(&self) -> GaugeGuard {
        self.waiting.raise()
    }

    /// An execution is not finished, until the result is dropped.
    pub(crate) fn execution(&self) -> GaugeGuard {
        self.executions.raise()
    }

    /// A call is at the platform, or about to be, until the result is dropped.
    pub(crate) fn in_flight(&self) -> GaugeGuard {
        self.in_flight.raise()
    }
}

/// An engine starts: logs it, and introduces all metrics to the recorder.
pub(crate) fn start(namespace: &Namespace) {
    contained(|| tracing::info!(target: "genesys_once", %namespace, "starting an engine"));
    METRICS
        .iter()
        .for_each(|metric| introduce(metric, namespace));
}

/// The platform refused; the callers receive its answer, and nothing was executed.
pub(crate) fn refusal(namespace: &Namespace, action: &ActionId) {
    Series::of_action(&REFUSALS, namespace, &[], action).count();
}

/// Waits for `until`, and records the time unless it was ready at once.
///
/// As cancel safe as `until`; the time until then is recorded.
pub(crate) async fn timed_wait<F: Future>(
    namespace: &Namespace,
    by: &'static str,
    until: F,
) -> F::Output {
    let mut until = pin!(until);
    if let Some(output) = until.as_mut().now_or_never() {
        return output;
    }
    let _timer = WaitTimer {
        series: Series::with(&WAIT_DURATION, namespace, by),
        since: Instant::now(),
    };
    until.await
}

struct WaitTimer {
    series: Series,
    since: Instant,
}

impl Drop for WaitTimer {
    fn drop(&mut self) {
        self.series.observe(self.since.elapsed());
    }
}

/// A record became indeterminate.
pub(crate) fn indeterminate(name: &RecordName) {
    Series::plain(&INDETERMINATE, &name.namespace).count();
    contained(|| {
        tracing::warn!(target: "genesys_once", %name, "a request might have been executed: its key is indeterminate until an operator or a policy resolves it");
    });
}

/// The gauges of a walk through indeterminate keys. They fall when this is dropped.
#[derive(Debug)]
pub(crate) struct Watched {
    keys: GaugeGuard,
    oldest: GaugeGuard,
}

impl Watched {
    pub(crate) fn new(namespace: &Namespace) -> Self {
        Self {
            keys: Series::plain(&INDETERMINATE_KEYS, namespace).level(),
            oldest: Series::plain(&INDETERMINATE_OLDEST, namespace).level(),
        }
    }

    /// A walk found so many keys.
    pub(crate) fn set(&mut self, keys: usize, oldest: Duration) {
        self.keys.set(keys as f64);
        self.oldest.set(oldest.as_secs_f64());
    }
}

/// The execution of this summary has lost its lease; counted once for each lease.
pub(crate) fn lease_lost(name: &RecordName, summary: &SpanSummary) {
    if summary.lose_lease() {
        Series::plain(&LEASES_LOST, &name.namespace).count();
        contained(|| {
            tracing::warn!(
                target: "genesys_once",
                %name,
                "lost a lease while it was in use; its next holder knows whether a request might be under way"
            );
        });
    }
}

/// The label of a store command.
pub(crate) fn command(event: &Event) -> &'static str {
    match event {
        Event::Acquire { .. } => "acquire",
        Event::TakeOver { .. } => "take_over",
        Event::Extend { .. } => "extend",
        Event::Enter { .. } => "enter",
        Event::Complete { .. } => "complete",
        Event::Release { .. } => "release",
        Event::Abandon { .. } => "abandon",
        Event::Resolve { .. } => "resolve",
        Event::Forget { .. } => "forget",
    }
}

/// A store command ended after `time`.
pub(crate) fn store_command(
    namespace: &Namespace,
    command: &'static str,
    time: Duration,
    failed: bool,
) {
    Series::with(&STORE_TIME, namespace, command).observe(time);
    if failed {
        Series::with(&STORE_FAILURES, namespace, command).count();
    }
}

/// The open breaker stopped a store command.
pub(crate) fn store_stopped(namespace: &Namespace, command: &'static str) {
    Series::with(&STORE_FAILURES, namespace, command).count();
}

/// The breaker is open, until the result is dropped.
pub(crate) fn breaker_open(namespace: &Namespace) -> GaugeGuard {
    Series::plain(&BREAKER_OPEN, namespace).raise()
}

/// The store, or a shard of it, was found to have lost its records.
#[cfg(feature = "redis")]
pub(crate) fn store_emptied(namespace: &Namespace) {
    Series::plain(&super::metric::EMPTIED, namespace).count();
}

/// A request for an access token ended.
pub(crate) fn token_renewal(namespace: &Namespace, came: bool) {
    let result = if came { "ok" } else { "error" };
    Series::with(&TOKEN_RENEWALS, namespace, result).count();
}
