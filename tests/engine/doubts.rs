//! `FailOpen`: while the store is down this process answers for itself alone. It
//! calls nobody twice and forgets nothing that is in doubt.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use genesys_once::record::Event;
use genesys_once::testing::{Fault, FaultyStore, Operation, ScriptedUpstream, Step};
use genesys_once::{
    Engine, Error, IdempotencyKey, MemoryStore, OnStoreDown, RecordState, Resolution, Served,
};

use super::outage::{faulty, platform, switch};
use super::{SECOND, request};

#[tokio::test(start_paused = true)]
async fn fail_open_executes_once_in_this_process() {
    let (upstream, store, on) = (platform(), MemoryStore::new(), switch());
    let broken = faulty(&store, &on, |_| Fault::Fail);
    let engine = Engine::builder(upstream.clone())
        .store(broken)
        .on_store_down(OnStoreDown::FailOpen)
        .start()
        .await
        .unwrap();
    let (one, two) = tokio::join!(engine.execute(request("{}")), engine.execute(request("{}")));
    assert!(!one.unwrap().recorded() && !two.unwrap().recorded());
    assert!(!engine.stats().store_up);
    // Still down, and back again: this process remembers.
    for down in [true, false] {
        on.store(down, Ordering::SeqCst);
        tokio::time::sleep(100 * SECOND).await;
        let reply = engine.execute(request("{}")).await.unwrap();
        assert_eq!(upstream.ledger().total(), 1, "{reply:?}");
    }
    assert!(engine.execute(request("[2]")).await.unwrap().recorded());
    assert!(engine.stats().store_up);
}

/// Red when an unknown outcome that the store took note of is forgotten with the
/// next outage: this process then called a second time, seconds later.
#[tokio::test(start_paused = true)]
async fn fail_open_remembers_what_it_does_not_know() {
    let (store, on) = (MemoryStore::new(), switch());
    let upstream = first(Step::Reset);
    let engine = fail_open(&upstream, &store, &on).await;
    on.store(false, Ordering::SeqCst);
    let unknown = engine.execute(request("{}")).await.unwrap_err();
    assert!(matches!(unknown, Error::Indeterminate { .. }), "{unknown}");
    on.store(true, Ordering::SeqCst);
    let again = engine.execute(request("{}")).await.unwrap_err();
    assert!(matches!(again, Error::Indeterminate { .. }), "{again}");
    assert_eq!(upstream.ledger().total(), 1);
    // Settled by somebody, and seen to be: it is no longer in doubt.
    on.store(false, Ordering::SeqCst);
    tokio::time::sleep(200 * SECOND).await;
    let key = IdempotencyKey::of(&request("{}"));
    engine.resolve(&key, Resolution::NotApplied).await.unwrap();
    on.store(true, Ordering::SeqCst);
    assert!(engine.execute(request("{}")).await.is_ok());
    assert_eq!(upstream.ledger().total(), 2);
}

/// Red when what a crash left is not in doubt: the store took note of it, went
/// down, and this process called a second time.
#[tokio::test(start_paused = true)]
async fn fail_open_remembers_what_a_crash_left() {
    let (store, on) = (MemoryStore::new(), switch());
    on.store(false, Ordering::SeqCst);
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}"));
    let broken = faulty(&store, &on, |_| Fault::Fail);
    let engine = Engine::builder(upstream.clone())
        .store(broken)
        .on_store_down(OnStoreDown::FailOpen)
        .classify(|_| panic!("the embedder's own code"));
    let engine = engine.start().await.unwrap();
    let crashed = engine.execute(request("{}")).await.unwrap_err();
    assert!(matches!(crashed, Error::Crashed { .. }), "{crashed}");
    let key = IdempotencyKey::of(&request("{}"));
    tokio::time::sleep(SECOND).await;
    let state = engine.inspect(&key).await.unwrap();
    assert!(
        matches!(state, Some(RecordState::Indeterminate { .. })),
        "{state:?}"
    );
    on.store(true, Ordering::SeqCst);
    let again = engine.execute(request("{}")).await.unwrap_err();
    assert_eq!(upstream.ledger().total(), 1);
    assert!(matches!(again, Error::Indeterminate { .. }), "{again}");
}

