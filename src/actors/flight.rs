//! Keys from `Hashed` to `Cached`: an actor that runs one flight after the other.
//! The typestates do each step; this decides which step is next. All of an actor's
//! life is one future, that of the hook after the start, which a kill may drop
//! anywhere.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr};
use tracing::Instrument as _;

use super::finish::finish;
use super::shared::Shared;
use crate::error::Error;
use crate::execution::Progress;
use crate::flights::FlightGuard;
use crate::key::IdempotencyKey;

mod driver;
mod remote_holder;
mod retry;

/// A flight and what it takes to run it.
pub(crate) struct Job {
    pub guard: Box<FlightGuard>,
    pub shared: Arc<Shared>,
}

/// What an execution actor runs now: for the root, which ends the record of one
/// that dies.
#[derive(Debug, Default)]
pub(super) struct Assignment(Mutex<Option<Assigned>>);

type Assigned = (IdempotencyKey, Arc<Progress>);

impl Assignment {
    /// What was run until now; `next` is run from now on.
    pub(super) fn replace(&self, next: Option<Assigned>) -> Option<Assigned> {
        // Replaced as a whole, so a panic leaves it whole.
        let mut assigned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *assigned, next)
    }
}

/// What an actor begins with.
pub(super) struct Start {
    /// Its first flight.
    pub job: Job,
    pub assignment: Arc<Assignment>,
}

/// Spawns an execution actor, linked to its supervisor.
pub(super) fn spawn(
    start: Start,
    supervisor: ActorCell,
) -> impl Future<Output = Result<ActorCell, SpawnErr>> + Send {
    // Boxed: it is large, and the supervisor's handler would be as large for any
    // message.
    let spawned = Box::pin(Actor::spawn_linked(None, FlightActor, start, supervisor));
    async move {
        let (actor, _) = spawned.await?;
        Ok(actor.get_cell())
    }
}

struct FlightActor;

/// It has no mailbox: a flight comes by the channel that an idle actor waits at, and
/// is dropped with that, whenever the actor dies.
#[derive(Debug)]
enum Nothing {}

#[cfg(feature = "ractor-cluster")]
impl ractor::Message for Nothing {}

#[cfg_attr(feature = "ractor-async-trait", ractor::async_trait)]
impl Actor for FlightActor {
    type Msg = Nothing;
    /// Taken by the hook that runs it, so that a guard dies with the hook's future
    /// and not with a supervision event that carries the state.
    type State = Option<Start>;
    type Arguments = Start;

    async fn pre_start(
        &self,
        _: ActorRef<Nothing>,
        start: Start,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(Some(start))
    }

    /// One flight after the other. The actor is linked by now: a kill drops this
    /// future as it would a handler's, and a panic is told to the supervisor all the
    /// same.
    async fn post_start(
        &self,
        myself: ActorRef<Nothing>,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        if let Some(start) = state.take() {
            start.run().await;
        }
        myself.stop(None);
        Ok(())
    }
}

impl Start {
    /// Runs flights until the engine closes, or the load needs no such actor.
    async fn run(self) {
        let Self {
            mut job,
            assignment,
        } = self;
        let idle = job.shared.idle.clone();
        loop {
            let (key, progress) = (job.guard.key(), job.guard.progress().clone());
            assignment.replace(Some((key, progress)));
            // Boxed: an idle actor has no room for a flight, and ractor keeps a
            // hook's future twice, once as the argument that it came as and once
            // where it is polled.
            Box::pin(job.run()).await;
            assignment.replace(None);
            let Some(next) = idle.join() else { return };
            let Ok(next) = next.await else { return };
            job = next;
        }
    }
}

impl Job {
    async fn run(self) {
        let cut_off = tokio::select! {
            biased;
            () = self.shared.cut_off() => true,
            () = driver::drive(&self.shared, &self.guard).instrument(self.guard.span()) => false,
        };
        if cut_off {
            self.guard.answer(Err(Error::Stopped), Duration::ZERO);
        }
        // Where the store is down this waits for it, with the flight still in the
        // table, so that nobody in this process begins anew.
        let Self { shared, guard } = self;
        if !guard.progress().is_finished() {
            let finished = finish(&shared, guard.key(), guard.progress(), |error| {
                guard.not_finished(error);
            });
            if let Some(left) = Box::pin(finished).await {
                guard.recorded(left);
            }
        }
    }
}
