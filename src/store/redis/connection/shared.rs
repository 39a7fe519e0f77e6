//! The connection to one server that all commands for it share: made on demand, replaced
//! when it fails, and used only under a deadline. It never sends a command twice.

use std::future::Future;
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisResult, Value};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::command_error::CommandError;
use super::connect_error::ConnectError;
use super::connector::Connector;
use super::monitored_stream::Traffic;
use super::runtime::StoreRuntime;
use super::server::{OpenedConnection, Server};
use super::state::{ConnectAttempt, ConnectionState, LiveConnection};
use super::subscriptions::Subscriptions;
use crate::store::alive;

/// How long a command may take, a new connection included.
pub(crate) const COMMAND_TIMEOUT: Duration = Duration::from_secs(2);

/// A command that its caller drops after this time, with no byte received since it was
/// sent, counts as timed out: callers might have shorter limits than [`COMMAND_TIMEOUT`],
/// and a silent connection must be replaced even then.
pub(crate) const MIN_SUSPICIOUS_AGE: Duration = Duration::from_millis(100);

/// The connection to the server of a connector. A clone is the same connection.
#[derive(Clone)]
pub(crate) struct SharedConnection {
    shared: Arc<SharedState>,
}

struct SharedState {
    connector: Arc<dyn Connector>,
    subscriptions: Arc<Subscriptions>,
    state: Mutex<ConnectionState>,
    generations: AtomicU64,
}

impl SharedConnection {
    /// Connects when it is first used.
    pub(crate) fn new(connector: Arc<dyn Connector>, subscriptions: Arc<Subscriptions>) -> Self {
        Self {
            shared: Arc::new(SharedState {
                connector,
                subscriptions,
                state: Mutex::new(ConnectionState::Down),
                generations: AtomicU64::new(0),
            }),
        }
    }

    /// With a first connection that is open already.
    pub(crate) fn with(
        connector: Arc<dyn Connector>,
        subscriptions: Arc<Subscriptions>,
        first: OpenedConnection,
    ) -> Self {
        let connection = Self::new(connector, subscriptions);
        *connection.shared.lock() = ConnectionState::Up(Arc::new(connection.shared.live(first)));
        connection
    }

    /// Where background work runs.
    pub(crate) fn runtime(&self) -> &StoreRuntime {
        self.shared.connector.runtime()
    }

    /// Host and port, or the name of the role.
    pub(crate) fn address(&self) -> String {
        self.shared.connector.address()
    }

    /// The host, where it is always the same.
    pub(crate) fn host(&self) -> String {
        self.shared.connector.host()
    }

    /// Sends one command.
    pub(crate) async fn command(&self, command: &Cmd) -> Result<Value, CommandError> {
        let reply = self.using(None, slice::from_ref, |mut connection| async move {
            connection.send_packed_command(command).await
        });
        CommandError::check(reply.await?)
    }

    /// Sends commands in one go. Replies include errors.
    pub(crate) async fn send(&self, commands: &[Cmd]) -> Result<Vec<Value>, CommandError> {
        self.send_all(None, commands).await
    }

    /// The same, on the connection with that generation only.
    pub(crate) async fn send_on(
        &self,
        generation: u64,
        commands: &[Cmd],
    ) -> Result<Vec<Value>, CommandError> {
        self.send_all(Some(generation), commands).await
    }

    async fn send_all(
        &self,
        generation: Option<u64>,
        commands: &[Cmd],
    ) -> Result<Vec<Value>, CommandError> {
        self.using(generation, Vec::as_slice, |mut connection| async move {
            if let [command] = commands {
                return Ok(vec![connection.send_packed_command(command).await?]);
            }
            let mut pipeline = redis::pipe();
            for command in commands {
                pipeline.add_command(command.clone());
            }
            connection
                .send_packed_commands(&pipeline, 0, commands.len())
                .await
        })
        .await
    }

    /// Another connection to the same server, for one caller.
    pub(crate) async fn open_another(
        &self,
        traffic: Traffic,
        subscriptions: &Arc<Subscriptions>,
    ) -> Result<OpenedConnection, ConnectError> {
        self.shared.connector.open(traffic, subscriptions).await
    }

