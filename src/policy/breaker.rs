//! The circuit breakers of a store, as a pure state: when to fail at once, when
//! to probe. Times are those of its caller's clock, from any origin.

use std::collections::BTreeMap;
use std::time::Duration;

/// Failures in a row that open the breaker.
const THRESHOLD: u32 = 3;
/// How long it stays open at first, and between any two probes at least; the
/// store's time-out where that is shorter.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// A part that no command has asked for in this long after its failure may be
/// none any more: its failures are forgotten when other parts are heard of.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// What a command asks of a store. A full disk can still be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Access {
    Read,
    Write,
}

/// A breaker for each part of a store and each access, since they fail apart.
/// Only those with failures are kept.
#[derive(Debug)]
pub(crate) struct Breakers {
    failing: BTreeMap<(u64, Access), Breaker>,
    /// How long a command may take, and the longest time from one probe to the
    /// next.
    limit: Duration,
}

/// A command that failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure {
    pub sent: Duration,
    /// When it failed.
    pub now: Duration,
    /// Whether it got no answer in all the time that it had.
    pub silent: bool,
    /// Whether it was the probe.
    pub probe: bool,
}

impl Breakers {
    /// Of a store whose commands end within `limit`.
    pub(crate) fn new(limit: Duration) -> Self {
        let failing = BTreeMap::new();
        Self { failing, limit }
    }

    /// Whether a command for that part may go on at `now`.
    pub(crate) fn pass(&mut self, part: u64, access: Access, now: Duration) -> Pass {
        let breaker = self.failing.get_mut(&(part, access));
        breaker.map_or(Pass::Go, |breaker| breaker.pass(now, self.limit))
    }

    /// When the next probe is due, where commands of this kind fail at once.
    pub(crate) fn due(&self, part: u64, access: Access) -> Option<Duration> {
        let open = self.failing.get(&(part, access))?.open.as_ref()?;
        Some(open.until)
    }

    /// That part answered; returns whether its breaker was open until now.
    ///
    /// A part that takes a write can be read, too. Where reads failed as well, the
    /// first that is answered ends an outage of both.
    pub(crate) fn answered(&mut self, part: u64, access: Access, now: Duration) -> bool {
        let mut was_open = self.close(part, access);
        match access {
            Access::Write => was_open |= self.close(part, Access::Read),
            Access::Read if was_open => _ = self.close(part, Access::Write),
            Access::Read => {}
        }
        self.forget(part, now);
        was_open
    }

    fn close(&mut self, part: u64, access: Access) -> bool {
        let breaker = self.failing.remove(&(part, access));
        breaker.is_some_and(|breaker| !breaker.is_closed())
    }

    /// A command for that part failed. Silence counts for both accesses: the
    /// other one would wait as long.
    pub(crate) fn failed(&mut self, part: u64, access: Access, failure: Failure) {
        self.forget(part, failure.now);
        for of in [Access::Read, Access::Write] {
            if of == access || failure.silent {
                let breaker = self.failing.entry((part, of)).or_default();
                let probe = failure.probe && of == access;
                breaker.failed(Failure { probe, ..failure }, self.limit);
            }
        }
    }

    /// As [`Breaker::dropped`] has it.
    pub(crate) fn dropped(&mut self, part: u64, access: Access, now: Duration) {
        if let Some(breaker) = self.failing.get_mut(&(part, access)) {
            breaker.dropped(now);
        }
    }

    /// Whether commands go on, for every part.
    pub(crate) fn are_closed(&self) -> bool {
        self.failing.values().all(Breaker::is_closed)
    }

    fn forget(&mut self, but: u64, now: Duration) {
        let recent = |breaker: &Breaker| now < breaker.last + FORGOTTEN;
        self.failing
            .retain(|(part, _), breaker| *part == but || recent(breaker));
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
    /// When the next command may probe.
    until: Duration,
    pause: Duration,
}

/// What a command may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    /// Go on.
    Go,
    /// Go on, as the only one: its end decides.
    Probe,
    /// Fail at once. The next probe is due then, if none ends before.
    Stop(Duration),
}

impl Breaker {
    /// Whether a command may go on at `now`.
    fn pass(&mut self, now: Duration, limit: Duration) -> Pass {
        match &mut self.open {
            None => Pass::Go,
            Some(open) if now < open.until => Pass::Stop(open.until),
            Some(open) => {
                // A probe that its caller stopped polling does not end, and
                // nobody waits for it any longer than for one that is silent.
                open.until = now + limit + first_pause(limit);
                Pass::Probe
            }
        }
    }

