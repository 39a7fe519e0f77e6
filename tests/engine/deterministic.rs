//! `EngineBuilder::deterministic`: seed and wall clock decide what an engine takes from its
//! surroundings.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use genesys_once::record::Event;
use genesys_once::testing::{Fault, FaultyStore, ScriptedUpstream, Step};
use genesys_once::{Engine, Error, MemoryStore};
use tokio::time::Instant;

use super::{SECOND, request};

/// The lease id with which a fresh execution acquires, and how long three attempts take,
/// their backoff included.
async fn lease_and_backoff(seed: u64) -> (String, Duration) {
    let leases = Arc::new(Mutex::new(Vec::new()));
    let seen = leases.clone();
    let store = FaultyStore::new(MemoryStore::new(), move |operation| {
        if let Some(Event::Acquire { claim, .. }) = operation.event {
            seen.lock().unwrap().push(claim.lease.to_string());
        }
        Fault::Pass
    });
    let upstream = ScriptedUpstream::new(|_| Step::Refused);
    let builder = Engine::builder(upstream).store(store);
    let builder = builder.deterministic(seed, SystemTime::UNIX_EPOCH);
    let engine = builder.start().await.unwrap();
    let begun = Instant::now();
    engine.execute(request("{}")).await.unwrap_err();
    (leases.lock().unwrap().remove(0), begun.elapsed())
}

/// Red with a lease id or a jitter from another source.
#[tokio::test(start_paused = true)]
async fn seed_decides_leases_and_jitter() {
    let first = lease_and_backoff(7).await;
    assert_eq!(lease_and_backoff(7).await, first);
    let other = lease_and_backoff(8).await;
    assert!(other.0 != first.0 && other.1 != first.1, "{other:?}");
}

/// Red with the system's clock in place of the engine's clock.
#[tokio::test(start_paused = true)]
async fn wall_clock_follows_paused_time() {
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000);
    let upstream = ScriptedUpstream::new(|_| Step::Reset.after(30 * SECOND));
    let builder = Engine::builder(upstream).deterministic(1, start);
    let engine = builder.clone().start().await.unwrap();
    tokio::time::advance(3600 * SECOND).await;
    let error = engine.execute(request("{}")).await.unwrap_err();
    let Error::Indeterminate { since, .. } = error else {
        panic!("{error:?}")
    };
    // The time of sending: the connection was reset half a minute later.
    assert_eq!(since, start + 3600 * SECOND);
    // Another engine starts at `start` again.
    let engine = builder.start().await.unwrap();
    let error = engine.execute(request(r#"{"n":1}"#)).await.unwrap_err();
    let Error::Indeterminate { since, .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!(since, start);
}
