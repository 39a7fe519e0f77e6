//! What a shared connection needs to know of its server: how to reach it, and when
//! it is no longer the right one. A connector keeps no connection.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use redis::{Cmd, Value};
use tokio::time::timeout;

use super::command_error::CommandError;
use super::connect_error::ConnectError;
use super::monitored_stream::Traffic;
use super::runtime::{AbortOnDrop, StoreRuntime};
use super::server::{OpenedConnection, Server};
use super::subscriptions::Subscriptions;
use crate::store::BoxFuture;

/// How long a new connection may take to identify its server.
const MAX_IDENTIFY_TIME: Duration = Duration::from_secs(1);

/// Connects to one server, or to whichever server has a role now.
pub(crate) trait Connector: Send + Sync {
    /// For messages: host and port, or the name of the role.
    fn address(&self) -> String;

    /// The host, where it is always the same; else empty.
    fn host(&self) -> String;

    /// Where background work for the connection runs.
    fn runtime(&self) -> &StoreRuntime;

    /// Connects, logs in, and verifies that the server is the right one. The server's
    /// push messages go to `subscriptions`.
    fn open<'a>(
        &'a self,
        traffic: Traffic,
        subscriptions: &'a Arc<Subscriptions>,
    ) -> BoxFuture<'a, Result<OpenedConnection, ConnectError>>;

    /// A task that sets `closed` when `server` is no longer the right one.
    fn watch(
        &self,
        _server: &Server,
        _closed: &Arc<AtomicBool>,
        _notices: &Arc<Subscriptions>,
    ) -> Option<AbortOnDrop> {
        None
    }
}

/// Any server at this address.
impl Connector for Server {
    fn address(&self) -> String {
        self.address()
    }

    fn host(&self) -> String {
        self.host().to_owned()
    }

    fn runtime(&self) -> &StoreRuntime {
        self.runtime()
    }

    fn open<'a>(
        &'a self,
        traffic: Traffic,
        subscriptions: &'a Arc<Subscriptions>,
    ) -> BoxFuture<'a, Result<OpenedConnection, ConnectError>> {
        Box::pin(self.open_for(traffic, subscriptions))
    }
}

/// Sends one command on a new connection.
pub(crate) async fn identify(
    opened: &OpenedConnection,
    question: &Cmd,
) -> Result<Value, CommandError> {
    let mut connection = opened.connection.clone();
    match timeout(MAX_IDENTIFY_TIME, connection.send_packed_command(question)).await {
        Ok(reply) => reply
            .map_err(CommandError::from)
            .and_then(CommandError::check),
        Err(_) => Err(CommandError::Lost("does not answer".into())),
    }
}
