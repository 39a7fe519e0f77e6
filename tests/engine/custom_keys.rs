//! One caller-defined key for two payloads: every engine reports the mismatch at once, in
//! every state of the record, and does not change the record.

use std::sync::atomic::{AtomicU32, Ordering};

use genesys_once::execution::{Attempt, Execution, Hashed, Lock, Locked, Terms};
use genesys_once::record::{Phase, RecordName, RecordState};
use genesys_once::testing::{ScriptedUpstream, Step};
use genesys_once::{
    DataActionRequest, Engine, Error, IdempotencyKey, MemoryStore, Served, Store as _,
    Upstream as _,
};
use tokio::time::{Instant, advance};

use super::{SECOND, request, until};

fn mine(payload: &str) -> DataActionRequest {
    request(payload).with_key("order-42").unwrap()
}

fn key() -> IdempotencyKey {
    IdempotencyKey::of(&mine("{}"))
}

fn ok() -> ScriptedUpstream {
    ScriptedUpstream::new(|_| Step::ok("{}"))
}

fn hashed() -> Execution<Hashed> {
    Execution::new(mine(r#"{"a":1}"#), ok().namespace())
}

async fn locked(store: &MemoryStore) -> Execution<Locked> {
    match hashed().lock(store, &Terms::default()).await.unwrap() {
        Lock::Locked(locked) => locked,
        other => panic!("{other:?}"),
    }
}

async fn state(store: &MemoryStore) -> RecordState {
    let name = RecordName::new(ok().namespace(), key());
    store.look(&name).await.unwrap().unwrap()
}

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Engines of other processes, each with its upstream: one engine could send at once, the
/// other cannot because its only permit is taken.
async fn others(store: &MemoryStore) -> Vec<(Engine, ScriptedUpstream)> {
    let free = ok();
    let busy = ScriptedUpstream::new(|_| Step::Silent).with_attempt_timeout(3600 * SECOND);
    let mut engines = Vec::new();
    for upstream in [free, busy.clone()] {
        let builder = Engine::builder(upstream.clone()).store(store.clone());
        let engine = builder.max_in_flight(1).start().await.unwrap();
        engines.push((engine, upstream));
    }
    // An action key that no earlier engine has used.
    let own = NEXT.fetch_add(1, Ordering::Relaxed).to_string();
    let engine = engines[1].0.clone();
    tokio::spawn(async move { engine.execute(request(&own)).await });
    busy.ledger().wait_for(1).await;
    engines
}

/// A caller with another payload under this key gets a mismatch, and nothing else happens.
async fn assert_mismatch(store: &MemoryStore, what: &str) {
    let before = state(store).await;
    let others = others(store).await;
    for (engine, upstream) in &others {
        let calls = upstream.ledger().total();
        for different in [
            mine(r#"{"a":2}"#),
            // The same bytes, with another part ignored.
            mine(r#"{"a":1,"b":2}"#).ignoring(["/a"]).unwrap(),
        ] {
            let start = Instant::now();
            let error = engine.execute(different).await.unwrap_err();
            assert!(
                matches!(error, Error::PayloadMismatch { .. }),
                "{what}: {error}"
            );
            assert_eq!(error.key(), Some(key()), "{what}");
            assert!(start.elapsed() < SECOND, "{what}: reported late");
        }
        assert_eq!(upstream.ledger().total(), calls, "{what}");
    }
    assert_eq!(state(store).await.revision(), before.revision(), "{what}");
    for (engine, _) in others {
        engine.shutdown(SECOND).await;
    }
}

/// I6. Red if the fingerprint is not compared before an engine that cannot send now waits
/// until it can.
#[tokio::test(start_paused = true)]
async fn mismatch_is_reported_in_every_state() {
    let store = MemoryStore::new();
    let dispatched = locked(&store).await;
    assert_mismatch(&store, "dispatched").await;
    let (claimed, ()) = dispatched.pause(&store, std::future::ready(())).await;
    let claimed_state = state(&store).await;
    assert!(matches!(
        claimed_state,
        RecordState::Locked {
            phase: Phase::Claimed,
            ..
        }
    ));
    assert_mismatch(&store, "claimed").await;
    // Once this lease expires, the key is free for any request: nothing was executed.
    let attempt = claimed.execute(&store, &ok(), None).await.unwrap();
    let Attempt::Executed(executed) = attempt else {
        panic!("{attempt:?}")
    };
    assert_mismatch(&store, "dispatched again").await;
    drop(executed.cache(&store).await.unwrap());
    assert_mismatch(&store, "cached").await;

    let store = MemoryStore::new();
    let lost = locked(&store).await;
    advance(31 * SECOND).await;
    assert_mismatch(&store, "dispatched and expired").await;
    let error = lost.abandon(&store, "cut").await;
    assert!(matches!(error, Error::Indeterminate { .. }), "{error}");
    assert_mismatch(&store, "indeterminate").await;
}

#[tokio::test(start_paused = true)]
async fn released_key_accepts_any_payload() {
    let store = MemoryStore::new();
    let _ = locked(&store).await.release(&store).await.unwrap();
    let (engine, upstream) = others(&store).await.swap_remove(0);
    let reply = engine.execute(mine(r#"{"a":2}"#)).await.unwrap();
    assert_eq!(
        (reply.served(), upstream.ledger().total()),
        (Served::Upstream, 1)
    );
    assert_first_payload_mismatches(&engine).await;
}

async fn assert_first_payload_mismatches(engine: &Engine) {
    let error = engine.execute(mine(r#"{"a":1}"#)).await.unwrap_err();
    assert!(matches!(error, Error::PayloadMismatch { .. }), "{error}");
}

/// Red if waiters do not compare the fingerprint: they get the mismatch only when the other
/// lease has expired.
#[tokio::test(start_paused = true)]
async fn waiter_gets_mismatch_when_key_changes_owner() {
    let store = MemoryStore::new();
    let holder = locked(&store).await;
    let (engine, upstream) = others(&store).await.swap_remove(0);
    let waiting = tokio::spawn({
        let engine = engine.clone();
        async move { engine.execute(mine(r#"{"a":1}"#)).await }
    });
    until("an execution waits", || engine.stats().executions == 1).await;
    let start = Instant::now();
    // No time passes for the waiter between these two commands.
    let _ = holder.release(&store).await.unwrap();
    let other = Execution::new(mine(r#"{"a":2}"#), ok().namespace());
    let Lock::Locked(_other) = other.lock(&store, &Terms::default()).await.unwrap() else {
        panic!("the key is free")
    };
    let error = waiting.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::PayloadMismatch { .. }), "{error}");
    assert!(start.elapsed() < 2 * SECOND, "{:?}", start.elapsed());
    assert_eq!(upstream.ledger().total(), 0);
}

/// Red if a joined caller, or a caller with a reply from memory, is not compared with the
/// first caller.
#[tokio::test(start_paused = true)]
async fn mismatch_is_reported_by_flight_and_memory() {
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}").after(SECOND));
    let engine = Engine::builder(upstream.clone()).start().await.unwrap();
    let first = tokio::spawn({
        let engine = engine.clone();
        async move { engine.execute(mine(r#"{"a":1}"#)).await }
    });
    upstream.ledger().wait_for(1).await;
    for when in ["in flight", "in memory"] {
        for different in [
            mine(r#"{"a":2}"#),
            mine(r#"{"a":1,"b":2}"#).ignoring(["/a"]).unwrap(),
        ] {
            let error = engine.execute(different).await.unwrap_err();
            assert!(
                matches!(error, Error::PayloadMismatch { .. }),
                "{when}: {error}"
            );
        }
        // Another spelling with other options is the same request.
        let same = mine(r#"{ "a": 1.0 }"#).with_ttl(SECOND).unwrap();
        assert!(engine.execute(same).await.is_ok(), "{when}");
    }
    assert!(first.await.unwrap().is_ok());
    assert_eq!(upstream.ledger().total(), 1);
    assert_eq!(engine.stats().served_memory, 1);
}
