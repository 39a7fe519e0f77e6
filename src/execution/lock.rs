//! `Hashed → Locked`: take the key, or find out who has it. It never sends
//! anything to the platform.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{
    Cached, Core, Execution, Hashed, Holding, Locked, Progress, QUICK, TRIES, Terms, once,
};
use crate::ambient::{Ambient, in_runtime};
use crate::error::{Error, StoreError};
use crate::key::{Fingerprint, Namespace, RecordName};
use crate::outcome::{Reply, Served};
use crate::record::{About, Answer, Attempts, Claim, Event, Phase, RecordState, Revision};
use crate::request::DataActionRequest;
use crate::store::Store;
use crate::telemetry;

/// What became of an attempt to take a key.
#[derive(Debug)]
#[must_use]
#[non_exhaustive]
pub enum Lock {
    /// The key is held by this execution.
    Locked(Execution<Locked>),
    /// The outcome is known already.
    Cached(Execution<Cached>),
    /// Somebody else holds the key, or it is indeterminate: its record.
    Taken(Execution<Hashed>, RecordState),
}

impl Execution<Hashed> {
    /// An execution of `request` whose record is in `namespace`.
    pub fn new(request: DataActionRequest, namespace: Namespace) -> Self {
        let progress = Progress::new(&request);
        Self::with_progress(request, namespace, progress, None)
    }

    /// The same, with a progress that others watch, and a fingerprint that is known.
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

    /// Takes the key: one round trip where it is free or its outcome is known.
    ///
    /// # Errors
    ///
    /// [`Error::PayloadMismatch`] where the record is another request's,
    /// [`Error::StoreUnavailable`] and [`Error::RecordUnreadable`]. Whether the
    /// store took a lost command then is not known: [`Progress::finish`] gives
    /// back what it may have taken. [`Error::InvalidConfig`] where the terms are
    /// impossible, [`Error::NoRuntime`] outside of a tokio runtime; the store is
    /// not asked then.
    ///
    /// # Cancel safety
    ///
    /// A lease may be left in the store; [`Progress::finish`] gives it back.
    pub async fn lock(self, store: &dyn Store, terms: &Terms) -> Result<Lock, Error> {
        in_runtime()?;
        terms.check()?;
        // What is left of a lease before this one is ended first: a new lease would
        // drop what is known of it.
        let left = Box::pin(self.core.progress.finish(store, &self.core.name));
        left.await.map_err(|source| self.core.of_store(source))?;
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
        progress.taking(claim.clone());
        let mut taking = Taking {
            core: &self.core,
            store,
            ambient: &terms.ambient,
            claim,
            watched: self.state.watched,
            lost_reply: false,
        };
        let begun = Instant::now();
        let taken = taking.take().await;
        let (claim, lost_reply) = (taking.claim, taking.lost_reply);
        match taken {
            Ok(Taken::Lease { phase, sent }) => {
                progress.span_summary().lease_taken();
                let held = Box::new(Holding {
                    reading: terms.reading(),
                    claim,
                    step: 0,
                    phase,
                    live_until: sent + terms.lease,
                    unproven: false,
                    attempts: 0,
                });
                Ok(Lock::Locked(Execution {
                    core: self.core,
                    state: Locked { held },
                }))
            }
            other => {
                // A command whose reply was lost may still be under way: what is
                // released now, it finds released. A silent store is not asked for
                // that while the callers wait.
                let answered = other.as_ref().err().is_none_or(StoreError::is_definite);
                if !lost_reply {
                    progress.settled();
                } else if answered || begun.elapsed() < QUICK {
                    let _ = Box::pin(progress.finish(store, &self.core.name)).await;
                }
                match other {
                    Ok(Taken::Somebody(state)) => self.read(state, claim.fingerprint),
                    Ok(Taken::Mismatch) => Err(self.mismatch()),
                    Err(error) => Err(self.core.of_store(error)),
                    Ok(Taken::Lease { .. }) => unreachable!("matched above"),
                }
            }
        }
    }

    /// The same, which has seen this version of the record for the whole length of
    /// its lease by its own monotonic clock: that lease has lapsed, whatever the
    /// store's clock says, and may be taken over in that very version.
    pub(crate) fn having_watched(mut self, revision: Revision) -> Self {
        self.state.watched = Some(revision);
        self
    }

    /// What a record that was looked at, not taken, means for this execution.
    ///
    /// # Errors
    ///
    /// [`Error::PayloadMismatch`] where it is another request's.
    pub(crate) fn seen(self, state: RecordState, terms: &Terms) -> Result<Lock, Error> {
        let mine = self.core.fingerprint(terms);
        self.read(state, mine)
    }