/// Red when what this process knows is settled although the store refuses: it
/// heard of the lost attempt only now, and lets nobody repeat it yet.
#[tokio::test(start_paused = true)]
async fn fail_open_settles_nothing_that_the_store_refuses_to() {
    let (store, on) = (MemoryStore::new(), switch());
    let upstream = first(Step::Reset);
    let lossy = faulty(&store, &on, takes_the_lease_and_falls_silent);
    let engine = Engine::builder(upstream.clone())
        .store(lossy)
        .on_store_down(OnStoreDown::FailOpen);
    let engine = engine.start().await.unwrap();
    engine.execute(request("{}")).await.unwrap_err();
    tokio::time::sleep(200 * SECOND).await;
    on.store(false, Ordering::SeqCst);
    tokio::time::sleep(20 * SECOND).await;
    let key = IdempotencyKey::of(&request("{}"));
    let early = engine.resolve(&key, Resolution::NotApplied).await;
    assert!(
        matches!(early, Err(Error::NotIndeterminate { .. })),
        "{early:?}"
    );
    let unknown = engine.execute(request("{}")).await.unwrap_err();
    assert!(matches!(unknown, Error::Indeterminate { .. }), "{unknown}");
    tokio::time::sleep(100 * SECOND).await;
    engine.resolve(&key, Resolution::NotApplied).await.unwrap();
    assert!(engine.execute(request("{}")).await.unwrap().recorded());
    assert_eq!(upstream.ledger().total(), 2);
}

/// The chaos test found it: the outcome was answered while the store was down,
/// recorded when it was back, and executed again in the next outage. Red without
/// `recorded` in the guard.
#[tokio::test(start_paused = true)]
async fn fail_open_remembers_what_was_recorded_late() {
    let (store, upstream) = (MemoryStore::new(), platform());
    let (losing, dead) = (switch(), Arc::new(AtomicBool::new(false)));
    let faulty = FaultyStore::new(store.clone(), {
        let (losing, dead) = (losing.clone(), dead.clone());
        move |operation| match operation.event {
            _ if dead.load(Ordering::SeqCst) => Fault::Fail,
            Some(Event::Complete { .. }) if losing.load(Ordering::SeqCst) => Fault::Fail,
            _ => Fault::Pass,
        }
    });
    let engine = Engine::builder(upstream.clone())
        .store(faulty)
        .recent(1 << 20, 3600 * SECOND)
        .on_store_down(OnStoreDown::FailOpen);
    let engine = engine.start().await.unwrap();
    let reply = engine.execute(request("{}")).await.unwrap();
    assert!(!reply.recorded());
    losing.store(false, Ordering::SeqCst);
    tokio::time::sleep(20 * SECOND).await;
    assert_eq!(engine.stats().executions, 0, "it is recorded");
    dead.store(true, Ordering::SeqCst);
    let replay = engine.execute(request("{}")).await.unwrap();
    assert_eq!(upstream.ledger().total(), 1);
    assert_eq!((replay.served(), replay.recorded()), (Served::Memory, true));
}

/// I9. Red without the bound: the process grows for as long as the outage lasts.
#[tokio::test(start_paused = true)]
async fn fail_open_keeps_no_more_than_it_may() {
    // One buffer, shared by all answers: the test itself stays small.
    let body = bytes::Bytes::from(vec![b'1'; 8 << 20]);
    let upstream = ScriptedUpstream::new(move |_| Step::ok(body.clone()));
    let (store, on) = (MemoryStore::new(), switch());
    let engine = fail_open(&upstream, &store, &on).await;
    let number = |n: usize| request(&n.to_string());
    for n in 0..32 {
        assert!(engine.execute(number(n)).await.unwrap().is_success());
    }
    let full = engine.execute(number(32)).await.unwrap_err();
    assert!(matches!(full, Error::StoreUnavailable { .. }), "{full}");
    // What was executed is still known, and a day later there is room again.
    assert!(engine.execute(number(0)).await.unwrap().is_success());
    assert_eq!(upstream.ledger().total(), 32);
    tokio::time::sleep(25 * 3600 * SECOND).await;
    assert!(engine.execute(number(32)).await.unwrap().is_success());
}

fn takes_the_lease_and_falls_silent(operation: &Operation<'_>) -> Fault {
    match operation.event {
        Some(Event::Acquire { .. }) => Fault::LoseReply,
        _ => Fault::Fail,
    }
}

/// A platform that does this once, and then succeeds.
fn first(step: Step) -> ScriptedUpstream {
    let first = AtomicBool::new(true);
    ScriptedUpstream::new(move |_| match first.swap(false, Ordering::SeqCst) {
        true => step.clone(),
        false => Step::ok("{}"),
    })
}

async fn fail_open(
    upstream: &ScriptedUpstream,
    store: &MemoryStore,
    down: &Arc<AtomicBool>,
) -> Engine {
    let broken = faulty(store, down, |_| Fault::Fail);
    let engine = Engine::builder(upstream.clone())
        .store(broken)
        .on_store_down(OnStoreDown::FailOpen);
    engine.start().await.unwrap()
}
