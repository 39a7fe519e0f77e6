//! Judges the answer to an attempt: executed, not executed, or unknown. It sends nothing and
//! writes no record.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::super::{AcquiredLease, Executed, Execution, Locked};
use super::Attempt;
use crate::error::{SendError, chain};
use crate::genesys::{classify, correlation_id};
use crate::outcome::{BodyEnd, Outcome, Recovery, Verdict};
use crate::policy::{OnUnknown, body_fault, checked_verdict};
use crate::record::Cause;
use crate::telemetry::ObservedCall;

impl Execution<Locked> {
    /// Judges an answer. If the outcome is unknown and the policy does not retry, returns the
    /// execution with the cause, so that the caller abandons it.
    pub(super) fn judge(
        mut self,
        sent: Result<Outcome, SendError>,
        wire: Option<ObservedCall>,
    ) -> Result<Attempt, (Self, Cause)> {
        let sent =
            sent.and_then(|outcome| bounded(outcome, self.state.lease.rules.max_response_bytes));
        let (verdict, cause) = match &sent {
            Ok(outcome) => {
                let classify = || {
                    checked_verdict(
                        outcome,
                        &*self.state.lease.rules.classify,
                        classify::genesys,
                    )
                };
                match catch_unwind(AssertUnwindSafe(classify)) {
                    // A final answer needs no cause.
                    Ok(Verdict::Final) => (Verdict::Final, "".into()),
                    Ok(verdict) => (verdict, cause_of(outcome)),
                    // There is an answer, but its meaning is not known.
                    Err(_) => {
                        let cause = cause_of(outcome).text;
                        let text = format!("{cause}, and classify panicked");
                        (Verdict::Unknown, answered(outcome, text))
                    }
                }
            }
            Err(error) if error.may_have_left() => (Verdict::Unknown, chain(error).into()),
            Err(error) => (Verdict::NotExecuted(Recovery::Retry), chain(error).into()),
        };
        if let Some(call) = wire {
            call.ended(verdict, &sent, self.core.progress.span_summary());
        }
        match (verdict, sent) {
            (Verdict::Final, Ok(outcome)) => Ok(Attempt::Executed(self.executed(outcome))),
            (Verdict::NotExecuted(then), sent) => {
                let AcquiredLease { claim, step, .. } = &*self.state.lease;
                if !self.state.lease.outcome_unknown {
                    self.core.progress.acquired(claim.clone(), *step);
                }
                Ok(Attempt::NotExecuted(self, then, sent))
            }
            _ if self.state.lease.rules.on_unknown == OnUnknown::Retry => {
                self.state.lease.outcome_unknown = true;
                let claim = &self.state.lease.claim;
                let error = self.core.indeterminate(claim, self.wall_now(), cause.text);
                Ok(Attempt::UnknownOutcome(self, error))
            }
            _ => Err((self, cause)),
        }
    }

    fn executed(self, outcome: Outcome) -> Execution<Executed> {
        let state = Executed {
            lease: self.state.lease,
            outcome: Arc::new(outcome),
        };
        let executed = Execution {
            core: self.core,
            state,
        };
        executed.note_outcome();
        executed
    }
}

/// The answer within the size limit. For a success the status is enough. Any other answer
/// with a larger body is unknown.
fn bounded(outcome: Outcome, limit: usize) -> Result<Outcome, SendError> {
    match outcome.body().len() > limit {
        false => Ok(outcome),
        true if outcome.status().is_success() => Ok(outcome.with_body_end(BodyEnd::Unread)),
        true => {
            let cause = format!("the answer is larger than {limit} bytes");
            Err(SendError::after_sending(cause))
        }
    }
}

fn cause_of(outcome: &Outcome) -> Cause {
    let mut text = format!("the platform answered {}", outcome.status().as_u16());
    if let Some(id) = correlation_id(outcome) {
        text += &format!(" (correlation id {id})");
    }
    if let Some(fault) = body_fault(outcome) {
        text += &format!("; {fault}");
    }
    answered(outcome, text)
}

/// A cause with the platform's correlation id.
fn answered(outcome: &Outcome, text: String) -> Cause {
    Cause {
        text: text.into(),
        correlation_id: correlation_id(outcome).map(Arc::from),
    }
}
