//! The circuit breaker of a store, as a pure state: when to fail at once, when
//! to probe. Times are those of its caller's clock, from any origin.

use std::time::Duration;

/// Failures in a row that open the breaker.
const THRESHOLD: u32 = 3;
/// How long it stays open first; doubled with every probe that fails.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Closed while commands are answered; open after three failures in a row, when
/// commands fail at once; and probing, when one command tries whether the store
/// is back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Breaker {
    failures: u32,
    /// When the last failure was counted.
    last: Duration,
    open: Option<Open>,
}

#[derive(Clone, Debug)]
struct Open {
    until: Duration,
    pause: Duration,
    probing: bool,
}

/// What a command may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    /// Go on.
    Go,
    /// Go on, as the only one: its end decides.
    Probe,
    /// Fail at once.
    Stop,
}

impl Breaker {
    /// Whether a command may go on at `now`.
    pub(crate) fn pass(&mut self, now: Duration) -> Pass {
        match &mut self.open {
            None => Pass::Go,
            Some(open) if open.probing || now < open.until => Pass::Stop,
            Some(open) => {
                open.probing = true;
                Pass::Probe
            }
        }
    }

    /// The store answered.
    pub(crate) fn answered(&mut self) {
        *self = Self::default();
    }

    /// A command that was sent at `sent` failed; `probe` where it was the probe.
    ///
    /// What was under way when a connection broke fails all at once, with a store
    /// that may be well: together it counts as one failure, so that the second
    /// try of each still goes on.
    pub(crate) fn failed(&mut self, sent: Duration, now: Duration, probe: bool) {
        if self.open.is_none() && sent < self.last {
            return;
        }
        self.count(now, probe);
    }

    /// A command got no answer in all the time that it had. Each of these
    /// counts: whoever else waits would wait as long.
    pub(crate) fn silent(&mut self, now: Duration, probe: bool) {
        self.count(now, probe);
    }

    fn count(&mut self, now: Duration, probe: bool) {
        self.failures = self.failures.saturating_add(1);
        self.last = now;
        match &mut self.open {
            // Commands that were under way when it opened say nothing new.
            Some(open) if probe => {
                let pause = (open.pause * 2).min(LONGEST_PAUSE);
                *open = Open {
                    until: now + pause,
                    pause,
                    probing: false,
                };
            }
            Some(_) => {}
            None if self.failures >= THRESHOLD => {
                self.open = Some(Open {
                    until: now + FIRST_PAUSE,
                    pause: FIRST_PAUSE,
                    probing: false,
                });
            }
            None => {}
        }
    }

    /// The probe was given up without an answer or a failure: the next one may.
    pub(crate) fn dropped(&mut self) {
        if let Some(open) = &mut self.open {
            open.probing = false;
        }
    }

    /// Whether commands go on.
    pub(crate) fn is_closed(&self) -> bool {
        self.open.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn opened() -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..THRESHOLD {
            assert_eq!(breaker.pass(Duration::ZERO), Pass::Go);
            breaker.failed(Duration::ZERO, Duration::ZERO, false);
        }
        assert!(!breaker.is_closed());
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it_and_one_answer_starts_anew() {
        let mut breaker = Breaker::default();
        for _ in 0..10 {
            breaker.failed(Duration::ZERO, Duration::ZERO, false);
            breaker.failed(Duration::ZERO, Duration::ZERO, false);
            breaker.answered();
        }
        assert!(breaker.is_closed());
        opened();
    }

    #[test]
    fn what_one_broken_connection_takes_along_is_one_failure() {
        let mut breaker = Breaker::default();
        for broken in [10, 20] {
            for _ in 0..50 {
                breaker.failed((broken - 5) * MS, broken * MS, false);
            }
            assert!(breaker.is_closed());
        }
        breaker.failed(20 * MS, 30 * MS, false);
        assert!(!breaker.is_closed());
        // Silence is another matter.
        let mut breaker = Breaker::default();
        for _ in 0..THRESHOLD {
            breaker.silent(2_000 * MS, false);
        }
        assert!(!breaker.is_closed());
    }

    #[test]
    fn while_open_one_probe_at_a_time() {
        let mut breaker = opened();
        assert_eq!(breaker.pass(499 * MS), Pass::Stop);
        assert_eq!(breaker.pass(500 * MS), Pass::Probe);
        assert_eq!(breaker.pass(500 * MS), Pass::Stop);
        breaker.dropped();
        assert_eq!(breaker.pass(501 * MS), Pass::Probe);
        breaker.answered();
        assert_eq!(breaker.pass(502 * MS), Pass::Go);
    }

    #[test]
    fn a_failed_probe_waits_longer_up_to_a_bound() {
        let mut breaker = opened();
        let mut now = Duration::ZERO;
        for pause in [500, 1000, 2000, 4000, 5000, 5000] {
            now += pause * MS;
            assert_eq!(breaker.pass(now - MS), Pass::Stop);
            assert_eq!(breaker.pass(now), Pass::Probe);
            // Late failures of others change nothing.
            breaker.failed(now, now, false);
            breaker.failed(now, now, true);
        }
    }
}
