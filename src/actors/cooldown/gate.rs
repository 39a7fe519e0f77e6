//! One cooldown and the slow start after it. Plain data: the time is a parameter, and it never
//! waits or wakes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::futures::OwnedNotified;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::SlowStartTurn;

/// A call without an answer for this long counts as accepted by the platform.
pub(super) const SILENCE: Duration = Duration::from_secs(2);

/// A waiter's place in the queue: refused executions come first, then the order of arrival.
pub(super) type QueuePlace = (Rank, u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    Refused,
    New,
}

/// Closed during a cooldown. After it the gate gives out one turn. Each success frees its turn
/// and adds one, so the number of turns doubles in each round.
#[derive(Debug)]
pub(super) struct CooldownGate {
    until: Instant,
    /// The number of the cooldown. Turns of an earlier cooldown do not count.
    round: u64,
    /// How many turns may be in use.
    width: usize,
    out: BTreeMap<u64, GrantedTurn>,
    queue: BTreeMap<QueuePlace, oneshot::Sender<SlowStartTurn>>,
    /// Notified when the cooldown becomes longer, or is ended.
    changed: Arc<Notify>,
}

/// A turn in use.
#[derive(Debug)]
struct GrantedTurn {
    rank: Rank,
    since: Instant,
    sent: bool,
}