    /// What a record says to the request with the fingerprint `mine`: every
    /// outcome, refusal and error of a record passes through here, and none
    /// without the comparison (I6).
    fn read(self, state: RecordState, mine: Fingerprint) -> Result<Lock, Error> {
        let state = state.lapsed_if(self.state.watched);
        let foreign = state.fingerprint() != mine;
        match state {
            // Nothing was executed, so that the key is free; the verdict is not
            // this request's.
            RecordState::Released {
                revision,
                fingerprint,
                ..
            } if foreign => {
                let verdict = None;
                Ok(Lock::Taken(
                    self,
                    RecordState::Released {
                        verdict,
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

/// How often a key is asked for whose record changes each time, before its record
/// is handed to the caller as it was last seen.
const ROUNDS: u32 = 4;

/// The first wait before a contended key is asked for again, at most; doubled with
/// each round.
const CONTENDED: Duration = Duration::from_millis(4);

/// One attempt to take a key.
struct Taking<'a> {
    core: &'a Core,
    store: &'a dyn Store,
    ambient: &'a Ambient,
    claim: Claim,
    /// The version whose lease has lapsed by this process's own clock.
    watched: Option<Revision>,
    /// The fate of a command is unknown, or it was applied in vain.
    lost_reply: bool,
}

/// Free again, for the next lease of the caller.
fn begin_anew(revision: Revision, fingerprint: Fingerprint) -> Taken {
    let verdict = None;
    Taken::Somebody(RecordState::Released {
        verdict,
        revision,
        fingerprint,
    })
}

enum Taken {
    Lease { phase: Phase, sent: Instant },
    Somebody(RecordState),
    Mismatch,
}

impl Taking<'_> {
    /// Most keys are free, or their outcome is recorded: what else may be found
    /// is boxed, so that those need no room for it.
    async fn take(&mut self) -> Result<Taken, StoreError> {
        self.claim.attempts = Attempts {
            sent: Some(self.ambient.wall_now()),
            count: 1,
            ..self.claim.attempts
        };
        let claim = self.claim.clone();
        // Processes may take turns releasing; a bound, and then the caller waits.
        let mut round = 0;
        loop {
            let (answer, sent) = self
                .send(&Event::Acquire {
                    claim: claim.clone(),
                })
                .await?;
            let state = match answer {
                Answer::Done => {
                    return Ok(Taken::Lease {
                        phase: Phase::Dispatched,
                        sent,
                    });
                }
                Answer::Mismatch => return Ok(Taken::Mismatch),
                Answer::Is(Some(state @ RecordState::Cached { .. })) => {
                    return Ok(Taken::Somebody(state));
                }
                Answer::Is(Some(state)) => Some(state),
                // Gone between two looks: ask again.
                _ => None,
            };
            if let Some(state) = state {
                let last = state.clone();
                if let Some(taken) = Box::pin(self.take_found(state)).await? {
                    return Ok(taken);
                }
                if round == ROUNDS {
                    return Ok(Taken::Somebody(last));
                }
            }
            // The key is contended, which is no outage: apart, and not at once.
            round = ROUNDS.min(round + 1);
            let pause = CONTENDED * 2u32.pow(round);
            sleep(pause.mul_f64(self.ambient.fraction())).await;
        }
    }

    /// Takes the key where the record that was found allows it; `None` where it
    /// has changed meanwhile.
    async fn take_found(&mut self, state: RecordState) -> Result<Option<Taken>, StoreError> {
        let claim = self.claim.clone();
        match state.lapsed_if(self.watched) {
            // Our own acquire, whose reply was lost: extend it, so that its
            // time counts from a command that was answered.
            RecordState::Locked { revision, .. } if revision.lease == claim.lease => {
                let dispatched = Some(0);
                let extend = Event::Extend { claim, dispatched };
                let (answer, sent) = self.send(&extend).await?;
                Ok((answer == Answer::Done).then_some(Taken::Lease {
                    phase: Phase::Dispatched,
                    sent,
                }))
            }
            // Our own acquire, released or resolved before we heard of it: a lease is
            // that of one execution.
            RecordState::Released {
                revision,
                fingerprint,
                ..
            } if revision.lease == claim.lease => Ok(Some(begin_anew(revision, fingerprint))),
            RecordState::Released { revision, .. } => self.take_over(revision).await,
            RecordState::Locked {
                lease_left,
                revision,
                ..
            } if lease_left.is_zero() => self.take_over(revision).await,
            // Our own acquire lapsed before we heard of it, and somebody took it
            // for a lost request: we know that nothing was sent.
            RecordState::Indeterminate {
                revision,
                fingerprint,
                ..
            } if revision.lease == claim.lease => {
                let release = Event::Release {
                    claim,
                    step: 1,
                    verdict: None,
                };
                self.send(&release).await?;
                Ok(Some(begin_anew(revision, fingerprint)))
            }
            state => Ok(Some(Taken::Somebody(state))),
        }
    }

    async fn take_over(&mut self, revision: Revision) -> Result<Option<Taken>, StoreError> {
        // Into `Claimed`: nothing is sent yet.
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
        let (answer, sent) = self.send(&event).await?;
        Ok(match answer {
            Answer::Done => {
                if let Event::TakeOver { claim, .. } = event {
                    self.claim = claim;
                }
                Some(Taken::Lease {
                    phase: Phase::Claimed,
                    sent,
                })
            }
            Answer::Mismatch => Some(Taken::Mismatch),
            // Still free, at another revision: look again.
            Answer::Is(None | Some(RecordState::Released { .. })) => None,
            Answer::Lost(state) => {
                telemetry::indeterminate(&self.core.name);
                Some(Taken::Somebody(state))
            }
            Answer::Is(Some(state)) => Some(Taken::Somebody(state)),
            _ => None,
        })
    }

    /// Sends an event, following a lost reply up, and says when the sending
    /// that was answered began.
    async fn send(&mut self, event: &Event) -> Result<(Answer, Instant), StoreError> {
        let mut tries = 1;
        loop {
            let sent = Instant::now();
            let error = match once(self.store, &self.core.name, event).await {
                Ok(answer) => return Ok((answer, sent)),
                Err(error) => error,
            };
            if tries == TRIES {
                self.lost_reply |= !error.is_refused() && !error.is_unsent();
                return Err(error);
            }
            if error.is_definite() {
                // Applied, but not to be built on: given back.
                self.lost_reply |= error.is_undurable();
                return Err(error);
            }
            self.lost_reply |= !error.is_unsent();
            tries += 1;
        }
    }
}

#[cfg(test)]
mod tests;
