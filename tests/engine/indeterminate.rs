//! A request that might have been executed: its key is indeterminate until it is resolved.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use genesys_once::error::StoreError;
use genesys_once::record::{Event, Namespace, RecordState};
use genesys_once::store::{BoxFuture, ListQuery, Page};
use genesys_once::testing::{Fault, FaultyStore, ScriptedUpstream, Step};
use genesys_once::{
    Engine, Error, IdempotencyKey, MemoryStore, OnUnknown, Outcome, Resolution, RetryHint, Served,
    Store,
};

use super::{SECOND, request};

fn first_then_ok(first: Step) -> ScriptedUpstream {
    let calls = AtomicU32::new(0);
    ScriptedUpstream::new(move |_| match calls.fetch_add(1, Ordering::SeqCst) {
        0 => first.clone(),
        _ => Step::ok(r#"{"refund":"R-2"}"#),
    })
}

fn key() -> IdempotencyKey {
    IdempotencyKey::of(&request("{}"))
}

#[tokio::test(start_paused = true)]
async fn lost_answer_makes_key_indeterminate_for_all() {
    for lost in [
        Step::Reset,
        Step::Cut,
        Step::Silent,
        Step::status(500, "{}"),
        Step::status(504, ""),
    ] {
        let upstream = first_then_ok(lost.clone());
        let builder = Engine::builder(upstream.clone()).store(MemoryStore::new());
        let (one, two) = (
            builder.clone().start().await.unwrap(),
            builder.start().await.unwrap(),
        );
        let (first, joined, elsewhere) = tokio::join!(
            one.execute(request("{}")),
            one.execute(request("{}")),
            two.execute(request("{}"))
        );
        let later = one.execute(request("{}")).await;
        for answer in [first, joined, elsewhere, later] {
            let error = answer.unwrap_err();
            assert_eq!(
                (error.hint(), error.key()),
                (RetryHint::Resolve, Some(key())),
                "{lost:?}"
            );
            let Error::Indeterminate { cause, .. } = error else {
                panic!("{lost:?}: {error}")
            };
            assert!(!cause.is_empty());
        }
        assert_eq!(upstream.ledger().total(), 1, "{lost:?}");
        let state = two.inspect(&key()).await.unwrap();
        assert!(
            matches!(state, Some(RecordState::Indeterminate { .. })),
            "{state:?}"
        );
        let open = one.indeterminate(10).await.unwrap().keys;
        assert_eq!(open.len(), 1);
        assert_eq!(open[0].0, key());
    }
}

#[tokio::test(start_paused = true)]
async fn operator_resolves_indeterminate_key() {
    let upstream = first_then_ok(Step::Reset);
    let engine = Engine::builder(upstream.clone()).start().await.unwrap();
    engine.execute(request("{}")).await.unwrap_err();

    // The lost attempt might still be running: attempt time-out plus lease.
    let state = engine.inspect(&key()).await.unwrap().unwrap();
    let error = engine
        .resolve(&key(), &state, Resolution::not_applied())
        .await
        .unwrap_err();
    let Error::TooEarly { wait, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(wait, 96 * SECOND);
    assert_eq!(error.hint(), RetryHint::After(wait));
    tokio::time::advance(97 * SECOND).await;
    engine
        .resolve(&key(), &state, Resolution::not_applied())
        .await
        .unwrap();
    // The same resolution again, as after a lost reply: nothing is left to do.
    engine
        .resolve(&key(), &state, Resolution::not_applied())
        .await
        .unwrap();
    assert_eq!(
        engine.execute(request("{}")).await.unwrap().served(),
        Served::Upstream
    );
    assert_eq!(upstream.ledger().total(), 2);
}

#[tokio::test(start_paused = true)]
async fn resolved_outcome_is_replayed() {
    let upstream = first_then_ok(Step::Cut);
    let engine = Engine::builder(upstream.clone()).start().await.unwrap();
    engine.execute(request("{}")).await.unwrap_err();
    let found = Outcome::new(
        http::StatusCode::OK,
        http::HeaderMap::new(),
        r#"{"refund":"R-1"}"#,
    );
    let state = engine.inspect(&key()).await.unwrap().unwrap();
    engine
        .resolve(&key(), &state, Resolution::applied(found))
        .await
        .unwrap();
    let reply = engine.execute(request("{}")).await.unwrap();
    assert_eq!(
        (reply.served(), reply.body().as_ref()),
        (Served::Store, &br#"{"refund":"R-1"}"#[..])
    );
    assert_eq!(upstream.ledger().total(), 1);
}

#[tokio::test(start_paused = true)]
async fn hook_resolves_instead_of_operator() {
    let upstream = first_then_ok(Step::Reset);
    let engine = Engine::builder(upstream.clone())
        .reconcile(|request, error| async move {
            assert_eq!(error.key(), Some(IdempotencyKey::of(&request)));
            let headers = http::HeaderMap::new();
            Some(Resolution::applied(Outcome::new(
                http::StatusCode::OK,
                headers,
                "found",
            )))
        })
        .start()
        .await
        .unwrap();
    let reply = engine.execute(request("{}")).await.unwrap();
    assert_eq!(reply.body().as_ref(), b"found");
    assert_eq!(upstream.ledger().total(), 1);
}

#[tokio::test(start_paused = true)]
async fn hook_without_result_changes_nothing() {
    let upstream = first_then_ok(Step::Reset);
    let engine = Engine::builder(upstream.clone())
        .reconcile(|_, _| async { None })
        .start()
        .await
        .unwrap();
    for _ in 0..2 {
        let error = engine.execute(request("{}")).await.unwrap_err();
        assert!(matches!(error, Error::Indeterminate { .. }), "{error}");
    }
    assert_eq!(upstream.ledger().total(), 1);
}

/// Red if the hook is called again within one execution.
#[tokio::test(start_paused = true)]
async fn hook_is_called_once_per_execution() {
    let upstream = ScriptedUpstream::new(|_| Step::Reset);
    let asked = Arc::new(AtomicU32::new(0));
    let engine = Engine::builder(upstream.clone())
        .reconcile({
            let asked = asked.clone();
            move |_, _| {
                let nth = asked.fetch_add(1, Ordering::SeqCst);
                // Nothing is known of the first execution.
                async move { (nth > 0).then_some(Resolution::not_applied()) }
            }
        })
        .start()
        .await
        .unwrap();
    engine.execute(request("{}")).await.unwrap_err();
    tokio::time::sleep(100 * SECOND).await;
    // The hook resolves the key; the request is sent again and lost again.
    engine.execute(request("{}")).await.unwrap_err();
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    assert_eq!(upstream.ledger().total(), 2);
}

#[tokio::test(start_paused = true)]
async fn at_least_once_is_a_choice() {
    let upstream = first_then_ok(Step::Reset);
    let engine = Engine::builder(upstream.clone())
        .on_unknown(OnUnknown::Retry)
        .start()
        .await
        .unwrap();
    let reply = engine.execute(request("{}")).await.unwrap();
    assert_eq!(reply.body().as_ref(), br#"{"refund":"R-2"}"#);
    assert_eq!(upstream.ledger().total(), 2);

    // Its attempts are bounded, too. A key that is still indeterminate then is not
    // released.
    let upstream = ScriptedUpstream::new(|_| Step::Reset);
    let engine = Engine::builder(upstream.clone())
        .on_unknown(OnUnknown::Retry)
        .start()
        .await
        .unwrap();
    let error = engine.execute(request("{}")).await.unwrap_err();
    assert!(matches!(error, Error::Indeterminate { .. }), "{error}");
    assert_eq!(upstream.ledger().total(), 3);
}

#[tokio::test(start_paused = true)]
async fn later_refusal_never_releases_unknown_outcome() {
    let calls = AtomicU32::new(0);
    let upstream = ScriptedUpstream::new(move |_| match calls.fetch_add(1, Ordering::SeqCst) {
        0 => Step::Reset,
        _ => Step::status(403, "{}"),
    });
    let engine = Engine::builder(upstream.clone())
        .on_unknown(OnUnknown::Retry)
        .start()
        .await
        .unwrap();
    let error = engine.execute(request("{}")).await.unwrap_err();
    assert!(matches!(error, Error::Indeterminate { .. }), "{error}");
    let state = engine.inspect(&key()).await.unwrap();
    assert!(
        matches!(state, Some(RecordState::Indeterminate { .. })),
        "{state:?}"
    );
}

/// Red if the store's failure is returned instead: its hint is to retry, and the first
/// attempt might have been executed.
#[tokio::test(start_paused = true)]
async fn outage_between_attempts_keeps_unknown_outcome() {
    let upstream = first_then_ok(Step::Reset);
    let (store, down) = (MemoryStore::new(), Arc::new(AtomicBool::new(false)));
    let broken = FaultyStore::new(store.clone(), {
        let down = down.clone();
        move |_| match down.load(Ordering::SeqCst) {
            true => Fault::Fail,
            false => Fault::Pass,
        }
    });
    let engine = Engine::builder(upstream.clone())
        .store(broken)
        .on_unknown(OnUnknown::Retry)
        .lease(SECOND)
        .store_timeout(SECOND)
        .start()
        .await
        .unwrap();
    let caller = tokio::spawn({
        let engine = engine.clone();
        async move { engine.execute(request("{}")).await }
    });
    upstream.ledger().wait_for(1).await;
    down.store(true, Ordering::SeqCst);
    let error = caller.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Indeterminate { .. }), "{error}");
    assert_eq!(upstream.ledger().total(), 1);
    down.store(false, Ordering::SeqCst);
    tokio::time::sleep(20 * SECOND).await;
    let state = engine.inspect(&key()).await.unwrap();
    assert!(
        matches!(state, Some(RecordState::Indeterminate { .. })),
        "{state:?}"
    );
}

/// Red without the deadline of the list.
#[tokio::test(start_paused = true)]
async fn endless_list_page_times_out() {
    struct Endless(MemoryStore);

    impl Store for Endless {
        delegate!(0: apply, look);

        fn list<'a>(
            &'a self,
            _: &'a Namespace,
            _: &'a ListQuery,
        ) -> BoxFuture<'a, Result<Page, StoreError>> {
            Box::pin(std::future::pending())
        }
    }

    let engine = Engine::builder(first_then_ok(Step::Reset))
        .store(Endless(MemoryStore::new()))
        .start()
        .await
        .unwrap();
    let listed = tokio::time::timeout(3600 * SECOND, engine.indeterminate(10)).await;
    let error = listed.expect("an answer").unwrap_err();
    assert!(matches!(error, Error::StoreUnavailable { .. }), "{error}");
}

