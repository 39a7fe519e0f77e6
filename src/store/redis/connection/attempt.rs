//! An attempt to connect, and how long it may take before its runtime counts as
//! one that nobody drives.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::command_error::CommandError;
use super::runtime::AbortOnDrop;

/// How long an attempt to connect may take: finding the primary, connecting, and
/// asking whom the connection leads to.
const MAX_ATTEMPT_TIME: Duration = Duration::from_secs(10);

/// An attempt to connect: a task of its own, so that it survives the caller
/// who needed it first, and ends with the link.
pub(crate) struct ConnectAttempt<T> {
    pub(crate) result: watch::Receiver<Option<Result<T, CommandError>>>,
    pub(crate) begun: Instant,
    pub(crate) _task: Option<AbortOnDrop>,
}

impl<T> ConnectAttempt<T> {
    pub(crate) fn is_running(&self) -> bool {
        // Without a sender and a result, its runtime is gone.
        self.result.borrow().is_some() || self.result.has_changed().is_ok() && !self.is_stuck()
    }

    /// Whether it should have ended by its own deadlines: nobody drives its runtime.
    pub(crate) fn is_stuck(&self) -> bool {
        self.result.borrow().is_none() && self.begun.elapsed() > MAX_ATTEMPT_TIME
    }
}
