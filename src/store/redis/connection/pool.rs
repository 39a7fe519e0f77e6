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

use super::command_error::CommandError;
use super::monitored_stream::{Activity, Traffic};
use super::runtime::AbortOnDrop;
use super::server::OpenedConnection;
use super::shared::{COMMAND_TIMEOUT, SharedConnection, no_connection};
use super::subscriptions::Subscriptions;
use crate::store::alive;

/// After so long without use a connection is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// How often it is looked whether anything has moved.
const ACTIVITY_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Connections to one server.
pub(crate) struct ConnectionPool {
    permits: Semaphore,
    size: usize,
    traffic: Traffic,
    idle: Arc<Mutex<IdleConnections>>,
    /// Nobody waits for notices on these connections.
    no_subscriptions: Arc<Subscriptions>,
}

/// A connection of a pool, and the generation of the shared one when it was made: where
/// that is made anew, the address may lead to another server.
struct PooledConnection {
    opened: OpenedConnection,
    generation: u64,
}

/// Connections that nobody uses, the one that was used longest ago first.
#[derive(Default)]
struct IdleConnections {
    connections: Vec<(PooledConnection, Instant)>,
    sweeper: Option<AbortOnDrop>,
}

impl ConnectionPool {
    /// Of `size` connections at most.
    pub(crate) fn new(size: usize, traffic: Traffic) -> Self {
        Self {
            permits: Semaphore::new(size),
            size,
            traffic,
            idle: Arc::default(),
            no_subscriptions: Arc::default(),
        }
    }

    /// Sends commands in one go to where the link leads, once there is a connection
    /// that nobody else uses, which is waited for up to `turn`; the replies come as
    /// they are.
    pub(crate) async fn send(
        &self,
        connection: &SharedConnection,
        commands: &[Cmd],
        turn: Duration,
        limit: Duration,
    ) -> Result<Vec<Value>, CommandError> {
        let turn = timeout(turn, self.permits.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            return Err(self.busy(connection));
        };
        let pooled = self.connection(connection).await?;
        let replies = timeout(limit, send(&pooled.opened, commands)).await;
        self.end(connection, pooled, replies.ok(), limit)
    }

    /// The same for as long as anything moves: while it waits for its turn, of those
    /// that it waits for, and then of its own.
    pub(crate) async fn send_while_moving(
        &self,
        connection: &SharedConnection,
        commands: &[Cmd],
        queue_activity: &Activity,
    ) -> Result<Vec<Value>, CommandError> {
        let turn = while_moving(queue_activity, None, IDLE_TIMEOUT, self.permits.acquire()).await;
        let Some(Ok(_turn)) = turn else {
            return Err(self.busy(connection));
        };
        let pooled = self.connection(connection).await?;
        let sent = send(&pooled.opened, commands);
        let replies = while_moving(
            &pooled.opened.activity,
            Some(queue_activity),
            COMMAND_TIMEOUT,
            sent,
        )
        .await;
        self.end(connection, pooled, replies, COMMAND_TIMEOUT)
    }

    fn busy(&self, connection: &SharedConnection) -> CommandError {
        let address = connection.address();
        CommandError::Busy(format!(
            "all {} connections to {address} are in use",
            self.size
        ))
    }

    /// What became of the commands, and of their connection.
    fn end(
        &self,
        connection: &SharedConnection,
        pooled: PooledConnection,
        replies: Option<Result<Vec<Value>, CommandError>>,
        limit: Duration,
    ) -> Result<Vec<Value>, CommandError> {
        let failure = match replies {
            Some(Ok(replies)) => {
                let mut failures = replies.iter().filter_map(CommandError::from_reply);
                if failures.any(|failure| failure.ends_connection()) {
                    connection.invalidate();
                } else {
                    self.keep(connection, pooled);
                }
                return Ok(replies);
            }
            Some(Err(failure)) => failure,
            None => CommandError::Lost(format!(
                "{} did not answer within {} s",
                pooled.opened.server.address(),
                limit.as_secs()
            )),
        };
        // The others lead to the same server.
        lock(&self.idle).connections.clear();
        Err(failure)
    }

