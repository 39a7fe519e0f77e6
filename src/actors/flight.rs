//! The flight actor: it takes one key after the other from `Hashed` to `Cached`. It
//! decides the order of the steps; the typestates do each step. Its life is one future,
//! which a kill can drop at any point.

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

/// A flight to run.
pub(crate) struct Job {
    pub guard: Box<FlightGuard>,
    pub shared: Arc<Shared>,
}

/// The flight that an actor runs now. If the actor dies, the root finishes the record.
#[derive(Debug, Default)]
pub(super) struct Assignment(Mutex<Option<Assigned>>);

type Assigned = (IdempotencyKey, Arc<Progress>);

impl Assignment {
    /// Sets the flight that runs now, and returns the one before.
    pub(super) fn replace(&self, next: Option<Assigned>) -> Option<Assigned> {
        // Changed by one assignment, so a panic leaves no half-made change.
        let mut assigned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *assigned, next)
    }
}

/// The arguments of a flight actor.
pub(super) struct Start {
    /// Its first flight.
    pub job: Job,
    pub assignment: Arc<Assignment>,
}

/// Spawns a flight actor, linked to its supervisor.
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

/// The actor gets no messages: an idle actor gets its flight through a channel, so that
/// the flight is dropped if the actor dies.
#[derive(Debug)]
enum Nothing {}

#[cfg(feature = "ractor-cluster")]
impl ractor::Message for Nothing {}

#[cfg_attr(feature = "ractor-async-trait", ractor::async_trait)]
impl Actor for FlightActor {
    type Msg = Nothing;
    /// Taken by the hook that runs it, so that a guard is dropped with the hook's future
    /// and not later with a supervision event.
    type State = Option<Start>;
    type Arguments = Start;

    async fn pre_start(
        &self,
        _: ActorRef<Nothing>,
        start: Start,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(Some(start))
    }

    /// Runs flights. The actor is linked at this point: a kill drops this future, and a
    /// panic is reported to the supervisor.
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
    /// Runs flights until the engine closes, or the load no longer needs this actor.
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
        // While the store is unavailable this waits, with the flight still in the table,
        // so that no other flight of the key begins in this process.
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
