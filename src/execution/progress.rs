//! What is known of an execution, kept outside of it, so that its record can be finished
//! after its owner died. It decides nothing while the owner lives.

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

/// The shortest time to keep an outcome. Waiters in other processes poll once a second, and
/// report an outage if the record is gone.
pub(crate) const MIN_RESULT_TTL: Duration = Duration::from_secs(5);

/// What is known of one execution, and the merged options of its callers.
pub struct Progress {
    stage: Mutex<LeaseStage>,
    options: MergedOptions,
    summary: SpanSummary,
}

/// What the store might have of this execution.
#[derive(Clone, Debug)]
enum LeaseStage {
    /// Nothing of this execution is in the store.
    NotAcquired,
    /// The store has, or might have, a lease.
    Acquired(LeaseProgress),
    /// The record is finished, or belongs to another lease.
    Finished,
}

#[derive(Clone, Debug)]
struct LeaseProgress {
    claim: Claim,
    step: u32,
    end: RecordEnd,
}

/// How the record must end if the owner does nothing more.
#[derive(Clone, Debug)]
enum RecordEnd {
    /// Nothing was sent, or every attempt was proven to be not executed.
    Release(Option<Refusal>),
    /// An attempt might have been executed, unless its lease knows that nothing has left.
    Abandon {
        cause: Cause,
        evidence: Option<Lease>,
    },
    /// The outcome is known.
    Complete {
        stored: StoredOutcome,
        /// How long it is kept if no caller asks for another time.
        usual_ttl: Duration,
        answered: Instant,
        /// `answered` by the wall clock, for the record.
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

    /// Adds the options of another caller. They count until the outcome goes to the store.
    pub(crate) fn join(&self, request: &DataActionRequest) {
        self.options.join(request);
    }

    /// How long the outcome is kept; `usual` if no caller asks for another time.
    pub(crate) fn ttl(&self, usual: Duration) -> Duration {
        self.options.ttl(usual)
    }

    /// When the request may no longer be sent; `None` if a caller sets no limit.
    pub(crate) fn start_limit(&self) -> Option<Instant> {
        self.options.start_limit()
    }

    /// What the spans of this execution report.
    pub(crate) fn span_summary(&self) -> &SpanSummary {
        &self.summary
    }

    /// Whether a caller asked to keep the answer out of the store.
    pub(crate) fn is_sensitive(&self) -> bool {
        self.options.is_sensitive()
    }

    /// Whether the record of this execution needs no further command.
    pub fn is_finished(&self) -> bool {
        !matches!(*self.stage(), LeaseStage::Acquired(_))
    }

    /// The weight in bytes of the outcome or refusal that finishes the record.
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

    /// Whether an attempt of this execution has an unknown outcome: it might have been
    /// executed.
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

    /// Finishes the record by what is known, for the time after the execution's owner died.
    /// A known outcome completes it. If nothing was executed, it is released; if that is not
    /// proven, it becomes indeterminate. A finished record is left as it is.
    ///
    /// # Errors
    ///
    /// The store's error; the progress does not change then.
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

    /// The event that finishes the record by what is known, with the current options of the
    /// callers.
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
            RecordEnd::Release(refusal) => Event::Release {
                claim,
                step: next,
                refusal: if self.is_sensitive() {
                    refusal.map(Refusal::sensitive)
                } else {
                    refusal
                },
            },
            RecordEnd::Abandon {
                evidence: Some(lease),
                ..
            } if lease.is_unsent() => Event::Release {
                claim,
                step: next,
                refusal: None,
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
                // The time counts from the answer, not from the recording.
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

    /// The execution is about to acquire a lease.
    pub(super) fn acquiring(&self, claim: Claim) {
        let end = RecordEnd::Release(None);
        *self.stage() = LeaseStage::Acquired(LeaseProgress {
            claim,
            step: 0,
            end,
        });
    }

    /// The lease enters another step; what is known of its attempts stays.
    pub(super) fn advanced(&self, claim: Claim, step: u32) {
        if let LeaseStage::Acquired(progress) = &mut *self.stage() {
            (progress.claim, progress.step) = (claim, step);
        }
    }

    /// The lease is acquired, and nothing was executed under it.
    pub(super) fn acquired(&self, claim: Claim, step: u32) {
        self.set_end(claim, step, RecordEnd::Release(None));
    }

    /// Nothing was executed; waiters in other processes get this refusal.
    pub(super) fn refused(&self, claim: Claim, step: u32, refusal: Option<Refusal>) {
        self.set_end(claim, step, RecordEnd::Release(refusal));
    }

    /// An attempt might have been executed.
    pub(super) fn unknown_outcome(&self, claim: Claim, step: u32, cause: Cause) {
        self.sending(claim, step, cause, None);
    }

    /// The request is about to leave. If the owner dies, `evidence` can still prove that no
    /// byte has left.
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

    /// The store has no lease of this execution, or the record says how it ended.
    pub(super) fn finished(&self) {
        self.span_summary().lease_ended();
        *self.stage() = LeaseStage::Finished;
    }

    fn set_end(&self, claim: Claim, step: u32, end: RecordEnd) {
        *self.stage() = LeaseStage::Acquired(LeaseProgress { claim, step, end });
    }

    fn stage(&self) -> MutexGuard<'_, LeaseStage> {
        // Changed by one assignment, so a panic leaves no half-made change.
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The lock is free before the formatter, which might be foreign code, runs.
        let (word, step) = match &*self.stage() {
            LeaseStage::NotAcquired => ("not locked", None),
            LeaseStage::Finished => ("finished", None),
            LeaseStage::Acquired(LeaseProgress { step, end, .. }) => match end {
                RecordEnd::Release(_) => ("not executed", Some(*step)),
                RecordEnd::Abandon { .. } => ("unknown outcome", Some(*step)),
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
