//! What an operator sees: each metric as Prometheus reads it, the docs table compared with
//! the code, and the spans.
#![cfg(all(feature = "testing", feature = "metrics"))]

#[path = "support/subscriber.rs"]
mod subscriber;

mod telemetry {
    mod business;
    mod callers;
    mod calls;
    mod common;
    mod gauges;
    mod metric_table;
    mod recorder_failures;
    mod spans;
    mod store;
    mod waits;

    use common::*;
}
