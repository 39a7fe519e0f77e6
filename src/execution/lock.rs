//! `Hashed → Locked`: acquire the key's lease, or find its record. It never sends
//! anything to the platform.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{
    AcquiredLease, Cached, Commands, Core, Execution, Hashed, Locked, Progress, QUICK, Resend,
    Terms,
};
use crate::ambient::{Ambient, in_runtime};
use crate::error::{Error, StoreError};
use crate::key::{Fingerprint, Namespace, RecordName};
use crate::outcome::{Reply, Served};
use crate::record::{About, Answer, Attempts, Claim, Event, Phase, RecordState, Revision};
use crate::request::DataActionRequest;
use crate::store::Store;
use crate::telemetry;

/// The result of [`lock`](Execution::lock).
#[derive(Debug)]
#[must_use]
#[non_exhaustive]
pub enum Lock {
    /// This execution acquired the lease.
    Locked(Execution<Locked>),
    /// The outcome is recorded.
    Cached(Execution<Cached>),
    /// Another execution has the lease, or the key is indeterminate: its record.
    Taken(Execution<Hashed>, RecordState),
}

impl Execution<Hashed> {
    /// An execution of `request` whose record is in `namespace`.
    pub fn new(request: DataActionRequest, namespace: Namespace) -> Self {
        let progress = Progress::new(&request);
        Self::with_progress(request, namespace, progress, None)
    }

    /// [`new`](Self::new) with a shared progress, and a fingerprint that is known.
    pub(crate) fn with_progress(
        request: DataActionRequest,
        namespace: Namespace,
        progress: Arc<Progress>,
        fingerprint: Option<Fingerprint>,
    ) -> Self {
        Self {
            core: Box::new(Core {
                name: RecordName::new(namespace, crate::IdempotencyKey::of(&request)),
                request,
                fingerprint,
                progress,
            }),
            state: Hashed { watched: None },
        }
    }

    /// Acquires the lease: one round trip if the key is free or its outcome is recorded.
    ///
    /// # Errors
    ///
    /// [`Error::PayloadMismatch`] if the record belongs to another request.
    /// [`Error::StoreUnavailable`] and [`Error::RecordUnreadable`]: the store might have
    /// applied a command, and [`Progress::finish`] releases such a lease.
    /// [`Error::InvalidConfig`] for impossible terms and [`Error::NoRuntime`] outside of a
    /// tokio runtime; the store is not asked then.
    ///
    /// # Cancel safety
    ///
    /// The store might keep a lease; [`Progress::finish`] releases it.
    pub async fn lock(self, store: &dyn Store, terms: &Terms) -> Result<Lock, Error> {
        in_runtime()?;
        terms.check()?;
        if !self.core.progress.is_finished() {
            // Finishes an earlier lease first: a new lease would overwrite its progress.
            // Boxed: it is rare, and larger than the acquisition.
            let left = Box::pin(self.core.progress.finish(store, &self.core.name));
            left.await.map_err(|source| self.core.of_store(source))?;
        }
        let claim = Claim {
            lease: terms.ambient.lease_id(),
            fingerprint: self.core.fingerprint(terms),
            lease_ttl: terms.lease,
            retention: terms.indeterminate_ttl,
            attempts: Attempts {
                sent: None,
                count: 0,
                timeout: terms.attempt_timeout,
            },
            about: self.core.about(Arc::new(About::new(
                &self.core.request,
                terms.ambient.holder(),
            ))),
        };
        let progress = self.core.progress.clone();
        progress.acquiring(claim.clone());
        let mut acquisition = Acquisition {
            core: &self.core,
            commands: Commands::new(store, &self.core.name, Resend::Once),
            ambient: &terms.ambient,
            claim,
            watched: self.state.watched,
        };
        let begun = Instant::now();
        let taken = acquisition.take().await;
        let (claim, lost_reply) = (acquisition.claim, acquisition.commands.has_lost_reply());
        match taken {
            Ok(Acquired::Lease { phase, sent }) => {
                progress.span_summary().lease_taken();
                let lease = Box::new(AcquiredLease {
                    rules: terms.response_rules(),
                    claim,
                    step: 0,
                    phase,
                    live_until: sent + terms.lease,
                    outcome_unknown: false,
                    attempts: 0,
                });
                Ok(Lock::Locked(Execution {
                    core: self.core,
                    state: Locked { lease },
                }))
            }
            other => {
                // A command whose reply was lost might still arrive. A release makes it
                // find a released record. A silent store is not asked for that while
                // callers wait.
                let answered = other.as_ref().err().is_none_or(StoreError::is_definite);
                if !lost_reply {
                    progress.finished();
                } else if answered || begun.elapsed() < QUICK {
                    let _ = Box::pin(progress.finish(store, &self.core.name)).await;
                }
                match other {
                    Ok(Acquired::Found(state)) => self.read(state, claim.fingerprint),
                    Ok(Acquired::Mismatch) => Err(self.mismatch()),
                    Err(error) => Err(self.core.of_store(error)),
                    Ok(Acquired::Lease { .. }) => unreachable!("matched above"),
                }
            }
        }
    }

