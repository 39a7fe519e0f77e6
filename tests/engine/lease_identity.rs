//! A lease id serves one execution. A resolved version names no later execution. A proof
//! under a lost lease is recorded, and a lost claim leaves the key free.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use genesys_once::record::{Event, RecordName, RecordState};
use genesys_once::testing::{Fault, FaultyStore, ScriptedUpstream, Step};
use genesys_once::{Engine, Error, MemoryStore, Resolution, Store};
use tokio::time::{Instant, sleep};

use super::SECOND;
use super::ownership::{FIRST, SECOND_ONE, answer, ask, key, order, silent};

/// A lease belongs to one execution. Red if an acquire whose reply was lost takes over what
/// was released under its own lease. The version that an operator had seen then named the
/// execution that sends now, and `not_applied` let a second call through while the first
/// was on the wire.
#[tokio::test(start_paused = true)]
async fn resolved_version_names_no_later_execution() {
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}").after(10 * SECOND));
    let store = MemoryStore::new();
    let acquires = Arc::new(AtomicUsize::new(0));
    // The acquire is applied and its reply is lost; the second try comes late.
    let faulty = FaultyStore::new(store.clone(), {
        let acquires = acquires.clone();
        move |operation| match operation.event {
            Some(Event::Acquire { .. }) => match acquires.fetch_add(1, Ordering::SeqCst) {
                0 => Fault::Silent,
                1 => Fault::After(SECOND / 2, Box::new(Fault::Pass)),
                _ => Fault::Pass,
            },
            _ => Fault::Pass,
        }
    });
    let one = Engine::builder(upstream.clone()).store(faulty);
    let one = one.lease(SECOND).store_timeout(SECOND);
    let one = one.start().await.unwrap();
    let other = Engine::builder(upstream.clone()).store(store);
    let other = other.start().await.unwrap();
    let asked = ask(&one, order(FIRST));
    sleep(SECOND * 21 / 20).await;
    let error = other.execute(order(FIRST)).await.unwrap_err();
    let Error::Indeterminate { version, .. } = error else {
        panic!("{error}");
    };
    let not_applied = Resolution::not_applied().despite_clocks();
    other
        .resolve(&key(), version, not_applied.clone())
        .await
        .unwrap();
    // The execution goes on, under another lease.
    let again = ask(&one, order(FIRST));
    upstream.ledger().wait_for(1).await;
    let state = other.inspect(&key()).await.unwrap().unwrap();
    assert_ne!(state.version(), version);
    for resolution in [not_applied, Resolution::applied(answer("?"))] {
        let late = other.resolve(&key(), version, resolution).await;
        assert!(
            matches!(late, Err(Error::NotIndeterminate { .. })),
            "{late:?}"
        );
    }
    for caller in [asked, again] {
        let _ = caller.await.unwrap();
    }
    assert_eq!(upstream.ledger().total(), 1);
}

/// Red if a new lease is acquired before the last lease has ended: the proof was dropped,
/// and the key stayed indeterminate.
#[tokio::test(start_paused = true)]
async fn proof_under_lost_lease_is_recorded() {
    let upstream = ScriptedUpstream::new(|call| match call.attempt() {
        1 => Step::RateLimited(40 * SECOND).after(SECOND),
        _ => Step::ok("{}"),
    });
    let store = MemoryStore::new();
    let start = Instant::now();
    let releases = AtomicUsize::new(0);
    // The store is cut off before the 429 comes. It is back after another engine noticed
    // the loss, and the first release fails.
    let cut_off = FaultyStore::new(store.clone(), move |operation| match operation.event {
        _ if start.elapsed() > SECOND / 2 && start.elapsed() < 40 * SECOND => Fault::Fail,
        Some(Event::Release { .. }) if releases.fetch_add(1, Ordering::SeqCst) == 0 => Fault::Fail,
        _ => Fault::Pass,
    });
    let holder = Engine::builder(upstream.clone()).store(cut_off);
    let holder = holder.start().await.unwrap();
    let other = Engine::builder(upstream.clone()).store(store);
    let other = other.start().await.unwrap();
    let asked = ask(&holder, order(FIRST));
    sleep(32 * SECOND).await;
    let noticed = other.execute(order(FIRST)).await.unwrap_err();
    assert!(matches!(noticed, Error::Indeterminate { .. }), "{noticed}");
    let _ = asked.await.unwrap();
    sleep(60 * SECOND).await;
    assert_eq!(other.indeterminate(10).await.unwrap().keys, []);
}