    /// The server of the current connection.
    pub(crate) async fn server(&self) -> Result<Server, CommandError> {
        Ok(self.live_in_time().await?.server.clone())
    }

    /// The generation of the current connection.
    pub(crate) async fn generation(&self) -> Result<u64, CommandError> {
        Ok(self.live_in_time().await?.generation)
    }

    /// The same, without connecting; `None` while there is no connection.
    pub(crate) fn current_generation(&self) -> Option<u64> {
        Some(self.shared.up()?.generation)
    }

    /// Makes the next command connect again, since this server is not the right one.
    pub(crate) fn invalidate(&self) {
        if let Some(live) = self.shared.up() {
            self.drop_connection(&live);
        }
    }

    /// Subscribes to channels, on the connection with that generation only.
    pub(crate) async fn subscribe(
        &self,
        generation: u64,
        to: &[String],
    ) -> Result<(), CommandError> {
        let none = |_: &()| -> &[Value] { &[] };
        self.using(Some(generation), none, |mut connection| async move {
            connection.subscribe(to).await
        })
        .await
    }

    /// Unsubscribes from channels, on the connection with that generation only.
    pub(crate) async fn unsubscribe(
        &self,
        generation: u64,
        to: &[String],
    ) -> Result<(), CommandError> {
        let none = |_: &()| -> &[Value] { &[] };
        self.using(Some(generation), none, |mut connection| async move {
            connection.unsubscribe(to).await
        })
        .await
    }

    /// `SSUBSCRIBE` or `SUNSUBSCRIBE`, one command for each channel, since one command takes
    /// channels of one slot only.
    pub(crate) async fn shard_channels(
        &self,
        generation: u64,
        verb: &str,
        channels: &[String],
    ) -> Result<Vec<Value>, CommandError> {
        self.using(
            Some(generation),
            Vec::as_slice,
            |mut connection| async move {
                let mut pipeline = redis::pipe();
                for channel in channels {
                    pipeline.cmd(verb).arg(channel);
                }
                connection
                    .send_packed_commands(&pipeline, 0, channels.len())
                    .await
            },
        )
        .await
    }

    /// Sends something on the current connection. `replies` finds the server's replies in
    /// the result.
    async fn using<T, F, Fut>(
        &self,
        generation: Option<u64>,
        replies: fn(&T) -> &[Value],
        send: F,
    ) -> Result<T, CommandError>
    where
        F: FnOnce(MultiplexedConnection) -> Fut,
        Fut: Future<Output = RedisResult<T>>,
    {
        let begun = Instant::now();
        let (live, sent) = match self.shared.up() {
            Some(live) => (live, begun),
            None => (Box::pin(self.live_in_time()).await?, Instant::now()),
        };
        if generation.is_some_and(|wanted| wanted != live.generation) {
            return Err(CommandError::Unsent("the connection was replaced".into()));
        }
        let mut guard = AbandonedCommandGuard {
            connection: self,
            live: &live,
            sent,
            over: false,
        };
        // Boxed: it is larger than the futures around it, which would be moved with it.
        let answer = Box::pin(send(live.connection.clone()));
        let answer = alive::by(begun + COMMAND_TIMEOUT, answer).await;
        guard.over = true;
        let late = answer.is_none();
        let failure = match answer {
            Some(Ok(answer)) => {
                let mut failures = replies(&answer).iter().filter_map(CommandError::from_reply);
                if failures.any(|failure| failure.ends_connection()) {
                    self.drop_connection(&live);
                }
                return Ok(answer);
            }
            Some(Err(error)) => CommandError::from(error),
            None => CommandError::Lost(format!(
                "{} did not answer within {} s",
                live.server.address(),
                COMMAND_TIMEOUT.as_secs()
            )),
        };
        // A slow connection that delivers bytes is kept.
        if failure.ends_connection() && !(late && live.received_since(sent)) {
            self.drop_connection(&live);
        }
        Err(failure)
    }

