//! How commands reach the server that has a key. It does not decide how often a command
//! may be sent.

use std::future::Future;
use std::slice;
use std::time::Duration;

use redis::{Cmd, Value};

use super::command_error::CommandError;
use super::monitored_stream::Activity;

/// Which of a server's connections commands use.
#[derive(Clone, Copy)]
pub(crate) enum Lane<'a> {
    /// The shared one.
    Shared,
    /// One for large bodies, without other commands; with the latest activity of all
    /// bodies in transfer.
    Bodies(&'a Activity),
    /// One on which commands wait for replicas, up to that long.
    ReplicaAcks(Duration),
}

/// Sends commands to the server that has a key.
pub(crate) trait Transport: Sync {
    /// Sends commands about one key in one go. Replies include errors. A cluster might send
    /// all of them again after a redirection, so those before the last must only read.
    fn send(
        &self,
        key: &str,
        commands: &[Cmd],
    ) -> impl Future<Output = Result<Vec<Value>, CommandError>> + Send;

    /// Whether notifications go only to the shard that has the key.
    fn is_sharded(&self) -> bool;

    /// Sends one command; an error reply is an error.
    fn command(
        &self,
        key: &str,
        command: &Cmd,
    ) -> impl Future<Output = Result<Value, CommandError>> + Send {
        async move { single_reply(self.send(key, slice::from_ref(command)).await?) }
    }
}

/// The reply to a single command.
pub(crate) fn single_reply(replies: Vec<Value>) -> Result<Value, CommandError> {
    let [reply] = exact_replies(replies)?;
    CommandError::check(reply)
}

/// The replies to `N` commands.
pub(crate) fn exact_replies<const N: usize>(
    replies: Vec<Value>,
) -> Result<[Value; N], CommandError> {
    replies.try_into().map_err(|_| CommandError::unexpected())
}
