//! Decisions as pure functions: what an answer means, when to try again, what
//! to do about duplicates, unknown outcomes and a store that is down. No I/O,
//! no clock of its own.

use std::time::Duration;

mod breaker;
pub mod classify;
mod error_body;
mod retry_after;

pub(crate) use self::breaker::{Access, Breakers, Failure, Pass};
pub use self::retry_after::{is_platform_limit, retry_after};

/// What a caller gets whose key is already being executed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnDuplicate {
    /// The answer of the execution under way, whoever's it is. Who comes when a
    /// refusal or an error was answered already, and the record is not finished
    /// yet, waits for that and executes anew.
    #[default]
    Wait,
    /// `Error::InProgress` at once, for holders in this process too.
    FailFast,
}

/// What happens to a request that may have been executed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnUnknown {
    /// It is held as indeterminate until somebody resolves it: at most once.
    #[default]
    Hold,
    /// It is tried again within the retry policy: at least once, by choice.
    /// Covers an execution's own attempts only; what another process left
    /// behind is held.
    Retry,
}

/// How often and how long an execution tries again after an answer that proves
/// that nothing was executed.
///
/// Defaults: 3 attempts; where the platform names no time, 2 s doubled with
/// every attempt, of which up to half is jitter; a wait over 180 s is not waited
/// out (the limit of the vendor's SDKs).
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    attempts: u32,
    backoff: Duration,
    max_wait: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 3,
            backoff: Duration::from_secs(2),
            max_wait: Duration::from_secs(180),
        }
    }
}

impl RetryPolicy {
    /// One attempt, never a second one.
    pub fn never() -> Self {
        Self {
            attempts: 1,
            ..Self::default()
        }
    }

    /// How many attempts there are in all, the first included; at least 1.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// The first wait where the platform names none; doubled every time. At
    /// most 30 days.
    pub fn backoff(mut self, first: Duration) -> Self {
        self.backoff = first;
        self
    }

    /// The longest wait; one that is longer ends the execution at once. At most
    /// 30 days.
    pub fn max_wait(mut self, longest: Duration) -> Self {
        self.max_wait = longest;
        self
    }

    /// What to do after the `made`th attempt (from 1) was not executed.
    ///
    /// `asked` is what the platform asked for; `random`, from 0 to 1, is the
    /// jitter's.
    pub fn after(&self, made: u32, asked: Option<Duration>, random: f64) -> Next {
        let wait = asked.unwrap_or_else(|| {
            let full = self
                .backoff
                .saturating_mul(1 << made.saturating_sub(1).min(16));
            full.min(self.max_wait)
                .mul_f64(1.0 - random.clamp(0.0, 1.0) / 2.0)
        });
        if made >= self.attempts || self.is_too_long(wait) {
            Next::GiveUp { retry_after: wait }
        } else {
            Next::Wait(wait)
        }
    }

    /// Whether a wait is longer than any that is waited out.
    pub(crate) fn is_too_long(&self, wait: Duration) -> bool {
        wait > self.max_wait
    }

    pub(crate) fn fault(&self) -> Option<&'static str> {
        if self.attempts == 0 {
            Some("there must be at least one attempt")
        } else if self.backoff.max(self.max_wait) > self::retry_after::LONGEST {
            Some("a wait must be at most 30 days")
        } else {
            None
        }
    }
}

/// What follows an attempt that was not executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Next {
    /// Try again after this long.
    Wait(Duration),
    /// Do not try again; a caller may, after this long.
    GiveUp {
        /// How long the platform wants to be left alone.
        retry_after: Duration,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn backoff_doubles_and_jitter_takes_up_to_half() {
        let policy = RetryPolicy::default().attempts(9);
        assert_eq!(policy.after(1, None, 0.0), Next::Wait(2 * SECOND));
        assert_eq!(policy.after(2, None, 0.0), Next::Wait(4 * SECOND));
        assert_eq!(policy.after(3, None, 1.0), Next::Wait(4 * SECOND));
        assert_eq!(policy.after(8, None, 0.0), Next::Wait(180 * SECOND));
    }

    #[test]
    fn the_platform_s_own_time_goes_first() {
        let policy = RetryPolicy::default();
        assert_eq!(
            policy.after(1, Some(42 * SECOND), 0.7),
            Next::Wait(42 * SECOND)
        );
        assert_eq!(
            policy.after(1, Some(180 * SECOND), 0.0),
            Next::Wait(180 * SECOND)
        );
        let late = policy.after(1, Some(181 * SECOND), 0.0);
        assert_eq!(
            late,
            Next::GiveUp {
                retry_after: 181 * SECOND
            }
        );
    }

    #[test]
    fn the_last_attempt_is_the_last() {
        let policy = RetryPolicy::default();
        assert!(matches!(policy.after(2, None, 0.5), Next::Wait(_)));
        assert!(matches!(policy.after(3, None, 0.5), Next::GiveUp { .. }));
        assert!(matches!(
            RetryPolicy::never().after(1, None, 0.5),
            Next::GiveUp { .. }
        ));
        assert!(matches!(
            policy.after(u32::MAX, None, 0.5),
            Next::GiveUp { .. }
        ));
    }
}
