//! What is known of an execution, kept outside of it: so that whoever finds its
//! owner dead can answer for the record. It decides nothing while the owner
//! lives.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use self::reduced::reduced;
use super::merged_options::MergedOptions;
use super::{Commands, Resend};
use crate::error::StoreError;
use crate::key::RecordName;
use crate::outcome::{Outcome, StoredBody};
use crate::record::{Answer, Cause, Claim, Event, Origin, Refusal, StoredOutcome};
use crate::request::DataActionRequest;
use crate::store::Store;
use crate::telemetry::{self, SpanSummary};
use crate::upstream::Lease;

/// How long an outcome is kept at least: waiters in other processes poll once a
/// second, and are told of an outage where they find nothing.
pub(crate) const MIN_RESULT_TTL: Duration = Duration::from_secs(5);

/// What is known of one execution, and what its callers asked for.
pub struct Progress {
    stage: Mutex<LeaseStage>,
    options: MergedOptions,
    summary: SpanSummary,
}

/// What the record may hold of this execution.
#[derive(Clone, Debug)]
enum LeaseStage {
    /// Nothing of this execution is in the store.
    NotAcquired,
    /// A lease is, or may be, in the store.
    Acquired(LeaseProgress),
    /// The record is settled, or is somebody else's.
    Finished,
}

#[derive(Clone, Debug)]
struct LeaseProgress {
    claim: Claim,
    step: u32,
    end: RecordEnd,
}

/// How the record has to end if the owner does no more.
#[derive(Clone, Debug)]
enum RecordEnd {
    /// Nothing was sent, or every attempt is proven not executed.
    Release(Option<Refusal>),
    /// An attempt may have been executed, unless the lease that it is made under
    /// knows that nothing has left.
    Abandon {
        cause: Cause,
        evidence: Option<Lease>,
    },
    /// The outcome is known.
    Complete {
        stored: StoredOutcome,
        /// For how long, where no caller asks for anything else.
        usual_ttl: Duration,
        answered: Instant,
        /// The same moment by the wall clock, for people.
        wall: SystemTime,
    },
}

/// How the attempt to finish a record ended.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Finished {
    /// The record says what is known; otherwise it belongs to another lease, or was finished before.
    pub(crate) recorded: bool,
    /// For how long the store replays the full outcome; zero if it does not.
    pub(crate) replayed_for: Duration,
}

impl Progress {
    /// The progress of an execution of `request` that has not begun.
    pub(crate) fn new(request: &DataActionRequest) -> Arc<Self> {
        let progress = Self {
            stage: Mutex::new(LeaseStage::NotAcquired),
            options: MergedOptions::default(),
            summary: SpanSummary::default(),
        };
        progress.join(request);
        Arc::new(progress)
    }

    /// Another caller joined: the longest `ttl` and the strictest `sensitive`
    /// apply to all, up to the moment at which the outcome goes to the store.
    pub(crate) fn join(&self, request: &DataActionRequest) {
        self.options.join(request);
    }

    /// How long callers want the outcome to be kept; `usual` where no caller asks
    /// for anything else.
    pub(crate) fn ttl(&self, usual: Duration) -> Duration {
        self.options.ttl(usual)
    }

    /// When the request may no longer be sent; `None` where a caller sets no limit.
    pub(crate) fn start_limit(&self) -> Option<Instant> {
        self.options.start_limit()
    }

    /// What this execution leaves for its spans.
    pub(crate) fn span_summary(&self) -> &SpanSummary {
        &self.summary
    }

    /// Whether a caller asked that nothing of the answer be stored.
    pub(crate) fn is_sensitive(&self) -> bool {
        self.options.is_sensitive()
    }

    /// Whether nothing of this execution is left to settle in the store.
    pub fn is_finished(&self) -> bool {
        !matches!(*self.stage(), LeaseStage::Acquired(_))
    }

