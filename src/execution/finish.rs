//! The ends of an execution: `Executed → Cached`, `Locked → Hashed` (released) and
//! indeterminate. Each records only what is known.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::progress::Finished;
use super::{AcquiredLease, Cached, Core, Executed, Execution, Hashed, Locked, Resend};
use crate::error::Error;
use crate::outcome::{Outcome, Reply, Served};
use crate::record::{Cause, MAX_REFUSAL_BYTES, Refusal};
use crate::store::Store;
use crate::telemetry;

impl Execution<Locked> {
    pub(super) fn wall_now(&self) -> SystemTime {
        self.state.lease.rules.ambient.wall_now()
    }

    /// Releases the key: nothing was executed.
    ///
    /// # Errors
    ///
    /// [`Error::Indeterminate`] if an attempt of this execution has an unknown outcome: the
    /// key then becomes indeterminate. [`Error::StoreUnavailable`] and
    /// [`Error::RecordUnreadable`] if the store did not record the release; the lease then
    /// expires by itself.
    ///
    /// # Cancel safety
    ///
    /// The key might have been released. If not,
    /// [`Progress::finish`](super::Progress::finish) releases it.
    pub async fn release(self, store: &dyn Store) -> Result<Execution<Hashed>, Error> {
        self.release_with(store, None).await
    }

    /// Releases the key, and records the refusal for waiters in other processes.
    ///
    /// # Errors
    ///
    /// Those of [`release`](Self::release).
    ///
    /// # Cancel safety
    ///
    /// That of [`release`](Self::release).
    pub async fn release_with(
        self,
        store: &dyn Store,
        refusal: Option<Refusal>,
    ) -> Result<Execution<Hashed>, Error> {
        if self.state.lease.outcome_unknown {
            return Err(self
                .abandon(store, "an earlier attempt has an unknown outcome")
                .await);
        }
        let refusal = refusal.filter(|refusal| match refusal {
            Refusal::Refused(stored) => stored.outcome.weight() <= MAX_REFUSAL_BYTES,
            Refusal::RateLimited { .. } => true,
        });
        self.core.progress.refused(
            self.state.lease.claim.clone(),
            self.state.lease.step,
            refusal,
        );
        match self.core.progress.finish(store, &self.core.name).await {
            Ok(()) => Ok(Execution {
                core: self.core,
                state: Hashed { watched: None },
            }),
            Err(source) => Err(self.core.of_store(source)),
        }
    }

    /// Releases after the lease was lost; a failure changes nothing.
    pub(super) async fn give_up(self, store: &dyn Store) -> Execution<Hashed> {
        if self
            .core
            .progress
            .finish(store, &self.core.name)
            .await
            .is_err()
        {
            tracing::debug!(name = %self.core.name, "a lost lease could not be released");
        }
        Execution {
            core: self.core,
            state: Hashed { watched: None },
        }
    }

    /// Records that an attempt might have been executed. Returns `Error::Indeterminate`. If
    /// the store does not record it, the key becomes indeterminate when the lease expires.
    ///
    /// # Cancel safety
    ///
    /// It might have been recorded. If not,
    /// [`Progress::finish`](super::Progress::finish) records it.
    pub async fn abandon(self, store: &dyn Store, cause: impl Into<Cause>) -> Error {
        let cause = cause.into();
        let AcquiredLease { claim, step, .. } = &*self.state.lease;
        let (progress, text) = (&self.core.progress, cause.text.clone());
        progress.unknown_outcome(claim.clone(), *step, cause);
        if let Err(error) = self.core.progress.finish(store, &self.core.name).await {
            telemetry::contained(|| {
                tracing::warn!(
                    name = %self.core.name,
                    error = crate::error::chain(&error),
                    "could not record that a request might have been executed; the key becomes indeterminate when its lease expires"
                );
            });
        }
        self.core.indeterminate(claim, self.wall_now(), text)
    }
}

impl Execution<Executed> {
    /// The platform's answer.
    pub fn outcome(&self) -> &Arc<Outcome> {
        &self.state.outcome
    }

    /// Records the outcome, so that it is replayed from now on.
    ///
    /// # Errors
    ///
    /// Returns the execution with [`Error::StoreUnavailable`] or
    /// [`Error::RecordUnreadable`], so that the caller can retry.
    ///
    /// # Cancel safety
    ///
    /// The outcome might have been recorded. If not,
    /// [`Progress::finish`](super::Progress::finish) records it.
    pub async fn cache(self, store: &dyn Store) -> Result<Execution<Cached>, (Self, Error)> {
        let Core { name, progress, .. } = &*self.core;
        if progress.is_finished() {
            return Ok(self.cached(Finished::default()));
        }
        match progress.finish_record(store, name, Resend::IfQuick).await {
            Ok(finished) => {
                if !finished.recorded {
                    telemetry::contained(|| {
                        tracing::warn!(
                            %name,
                            "an outcome was not recorded: another lease owns the record"
                        );
                    });
                }
                Ok(self.cached(finished))
            }
            Err(source) => {
                let error = self.core.of_store(source);
                Err((self, error))
            }
        }
    }

    /// The reply for callers that do not wait until the outcome is recorded.
    pub(crate) fn unrecorded_reply(&self) -> Reply {
        Reply::new(
            self.core.name.key,
            self.state.outcome.clone(),
            Served::Upstream,
        )
        .with_recorded(false)
    }

    /// Puts the outcome into the progress.
    pub(super) fn note_outcome(&self) {
        let Executed { lease, outcome } = &self.state;
        let AcquiredLease {
            rules, claim, step, ..
        } = &**lease;
        let progress = &self.core.progress;
        let answered = rules.ambient.wall_now();
        let ttl = rules.result_ttl;
        progress.set_outcome(claim.clone(), *step, outcome.clone(), ttl, answered);
    }

    fn cached(self, finished: Finished) -> Execution<Cached> {
        let reply = Reply::new(self.core.name.key, self.state.outcome, Served::Upstream)
            .with_recorded(finished.recorded);
        let left = finished.replayed_for;
        Execution {
            core: self.core,
            state: Cached { reply, left },
        }
    }
}

impl Execution<Cached> {
    /// The reply for the caller.
    pub fn into_reply(self) -> Reply {
        self.state.reply
    }

    /// For how long at least the store replays the full outcome; zero if that is not known.
    pub fn left(&self) -> Duration {
        self.state.left
    }
}