impl CooldownGate {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            until: now,
            round: 0,
            width: 1,
            out: BTreeMap::new(),
            queue: BTreeMap::new(),
            changed: Arc::default(),
        }
    }

    /// Begins a cooldown, or extends it. Returns the waiters to wake.
    pub(super) fn close(&mut self, until: Instant, round: u64) -> Option<Arc<Notify>> {
        let grows = until > self.until;
        self.until = self.until.max(until);
        self.round = round;
        self.width = 1;
        self.out.clear();
        grows.then(|| self.changed.clone())
    }

    /// Ends the cooldown; the slow start follows. Returns the waiters to wake.
    pub(super) fn end(&mut self, now: Instant) -> Arc<Notify> {
        self.until = self.until.min(now);
        self.changed.clone()
    }

    /// Completes when the cooldown becomes longer, or is ended.
    pub(super) fn changed(&self) -> OwnedNotified {
        self.changed.clone().notified_owned()
    }

    pub(super) fn until(&self) -> Instant {
        self.until
    }

    pub(super) fn round(&self) -> u64 {
        self.round
    }

    /// Whether the cooldown is over and no execution uses the slow start.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        self.until <= now && self.out.is_empty() && self.queue.is_empty()
    }

    pub(super) fn has_waiters(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Whether the slow start is over: it is wider than the permits, or the last call has
    /// succeeded and no execution waits.
    pub(super) fn is_over(&self, permits: usize) -> bool {
        self.width > permits || (self.width > 1 && self.out.is_empty() && self.queue.is_empty())
    }

    pub(super) fn enter(&mut self, place: QueuePlace, waiter: oneshot::Sender<SlowStartTurn>) {
        self.queue.insert(place, waiter);
    }

    pub(super) fn leave(&mut self, place: QueuePlace) -> Option<oneshot::Sender<SlowStartTurn>> {
        self.queue.remove(&place)
    }

    /// A turn without a wait. It overtakes no waiter.
    pub(super) fn try_take(&mut self, number: u64, now: Instant) -> bool {
        let free = self.queue.is_empty() && self.has_room(Rank::New, now);
        if free {
            self.take((Rank::New, number), now);
        }
        free
    }

    /// The call of this turn leaves now.
    pub(super) fn sent(&mut self, number: u64, round: u64, now: Instant) {
        // The turn might have gone to the next waiter meanwhile; the call still counts.
        if round == self.round {
            let out = GrantedTurn {
                rank: Rank::New,
                since: now,
                sent: true,
            };
            self.out.insert(number, out);
        }
    }

    /// A turn comes back, with or without proof that the platform accepts calls.
    pub(super) fn put_back(&mut self, number: u64, success: bool) {
        if self.out.remove(&number).is_some() && success {
            self.width = self.width.saturating_add(1);
        }
    }

    /// Gives the free turns to the first waiters. A turn that was not used for `SILENCE` no
    /// longer counts.
    pub(super) fn advance(&mut self, now: Instant) -> Vec<(u64, oneshot::Sender<SlowStartTurn>)> {
        let silent = |out: &GrantedTurn| out.since + SILENCE <= now;
        let taken = self.out.values().filter(|out| out.sent && silent(out));
        self.width = self.width.saturating_add(taken.count());
        self.out.retain(|_, out| !silent(out));
        let mut granted = Vec::new();
        while let Some((&(rank, number), _)) = self.queue.first_key_value() {
            if !self.has_room(rank, now) {
                break;
            }
            granted.extend(self.queue.pop_first().map(|(_, waiter)| (number, waiter)));
            self.take((rank, number), now);
        }
        granted
    }

    /// All waiters of a gate that was removed.
    pub(super) fn into_waiters(
        self,
    ) -> impl Iterator<Item = (u64, oneshot::Sender<SlowStartTurn>)> {
        let waiters = self.queue.into_iter();
        waiters.map(|((_, number), waiter)| (number, waiter))
    }

    /// When a waiter must look again.
    pub(super) fn next(&self, now: Instant) -> Instant {
        if now < self.until {
            return self.until;
        }
        let first = self.out.values().map(|out| out.since).min();
        first.unwrap_or(now) + SILENCE
    }

    /// Whether one more turn may be given out. A refused call leaves before the next new call
    /// gets its turn.
    fn has_room(&self, rank: Rank, now: Instant) -> bool {
        let mut out = self.out.values();
        now >= self.until
            && self.out.len() < self.width
            && (rank == Rank::Refused || out.all(|out| out.sent || out.rank == Rank::New))
    }

    fn take(&mut self, (rank, number): QueuePlace, now: Instant) {
        let out = GrantedTurn {
            rank,
            since: now,
            sent: false,
        };
        self.out.insert(number, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn numbers(granted: Vec<(u64, oneshot::Sender<SlowStartTurn>)>) -> Vec<u64> {
        granted.into_iter().map(|(number, _)| number).collect()
    }

    /// A gate after its cooldown, with this many waiters.
    fn open(waiters: u64) -> (CooldownGate, Instant) {
        let now = Instant::now();
        let mut gate = CooldownGate::new(now);
        gate.close(now, 1);
        for number in 0..waiters {
            gate.enter((Rank::New, number), oneshot::channel().0);
        }
        (gate, now)
    }

    #[test]
    fn slow_start_doubles_with_each_round() {
        let (mut gate, now) = open(1_000);
        let mut next = 0;
        for round in [1, 2, 4, 8, 16, 32] {
            let granted = numbers(gate.advance(now));
            assert_eq!(granted, (next..next + round).collect::<Vec<_>>());
            next += round;
            assert!(!gate.is_over(50));
            granted.iter().for_each(|n| gate.put_back(*n, true));
        }
        assert!(gate.is_over(50));
        assert_eq!(gate.into_waiters().count() as u64, 1_000 - next);
    }

    #[test]
    fn unused_turn_is_given_back_without_effect() {
        let (mut gate, now) = open(3);
        assert_eq!(numbers(gate.advance(now)), [0]);
        gate.put_back(0, false);
        assert_eq!(numbers(gate.advance(now)), [1]);
        gate.put_back(1, true);
        // A turn counts once.
        gate.put_back(1, true);
        assert_eq!(numbers(gate.advance(now)), [2]);
        assert!(gate.try_take(3, now) && !gate.try_take(4, now));
        gate.put_back(2, false);
        gate.put_back(3, false);
        assert!(gate.is_over(50) && gate.is_idle(now));
    }

    /// A silent call makes room for two calls; an unused turn makes room for one.
    #[test]
    fn silent_call_counts_as_taken() {
        for sent in [false, true] {
            let (mut gate, now) = open(10);
            assert_eq!(numbers(gate.advance(now)), [0]);
            if sent {
                gate.sent(0, 1, now + SECOND);
            }
            let from = if sent { now + SECOND } else { now };
            assert_eq!(gate.next(now), from + SILENCE);
            assert!(gate.advance(from + SILENCE - SECOND / 9).is_empty());
            let granted = numbers(gate.advance(from + SILENCE)).len();
            assert_eq!(granted, if sent { 2 } else { 1 });
            // A late answer does not count again.
            gate.put_back(0, true);
            assert!(gate.advance(from + SILENCE).is_empty());
        }
    }

    #[test]
    fn cooldown_restarts_slow_start_with_one() {
        let (mut gate, now) = open(10);
        gate.advance(now);
        gate.put_back(0, true);
        assert_eq!(numbers(gate.advance(now)), [1, 2]);
        assert!(gate.close(now + SECOND, 2).is_some() && gate.close(now, 3).is_none());
        assert_eq!((gate.until(), gate.next(now)), (now + SECOND, now + SECOND));
        assert!(gate.advance(now).is_empty() && !gate.try_take(99, now));
        // Turns of an earlier cooldown change nothing.
        gate.put_back(1, true);
        gate.put_back(2, false);
        // Refused executions come first.
        gate.enter((Rank::Refused, 50), oneshot::channel().0);
        gate.enter((Rank::Refused, 51), oneshot::channel().0);
        assert_eq!(numbers(gate.advance(now + SECOND)), [50]);
        assert!(gate.leave((Rank::New, 3)).is_some());
        gate.put_back(50, true);
        assert_eq!(numbers(gate.advance(now + SECOND)), [51]);
        gate.sent(51, 3, now + SECOND);
        assert_eq!(numbers(gate.advance(now + SECOND)), [4]);
        gate.put_back(51, false);
        assert_eq!(numbers(gate.advance(now + SECOND)), [5]);
        gate.close(now + 9 * SECOND, 4);
        gate.end(now + 2 * SECOND);
        assert_eq!(numbers(gate.advance(now + 2 * SECOND)), [6]);
    }
}
