//! What a caller of the engine sees, under virtual time: coalescing, replays, retries,
//! refusals, unknown outcomes, limits and shutdown. Only `processes` takes real time and a
//! real Redis.
#![cfg(feature = "testing")]

#[cfg(all(feature = "genesys", feature = "redis"))]
#[path = "support/own_process.rs"]
mod own_process;
#[path = "support/subscriber.rs"]
mod subscriber;
#[cfg(all(feature = "genesys", feature = "redis"))]
mod support;

mod engine {
    #[macro_use]
    mod common;

    mod actor_failure;
    mod actor_reuse;
    mod broken_actions;
    mod coalescing;
    mod cooldown;
    mod custom_keys;
    mod deterministic;
    mod expired_tokens;
    mod fairness;
    mod indeterminate;
    mod lease_identity;
    mod leases;
    mod lifecycle;
    mod limits;
    mod merged_options;
    mod message_api;
    mod once;
    mod outage;
    mod outcomes;
    mod ownership;
    mod panics;
    mod payload_mismatch;
    #[cfg(all(feature = "genesys", feature = "redis"))]
    mod processes;
    // The limiter belongs to `GenesysCloud`.
    #[cfg(feature = "genesys")]
    mod rate_limits;
    mod record_metadata;
    mod recovery;
    mod refused_tokens;
    mod replays;
    mod resolution;
    mod resolution_races;
    mod runtimes;
    mod scoped;
    mod shutdown;
    mod slow_start;
    mod stalls;
    mod start_within;
    mod stopped_clock;
    mod subscribers;
    mod token_lifetime;
    mod tokens;
    mod watcher;
    mod writer_versions;

    use common::*;
}
