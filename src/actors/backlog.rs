//! What the executions under way wait for, and since when: for people who ask
//! why nothing moves. It holds nobody back and decides nothing.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// What executions wait for at this moment, by what it is. An execution stands
/// under one of them at most; those at the platform or at the store, under none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backlog {
    /// For the end of a cooldown, the platform's own (everybody) or a relayed
    /// one (its action), and for a turn of the slow start after it.
    pub cooldown: BacklogEntry,
    /// For an access token.
    pub token: BacklogEntry,
    /// For one of the `max_in_flight` permits.
    pub permit: BacklogEntry,
    /// For the upstream's rate limit. These have a permit: behind them, others
    /// wait for one.
    pub limiter: BacklogEntry,
    /// To try again, after an answer or a failure of their own: for the backoff, or
    /// for the cooldown that their own 429 began.
    pub retry: BacklogEntry,
    /// For another process (or another engine over the same store), which
    /// executes their key.
    pub remote_holder: BacklogEntry,
}

/// How many executions wait for one thing, and for how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BacklogEntry {
    /// How many wait.
    pub executions: usize,
    /// For how long the one has waited that has waited the longest; zero where
    /// none does. Going from cooldown, token, permit or limiter to another of these
    /// counts on.
    pub oldest: Duration,
}

impl Backlog {
    /// All that wait.
    pub fn executions(&self) -> usize {
        self.all().iter().map(|wait| wait.executions).sum()
    }

    /// The longest of all waits.
    pub fn oldest(&self) -> Duration {
        let oldest = self.all().into_iter().map(|entry| entry.oldest).max();
        oldest.unwrap_or_default()
    }

    fn all(&self) -> [BacklogEntry; 6] {
        [
            self.cooldown,
            self.token,
            self.permit,
            self.limiter,
            self.retry,
            self.remote_holder,
        ]
    }
}

/// What an execution waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitFor {
    Cooldown,
    Token,
    Permit,
    Limiter,
    Retry,
    RemoteHolder,
}

/// Everybody who waits, by what for; the longest first.
#[derive(Debug, Default)]
pub(crate) struct WaitList {
    waiting: [Mutex<BTreeSet<Ticket>>; 6],
    next: AtomicU64,
}

/// Since when, and a number that nobody else has.
type Ticket = (Instant, u64);

impl WaitList {
    /// One more waits, from now on until the result is dropped.
    pub(crate) fn wait(&self, what: WaitFor) -> BacklogGuard<'_> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let ticket = (Instant::now(), number);
        self.of(what).insert(ticket);
        BacklogGuard {
            list: self,
            what,
            ticket,
        }
    }

    pub(crate) fn now(&self) -> Backlog {
        let now = Instant::now();
        let read = |what| {
            let waiting = self.of(what);
            let oldest = waiting
                .first()
                .map(|(since, _)| now.saturating_duration_since(*since));
            BacklogEntry {
                executions: waiting.len(),
                oldest: oldest.unwrap_or_default(),
            }
        };
        Backlog {
            cooldown: read(WaitFor::Cooldown),
            token: read(WaitFor::Token),
            permit: read(WaitFor::Permit),
            limiter: read(WaitFor::Limiter),
            retry: read(WaitFor::Retry),
            remote_holder: read(WaitFor::RemoteHolder),
        }
    }

    fn of(&self, what: WaitFor) -> MutexGuard<'_, BTreeSet<Ticket>> {
        // A set of plain values: one insertion or removal leaves it whole.
        let waiting = &self.waiting[what as usize];
        waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One who waits.
#[derive(Debug)]
pub(crate) struct BacklogGuard<'a> {
    list: &'a WaitList,
    what: WaitFor,
    ticket: Ticket,
}

impl BacklogGuard<'_> {
    /// Waits for something else now, and still since the same moment.
    pub(crate) fn goes_on(&mut self, what: WaitFor) {
        self.list.of(self.what).remove(&self.ticket);
        self.what = what;
        self.list.of(what).insert(self.ticket);
    }
}

impl Drop for BacklogGuard<'_> {
    fn drop(&mut self) {
        self.list.of(self.what).remove(&self.ticket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn the_longest_wait_goes_on_from_one_thing_to_the_next() {
        let list = WaitList::default();
        assert_eq!(list.now(), Backlog::default());
        let mut first = list.wait(WaitFor::Cooldown);
        advance(SECOND).await;
        let second = list.wait(WaitFor::Cooldown);
        advance(SECOND).await;
        let backlog = list.now();
        assert_eq!(
            (backlog.cooldown.executions, backlog.cooldown.oldest),
            (2, 2 * SECOND)
        );
        first.goes_on(WaitFor::Limiter);
        let backlog = list.now();
        assert_eq!(
            (backlog.cooldown.executions, backlog.cooldown.oldest),
            (1, SECOND)
        );
        assert_eq!(
            (backlog.limiter.executions, backlog.limiter.oldest),
            (1, 2 * SECOND)
        );
        assert_eq!((backlog.executions(), backlog.oldest()), (2, 2 * SECOND));
        drop((first, second));
        assert_eq!(list.now(), Backlog::default());
    }
}
