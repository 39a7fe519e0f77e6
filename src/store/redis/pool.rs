//! A few connections to one server of which each has one command under way at a
//! time: for what would hold up all others on the connection that they share. They
//! are made on demand, and closed when nobody has needed them for a while.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use redis::{Cmd, Value, pipe};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::attempt::AbortOnDrop;
use super::failure::Failure;
use super::link::{DEADLINE, Link, no_connection};
use super::notices::Notices;
use super::server::Dialled;
use super::wire::{Life, Load};
use crate::store::alive;

/// After so long without use a connection is closed.
const IDLE: Duration = Duration::from_secs(10);

/// How often it is looked whether anything has moved.
const STEP: Duration = Duration::from_millis(50);

/// Connections to one server.
pub(super) struct Pool {
    turns: Semaphore,
    size: usize,
    load: Load,
    idle: Arc<Mutex<Idle>>,
    /// Nobody waits for notices on these connections.
    unheard: Arc<Notices>,
}

/// A connection of a pool, and the generation of the shared one when it was made: where
/// that is made anew, the address may lead to another server.
struct Own {
    dialled: Dialled,
    generation: u64,
}

/// Connections that nobody uses, the one that was used longest ago first.
#[derive(Default)]
struct Idle {
    connections: Vec<(Own, Instant)>,
    sweeper: Option<AbortOnDrop>,
}

impl Pool {
    /// Of `size` connections at most.
    pub(super) fn new(size: usize, load: Load) -> Self {
        Self {
            turns: Semaphore::new(size),
            size,
            load,
            idle: Arc::default(),
            unheard: Arc::default(),
        }
    }

    /// Sends commands in one go to where the link leads, once there is a connection
    /// that nobody else uses, which is waited for up to `turn`; the replies come as
    /// they are.
    pub(super) async fn send(
        &self,
        link: &Link,
        commands: &[Cmd],
        turn: Duration,
        limit: Duration,
    ) -> Result<Vec<Value>, Failure> {
        let turn = timeout(turn, self.turns.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            return Err(self.busy(link));
        };
        let own = self.connection(link).await?;
        let replies = timeout(limit, send(&own.dialled, commands)).await;
        self.end(link, own, replies.ok(), limit)
    }

    /// The same for as long as anything moves: while it waits for its turn, of those
    /// that it waits for, and then of its own.
    pub(super) async fn send_while_moving(
        &self,
        link: &Link,
        commands: &[Cmd],
        line: &Life,
    ) -> Result<Vec<Value>, Failure> {
        let turn = while_moving(line, None, IDLE, self.turns.acquire()).await;
        let Some(Ok(_turn)) = turn else {
            return Err(self.busy(link));
        };
        let own = self.connection(link).await?;
        let sent = send(&own.dialled, commands);
        let replies = while_moving(&own.dialled.life, Some(line), DEADLINE, sent).await;
        self.end(link, own, replies, DEADLINE)
    }

    fn busy(&self, link: &Link) -> Failure {
        let address = link.address();
        Failure::Busy(format!(
            "all {} connections to {address} are in use",
            self.size
        ))
    }

    /// What became of the commands, and of their connection.
    fn end(
        &self,
        link: &Link,
        own: Own,
        replies: Option<Result<Vec<Value>, Failure>>,
        limit: Duration,
    ) -> Result<Vec<Value>, Failure> {
        let failure = match replies {
            Some(Ok(replies)) => {
                let mut failures = replies.iter().filter_map(Failure::in_reply);
                if failures.any(|failure| failure.ends_connection()) {
                    link.doubt();
                } else {
                    self.keep(link, own);
                }
                return Ok(replies);
            }
            Some(Err(failure)) => failure,
            None => Failure::Lost(format!(
                "{} did not answer within {} s",
                own.dialled.server.address(),
                limit.as_secs()
            )),
        };
        // The others lead to the same server.
        lock(&self.idle).connections.clear();
        Err(failure)
    }

    /// A connection to the server that the link leads to at this moment.
    async fn connection(&self, link: &Link) -> Result<Own, Failure> {
        let generation = link.generation().await?;
        let address = link.server().await?.address();
        let idle = {
            let mut idle = lock(&self.idle);
            idle.connections.retain(|(own, _)| {
                own.generation == generation && leads_to(&own.dialled, &address)
            });
            idle.connections.pop()
        };
        if let Some((own, _)) = idle {
            return Ok(own);
        }
        // By the way that the shared connection goes: it makes sure of whom it
        // leads to.
        let dialled = timeout(DEADLINE, link.dial_another(self.load, &self.unheard)).await;
        let dialled = dialled.map_err(|_| no_connection())?;
        let dialled = dialled.map_err(|error| Failure::Unsent(error.at(&address)))?;
        Ok(Own {
            dialled,
            generation,
        })
    }

