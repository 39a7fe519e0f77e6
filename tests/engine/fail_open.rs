//! `OnStoreDown::FailOpen`: what was executed without the store is known in this
//! process, can be settled there, and ends the lease that the store may hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use genesys_once::record::{Event, Refusal};
use genesys_once::testing::{Fault, FaultyStore, ScriptedUpstream, Step};
use genesys_once::{
    Engine, Error, IdempotencyKey, MemoryStore, OnStoreDown, Outcome, RecordName, RecordState,
    Resolution, Served, Store as _,
};
use http::StatusCode;

use super::{SECOND, child, request, until};

/// A store that goes down when it has taken one acquire, whose reply is lost.
struct Setting {
    engine: Engine,
    upstream: ScriptedUpstream,
    store: MemoryStore,
    down: Arc<AtomicBool>,
}

async fn setting(upstream: ScriptedUpstream) -> Setting {
    let (store, down) = (MemoryStore::new(), Arc::new(AtomicBool::new(true)));
    let faulty = FaultyStore::new(store.clone(), {
        let down = down.clone();
        move |operation| match operation.event {
            _ if !down.load(Ordering::SeqCst) => Fault::Pass,
            Some(Event::Acquire { .. }) if operation.number == 1 => Fault::LoseReply,
            _ => Fault::Fail,
        }
    });
    let engine = Engine::builder(upstream.clone())
        .store(faulty)
        .on_store_down(OnStoreDown::FailOpen)
        .start()
        .await
        .unwrap();
    Setting {
        engine,
        upstream,
        store,
        down,
    }
}

impl Setting {
    /// What the store says once it is back and the flight is settled.
    async fn record(&self) -> Option<RecordState> {
        let name = RecordName::new(self.engine.namespace().clone(), key());
        let before = self.store.look(&name).await.unwrap();
        assert!(
            matches!(before, Some(RecordState::Locked { .. })),
            "{before:?}"
        );
        self.down.store(false, Ordering::SeqCst);
        tokio::time::sleep(10 * SECOND).await;
        self.store.look(&name).await.unwrap()
    }
}

fn key() -> IdempotencyKey {
    IdempotencyKey::of(&request("{}"))
}

fn always(step: Step) -> ScriptedUpstream {
    ScriptedUpstream::new(move |_| step.clone())
}

/// Red when the progress of the second store does not end the first one's lease:
/// it is then released.
#[tokio::test(start_paused = true)]
async fn an_outcome_reaches_the_lease_that_the_store_holds() {
    let setting = setting(always(Step::ok("{}").after(SECOND))).await;
    let reply = setting.engine.execute(request("{}")).await.unwrap();
    assert!(!reply.recorded());
    let state = setting.record().await;
    assert!(
        matches!(state, Some(RecordState::Cached { .. })),
        "{state:?}"
    );
}

/// Red when the progress of the second store does not end the first one's lease:
/// nobody who waits elsewhere is told.
#[tokio::test(start_paused = true)]
async fn a_refusal_is_released_and_not_recorded() {
    let setting = setting(always(Step::status(403, "{}").after(SECOND))).await;
    let reply = setting.engine.execute(request("{}")).await.unwrap();
    assert_eq!((reply.status().as_u16(), reply.recorded()), (403, false));
    let state = setting.record().await;
    assert!(
        matches!(
            state,
            Some(RecordState::Released {
                verdict: Some(Refusal::Refused(_)),
                ..
            })
        ),
        "{state:?}"
    );
}

