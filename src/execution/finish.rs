//! The ends of an execution: `Executed → Cached`, `Locked → Hashed` (released)
//! and indeterminate. Each writes what is known, nothing more.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::progress::reduced;
use super::{Cached, Executed, Execution, Hashed, Holding, Locked, TRIES};
use crate::error::{Error, StoreError};
use crate::outcome::{Outcome, Reply, Served, StoredBody};
use crate::record::{Answer, Cause, Event, MAX_REFUSAL_BYTES, Refusal};
use crate::store::Store;
use crate::telemetry;

impl Execution<Locked> {
    pub(super) fn wall_now(&self) -> SystemTime {
        self.state.held.reading.ambient.wall_now()
    }

    /// Gives the key back: nothing was executed.
    ///
    /// # Errors
    ///
    /// [`Error::Indeterminate`] where an attempt of this execution is unproven:
    /// the key is then held, not given back. [`Error::StoreUnavailable`] and
    /// [`Error::RecordUnreadable`] where the store did not take it; the lease
    /// then lapses by itself.
    ///
    /// # Cancel safety
    ///
    /// The key may or may not have been given back, and
    /// [`Progress::finish`](super::Progress::finish) still gives it back.
    pub async fn release(self, store: &dyn Store) -> Result<Execution<Hashed>, Error> {
        self.release_with(store, None).await
    }

    /// Gives the key back and tells those who wait in other processes why.
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
        verdict: Option<Refusal>,
    ) -> Result<Execution<Hashed>, Error> {
        if self.state.held.unproven {
            return Err(self
                .abandon(store, "an attempt before the last is unproven")
                .await);
        }
        let verdict = verdict.filter(|verdict| match verdict {
            Refusal::Refused(stored) => stored.outcome.weight() <= MAX_REFUSAL_BYTES,
            Refusal::RateLimited { .. } => true,
        });
        self.core
            .progress
            .refused(self.state.held.claim.clone(), self.state.held.step, verdict);
        match self.core.progress.finish(store, &self.core.name).await {
            Ok(()) => Ok(Execution {
                core: self.core,
                state: Hashed { watched: None },
            }),
            Err(source) => Err(self.core.of_store(source)),
        }
    }

    /// Releases after the lease was lost; the answer changes nothing.
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

    /// Records that an attempt may have been executed, and says so: the result
    /// is `Error::Indeterminate`. Where the store does not take it, the lapse of
    /// the lease says the same.
    ///
    /// # Cancel safety
    ///
    /// It may or may not have been recorded, and
    /// [`Progress::finish`](super::Progress::finish) still records it.
    pub async fn abandon(self, store: &dyn Store, cause: impl Into<Cause>) -> Error {
        let cause = cause.into();
        let Holding { claim, step, .. } = &*self.state.held;
        let (progress, text) = (&self.core.progress, cause.text.clone());
        progress.unproven(claim.clone(), *step, cause);
        if let Err(error) = self.core.progress.finish(store, &self.core.name).await {
            telemetry::contained(|| {
                tracing::warn!(
                    name = %self.core.name,
                    error = crate::error::chain(&error),
                    "could not record that a request may have been executed; its lease will say so when it lapses"
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
    /// Gives itself back with [`Error::StoreUnavailable`] or
    /// [`Error::RecordUnreadable`]: nothing is lost, try again.
    ///
    /// # Cancel safety
    ///
    /// The outcome may or may not have been recorded, and
    /// [`Progress::finish`](super::Progress::finish) still records it.
    pub async fn cache(self, store: &dyn Store) -> Result<Execution<Cached>, (Self, Error)> {
        // By the wishes of those who have joined until now.
        let Some(event) = self.core.progress.last_event() else {
            return Ok(self.cached(false, Duration::ZERO));
        };
        let (mut stored_body, ttl) = match &event {
            Event::Complete { stored, ttl, .. } => (stored.body, *ttl),
            _ => (StoredBody::Full, Duration::ZERO),
        };
        let mut answer = self.core.apply(store, &event, TRIES).await;
        // Too large, or no memory left: the status at least is kept. Any other
        // refusal passes, and the outcome with it if it were reduced.
        if answer.as_ref().is_err_and(StoreError::wants_less)
            && let Some(smaller) = reduced(event)
        {
            stored_body = StoredBody::OmittedTooLarge;
            answer = Box::pin(async { self.core.apply(store, &smaller, TRIES).await }).await;
        }
        match answer {
            Ok(answer) => {
                let recorded = answer == Answer::Done;
                if !recorded {
                    telemetry::lease_lost(&self.core.name, self.core.progress.span_summary());
                    telemetry::contained(|| {
                        tracing::warn!(
                            name = %self.core.name,
                            "an outcome came too late: its record belongs to somebody else by now"
                        );
                    });
                }
                self.core.progress.settled();
                let whole = recorded && stored_body == StoredBody::Full;
                Ok(self.cached(recorded, if whole { ttl } else { Duration::ZERO }))
            }
            Err(source) => {
                let error = self.core.of_store(source);
                Err((self, error))
            }
        }
    }

    /// The reply for callers who cannot wait until the outcome is recorded.
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
        let Executed { held, outcome } = &self.state;
        let Holding {
            reading,
            claim,
            step,
            ..
        } = &**held;
        let progress = &self.core.progress;
        let answered = reading.ambient.wall_now();
        let ttl = reading.result_ttl;
        progress.known_outcome(claim.clone(), *step, outcome.clone(), ttl, answered);
    }

    /// `left` is how long the store replays the outcome whole.
    fn cached(self, recorded: bool, left: Duration) -> Execution<Cached> {
        let reply = Reply::new(self.core.name.key, self.state.outcome, Served::Upstream)
            .with_recorded(recorded);
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

    /// For how long the store replays this outcome whole, at least; zero where
    /// that is not known.
    pub fn left(&self) -> Duration {
        self.state.left
    }
}
