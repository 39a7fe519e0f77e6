//! The engine's end, and deaths in its tree: every waiter gets an answer (I3).

use std::time::Duration;

use genesys_once::record::RecordState;
use genesys_once::testing::{ScriptedTokens, ScriptedUpstream, Step, TokenStep};
use genesys_once::{Engine, EngineMessage, Error, IdempotencyKey, MemoryStore, Reply};
use ractor::{Actor, ActorProcessingErr, ActorRef, ActorStatus};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{SECOND, child, request, until};

fn slow() -> ScriptedUpstream {
    ScriptedUpstream::new(|_| Step::ok("{}").after(10 * SECOND))
}

fn ask(engine: &Engine) -> JoinHandle<Result<Reply, Error>> {
    let engine = engine.clone();
    tokio::spawn(async move { engine.execute(request("{}")).await })
}

async fn answers_of(waiters: Vec<JoinHandle<Result<Reply, Error>>>) -> Vec<&'static str> {
    let mut codes = Vec::new();
    for waiter in waiters {
        // Virtual time: an hour passes at once, unless a caller gets an answer.
        let answer = timeout(3600 * SECOND, waiter)
            .await
            .expect("a waiter was left unanswered");
        codes.push(answer.unwrap().unwrap_err().code());
    }
    codes
}

/// Red without `Drop` of the flight's guard.
#[tokio::test(start_paused = true)]
async fn killed_execution_answers_and_finishes_record() {
    let upstream = slow();
    let engine = Engine::builder(upstream.clone()).start().await.unwrap();
    let waiters = vec![ask(&engine), ask(&engine)];
    upstream.ledger().wait_for(1).await;
    child(&engine, 1).kill();
    assert_eq!(answers_of(waiters).await, ["crashed", "crashed"]);
    // The request was sent: no engine may send it again by itself.
    let error = engine.execute(request("{}")).await.unwrap_err();
    assert!(matches!(error, Error::Indeterminate { .. }), "{error}");
    assert_eq!(upstream.ledger().total(), 1);
}

/// The root waits for the records of its dead children, and no longer. Red if the root gets
/// no report that a record is finished: `shutdown` never returns.
#[tokio::test(start_paused = true)]
async fn engine_stops_after_killed_execution() {
    let upstream = slow();
    let engine = Engine::builder(upstream.clone()).start().await.unwrap();
    let waiters = vec![ask(&engine)];
    upstream.ledger().wait_for(1).await;
    child(&engine, 1).kill();
    assert_eq!(answers_of(waiters).await, ["crashed"]);
    let ended = timeout(3600 * SECOND, engine.shutdown(SECOND)).await;
    assert!(ended.is_ok(), "the engine never stops");
}

#[tokio::test(start_paused = true)]
async fn upstream_panic_is_unknown_outcome() {
    let upstream = ScriptedUpstream::new(|_| Step::Panic);
    let engine = Engine::builder(upstream.clone()).start().await.unwrap();
    assert_eq!(
        answers_of(vec![ask(&engine), ask(&engine)]).await,
        ["crashed", "crashed"]
    );
    let error = engine.execute(request("{}")).await.unwrap_err();
    assert!(matches!(error, Error::Indeterminate { .. }), "{error}");
    // The engine itself lives on.
    assert_eq!(engine.actor().get_status(), ActorStatus::Running);
}

/// Red if neither the answer nor the wait notes in the progress that nothing was executed.
#[tokio::test(start_paused = true)]
async fn execution_killed_while_waiting_is_released() {
    let upstream = ScriptedUpstream::new(|call| match call.attempt() {
        1 => Step::RateLimited(100 * SECOND),
        _ => Step::ok("{}"),
    });
    let engine = Engine::builder(upstream.clone()).start().await.unwrap();
    let waiters = vec![ask(&engine)];
    until("the cooldown has begun", || {
        !engine.stats().cooldown.is_zero()
    })
    .await;
    child(&engine, 1).kill();
    assert_eq!(answers_of(waiters).await, ["crashed"]);
    let key = IdempotencyKey::of(&request("{}"));
    let mut state = engine.inspect(&key).await.unwrap();
    for _ in 0..10_000 {
        if !matches!(state, Some(RecordState::Locked { .. })) {
            break;
        }
        tokio::task::yield_now().await;
        state = engine.inspect(&key).await.unwrap();
    }
    // Released, without a refusal.
    assert_eq!(state, None);
}

/// Red if neither the end of the table nor the drop of the flight's guard answers.
#[tokio::test(start_paused = true)]
async fn killed_root_answers_every_waiter() {
    let upstream = slow();
    let store = MemoryStore::new();
    let builder = Engine::builder(upstream.clone()).store(store);
    let engine = builder.clone().start().await.unwrap();
    let waiters = vec![ask(&engine), ask(&engine)];
    upstream.ledger().wait_for(1).await;
    engine.actor().get_cell().kill();
    assert_eq!(answers_of(waiters).await, ["stopped", "stopped"]);
    assert_eq!(answers_of(vec![ask(&engine)]).await, ["stopped"]);
    let drained = engine.shutdown(SECOND).await;
    assert_eq!((drained.finished, drained.cut_off), (0, 1));

    // The lease expires, and the next process knows that the request might have been sent.
    let next = builder.start().await.unwrap();
    let error = next.execute(request("{}")).await.unwrap_err();
    assert!(matches!(error, Error::Indeterminate { .. }), "{error}");
    assert_eq!(upstream.ledger().total(), 1);
}

struct Above;