    /// Notes that this process has seen one revision of the record for the whole length of
    /// its lease, by its own monotonic clock. That lease has expired, whatever the store's
    /// clock says, and this revision may be taken over.
    pub(crate) fn having_watched(mut self, revision: Revision) -> Self {
        self.state.watched = Some(revision);
        self
    }

    /// What a record means for this execution after a look.
    ///
    /// # Errors
    ///
    /// [`Error::PayloadMismatch`] if the record belongs to another request.
    pub(crate) fn seen(self, state: RecordState, terms: &Terms) -> Result<Lock, Error> {
        let mine = self.core.fingerprint(terms);
        self.read(state, mine)
    }

    /// What a record means for the request with the fingerprint `mine`. Every outcome,
    /// refusal and error of a record passes this comparison (I6).
    fn read(self, state: RecordState, mine: Fingerprint) -> Result<Lock, Error> {
        let state = state.expired_if(self.state.watched);
        let foreign = state.fingerprint() != mine;
        match state {
            // Nothing was executed, so the key is free. The refusal belongs to another
            // request.
            RecordState::Released {
                revision,
                fingerprint,
                ..
            } if foreign => {
                let refusal = None;
                Ok(Lock::Taken(
                    self,
                    RecordState::Released {
                        refusal,
                        revision,
                        fingerprint,
                    },
                ))
            }
            _ if foreign && !state.is_free() => Err(self.mismatch()),
            RecordState::Cached { stored, left, .. } => {
                let reply = Reply::new(self.core.name.key, stored.outcome, Served::Store)
                    .with_stored_body(stored.body);
                Ok(Lock::Cached(Execution {
                    core: self.core,
                    state: Cached { reply, left },
                }))
            }
            state => Ok(Lock::Taken(self, state)),
        }
    }

    fn mismatch(&self) -> Error {
        Error::PayloadMismatch {
            key: self.core.name.key,
        }
    }
}

/// How often acquire is repeated while the record keeps changing. After that the caller
/// gets the record of the last look.
const ROUNDS: u32 = 4;

/// The longest first wait before acquire is repeated for a contended key; doubled with each
/// round.
const CONTENDED: Duration = Duration::from_millis(4);

/// One attempt to acquire a lease.
struct Acquisition<'a> {
    core: &'a Core,
    commands: Commands<'a>,
    ambient: &'a Ambient,
    claim: Claim,
    /// The revision whose lease has expired by this process's own clock.
    watched: Option<Revision>,
}

/// The key is free for the caller's next lease.
fn begin_again(revision: Revision, fingerprint: Fingerprint) -> Acquired {
    let refusal = None;
    Acquired::Found(RecordState::Released {
        refusal,
        revision,
        fingerprint,
    })
}

enum Acquired {
    Lease { phase: Phase, sent: Instant },
    Found(RecordState),
    Mismatch,
}