/// Red with the error of `resolve` instead of `Error::Indeterminate` in
/// `Driver::reconcile`: if the store failed in between, the caller's error said that
/// nothing was sent.
#[tokio::test(start_paused = true)]
async fn outage_during_hook_keeps_key_indeterminate() {
    let abandoned = |event: &Event| matches!(event, Event::Abandon { .. });
    let resolved = |event: &Event| matches!(event, Event::Resolve { .. });
    for (last, code) in [
        (abandoned as fn(&Event) -> bool, "indeterminate"),
        // The hook's resolution is in the store; the next request replays it.
        (resolved, "store_unavailable"),
    ] {
        let upstream = ScriptedUpstream::new(|_| Step::Reset);
        let down = Arc::new(AtomicBool::new(false));
        let once = AtomicBool::new(true);
        let faulty = FaultyStore::new(MemoryStore::new(), {
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
            .reconcile(|_, _| async {
                let found = Outcome::new(http::StatusCode::OK, Default::default(), "found");
                Some(Resolution::applied(found))
            });
        let engine = engine.start().await.unwrap();
        let error = engine.execute(request("{}")).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        down.store(false, Ordering::SeqCst);
        tokio::time::sleep(10 * SECOND).await;
        let reply = engine.execute(request("{}")).await.unwrap();
        assert_eq!(reply.body(), "found");
        assert_eq!(upstream.ledger().total(), 1, "{code}");
    }
}
