//! What is known of an execution, kept outside of it: so that whoever finds its
//! owner dead can answer for the record. It decides nothing while the owner
//! lives.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

pub(super) use self::reduced::reduced;
use super::follow_up;
use super::wishes::Wishes;
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
pub(crate) const SHORTEST_KEPT: Duration = Duration::from_secs(5);

/// What is known of one execution, and what its callers asked for.
pub struct Progress {
    known: Mutex<Known>,
    wishes: Wishes,
    summary: SpanSummary,
}

/// What the record may hold of this execution.
#[derive(Clone, Debug)]
enum Known {
    /// Nothing of this execution is in the store.
    Nothing,
    /// A lease is, or may be, in the store.
    Held(Held),
    /// The record is settled, or is somebody else's.
    Settled,
}

#[derive(Clone, Debug)]
struct Held {
    claim: Claim,
    step: u32,
    end: End,
}

/// How the record has to end if the owner does no more.
#[derive(Clone, Debug)]
enum End {
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

impl Progress {
    /// The progress of an execution of `request` that has not begun.
    pub(crate) fn new(request: &DataActionRequest) -> Arc<Self> {
        let progress = Self {
            known: Mutex::new(Known::Nothing),
            wishes: Wishes::default(),
            summary: SpanSummary::default(),
        };
        progress.join(request);
        Arc::new(progress)
    }

    /// Another caller joined: the longest `ttl` and the strictest `sensitive`
    /// apply to all, up to the moment at which the outcome goes to the store.
    pub(crate) fn join(&self, request: &DataActionRequest) {
        self.wishes.join(request);
    }

    /// How long callers want the outcome to be kept; `usual` where no caller asks
    /// for anything else.
    pub(crate) fn ttl(&self, usual: Duration) -> Duration {
        self.wishes.ttl(usual)
    }

    /// When the request may no longer be sent; `None` where a caller sets no limit.
    pub(crate) fn start_limit(&self) -> Option<Instant> {
        self.wishes.start_limit()
    }

    /// What this execution leaves for its spans.
    pub(crate) fn span_summary(&self) -> &SpanSummary {
        &self.summary
    }

    /// Whether a caller asked that nothing of the answer be stored.
    pub(crate) fn is_sensitive(&self) -> bool {
        self.wishes.is_sensitive()
    }

    /// Whether nothing of this execution is left to settle in the store.
    pub fn is_settled(&self) -> bool {
        !matches!(*self.known(), Known::Held(_))
    }

    /// What the outcome or the verdict weighs that its record is to end with, in
    /// bytes.
    pub(crate) fn weight(&self) -> usize {
        match &*self.known() {
            Known::Held(Held { end, .. }) => match end {
                End::Complete { stored, .. } | End::Release(Some(Refusal::Refused(stored))) => {
                    stored.outcome.weight()
                }
                End::Release(_) | End::Abandon { .. } => 0,
            },
            Known::Nothing | Known::Settled => 0,
        }
    }

    /// Whether an attempt of this execution may have been executed and its
    /// outcome is not known.
    pub fn is_unproven(&self) -> bool {
        matches!(
            &*self.known(),
            Known::Held(Held {
                end: End::Abandon { .. },
                ..
            })
        )
    }

