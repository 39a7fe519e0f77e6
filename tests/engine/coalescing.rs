//! What a caller gets from a flight of its key: with another payload, after the answer, after
//! a `forget`. Also how much of the outcome stays in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use genesys_once::record::Event;
use genesys_once::testing::{Fault, FaultyStore, ScriptedUpstream, Step};
use genesys_once::{
    DataActionRequest, Engine, EngineMessage, Error, IdempotencyKey, MemoryStore, Reply, Served,
};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::outage::{faulty, switch};
use super::{SECOND, request, until};

type Answer = Result<Reply, Error>;

fn ok() -> ScriptedUpstream {
    ScriptedUpstream::new(|_| Step::ok("{}"))
}

fn mine(payload: &str) -> DataActionRequest {
    request(payload).with_key("refund-1").unwrap()
}

fn ask(engine: &Engine, request: DataActionRequest) -> JoinHandle<Answer> {
    let engine = engine.clone();
    tokio::spawn(async move { engine.execute(request).await })
}

fn ask_by_message(engine: &Engine, request: DataActionRequest) -> JoinHandle<Answer> {
    let (reply, asked) = ractor::concurrency::oneshot();
    let message = EngineMessage::Execute(request, reply.into());
    engine.actor().send_message(message).unwrap();
    tokio::spawn(async move { asked.await.unwrap() })
}

/// I6. Red if a flight's fingerprint decides for others before the store has confirmed the
/// key's fingerprint: the key's owner was refused because of another caller's mistake.
#[tokio::test(start_paused = true)]
async fn key_owner_survives_another_callers_mistake() {
    type Ask = fn(&Engine, DataActionRequest) -> JoinHandle<Answer>;
    for ask in [ask as Ask, ask_by_message] {
        let (upstream, store) = (ok(), MemoryStore::new());
        let builder = Engine::builder(upstream.clone());
        let elsewhere = builder.clone().store(store.clone()).start().await.unwrap();
        let first = elsewhere.execute(mine("[1]")).await.unwrap();
        // A store that is slow in both directions.
        let slow = FaultyStore::new(store, |_| {
            Fault::After(SECOND / 20, Box::new(Fault::Late(SECOND / 20)))
        });
        let engine = builder.store(slow).start().await.unwrap();
        let wrong = ask(&engine, mine("[2]"));
        until("an execution is under way", || {
            engine.stats().executions == 1
        })
        .await;
        let right = ask(&engine, mine("[1]"));
        until("the other one waits", || engine.stats().waiting == 2).await;
        let refused = wrong.await.unwrap().unwrap_err();
        assert!(
            matches!(refused, Error::PayloadMismatch { .. }),
            "{refused}"
        );
        // The owner is served right after the flight, too.
        let again = ask(&engine, mine("[1]"));
        for caller in [right, again] {
            let reply = caller.await.unwrap().unwrap();
            assert_eq!(reply.body(), first.body());
        }
        assert_eq!(upstream.ledger().total(), 1);
        assert_eq!(engine.stats().waiting, 0);
    }
}

/// I6. Red if memory refuses: another process has forgotten the outcome in memory, and the
/// key rightfully belongs to another request.
#[tokio::test(start_paused = true)]
async fn forgotten_outcome_in_memory_refuses_no_request() {
    let upstream = ScriptedUpstream::new(|call| Step::ok(call.request().payload().clone()));
    let builder = Engine::builder(upstream.clone()).store(MemoryStore::new());
    let (here, elsewhere) = (
        builder.clone().start().await.unwrap(),
        builder.start().await.unwrap(),
    );
    here.execute(mine("[1]")).await.unwrap();
    let key = IdempotencyKey::of(&mine("[1]"));
    assert_eq!(
        elsewhere.forget(&key).await.unwrap(),
        genesys_once::engine::Forgotten::Outcome
    );
    elsewhere.execute(mine("[2]")).await.unwrap();
    let reply = here.execute(mine("[2]")).await.unwrap();
    assert_eq!(
        (reply.body(), reply.served()),
        (&"[2]"[..].into(), Served::Store)
    );
    let refused = here.execute(mine("[1]")).await.unwrap_err();
    assert!(
        matches!(refused, Error::PayloadMismatch { .. }),
        "{refused}"
    );
    assert_eq!(upstream.ledger().total(), 2);
}

