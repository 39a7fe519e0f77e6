//! What commands go through on their way to a key: the routes that all share, or
//! a connection of its own. It says nothing of how often one may be sent.

use std::future::Future;
use std::slice;
use std::time::Duration;

use redis::{Cmd, Value};

use super::command_error::CommandError;
use super::monitored_stream::Activity;

/// Which of a server's connections commands go by.
#[derive(Clone, Copy)]
pub(crate) enum Lane<'a> {
    /// The one that all share.
    Shared,
    /// One of those that take large bodies, with nothing else on it; and when any of
    /// the bodies last moved that wait for one another.
    Bodies(&'a Activity),
    /// One of those on which commands wait for replicas, for that long.
    ReplicaAcks(Duration),
}

/// What takes commands to the server that has a key, and brings the replies.
pub(crate) trait Transport: Sync {
    /// Sends commands about one key in one go. The replies come as they are,
    /// errors included. A cluster may send all of them again where one was
    /// answered with a redirection, so those before the last only read.
    fn send(
        &self,
        key: &str,
        commands: &[Cmd],
    ) -> impl Future<Output = Result<Vec<Value>, CommandError>> + Send;

    /// Whether notices go to the shard that has the key, not to all servers.
    fn is_sharded(&self) -> bool;

    /// Sends one command, and tells an error from a reply.
    fn command(
        &self,
        key: &str,
        command: &Cmd,
    ) -> impl Future<Output = Result<Value, CommandError>> + Send {
        async move { single_reply(self.send(key, slice::from_ref(command)).await?) }
    }
}

/// The reply to the one command that was sent.
pub(crate) fn single_reply(replies: Vec<Value>) -> Result<Value, CommandError> {
    let [reply] = exact_replies(replies)?;
    CommandError::check(reply)
}

/// As many replies as there were commands.
pub(crate) fn exact_replies<const N: usize>(
    replies: Vec<Value>,
) -> Result<[Value; N], CommandError> {
    replies.try_into().map_err(|_| CommandError::unexpected())
}
