//! What an operator sees of an engine: `tracing` spans and, with the feature `metrics`,
//! counters, gauges and histograms. All names are defined here. No key, payload, secret or
//! token is ever a label; no payload, secret or token is ever a field.
//!
//! # Spans
//!
//! | span | one for each | fields |
//! |---|---|---|
//! | `genesys_once.execute` | caller, around `Engine::execute` | `namespace`, `key`, `action_id`, `served`, `attempts`, `verdict`, `correlation_id`, `error.type` |
//! | `genesys_once.flight` | execution, child of its first caller's span | `namespace`, `key`, `action_id`, `attempts`, `verdict`, `error.type` |
//! | `genesys_once.attempt` | call at the platform, child of its flight | `attempt`, `verdict`, `correlation_id`, `otel.kind` (`client`), `http.request.method`, `http.request.resend_count`, `url.full`, `server.address`, `server.port`, `http.response.status_code`, `error.type` |
//!
//! All have level `INFO` and target `genesys_once`. `key` is the first 12 of the key's 64
//! hex digits: enough to find the key, too few to use it. `served` is
//! [`Served::as_str`](crate::Served::as_str); `verdict`, of the last attempt, `final`,
//! `not_executed` or `unknown`; `correlation_id` the platform's id of its answer;
//! `error.type` [`Error::code`](crate::Error::code). `attempts` and `verdict` belong to the
//! execution that answered: a replay made no attempt. The span of a caller that joined
//! follows from the flight's span. A flight's span ends with its answer, possibly after its
//! caller's span. `error.type` and `http.response.status_code` are names of OpenTelemetry's
//! semantic conventions; a span that ends with an error also has `otel.status_code`
//! `ERROR`. The bridge from `tracing` to OpenTelemetry reads it and `otel.kind`. A call
//! that is answered with 4xx or 5xx, or not at all, has the status `ERROR`, by the
//! conventions for HTTP clients; its `error.type` is the status, `no_answer` or `not_sent`.
//! URL, address and port are present where the upstream names its
//! [`url`](crate::Upstream::url), as the platform's client does.
//!
//! # Audit
//!
//! Each execution logs one event at `INFO`, target `genesys_once::audit`, when its answer
//! is known: the whole `key`, `action_id`, `label`, `served`, `status`, `code` of an error,
//! `attempts` and `duration_ms`. Callers that joined it, and replays from this process's
//! memory, log none. With `attempts` 0 the execution sent nothing. A filter such as `genesys_once::audit=off` drops it.
//!
//! # Metrics
//!
//! Install a recorder of the `metrics` facade before `start()`; earlier events are not
//! counted. Every series has the label `namespace`, which distinguishes two engines in one
//! process; two engines of one namespace add up. This table has the further labels, and all
//! that [`METRICS`] has:
//!
//! | name | type | unit | label | meaning |
//! |---|---|---|---|---|
//! | `genesys_once_requests_total` | counter | count | `served`: `upstream`, `joined`, `memory`, `store`; `recorded`: `true`, `false` | Callers answered with a reply, by where it came from, and whether it is recorded. |
//! | `genesys_once_errors_total` | counter | count | `code`: any [`Error::code`](crate::Error::code) | Callers answered with an error, by its code. |
//! | `genesys_once_callers_waiting` | gauge | count | | Callers that wait for an answer now. |
//! | `genesys_once_executions` | gauge | count | | Executions that are not finished. |
//! | `genesys_once_calls_in_flight` | gauge | count | | Calls at the platform now, and executions about to make one. |
//! | `genesys_once_upstream_calls_total` | counter | count | `verdict`: `final`, `not_executed`, `unknown` | Calls tried at the platform, by their verdict. |
//! | `genesys_once_upstream_call_duration_seconds` | histogram | seconds | `verdict`: `final`, `not_executed`, `unknown` | Time from sending a call to its answer or failure. |
//! | `genesys_once_upstream_responses_total` | counter | count | `status`: `2xx`, `3xx`, `4xx`, `429`, `5xx`, `none`; `action`: the first 100 of a process, then `other` | Calls at the platform by the class of the answer's status, none without an answer. |
//! | `genesys_once_refusals_total` | counter | count | `action`: the first 100 of a process, then `other` | Executions that ended with a refusal of the platform: nothing was executed. |
//! | `genesys_once_wait_duration_seconds` | histogram | seconds | `by`: `platform`, `limiter`, `permit`, `token`, `retry` | Time an execution waited before a call, by the reason. |
//! | `genesys_once_indeterminate_total` | counter | count | | Keys that became indeterminate: an operator must resolve them. |
//! | `genesys_once_indeterminate_keys` | gauge | count | | Indeterminate keys that the last walk found, in the process that made it. |
//! | `genesys_once_indeterminate_oldest_seconds` | gauge | seconds | | Time since the oldest of these keys was sent. |
//! | `genesys_once_leases_lost_total` | counter | count | | Leases that executions lost. |
//! | `genesys_once_store_command_duration_seconds` | histogram | seconds | `command`: `look`, `acquire`, `take_over`, `extend`, `enter`, `complete`, `release`, `abandon`, `resolve`, `forget` | Time from sending a store command to its end, time-outs included. |
//! | `genesys_once_store_failures_total` | counter | count | `command`: `look`, `acquire`, `take_over`, `extend`, `enter`, `complete`, `release`, `abandon`, `resolve`, `forget` | Store commands that failed, including those that an open breaker stopped. |
//! | `genesys_once_store_breaker_open` | gauge | count | | 1 while commands fail at once because the store does not answer. |
//! | `genesys_once_store_emptied_total` | counter | count | | Times that the store, or a shard of it, was found to have lost its records. |
//! | `genesys_once_token_renewals_total` | counter | count | `result`: `ok`, `error` | Requests for an access token, by their result. |
//!
//! `by` is `platform` for the cooldown after a 429, `limiter` for the upstream's own rate
//! limit, `permit` for `max_in_flight`, `token` while no access token is valid, `retry` for
//! an execution's own wait between two attempts. A series with an `action` begins with that
//! action's first event; all others begin at zero when an engine starts. A gauge falls
//! however the counted item ends, also by a kill. An [`execution`](crate::execution) driven
//! without an engine counts its calls and its lost leases.
//!
//! The two gauges of indeterminate keys need
//! [`watch_indeterminate`](crate::EngineBuilder::watch_indeterminate). One process walks at
//! a time; in all others they are 0. So the sum over all processes counts each key once,
//! except for up to one period after another process begins to walk.
//!
//! Exporters render histograms as summaries unless they have buckets. [`BUCKETS`] suits all
//! of these, from a store in memory to an action that runs a minute:
//!
//! ```
//! use genesys_once::telemetry::{BUCKETS, METRICS};
//! use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
//!
//! let suffix = Matcher::Suffix("_duration_seconds".into());
//! let builder = PrometheusBuilder::new().set_buckets_for_metric(suffix, BUCKETS)?;
//! # Ok::<(), metrics_exporter_prometheus::BuildError>(())
//! ```