/// Red if a claim is never confirmed: the other caller waits for the whole flight.
#[tokio::test(start_paused = true)]
async fn other_payload_of_locked_key_is_refused() {
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}").after(60 * SECOND));
    let slow = FaultyStore::new(MemoryStore::new(), |_| Fault::Late(SECOND / 20));
    let engine = Engine::builder(upstream.clone()).store(slow);
    let engine = engine.start().await.unwrap();
    let start = Instant::now();
    let first = ask(&engine, mine("[1]"));
    until("an execution is under way", || {
        engine.stats().executions == 1
    })
    .await;
    let error = engine.execute(mine("[2]")).await.unwrap_err();
    assert!(matches!(error, Error::PayloadMismatch { .. }), "{error}");
    assert!(start.elapsed() < SECOND, "{:?}", start.elapsed());
    first.await.unwrap().unwrap();
    assert_eq!(upstream.ledger().total(), 1);
}

/// A caller that follows another request's flight keeps its own deadline. It leaves nothing
/// behind.
#[tokio::test(start_paused = true)]
async fn follower_keeps_its_own_deadline() {
    let hanging = Fault::After(3600 * SECOND, Box::new(Fault::Fail));
    let store = FaultyStore::new(MemoryStore::new(), move |_| hanging.clone());
    let engine = Engine::builder(ok()).store(store).start().await.unwrap();
    let first = ask(&engine, mine("[1]"));
    until("an execution is under way", || {
        engine.stats().executions == 1
    })
    .await;
    let error = engine.execute_within(mine("[2]"), SECOND).await;
    assert!(
        matches!(error, Err(Error::DeadlineExceeded { .. })),
        "{error:?}"
    );
    let leaving = ask(&engine, mine("[2]"));
    until("the follower waits", || engine.stats().waiting == 2).await;
    leaving.abort();
    until("the follower's place is free", || {
        engine.stats().waiting == 1
    })
    .await;
    first.await.unwrap().unwrap_err();
}

/// Red if an answered flight with an unfinished record gives its refusal to later callers:
/// they got the refusal for as long as the store was down.
#[tokio::test(start_paused = true)]
async fn later_callers_get_no_old_refusal() {
    let calls = AtomicUsize::new(0);
    let upstream = ScriptedUpstream::new(move |_| match calls.fetch_add(1, Ordering::SeqCst) {
        0 => Step::status(403, "{}"),
        _ => Step::ok("{}"),
    });
    let (down, released) = (Arc::new(AtomicBool::new(false)), AtomicBool::new(false));
    let store = FaultyStore::new(MemoryStore::new(), {
        let down = down.clone();
        move |operation| {
            if let Some(Event::Release { .. }) = operation.event
                && !released.swap(true, Ordering::SeqCst)
            {
                down.store(true, Ordering::SeqCst);
            }
            match down.load(Ordering::SeqCst) {
                true => Fault::Fail,
                false => Fault::Pass,
            }
        }
    });
    let engine = Engine::builder(upstream.clone()).store(store);
    let engine = engine.start().await.unwrap();
    let refused = engine.execute(mine("[1]")).await.unwrap();
    assert_eq!(
        (refused.status().as_u16(), refused.recorded()),
        (403, false)
    );
    for hours in [0, 1, 12] {
        sleep(hours * 3600 * SECOND).await;
        // The key is free for any request as soon as the store answers.
        for payload in ["[1]", "[2]"] {
            let start = Instant::now();
            let error = engine.execute(mine(payload)).await.unwrap_err();
            assert!(matches!(error, Error::StoreUnavailable { .. }), "{error}");
            assert!(start.elapsed() < 5 * SECOND, "{:?}", start.elapsed());
        }
    }
    assert_eq!(upstream.ledger().total(), 1);
    down.store(false, Ordering::SeqCst);
    sleep(20 * SECOND).await;
    let reply = engine.execute(mine("[2]")).await.unwrap();
    assert_eq!(
        (reply.status().as_u16(), reply.served()),
        (200, Served::Upstream)
    );
}

/// Red if a flight puts its outcome into memory although the outcome was forgotten while
/// the flight was under way.
#[tokio::test(start_paused = true)]
async fn outcome_forgotten_before_reply_is_not_replayed() {
    let (upstream, on) = (ok(), switch());
    let late = faulty(&MemoryStore::new(), &on, |operation| {
        match operation.event {
            Some(Event::Complete { .. }) => Fault::Late(SECOND / 2),
            _ => Fault::Pass,
        }
    });
    let engine = Engine::builder(upstream.clone()).store(late);
    let engine = engine.start().await.unwrap();
    let first = ask(&engine, request("{}"));
    upstream.ledger().wait_for(1).await;
    sleep(SECOND / 4).await;
    let key = IdempotencyKey::of(&request("{}"));
    assert_eq!(
        engine.forget(&key).await.unwrap(),
        genesys_once::engine::Forgotten::Outcome
    );
    // The second caller neither joins the flight nor is served from memory later.
    let at_once = ask(&engine, request("{}"));
    first.await.unwrap().unwrap();
    assert_eq!(at_once.await.unwrap().unwrap().served(), Served::Upstream);
    assert_eq!(upstream.ledger().total(), 2);
}

