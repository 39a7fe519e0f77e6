//! Decisions as pure functions: when to retry, what to do about duplicates, unknown
//! outcomes and a store that is down, and how far a body can be read. It has no I/O, no
//! clock, and knows no platform.

use std::time::Duration;

use serde::Deserialize;

use self::named::RetryMembers;

mod backoff;
mod body;
mod breaker;
mod named;

pub(crate) use self::backoff::{MAX_ASKED, bounded_wait, jittered};
pub(crate) use self::body::{
    body_fault, check_answer_body, check_searchable, checked_verdict, without_byte_order_mark,
};
pub(crate) use self::breaker::{Breakers, CommandAccess, FailedCommand, Pass};
pub(crate) use self::named::named_values;

/// The longest backoff, and the longest sum of waits, that a policy may set, so that
/// no clock overflows.
const MAX_SET: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What a caller gets while another caller's execution of its key is under way.
///
/// Its values in text (`Display`, `FromStr`, serde): `wait` and `fail_fast`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnDuplicate {
    /// The answer of the execution under way, in any process. A caller that arrives
    /// after a refusal or an error was returned, and before the record is finished,
    /// waits for the record and then executes again.
    #[default]
    Wait,
    /// `Error::InProgress` at once, also if the holder is in this process.
    FailFast,
}

/// What happens to a request that might have been executed.
///
/// Its values in text (`Display`, `FromStr`, serde): `hold` and `retry`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnUnknown {
    /// Its key stays indeterminate until an operator or a hook resolves it, or until
    /// `indeterminate_ttl` ends: at most one execution in that time.
    #[default]
    Hold,
    /// The engine retries within the retry policy: at least one execution, by choice.
    /// This covers attempts of one execution only. A key that another process left
    /// indeterminate stays so.
    Retry,
}

named_values!(
    OnDuplicate,
    "on_duplicate",
    Wait = "wait",
    FailFast = "fail_fast"
);
named_values!(OnUnknown, "on_unknown", Hold = "hold", Retry = "retry");

/// How often and how long an execution retries after an answer that proves that
/// nothing was executed.
///
/// Defaults: 3 attempts; a backoff of 2 s, doubled with each attempt, plus jitter of up
/// to half of it; 180 s of waiting in all (the limit of the vendor's SDKs).
///
/// A wait that the platform asked for (`Retry-After`) counts as no attempt and doubles
/// no backoff. It counts in the sum that [`max_wait`](Self::max_wait) bounds, so that a
/// platform that always answers 429 ends the execution. The engine waits at least for
/// its backoff and at most for an hour, whatever the platform asks for.
///
/// As JSON, or any other format of serde, it has the members `attempts`, `backoff_ms` and
/// `max_wait_ms`. A member that is absent has its default. Another member, and a value that
/// `start` would refuse, is an error.
///
/// ```
/// use genesys_once::RetryPolicy;
///
/// let policy: RetryPolicy = serde_json::from_str(r#"{"attempts": 5, "backoff_ms": 500}"#)?;
/// # use std::time::Duration;
/// assert_eq!(policy, RetryPolicy::default().attempts(5).backoff(Duration::from_millis(500)));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "RetryMembers")]
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
    /// One attempt, and never a second, whatever the platform asks for.
    pub fn never() -> Self {
        Self {
            attempts: 1,
            ..Self::default()
        }
    }

    /// The number of attempts, the first included: at least 1, 3 by default. An attempt
    /// that the platform asked to repeat after a given time does not count. But 1 is
    /// [`never`](Self::never).
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// The first wait if the platform asks for none, and the shortest if it does;
    /// doubled with each attempt that counts. 2 s by default, at most 30 days.
    pub fn backoff(mut self, first: Duration) -> Self {
        self.backoff = first;
        self
    }

    /// The sum of all waits of an execution: between its attempts, and for the end of
    /// a cooldown, also of one that another execution began. A wait that would exceed
    /// the sum ends the execution at once with
    /// [`Error::RateLimited`](crate::Error::RateLimited). Waits for a token, a permit or
    /// the client's rate limit do not count. 180 s by default, at most 30 days; zero
    /// permits no wait.
    pub fn max_wait(mut self, sum: Duration) -> Self {
        self.max_wait = sum;
        self
    }

    /// What to do after an attempt that was not executed.
    ///
    /// `made` attempts count so far, and `waited` is the sum of the waits until now.
    /// `asked` is the wait that the platform asked for; if there is one, this attempt
    /// does not count. `random`, from 0 to 1, decides the jitter.
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
        // The backoff is also the shortest wait that a peer can ask for.
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

    /// How long an execution may still wait.
    pub(crate) fn left(&self, waited: Duration) -> Duration {
        self.max_wait.saturating_sub(waited)
    }

    /// Why this policy is impossible.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        if self.attempts == 0 {
            Some("attempts must be at least 1, found 0")
        } else if self.backoff.max(self.max_wait) > MAX_SET {
            Some("backoff and max_wait must be at most 30 days")
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
    /// Do not retry; a caller may, after this long.
    GiveUp {
        /// After which the platform might answer again.
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
        assert_eq!(wait(8, 1.0), Next::Wait(180 * SECOND));
    }

    #[test]
    fn platform_wait_is_bounded_by_backoff_and_hour() {
        let policy = RetryPolicy::default().max_wait(2 * 3600 * SECOND);
        let wait = |asked| policy.after(0, ZERO, Some(asked), 0.5);
        assert_eq!(wait(42 * SECOND), Next::Wait(42 * SECOND));
        assert_eq!(wait(ZERO), Next::Wait(5 * SECOND / 2));
        assert_eq!(wait(Duration::MAX), Next::Wait(3600 * SECOND));
    }

    /// Red if a wait that was asked for counts as an attempt, or doubles the backoff.
    #[test]
    fn asked_wait_counts_only_in_the_sum() {
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
    fn wait_beyond_the_sum_gives_up_at_once() {
        let policy = RetryPolicy::default();
        let after = |waited, asked| policy.after(1, waited * SECOND, Some(asked * SECOND), 0.0);
        assert_eq!(after(0, 180), Next::Wait(180 * SECOND));
        assert_eq!(after(100, 80), Next::Wait(80 * SECOND));
        for (waited, asked) in [(0, 181), (100, 81), (180, 2), (999, 2)] {
            let retry_after = asked * SECOND;
            assert_eq!(after(waited, asked), Next::GiveUp { retry_after });
        }
    }

    /// Red if the sum of all waits shortens the shortest wait between two calls.
    #[test]
    fn max_wait_below_backoff_shortens_no_wait() {
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
    fn last_attempt_gives_up() {
        let policy = RetryPolicy::default();
        let ends = |made| matches!(policy.after(made, ZERO, None, 0.5), Next::GiveUp { .. });
        assert!(!ends(2) && ends(3) && ends(u32::MAX));
        for asked in [None, Some(SECOND)] {
            let never = RetryPolicy::never().after(0, ZERO, asked, 0.5);
            assert!(matches!(never, Next::GiveUp { .. }));
        }
    }
}