    /// Whether the outcome is known and not recorded yet.
    pub(crate) fn is_executed(&self) -> bool {
        matches!(
            &*self.known(),
            Known::Held(Held {
                end: End::Complete { .. },
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
        self.end(store, name).await.map(drop)
    }

    /// The same; says for how long an outcome is replayed whole from now on,
    /// where that is how the record ended.
    pub(crate) async fn end(
        &self,
        store: &dyn Store,
        name: &RecordName,
    ) -> Result<Option<Duration>, StoreError> {
        let Some(event) = self.last_event() else {
            return Ok(None);
        };
        let mut recorded_for = match &event {
            Event::Complete { stored, ttl, .. } if stored.body == StoredBody::Full => Some(*ttl),
            _ => None,
        };
        let abandons = matches!(event, Event::Abandon { .. });
        let answer = match follow_up(store, name, &event, 1).await {
            // Too large for the store: what is smaller may fit.
            Err(error) if error.wants_less() => match reduced(event) {
                Some(smaller) => {
                    recorded_for = None;
                    follow_up(store, name, &smaller, 1).await?
                }
                None => return Err(error),
            },
            answer => answer?,
        };
        match answer {
            Answer::Done if abandons => telemetry::indeterminate(name),
            Answer::NotHolder => telemetry::lease_lost(name, self.span_summary()),
            _ => {}
        }
        // Whatever the answer: done, or the record is no longer this lease's.
        self.settled();
        Ok(recorded_for.filter(|_| answer == Answer::Done))
    }

    /// The event that ends the record by what is known, and by what the callers
    /// ask for by now.
    pub(crate) fn last_event(&self) -> Option<Event> {
        let Known::Held(Held {
            mut claim,
            step,
            end,
        }) = self.known().clone()
        else {
            return None;
        };
        if self.is_sensitive() {
            claim.about = claim.about.sensitive();
        }
        let next = step + 1;
        Some(match end {
            End::Release(verdict) => Event::Release {
                claim,
                step: next,
                verdict: if self.is_sensitive() {
                    verdict.map(Refusal::sensitive)
                } else {
                    verdict
                },
            },
            End::Abandon {
                evidence: Some(lease),
                ..
            } if lease.is_unsent() => Event::Release {
                claim,
                step: next,
                verdict: None,
            },
            End::Abandon { cause, .. } => Event::Abandon {
                claim,
                step: next,
                cause,
            },
            End::Complete {
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
                    ttl: ttl.max(SHORTEST_KEPT),
                }
            }
        })
    }

    /// A lease may soon be in the store. It says nothing about what was sent
    /// before it.
    pub(super) fn taking(&self, claim: Claim) {
        let end = End::Release(None);
        *self.known() = Known::Held(Held {
            claim,
            step: 0,
            end,
        });
    }

    /// The lease takes another step; what is known of its attempts stays.
    pub(super) fn advanced(&self, claim: Claim, step: u32) {
        if let Known::Held(held) = &mut *self.known() {
            (held.claim, held.step) = (claim, step);
        }
    }

    /// A lease is in the store; nothing was executed under it.
    pub(super) fn held(&self, claim: Claim, step: u32) {
        self.set(claim, step, End::Release(None));
    }

    /// Nothing was executed, and this is what those who wait are told.
    pub(super) fn refused(&self, claim: Claim, step: u32, verdict: Option<Refusal>) {
        self.set(claim, step, End::Release(verdict));
    }

    /// A request may be on the wire.
    pub(super) fn unproven(&self, claim: Claim, step: u32, cause: Cause) {
        self.under_way(claim, step, cause, None);
    }

    /// A request may be on the wire from now on. Should nobody live to tell what
    /// became of it, `evidence` may know that nothing has left.
    pub(super) fn under_way(&self, claim: Claim, step: u32, cause: Cause, evidence: Option<Lease>) {
        self.set(claim, step, End::Abandon { cause, evidence });
    }

    /// The outcome is known.
    pub(super) fn known_outcome(
        &self,
        claim: Claim,
        step: u32,
        outcome: Arc<Outcome>,
        usual_ttl: Duration,
        wall: SystemTime,
    ) {
        let end = End::Complete {
            stored: outcome.into(),
            usual_ttl,
            answered: Instant::now(),
            wall,
        };
        self.set(claim, step, end);
    }

    /// Nothing of this execution is in the store any more, or the record says
    /// how it ended.
    pub(super) fn settled(&self) {
        self.span_summary().lease_ended();
        *self.known() = Known::Settled;
    }

    fn set(&self, claim: Claim, step: u32, end: End) {
        *self.known() = Known::Held(Held { claim, step, end });
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Every write replaces the whole value, so a panic leaves it whole.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The lock is free before a subscriber formats it.
        let (word, step) = match &*self.known() {
            Known::Nothing => ("not locked", None),
            Known::Settled => ("settled", None),
            Known::Held(Held { step, end, .. }) => match end {
                End::Release(_) => ("not executed", Some(*step)),
                End::Abandon { .. } => ("unproven", Some(*step)),
                End::Complete { .. } => ("executed", Some(*step)),
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
