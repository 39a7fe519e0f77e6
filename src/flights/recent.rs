//! Outcomes that were answered lately: what one weighs, whether it may still be
//! given, and in which order they go. The table holds them; here stands whose
//! turn it is to leave it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::Error;
use crate::key::{Fingerprint, IdempotencyKey};
use crate::outcome::{Kept, Reply, Served};

/// An outcome that was answered lately.
#[derive(Debug)]
pub(super) struct Recent {
    reply: Reply,
    fingerprint: Fingerprint,
    /// By tokio's clock: never past what the store would say.
    until: Instant,
}

impl Recent {
    /// The reply to a request of its key; `None` where its time is over.
    pub(super) fn reply(&self, fingerprint: Fingerprint) -> Option<Result<Reply, Error>> {
        if Instant::now() >= self.until {
            return None;
        }
        Some(if self.fingerprint == fingerprint {
            Ok(self.reply.clone().with_served(Served::Memory))
        } else {
            let key = self.reply.key();
            Err(Error::PayloadMismatch { key })
        })
    }

    /// What it weighs in memory, in bytes.
    fn weight(&self) -> u64 {
        const ENTRY: u64 = 512;
        ENTRY + self.reply.outcome().weight() as u64
    }
}

/// The recent outcomes in the order in which they were answered: the oldest go
/// first.
#[derive(Debug)]
pub(super) struct Recents {
    /// The weight of all of them, in bytes; 0 keeps none.
    limit: u64,
    ttl: Duration,
    line: Mutex<Line>,
}

#[derive(Debug, Default)]
struct Line {
    queued: VecDeque<Queued>,
    weight: u64,
}

/// Tells an outcome from a later one of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Queued {
    pub(super) key: IdempotencyKey,
    until: Instant,
    weight: u64,
}

impl Queued {
    pub(super) fn is_of(&self, recent: &Recent) -> bool {
        self.until == recent.until
    }
}

impl Recents {
    /// Room for outcomes of so many bytes, each for `ttl` at most.
    pub(super) fn new(limit: u64, ttl: Duration) -> Self {
        let line = Mutex::default();
        Self { limit, ttl, line }
    }

    /// What is to be kept of a reply that the store replays for `left`; nothing
    /// where it has no use, or no room.
    pub(super) fn take(
        &self,
        reply: &Reply,
        fingerprint: Fingerprint,
        left: Duration,
    ) -> Option<Recent> {
        let ttl = self.ttl.min(left);
        if self.limit == 0 || ttl.is_zero() || !reply.recorded() || reply.kept() != Kept::Whole {
            return None;
        }
        let recent = Recent {
            reply: reply.clone(),
            fingerprint,
            until: Instant::now() + ttl,
        };
        (recent.weight() <= self.limit).then_some(recent)
    }

    /// An outcome comes into the table.
    pub(super) fn push(&self, key: IdempotencyKey, recent: &Recent) {
        let queued = Queued {
            key,
            until: recent.until,
            weight: recent.weight(),
        };
        let mut line = self.lock();
        line.weight += queued.weight;
        line.queued.push_back(queued);
    }

    /// Whose outcome has to leave the table next: where there is not room for
    /// all, or, if they are asked for, where its time is over.
    pub(super) fn pop(&self, expired: bool) -> Option<Queued> {
        let mut line = self.lock();
        let first = *line.queued.front()?;
        let goes = line.weight > self.limit || expired && first.until <= Instant::now();
        if !goes {
            return None;
        }
        line.queued.pop_front();
        line.weight -= first.weight;
        Some(first)
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        // Between the two changes of a line nothing can panic but a failed
        // allocation, which aborts.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn push(recents: &Recents, n: u8, ttl: Duration) -> Option<Recent> {
        let outcome = Outcome::new(http::StatusCode::OK, http::HeaderMap::new(), "{}");
        let reply = Reply::new(key(n), outcome.into(), Served::Upstream);
        let recent = recents.take(&reply, Fingerprint::from_bytes([0; 32]), ttl)?;
        recents.push(key(n), &recent);
        Some(recent)
    }

    fn gone(recents: &Recents, expired: bool) -> Vec<IdempotencyKey> {
        std::iter::from_fn(|| recents.pop(expired))
            .map(|queued| queued.key)
            .collect()
    }

    /// I9. Red without the comparison of the weight.
    #[tokio::test(start_paused = true)]
    async fn of_more_outcomes_than_fit_the_oldest_go() {
        let recents = Recents::new(3 * 600, 60 * SECOND);
        for n in 0..5 {
            push(&recents, n, SECOND).unwrap();
        }
        assert_eq!(gone(&recents, false), [key(0), key(1)]);
        assert_eq!(gone(&recents, true), []);
        // Nobody goes for what would not fit alone.
        let small = Recents::new(100, 60 * SECOND);
        assert!(push(&small, 0, SECOND).is_none());
        assert!(push(&Recents::new(0, SECOND), 0, SECOND).is_none());
    }

    /// Red without either comparison: what the store does not replay whole is not
    /// replayed from memory.
    #[tokio::test(start_paused = true)]
    async fn only_what_is_recorded_whole_is_kept() {
        let recents = Recents::new(1 << 20, SECOND);
        let outcome = Outcome::new(http::StatusCode::OK, http::HeaderMap::new(), "{}");
        let reply = Reply::new(key(0), outcome.into(), Served::Upstream);
        let is_kept = |reply: Reply| {
            let fingerprint = Fingerprint::from_bytes([0; 32]);
            recents.take(&reply, fingerprint, SECOND).is_some()
        };
        assert!(is_kept(reply.clone()));
        assert!(!is_kept(reply.clone().with_recorded(false)));
        assert!(!is_kept(reply.clone().with_kept(Kept::Sensitive)));
        assert!(!is_kept(reply.with_kept(Kept::TooLarge)));
    }

    #[tokio::test(start_paused = true)]
    async fn no_outcome_is_given_past_its_time() {
        let recents = Recents::new(1 << 20, 10 * SECOND);
        let fingerprint = Fingerprint::from_bytes([0; 32]);
        assert!(push(&recents, 0, Duration::ZERO).is_none());
        let short = push(&recents, 1, SECOND).unwrap();
        let long = push(&recents, 2, 20 * SECOND).unwrap();
        assert_eq!(gone(&recents, true), []);
        advance(SECOND).await;
        assert!(short.reply(fingerprint).is_none());
        assert!(long.reply(fingerprint).is_some());
        assert_eq!(gone(&recents, false), []);
        assert_eq!(gone(&recents, true), [key(1)]);
        // By the setting, where the store keeps it for longer.
        advance(9 * SECOND).await;
        assert!(long.reply(fingerprint).is_none());
        assert_eq!(gone(&recents, true), [key(2)]);
    }
}
