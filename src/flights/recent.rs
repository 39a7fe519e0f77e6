//! Outcomes that were answered lately: what one weighs, whether it may still be
//! given, and when it goes. The table holds them; here stands whose turn it is to
//! leave it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::key::{Fingerprint, IdempotencyKey};
use crate::outcome::{Reply, Served, StoredBody};

/// An outcome that was answered lately.
#[derive(Debug)]
pub(super) struct RecentOutcome {
    reply: Reply,
    fingerprint: Fingerprint,
    order: ExpiryOrder,
}

/// When an outcome goes, and a number that no other one has. By tokio's clock:
/// never past what the store would say.
type ExpiryOrder = (Instant, u64);

impl RecentOutcome {
    /// The reply to a request with this fingerprint, while its time is not over.
    /// Memory refuses nobody: another process may have forgotten the outcome, and
    /// the key may be another request's by now.
    pub(super) fn reply(&self, fingerprint: Fingerprint) -> Option<Reply> {
        let is_mine = self.fingerprint == fingerprint && !self.is_over();
        is_mine.then(|| self.reply.clone().with_served(Served::Memory))
    }

    pub(super) fn is_over(&self) -> bool {
        Instant::now() >= self.order.0
    }

    /// What it weighs in memory, in bytes.
    fn weight(&self) -> u64 {
        const ENTRY: u64 = 512;
        ENTRY + self.reply.outcome().weight() as u64
    }
}

/// The recent outcomes in the order in which they go: those first whose time is
/// over first.
#[derive(Debug)]
pub(super) struct RecentOutcomes {
    /// The weight of all of them, in bytes; 0 keeps none.
    limit: u64,
    ttl: Duration,
    queue: Mutex<ExpiryQueue>,
    /// Wakes who waits for the first one to go: it is another one now.
    sooner: Notify,
}

#[derive(Debug, Default)]
struct ExpiryQueue {
    queued: BTreeMap<ExpiryOrder, (IdempotencyKey, u64)>,
    weight: u64,
    number: u64,
}

impl ExpiryQueue {
    fn remove(&mut self, order: ExpiryOrder) -> Option<ExpiringOutcome> {
        let (key, weight) = self.queued.remove(&order)?;
        self.weight -= weight;
        Some(ExpiringOutcome { key, order })
    }

    fn first(&self) -> Option<ExpiryOrder> {
        self.queued.first_key_value().map(|(order, _)| *order)
    }
}

/// An outcome that has left the queue, and has to leave the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ExpiringOutcome {
    pub(super) key: IdempotencyKey,
    order: ExpiryOrder,
}

impl ExpiringOutcome {
    /// Not a later one of its key.
    pub(super) fn is_of(&self, recent: &RecentOutcome) -> bool {
        self.order == recent.order
    }
}

impl RecentOutcomes {
    /// Room for outcomes of so many bytes, each for `ttl` at most.
    pub(super) fn new(limit: u64, ttl: Duration) -> Self {
        let (queue, sooner) = (Mutex::default(), Notify::new());
        Self {
            limit,
            ttl,
            queue,
            sooner,
        }
    }

    /// What is to be kept of a reply that the store replays for `left`; nothing
    /// where it has no use, or no room.
    pub(super) fn take(
        &self,
        reply: &Reply,
        fingerprint: Fingerprint,
        left: Duration,
    ) -> Option<RecentOutcome> {
        let ttl = self.ttl.min(left);
        if self.limit == 0
            || ttl.is_zero()
            || !reply.recorded()
            || reply.stored_body() != StoredBody::Full
        {
            return None;
        }
        let number = {
            let mut queue = self.lock();
            queue.number += 1;
            queue.number
        };
        let recent = RecentOutcome {
            reply: reply.clone().replayable(),
            fingerprint,
            order: (Instant::now() + ttl, number),
        };
        (recent.weight() <= self.limit).then_some(recent)
    }

    /// An outcome comes into the table.
    pub(super) fn push(&self, key: IdempotencyKey, recent: &RecentOutcome) {
        let weight = recent.weight();
        let mut queue = self.lock();
        if queue.queued.insert(recent.order, (key, weight)).is_none() {
            queue.weight += weight;
        }
        if queue.first() == Some(recent.order) {
            self.sooner.notify_one();
        }
    }

    /// An outcome has left the table.
    pub(super) fn remove(&self, recent: &RecentOutcome) {
        self.lock().remove(recent.order);
    }

    /// All outcomes have left the table.
    pub(super) fn clear(&self) {
        let mut queue = self.lock();
        queue.queued = BTreeMap::new();
        queue.weight = 0;
    }