/// Red when the progress of the second store does not end the first one's lease:
/// it is then released for a request that may have been executed, and any other
/// process sends it again.
#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_is_held_in_both_and_settled_in_both() {
    for resolution in [
        Resolution::NotApplied,
        Resolution::Applied(Outcome::new(StatusCode::OK, Default::default(), "found")),
    ] {
        let setting = setting(always(Step::Reset)).await;
        let Setting {
            engine, upstream, ..
        } = &setting;
        let error = engine.execute(request("{}")).await.unwrap_err();
        assert!(matches!(error, Error::Indeterminate { .. }), "{error}");
        // Known here while the store is down.
        let state = engine.inspect(&key()).await.unwrap();
        assert!(
            matches!(state, Some(RecordState::Indeterminate { .. })),
            "{state:?}"
        );
        let state = setting.record().await;
        assert!(
            matches!(state, Some(RecordState::Indeterminate { .. })),
            "{state:?}"
        );
        assert_eq!(engine.unresolved(10).await.unwrap().len(), 1);
        tokio::time::sleep(100 * SECOND).await;
        engine.resolve(&key(), resolution.clone()).await.unwrap();
        assert_eq!(engine.unresolved(10).await.unwrap(), []);
        let name = RecordName::new(engine.namespace().clone(), key());
        let there = setting.store.look(&name).await.unwrap().unwrap();
        let answer = engine.execute(request("{}")).await;
        match resolution {
            Resolution::NotApplied => {
                assert!(matches!(there, RecordState::Released { .. }), "{there:?}");
                answer.unwrap_err();
                assert_eq!(upstream.ledger().total(), 2);
            }
            _ => {
                assert!(matches!(there, RecordState::Cached { .. }), "{there:?}");
                assert_eq!(answer.unwrap().body().as_ref(), b"found");
                assert_eq!(upstream.ledger().total(), 1);
            }
        }
    }
}

/// Red without the second store in `inspect`, `resolve`, `unresolved` and
/// `forget`: the store knows nothing of it, and nobody could settle the key. Red
/// too when a request does not ask the second store first: with the store back,
/// the same process calls twice.
#[tokio::test(start_paused = true)]
async fn what_only_this_process_knows_can_be_settled_while_the_store_is_down() {
    let upstream = ScriptedUpstream::new(|call| match call.request().payload().as_ref() {
        b"{}" => Step::Reset,
        _ => Step::ok("{}"),
    });
    let down = Arc::new(AtomicBool::new(true));
    let dead = FaultyStore::new(MemoryStore::new(), {
        let down = down.clone();
        move |_| match down.load(Ordering::SeqCst) {
            true => Fault::Fail,
            false => Fault::Pass,
        }
    });
    let engine = Engine::builder(upstream.clone())
        .store(dead)
        .on_store_down(OnStoreDown::FailOpen)
        .recent(0, SECOND)
        .start()
        .await
        .unwrap();
    // The breaker opens: from here on nothing is sent to the store, so no flight
    // has a lease to give back.
    engine.execute(request("[0]")).await.unwrap();
    assert!(!engine.stats().store_up);
    engine.execute(request("{}")).await.unwrap_err();
    until("the flight has ended", || engine.stats().executions == 1).await;
    let found = Outcome::new(StatusCode::OK, Default::default(), "found");
    engine
        .resolve(&key(), Resolution::Applied(found))
        .await
        .unwrap();
    let reply = engine.execute(request("{}")).await.unwrap();
    assert_eq!(
        (reply.body().as_ref(), reply.recorded()),
        (&b"found"[..], false)
    );
    assert_eq!(reply.served(), Served::Store);
    // Whether another process has it recorded cannot be said.
    let error = engine.forget(&key()).await.unwrap_err();
    assert!(matches!(error, Error::StoreUnavailable { .. }), "{error}");

    // With the store back, what was executed without it stays known here.
    engine.execute(request("[1]")).await.unwrap();
    down.store(false, Ordering::SeqCst);
    tokio::time::sleep(10 * SECOND).await;
    let other = IdempotencyKey::of(&request("[1]"));
    let state = engine.inspect(&other).await.unwrap();
    assert!(
        matches!(state, Some(RecordState::Cached { .. })),
        "{state:?}"
    );
    let replay = engine.execute(request("[1]")).await.unwrap();
    assert_eq!((replay.served(), replay.recorded()), (Served::Store, false));
    assert_eq!(upstream.ledger().total(), 3);
    assert!(engine.forget(&other).await.unwrap());
    assert!(!engine.forget(&other).await.unwrap());
    assert!(engine.execute(request("[1]")).await.unwrap().recorded());
    assert_eq!(upstream.ledger().total(), 4);
}

/// Red when the progress of the second store does not end the first one's lease.
#[tokio::test(start_paused = true)]
async fn a_kill_without_the_store_is_known_to_the_store_in_the_end() {
    let setting = setting(always(Step::ok("{}").after(20 * SECOND))).await;
    let caller = tokio::spawn({
        let engine = setting.engine.clone();
        async move { engine.execute(request("{}")).await }
    });
    setting.upstream.ledger().wait_for(1).await;
    child(&setting.engine, 1).kill();
    let error = caller.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Crashed { .. }), "{error}");
    let state = setting.record().await;
    assert!(
        matches!(state, Some(RecordState::Indeterminate { .. })),
        "{state:?}"
    );
    // And to this process at once: nobody sends it again.
    let error = setting.engine.execute(request("{}")).await.unwrap_err();
    assert!(matches!(error, Error::Indeterminate { .. }), "{error}");
    assert_eq!(setting.upstream.ledger().total(), 1);
}