impl Acquisition<'_> {
    /// Most keys are free, or their outcome is recorded. The other cases are boxed, so that
    /// the future has no room for them.
    async fn take(&mut self) -> Result<Acquired, StoreError> {
        self.claim.attempts = Attempts {
            sent: Some(self.ambient.wall_now()),
            count: 1,
            ..self.claim.attempts
        };
        let claim = self.claim.clone();
        // Other processes might release the key again and again: after `ROUNDS` the
        // caller waits.
        let mut round = 0;
        loop {
            let (answer, sent) = self
                .commands
                .send(&Event::Acquire {
                    claim: claim.clone(),
                })
                .await?;
            let state = match answer {
                Answer::Done => {
                    return Ok(Acquired::Lease {
                        phase: Phase::Dispatched,
                        sent,
                    });
                }
                Answer::Mismatch => return Ok(Acquired::Mismatch),
                Answer::Is(Some(state @ RecordState::Cached { .. })) => {
                    return Ok(Acquired::Found(state));
                }
                Answer::Is(Some(state)) => Some(state),
                // The record disappeared between two commands: acquire again.
                _ => None,
            };
            if let Some(state) = state {
                let last = state.clone();
                if let Some(taken) = Box::pin(self.take_found(state)).await? {
                    return Ok(taken);
                }
                if round == ROUNDS {
                    return Ok(Acquired::Found(last));
                }
            }
            // The key is contended, which is no outage: processes retry at random times.
            round = ROUNDS.min(round + 1);
            let pause = CONTENDED * 2u32.pow(round);
            sleep(pause.mul_f64(self.ambient.fraction())).await;
        }
    }

    /// Acquires the lease if the record allows it; `None` if the record has changed.
    async fn take_found(&mut self, state: RecordState) -> Result<Option<Acquired>, StoreError> {
        let claim = self.claim.clone();
        match state.expired_if(self.watched) {
            // This process's own acquire, whose reply was lost. Extended, so that the lease
            // counts from a command that was answered.
            RecordState::Locked { revision, .. } if revision.lease == claim.lease => {
                let dispatched = Some(0);
                let extend = Event::Extend { claim, dispatched };
                let (answer, sent) = self.commands.send(&extend).await?;
                Ok((answer == Answer::Done).then_some(Acquired::Lease {
                    phase: Phase::Dispatched,
                    sent,
                }))
            }
            // This process's own acquire, released or resolved before its reply came. One
            // lease id serves one execution, so the next attempt needs a new one.
            RecordState::Released {
                revision,
                fingerprint,
                ..
            } if revision.lease == claim.lease => Ok(Some(begin_again(revision, fingerprint))),
            RecordState::Released { revision, .. } => self.take_over(revision).await,
            RecordState::Locked {
                lease_left,
                revision,
                ..
            } if lease_left.is_zero() => self.take_over(revision).await,
            // This process's own acquire expired before its reply came, and another process
            // recorded a lost call. This process knows that nothing was sent.
            RecordState::Indeterminate {
                revision,
                fingerprint,
                ..
            } if revision.lease == claim.lease => {
                let release = Event::Release {
                    claim,
                    step: 1,
                    refusal: None,
                };
                self.commands.send(&release).await?;
                Ok(Some(begin_again(revision, fingerprint)))
            }
            state => Ok(Some(Acquired::Found(state))),
        }
    }

    async fn take_over(&mut self, revision: Revision) -> Result<Option<Acquired>, StoreError> {
        // In `Claimed`, since nothing is sent yet.
        let claim = Claim {
            attempts: Attempts {
                sent: None,
                count: 0,
                ..self.claim.attempts
            },
            ..self.claim.clone()
        };
        let event = Event::TakeOver {
            claim,
            revision,
            watched: self.watched == Some(revision),
        };
        let (answer, sent) = self.commands.send(&event).await?;
        Ok(match answer {
            Answer::Done => {
                if let Event::TakeOver { claim, .. } = event {
                    self.claim = claim;
                }
                Some(Acquired::Lease {
                    phase: Phase::Claimed,
                    sent,
                })
            }
            Answer::Mismatch => Some(Acquired::Mismatch),
            // Still free, with another revision: acquire again.
            Answer::Is(None | Some(RecordState::Released { .. })) => None,
            Answer::Lost(state) => {
                telemetry::indeterminate(&self.core.name);
                Some(Acquired::Found(state))
            }
            Answer::Is(Some(state)) => Some(Acquired::Found(state)),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests;