    /// A connection to the server that the link leads to at this moment.
    async fn connection(
        &self,
        connection: &SharedConnection,
    ) -> Result<PooledConnection, CommandError> {
        let generation = connection.generation().await?;
        let address = connection.server().await?.address();
        let idle = {
            let mut idle = lock(&self.idle);
            idle.connections.retain(|(pooled, _)| {
                pooled.generation == generation && leads_to(&pooled.opened, &address)
            });
            idle.connections.pop()
        };
        if let Some((pooled, _)) = idle {
            return Ok(pooled);
        }
        // By the way that the shared connection goes: it makes sure of whom it
        // leads to.
        let opened = timeout(
            COMMAND_TIMEOUT,
            connection.open_another(self.traffic, &self.no_subscriptions),
        )
        .await;
        let opened = opened.map_err(|_| no_connection())?;
        let opened = opened.map_err(|error| CommandError::Unsent(error.at(&address)))?;
        Ok(PooledConnection { opened, generation })
    }

    fn keep(&self, connection: &SharedConnection, pooled: PooledConnection) {
        let mut idle = lock(&self.idle);
        idle.connections.push((pooled, Instant::now()));
        let sweeper = idle.sweeper.as_ref();
        if sweeper.is_none_or(|task| task.0.is_finished()) {
            idle.sweeper = connection
                .runtime()
                .spawn(sweep(Arc::downgrade(&self.idle)));
        }
    }
}

/// What comes of it; `None` once nothing has moved for so long. Whoever waits for the
/// command is told, and so are those who wait in line behind it.
pub(crate) async fn while_moving<T>(
    activity: &Activity,
    queue_activity: Option<&Activity>,
    silence: Duration,
    sent: impl Future<Output = T>,
) -> Option<T> {
    let (begun, mut sent) = (Instant::now(), pin!(sent));
    loop {
        let last = activity.moved().max(begun);
        // A command that is only begun is no sign of life to those in line behind it.
        if last > begun || queue_activity.is_none() {
            alive::moved(last);
            if let Some(queue_activity) = queue_activity {
                queue_activity.record_at(last);
            }
        }
        let until = last + silence;
        match timeout_at(
            until.min(Instant::now() + ACTIVITY_POLL_INTERVAL),
            sent.as_mut(),
        )
        .await
        {
            Ok(answer) => return Some(answer),
            Err(_) if Instant::now() < activity.moved().max(begun) + silence => {}
            Err(_) => return None,
        }
    }
}

fn leads_to(opened: &OpenedConnection, address: &str) -> bool {
    !opened.is_closed() && opened.server.address() == address
}

async fn send(opened: &OpenedConnection, commands: &[Cmd]) -> Result<Vec<Value>, CommandError> {
    let mut connection = opened.connection.clone();
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
async fn sweep(idle: Weak<Mutex<IdleConnections>>) {
    loop {
        sleep(IDLE_TIMEOUT).await;
        let Some(idle) = idle.upgrade() else { return };
        let mut idle = lock(&idle);
        let now = Instant::now();
        idle.connections
            .retain(|(_, since)| now.duration_since(*since) < IDLE_TIMEOUT);
        if idle.connections.is_empty() {
            // The next one that is kept starts another.
            idle.sweeper = None;
            return;
        }
    }
}

fn lock(idle: &Mutex<IdleConnections>) -> MutexGuard<'_, IdleConnections> {
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
        let (activity, queue_activity) = (Activity::new(), Activity::new());
        let born = Instant::now();
        sleep(SECOND).await;
        let silent = while_moving(
            &activity,
            Some(&queue_activity),
            2 * SECOND,
            pending::<()>(),
        );
        assert_eq!(silent.await, None);
        assert_eq!((queue_activity.moved(), born.elapsed()), (born, 3 * SECOND));

        let moving = async {
            sleep(SECOND).await;
            activity.record_at(Instant::now());
            sleep(SECOND + SECOND / 2).await;
        };
        let sent = while_moving(&activity, Some(&queue_activity), 2 * SECOND, moving);
        assert_eq!(sent.await, Some(()));
        assert_eq!(queue_activity.moved(), born + 4 * SECOND);

        // In line, from the moment at which it got there.
        let in_line = async {
            sleep(SECOND).await;
            let turn = sleep(SECOND + SECOND / 2);
            while_moving(&queue_activity, None, 2 * SECOND, turn).await
        };
        let told = alive::within(Instant::now(), 2 * SECOND, in_line).await;
        assert_eq!(told, Some(Some(())));
    }
}
