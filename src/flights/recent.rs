//! Recent outcomes: what one weighs, whether it may still be replayed, and the order of
//! eviction. The table owns the outcomes; this module removes none from it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::key::{Fingerprint, IdempotencyKey};
use crate::outcome::{Reply, Served, StoredBody};

/// An outcome that memory replays.
#[derive(Debug)]
pub(super) struct RecentOutcome {
    reply: Reply,
    fingerprint: Fingerprint,
    order: ExpiryOrder,
}

/// When an outcome expires by tokio's clock, and a unique number. It never expires
/// later than the store's record.
type ExpiryOrder = (Instant, u64);

impl RecentOutcome {
    /// The reply to a request with this fingerprint, until it expires. Memory never
    /// reports a mismatch: another process might have forgotten the outcome, and the key
    /// might belong to another request now.
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

/// The recent outcomes in the order of expiry.
#[derive(Debug)]
pub(super) struct RecentOutcomes {
    /// The weight of all of them, in bytes; 0 keeps none.
    limit: u64,
    ttl: Duration,
    queue: Mutex<ExpiryQueue>,
    /// Wakes the task that waits for the first expiry, since another outcome is first.
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

/// An outcome that was taken out of the queue and still is in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ExpiringOutcome {
    pub(super) key: IdempotencyKey,
    order: ExpiryOrder,
}

impl ExpiringOutcome {
    /// Whether it is this outcome, and not a later one of its key.
    pub(super) fn is_of(&self, recent: &RecentOutcome) -> bool {
        self.order == recent.order
    }
}

impl RecentOutcomes {
    /// Room for `limit` bytes of outcomes, each for `ttl` at most.
    pub(super) fn new(limit: u64, ttl: Duration) -> Self {
        let (queue, sooner) = (Mutex::default(), Notify::new());
        Self {
            limit,
            ttl,
            queue,
            sooner,
        }
    }

    /// The outcome to keep of a reply that the store replays for `left`; `None` if the
    /// store does not replay it in full, or if it is too large.
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

    /// An outcome was put into the table.
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

    /// An outcome was removed from the table.
    pub(super) fn remove(&self, recent: &RecentOutcome) {
        self.lock().remove(recent.order);
    }

    /// All outcomes were removed from the table.
    pub(super) fn clear(&self) {
        let mut queue = self.lock();
        queue.queued = BTreeMap::new();
        queue.weight = 0;
    }

    /// The next outcome to evict because their weight exceeds the limit.
    pub(super) fn pop_excess(&self) -> Option<ExpiringOutcome> {
        let mut queue = self.lock();
        let first = queue.first().filter(|_| queue.weight > self.limit)?;
        queue.remove(first)
    }

    /// The next outcome to evict because it has expired.
    pub(super) fn pop_expired(&self) -> Option<ExpiringOutcome> {
        let mut queue = self.lock();
        let first = queue
            .first()
            .filter(|(until, _)| *until <= Instant::now())?;
        queue.remove(first)
    }

    /// Waits until an outcome expires.
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
        // Only a failed allocation could panic between two changes, and it aborts.
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
    async fn oldest_outcomes_are_evicted_first() {
        let recents = RecentOutcomes::new(3 * 600, 60 * SECOND);
        for n in 0..5 {
            push(&recents, n, SECOND).unwrap();
        }
        assert_eq!(all(|| recents.pop_excess()), [key(0), key(1)]);
        assert_eq!(all(|| recents.pop_expired()), []);
        // An outcome that would not fit alone evicts no other.
        let small = RecentOutcomes::new(100, 60 * SECOND);
        assert!(push(&small, 0, SECOND).is_none());
        assert!(push(&RecentOutcomes::new(0, SECOND), 0, SECOND).is_none());
    }

    /// Red without either comparison: memory replays only what the store replays in
    /// full.
    #[tokio::test(start_paused = true)]
    async fn memory_keeps_only_fully_recorded_outcomes() {
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
    async fn expired_outcome_is_not_replayed() {
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
        // The setting applies if the store keeps it for longer.
        advance(9 * SECOND).await;
        assert!(long.reply(fingerprint).is_none());
        assert_eq!(all(|| recents.pop_expired()), [key(2)]);
    }
}
