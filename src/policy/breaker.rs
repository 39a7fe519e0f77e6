//! The circuit breakers of a store, as a pure state: when to fail at once, when
//! to probe. Times are those of its caller's clock, from any origin.

use std::collections::BTreeMap;
use std::time::Duration;

/// Failures in a row that open the breaker.
const THRESHOLD: u32 = 3;
/// How long it stays open first; doubled with every probe that fails.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A part that nobody has asked for in this long after its failure may be none
/// any more: its failures are forgotten when others are heard of.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// A breaker for each part of a store, since parts fail apart. Only those with
/// failures are kept.
#[derive(Debug, Default)]
pub(crate) struct Breakers {
    failing: BTreeMap<u64, Breaker>,
}

impl Breakers {
    /// Whether a command for that part may go on at `now`.
    pub(crate) fn pass(&mut self, part: u64, now: Duration) -> Pass {
        let breaker = self.failing.get_mut(&part);
        breaker.map_or(Pass::Go, |breaker| breaker.pass(now))
    }

    /// That part answered.
    pub(crate) fn answered(&mut self, part: u64, now: Duration) {
        self.failing.remove(&part);
        self.forget(part, now);
    }

    /// As [`Breaker::failed`] has it.
    pub(crate) fn failed(&mut self, part: u64, sent: Duration, now: Duration, probe: bool) {
        self.forget(part, now);
        let breaker = self.failing.entry(part).or_default();
        breaker.failed(sent, now, probe);
    }

    /// As [`Breaker::silent`] has it.
    pub(crate) fn silent(&mut self, part: u64, now: Duration, probe: bool) {
        self.forget(part, now);
        self.failing.entry(part).or_default().silent(now, probe);
    }

    /// As [`Breaker::dropped`] has it.
    pub(crate) fn dropped(&mut self, part: u64) {
        if let Some(breaker) = self.failing.get_mut(&part) {
            breaker.dropped();
        }
    }

    /// Whether commands go on, for every part.
    pub(crate) fn are_closed(&self) -> bool {
        self.failing.values().all(Breaker::is_closed)
    }

    fn forget(&mut self, but: u64, now: Duration) {
        let recent = |breaker: &Breaker| now < breaker.last + FORGOTTEN;
        self.failing
            .retain(|part, breaker| *part == but || recent(breaker));
    }
}

/// Closed while commands are answered; open after three failures in a row, when
/// commands fail at once; and probing, when one command tries whether the store
/// is back.
#[derive(Clone, Debug, Default)]
struct Breaker {
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
    fn pass(&mut self, now: Duration) -> Pass {
        match &mut self.open {
            None => Pass::Go,
            Some(open) if open.probing || now < open.until => Pass::Stop,
            Some(open) => {
                open.probing = true;
                Pass::Probe
            }
        }
    }

    /// A command that was sent at `sent` failed; `probe` where it was the probe.
    ///
    /// What was under way when a connection broke fails all at once, with a store
    /// that may be well: together it counts as one failure, so that the second
    /// try of each still goes on.
    fn failed(&mut self, sent: Duration, now: Duration, probe: bool) {
        if self.open.is_none() && sent < self.last {
            return;
        }
        self.count(now, probe);
    }

    /// A command got no answer in all the time that it had. Each of these
    /// counts: whoever else waits would wait as long.
    fn silent(&mut self, now: Duration, probe: bool) {
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
    fn dropped(&mut self) {
        if let Some(open) = &mut self.open {
            open.probing = false;
        }
    }

    /// Whether commands go on.
    fn is_closed(&self) -> bool {
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
        let mut breakers = Breakers::default();
        for _ in 0..10 {
            breakers.failed(0, Duration::ZERO, Duration::ZERO, false);
            breakers.failed(0, Duration::ZERO, Duration::ZERO, false);
            breakers.answered(0, Duration::ZERO);
        }
        assert!(breakers.are_closed());
        opened();
    }

    /// Red when all parts share a breaker.
    #[test]
    fn a_part_that_fails_takes_no_other_along() {
        let mut breakers = Breakers::default();
        for _ in 0..THRESHOLD {
            breakers.silent(1, Duration::ZERO, false);
            breakers.failed(2, Duration::ZERO, Duration::ZERO, false);
            breakers.answered(2, Duration::ZERO);
        }
        assert!(!breakers.are_closed());
        assert_eq!(breakers.pass(1, 499 * MS), Pass::Stop);
        assert_eq!(breakers.pass(2, 499 * MS), Pass::Go);
        assert_eq!(breakers.pass(1, 500 * MS), Pass::Probe);
        breakers.answered(1, 500 * MS);
        assert!(breakers.are_closed());
    }

    /// Shards come and go: what nobody asks for is not down for ever.
    #[test]
    fn a_part_that_is_gone_is_forgotten() {
        let mut breakers = Breakers::default();
        for part in 1..4 {
            for _ in 0..THRESHOLD {
                breakers.silent(part, Duration::ZERO, false);
            }
        }
        breakers.answered(9, FORGOTTEN - MS);
        assert!(!breakers.are_closed());
        breakers.silent(1, FORGOTTEN, false);
        assert_eq!(breakers.failing.len(), 1, "the others were not asked for");
        assert_eq!(breakers.pass(2, FORGOTTEN), Pass::Go);
        assert!(!breakers.are_closed());
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
        let mut breakers = Breakers::default();
        breakers.failing.insert(0, breaker);
        breakers.answered(0, 501 * MS);
        assert_eq!(breakers.pass(0, 502 * MS), Pass::Go);
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
