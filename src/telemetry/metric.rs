//! The metrics as data: name, type, unit, label and the label's values. It records nothing;
//! the listed values bound the number of series.

/// One metric of this crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metric {
    /// Its name, by Prometheus' conventions: base units, `_total` for counters.
    pub name: &'static str,
    /// The type and unit.
    pub kind: Kind,
    /// Its labels, except for `namespace`.
    pub labels: &'static [MetricLabel],
    /// What it means.
    pub meaning: &'static str,
}

/// A label of a [`Metric`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MetricLabel {
    /// Its name.
    pub name: &'static str,
    /// All values that it takes; none for `action`, whose values are the first
    /// [`MAX_ACTIONS`] action ids that a process calls, and `other`.
    pub values: &'static [&'static str],
}

/// How many actions have series of their own in one process.
pub const MAX_ACTIONS: usize = 100;

/// The type of a [`Metric`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Observations of a time in seconds.
    Seconds,
    /// A time in seconds that rises and falls.
    Age,
}

/// Upper bounds in seconds for this crate's histograms.
pub const BUCKETS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0, 180.0,
];

const fn label(name: &'static str, values: &'static [&'static str]) -> MetricLabel {
    MetricLabel { name, values }
}

const RECORDED: &[&str] = &["true", "false"];
const STATUSES: &[&str] = &["2xx", "3xx", "4xx", "429", "5xx", "none"];
const SERVED: &[&str] = &["upstream", "joined", "memory", "store"];
const VERDICTS: &[&str] = &["final", "not_executed", "unknown"];
const COMMANDS: &[&str] = &[
    "look",
    "acquire",
    "take_over",
    "extend",
    "enter",
    "complete",
    "release",
    "abandon",
    "resolve",
    "forget",
];
const CODES: &[&str] = &[
    "invalid_request",
    "payload_mismatch",
    "in_progress",
    "indeterminate",
    "not_indeterminate",
    "unknown_key",
    "too_early",
    "resolution_unknown",
    "rate_limited",
    "unauthorized",
    "expired",
    "unreachable",
    "token",
    "store_unavailable",
    "record_unreadable",
    "overloaded",
    "deadline_exceeded",
    "crashed",
    "stopped",
    "no_runtime",
    "invalid_config",
];

/// Every metric of this crate, in the order of the [table](super#metrics).
pub const METRICS: &[Metric] = &[
    REQUESTS,
    ERRORS,
    WAITING,
    EXECUTIONS,
    IN_FLIGHT,
    CALLS,
    CALL_TIME,
    RESPONSES,
    REFUSALS,
    WAIT_DURATION,
    INDETERMINATE,
    INDETERMINATE_KEYS,
    INDETERMINATE_OLDEST,
    LEASES_LOST,
    STORE_TIME,
    STORE_FAILURES,
    BREAKER_OPEN,
    EMPTIED,
    TOKEN_RENEWALS,
];

pub(super) const REQUESTS: Metric = Metric {
    name: "genesys_once_requests_total",
    kind: Kind::Counter,
    labels: &[label("served", SERVED), label("recorded", RECORDED)],
    meaning: "Callers answered with a reply, by where it came from, and whether it is recorded.",
};

pub(super) const ERRORS: Metric = Metric {
    name: "genesys_once_errors_total",
    kind: Kind::Counter,
    labels: &[label("code", CODES)],
    meaning: "Callers answered with an error, by its code.",
};

pub(super) const WAITING: Metric = Metric {
    name: "genesys_once_callers_waiting",
    kind: Kind::Gauge,
    labels: &[],
    meaning: "Callers that wait for an answer now.",
};

pub(super) const EXECUTIONS: Metric = Metric {
    name: "genesys_once_executions",
    kind: Kind::Gauge,
    labels: &[],
    meaning: "Executions that are not finished.",
};

pub(super) const IN_FLIGHT: Metric = Metric {
    name: "genesys_once_calls_in_flight",
    kind: Kind::Gauge,
    labels: &[],
    meaning: "Calls at the platform now, and executions about to make one.",
};

pub(super) const CALLS: Metric = Metric {
    name: "genesys_once_upstream_calls_total",
    kind: Kind::Counter,
    labels: &[label("verdict", VERDICTS)],
    meaning: "Calls tried at the platform, by their verdict.",
};

pub(super) const CALL_TIME: Metric = Metric {
    name: "genesys_once_upstream_call_duration_seconds",
    kind: Kind::Seconds,
    labels: &[label("verdict", VERDICTS)],
    meaning: "Time from sending a call to its answer or failure.",
};

pub(super) const RESPONSES: Metric = Metric {
    name: "genesys_once_upstream_responses_total",
    kind: Kind::Counter,
    labels: &[label("status", STATUSES), label("action", &[])],
    meaning: "Calls at the platform by the class of the answer's status, none without an answer.",
};

pub(super) const REFUSALS: Metric = Metric {
    name: "genesys_once_refusals_total",
    kind: Kind::Counter,
    labels: &[label("action", &[])],
    meaning: "Executions that ended with a refusal of the platform: nothing was executed.",
};

pub(super) const WAIT_DURATION: Metric = Metric {
    name: "genesys_once_wait_duration_seconds",
    kind: Kind::Seconds,
    labels: &[label(
        "by",
        &["platform", "limiter", "permit", "token", "retry"],
    )],
    meaning: "Time an execution waited before a call, by the reason.",
};

pub(super) const INDETERMINATE: Metric = Metric {
    name: "genesys_once_indeterminate_total",
    kind: Kind::Counter,
    labels: &[],
    meaning: "Keys that became indeterminate: an operator must resolve them.",
};

pub(super) const INDETERMINATE_KEYS: Metric = Metric {
    name: "genesys_once_indeterminate_keys",
    kind: Kind::Gauge,
    labels: &[],
    meaning: "Indeterminate keys that the last walk found, in the process that made it.",
};

pub(super) const INDETERMINATE_OLDEST: Metric = Metric {
    name: "genesys_once_indeterminate_oldest_seconds",
    kind: Kind::Age,
    labels: &[],
    meaning: "Time since the oldest of these keys was sent.",
};

pub(super) const LEASES_LOST: Metric = Metric {
    name: "genesys_once_leases_lost_total",
    kind: Kind::Counter,
    labels: &[],
    meaning: "Leases that executions lost.",
};

pub(super) const STORE_TIME: Metric = Metric {
    name: "genesys_once_store_command_duration_seconds",
    kind: Kind::Seconds,
    labels: &[label("command", COMMANDS)],
    meaning: "Time from sending a store command to its end, time-outs included.",
};

pub(super) const STORE_FAILURES: Metric = Metric {
    name: "genesys_once_store_failures_total",
    kind: Kind::Counter,
    labels: &[label("command", COMMANDS)],
    meaning: "Store commands that failed, including those that an open breaker stopped.",
};

pub(super) const BREAKER_OPEN: Metric = Metric {
    name: "genesys_once_store_breaker_open",
    kind: Kind::Gauge,
    labels: &[],
    meaning: "1 while commands fail at once because the store does not answer.",
};

pub(super) const EMPTIED: Metric = Metric {
    name: "genesys_once_store_emptied_total",
    kind: Kind::Counter,
    labels: &[],
    meaning: "Times that the store, or a shard of it, was found to have lost its records.",
};

pub(super) const TOKEN_RENEWALS: Metric = Metric {
    name: "genesys_once_token_renewals_total",
    kind: Kind::Counter,
    labels: &[label("result", &["ok", "error"])],
    meaning: "Requests for an access token, by their result.",
};
