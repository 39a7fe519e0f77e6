//! The circuit breakers of a store as pure state: when a command fails at once, and when
//! one probes. It sends nothing; times come from its caller's clock, with any origin.

use std::collections::BTreeMap;
use std::time::Duration;

/// Failures in a row that open the breaker.
const THRESHOLD: u32 = 3;
/// How long the breaker stays open at first, and at least between two probes. The
/// store's time-out counts if it is shorter.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// The failures of a shard are forgotten after this long without a command for it, since
/// the shard might not exist now. Commands for other shards remove them.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// What a command needs of a store. A full disk can still be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum CommandAccess {
    Read,
    Write,
}

/// A breaker for each shard of a store and each access, since they fail separately.
/// Only breakers with failures are kept.
#[derive(Debug)]
pub(crate) struct Breakers {
    failing: BTreeMap<(u64, CommandAccess), Breaker>,
    /// How long a command may take, and the longest time between two probes.
    limit: Duration,
}

/// A command that failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FailedCommand {
    pub sent: Duration,
    /// When it failed.
    pub now: Duration,
    /// Whether it had no answer within the time limit.
    pub silent: bool,
    /// Whether it was the probe.
    pub probe: bool,
}

impl Breakers {
    /// For a store whose commands end within `limit`.
    pub(crate) fn new(limit: Duration) -> Self {
        let failing = BTreeMap::new();
        Self { failing, limit }
    }

    /// Whether a command for this shard may go on at `now`.
    pub(crate) fn pass(&mut self, part: u64, access: CommandAccess, now: Duration) -> Pass {
        let breaker = self.failing.get_mut(&(part, access));
        breaker.map_or(Pass::Go, |breaker| breaker.pass(now, self.limit))
    }

    /// When the next probe is due, if commands of this kind fail at once.
    pub(crate) fn due(&self, part: u64, access: CommandAccess) -> Option<Duration> {
        let open = self.failing.get(&(part, access))?.open.as_ref()?;
        Some(open.until)
    }

    /// The shard answered; returns whether its breaker was open until now.
    ///
    /// A shard that accepts a write can also be read. If reads failed as well, the first
    /// read that is answered ends the outage of both.
    pub(crate) fn answered(&mut self, part: u64, access: CommandAccess, now: Duration) -> bool {
        let mut was_open = self.close(part, access);
        match access {
            CommandAccess::Write => was_open |= self.close(part, CommandAccess::Read),
            CommandAccess::Read if was_open => _ = self.close(part, CommandAccess::Write),
            CommandAccess::Read => {}
        }
        self.forget(part, now);
        was_open
    }

    fn close(&mut self, part: u64, access: CommandAccess) -> bool {
        let breaker = self.failing.remove(&(part, access));
        breaker.is_some_and(|breaker| !breaker.is_closed())
    }

    /// A command for this shard failed. Silence counts for both accesses, since a command
    /// of the other one would wait as long.
    pub(crate) fn failed(&mut self, part: u64, access: CommandAccess, failure: FailedCommand) {
        self.forget(part, failure.now);
        for of in [CommandAccess::Read, CommandAccess::Write] {
            if of == access || failure.silent {
                let breaker = self.failing.entry((part, of)).or_default();
                let probe = failure.probe && of == access;
                breaker.failed(FailedCommand { probe, ..failure }, self.limit);
            }
        }
    }

    /// See [`Breaker::dropped`].
    pub(crate) fn dropped(&mut self, part: u64, access: CommandAccess, now: Duration) {
        if let Some(breaker) = self.failing.get_mut(&(part, access)) {
            breaker.dropped(now);
        }
    }

    /// Whether commands go on for every shard.
    pub(crate) fn are_closed(&self) -> bool {
        self.failing.values().all(Breaker::is_closed)
    }

    /// Whether no shard has failed since its last answer.
    pub(crate) fn are_well(&self) -> bool {
        self.failing.is_empty()
    }

    fn forget(&mut self, but: u64, now: Duration) {
        let recent = |breaker: &Breaker| now < breaker.last + FORGOTTEN;
        self.failing
            .retain(|(part, _), breaker| *part == but || recent(breaker));
    }
}

/// Closed while commands are answered. Open after three failures in a row: commands fail
/// at once. Then one command probes whether the store answers again.
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
    /// Go on alone: its result decides.
    Probe,
    /// Fail at once. The next probe is due at this time, or when one ends before.
    Stop(Duration),
}

impl Breaker {
    /// Whether a command may go on at `now`.
    fn pass(&mut self, now: Duration, limit: Duration) -> Pass {
        match &mut self.open {
            None => Pass::Go,
            Some(open) if now < open.until => Pass::Stop(open.until),
            Some(open) => {
                // A probe that its caller has stopped polling never ends. It counts
                // for no longer than a silent probe.
                open.until = now + limit + first_pause(limit);
                Pass::Probe
            }
        }
    }

    /// Counts a failure.
    ///
    /// If a connection breaks, all its commands fail at once, although the store might
    /// answer. Together they count as one failure, so that the second try of each goes
    /// on. Silent failures all count, since any further command would wait as long.
    fn failed(&mut self, failure: FailedCommand, limit: Duration) {
        let FailedCommand {
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
            // Commands that were under way when the breaker opened prove nothing new.
            _ => return,
        };
        // Counted from the sending: a silent probe has already waited.
        self.open = Some(Open {
            until: (sent + pause).max(now + first),
            pause,
        });
    }

    /// The probe was dropped without an answer or a failure: the next command may probe.
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