    /// Counts a failure.
    ///
    /// What was under way when a connection broke fails all at once, with a store
    /// that may be well: together it counts as one failure, so that the second
    /// try of each still goes on. Silent ones all count: any further command
    /// would wait as long.
    fn failed(&mut self, failure: Failure, limit: Duration) {
        let Failure {
            sent,
            now,
            silent,
            probe,
        } = failure;
        if self.open.is_none() && !silent && sent < self.last {
            return;
        }
        self.failures = self.failures.saturating_add(1);
        self.last = now;
        let first = first_pause(limit);
        let pause = match &self.open {
            Some(open) if probe => (open.pause * 2).min(limit),
            None if self.failures >= THRESHOLD => first,
            // Commands that were under way when it opened say nothing new.
            _ => return,
        };
        // From one sending to the next: a probe that was silent has been a pause.
        self.open = Some(Open {
            until: (sent + pause).max(now + first),
            pause,
        });
    }

    /// The probe was given up without an answer or a failure: the next one may.
    fn dropped(&mut self, now: Duration) {
        if let Some(open) = &mut self.open {
            open.until = now;
        }
    }

    /// Whether commands go on.
    fn is_closed(&self) -> bool {
        self.open.is_none()
    }
}

fn first_pause(limit: Duration) -> Duration {
    FIRST_PAUSE.min(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const LIMIT: Duration = Duration::from_secs(2);

    /// Fails at `now`, at once.
    fn failed(now: Duration) -> Failure {
        Failure {
            sent: now,
            now,
            silent: false,
            probe: false,
        }
    }

    /// Fails at `now`, after all the time that it had.
    fn silent(now: Duration) -> Failure {
        Failure {
            sent: now.saturating_sub(LIMIT),
            silent: true,
            ..failed(now)
        }
    }

    fn probe(failure: Failure) -> Failure {
        Failure {
            probe: true,
            ..failure
        }
    }

    fn opened() -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..THRESHOLD {
            assert_eq!(breaker.pass(Duration::ZERO, LIMIT), Pass::Go);
            breaker.failed(failed(Duration::ZERO), LIMIT);
        }
        assert!(!breaker.is_closed());
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it_and_one_answer_starts_anew() {
        let mut breakers = Breakers::new(LIMIT);
        for _ in 0..10 {
            breakers.failed(0, Access::Write, failed(Duration::ZERO));
            breakers.failed(0, Access::Write, failed(Duration::ZERO));
            assert!(!breakers.answered(0, Access::Write, Duration::ZERO));
        }
        assert!(breakers.are_closed());
        opened();
    }

    /// Red when all parts share a breaker.
    #[test]
    fn a_part_that_fails_takes_no_other_along() {
        let mut breakers = Breakers::new(LIMIT);
        for _ in 0..THRESHOLD {
            breakers.failed(1, Access::Read, silent(Duration::ZERO));
            breakers.failed(2, Access::Read, failed(Duration::ZERO));
            breakers.answered(2, Access::Read, Duration::ZERO);
        }
        assert!(!breakers.are_closed());
        assert_eq!(
            breakers.pass(1, Access::Read, 499 * MS),
            Pass::Stop(500 * MS)
        );
        assert_eq!(breakers.pass(2, Access::Read, 499 * MS), Pass::Go);
        assert_eq!(breakers.pass(1, Access::Read, 500 * MS), Pass::Probe);
        assert!(breakers.answered(1, Access::Read, 500 * MS));
        assert!(breakers.are_closed());
    }

    /// Red where reads and writes share a breaker: a full disk replayed nothing.
    #[test]
    fn failed_writes_stop_no_read() {
        let mut breakers = Breakers::new(LIMIT);
        for _ in 0..THRESHOLD {
            breakers.failed(0, Access::Write, failed(Duration::ZERO));
        }
        let stopped = Pass::Stop(500 * MS);
        assert_eq!(breakers.pass(0, Access::Write, 499 * MS), stopped);
        assert_eq!(breakers.pass(0, Access::Read, 499 * MS), Pass::Go);
        // An answer to a read proves nothing of writes.
        assert!(!breakers.answered(0, Access::Read, 499 * MS));
        assert_eq!(breakers.pass(0, Access::Write, 499 * MS), stopped);
        assert!(!breakers.are_closed());
        assert_eq!(breakers.pass(0, Access::Write, 500 * MS), Pass::Probe);
        assert!(breakers.answered(0, Access::Write, 500 * MS));
        assert!(breakers.are_closed());
    }

    /// A store that is silent is silent to both, and one answer ends it for both.
    #[test]
    fn silence_stops_both_until_one_answer() {
        for (silence, answer) in [
            (Access::Write, Access::Read),
            (Access::Read, Access::Write),
            (Access::Read, Access::Read),
        ] {
            let mut breakers = Breakers::new(LIMIT);
            for _ in 0..THRESHOLD {
                breakers.failed(0, silence, silent(LIMIT));
            }
            let due = LIMIT + 500 * MS;
            for access in [Access::Read, Access::Write] {
                assert_eq!(breakers.pass(0, access, due - MS), Pass::Stop(due));
            }
            assert_eq!(breakers.pass(0, answer, due), Pass::Probe);
            assert!(breakers.answered(0, answer, due));
            assert!(breakers.are_closed(), "{silence:?}, {answer:?}");
        }
    }

    /// Shards come and go: what nobody asks for is not down for ever.
    #[test]
    fn a_part_that_is_gone_is_forgotten() {
        let mut breakers = Breakers::new(LIMIT);
        for part in 1..4 {
            for _ in 0..THRESHOLD {
                breakers.failed(part, Access::Read, silent(Duration::ZERO));
            }
        }
        breakers.answered(9, Access::Read, FORGOTTEN - MS);
        assert!(!breakers.are_closed());
        breakers.failed(1, Access::Read, silent(FORGOTTEN));
        let parts = |breakers: &Breakers| breakers.failing.keys().all(|(part, _)| *part == 1);
        assert!(parts(&breakers), "the others were not asked for");
        assert_eq!(breakers.pass(2, Access::Read, FORGOTTEN), Pass::Go);
        assert!(!breakers.are_closed());
    }

    #[test]
    fn what_one_broken_connection_takes_along_is_one_failure() {
        let mut breaker = Breaker::default();
        let under_way = |broken: u32| Failure {
            sent: (broken - 5) * MS,
            ..failed(broken * MS)
        };
        for broken in [10, 20] {
            for _ in 0..50 {
                breaker.failed(under_way(broken), LIMIT);
            }
            assert!(breaker.is_closed());
        }
        breaker.failed(failed(30 * MS), LIMIT);
        assert!(!breaker.is_closed());
        // Silence is another matter.
        let mut breaker = Breaker::default();
        for _ in 0..THRESHOLD {
            breaker.failed(silent(2_000 * MS), LIMIT);
        }
        assert!(!breaker.is_closed());
    }

    #[test]
    fn while_open_one_probe_at_a_time() {
        let mut breaker = opened();
        let mut pass = |now: u32| breaker.pass(now * MS, LIMIT);
        assert_eq!(pass(499), Pass::Stop(500 * MS));
        assert_eq!(pass(500), Pass::Probe);
        assert_eq!(pass(500), Pass::Stop(3000 * MS));
        breaker.dropped(501 * MS);
        assert_eq!(breaker.pass(501 * MS, LIMIT), Pass::Probe);
        let mut breakers = Breakers::new(LIMIT);
        breakers.failing.insert((0, Access::Read), breaker);
        breakers.answered(0, Access::Read, 501 * MS);
        assert_eq!(breakers.pass(0, Access::Read, 502 * MS), Pass::Go);
    }

    #[test]
    fn probes_that_fail_come_at_the_pace_of_the_time_out() {
        let mut breaker = opened();
        let mut now = Duration::ZERO;
        for pause in [500, 1000, 2000, 2000, 2000] {
            now += pause * MS;
            assert_eq!(breaker.pass(now - MS, LIMIT), Pass::Stop(now));
            assert_eq!(breaker.pass(now, LIMIT), Pass::Probe);
            // Late failures of other commands change nothing.
            breaker.failed(failed(now), LIMIT);
            breaker.failed(probe(failed(now)), LIMIT);
        }
    }

    /// Seen red where the pause was counted from the end of a probe, and grew to
    /// 5 s: a silent store was then asked every 7 s.
    #[test]
    fn a_silent_probe_has_been_a_pause() {
        let mut breaker = opened();
        let mut sent = 500 * MS;
        for _ in 0..10 {
            assert_eq!(breaker.pass(sent, LIMIT), Pass::Probe);
            breaker.failed(probe(silent(sent + LIMIT)), LIMIT);
            sent += LIMIT + FIRST_PAUSE;
        }
        // Of a store with a short time-out, too.
        let mut breaker = opened();
        let short = 10 * MS;
        assert_eq!(breaker.pass(500 * MS, short), Pass::Probe);
        breaker.failed(probe(failed(500 * MS)), short);
        assert_eq!(breaker.pass(510 * MS, short), Pass::Probe);
    }
}
