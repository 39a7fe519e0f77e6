//! What executions wait for, and since when, for an operator that looks for a blockage. It
//! delays no execution and decides nothing.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::record::length;

/// What executions wait for now. An execution counts under one entry at most, and under none
/// during a call or a store command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Backlog {
    /// Executions that wait for the end of a cooldown, or for a turn of the slow start after
    /// it. The platform's cooldown delays all executions; a relayed one delays one action.
    pub cooldown: BacklogEntry,
    /// Executions that wait for an access token.
    pub token: BacklogEntry,
    /// Executions that wait for one of the `max_in_flight` permits.
    pub permit: BacklogEntry,
    /// Executions that wait for the upstream's rate limit. They have a permit, for which
    /// other executions might wait.
    pub limiter: BacklogEntry,
    /// Executions that wait to retry: for the backoff, or for the cooldown that their own
    /// 429 began.
    pub retry: BacklogEntry,
    /// Executions whose key another process, or another engine over the same store, executes.
    pub remote_holder: BacklogEntry,
}

/// How many executions wait for one thing, and for how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BacklogEntry {
    /// How many wait.
    pub executions: usize,
    /// The longest wait; zero without one. The time continues when an execution moves between
    /// cooldown, token, permit and limiter.
    #[serde(rename = "oldest_ms", serialize_with = "length")]
    pub oldest: Duration,
}

impl Backlog {
    /// The number of all waiting executions.
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

/// The waiting executions of each kind, the longest wait first.
#[derive(Debug, Default)]
pub(crate) struct WaitList {
    waiting: [Mutex<BTreeSet<Ticket>>; 6],
    next: AtomicU64,
}

/// The start of the wait, and a unique number.
type Ticket = (Instant, u64);

impl WaitList {
    /// An execution waits from now until the result is dropped.
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
        // A panic leaves no half-made change in a set of plain values.
        let waiting = &self.waiting[what as usize];
        waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One waiting execution.
#[derive(Debug)]
pub(crate) struct BacklogGuard<'a> {
    list: &'a WaitList,
    what: WaitFor,
    ticket: Ticket,
}

impl BacklogGuard<'_> {
    /// Waits for something else now; the start of the wait stays.
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
    async fn wait_continues_across_entries() {
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
