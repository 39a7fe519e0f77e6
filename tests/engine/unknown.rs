//! When a request may have been executed: it is held, told, and resolved.

use std::sync::atomic::{AtomicU32, Ordering};

use genesys_once::testing::{ScriptedUpstream, Step};
use genesys_once::{
    Engine, Error, IdempotencyKey, MemoryStore, OnUnknown, Outcome, RecordState, Resolution,
    RetryHint, Served,
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
async fn a_lost_answer_is_held_and_told_to_everybody() {
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
        let unresolved = one.unresolved(10).await.unwrap();
        assert_eq!(unresolved.len(), 1);
        assert_eq!(unresolved[0].0, key());
    }
}

#[tokio::test(start_paused = true)]
async fn a_person_resolves_it() {
    let upstream = first_then_ok(Step::Reset);
    let engine = Engine::builder(upstream.clone()).start().await.unwrap();
    engine.execute(request("{}")).await.unwrap_err();

    // The lost attempt may still be running: attempt time-out plus lease.
    let error = engine
        .resolve(&key(), Resolution::NotApplied)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::NotIndeterminate { .. }), "{error}");
    tokio::time::advance(96 * SECOND).await;
    engine
        .resolve(&key(), Resolution::NotApplied)
        .await
        .unwrap();
    let error = engine
        .resolve(&key(), Resolution::NotApplied)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::NotIndeterminate { .. }), "{error}");
    assert_eq!(
        engine.execute(request("{}")).await.unwrap().served(),
        Served::Upstream
    );
    assert_eq!(upstream.ledger().total(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_outcome_that_was_found_out_is_replayed() {
    let upstream = first_then_ok(Step::Cut);
    let engine = Engine::builder(upstream.clone()).start().await.unwrap();
    engine.execute(request("{}")).await.unwrap_err();
    let found = Outcome::new(
        http::StatusCode::OK,
        http::HeaderMap::new(),
        r#"{"refund":"R-1"}"#,
    );
    engine
        .resolve(&key(), Resolution::Applied(found))
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
async fn a_hook_may_decide_instead_of_a_person() {
    let upstream = first_then_ok(Step::Reset);
    let engine = Engine::builder(upstream.clone())
        .reconcile(|request, error| async move {
            assert_eq!(error.key(), Some(IdempotencyKey::of(&request)));
            let headers = http::HeaderMap::new();
            Some(Resolution::Applied(Outcome::new(
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
async fn a_hook_that_knows_nothing_changes_nothing() {
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

    // Its attempts are bounded, too, and what is left then is not released.
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
async fn an_unproven_attempt_is_never_released_by_a_later_refusal() {
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
