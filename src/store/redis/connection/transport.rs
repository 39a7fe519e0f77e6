//! What commands go through on their way to a key: the routes that all share, or
//! a connection of its own. It says nothing of how often one may be sent.

use std::future::Future;
use std::slice;
use std::time::Duration;

use redis::{Cmd, Value};

use super::command_error::Failure;
use super::monitored_stream::Life;

/// Which of a server's connections commands go by.
#[derive(Clone, Copy)]
pub(crate) enum Lane<'a> {
    /// The one that all share.
    Shared,
    /// One of those that take large bodies, with nothing else on it; and when any of
    /// the bodies last moved that wait for one another.
    Bodies(&'a Life),
    /// One of those on which commands wait for replicas, for that long.
    Copies(Duration),
}

/// What takes commands to the server that has a key, and brings the replies.
pub(crate) trait Carrier: Sync {
    /// Sends commands about one key in one go. The replies come as they are,
    /// errors included. A cluster may send all of them again where one was
    /// answered with a redirection, so those before the last only read.
    fn send(
        &self,
        key: &str,
        commands: &[Cmd],
    ) -> impl Future<Output = Result<Vec<Value>, Failure>> + Send;

    /// Whether notices go to the shard that has the key, not to all servers.
    fn is_sharded(&self) -> bool;

    /// Sends one command, and tells an error from a reply.
    fn command(
        &self,
        key: &str,
        command: &Cmd,
    ) -> impl Future<Output = Result<Value, Failure>> + Send {
        async move { only(self.send(key, slice::from_ref(command)).await?) }
    }
}

/// The reply to the one command that was sent.
pub(crate) fn only(replies: Vec<Value>) -> Result<Value, Failure> {
    let [reply] = exactly(replies)?;
    Failure::or_reply(reply)
}

/// As many replies as there were commands.
pub(crate) fn exactly<const N: usize>(replies: Vec<Value>) -> Result<[Value; N], Failure> {
    replies.try_into().map_err(|_| Failure::unexpected())
}
