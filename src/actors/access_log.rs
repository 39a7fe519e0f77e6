//! Logs that the platform refuses access, so that an operator can change permissions: at
//! most once a minute per action. It decides nothing.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use crate::execution::Attempt;
use crate::genesys::correlation_id;
use crate::outcome::Outcome;
use crate::request::ActionId;
use crate::telemetry;

/// The shortest time between two warnings of one action.
const PACE: Duration = Duration::from_secs(60);

/// How many actions have their last warning remembered; one more clears all of them.
const MAX_ACTIONS: usize = 100;

/// When each action was logged.
#[derive(Debug, Default)]
pub(crate) struct AccessLog(Mutex<HashMap<ActionId, Instant>>);

impl AccessLog {
    /// Warns of an attempt that was answered with 401 or 403.
    pub(crate) fn log(&self, action: &ActionId, attempt: &Attempt) {
        // If the action was executed, the remote end has refused, not the platform.
        let Attempt::NotExecuted(_, _, Ok(outcome)) = attempt else {
            return;
        };
        if is_refusal(outcome) && self.is_due(action) {
            telemetry::contained(|| {
                tracing::warn!(
                    target: "genesys_once",
                    action_id = action.as_str(),
                    status = outcome.status().as_u16(),
                    correlation_id = correlation_id(outcome),
                    "the platform refuses access: check the client's role and the action's permissions; logged once a minute"
                );
            });
        }
    }

    fn is_due(&self, action: &ActionId) -> bool {
        let now = Instant::now();
        // A panic leaves no half-made insertion.
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = last.get_mut(action) {
            let is_due = now.saturating_duration_since(*last) >= PACE;
            if is_due {
                *last = now;
            }
            return is_due;
        }
        if last.len() >= MAX_ACTIONS {
            last.clear();
        }
        last.insert(action.clone(), now);
        true
    }
}

fn is_refusal(outcome: &Outcome) -> bool {
    matches!(
        outcome.status(),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Red without the pace, and without the bound.
    #[tokio::test(start_paused = true)]
    async fn each_action_is_logged_once_a_minute() {
        let log = AccessLog::default();
        let action = |n: usize| format!("action_{n}").parse::<ActionId>().unwrap();
        assert!(log.is_due(&action(0)) && log.is_due(&action(1)));
        assert!(!log.is_due(&action(0)));
        tokio::time::advance(PACE).await;
        assert!(log.is_due(&action(0)) && !log.is_due(&action(0)));
        for n in 0..10 * MAX_ACTIONS {
            log.is_due(&action(n));
            assert!(log.0.lock().unwrap().len() <= MAX_ACTIONS);
        }
    }
}