    /// What the outcome or the verdict weighs that its record is to end with, in
    /// bytes.
    pub(crate) fn weight(&self) -> usize {
        match &*self.stage() {
            LeaseStage::Acquired(LeaseProgress { end, .. }) => match end {
                RecordEnd::Complete { stored, .. }
                | RecordEnd::Release(Some(Refusal::Refused(stored))) => stored.outcome.weight(),
                RecordEnd::Release(_) | RecordEnd::Abandon { .. } => 0,
            },
            LeaseStage::NotAcquired | LeaseStage::Finished => 0,
        }
    }

    /// Whether an attempt of this execution may have been executed and its
    /// outcome is not known.
    pub fn has_unknown_outcome(&self) -> bool {
        matches!(
            &*self.stage(),
            LeaseStage::Acquired(LeaseProgress {
                end: RecordEnd::Abandon { .. },
                ..
            })
        )
    }

    /// Whether the outcome is known and not recorded yet.
    pub(crate) fn is_executed(&self) -> bool {
        matches!(
            &*self.stage(),
            LeaseStage::Acquired(LeaseProgress {
                end: RecordEnd::Complete { .. },
                ..
            })
        )
    }

    /// Ends the record by what is known: released where nothing was executed,
    /// indeterminate where that is not proven, completed where the outcome is
    /// known. For the time after the execution's owner died; does nothing where
    /// the record is settled.
    ///
    /// # Errors
    ///
    /// The store's; the progress is then as it was.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing: call it again.
    pub async fn finish(&self, store: &dyn Store, name: &RecordName) -> Result<(), StoreError> {
        let finished = self.finish_record(store, name, Resend::Never).await;
        finished.map(drop)
    }

    /// [`finish`](Self::finish), which also reports what the store replays afterwards.
    pub(crate) async fn finish_record(
        &self,
        store: &dyn Store,
        name: &RecordName,
        resend: Resend,
    ) -> Result<Finished, StoreError> {
        let Some(event) = self.last_event() else {
            return Ok(Finished::default());
        };
        let mut replayed_for = match &event {
            Event::Complete { stored, ttl, .. } if stored.body == StoredBody::Full => *ttl,
            _ => Duration::ZERO,
        };
        let abandons = matches!(event, Event::Abandon { .. });
        let mut commands = Commands::new(store, name, resend);
        let answer = match commands.send(&event).await {
            // The store might accept a smaller event. After any other refusal the
            // full event can still be recorded later.
            Err(error) if error.wants_less() => match reduced(event) {
                Some(smaller) => {
                    replayed_for = Duration::ZERO;
                    Box::pin(commands.send(&smaller)).await
                }
                None => Err(error),
            },
            answer => answer,
        };
        let (answer, _) = answer?;
        match answer {
            Answer::Done if abandons => telemetry::indeterminate(name),
            Answer::NotHolder => telemetry::lease_lost(name, self.span_summary()),
            _ => {}
        }
        // With any other answer the record belongs to another lease.
        self.finished();
        Ok(match answer {
            Answer::Done => Finished {
                recorded: true,
                replayed_for,
            },
            _ => Finished::default(),
        })
    }

    /// The event that ends the record by what is known, and by what the callers
    /// ask for by now.
    fn last_event(&self) -> Option<Event> {
        let LeaseStage::Acquired(LeaseProgress {
            mut claim,
            step,
            end,
        }) = self.stage().clone()
        else {
            return None;
        };
        if self.is_sensitive() {
            claim.about = claim.about.sensitive();
        }
        let next = step + 1;
        Some(match end {
            RecordEnd::Release(verdict) => Event::Release {
                claim,
                step: next,
                verdict: if self.is_sensitive() {
                    verdict.map(Refusal::sensitive)
                } else {
                    verdict
                },
            },
            RecordEnd::Abandon {
                evidence: Some(lease),
                ..
            } if lease.is_unsent() => Event::Release {
                claim,
                step: next,
                verdict: None,
            },
            RecordEnd::Abandon { cause, .. } => Event::Abandon {
                claim,
                step: next,
                cause,
            },
            RecordEnd::Complete {
                stored,
                usual_ttl,
                answered,
                wall,
            } => {
                // It counts from the answer, however late the store takes it.
                let ttl = self.ttl(usual_ttl).saturating_sub(answered.elapsed());
                let stored = match self.is_sensitive() {
                    true => stored.reduced(StoredBody::OmittedSensitive),
                    false => stored,
                };
                let origin = Origin {
                    action: claim.about.action.clone(),
                    answered: Some(wall),
                    attempts: claim.attempts.count,
                    resolved: None,
                };
                Event::Complete {
                    claim,
                    step,
                    stored,
                    origin,
                    ttl: ttl.max(MIN_RESULT_TTL),
                }
            }
        })
    }