/// Red if only an outcome has a smaller form: the key stayed locked, and became
/// indeterminate.
#[tokio::test(start_paused = true)]
async fn too_large_refusal_is_released_without_body() {
    let upstream = ScriptedUpstream::new(|_| Step::status(403, "x".repeat(2000)));
    let store = MemoryStore::new();
    let full = FaultyStore::new(store.clone(), |operation| match operation.event {
        Some(Event::Release {
            refusal: Some(_), ..
        }) => Fault::Refuse,
        _ => Fault::Pass,
    });
    let engine = Engine::builder(upstream.clone()).store(full);
    let engine = engine.start().await.unwrap();
    assert_eq!(engine.execute(order(FIRST)).await.unwrap().status(), 403);
    let name = RecordName::new(engine.namespace().clone(), key());
    let state = store.look(&name).await.unwrap();
    assert!(
        matches!(state, Some(RecordState::Released { refusal: None, .. })),
        "{state:?}"
    );
}

/// Red if the fingerprint of an expired claim is compared: the corrected payload was refused
/// for a week, though nothing had been executed.
#[tokio::test(start_paused = true)]
async fn dead_claim_frees_key_for_other_payload() {
    let upstream = ScriptedUpstream::new(|call| match call.request().payload().as_ref() {
        payload if payload == FIRST.as_bytes() => Step::RateLimited(100 * SECOND),
        _ => Step::ok("{}"),
    });
    let store = MemoryStore::new();
    let builder = Engine::builder(upstream.clone()).store(store);
    let holder = builder.clone().start().await.unwrap();
    let _asked = ask(&holder, order(FIRST));
    upstream.ledger().wait_for(1).await;
    sleep(SECOND).await;
    holder.actor().kill();
    sleep(31 * SECOND).await;
    let other = builder.start().await.unwrap();
    assert!(other.execute(order(SECOND_ONE)).await.unwrap().is_success());
}

/// Red if the time to live begins when the store records the outcome: an answer that was
/// two days old was replayed to another request.
#[tokio::test(start_paused = true)]
async fn outcome_ttl_counts_from_its_answer() {
    const HOUR: Duration = Duration::from_secs(3600);
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}"));
    let store = MemoryStore::new();
    let start = Instant::now();
    let cut_off = FaultyStore::new(store.clone(), move |operation| match operation.event {
        Some(Event::Complete { .. }) if start.elapsed() < 20 * HOUR => Fault::Fail,
        _ => Fault::Pass,
    });
    let engine = Engine::builder(upstream.clone()).store(cut_off);
    let engine = engine.start().await.unwrap();
    assert!(!engine.execute(order(FIRST)).await.unwrap().recorded());
    sleep(21 * HOUR).await;
    let state = engine.inspect(&key()).await.unwrap();
    let Some(RecordState::Cached { left, .. }) = state else {
        panic!("{state:?}");
    };
    assert!(left <= 3 * HOUR, "{left:?}");
}

/// Red if a record that went away counts as a free key: the looks are so slow that the
/// short-lived outcome had come and gone, and the request was executed again.
#[tokio::test(start_paused = true)]
async fn waiter_never_executes_unwatched_record() {
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}").after(4 * SECOND));
    let store = MemoryStore::new();
    let one = Engine::builder(upstream.clone())
        .store(store.clone())
        .lease(5 * SECOND);
    let one = one.start().await.unwrap();
    let start = Instant::now();
    let cut_off = FaultyStore::new(silent(&store), move |_| {
        let cut = start.elapsed() > SECOND && start.elapsed() < 15 * SECOND;
        if cut { Fault::Fail } else { Fault::Pass }
    });
    let other = Engine::builder(upstream.clone())
        .store(cut_off)
        .store_timeout(20 * SECOND);
    let other = other.start().await.unwrap();
    let short = order(FIRST).with_ttl(Duration::from_millis(1)).unwrap();
    let first = ask(&one, short.clone());
    upstream.ledger().wait_for(1).await;
    let waiter = ask(&other, short);
    first.await.unwrap().unwrap();
    let answer = waiter.await.unwrap().unwrap_err();
    assert!(matches!(answer, Error::StoreUnavailable { .. }), "{answer}");
    assert_eq!(upstream.ledger().total(), 1);
}
