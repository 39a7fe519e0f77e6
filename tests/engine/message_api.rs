//! The engine among other actors: asked by message, and under a foreign supervisor that
//! starts it again.

use genesys_once::testing::{ScriptedUpstream, Step};
use genesys_once::{
    Engine, EngineBuilder, EngineMessage, Error, MemoryStore, Reply, RetryHint, Served,
};
use ractor::rpc::CallResult;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent, call_t};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

use super::{SECOND, request, until};

type Answer = Result<Reply, Error>;

/// An actor that asks the engine in both ways.
struct Client;

enum ClientMessage {
    /// Ask, and wait in the handler.
    Call(RpcReplyPort<Answer>),
    /// Ask, and go on; the answer comes as a message.
    Forward,
    Forwarded(Answer),
    /// Whether the mailbox is served.
    Ping(RpcReplyPort<()>),
}

struct ClientState {
    engine: ActorRef<EngineMessage>,
    reply: mpsc::UnboundedSender<Answer>,
}

#[cfg(feature = "ractor-cluster")]
impl ractor::Message for ClientMessage {}

#[cfg_attr(feature = "ractor-async-trait", ractor::async_trait)]
impl Actor for Client {
    type Msg = ClientMessage;
    type State = ClientState;
    type Arguments = ClientState;

    async fn pre_start(
        &self,
        _: ActorRef<ClientMessage>,
        state: ClientState,
    ) -> Result<ClientState, ActorProcessingErr> {
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<ClientMessage>,
        message: ClientMessage,
        state: &mut ClientState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ClientMessage::Call(port) => {
                let engine = &state.engine;
                let answer = call_t!(engine, EngineMessage::Execute, 60_000, request("{}"))?;
                port.send(answer)?;
            }
            ClientMessage::Forward => {
                let ask = |port| EngineMessage::Execute(request("{}"), port);
                let map = ClientMessage::Forwarded;
                drop(state.engine.call_and_forward(ask, &myself, map, None)?);
            }
            ClientMessage::Forwarded(answer) => state.reply.send(answer)?,
            ClientMessage::Ping(port) => port.send(())?,
        }
        Ok(())
    }
}

async fn client(engine: &Engine) -> (ActorRef<ClientMessage>, mpsc::UnboundedReceiver<Answer>) {
    let (reply, answers) = mpsc::unbounded_channel();
    let engine = engine.actor().clone();
    let state = ClientState { engine, reply };
    let (client, _) = Actor::spawn(None, Client, state).await.unwrap();
    (client, answers)
}

fn slow() -> ScriptedUpstream {
    ScriptedUpstream::new(|_| Step::ok("{}").after(10 * SECOND))
}

/// One key, forty actors and one handle: admission is the same for all callers.
#[tokio::test(start_paused = true)]
async fn message_callers_share_one_call() {
    let upstream = slow();
    let engine = Engine::builder(upstream.clone()).start().await.unwrap();
    let mut asked = Vec::new();
    let mut forwarded = Vec::new();
    for _ in 0..20 {
        let (calling, _) = client(&engine).await;
        asked.push(tokio::spawn(async move {
            call_t!(calling, ClientMessage::Call, 60_000).unwrap()
        }));
        let (forwarding, answers) = client(&engine).await;
        forwarding.send_message(ClientMessage::Forward).unwrap();
        // An actor that forwards is not blocked meanwhile.
        call_t!(forwarding, ClientMessage::Ping, 1_000).unwrap();
        forwarded.push(answers);
    }
    until("all callers wait", || engine.stats().waiting == 40).await;
    let by_handle = engine.execute(request("{ }")).await.unwrap();
    assert_eq!(by_handle.served(), Served::Joined);
    let mut served = Vec::new();
    for answer in asked {
        served.push(answer.await.unwrap().unwrap().served());
    }
    for mut answers in forwarded {
        served.push(answers.recv().await.unwrap().unwrap().served());
    }
    served.sort_unstable();
    let one_caller: Vec<_> = [vec![Served::Upstream], vec![Served::Joined; 39]].concat();
    assert_eq!(served, one_caller);
    assert_eq!(upstream.ledger().total(), 1);
}

/// Red if the port's time-out is ignored.
#[tokio::test(start_paused = true)]
async fn port_timeout_is_caller_deadline() {
    let upstream = slow();
    let engine = Engine::builder(upstream.clone()).start().await.unwrap();
    let (reply, asked) = ractor::concurrency::oneshot();
    let port = RpcReplyPort::from((reply, SECOND));
    let began = Instant::now();
    let message = EngineMessage::Execute(request("{}"), port);
    engine.actor().send_message(message).unwrap();
    let error = asked.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::DeadlineExceeded { .. }), "{error}");
    assert_eq!(began.elapsed(), SECOND);
    // The execution goes on, and answers the next caller.
    assert!(engine.execute(request("{}")).await.is_ok());
    assert_eq!(upstream.ledger().total(), 1);
}

