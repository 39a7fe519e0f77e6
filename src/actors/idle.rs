//! The flight actors without a flight, in a stack. The first caller of a key takes one. Their
//! number follows the load. It spawns no actor and knows no record.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::coop::consume_budget;
use tokio::time::sleep;

use super::flight::Job;
use super::posted::Posted;
use crate::flights::Flights;

/// An actor that no flight needed for this long leaves the stack and stops. The stack is
/// checked this often, so an actor can stay for twice as long.
const PERIOD: Duration = Duration::from_secs(10);

/// The idle actors of one engine.
#[derive(Default)]
pub(crate) struct IdleActors(Posted<Stack>);

#[derive(Default)]
struct Stack {
    /// Dropping a sender stops its actor.
    actors: Vec<oneshot::Sender<Job>>,
    /// The smallest number since the last check: this many actors were not needed.
    fewest: usize,
    closed: bool,
}

impl IdleActors {
    /// An actor has become idle. The result gives it the next flight, or an error if it must
    /// stop; `None` if the engine closes.
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
    /// The flight, if no actor is idle.
    pub(super) fn run(&self, mut job: Job) -> Result<(), Job> {
        while let Some(actor) = self.pop() {
            // A dead actor does not take the flight. An actor that dies before it begins
            // drops the flight, whose guard answers.
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

    /// Closes the stack: each actor stops after its flight.
    pub(super) fn close(&self) {
        let actors = self.0.post(|stack| {
            stack.closed = true;
            std::mem::take(&mut stack.actors)
        });
        drop(actors);
    }

    /// Removes the actors that no flight has needed since the last call.
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

/// Stops idle actors that the load does not need, and shrinks the table of flights after a
/// burst, for as long as it runs. The engine's root owns it. It sleeps while no actor is idle.
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
