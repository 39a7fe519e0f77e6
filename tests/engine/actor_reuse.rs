//! Flight actors run one flight after the other. Their number follows the load, and every
//! caller gets an answer however an actor ends.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::FutureExt as _;
use genesys_once::testing::{ScriptedUpstream, Step};
use genesys_once::{Engine, Error, IdempotencyKey, MemoryStore, Reply};
use ractor::{ActorCell, ActorStatus};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::{SECOND, child, request, until};

fn answering() -> ScriptedUpstream {
    ScriptedUpstream::new(|call| match &call.body()[..] {
        b"\"panic\"" => Step::Panic,
        b"\"slow\"" => Step::ok("{}").after(5 * SECOND),
        _ => Step::ok("{}").after(SECOND / 10),
    })
}

fn ask(engine: &Engine, payload: &str) -> JoinHandle<Result<Reply, Error>> {
    let (engine, request) = (engine.clone(), request(payload));
    tokio::spawn(async move { engine.execute(request).await })
}

fn actors(engine: &Engine) -> Vec<ActorCell> {
    engine.actor().get_cell().get_children()
}

/// Executes this many new keys at once; each is answered.
async fn at_once(engine: &Engine, name: &str, keys: usize) {
    let callers = (0..keys).map(|n| ask(engine, &format!("[\"{name}\", {n}]")));
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap().unwrap();
    }
}

/// Red if each key has an actor of its own.
#[tokio::test(start_paused = true)]
async fn sequential_keys_share_one_actor() {
    let upstream = answering();
    let engine = Engine::builder(upstream.clone()).start().await.unwrap();
    let mut ids = BTreeSet::new();
    for n in 0..20 {
        at_once(&engine, &format!("{n}"), 1).await;
        ids.insert(child(&engine, 1).get_id().pid());
    }
    assert_eq!((ids.len(), upstream.ledger().total()), (1, 20));
}

/// I9. Red if unused actors stay on the stack, and if used actors leave it.
#[tokio::test(start_paused = true)]
async fn number_of_idle_actors_follows_the_load() {
    let engine = Engine::builder(answering()).max_in_flight(100);
    let engine = engine.start().await.unwrap();
    at_once(&engine, "burst", 50).await;
    assert_eq!(actors(&engine).len(), 50);
    let mut needed = BTreeSet::new();
    for second in 0..60 {
        at_once(&engine, &format!("{second}"), 3).await;
        sleep(SECOND).await;
        if second >= 20 {
            assert_eq!(actors(&engine).len(), 3);
            needed.extend(actors(&engine).iter().map(|actor| actor.get_id().pid()));
        }
    }
    assert_eq!(needed.len(), 3, "the three actors that the load needs stay");
    // A second burst is answered like the first burst.
    at_once(&engine, "again", 50).await;
    assert_eq!(actors(&engine).len(), 50);
    sleep(21 * SECOND).await;
    assert_eq!(actors(&engine).len(), 0);
    at_once(&engine, "after", 1).await;
}

/// Red if a flight that a dead actor does not take is dropped.
#[tokio::test(start_paused = true)]
async fn killed_idle_actor_costs_no_answer() {
    let upstream = answering();
    let engine = Engine::builder(upstream.clone()).start().await.unwrap();
    at_once(&engine, "first", 3).await;
    let dead = actors(&engine);
    dead.iter().for_each(ActorCell::kill);
    until("all actors are dead", || actors(&engine).is_empty()).await;
    at_once(&engine, "second", 5).await;
    assert_eq!(upstream.ledger().total(), 8);
    // The actor is dead, and the engine has not noticed its death yet.
    child(&engine, 5);
    actors(&engine).iter().for_each(ActorCell::kill);
    let answer = ask(&engine, "\"third\"").await.unwrap();
    assert!(answer.is_ok(), "{answer:?}");
}

/// I3: a flight that an actor received and did not begin. Red if the flight waits in a
/// channel that outlives its actor.
#[tokio::test(start_paused = true)]
async fn actor_that_dies_before_it_begins_answers() {
    let upstream = answering();
    let engine = Engine::builder(upstream.clone()).start().await.unwrap();
    at_once(&engine, "first", 1).await;
    let actor = child(&engine, 1);
    let mut asked = Box::pin(engine.execute(request("{}")));
    // One poll gives the flight to the actor; the actor has not run since.
    assert!(asked.as_mut().now_or_never().is_none());
    actor.kill();
    let answer = timeout(3600 * SECOND, asked);
    let error = answer.await.expect("an answer").unwrap_err();
    assert!(matches!(error, Error::Crashed { .. }), "{error}");
    assert_eq!(upstream.ledger().total(), 1, "nothing was sent");
    until("its actor is gone", || actors(&engine).is_empty()).await;
    assert!(engine.execute(request("{}")).await.is_ok());
    assert_eq!(engine.stats().executions, 0);
}

