//! How the writer handles a file that failed or lost its name: reads continue where the
//! file can be read, and writes are retried. It recovers no record: the holders of this
//! process live on.

use std::time::{Duration, Instant};

use super::backing::{Mode, OVERWRITTEN};
use super::meta::FileIdentity;
use super::open::Opened;
use super::writer::Writer;
use crate::error::Error;
use crate::telemetry::contained;

/// How long after a failure the next write is tried, at least.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why nothing is written.
pub(super) struct Failure {
    pub(super) cause: String,
    /// When a write is tried again.
    pub(super) again: Instant,
}

impl Writer {
    /// Stops writes until the next try; `begun` is when the failed one began.
    pub(super) fn fail(&mut self, cause: String, begun: Instant) {
        // A large file is not read continuously.
        let again = Instant::now() + RETRY_AFTER.max(begun.elapsed() * 9);
        if self.failed.as_ref().is_none_or(|last| last.cause != cause) {
            contained(|| {
                tracing::error!(
                    path = %self.core.path.display(),
                    cause,
                    "the store's file cannot be written: the store retries"
                );
            });
        }
        self.failed = Some(Failure { cause, again });
    }

    /// Tries to write again where the last transaction failed, for instance by a full disk.
    /// It recovers no record: the holders of this process live on.
    pub(super) fn recover(&mut self) -> Result<(), String> {
        let Some(failure) = &self.failed else {
            return Ok(());
        };
        if Instant::now() < failure.again {
            return Err(failure.cause.clone());
        }
        let begun = Instant::now();
        let is_writable = |opened: &Opened| opened.mode == Mode::Write;
        let is_writable = self.core.slot().opened.as_ref().is_some_and(is_writable);
        let recovered = if is_writable {
            self.check_name()
        } else {
            self.open_again()
        };
        match recovered {
            Ok(()) => self.failed = None,
            Err(cause) => {
                self.fail(cause.clone(), begun);
                return Err(cause);
            }
        }
        Ok(())
    }

    /// Opens the file for writing again; if that fails, for reading.
    pub(super) fn open_again(&self) -> Result<(), String> {
        let cause = match self.reopen(Mode::Write) {
            Ok(()) => return Ok(()),
            Err(cause) => cause,
        };
        if self.reopen(Mode::Frozen).is_err() {
            self.core.slot_mut().outage = Some(cause.clone());
        }
        Err(cause)
    }

    /// Whether the name still refers to the open file. If not, reads fail as well.
    pub(super) fn check_name(&self) -> Result<(), String> {
        let named = {
            let slot = self.core.slot();
            slot.opened.as_ref().map(|opened| opened.named.clone())
        };
        let checked = named.map_or(Ok(()), |named| named.check());
        let outage = checked.err().map(|error| error.to_string());
        if self.core.slot().outage != outage {
            self.core.slot_mut().outage.clone_from(&outage);
        }
        outage.map_or(Ok(()), Err)
    }

    fn reopen(&self, mode: Mode) -> Result<(), String> {
        let mut slot = self.core.slot_mut();
        // Closes it, which releases its lock for a moment. A process that opens the file in
        // between recovers our records, and compare-and-set rejects our holders' commands.
        slot.opened = None;
        let opened = (self.opener)(mode).map_err(|error| match error {
            Error::InvalidConfig { reason, .. } => reason.to_string(),
            error => error.to_string(),
        });
        let opened = opened.and_then(|opened| {
            let found = FileIdentity::read(&opened.db).map_err(|error| error.to_string())?;
            // An earlier copy, or another store's file, was put in its place.
            if found.id != self.synced.id || found.store < self.synced.store {
                return Err(OVERWRITTEN.into());
            }
            Ok(opened)
        });
        slot.outage = opened.as_ref().err().cloned();
        slot.opened = Some(opened?);
        Ok(())
    }
}
