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

    /// Whether no part has failed since it answered last.
    pub(crate) fn are_well(&self) -> bool {
        self.failing.is_empty()
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
mod tests;