/// Red if a panic is caught and its actor goes on.
#[tokio::test(start_paused = true)]
async fn flight_after_panic_gets_new_actor() {
    let upstream = answering();
    let engine = Engine::builder(upstream.clone()).start().await.unwrap();
    at_once(&engine, "first", 1).await;
    let actor = child(&engine, 1);
    let error = ask(&engine, "\"panic\"").await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Crashed { .. }), "{error}");
    at_once(&engine, "next", 1).await;
    assert_ne!(child(&engine, 1).get_id(), actor.get_id());
    // The record of the flight that panicked was finished, not the record of an earlier
    // flight.
    let error = ask(&engine, "\"panic\"").await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Indeterminate { .. }), "{error}");
    assert!(ask(&engine, "[\"first\", 0]").await.unwrap().is_ok());
    assert_eq!(upstream.ledger().total(), 3);
}

/// Red if the idle actors do not stop when the engine closes: `shutdown` then waits until
/// the load no longer needs them.
#[tokio::test(start_paused = true)]
async fn shutdown_counts_flights_not_idle_actors() {
    for (grace, finished, cut_off) in [(60, 1, 0), (1, 0, 1)] {
        let engine = Engine::builder(answering()).start().await.unwrap();
        at_once(&engine, "idle", 4).await;
        let caller = ask(&engine, "\"slow\"");
        until("the call is under way", || engine.stats().executions == 1).await;
        let all = actors(&engine);
        assert_eq!(all.len(), 4);
        let begun = Instant::now();
        let drained = engine.shutdown(grace * SECOND).await;
        assert!(begun.elapsed() < 6 * SECOND, "{:?}", begun.elapsed());
        assert_eq!((drained.finished, drained.cut_off), (finished, cut_off));
        assert_eq!(caller.await.unwrap().is_ok(), cut_off == 0);
        assert!(
            all.iter()
                .all(|actor| actor.get_status() == ActorStatus::Stopped)
        );
    }
}

/// An idle actor lives on the runtime that spawned it: no flight is given to an actor whose
/// runtime has ended.
#[test]
fn idle_actors_of_dead_runtime_run_nothing() {
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap()
    };
    let (ours, other) = (runtime(), runtime());
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}"));
    let engine = ours.block_on(Engine::builder(upstream.clone()).start());
    let engine = engine.unwrap();
    // A caller on another runtime, while the engine runs on its own.
    for n in 0..3 {
        let reply = other.block_on(engine.execute(request(&n.to_string())));
        assert!(reply.is_ok(), "{reply:?}");
    }
    drop(ours);
    let answer =
        other.block_on(async { timeout(30 * SECOND, engine.execute(request("{}"))).await });
    let answer = answer.expect("an answer");
    assert!(matches!(answer, Err(Error::Stopped)), "{answer:?}");
    assert_eq!(upstream.ledger().total(), 3);
}

/// I2 and I3 against real threads: actors are killed at any moment, each caller is
/// answered, and each key is sent at most once. Red under the same fault as
/// `actor_that_dies_before_it_begins_answers`.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn kills_at_any_moment_repeat_no_call() {
    const CALLERS: usize = 8;
    const KEYS: usize = 400;
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}"));
    let engine = Engine::builder(upstream.clone()).store(MemoryStore::new());
    let engine = engine.start().await.unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let killer = tokio::spawn({
        let (engine, over) = (engine.clone(), over.clone());
        async move {
            let mut held = Vec::new();
            while !over.load(Ordering::SeqCst) {
                let all = actors(&engine);
                all.iter().for_each(ActorCell::kill);
                // The test keeps the actor cell; that must not keep a flight from its
                // answer.
                held = all;
                tokio::task::yield_now().await;
            }
            held.len()
        }
    });
    let callers = (0..CALLERS).map(|caller| {
        let engine = engine.clone();
        tokio::spawn(async move {
            let mut answered = 0;
            for n in 0..KEYS {
                match engine.execute(request(&format!("[{caller}, {n}]"))).await {
                    Ok(_) | Err(Error::Crashed { .. } | Error::Indeterminate { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
                answered += 1;
            }
            answered
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        let answered = timeout(60 * SECOND, caller).await.expect("an answer");
        assert_eq!(answered.unwrap(), KEYS);
    }
    over.store(true, Ordering::SeqCst);
    killer.await.unwrap();
    let given_back = async {
        while (engine.stats().executions, engine.stats().waiting) != (0, 0) {
            sleep(SECOND / 1000).await;
        }
    };
    timeout(60 * SECOND, given_back)
        .await
        .expect("no execution is left");
    // Every key is free again: another caller of each gets an answer.
    for caller in 0..CALLERS {
        let again = engine.execute(request(&format!("[{caller}, 0]"))).await;
        let ended = again.is_ok() || matches!(again, Err(Error::Indeterminate { .. }));
        assert!(ended, "{again:?}");
    }
    for (caller, n) in (0..CALLERS).flat_map(|caller| (0..KEYS).map(move |n| (caller, n))) {
        let payload = format!("[{caller}, {n}]");
        let calls = upstream
            .ledger()
            .executed(&IdempotencyKey::of(&request(&payload)));
        assert!(calls <= 1, "{payload}: {calls} calls");
    }
    let drained = timeout(60 * SECOND, engine.shutdown(30 * SECOND)).await;
    drained.expect("the engine ends");
}