/// Red when the hook's resolution goes to the store only, when the outcome that
/// it found does not end the store's lease, and when taking the key anew forgets
/// that it was unproven.
#[tokio::test(start_paused = true)]
async fn the_hook_decides_without_the_store_too() {
    let upstream = always(Step::Reset);
    let (store, down) = (MemoryStore::new(), Arc::new(AtomicBool::new(true)));
    let faulty = FaultyStore::new(store.clone(), {
        let down = down.clone();
        move |operation| match operation.event {
            _ if !down.load(Ordering::SeqCst) => Fault::Pass,
            Some(Event::Acquire { .. }) if operation.number == 1 => Fault::LoseReply,
            _ => Fault::Fail,
        }
    });
    let engine = Engine::builder(upstream.clone())
        .store(faulty)
        .on_store_down(OnStoreDown::FailOpen)
        .reconcile(|_, _| async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let found = Outcome::new(StatusCode::OK, Default::default(), "found");
            Some(Resolution::Applied(found))
        })
        .start()
        .await
        .unwrap();
    let setting = Setting {
        engine,
        upstream,
        store,
        down,
    };
    let reply = setting.engine.execute(request("{}")).await.unwrap();
    assert_eq!(reply.body().as_ref(), b"found");
    let state = setting.record().await;
    assert!(
        matches!(state, Some(RecordState::Cached { .. })),
        "{state:?}"
    );
    assert_eq!(setting.upstream.ledger().total(), 1);
}

/// Red when a doubt is forgotten while the hook settles it: a store that goes
/// down in between then had the request sent again under `FailOpen`, and under
/// `FailClosed` the caller told that nothing was sent.
#[tokio::test(start_paused = true)]
async fn a_store_that_goes_down_while_the_hook_settles_leaves_the_doubt() {
    let abandoned = |event: &Event| matches!(event, Event::Abandon { .. });
    let resolved = |event: &Event| matches!(event, Event::Resolve { .. });
    for (on_store_down, last, told) in [
        (
            OnStoreDown::FailOpen,
            abandoned as fn(&Event) -> bool,
            "indeterminate",
        ),
        (OnStoreDown::FailOpen, resolved, "indeterminate"),
        (OnStoreDown::FailClosed, abandoned, "indeterminate"),
        // What the hook said is in the store, and asking again gets it.
        (OnStoreDown::FailClosed, resolved, "store_unavailable"),
    ] {
        let (upstream, store) = (always(Step::Reset), MemoryStore::new());
        let down = Arc::new(AtomicBool::new(false));
        let once = AtomicBool::new(true);
        let faulty = FaultyStore::new(store.clone(), {
            let down = down.clone();
            move |operation| {
                if down.load(Ordering::SeqCst) {
                    return Fault::Fail;
                }
                if operation.event.is_some_and(last) && once.swap(false, Ordering::SeqCst) {
                    down.store(true, Ordering::SeqCst);
                }
                Fault::Pass
            }
        });
        let engine = Engine::builder(upstream.clone())
            .store(faulty)
            .on_store_down(on_store_down)
            .reconcile(|_, _| async {
                let found = Outcome::new(StatusCode::OK, Default::default(), "found");
                Some(Resolution::Applied(found))
            });
        let engine = engine.start().await.unwrap();
        let answer = engine.execute(request("{}")).await;
        assert_eq!(upstream.ledger().total(), 1, "{on_store_down:?}, {told}");
        let error = answer.unwrap_err();
        assert_eq!(error.code(), told, "{on_store_down:?}: {error}");
        down.store(false, Ordering::SeqCst);
        tokio::time::sleep(10 * SECOND).await;
        let reply = engine.execute(request("{}")).await.unwrap();
        assert_eq!(reply.body(), "found");
        assert_eq!(upstream.ledger().total(), 1, "{on_store_down:?}, {told}");
    }
}