    async fn live_in_time(&self) -> Result<Arc<LiveConnection>, CommandError> {
        let live = timeout_at(Instant::now() + COMMAND_TIMEOUT, self.live());
        live.await.map_err(|_| no_connection())?
    }

    /// The connection, made first where there is none.
    async fn live(&self) -> Result<Arc<LiveConnection>, CommandError> {
        let mut attempt = {
            let mut state = self.shared.lock();
            match &*state {
                ConnectionState::Up(live) if !live.is_closed() => return Ok(live.clone()),
                ConnectionState::Connecting(attempt) if attempt.is_running() => {
                    attempt.result.clone()
                }
                other => {
                    if matches!(other, ConnectionState::Connecting(attempt) if attempt.is_stuck()) {
                        self.shared.connector.runtime().adopt_current_runtime();
                    }
                    let attempt = self.attempt();
                    let result = attempt.result.clone();
                    *state = ConnectionState::Connecting(attempt);
                    result
                }
            }
        };
        let ended = || CommandError::Unsent("the attempt to connect was ended".into());
        let result = attempt
            .wait_for(Option::is_some)
            .await
            .map_err(|_| ended())?;
        result.clone().unwrap_or_else(|| Err(ended()))
    }

    fn attempt(&self) -> ConnectAttempt<Arc<LiveConnection>> {
        let (done, result) = watch::channel(None);
        let shared = Arc::downgrade(&self.shared);
        let (connector, subscriptions) = (
            self.shared.connector.clone(),
            self.shared.subscriptions.clone(),
        );
        let task = self.shared.connector.runtime().spawn(async move {
            let opened = connector.open(Traffic::Commands, &subscriptions).await;
            let Some(shared) = shared.upgrade() else {
                return;
            };
            let built = opened.map(|opened| Arc::new(shared.live(opened)));
            let built = built.map_err(|error| CommandError::Unsent(error.at(&connector.address())));
            done.send_replace(Some(built.clone()));
            *shared.lock() = built.map_or(ConnectionState::Down, ConnectionState::Up);
            shared.connector.runtime().signal_connected();
        });
        ConnectAttempt {
            result,
            begun: Instant::now(),
            _task: task,
        }
    }

    /// Makes the next command connect again, unless another command did already.
    fn drop_connection(&self, failed: &LiveConnection) {
        let mut state = self.shared.lock();
        if matches!(&*state, ConnectionState::Up(live) if live.generation == failed.generation) {
            *state = ConnectionState::Down;
            drop(state);
            // The subscriber needs a connection, too.
            self.shared.subscriptions.wake();
        }
    }
}

impl SharedState {
    /// The connection, where there is one that can be used.
    fn up(&self) -> Option<Arc<LiveConnection>> {
        match &*self.lock() {
            ConnectionState::Up(live) if !live.is_closed() => Some(live.clone()),
            _ => None,
        }
    }

    fn live(&self, opened: OpenedConnection) -> LiveConnection {
        let OpenedConnection { server, closed, .. } = &opened;
        let watch = self.connector.watch(server, closed, &self.subscriptions);
        LiveConnection {
            generation: self.generations.fetch_add(1, Ordering::Relaxed) + 1,
            server: opened.server,
            connection: opened.connection,
            closed: opened.closed,
            activity: opened.activity,
            _driver: opened.driver,
            _identity_watch: watch,
        }
    }

    fn lock(&self) -> MutexGuard<'_, ConnectionState> {
        // Every change under this lock is one assignment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Drops a silent connection when the caller of a command drops the command.
struct AbandonedCommandGuard<'a> {
    connection: &'a SharedConnection,
    live: &'a LiveConnection,
    sent: Instant,
    over: bool,
}

impl Drop for AbandonedCommandGuard<'_> {
    fn drop(&mut self) {
        if !self.over
            && self.sent.elapsed() >= MIN_SUSPICIOUS_AGE
            && !self.live.received_since(self.sent)
        {
            self.connection.drop_connection(self.live);
        }
    }
}

pub(crate) fn no_connection() -> CommandError {
    CommandError::Unsent(format!(
        "no connection within {} s",
        COMMAND_TIMEOUT.as_secs()
    ))
}
