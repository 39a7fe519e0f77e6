//! Decisions as pure functions: what an answer means, when to try again, what
//! to do about duplicates, unknown outcomes and a store that is down. No I/O,
//! no clock of its own.

use std::time::Duration;

mod backoff;
mod body;
mod breaker;

pub(crate) use self::backoff::{MAX_ASKED, bounded_wait, jittered};
pub(crate) use self::body::{
    body_fault, check_answer_body, check_searchable, checked_verdict, without_byte_order_mark,
};
pub(crate) use self::breaker::{Access, Breakers, Failure, Pass};

/// The longest backoff, and the longest sum of waits, that may be set: clocks can
/// still add it up.
const MAX_SET: Duration = Duration::from_secs(30 * 24 * 60 * 60);

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
/// Defaults: 3 attempts; a backoff of 2 s, doubled with every attempt, to which up
/// to half is added as jitter; 180 s of waiting in all (the limit of the vendor's
/// SDKs).
///
/// A wait that the platform asked for (`Retry-After`) costs no attempt and doubles
/// nothing, but it is a part of the sum that [`max_wait`](Self::max_wait) bounds: a
/// platform that answers 429 without end ends the execution. What the platform asks
/// for is a wish: less than the backoff is the backoff, more than an hour is an hour.
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
    /// One attempt, never a second one, whatever the platform asks for.
    pub fn never() -> Self {
        Self {
            attempts: 1,
            ..Self::default()
        }
    }

    /// How many attempts there are, the first included; at least 1. An attempt that
    /// the platform asked to repeat later, by a time of its own, is not counted, but
    /// 1 is [`never`](Self::never). 3 by default.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// The first wait where the platform names none, and the least where it does;
    /// doubled with every attempt that counts. 2 s by default, at most 30 days.
    pub fn backoff(mut self, first: Duration) -> Self {
        self.backoff = first;
        self
    }

    /// The sum of all waits of an execution: between its attempts, and for the end of
    /// a cooldown, its own or another execution's. A wait that would exceed it ends
    /// the execution at once with [`Error::RateLimited`](crate::Error::RateLimited).
    /// Waits for a token, a permit or the client's own rate limit are not in it.
    /// 180 s by default, at most 30 days; zero is no wait at all.
    pub fn max_wait(mut self, sum: Duration) -> Self {
        self.max_wait = sum;
        self
    }

    /// What to do after an attempt that was not executed.
    ///
    /// `made` attempts count so far and `waited` is the sum of the waits before this
    /// one; `asked` is what the platform asked for, after which this attempt does not
    /// count; `random`, from 0 to 1, is the jitter's.
    pub(crate) fn after(
        &self,
        made: u32,
        waited: Duration,
        asked: Option<Duration>,
        random: f64,
    ) -> Next {
        let doubled = self
            .backoff
            .saturating_mul(1 << made.saturating_sub(1).min(16));
        // No longer than the sum allows, and never below the backoff: that is also the
        // least of what a peer asks for.
        let most = self.max_wait.max(self.backoff);
        let own = jittered(doubled.min(most), random);
        let own = match asked {
            Some(_) => own,
            None => own.min(most),
        };
        let wait = bounded_wait(asked, own);
        let is_last = self.attempts <= 1 || asked.is_none() && made >= self.attempts;
        if is_last || wait > self.left(waited) {
            Next::GiveUp { retry_after: wait }
        } else {
            Next::Wait(wait)
        }
    }

    /// How long an execution may wait after it has waited so long.
    pub(crate) fn left(&self, waited: Duration) -> Duration {
        self.max_wait.saturating_sub(waited)
    }

    pub(crate) fn fault(&self) -> Option<&'static str> {
        if self.attempts == 0 {
            Some("there must be at least one attempt")
        } else if self.backoff.max(self.max_wait) > MAX_SET {
            Some("a wait must be at most 30 days")
        } else {
            None
        }
    }
}

/// What follows an attempt that was not executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Try again after this long.
    Wait(Duration),
    /// Do not try again; a caller may, after this long.
    GiveUp {
        /// How long the platform had better be left alone.
        retry_after: Duration,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    const ZERO: Duration = Duration::ZERO;

    #[test]
    fn backoff_doubles_and_jitter_adds_up_to_half() {
        let policy = RetryPolicy::default().attempts(9);
        let wait = |made, random| policy.after(made, ZERO, None, random);
        assert_eq!(wait(1, 0.0), Next::Wait(2 * SECOND));
        assert_eq!(wait(2, 0.0), Next::Wait(4 * SECOND));
        assert_eq!(wait(3, 1.0), Next::Wait(12 * SECOND));
        // One wait is never longer than all may be together.
        assert_eq!(wait(8, 1.0), Next::Wait(180 * SECOND));
    }

    #[test]
    fn platform_time_is_followed_between_backoff_and_an_hour() {
        let policy = RetryPolicy::default().max_wait(2 * 3600 * SECOND);
        let wait = |asked| policy.after(0, ZERO, Some(asked), 0.5);
        assert_eq!(wait(42 * SECOND), Next::Wait(42 * SECOND));
        assert_eq!(wait(ZERO), Next::Wait(5 * SECOND / 2));
        assert_eq!(wait(Duration::MAX), Next::Wait(3600 * SECOND));
    }

    /// Red where a wait that was asked for costs an attempt, or doubles the backoff.
    #[test]
    fn asked_waits_cost_no_attempt_and_end_with_their_sum() {
        let policy = RetryPolicy::default();
        let mut waited = ZERO;
        for _ in 0..90 {
            assert_eq!(
                policy.after(0, waited, Some(ZERO), 0.0),
                Next::Wait(2 * SECOND)
            );
            waited += 2 * SECOND;
        }
        let late = policy.after(0, waited, Some(ZERO), 0.0);
        assert_eq!(
            late,
            Next::GiveUp {
                retry_after: 2 * SECOND
            }
        );
    }

    #[test]
    fn wait_beyond_the_sum_ends_at_once() {
        let policy = RetryPolicy::default();
        let after = |waited, asked| policy.after(1, waited * SECOND, Some(asked * SECOND), 0.0);
        assert_eq!(after(0, 180), Next::Wait(180 * SECOND));
        assert_eq!(after(100, 80), Next::Wait(80 * SECOND));
        for (waited, asked) in [(0, 181), (100, 81), (180, 2), (999, 2)] {
            let retry_after = asked * SECOND;
            assert_eq!(after(waited, asked), Next::GiveUp { retry_after });
        }
    }

    /// Red where the sum of all waits lowers the least wait between two calls.
    #[test]
    fn sum_below_the_backoff_lowers_no_floor() {
        for sum in [ZERO, SECOND] {
            let policy = RetryPolicy::default().max_wait(sum);
            for asked in [None, Some(ZERO)] {
                let next = policy.after(1, ZERO, asked, 0.0);
                let retry_after = 2 * SECOND;
                assert_eq!(next, Next::GiveUp { retry_after }, "{sum:?} {asked:?}");
            }
        }
    }

    #[test]
    fn last_attempt_is_the_last() {
        let policy = RetryPolicy::default();
        let ends = |made| matches!(policy.after(made, ZERO, None, 0.5), Next::GiveUp { .. });
        assert!(!ends(2) && ends(3) && ends(u32::MAX));
        for asked in [None, Some(SECOND)] {
            let never = RetryPolicy::never().after(0, ZERO, asked, 0.5);
            assert!(matches!(never, Next::GiveUp { .. }));
        }
    }
}
