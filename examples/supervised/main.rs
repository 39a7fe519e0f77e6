//! The engine in an application's own actor tree: supervised, started again within a budget,
//! and asked by message.
//!
//! ```sh
//! cargo run -p supervised   # nothing else installed
//! ```
//!
//! `App` is the root. The engine is linked to it (`start_linked`), so `App` handles the end
//! of the engine as an event. `Orders`, also a child, asks the engine by
//! `EngineMessage::Execute` and has the answer forwarded to its own mailbox. The engine is
//! killed with a call under way. The next request is indeterminate, since the call might have
//! been executed, and nothing is sent twice.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use genesys_once::ractor::rpc::CallResult;
use genesys_once::ractor::{
    self, Actor, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent, call_t,
};
use genesys_once::testing::{GenesysSimulator, Step};
use genesys_once::{
    DataActionRequest, Engine, EngineBuilder, EngineMessage, Error, GenesysCloud, MemoryStore,
    Reply,
};
use tokio::sync::{mpsc, watch};

/// How often the engine is started again within `PERIOD`.
const BUDGET: usize = 2;
const PERIOD: Duration = Duration::from_secs(60);
const CALL_MS: u64 = 10_000;

type Answer = Result<Reply, Error>;
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The application's root: owns the engine.
struct App;

enum AppMessage {
    /// Returns the current engine; a handle from an earlier answer might belong to a dead
    /// engine.
    Engine(RpcReplyPort<Engine>),
}

struct AppArgs {
    builder: EngineBuilder,
    /// Counts the starts.
    starts: watch::Sender<usize>,
}

struct AppState {
    args: AppArgs,
    engine: Engine,
    restarts: Vec<Instant>,
}

// Only for builds that switch on the ractor features of these names.
#[cfg(feature = "ractor-cluster")]
impl ractor::Message for AppMessage {}
#[cfg(feature = "ractor-cluster")]
impl ractor::Message for OrdersMessage {}

#[cfg_attr(feature = "ractor-async-trait", ractor::async_trait)]
impl Actor for App {
    type Msg = AppMessage;
    type State = AppState;
    type Arguments = AppArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<AppMessage>,
        args: AppArgs,
    ) -> Result<AppState, ActorProcessingErr> {
        // The store in the builder outlives the engine, and so do its records.
        let engine = args.builder.clone().start_linked(myself.get_cell()).await?;
        args.starts.send_modify(|starts| *starts += 1);
        Ok(AppState {
            args,
            engine,
            restarts: Vec::new(),
        })
    }

    async fn handle(
        &self,
        _: ActorRef<AppMessage>,
        message: AppMessage,
        state: &mut AppState,
    ) -> Result<(), ActorProcessingErr> {
        let AppMessage::Engine(port) = message;
        let _ = port.send(state.engine.clone());
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<AppMessage>,
        event: SupervisionEvent,
        state: &mut AppState,
    ) -> Result<(), ActorProcessingErr> {
        let (SupervisionEvent::ActorTerminated(child, ..)
        | SupervisionEvent::ActorFailed(child, _)) = event
        else {
            return Ok(());
        };
        if child.get_id() != state.engine.actor().get_id() {
            return Err("a child that the application cannot do without has ended".into());
        }
        state.restarts.retain(|at| at.elapsed() < PERIOD);
        if state.restarts.len() == BUDGET {
            myself.stop(Some("the engine died too often".to_owned()));
            return Ok(());
        }
        state.restarts.push(Instant::now());
        let builder = state.args.builder.clone();
        state.engine = builder.start_linked(myself.get_cell()).await?;
        state.args.starts.send_modify(|starts| *starts += 1);
        Ok(())
    }
}

/// Places orders; it never blocks its mailbox while it waits for an order.
struct Orders;

enum OrdersMessage {
    Place(u32),
    /// The engine's answer, forwarded.
    Answered(u32, Answer),
    /// The port was dropped: that engine has stopped, and another engine might have been
    /// started.
    Unanswered(u32),
}

struct OrdersState {
    app: ActorRef<AppMessage>,
    answers: mpsc::UnboundedSender<Answer>,
}

#[cfg_attr(feature = "ractor-async-trait", ractor::async_trait)]
impl Actor for Orders {
    type Msg = OrdersMessage;
    type State = OrdersState;
    type Arguments = OrdersState;