    /// A lease may soon be in the store. It says nothing about what was sent
    /// before it.
    pub(super) fn acquiring(&self, claim: Claim) {
        let end = RecordEnd::Release(None);
        *self.stage() = LeaseStage::Acquired(LeaseProgress {
            claim,
            step: 0,
            end,
        });
    }

    /// The lease takes another step; what is known of its attempts stays.
    pub(super) fn advanced(&self, claim: Claim, step: u32) {
        if let LeaseStage::Acquired(progress) = &mut *self.stage() {
            (progress.claim, progress.step) = (claim, step);
        }
    }

    /// A lease is in the store; nothing was executed under it.
    pub(super) fn acquired(&self, claim: Claim, step: u32) {
        self.set_end(claim, step, RecordEnd::Release(None));
    }

    /// Nothing was executed, and this is what those who wait are told.
    pub(super) fn refused(&self, claim: Claim, step: u32, verdict: Option<Refusal>) {
        self.set_end(claim, step, RecordEnd::Release(verdict));
    }

    /// A request may be on the wire.
    pub(super) fn unknown_outcome(&self, claim: Claim, step: u32, cause: Cause) {
        self.sending(claim, step, cause, None);
    }

    /// A request may be on the wire from now on. Should nobody live to tell what
    /// became of it, `evidence` may know that nothing has left.
    pub(super) fn sending(&self, claim: Claim, step: u32, cause: Cause, evidence: Option<Lease>) {
        self.set_end(claim, step, RecordEnd::Abandon { cause, evidence });
    }

    /// The outcome is known.
    pub(super) fn set_outcome(
        &self,
        claim: Claim,
        step: u32,
        outcome: Arc<Outcome>,
        usual_ttl: Duration,
        wall: SystemTime,
    ) {
        let end = RecordEnd::Complete {
            stored: outcome.into(),
            usual_ttl,
            answered: Instant::now(),
            wall,
        };
        self.set_end(claim, step, end);
    }

    /// Nothing of this execution is in the store any more, or the record says
    /// how it ended.
    pub(super) fn finished(&self) {
        self.span_summary().lease_ended();
        *self.stage() = LeaseStage::Finished;
    }

    fn set_end(&self, claim: Claim, step: u32, end: RecordEnd) {
        *self.stage() = LeaseStage::Acquired(LeaseProgress { claim, step, end });
    }

    fn stage(&self) -> MutexGuard<'_, LeaseStage> {
        // Every write replaces the whole value, so a panic leaves it whole.
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The lock is free before a subscriber formats it.
        let (word, step) = match &*self.stage() {
            LeaseStage::NotAcquired => ("not locked", None),
            LeaseStage::Finished => ("settled", None),
            LeaseStage::Acquired(LeaseProgress { step, end, .. }) => match end {
                RecordEnd::Release(_) => ("not executed", Some(*step)),
                RecordEnd::Abandon { .. } => ("unproven", Some(*step)),
                RecordEnd::Complete { .. } => ("executed", Some(*step)),
            },
        };
        f.debug_struct("Progress")
            .field("known", &word)
            .field("step", &step)
            .finish()
    }
}

mod reduced;
#[cfg(test)]
mod tests;