use std::panic::{AssertUnwindSafe, catch_unwind};

mod meters;
mod metric;
mod observed_call;
#[cfg(feature = "metrics")]
#[path = "telemetry/facade.rs"]
mod series;
#[cfg(not(feature = "metrics"))]
#[path = "telemetry/noop.rs"]
mod series;
mod span_summary;
mod spans;

pub use self::metric::{BUCKETS, Kind, MAX_ACTIONS, METRICS, Metric, MetricLabel};

#[cfg(feature = "redis")]
pub(crate) use self::meters::store_emptied;
pub(crate) use self::meters::{
    Meters, Watched, breaker_open, command, indeterminate, lease_lost, refusal, start,
    store_command, store_stopped, timed_wait, token_renewal,
};
pub(crate) use self::observed_call::ObservedCall;
pub(crate) use self::series::GaugeGuard;
pub(crate) use self::span_summary::SpanSummary;
pub(crate) use self::spans::{
    attempt, audit, close_caller_span, close_flight_span, execute, execute_message, flight, sender,
};

/// Runs code of a subscriber or a recorder. Where it panics, the panic ends here
/// and the process's panic hook has reported it.
pub(crate) fn contained<T>(foreign: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(foreign)).ok()
}

/// Runs a test with a subscriber of its own, as `tests/support/subscriber.rs` explains: a
/// second dispatcher keeps the events of this thread switched on.
#[cfg(test)]
pub(crate) fn with_default<T>(
    subscriber: impl tracing::Subscriber + Send + Sync + 'static,
    run: impl FnOnce() -> T,
) -> T {
    let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::new());
    tracing::subscriber::with_default(subscriber, run)
}
