//! The root of the tree: spawns flight actors, restarts the token actor, finishes the
//! records of dead children, and closes the engine. It does no I/O itself, never waits
//! for a child, and runs no foreign code except through ractor.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, SpawnErr, SupervisionEvent};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::finish::finish;
use super::flight::{self, Assignment, Job, Start};
use super::idle;
use super::ports::Ports;
use super::shared::Shared;
use super::token::Restarts;
use super::watcher;
use crate::flights::FlightGuard;
use crate::telemetry;

mod message;

pub use self::message::{Drained, EngineMessage};
use self::message::{Internal, Order};

/// The arguments of the root.
#[derive(Debug)]
pub(crate) struct Args {
    pub shared: Arc<Shared>,
    /// Set once, when the engine has ended.
    pub drained: watch::Sender<Option<Drained>>,
    pub deadline: Duration,
}

/// Starts the tree, linked to the embedder's supervisor if there is one.
pub(crate) async fn spawn(
    args: Args,
    above: Option<ActorCell>,
) -> Result<ActorRef<EngineMessage>, SpawnErr> {
    let (root, _) = match above {
        Some(above) => Actor::spawn_linked(None, Supervisor, args, above).await?,
        None => Actor::spawn(None, Supervisor, args).await?,
    };
    Ok(root)
}

struct Supervisor;

struct State {
    /// Ends the table and all flight actors when this state is dropped, also after a panic.
    /// Dropped first, so that `drained` reports the flights that it ends.
    _closer: Closer,
    shared: Arc<Shared>,
    drained: watch::Sender<Option<Drained>>,
    /// The flight actors, and the flight that each runs.
    children: HashMap<ActorId, Arc<Assignment>>,
    token: Option<ActorId>,
    restarts: Restarts,
    watcher: Option<ActorCell>,
    watcher_restarts: Restarts,
    /// Work that ends with the root: finishing records, timers.
    tasks: JoinSet<()>,
    ports: Ports,
    finishing: usize,
    closing: Option<Drained>,
    cut: bool,
}

/// Reports to the root that a record was finished or given up, also if the store
/// panics. The root waits for this report before it ends.
struct Finishing(ActorRef<EngineMessage>);

impl Drop for Finishing {
    fn drop(&mut self) {
        let _ = self
            .0
            .send_message(EngineMessage::Internal(Internal(Order::Finished)));
    }
}

struct Closer(Arc<Shared>);

impl Drop for Closer {
    fn drop(&mut self) {
        self.0.flights.end();
        self.0.idle.close();
        // Ractor does not kill a child that drains: it must not go on extending its lease.
        self.0.cut.post(|cut| *cut = true);
    }
}

#[cfg_attr(feature = "ractor-async-trait", ractor::async_trait)]
impl Actor for Supervisor {
    type Msg = EngineMessage;
    /// Taken at the end. Otherwise a supervision event would carry it, and with it the
    /// store, to the embedder's supervisor.
    type State = Option<State>;
    type Arguments = Args;

    async fn pre_start(
        &self,
        myself: ActorRef<EngineMessage>,
        args: Args,
    ) -> Result<Self::State, ActorProcessingErr> {
        let Args {
            shared,
            drained,
            deadline,
        } = args;
        let token = match &shared.tokens {
            Some(tokens) => Some(tokens.spawn(myself.get_cell()).await?.get_id()),
            None => None,
        };
        let watcher = watcher::spawn(&shared, myself.get_cell()).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(shared.flights.clone().expire());
        tasks.spawn(idle::follow_load(
            shared.idle.clone(),
            shared.flights.clone(),
        ));
        let ports = Ports::new(shared.clone(), deadline);
        Ok(Some(State {
            _closer: Closer(shared.clone()),
            shared,
            drained,
            children: HashMap::new(),
            token,
            restarts: Restarts::default(),
            watcher,
            watcher_restarts: Restarts::default(),
            tasks,
            ports,
            finishing: 0,
            closing: None,
            cut: false,
        }))
    }

