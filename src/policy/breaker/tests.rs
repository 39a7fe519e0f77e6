//! The breakers as a pure state, by the times that a test gives them.

use super::*;

const MS: Duration = Duration::from_millis(1);
const LIMIT: Duration = Duration::from_secs(2);

/// Fails at `now`, at once.
fn failed(now: Duration) -> FailedCommand {
    FailedCommand {
        sent: now,
        now,
        silent: false,
        probe: false,
    }
}

/// Fails at `now`, after all the time that it had.
fn silent(now: Duration) -> FailedCommand {
    FailedCommand {
        sent: now.saturating_sub(LIMIT),
        silent: true,
        ..failed(now)
    }
}

fn probe(failure: FailedCommand) -> FailedCommand {
    FailedCommand {
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
fn consecutive_failures_open_the_breaker() {
    let mut breakers = Breakers::new(LIMIT);
    for _ in 0..10 {
        breakers.failed(0, CommandAccess::Write, failed(Duration::ZERO));
        breakers.failed(0, CommandAccess::Write, failed(Duration::ZERO));
        assert!(!breakers.answered(0, CommandAccess::Write, Duration::ZERO));
    }
    assert!(breakers.are_closed());
    opened();
}

/// Red when all parts share a breaker.
#[test]
fn failing_shard_stops_no_other() {
    let mut breakers = Breakers::new(LIMIT);
    for _ in 0..THRESHOLD {
        breakers.failed(1, CommandAccess::Read, silent(Duration::ZERO));
        breakers.failed(2, CommandAccess::Read, failed(Duration::ZERO));
        breakers.answered(2, CommandAccess::Read, Duration::ZERO);
    }
    assert!(!breakers.are_closed());
    assert_eq!(
        breakers.pass(1, CommandAccess::Read, 499 * MS),
        Pass::Stop(500 * MS)
    );
    assert_eq!(breakers.pass(2, CommandAccess::Read, 499 * MS), Pass::Go);
    assert_eq!(breakers.pass(1, CommandAccess::Read, 500 * MS), Pass::Probe);
    assert!(breakers.answered(1, CommandAccess::Read, 500 * MS));
    assert!(breakers.are_closed());
}

/// Red where reads and writes share a breaker: a full disk replayed nothing.
#[test]
fn failed_writes_stop_no_read() {
    let mut breakers = Breakers::new(LIMIT);
    for _ in 0..THRESHOLD {
        breakers.failed(0, CommandAccess::Write, failed(Duration::ZERO));
    }
    let stopped = Pass::Stop(500 * MS);
    assert_eq!(breakers.pass(0, CommandAccess::Write, 499 * MS), stopped);
    assert_eq!(breakers.pass(0, CommandAccess::Read, 499 * MS), Pass::Go);
    // An answer to a read proves nothing of writes.
    assert!(!breakers.answered(0, CommandAccess::Read, 499 * MS));
    assert_eq!(breakers.pass(0, CommandAccess::Write, 499 * MS), stopped);
    assert!(!breakers.are_closed());
    assert_eq!(
        breakers.pass(0, CommandAccess::Write, 500 * MS),
        Pass::Probe
    );
    assert!(breakers.answered(0, CommandAccess::Write, 500 * MS));
    assert!(breakers.are_closed());
}

/// A store that is silent is silent to both, and one answer ends it for both.
#[test]
fn silence_stops_both_until_one_answer() {
    for (silence, answer) in [
        (CommandAccess::Write, CommandAccess::Read),
        (CommandAccess::Read, CommandAccess::Write),
        (CommandAccess::Read, CommandAccess::Read),
    ] {
        let mut breakers = Breakers::new(LIMIT);
        for _ in 0..THRESHOLD {
            breakers.failed(0, silence, silent(LIMIT));
        }
        let due = LIMIT + 500 * MS;
        for access in [CommandAccess::Read, CommandAccess::Write] {
            assert_eq!(breakers.pass(0, access, due - MS), Pass::Stop(due));
        }
        assert_eq!(breakers.pass(0, answer, due), Pass::Probe);
        assert!(breakers.answered(0, answer, due));
        assert!(breakers.are_closed(), "{silence:?}, {answer:?}");
    }
}

/// Red if a shard that no longer exists keeps the store's breaker open.
#[test]
fn failures_of_a_removed_shard_are_forgotten() {
    let mut breakers = Breakers::new(LIMIT);
    for part in 1..4 {
        for _ in 0..THRESHOLD {
            breakers.failed(part, CommandAccess::Read, silent(Duration::ZERO));
        }
    }
    breakers.answered(9, CommandAccess::Read, FORGOTTEN - MS);
    assert!(!breakers.are_closed());
    breakers.failed(1, CommandAccess::Read, silent(FORGOTTEN));
    let parts = |breakers: &Breakers| breakers.failing.keys().all(|(part, _)| *part == 1);
    assert!(parts(&breakers), "no command asked for the others");
    assert_eq!(breakers.pass(2, CommandAccess::Read, FORGOTTEN), Pass::Go);
    assert!(!breakers.are_closed());
}

#[test]
fn broken_connection_counts_as_one_failure() {
    let mut breaker = Breaker::default();
    let under_way = |broken: u32| FailedCommand {
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
fn open_breaker_permits_one_probe() {
    let mut breaker = opened();
    let mut pass = |now: u32| breaker.pass(now * MS, LIMIT);
    assert_eq!(pass(499), Pass::Stop(500 * MS));
    assert_eq!(pass(500), Pass::Probe);
    assert_eq!(pass(500), Pass::Stop(3000 * MS));
    breaker.dropped(501 * MS);
    assert_eq!(breaker.pass(501 * MS, LIMIT), Pass::Probe);
    let mut breakers = Breakers::new(LIMIT);
    breakers.failing.insert((0, CommandAccess::Read), breaker);
    breakers.answered(0, CommandAccess::Read, 501 * MS);
    assert_eq!(breakers.pass(0, CommandAccess::Read, 502 * MS), Pass::Go);
}

#[test]
fn failed_probes_slow_to_the_time_out() {
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
fn silent_probe_needs_no_further_pause() {
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
