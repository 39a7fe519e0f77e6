//! An attempt to connect, and the time after which its runtime counts as stopped. It does
//! not connect by itself.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::command_error::CommandError;
use super::runtime::AbortOnDrop;

/// How long an attempt to connect may take: find the primary, connect, and identify the
/// server.
const MAX_ATTEMPT_TIME: Duration = Duration::from_secs(10);

/// An attempt to connect: a separate task, so that it survives the caller that started
/// it, and ends with the connection.
pub(crate) struct ConnectAttempt<T> {
    pub(crate) result: watch::Receiver<Option<Result<T, CommandError>>>,
    pub(crate) begun: Instant,
    pub(crate) _task: Option<AbortOnDrop>,
}

impl<T> ConnectAttempt<T> {
    pub(crate) fn is_running(&self) -> bool {
        // No sender and no result: its runtime has ended.
        self.result.borrow().is_some() || self.result.has_changed().is_ok() && !self.is_stuck()
    }

    /// Whether its own deadlines have passed: then no thread drives its runtime.
    pub(crate) fn is_stuck(&self) -> bool {
        self.result.borrow().is_none() && self.begun.elapsed() > MAX_ATTEMPT_TIME
    }
}