    async fn handle(
        &self,
        myself: ActorRef<EngineMessage>,
        message: EngineMessage,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let Some(state) = state else { return Ok(()) };
        while state.tasks.try_join_next().is_some() {}
        match message {
            EngineMessage::Execute(request, port) => state.ports.execute(&myself, request, port),
            EngineMessage::Internal(Internal(order)) => match order {
                Order::Run(guard) => state.run(&myself, guard).await,
                Order::Close { grace } => state.close(&myself, grace),
                Order::Cut => state.cut_off(),
                Order::Finished => state.finishing -= 1,
                // Boxed: rare and large.
                Order::StartToken => Box::pin(state.start_token(&myself)).await,
                Order::StartWatcher => Box::pin(state.start_watcher(&myself)).await,
            },
        }
        state.stop_if_drained(&myself);
        Ok(())
    }

    async fn post_stop(
        &self,
        _: ActorRef<EngineMessage>,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        if let Some(state) = state.take() {
            state.end().await;
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<EngineMessage>,
        event: SupervisionEvent,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let Some(state) = state else { return Ok(()) };
        let (child, why) = match event {
            SupervisionEvent::ActorTerminated(child, _, reason) => (child, reason),
            SupervisionEvent::ActorFailed(child, error) => (child, Some(error.to_string())),
            _ => return Ok(()),
        };
        if state.token == Some(child.get_id()) {
            state.restart_token(&myself, why);
        } else if state.watcher.as_ref().map(ActorCell::get_id) == Some(child.get_id()) {
            state.restart_watcher(&myself, why);
        } else if let Some(assignment) = state.children.remove(&child.get_id()) {
            state.finish_record(&myself, &assignment, why);
            state.shrink();
        }
        state.stop_if_drained(&myself);
        Ok(())
    }
}

impl State {
    /// Gives a flight to an actor that has become idle meanwhile, or to a new actor.
    async fn run(&mut self, myself: &ActorRef<EngineMessage>, guard: Box<FlightGuard>) {
        let key = guard.key();
        let shared = self.shared.clone();
        let Err(job) = self.shared.idle.run(Job { guard, shared }) else {
            return;
        };
        let assignment = Arc::<Assignment>::default();
        let start = Start {
            job,
            assignment: assignment.clone(),
        };
        // ractor opens a span for each actor.
        let spawned = AssertUnwindSafe(flight::spawn(start, myself.get_cell()));
        // If the spawn fails, the guard is dropped with the job and answers.
        match spawned.catch_unwind().await {
            Ok(Ok(child)) => {
                self.children.insert(child.get_id(), assignment);
            }
            Ok(Err(error)) => {
                self.log(move || tracing::error!(%key, %error, "could not start an execution"));
            }
            Err(_) => self.log(move || {
                tracing::error!(%key, "a subscriber panicked while an execution started");
            }),
        }
    }

    /// Finishes the record of the flight that a dead child ran, by its progress.
    fn finish_record(
        &mut self,
        myself: &ActorRef<EngineMessage>,
        child: &Assignment,
        why: Option<String>,
    ) {
        let Some((key, progress)) = child.replace(None) else {
            return;
        };
        if progress.is_finished() {
            return;
        }
        let name = self.shared.name(key);
        self.finishing += 1;
        let (shared, finishing) = (self.shared.clone(), Finishing(myself.clone()));
        self.tasks.spawn(async move {
            let _finishing = finishing;
            telemetry::contained(|| {
                tracing::warn!(%name, why, ?progress, "an execution ended without finishing its record");
            });
            let _ = finish(&shared, key, &progress, |_| {}).await;
        });
    }

    /// Frees the memory that a burst of actors made the map reserve.
    fn shrink(&mut self) {
        if self.children.capacity() / 8 > self.children.len() + 128 {
            self.children.shrink_to_fit();
        }
    }

    fn restart_token(&mut self, myself: &ActorRef<EngineMessage>, why: Option<String>) {
        self.token = None;
        let (wait, root) = (self.restarts.wait(), myself.clone());
        self.tasks.spawn(async move {
            let wait_s = wait.as_secs_f64();
            telemetry::contained(|| {
                tracing::warn!(why, wait_s, "the token actor died; starting it again");
            });
            sleep(wait).await;
            let _ = root.send_message(EngineMessage::Internal(Internal(Order::StartToken)));
        });
    }

