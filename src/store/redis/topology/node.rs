//! One server of a store: its connections for commands, and the waiters for its
//! notifications. It subscribes from the first wait on, and ends with its last owner.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::{Cmd, Value};
use tokio::sync::watch;
use tokio::time::timeout;

use super::member::MemberConnector;
use crate::store::redis::connection::command_error::CommandError;
use crate::store::redis::connection::connector::Connector;
use crate::store::redis::connection::monitored_stream::Traffic;
use crate::store::redis::connection::pool::ConnectionPool;
use crate::store::redis::connection::runtime::AbortOnDrop;
use crate::store::redis::connection::server::Server;
use crate::store::redis::connection::shared::{COMMAND_TIMEOUT, SharedConnection};
use crate::store::redis::connection::subscriber::{self, ChannelKind};
use crate::store::redis::connection::subscriptions::Subscriptions;
use crate::store::redis::connection::transport::Lane;

/// Connections for large bodies, and so the most transfers at once.
const BODY_CONNECTIONS: usize = 4;

/// Connections for transitions that wait for replicas.
const ACK_CONNECTIONS: usize = 16;

/// How long a transition waits for such a connection.
const MAX_POOL_WAIT: Duration = Duration::from_secs(1);

/// How long the transfer of a body may take.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// A server, or the primary that sentinels name.
pub(crate) struct Node {
    pub(crate) connection: SharedConnection,
    body_pool: ConnectionPool,
    ack_pool: ConnectionPool,
    /// Receives notifications; it connects with the first wait.
    subscriber: SharedConnection,
    subscriptions: Arc<Subscriptions>,
    channels: ChannelKind,
    /// Runs from the first wait on.
    subscriber_task: Mutex<Option<AbortOnDrop>>,
}

impl Node {
    /// One server for everything, or the primary that sentinels name.
    pub(crate) fn standalone(connection: SharedConnection, connector: Arc<dyn Connector>) -> Self {
        Self::with(connection, connector, ChannelKind::Ordinary)
    }

    /// A node of a cluster, with the id that it has there if that is known.
    pub(crate) fn in_cluster(server: &Server, id: Option<&str>) -> Self {
        let server = server.clone();
        let connector: Arc<dyn Connector> = match id {
            Some(id) => Arc::new(MemberConnector {
                server,
                id: id.to_owned(),
            }),
            None => Arc::new(server),
        };
        let connection = SharedConnection::new(connector.clone(), Arc::default());
        Self::with(connection, connector, ChannelKind::Sharded)
    }

    /// Notifications have a separate connection. A server limits the output of a subscribed
    /// connection and closes it beyond that. It also unsubscribes on its own, which
    /// redis-rs takes for the reply to a command.
    fn with(
        connection: SharedConnection,
        connector: Arc<dyn Connector>,
        channels: ChannelKind,
    ) -> Self {
        let subscriptions = Arc::new(Subscriptions::default());
        Self {
            connection,
            body_pool: ConnectionPool::new(BODY_CONNECTIONS, Traffic::Bodies),
            ack_pool: ConnectionPool::new(ACK_CONNECTIONS, Traffic::Commands),
            subscriber: SharedConnection::new(connector, subscriptions.clone()),
            subscriptions,
            channels,
            subscriber_task: Mutex::new(None),
        }
    }

    /// Sends commands in one go. Replies include errors.
    pub(crate) async fn send(
        &self,
        lane: Lane<'_>,
        commands: &[Cmd],
    ) -> Result<Vec<Value>, CommandError> {
        let connection = &self.connection;
        match lane {
            Lane::Shared => connection.send(commands).await,
            Lane::Bodies(line) => {
                let sent = Box::pin(self.body_pool.send_while_moving(connection, commands, line));
                let late = |_| {
                    Err(CommandError::Lost(
                        "the body was not transferred in time".into(),
                    ))
                };
                timeout(BODY_TIMEOUT, sent).await.unwrap_or_else(late)
            }
            Lane::ReplicaAcks(wait) => {
                let sent =
                    self.ack_pool
                        .send(connection, commands, MAX_POOL_WAIT, COMMAND_TIMEOUT + wait);
                Box::pin(sent).await
            }
        }
    }

    /// How long [`send`](Self::send) may take on that lane.
    pub(crate) fn limit(lane: Lane<'_>) -> Duration {
        match lane {
            Lane::Shared => COMMAND_TIMEOUT,
            Lane::Bodies(_) => BODY_TIMEOUT,
            Lane::ReplicaAcks(wait) => MAX_POOL_WAIT + 2 * COMMAND_TIMEOUT + wait,
        }
    }

    /// Completes when the record of that channel might have changed since the future was
    /// first polled.
    pub(crate) async fn changed(&self, channel: String) {
        let mut changes = self.subscribe(channel);
        // An error means that the channel is gone: a reason to read, too.
        let _ = changes.changed().await;
    }

    /// Changes with each notification on that channel, and when it is subscribed.
    pub(crate) fn subscribe(&self, channel: String) -> watch::Receiver<()> {
        let changes = self.subscriptions.subscribe(channel);
        self.start_subscriber();
        changes
    }

    fn start_subscriber(&self) {
        let mut subscriber_task = self
            .subscriber_task
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // A finished task means that its runtime has ended.
        if subscriber_task
            .as_ref()
            .is_none_or(|task| task.0.is_finished())
        {
            let task = subscriber::run(
                self.subscriber.clone(),
                self.subscriptions.clone(),
                self.channels,
            );
            *subscriber_task = self.subscriber.runtime().spawn(task);
        }
    }
}
