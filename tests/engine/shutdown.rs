//! The engine's end while its store is down, and that nothing of it is left behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use genesys_once::error::SendError;
use genesys_once::record::{Event, Namespace};
use genesys_once::store::BoxFuture;
use genesys_once::testing::{
    Fault, FaultyStore, ScriptedTokens, ScriptedUpstream, Step, TokenStep,
};
use genesys_once::upstream::{AccessToken, Call};
use genesys_once::{Engine, EngineMessage, Error, MemoryStore, Outcome, Upstream};
use ractor::rpc::CallResult;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::actor_failure::{End, answers_of, ask, end};
use super::{SECOND, request, until};

/// A store that hangs once the switch is on.
fn hanging(store: &MemoryStore, on: &Arc<AtomicBool>) -> FaultyStore {
    let on = on.clone();
    let never = Fault::After(3600 * SECOND, Box::new(Fault::Fail));
    FaultyStore::new(store.clone(), move |_| match on.load(Ordering::SeqCst) {
        true => never.clone(),
        false => Fault::Pass,
    })
}

/// I3. Red if waiters are answered only after the record was finished, and if a cut-off
/// execution waits for its store to come back.
#[tokio::test(start_paused = true)]
async fn hanging_store_delays_no_waiter_after_grace() {
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}").after(60 * SECOND));
    let (store, on) = (MemoryStore::new(), Arc::new(AtomicBool::new(false)));
    let engine = Engine::builder(upstream.clone()).store(hanging(&store, &on));
    let engine = engine.start().await.unwrap();
    let start = Instant::now();
    let waiter = tokio::spawn({
        let waiter = ask(&engine);
        async move { (waiter.await, start.elapsed()) }
    });
    upstream.ledger().wait_for(1).await;
    on.store(true, Ordering::SeqCst);
    let drained = timeout(3600 * SECOND, engine.shutdown(5 * SECOND)).await;
    let ended = start.elapsed();
    assert_eq!(drained.expect("the engine ends").cut_off, 1);
    let (answer, answered) = waiter.await.unwrap();
    assert!(matches!(answer.unwrap(), Err(Error::Stopped)));
    assert!(answered < 6 * SECOND, "{answered:?}");
    // One last try, which has the store's own time-out.
    assert!(ended < 8 * SECOND, "{ended:?}");
}

/// The outcome is known and the store is down: callers have their answer, and the engine
/// does not wait for the store beyond the grace period.
///
/// Red if the wait for the store ignores the cut-off.
#[tokio::test(start_paused = true)]
async fn unrecordable_outcome_does_not_delay_shutdown() {
    for back in [true, false] {
        let upstream = ScriptedUpstream::new(|_| Step::ok("{}"));
        let (store, down) = (MemoryStore::new(), Arc::new(AtomicBool::new(true)));
        let broken = FaultyStore::new(store.clone(), {
            let down = down.clone();
            move |operation| match operation.event {
                Some(Event::Complete { .. }) if down.load(Ordering::SeqCst) => Fault::Fail,
                _ => Fault::Pass,
            }
        });
        let engine = Engine::builder(upstream.clone()).store(broken);
        let engine = engine.start().await.unwrap();
        assert!(!engine.execute(request("{}")).await.unwrap().recorded());
        let start = Instant::now();
        let closing = tokio::spawn({
            let engine = engine.clone();
            async move { engine.shutdown(20 * SECOND).await }
        });
        tokio::time::sleep(2 * SECOND).await;
        assert!(!closing.is_finished(), "the shutdown waits for the store");
        down.store(!back, Ordering::SeqCst);
        let drained = timeout(3600 * SECOND, closing).await.unwrap().unwrap();
        assert_eq!(drained.is_clean(), back);
        if back {
            assert_eq!(end(&store, &upstream, "recorded").await, End::Cached);
            assert!(start.elapsed() < 20 * SECOND);
        } else {
            assert!(start.elapsed() < 23 * SECOND, "{:?}", start.elapsed());
        }
    }
}

/// A platform whose answers wait until the test opens the gate.
struct Gated {
    platform: ScriptedUpstream,
    gate: Arc<Semaphore>,
}

impl Upstream for Gated {
    fn namespace(&self) -> Namespace {
        self.platform.namespace()
    }

    fn send<'a>(
        &'a self,
        call: &'a Call,
        token: Option<&'a AccessToken>,
    ) -> BoxFuture<'a, Result<Outcome, SendError>> {
        Box::pin(async move {
            let answer = self.platform.send(call, token).await;
            self.gate.acquire().await.unwrap().forget();
            answer
        })
    }
}

