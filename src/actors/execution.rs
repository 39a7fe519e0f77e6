//! One key from `Hashed` to `Cached`: an actor that lives for one flight. The
//! typestates do each step; this decides which step is next. All of it is one
//! future, that of the hook after the start, which a kill may drop anywhere.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr};
use tracing::Instrument as _;

use super::finish::finish;
use super::shared::Shared;
use crate::error::Error;
use crate::flights::Guard;

mod attempts;
mod elsewhere;
mod run;

/// A flight and what it takes to run it.
pub(crate) struct Job {
    pub guard: Box<Guard>,
    pub shared: Arc<Shared>,
}

/// Spawns the actor of one flight, linked to its supervisor.
pub(crate) fn spawn(
    job: Job,
    supervisor: ActorCell,
) -> impl Future<Output = Result<ActorCell, SpawnErr>> + Send {
    // Boxed: it is large, and the supervisor's handler would be as large for any
    // message.
    let spawned = Box::pin(Actor::spawn_linked(None, ExecutionActor, job, supervisor));
    async move {
        let (actor, _) = spawned.await?;
        Ok(actor.get_cell())
    }
}

struct ExecutionActor;

/// Nobody tells an execution anything.
#[derive(Debug)]
enum Nothing {}

#[cfg(feature = "ractor-cluster")]
impl ractor::Message for Nothing {}

#[cfg_attr(feature = "ractor-async-trait", ractor::async_trait)]
impl Actor for ExecutionActor {
    type Msg = Nothing;
    /// Taken by the hook that runs it, so that the guard dies with the hook's
    /// future and not with a supervision event that carries the state.
    type State = Option<Job>;
    type Arguments = Job;

    async fn pre_start(
        &self,
        _: ActorRef<Nothing>,
        job: Job,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(Some(job))
    }

    /// The whole flight. The actor is linked by now: a kill drops this future as
    /// it would a handler's, and a panic is told to the supervisor all the same.
    async fn post_start(
        &self,
        myself: ActorRef<Nothing>,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        if let Some(job) = state.take() {
            // Boxed: ractor keeps a hook's future twice, once as the argument
            // that it came as and once where it is polled.
            Box::pin(job.run()).await;
        }
        myself.stop(None);
        Ok(())
    }
}

impl Job {
    async fn run(self) {
        let cut_off = tokio::select! {
            biased;
            () = self.shared.cut_off() => true,
            () = run::fly(&self.shared, &self.guard).instrument(self.guard.span()) => false,
        };
        if cut_off {
            self.guard.answer(Err(Error::Stopped), Duration::ZERO);
        }
        // Where the store is down this waits for it, with the flight still in the
        // table, so that nobody in this process begins anew.
        let Self { shared, guard } = self;
        if !guard.progress().is_settled() {
            let finished = finish(&shared, guard.key(), guard.progress(), |error| {
                guard.not_finished(error);
            });
            if let Some(left) = Box::pin(finished).await {
                guard.recorded(left);
            }
        }
    }
}
