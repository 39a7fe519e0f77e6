//! A few connections to one server, each with one command at a time: for commands that
//! would block the others on the shared connection. They are made on demand, and closed
//! after some time without use.

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

/// How long a connection stays open without use.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// How often to check the activity.
const ACTIVITY_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Connections to one server.
pub(crate) struct ConnectionPool {
    permits: Semaphore,
    size: usize,
    traffic: Traffic,
    idle: Arc<Mutex<IdleConnections>>,
    /// Empty: these connections receive no notifications.
    no_subscriptions: Arc<Subscriptions>,
}

/// A connection of a pool, and the generation of the shared one when it was made: after
/// that is replaced, the address might belong to another server.
struct PooledConnection {
    opened: OpenedConnection,
    generation: u64,
}

/// Unused connections, the least recently used first.
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

    /// Sends commands in one go to the server of the shared connection. Waits up to `turn`
    /// for a free connection. Replies include errors.
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

    /// The same, with a limit on inactivity instead of time: of the transfers before it
    /// while it waits for a connection, and then of its own.
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

    /// Returns the result, and keeps or drops the connection.
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
        // The others go to the same server.
        lock(&self.idle).connections.clear();
        Err(failure)
    }

    /// A connection to the current server of the shared connection.
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
        // Through the same connector, which verifies the identity of the server.
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

/// The result, or `None` after `silence` without activity. Activity is reported to the
/// caller that waits for the command, and to the commands that wait in the queue.
pub(crate) async fn while_moving<T>(
    activity: &Activity,
    queue_activity: Option<&Activity>,
    silence: Duration,
    sent: impl Future<Output = T>,
) -> Option<T> {
    let (begun, mut sent) = (Instant::now(), pin!(sent));
    loop {
        let last = activity.moved().max(begun);
        // That a command has only begun counts as no activity for the queue behind it.
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

/// Closes connections after [`IDLE_TIMEOUT`] without use, and ends with the last.
async fn sweep(idle: Weak<Mutex<IdleConnections>>) {
    loop {
        sleep(IDLE_TIMEOUT).await;
        let Some(idle) = idle.upgrade() else { return };
        let mut idle = lock(&idle);
        let now = Instant::now();
        idle.connections
            .retain(|(_, since)| now.duration_since(*since) < IDLE_TIMEOUT);
        if idle.connections.is_empty() {
            // The next connection that is kept starts another task.
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

    /// Red where a command that has only begun counts as activity for the queue behind it
    /// (a server that accepts one command after another and answers none kept all of them
    /// waiting), where real activity does not count, and where a queued command does not
    /// report it: without the condition, its body, and `queue_activity.is_none()`.
    #[tokio::test(start_paused = true)]
    async fn queue_activity_excludes_started_commands() {
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

        // In the queue, counted from its entry.
        let queued = async {
            sleep(SECOND).await;
            let turn = sleep(SECOND + SECOND / 2);
            while_moving(&queue_activity, None, 2 * SECOND, turn).await
        };
        let reported = alive::within(Instant::now(), 2 * SECOND, queued).await;
        assert_eq!(reported, Some(Some(())));
    }
}