/// Callers by message are answered although the engine ends with the flight: with many
/// callers, the root ends before their answers are under way.
///
/// Red without the delivery in `post_stop`.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn reply_ports_are_answered_before_end() {
    let platform = ScriptedUpstream::new(|_| Step::ok("{}"));
    let gate = Arc::new(Semaphore::new(0));
    let upstream = Gated {
        platform: platform.clone(),
        gate: gate.clone(),
    };
    let engine = Engine::builder(upstream).start().await.unwrap();
    let callers: Vec<_> = (0..2_000)
        .map(|_| {
            let actor = engine.actor().clone();
            let asked = |port| EngineMessage::Execute(request("{}"), port);
            tokio::spawn(async move { actor.call(asked, None).await.unwrap() })
        })
        .collect();
    let deadline = Instant::now() + 30 * SECOND;
    while engine.stats().waiting < 2_000 {
        assert!(Instant::now() < deadline, "the messages do not arrive");
        tokio::time::sleep(SECOND / 100).await;
    }
    let closing = tokio::spawn({
        let engine = engine.clone();
        async move { engine.shutdown(60 * SECOND).await }
    });
    let asked = || engine.execute_within(request("{}"), Duration::ZERO);
    while !matches!(asked().await, Err(Error::Stopped)) {
        tokio::task::yield_now().await;
    }
    gate.add_permits(1);
    assert!(closing.await.unwrap().is_clean());
    for caller in callers {
        match caller.await.unwrap() {
            CallResult::Success(answer) => assert!(answer.is_ok(), "{answer:?}"),
            other => panic!("the reply port was dropped: {other:?}"),
        }
    }
    assert_eq!(platform.ledger().total(), 1);
}

/// Red if ports are not polled for a caller that has left.
#[tokio::test(start_paused = true)]
async fn dropped_message_caller_frees_capacity() {
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}").after(60 * SECOND));
    let engine = Engine::builder(upstream.clone()).start().await.unwrap();
    let ask = || {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let message = EngineMessage::Execute(request("{}"), sender.into());
        engine.actor().send_message(message).unwrap();
        receiver
    };
    let (stays, goes) = (ask(), ask());
    until("both callers wait", || engine.stats().waiting == 2).await;
    drop(goes);
    tokio::time::sleep(2 * SECOND).await;
    let stats = engine.stats();
    assert_eq!((stats.waiting, stats.executions), (1, 1));
    assert!(stays.await.unwrap().is_ok());
    assert_eq!(upstream.ledger().total(), 1);
}

/// Red if the renewal of a token is a timer of ractor's, which outlives its actor: a task
/// is then left behind for two days.
#[test]
fn every_engine_end_leaves_nothing_behind() {
    type Ending = fn(Engine);
    let shut: Ending = |engine| {
        let runtime = Handle::current();
        runtime.spawn(async move { engine.shutdown(SECOND).await });
    };
    let dropped: Ending = |engine| std::thread::spawn(move || drop(engine)).join().unwrap();
    let killed: Ending = |engine| engine.actor().get_cell().kill();
    for (name, finish) in [
        ("shut down", shut),
        ("dropped", dropped),
        ("killed", killed),
    ] {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let tasks = || Handle::current().metrics().num_alive_tasks();
            let tokens = ScriptedTokens::lasting(48 * 3600 * SECOND);
            let slow = ScriptedUpstream::new(|_| Step::ok("{}").after(10 * SECOND));
            let upstream = slow.clone().with_tokens(tokens);
            let engine = Engine::builder(upstream).start().await.unwrap();
            engine.execute(request("[1]")).await.unwrap();
            let root = engine.actor().get_cell();
            let children = root.get_children();
            assert_eq!(children.len(), 2, "the token actor, and an idle one");
            // One call under way, and one caller by message.
            let caller = ask(&engine);
            let (sender, receiver) = tokio::sync::oneshot::channel();
            let message = EngineMessage::Execute(request("{}"), sender.into());
            engine.actor().send_message(message).unwrap();
            slow.ledger().wait_for(2).await;
            assert!(tasks() > 3);
            finish(engine);
            let answered = answers_of(vec![caller], name).await;
            assert_ne!(answered, ["crashed"], "{name}");
            // The caller gets an answer, or its port is dropped: it never hangs.
            let by_message = timeout(3600 * SECOND, receiver).await.unwrap();
            assert_eq!(by_message.is_err(), name == "killed", "{name}");
            let minute = Instant::now() + Duration::from_secs(60);
            while tasks() > 0 && Instant::now() < minute {
                tokio::time::sleep(SECOND).await;
            }
            assert_eq!(tasks(), 0, "{name}: tasks are left behind");
            for actor in children.iter().chain([&root]) {
                assert_eq!(actor.get_status(), ractor::ActorStatus::Stopped, "{name}");
            }
        });
    }
}

