//! What a shared connection needs to know of its server: how to reach it, and when
//! it is no longer the right one. A connector keeps no connection.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use redis::{Cmd, Value};
use tokio::time::timeout;

use super::command_error::Failure;
use super::connect_error::DialError;
use super::monitored_stream::Load;
use super::runtime::{AbortOnDrop, Home};
use super::server::{Dialled, Server};
use super::subscriptions::Notices;
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
    fn home(&self) -> &Home;

    /// Connects, logs in, and verifies that the server is the right one. The server's
    /// push messages go to `notices`.
    fn dial<'a>(
        &'a self,
        load: Load,
        notices: &'a Arc<Notices>,
    ) -> BoxFuture<'a, Result<Dialled, DialError>>;

    /// A task that sets `closed` when `server` is no longer the right one.
    fn watch(
        &self,
        _server: &Server,
        _closed: &Arc<AtomicBool>,
        _notices: &Arc<Notices>,
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

    fn home(&self) -> &Home {
        self.home()
    }

    fn dial<'a>(
        &'a self,
        load: Load,
        notices: &'a Arc<Notices>,
    ) -> BoxFuture<'a, Result<Dialled, DialError>> {
        Box::pin(self.dial_for(load, notices))
    }
}

/// Sends one command on a new connection.
pub(crate) async fn identify(dialled: &Dialled, question: &Cmd) -> Result<Value, Failure> {
    let mut connection = dialled.connection.clone();
    match timeout(MAX_IDENTIFY_TIME, connection.send_packed_command(question)).await {
        Ok(reply) => reply.map_err(Failure::from).and_then(Failure::or_reply),
        Err(_) => Err(Failure::Lost("does not answer".into())),
    }
}