/// If the reply port is dropped, the engine has stopped. No caller waits without end (I3).
#[tokio::test(start_paused = true)]
async fn killed_engine_drops_reply_ports() {
    let upstream = slow();
    let engine = Engine::builder(upstream.clone()).start().await.unwrap();
    let (client, _answers) = client(&engine).await;
    let asked = engine.actor().call_and_forward(
        |port| EngineMessage::Execute(request("{}"), port),
        &client,
        ClientMessage::Forwarded,
        None,
    );
    upstream.ledger().wait_for(1).await;
    engine.actor().kill();
    let reply = timeout(3600 * SECOND, asked.unwrap()).await;
    let reply = reply.expect("a caller was left unanswered").unwrap();
    assert!(
        matches!(reply, CallResult::SenderError),
        "the port was not dropped"
    );
    let after = engine.actor().send_message(EngineMessage::Execute(
        request("{}"),
        ractor::concurrency::oneshot().0.into(),
    ));
    assert!(after.is_err());
}

/// A supervisor of the embedder: starts the engine again whenever the engine ends.
struct Above;

struct Engines {
    builder: EngineBuilder,
    current: watch::Sender<Option<Engine>>,
    ends: mpsc::UnboundedSender<&'static str>,
}

#[cfg_attr(feature = "ractor-async-trait", ractor::async_trait)]
impl Actor for Above {
    type Msg = ();
    type State = Engines;
    type Arguments = Engines;

    async fn pre_start(
        &self,
        myself: ActorRef<()>,
        engines: Engines,
    ) -> Result<Engines, ActorProcessingErr> {
        let engine = engines
            .builder
            .clone()
            .start_linked(myself.get_cell())
            .await?;
        engines.current.send_replace(Some(engine));
        Ok(engines)
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<()>,
        event: SupervisionEvent,
        engines: &mut Engines,
    ) -> Result<(), ActorProcessingErr> {
        let (child, how) = match event {
            SupervisionEvent::ActorTerminated(child, ..) => (child, "terminated"),
            SupervisionEvent::ActorFailed(child, _) => (child, "failed"),
            _ => return Ok(()),
        };
        let mine = |engine: &Engine| engine.actor().get_id() == child.get_id();
        assert!(engines.current.borrow().as_ref().is_some_and(mine));
        engines.ends.send(how)?;
        let engine = engines
            .builder
            .clone()
            .start_linked(myself.get_cell())
            .await?;
        engines.current.send_replace(Some(engine));
        Ok(())
    }
}

/// Red if the engine's root is not linked to the given supervisor.
#[tokio::test(start_paused = true)]
async fn restarted_engine_sends_nothing_twice() {
    let upstream = ScriptedUpstream::new(|call| match &call.body()[..] {
        b"1" => Step::ok("{}"),
        _ => Step::Silent,
    });
    let current = watch::Sender::new(None);
    let mut engines = current.subscribe();
    let (ends, mut ended) = mpsc::unbounded_channel();
    let builder = Engine::builder(upstream.clone()).store(MemoryStore::new());
    let args = Engines {
        builder,
        current,
        ends,
    };
    let (above, _) = Actor::spawn(None, Above, args).await.unwrap();
    let first = engines.borrow_and_update().clone().unwrap();
    first.execute(request("1")).await.unwrap();

    // The engine is killed with a call under way.
    let asking = first.clone();
    let caller = tokio::spawn(async move { asking.execute(request("2")).await });
    upstream.ledger().wait_for(2).await;
    first.actor().kill();
    let error = caller.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Stopped), "{error}");
    // Virtual time: an hour passes at once, unless the supervisor gets an event.
    let end = timeout(3600 * SECOND, ended.recv()).await;
    assert_eq!(
        end.expect("the supervisor got no event"),
        Some("terminated")
    );
    engines.changed().await.unwrap();
    let second = engines.borrow_and_update().clone().unwrap();
    assert_ne!(first.actor().get_id(), second.actor().get_id());

    // The next engine knows what was executed, and what might have been executed.
    let reply = second.execute(request("1")).await.unwrap();
    assert_eq!(reply.served(), Served::Store);
    let error = second.execute(request("2")).await.unwrap_err();
    assert_eq!(error.hint(), RetryHint::Resolve);
    assert_eq!(upstream.ledger().total(), 2);

    // A clean end is an event, too.
    assert!(second.shutdown(SECOND).await.is_clean());
    assert_eq!(ended.recv().await, Some("terminated"));
    engines.changed().await.unwrap();
    let third = engines.borrow_and_update().clone().unwrap();
    assert!(third.execute(request("1")).await.is_ok());

    above.stop_and_wait(None, None).await.unwrap();
    let error = third.execute(request("1")).await.unwrap_err();
    assert!(matches!(error, Error::Stopped), "{error}");
}