/// When `shutdown` returns, the tree has dropped all that it had. If the caller then drops
/// its last handle, the store is gone and its file can be opened.
///
/// Red if the end is reported before the root has dropped its state.
#[test]
fn store_is_free_once_shutdown_returns() {
    /// Keeps the root's last event until this supervisor ends.
    struct Embedder;
    #[cfg_attr(feature = "ractor-async-trait", ractor::async_trait)]
    impl ractor::Actor for Embedder {
        type Msg = ();
        type State = Vec<ractor::SupervisionEvent>;
        type Arguments = ();

        async fn pre_start(
            &self,
            _: ractor::ActorRef<()>,
            (): (),
        ) -> Result<Self::State, ractor::ActorProcessingErr> {
            Ok(Vec::new())
        }

        async fn handle_supervisor_evt(
            &self,
            _: ractor::ActorRef<()>,
            event: ractor::SupervisionEvent,
            kept: &mut Self::State,
        ) -> Result<(), ractor::ActorProcessingErr> {
            kept.push(event);
            Ok(())
        }
    }

    let several = || tokio::runtime::Builder::new_multi_thread();
    let one = || tokio::runtime::Builder::new_current_thread();
    for (flavour, mut runtime) in [("several", several()), ("one", one())] {
        let runtime = runtime.enable_time().build().unwrap();
        runtime.block_on(async {
            let (above, _) = ractor::Actor::spawn(None, Embedder, ()).await.unwrap();
            for round in 0..40 {
                let upstream = ScriptedUpstream::new(|_| Step::ok("{}"));
                let store = Arc::new(MemoryStore::new());
                let held = Arc::downgrade(&store);
                let mut engine = Engine::builder(upstream).store(store);
                // The watcher has a handle of the store as well.
                if round % 4 < 2 {
                    engine = engine.watch_indeterminate(Duration::from_secs(60));
                }
                let engine = match round % 2 {
                    0 => engine.start().await.unwrap(),
                    _ => engine.start_linked(above.get_cell()).await.unwrap(),
                };
                let (sender, receiver) = tokio::sync::oneshot::channel();
                let message = EngineMessage::Execute(request("{}"), sender.into());
                engine.actor().send_message(message).unwrap();
                engine.execute(request("[1]")).await.unwrap();
                receiver.await.unwrap().unwrap();
                assert!(engine.shutdown(5 * SECOND).await.is_clean());
                drop(engine);
                let holders = held.strong_count();
                assert_eq!(holders, 0, "{flavour}, round {round}");
            }
            above.stop(None);
        });
    }
}

/// A flight that begins after the order to close, and before the root reads it, waits in the
/// mailbox behind that order. Red if the root ends without actors although a flight is left:
/// the caller got `Stopped` at once.
#[tokio::test(start_paused = true)]
async fn flight_behind_the_order_to_close_has_its_grace() {
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}").after(SECOND));
    let engine = Engine::builder(upstream.clone()).start().await.unwrap();
    let closing = tokio::spawn({
        let engine = engine.clone();
        async move { engine.shutdown(10 * SECOND).await }
    });
    let caller = ask(&engine);
    assert!(caller.await.unwrap().is_ok());
    let drained = closing.await.unwrap();
    assert_eq!((drained.finished, drained.cut_off), (1, 0));
    assert_eq!(upstream.ledger().total(), 1);
}

/// Executions that do not end by themselves while the engine closes: cut off by the end of
/// the root, or killed. Red if `finished` counts them.
#[tokio::test(start_paused = true)]
async fn killed_executions_are_not_counted_as_finished() {
    for end in ["stop", "kill", "kill the actors"] {
        let upstream = ScriptedUpstream::new(|_| Step::ok("{}").after(20 * SECOND));
        let engine = Engine::builder(upstream.clone()).start().await.unwrap();
        let callers: Vec<_> = (0..5)
            .map(|n| {
                let engine = engine.clone();
                tokio::spawn(async move { engine.execute(request(&n.to_string())).await })
            })
            .collect();
        upstream.ledger().wait_for(5).await;
        let closing = tokio::spawn({
            let engine = engine.clone();
            async move { engine.shutdown(60 * SECOND).await }
        });
        tokio::time::sleep(SECOND).await;
        let root = engine.actor().get_cell();
        match end {
            "stop" => root.stop(None),
            "kill" => root.kill(),
            _ => root.get_children().iter().for_each(ractor::ActorCell::kill),
        }
        let drained = closing.await.unwrap();
        assert_eq!((drained.finished, drained.cut_off), (0, 5), "{end}");
        for caller in callers {
            assert!(
                matches!(caller.await.unwrap(), Err(Error::Stopped)),
                "{end}"
            );
        }
    }
}

/// Ractor kills no child that drains. Red if the end of the root does not cut its flights
/// off: this one waited for a token without end, and extended its lease.
#[tokio::test(start_paused = true)]
async fn draining_child_ends_with_its_root() {
    let tokens = ScriptedTokens::new(|fetch| match fetch {
        1 => TokenStep::Issue(3600 * SECOND),
        _ => TokenStep::Silent,
    });
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}"));
    let store = MemoryStore::new();
    let with_tokens = upstream.clone().with_tokens(tokens.clone());
    let engine = Engine::builder(with_tokens).store(store.clone());
    let engine = engine.start().await.unwrap();
    engine.execute(request("0")).await.unwrap();
    tokens.revoke();
    let caller = tokio::spawn({
        let engine = engine.clone();
        async move { engine.execute(request("1")).await }
    });
    tokens.wait_for(2).await;
    let root = engine.actor().get_cell();
    for child in root.get_children() {
        let _ = child.drain();
    }
    root.kill();
    assert!(matches!(caller.await.unwrap(), Err(Error::Stopped)));
    let other = Engine::builder(upstream.clone()).store(store);
    let other = other.start().await.unwrap();
    let answer = other.execute_within(request("1"), 120 * SECOND).await;
    assert!(answer.unwrap().is_success());
}