#[cfg_attr(feature = "ractor-async-trait", ractor::async_trait)]
impl Actor for Above {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn stopped_supervisor_answers_every_waiter() {
    for kill in [false, true] {
        let upstream = slow();
        let (above, ended) = Actor::spawn(None, Above, ()).await.unwrap();
        let engine = Engine::builder(upstream.clone())
            .start_linked(above.get_cell())
            .await
            .unwrap();
        let waiters = vec![ask(&engine), ask(&engine)];
        upstream.ledger().wait_for(1).await;
        match kill {
            true => above.kill(),
            false => above.stop(None),
        }
        assert_eq!(answers_of(waiters).await, ["stopped", "stopped"]);
        ended.await.unwrap();
        assert_eq!(answers_of(vec![ask(&engine)]).await, ["stopped"]);
    }
}

#[tokio::test(start_paused = true)]
async fn linked_engine_outlives_its_handles() {
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}"));
    let (above, _) = Actor::spawn(None, Above, ()).await.unwrap();
    let engine = Engine::builder(upstream.clone())
        .start_linked(above.get_cell())
        .await
        .unwrap();
    let actor = engine.actor().clone();
    drop(engine);
    let reply = ractor::call_t!(actor, EngineMessage::Execute, 5_000, request("{}"));
    assert!(reply.unwrap().is_ok());
    // A supervisor that is stopping accepts no engine.
    above.stop_and_wait(None, None).await.unwrap();
    let error = Engine::builder(upstream)
        .start_linked(above.get_cell())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Stopped), "{error}");
}

#[tokio::test(start_paused = true)]
async fn shutdown_lets_executions_finish() {
    let upstream = slow();
    let engine = Engine::builder(upstream.clone()).start().await.unwrap();
    let caller = ask(&engine);
    upstream.ledger().wait_for(1).await;
    let (one, two) = tokio::join!(engine.shutdown(60 * SECOND), engine.shutdown(60 * SECOND));
    assert_eq!(one, two);
    assert!(one.is_clean() && one.finished == 1, "{one:?}");
    assert!(caller.await.unwrap().is_ok());
    assert_eq!(answers_of(vec![ask(&engine)]).await, ["stopped"]);
    assert_eq!(engine.shutdown(SECOND).await, one);
}

#[tokio::test(start_paused = true)]
async fn grace_end_answers_waiters_and_finishes_records() {
    let upstream = slow();
    let store = MemoryStore::new();
    let builder = Engine::builder(upstream.clone()).store(store);
    let engine = builder.clone().start().await.unwrap();
    let waiters = vec![ask(&engine), ask(&engine)];
    upstream.ledger().wait_for(1).await;
    let drained = engine.shutdown(SECOND).await;
    assert_eq!((drained.finished, drained.cut_off), (0, 1));
    assert_eq!(answers_of(waiters).await, ["stopped", "stopped"]);
    // At once, not only when the lease expires.
    let key = IdempotencyKey::of(&request("{}"));
    let next = builder.start().await.unwrap();
    let state = next.inspect(&key).await.unwrap();
    assert!(
        matches!(state, Some(RecordState::Indeterminate { .. })),
        "{state:?}"
    );
}

/// Not under virtual time: the last handle goes on a thread without a runtime.
#[test]
fn last_handle_drops_outside_a_runtime() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}"));
    let engine = runtime.block_on(Engine::builder(upstream).start()).unwrap();
    runtime.block_on(engine.execute(request("{}"))).unwrap();
    let root = engine.actor().get_cell();
    std::thread::spawn(move || drop(engine)).join().unwrap();
    // An `ActorRef` that a caller keeps does not keep the engine alive.
    runtime.block_on(async {
        timeout(Duration::from_secs(30), root.wait(None))
            .await
            .unwrap()
            .unwrap();
    });
    assert_eq!(root.get_status(), ActorStatus::Stopped);
    assert_eq!(root.get_children().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn callers_wait_through_token_source_panics() {
    let tokens = ScriptedTokens::new(|fetch| match fetch {
        1 | 2 => TokenStep::Panic,
        _ => TokenStep::Issue(3600 * SECOND),
    });
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}")).with_tokens(tokens.clone());
    let engine = Engine::builder(upstream).start().await.unwrap();
    assert!(engine.execute(request("{}")).await.is_ok());
    assert_eq!(tokens.fetches(), 3);

    let broken = ScriptedTokens::new(|_| TokenStep::Panic);
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}")).with_tokens(broken.clone());
    let engine = Engine::builder(upstream.clone()).start().await.unwrap();
    for _ in 0..2 {
        assert_eq!(answers_of(vec![ask(&engine)]).await, ["token"]);
    }
    assert_eq!((broken.fetches(), upstream.ledger().total()), (3, 0));
}

/// Red with a limit on restarts: after the sixth death no token was fetched.
#[tokio::test(start_paused = true)]
async fn callers_wait_through_token_actor_deaths() {
    const DEATHS: usize = 20;
    let tokens = ScriptedTokens::new(|fetch| match fetch {
        1..=DEATHS => TokenStep::Silent,
        _ => TokenStep::Issue(3600 * SECOND),
    });
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}")).with_tokens(tokens.clone());
    let engine = Engine::builder(upstream.clone()).start().await.unwrap();
    let caller = tokio::spawn({
        let engine = engine.clone();
        async move { engine.execute_within(request("{}"), 3600 * SECOND).await }
    });
    tokens.wait_for(1).await;
    let flight = child(&engine, 2).get_id();
    for death in 1..=DEATHS {
        let fetching = timeout(3600 * SECOND, tokens.wait_for(death));
        fetching.await.expect("the token actor is started again");
        let children = engine.actor().get_cell().get_children();
        let token = children.iter().find(|child| child.get_id() != flight);
        token.expect("the token actor").kill();
    }
    assert!(caller.await.unwrap().is_ok());
    assert_eq!(upstream.ledger().total(), 1);
}