    async fn pre_start(
        &self,
        _: ActorRef<OrdersMessage>,
        state: OrdersState,
    ) -> Result<OrdersState, ActorProcessingErr> {
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<OrdersMessage>,
        message: OrdersMessage,
        state: &mut OrdersState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            OrdersMessage::Place(order) => {
                let engine = call_t!(state.app, AppMessage::Engine, CALL_MS)?;
                let request = request(order)?;
                let asked = engine.actor().call_and_forward(
                    |port| EngineMessage::Execute(request, port),
                    &myself,
                    move |answer| OrdersMessage::Answered(order, answer),
                    None,
                );
                tokio::spawn(async move {
                    let forwarded = match asked {
                        Ok(asked) => matches!(asked.await, Ok(CallResult::Success(_))),
                        Err(_) => false,
                    };
                    if !forwarded {
                        let _ = myself.send_message(OrdersMessage::Unanswered(order));
                    }
                });
            }
            // Safe after all three: the record decides whether anything is sent. If the
            // root is killed, an execution might report that before its engine does.
            OrdersMessage::Answered(order, Err(Error::Stopped | Error::Crashed { .. }))
            | OrdersMessage::Unanswered(order) => {
                myself.send_after(Duration::from_millis(50), move || {
                    OrdersMessage::Place(order)
                });
            }
            OrdersMessage::Answered(_, answer) => state.answers.send(answer)?,
        }
        Ok(())
    }
}

fn request(order: u32) -> Result<DataActionRequest, Error> {
    DataActionRequest::new(
        "custom_-_2f1c9f0a-refund",
        format!("{{\"order\": {order}}}"),
    )
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(lines) => {
            lines.iter().for_each(|line| println!("{line}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("supervised: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the whole example, and returns the lines that it prints.
pub async fn run() -> Result<Vec<String>, Failure> {
    let platform = GenesysSimulator::start().await;
    platform.script(|call| match &call.body()[..] {
        b"{\"order\": 2}" => Step::Silent,
        _ => Step::ok(r#"{"refund": "R-1"}"#),
    });
    let upstream = GenesysCloud::new(platform.environment(), platform.credentials());
    // In production: a `RedisStore`, and the default of both times.
    let builder = Engine::builder(upstream)
        .store(MemoryStore::new())
        .store_timeout(Duration::from_millis(500))
        .lease(Duration::from_millis(500));

    let starts = watch::Sender::new(0);
    let mut started = starts.subscribe();
    let (app, ended) = Actor::spawn(None, App, AppArgs { builder, starts }).await?;
    let (sender, mut answers) = mpsc::unbounded_channel();
    let state = OrdersState {
        app: app.clone(),
        answers: sender,
    };
    let (orders, _) = Actor::spawn_linked(None, Orders, state, app.get_cell()).await?;
    let mut lines = Vec::new();

    orders.send_message(OrdersMessage::Place(1))?;
    lines.push(format!("order 1        {}", line(answers.recv().await)));

    // The order's call is on the wire when the engine dies.
    orders.send_message(OrdersMessage::Place(2))?;
    platform.ledger().wait_for(2).await;
    call_t!(app, AppMessage::Engine, CALL_MS)?.actor().kill();
    lines.push(format!("order 2        {}", line(answers.recv().await)));

    // The restarted engine answers this order from the record.
    orders.send_message(OrdersMessage::Place(1))?;
    lines.push(format!("order 1 again  {}", line(answers.recv().await)));

    // Beyond its budget the application gives up, and everything below it ends.
    for start in 2..=BUDGET + 1 {
        started.wait_for(|starts| *starts == start).await?;
        call_t!(app, AppMessage::Engine, CALL_MS)?.actor().kill();
    }
    ended.await?;
    lines.push(format!("engine starts  {}", *started.borrow()));
    lines.push(format!("upstream calls: {}", platform.ledger().total()));
    Ok(lines)
}

fn line(answer: Option<Answer>) -> String {
    match answer {
        Some(Ok(reply)) => format!("{} from {}", reply.status(), reply.served()),
        Some(Err(error)) => format!("{}; what now: {:?}", error.code(), error.hint()),
        None => "the application ended first".to_owned(),
    }
}
