//! The state of a shared connection: none, an attempt to connect, or an open connection. It
//! neither connects nor sends by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tokio::sync::watch;
use tokio::time::Instant;

use super::command_error::CommandError;
use super::monitored_stream::Activity;
use super::runtime::AbortOnDrop;
use super::server::Server;

/// How long an attempt to connect may take: find the primary, connect, and identify the
/// server.
const MAX_ATTEMPT_TIME: Duration = Duration::from_secs(10);

/// The state of a shared connection.
pub(super) enum ConnectionState {
    /// The next command connects.
    Down,
    /// All commands wait for this attempt.
    Connecting(ConnectAttempt<Arc<LiveConnection>>),
    Up(Arc<LiveConnection>),
}

/// An open connection and its activity.
pub(super) struct LiveConnection {
    pub(super) generation: u64,
    pub(super) server: Server,
    pub(super) connection: MultiplexedConnection,
    pub(super) closed: Arc<AtomicBool>,
    pub(super) activity: Arc<Activity>,
    pub(super) _driver: AbortOnDrop,
    /// Closes it when the connector has another server.
    pub(super) _identity_watch: Option<AbortOnDrop>,
}

impl LiveConnection {
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(super) fn received_since(&self, then: Instant) -> bool {
        self.activity.last_received() >= then
    }
}

/// An attempt to connect: a separate task, so that it survives the caller that started
/// it, and ends with the connection.
pub(super) struct ConnectAttempt<T> {
    pub(super) result: watch::Receiver<Option<Result<T, CommandError>>>,
    pub(super) begun: Instant,
    pub(super) _task: Option<AbortOnDrop>,
}

impl<T> ConnectAttempt<T> {
    pub(super) fn is_running(&self) -> bool {
        // No sender and no result: its runtime has ended.
        self.result.borrow().is_some() || self.result.has_changed().is_ok() && !self.is_stuck()
    }

    /// Whether its own deadlines have passed: then no thread drives its runtime.
    pub(super) fn is_stuck(&self) -> bool {
        self.result.borrow().is_none() && self.begun.elapsed() > MAX_ATTEMPT_TIME
    }
}