    fn keep(&self, link: &Link, own: Own) {
        let mut idle = lock(&self.idle);
        idle.connections.push((own, Instant::now()));
        let sweeper = idle.sweeper.as_ref();
        if sweeper.is_none_or(|task| task.0.is_finished()) {
            idle.sweeper = link.home().spawn(sweep(Arc::downgrade(&self.idle)));
        }
    }
}

/// What comes of it; `None` once nothing has moved for so long. Whoever waits for the
/// command is told, and so are those who wait in line behind it.
pub(super) async fn while_moving<T>(
    life: &Life,
    line: Option<&Life>,
    silence: Duration,
    sent: impl Future<Output = T>,
) -> Option<T> {
    let (begun, mut sent) = (Instant::now(), pin!(sent));
    loop {
        let last = life.moved().max(begun);
        // A command that is only begun is no sign of life to those in line behind it.
        if last > begun || line.is_none() {
            alive::moved(last);
            if let Some(line) = line {
                line.move_at(last);
            }
        }
        let until = last + silence;
        match timeout_at(until.min(Instant::now() + STEP), sent.as_mut()).await {
            Ok(answer) => return Some(answer),
            Err(_) if Instant::now() < life.moved().max(begun) + silence => {}
            Err(_) => return None,
        }
    }
}

fn leads_to(dialled: &Dialled, address: &str) -> bool {
    !dialled.is_closed() && dialled.server.address() == address
}

async fn send(dialled: &Dialled, commands: &[Cmd]) -> Result<Vec<Value>, Failure> {
    let mut connection = dialled.connection.clone();
    if let [command] = commands {
        return Ok(vec![connection.send_packed_command(command).await?]);
    }
    let mut all = pipe();
    for command in commands {
        all.add_command(command.clone());
    }
    let replies = connection.send_packed_commands(&all, 0, commands.len());
    Ok(replies.await?)
}

/// Closes connections that nobody has used for a while, and ends with the last.
async fn sweep(idle: Weak<Mutex<Idle>>) {
    loop {
        sleep(IDLE).await;
        let Some(idle) = idle.upgrade() else { return };
        let mut idle = lock(&idle);
        let now = Instant::now();
        idle.connections
            .retain(|(_, since)| now.duration_since(*since) < IDLE);
        if idle.connections.is_empty() {
            // The next one that is kept starts another.
            idle.sweeper = None;
            return;
        }
    }
}

fn lock(idle: &Mutex<Idle>) -> MutexGuard<'_, Idle> {
    // Every change under this lock leaves whole connections.
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Red where a command that has only begun counts as movement for the line behind
    /// it (a server that takes one command after another and answers none kept all of
    /// them waiting), or where what moved does not; and where whoever is in line is not
    /// told of it: without the condition, its body, and `line.is_none()`.
    #[tokio::test(start_paused = true)]
    async fn line_moves_with_what_moved_and_not_with_what_began() {
        let (life, line) = (Life::new(), Life::new());
        let born = Instant::now();
        sleep(SECOND).await;
        let mute = while_moving(&life, Some(&line), 2 * SECOND, pending::<()>());
        assert_eq!(mute.await, None);
        assert_eq!((line.moved(), born.elapsed()), (born, 3 * SECOND));

        let moving = async {
            sleep(SECOND).await;
            life.move_at(Instant::now());
            sleep(SECOND + SECOND / 2).await;
        };
        let sent = while_moving(&life, Some(&line), 2 * SECOND, moving);
        assert_eq!(sent.await, Some(()));
        assert_eq!(line.moved(), born + 4 * SECOND);

        // In line, from the moment at which it got there.
        let in_line = async {
            sleep(SECOND).await;
            let turn = sleep(SECOND + SECOND / 2);
            while_moving(&line, None, 2 * SECOND, turn).await
        };
        let told = alive::within(Instant::now(), 2 * SECOND, in_line).await;
        assert_eq!(told, Some(Some(())));
    }
}
