//! The execution actors that have no flight: a stack, from which the caller that
//! admits the first request of a key takes one. Their number follows the load. It
//! spawns no actor and knows nothing of records.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::coop::consume_budget;
use tokio::time::sleep;

use super::flight::Job;
use super::posted::Posted;
use crate::flights::Flights;

/// An actor that no flight needed for this long leaves the stack, and stops. It is
/// asked for that often, so that an actor may stay for twice as long.
const PERIOD: Duration = Duration::from_secs(10);

/// The idle actors of one engine.
#[derive(Default)]
pub(crate) struct IdleActors(Posted<Stack>);

#[derive(Default)]
struct Stack {
    /// Dropping a sender stops its actor.
    actors: Vec<oneshot::Sender<Job>>,
    /// The fewest since the last look: so many of the oldest were of no use.
    fewest: usize,
    closed: bool,
}

impl IdleActors {
    /// An actor has no flight any more. It gets the next one by the result, or an
    /// error where it is to stop; `None` where the engine closes.
    pub(super) fn join(&self) -> Option<oneshot::Receiver<Job>> {
        let (actor, next) = oneshot::channel();
        self.0.post(|stack| {
            let open = !stack.closed;
            if open {
                stack.actors.push(actor);
            }
            open.then_some(next)
        })
    }

    /// Gives the flight to an idle actor.
    ///
    /// # Errors
    ///
    /// The flight, where none is idle.
    pub(super) fn run(&self, mut job: Job) -> Result<(), Job> {
        while let Some(actor) = self.pop() {
            // An actor that has died since takes nothing. One that dies before it
            // begins drops the flight, whose guard answers.
            match actor.send(job) {
                Ok(()) => return Ok(()),
                Err(back) => job = back,
            }
        }
        Err(job)
    }

    fn pop(&self) -> Option<oneshot::Sender<Job>> {
        let mut stack = self.0.read();
        let actor = stack.actors.pop();
        stack.fewest = stack.fewest.min(stack.actors.len());
        actor
    }

    /// No actor is idle from now on: each stops after its flight.
    pub(super) fn close(&self) {
        let actors = self.0.post(|stack| {
            stack.closed = true;
            std::mem::take(&mut stack.actors)
        });
        drop(actors);
    }

    /// Takes out the actors that no flight needed since this was called last.
    fn unused(&self) -> Vec<oneshot::Sender<Job>> {
        let mut stack = self.0.read();
        let fewest = stack.fewest.min(stack.actors.len());
        let unused = stack.actors.drain(..fewest).collect();
        let left = stack.actors.len();
        stack.fewest = left;
        if stack.actors.capacity() / 4 > left {
            stack.actors.shrink_to(2 * left);
        }
        unused
    }
}

/// Stops idle actors that the load does not need, and gives back what a burst made
/// the table of flights reserve, for as long as it runs: the engine's root owns it.
/// It sleeps while no actor is idle.
///
/// # Cancel safety
///
/// Cancel safe.
pub(super) async fn follow_load(idle: Arc<IdleActors>, flights: Arc<Flights>) {
    loop {
        let any = |stack: &Stack| (!stack.actors.is_empty()).then_some(());
        idle.0.wait_for(any).await;
        sleep(PERIOD).await;
        for actor in idle.unused() {
            drop(actor);
            consume_budget().await;
        }
        flights.shrink();
    }
}