    /// Whose outcome has to leave the table since there is not room for all.
    pub(super) fn pop_excess(&self) -> Option<ExpiringOutcome> {
        let mut queue = self.lock();
        let first = queue.first().filter(|_| queue.weight > self.limit)?;
        queue.remove(first)
    }

    /// Whose outcome has to leave the table since its time is over.
    pub(super) fn pop_expired(&self) -> Option<ExpiringOutcome> {
        let mut queue = self.lock();
        let first = queue
            .first()
            .filter(|(until, _)| *until <= Instant::now())?;
        queue.remove(first)
    }

    /// Waits until the time of an outcome is over.
    pub(super) async fn expired(&self) {
        loop {
            let first = self.lock().first();
            let Some((until, _)) = first else {
                self.sooner.notified().await;
                continue;
            };
            tokio::select! {
                biased;
                () = sleep_until(until) => return,
                () = self.sooner.notified() => {}
            }
        }
    }

    #[cfg(test)]
    pub(super) fn weight(&self) -> u64 {
        self.lock().weight
    }

    fn lock(&self) -> MutexGuard<'_, ExpiryQueue> {
        // Between two changes of a queue nothing can panic but a failed
        // allocation, which aborts.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Outcome;
    use tokio::time::advance;

    const SECOND: Duration = Duration::from_secs(1);

    fn key(n: u8) -> IdempotencyKey {
        IdempotencyKey::from_bytes([n; 32])
    }

    fn push(recents: &RecentOutcomes, n: u8, ttl: Duration) -> Option<RecentOutcome> {
        let outcome = Outcome::new(http::StatusCode::OK, http::HeaderMap::new(), "{}");
        let reply = Reply::new(key(n), outcome.into(), Served::Upstream);
        let recent = recents.take(&reply, Fingerprint::from_bytes([0; 32]), ttl)?;
        recents.push(key(n), &recent);
        Some(recent)
    }

    fn all(pop: impl FnMut() -> Option<ExpiringOutcome>) -> Vec<IdempotencyKey> {
        std::iter::from_fn(pop).map(|queued| queued.key).collect()
    }

    /// I9. Red without the comparison of the weight.
    #[tokio::test(start_paused = true)]
    async fn of_more_outcomes_than_fit_the_oldest_go() {
        let recents = RecentOutcomes::new(3 * 600, 60 * SECOND);
        for n in 0..5 {
            push(&recents, n, SECOND).unwrap();
        }
        assert_eq!(all(|| recents.pop_excess()), [key(0), key(1)]);
        assert_eq!(all(|| recents.pop_expired()), []);
        // Nobody goes for what would not fit alone.
        let small = RecentOutcomes::new(100, 60 * SECOND);
        assert!(push(&small, 0, SECOND).is_none());
        assert!(push(&RecentOutcomes::new(0, SECOND), 0, SECOND).is_none());
    }

    /// Red without either comparison: what the store does not replay whole is not
    /// replayed from memory.
    #[tokio::test(start_paused = true)]
    async fn only_what_is_recorded_whole_is_kept() {
        let recents = RecentOutcomes::new(1 << 20, SECOND);
        let outcome = Outcome::new(http::StatusCode::OK, http::HeaderMap::new(), "{}");
        let reply = Reply::new(key(0), outcome.into(), Served::Upstream);
        let is_kept = |reply: Reply| {
            let fingerprint = Fingerprint::from_bytes([0; 32]);
            recents.take(&reply, fingerprint, SECOND).is_some()
        };
        assert!(is_kept(reply.clone()));
        assert!(!is_kept(reply.clone().with_recorded(false)));
        assert!(!is_kept(
            reply.clone().with_stored_body(StoredBody::OmittedSensitive)
        ));
        assert!(!is_kept(
            reply.with_stored_body(StoredBody::OmittedTooLarge)
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn no_outcome_is_given_past_its_time() {
        let recents = RecentOutcomes::new(1 << 20, 10 * SECOND);
        let fingerprint = Fingerprint::from_bytes([0; 32]);
        assert!(push(&recents, 0, Duration::ZERO).is_none());
        let short = push(&recents, 1, SECOND).unwrap();
        let long = push(&recents, 2, 20 * SECOND).unwrap();
        assert_eq!(all(|| recents.pop_expired()), []);
        advance(SECOND).await;
        assert!(short.reply(fingerprint).is_none());
        assert!(long.reply(fingerprint).is_some());
        assert_eq!(all(|| recents.pop_excess()), []);
        assert_eq!(all(|| recents.pop_expired()), [key(1)]);
        // By the setting, where the store keeps it for longer.
        advance(9 * SECOND).await;
        assert!(long.reply(fingerprint).is_none());
        assert_eq!(all(|| recents.pop_expired()), [key(2)]);
    }
}