    async fn start_token(&mut self, myself: &ActorRef<EngineMessage>) {
        let Some(tokens) = &self.shared.tokens else {
            return;
        };
        let spawned = AssertUnwindSafe(tokens.spawn(myself.get_cell()));
        match spawned.catch_unwind().await {
            Ok(Ok(actor)) => self.token = Some(actor.get_id()),
            Ok(Err(error)) => self.restart_token(myself, Some(error.to_string())),
            Err(_) => self.restart_token(myself, Some("a subscriber panicked".into())),
        }
    }

    fn restart_watcher(&mut self, myself: &ActorRef<EngineMessage>, why: Option<String>) {
        self.watcher = None;
        if self.closing.is_some() {
            return;
        }
        let (wait, root) = (self.watcher_restarts.wait(), myself.clone());
        self.tasks.spawn(async move {
            telemetry::contained(|| {
                tracing::warn!(
                    why,
                    "the watcher of indeterminate keys died; starting it again"
                );
            });
            sleep(wait).await;
            let _ = root.send_message(EngineMessage::Internal(Internal(Order::StartWatcher)));
        });
    }

    async fn start_watcher(&mut self, myself: &ActorRef<EngineMessage>) {
        if self.closing.is_some() {
            return;
        }
        let spawned = AssertUnwindSafe(watcher::spawn(&self.shared, myself.get_cell()));
        match spawned.catch_unwind().await {
            Ok(Ok(actor)) => self.watcher = actor,
            Ok(Err(error)) => self.restart_watcher(myself, Some(error.to_string())),
            Err(_) => self.restart_watcher(myself, Some("a subscriber panicked".into())),
        }
    }

    /// Logs in a task, outside of the root's handler: a subscriber is foreign code, and
    /// might panic or call this engine.
    fn log(&mut self, log: impl FnOnce() + Send + 'static) {
        self.tasks.spawn(async move { log() });
    }

    fn close(&mut self, myself: &ActorRef<EngineMessage>, grace: Duration) {
        self.shared.flights.close();
        self.shared.idle.close();
        // The watcher owns a handle of the store, which must be free when the engine
        // has ended.
        if let Some(watcher) = &self.watcher {
            watcher.kill();
        }
        // `end` subtracts the executions that do not end by themselves.
        let finished = self.shared.flights.in_flight();
        let closing = Drained {
            finished,
            cut_off: 0,
        };
        self.closing.get_or_insert(closing);
        let root = myself.clone();
        // A second close with a shorter grace cuts off earlier. A longer grace does not
        // delay the first.
        self.tasks.spawn(async move {
            sleep(grace).await;
            let _ = root.send_message(EngineMessage::Internal(Internal(Order::Cut)));
        });
    }

    /// The grace is over: every execution answers `Stopped` and finishes its record.
    fn cut_off(&mut self) {
        if !self.cut {
            self.cut = true;
            let flights = &self.shared.flights;
            let closing = self.closing.get_or_insert_default();
            closing.cut_off = flights.in_flight() + flights.lost();
            self.shared.cut.post(|cut| *cut = true);
        }
    }

    fn stop_if_drained(&mut self, myself: &ActorRef<EngineMessage>) {
        let is_over = self.children.is_empty() && self.watcher.is_none() && self.finishing == 0;
        // A flight without an actor is in the mailbox, behind the order to close.
        let is_over = is_over && (self.cut || self.shared.flights.in_flight() == 0);
        if self.closing.is_some() && is_over {
            myself.stop(None);
        }
    }

    /// Reports the end after the tree has dropped its handles, so that the embedder can
    /// drop the last handle of the store.
    async fn end(mut self) {
        self.shared.flights.close();
        self.tasks.abort_all();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        // A task that a foreign store blocks must not delay the end.
        let _ = timeout(Duration::from_secs(1), ended).await;
        // Flights that end now still answer their callers.
        self.ports.deliver().await;
        self.shared.flights.end();
        let (drained, mut end) = (self.drained.clone(), self.closing.unwrap_or_default());
        end.cut_off = end.cut_off.max(self.shared.flights.lost());
        end.finished = end.finished.saturating_sub(end.cut_off);
        drop(self);
        drained.send_replace(Some(end));
    }
}
