//! What the rest of the crate calls to have something counted or timed: one line
//! at each place. It decides nothing, and without the feature `metrics` it
//! compiles to nothing.

use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::Instant;

use super::contained;
use super::metric::{
    BREAKER_OPEN, CALL_TIME, CALLS, ERRORS, EXECUTIONS, HOLD_TIME, IN_FLIGHT, INDETERMINATE,
    INDETERMINATE_KEYS, INDETERMINATE_OLDEST, LEASES_LOST, METRICS, REQUESTS, STORE_FAILURES,
    STORE_TIME, TOKEN_RENEWALS, WAITING,
};
use super::series::{Raised, Series, introduce};
use super::trail::{Trail, label};
use crate::error::Error;
use crate::key::{Namespace, RecordName};
use crate::outcome::{Served, Verdict};
use crate::record::Event;

/// The series of one engine that its callers touch, made once.
#[derive(Clone, Debug)]
pub(crate) struct Meters {
    namespace: Namespace,
    upstream: Series,
    joined: Series,
    memory: Series,
    store: Series,
    waiting: Series,
    executions: Series,
    in_flight: Series,
}

impl Meters {
    pub(crate) fn new(namespace: &Namespace) -> Self {
        let served = |served: Served| Series::with(&REQUESTS, namespace, served.as_str());
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
    pub(crate) fn served(&self, served: Served) {
        match served {
            Served::Upstream => self.upstream.count(),
            Served::Joined => self.joined.count(),
            Served::Memory => self.memory.count(),
            Served::Store => self.store.count(),
        }
    }

    /// A caller got an error.
    pub(crate) fn failed(&self, error: &Error) {
        Series::with(&ERRORS, &self.namespace, error.code()).count();
    }

    /// A caller waits, until the result is dropped.
    pub(crate) fn waiting(&self) -> Raised {
        self.waiting.raise()
    }

    /// An execution is not settled, until the result is dropped.
    pub(crate) fn execution(&self) -> Raised {
        self.executions.raise()
    }

    /// A call is at the platform, or about to be, until the result is dropped.
    pub(crate) fn in_flight(&self) -> Raised {
        self.in_flight.raise()
    }
}

/// An engine starts: tells the log, and the recorder what there is.
pub(crate) fn start(namespace: &Namespace) {
    contained(|| tracing::info!(target: "genesys_once", %namespace, "starting an engine"));
    METRICS
        .iter()
        .for_each(|metric| introduce(metric, namespace));
}

/// One call on the wire. Dropped without [`ended`](Self::ended), its fate is
/// unknown.
pub(crate) struct UpstreamCall {
    namespace: Namespace,
    sent: Instant,
    verdict: Verdict,
}

impl UpstreamCall {
    /// The call is sent now.
    pub(crate) fn sent(namespace: &Namespace) -> Self {
        Self {
            namespace: namespace.clone(),
            sent: Instant::now(),
            verdict: Verdict::Unknown,
        }
    }

    /// The call was answered, and this is what the answer proves.
    pub(crate) fn ended(mut self, verdict: Verdict) {
        self.verdict = verdict;
    }
}

impl Drop for UpstreamCall {
    fn drop(&mut self) {
        let verdict = label(self.verdict);
        Series::with(&CALLS, &self.namespace, verdict).count();
        Series::with(&CALL_TIME, &self.namespace, verdict).observe(self.sent.elapsed());
    }
}

/// Waits for `until`, and records for how long where that was not at once.
///
/// As cancel safe as `until`; the time until then is recorded.
pub(crate) async fn held<F: Future>(
    namespace: &Namespace,
    by: &'static str,
    until: F,
) -> F::Output {
    let mut until = pin!(until);
    if let Some(output) = until.as_mut().now_or_never() {
        return output;
    }
    let _held = Held {
        series: Series::with(&HOLD_TIME, namespace, by),
        since: Instant::now(),
    };
    until.await
}

struct Held {
    series: Series,
    since: Instant,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.series.observe(self.since.elapsed());
    }
}

/// A record says from now on that its request may have been executed.
pub(crate) fn indeterminate(name: &RecordName) {
    Series::plain(&INDETERMINATE, &name.namespace).count();
    contained(|| {
        tracing::warn!(target: "genesys_once", %name, "a request may have been executed; its key is held until it is resolved");
    });
}

/// The gauges of a walk through indeterminate keys. They fall when this is dropped.
#[derive(Debug)]
pub(crate) struct Watched {
    keys: Raised,
    oldest: Raised,
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

/// The execution of this trail holds its lease no more; counted once a lease.
pub(crate) fn lease_lost(name: &RecordName, trail: &Trail) {
    if trail.lose_lease() {
        Series::plain(&LEASES_LOST, &name.namespace).count();
        contained(|| {
            tracing::warn!(
                target: "genesys_once",
                %name,
                "lost a lease while it was in use; whoever took it knows whether a request may be under way"
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

/// A store command failed without being sent: the breaker is open.
pub(crate) fn store_stopped(namespace: &Namespace, command: &'static str) {
    Series::with(&STORE_FAILURES, namespace, command).count();
}

/// The breaker is open, until the result is dropped.
pub(crate) fn breaker_open(namespace: &Namespace) -> Raised {
    Series::plain(&BREAKER_OPEN, namespace).raise()
}

/// The store was found to have lost its records, or a shard's.
#[cfg(feature = "redis")]
pub(crate) fn store_emptied(namespace: &Namespace) {
    Series::plain(&super::metric::EMPTIED, namespace).count();
}

/// An access token was asked for.
pub(crate) fn token_renewal(namespace: &Namespace, came: bool) {
    let result = if came { "ok" } else { "error" };
    Series::with(&TOKEN_RENEWALS, namespace, result).count();
}
