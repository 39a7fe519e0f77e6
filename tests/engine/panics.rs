//! An execution that dies before it has a lease, and embedder code that panics or never
//! answers.

use std::future::{Future, Ready};
use std::pin::Pin;
use std::task::{Context, Poll};

use genesys_once::testing::{
    Fault, FaultyStore, ScriptedTokens, ScriptedUpstream, Step, TokenStep,
};
use genesys_once::{Engine, IdempotencyKey, MemoryStore, Resolution};
use tokio::time::timeout;

use super::actor_failure::{End, answers_of, ask, end};
use super::{SECOND, child, request, until};

/// Panics before the key is acquired: during the wait for a permit, for a token, for the
/// end of a cooldown, and for another holder's lease.
#[tokio::test(start_paused = true)]
async fn panic_during_each_wait_is_contained() {
    for name in ["permit", "token", "hold", "elsewhere"] {
        let tokens = ScriptedTokens::new(move |fetch| match (name, fetch) {
            ("token", 1) => TokenStep::Silent,
            _ => TokenStep::Issue(3600 * SECOND),
        });
        let upstream = ScriptedUpstream::new(move |call| match call.request().payload().as_ref() {
            b"[1]" if name == "hold" && call.attempt() == 1 => Step::RateLimited(100 * SECOND),
            b"[1]" => Step::ok("{}").after(60 * SECOND),
            _ => Step::ok("{}"),
        });
        let upstream = match name {
            "token" => upstream.with_tokens(tokens.clone()),
            _ => upstream,
        };
        let store = MemoryStore::new();
        let builder = Engine::builder(upstream.clone())
            .max_in_flight(1)
            .store(store.clone());
        let engine = builder.clone().start().await.unwrap();
        let mut actors = 1;
        // The holder that the execution waits for.
        let other = builder.clone().start().await.unwrap();
        let first = match name {
            "token" => None,
            _ => Some(tokio::spawn({
                let by = if name == "elsewhere" { &other } else { &engine }.clone();
                async move { by.execute(request("[1]")).await }
            })),
        };
        if first.is_some() {
            upstream.ledger().wait_for(1).await;
            actors += usize::from(name != "elsewhere");
        } else {
            actors += 1; // the token actor
        }
        if name == "hold" {
            until("the cooldown has begun", || {
                !engine.stats().cooldown.is_zero()
            })
            .await;
        }
        let payload = if name == "elsewhere" { "[1]" } else { "{}" };
        let waiter = tokio::spawn({
            let engine = engine.clone();
            async move { engine.execute(request(payload)).await }
        });
        tokio::time::sleep(SECOND).await;
        assert!(!waiter.is_finished(), "{name}");
        child(&engine, actors).kill();
        assert_eq!(answers_of(vec![waiter], name).await, ["crashed"]);
        let calls = upstream.ledger().total();
        if name == "token" {
            // The fetch is silent for 30 s and then tried again.
            tokio::time::sleep(60 * SECOND).await;
        }
        let reply = engine.execute(request(payload)).await.unwrap();
        assert!(reply.is_success(), "{name}");
        let own = usize::from(name != "elsewhere");
        let theirs = usize::from(name == "hold");
        assert_eq!(upstream.ledger().total(), calls + own + theirs, "{name}");
        if let Some(first) = first {
            let answer = timeout(3600 * SECOND, first).await.unwrap().unwrap();
            assert!(answer.is_ok(), "{name}: {answer:?}");
        }
    }
}

/// A hook's future that never completes, and that panics when it is dropped.
struct PanicsWhenDropped;

impl Future for PanicsWhenDropped {
    type Output = Option<Resolution>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Pending
    }
}

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("the hook's future");
    }
}

/// Embedder code panics: no caller hangs, and a key whose request might have been executed
/// is indeterminate. Red if a panic of `classify` or of the hook ends the execution: each
/// caller of an indeterminate key got `Crashed`, without end.
#[tokio::test(start_paused = true)]
async fn panic_of_embedder_code_is_contained() {
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}"));
    let store = MemoryStore::new();
    let builder = Engine::builder(upstream.clone());
    let reading = builder.clone().store(store.clone()).classify(|_| panic!());
    let engine = reading.start().await.unwrap();
    let answers_now = answers_of(vec![ask(&engine)], "classify").await;
    assert_eq!(answers_now, ["indeterminate"]);
    assert_eq!(end(&store, &upstream, "classify").await, End::Held);

    let lost = ScriptedUpstream::new(|_| Step::Reset);
    let builder = Engine::builder(lost.clone());
    let hooks = [
        builder
            .clone()
            .reconcile(|_, _| async { panic!("the hook") }),
        // A panic before the hook returns a future, and a panic when its future is dropped.
        builder
            .clone()
            .reconcile(|_, _| -> Ready<Option<Resolution>> { panic!("no future") }),
        builder.clone().reconcile(|_, _| PanicsWhenDropped),
    ];
    for (number, hook) in hooks.into_iter().enumerate() {
        let (store, what) = (MemoryStore::new(), format!("hook {number}"));
        let engine = hook.store(store.clone()).start().await.unwrap();
        for _ in 0..3 {
            assert_eq!(
                answers_of(vec![ask(&engine)], &what).await,
                ["indeterminate"]
            );
        }
        assert_eq!(end(&store, &lost, &what).await, End::Held);
    }

    // A hook that never answers: every caller gets what is known.
    let store = MemoryStore::new();
    let hook = Engine::builder(lost.clone())
        .store(store.clone())
        .reconcile(|_, _| std::future::pending());
    let engine = hook.start().await.unwrap();
    assert_eq!(
        answers_of(vec![ask(&engine)], "silence").await,
        ["indeterminate"]
    );
}

/// A panic of the store is a failure of one command, whichever command: it cancels nothing
/// that is under way. Seen red: callers got `Crashed`, even after the platform's answer,
/// and a heartbeat cancelled the request.
#[tokio::test(start_paused = true)]
async fn store_panic_costs_no_caller_its_answer() {
    for step in [Step::RateLimited(5 * SECOND), Step::ok("{}")] {
        for number in 1..=6 {
            let what = format!("{step:?}, command {number}");
            let first = step.clone();
            let upstream = ScriptedUpstream::new(move |call| match call.attempt() {
                1 => first.clone().after(25 * SECOND),
                _ => Step::ok("{}").after(25 * SECOND),
            });
            let broken = FaultyStore::new(MemoryStore::new(), move |operation| {
                assert_ne!(operation.number, number, "the store's script says so");
                Fault::Pass
            });
            let engine = Engine::builder(upstream.clone()).store(broken.clone());
            let engine = engine.start().await.unwrap();
            let reply = engine.execute(request("{}")).await;
            let reply = reply.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(reply.recorded(), "{what}");
            let key = IdempotencyKey::of(&request("{}"));
            assert_eq!(upstream.ledger().executed(&key), 1, "{what}");
        }
    }
}

/// Red if the engine waits for a record that no try will finish.
#[tokio::test(start_paused = true)]
async fn panicking_store_does_not_block_shutdown() {
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}"));
    let broken = FaultyStore::new(MemoryStore::new(), |_| panic!("the store's script says so"));
    let engine = Engine::builder(upstream.clone()).store(broken);
    let engine = engine.start().await.unwrap();
    let answers = answers_of(vec![ask(&engine)], "store").await;
    assert_eq!(answers, ["store_unavailable"]);
    let drained = timeout(3600 * SECOND, engine.shutdown(SECOND)).await;
    assert_eq!(drained.expect("the engine ends").cut_off, 1);
    assert_eq!(upstream.ledger().total(), 0);
}