/// I9. Red if recent outcomes leave memory only when new outcomes arrive: the last outcomes
/// of an idle process stayed in memory. (The store here holds none of them.)
#[cfg(feature = "encrypted")]
#[tokio::test(start_paused = true)]
async fn idle_process_evicts_expired_outcomes() {
    use genesys_once::{Encrypted, EncryptionKeys};

    let keys = EncryptionKeys::new("k1", [7; 32]).unwrap();
    let engine = Engine::builder(ok()).store(Encrypted::new(MemoryStore::new(), keys));
    let engine = engine.recent(1 << 20, SECOND).start().await.unwrap();
    let mut outcomes = Vec::new();
    for n in 0..10 {
        let reply = engine.execute(request(&n.to_string())).await.unwrap();
        outcomes.push(Arc::downgrade(reply.outcome()));
    }
    until("all records are finished", || {
        engine.stats().executions == 0
    })
    .await;
    assert!(outcomes.iter().all(|outcome| outcome.strong_count() > 0));
    sleep(3 * SECOND).await;
    assert!(outcomes.iter().all(|outcome| outcome.strong_count() == 0));
}

/// Red without a yield in `execute`, and in the commands of a store. On a runtime of one
/// thread, a caller with immediate answers keeps all other tasks from running, heartbeats
/// included.
#[tokio::test]
async fn immediate_answers_let_other_tasks_run() {
    let engine = Engine::builder(ok()).start().await.unwrap();
    engine.execute(mine("[1]")).await.unwrap();
    let ran = Arc::new(AtomicUsize::new(0));
    let other = tokio::spawn({
        let ran = ran.clone();
        async move {
            loop {
                ran.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        }
    });
    let key = IdempotencyKey::of(&mine("[1]"));
    for what in ["replay", "refusal", "look"] {
        ran.store(0, Ordering::Relaxed);
        for _ in 0..3_000 {
            match what {
                "replay" => {
                    let reply = engine.execute(mine("[1]")).await.unwrap();
                    assert_eq!(reply.served(), Served::Memory);
                }
                "refusal" => drop(engine.execute(mine("[2]")).await.unwrap_err()),
                _ => drop(engine.inspect(&key).await.unwrap()),
            }
        }
        let ran = ran.load(Ordering::Relaxed);
        assert!(ran > 10, "{what}: {ran} turns of another task");
    }
    other.abort();
}

/// I9. Red if each message gets a task of its own. A mailbox has no bound, so the handler
/// answers the messages that exceed the free places.
#[tokio::test(start_paused = true)]
async fn message_flood_is_answered_at_once() {
    let upstream = ScriptedUpstream::new(|_| Step::Silent);
    let engine = Engine::builder(upstream.clone()).max_waiting(10);
    let engine = engine.start().await.unwrap();
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let (before, most) = (tasks(), Arc::new(AtomicUsize::new(0)));
    let watching = tokio::spawn({
        let most = most.clone();
        async move {
            loop {
                most.fetch_max(tasks(), Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        }
    });
    let asked: Vec<_> = (0..5_000)
        .map(|_| {
            let (reply, asked) = ractor::concurrency::oneshot();
            let message = EngineMessage::Execute(request("{}"), reply.into());
            engine.actor().send_message(message).unwrap();
            asked
        })
        .collect();
    let mut answered = 0;
    let mut asked = FuturesUnordered::from_iter(asked);
    while answered < 5_000 - 9 {
        let error = asked.next().await.unwrap().unwrap().unwrap_err();
        assert!(matches!(error, Error::Overloaded { .. }), "{error}");
        answered += 1;
    }
    watching.abort();
    // One place belongs to the execution. A few tasks run in addition to the callers'
    // tasks.
    assert_eq!(engine.stats().waiting, 9);
    let most = most.load(Ordering::Relaxed) - before;
    assert!(most <= 20, "{most} tasks");
    drop(asked);
    // The reply ports of the waiting callers are dropped.
    sleep(2 * SECOND).await;
    assert_eq!(engine.stats().waiting, 0);
}
