//! A rate limit for any minute: a generic cell rate algorithm over tokio's clock that takes
//! unused permits back, which no library does. It delays callers in the order of their
//! arrival, and never refuses one.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::upstream::RatePermit;

const MINUTE: Duration = Duration::from_secs(60);

/// The largest burst: the platform's limit of executions at a time.
const MAX_BURST: u32 = 50;

/// The first waiter loses its position if it does not take an available permit for so
/// long: engines on several runtimes can share a limit, and one runtime might not run.
const MAX_IDLE: Duration = Duration::from_secs(1);

/// Lets at most so many calls through in any 60 s.
///
/// A bucket of `n` that is refilled by `n` a minute would let `2n` through in the first
/// minute after a pause, and the platform counts minutes. So the bucket is small: a burst
/// of a twentieth, then evenly spaced calls, together never more than the limit. A single
/// caller is not delayed.
pub(super) struct RateLimiter {
    per_minute: u32,
    /// `None` for a limit of 0.
    quota: Option<Quota>,
    queue: Mutex<Queue>,
}

/// The permits given, and the waiters in the order of their arrival.
struct Queue {
    bucket: Bucket,
    waiting: BTreeMap<u64, Arc<Notify>>,
    /// The number of the last waiter.
    last: u64,
}

impl Queue {
    fn first(&self) -> Option<u64> {
        self.waiting.first_key_value().map(|(number, _)| *number)
    }

    /// Wakes the first waiter: a permit might be available.
    fn wake_first(&self) {
        if let Some((_, first)) = self.waiting.first_key_value() {
            first.notify_one();
        }
    }

    fn leave(&mut self, number: u64) {
        let was_first = self.first() == Some(number);
        if self.waiting.remove(&number).is_some() && was_first {
            self.wake_first();
        }
    }
}

/// A waiter's position in the queue; dropped, it leaves the queue.
struct QueueSlot<'a> {
    limiter: &'a RateLimiter,
    number: u64,
}

impl Drop for QueueSlot<'_> {
    fn drop(&mut self) {
        self.limiter.queue().leave(self.number);
    }
}

impl RateLimiter {
    pub(super) fn new(per_minute: u32) -> Self {
        Self {
            per_minute,
            quota: Quota::new(per_minute),
            queue: Mutex::new(Queue {
                bucket: Bucket::new(Instant::now()),
                waiting: BTreeMap::new(),
                last: 0,
            }),
        }
    }

    /// Whether the limit is 0, so that no call ever gets through.
    pub(super) fn is_closed(&self) -> bool {
        self.quota.is_none()
    }

    /// Waits for a permit. A permit that is dropped unused does not count.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: acquiring is its last step. A future that is not polled delays other
    /// waiters by at most [`MAX_IDLE`].
    pub(super) async fn acquire(self: &Arc<Self>) -> RatePermit {
        let Some(quota) = self.quota else {
            return std::future::pending().await;
        };
        let woken = Arc::new(Notify::new());
        let mut slot = QueueSlot {
            limiter: self,
            number: 0,
        };
        // The first waiter, and since when a permit was available to it.
        let mut due: Option<(u64, Instant)> = None;
        loop {
            let look_again = {
                let mut queue = self.queue();
                let now = Instant::now();
                // New, or removed after it was idle.
                if !queue.waiting.contains_key(&slot.number) {
                    queue.last += 1;
                    slot.number = queue.last;
                    queue.waiting.insert(slot.number, woken.clone());
                }
                let first = queue.first().unwrap_or(slot.number);
                if first == slot.number {
                    match queue.bucket.take(quota, now) {
                        Ok(number) => {
                            queue.leave(slot.number);
                            let limiter = self.clone();
                            return RatePermit::new(move |used| limiter.end(quota, number, used));
                        }
                        Err(free) => free,
                    }
                } else {
                    match (queue.bucket.free(quota, now), due) {
                        (Some(free), _) => {
                            due = None;
                            free + MAX_IDLE
                        }
                        (None, Some((late, since))) if late == first && since + MAX_IDLE <= now => {
                            queue.leave(first);
                            due = None;
                            now
                        }
                        (None, Some((late, since))) if late == first => since + MAX_IDLE,
                        (None, _) => {
                            due = Some((first, now));
                            now + MAX_IDLE
                        }
                    }
                }
            };
            tokio::select! {
                biased;
                () = woken.notified() => {}
                () = sleep_until(look_again) => {}
            }
        }
    }

    fn end(&self, quota: Quota, number: u64, used: bool) {
        let mut queue = self.queue();
        queue.bucket.end(quota, number, used);
        if !used {
            queue.wake_first();
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // No critical section panics.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A burst, then one call in each `every`.
#[derive(Clone, Copy, Debug)]
struct Quota {
    burst: u32,
    every: Duration,
}

impl Quota {
    /// A burst of `b`, then one call each 60 s / (n − b + 1). In any 60 s, the end
    /// excluded, these are `b` calls and at most `n − b` further ones.
    fn new(per_minute: u32) -> Option<Self> {
        let burst = (per_minute / 20).clamp(1, MAX_BURST);
        let further = u64::from(per_minute.checked_sub(burst)? + 1);
        // Rounded up: a nanosecond less would permit one more call in a minute.
        let every = Duration::from_nanos((MINUTE.as_nanos() as u64).div_ceil(further));
        Some(Self { burst, every })
    }
}

/// The permits given, as the time at which the bucket is empty again: each permit fills it
/// by `every`, and it drains steadily.
///
/// A returned permit cannot be subtracted from that time, since the bucket might have been
/// empty since. So all permits after the oldest open one are kept, and counted again
/// without the returned one.
struct Bucket {
    empty_at: Instant,
    /// `empty_at` before the first of `recent`.
    before: Instant,
    recent: VecDeque<GivenPermit>,
    /// The number of the first of `recent`.
    first: u64,
}

struct GivenPermit {
    at: Instant,
    /// `None` while the permit is open.
    used: Option<bool>,
}

impl Bucket {
    fn new(now: Instant) -> Self {
        Self {
            empty_at: now,
            before: now,
            recent: VecDeque::new(),
            first: 0,
        }
    }

    /// Takes a permit and returns its number, or the time of the next permit.
    fn take(&mut self, quota: Quota, now: Instant) -> Result<u64, Instant> {
        if self.empty_at <= now {
            // The result of an earlier permit no longer matters.
            self.first += self.recent.len() as u64;
            self.recent.clear();
            self.before = now;
            self.empty_at = now;
        }
        if let Some(free) = self.free(quota, now) {
            return Err(free);
        }
        self.empty_at += quota.every;
        self.recent.push_back(GivenPermit {
            at: now,
            used: None,
        });
        Ok(self.first + self.recent.len() as u64 - 1)
    }

    /// The time of the next permit, if there is none now.
    fn free(&self, quota: Quota, now: Instant) -> Option<Instant> {
        let rest = self.empty_at.saturating_duration_since(now);
        let room = quota.every * (quota.burst - 1);
        (rest > room).then(|| now + (rest - room))
    }

    /// A permit was used or returned.
    fn end(&mut self, quota: Quota, number: u64, used: bool) {
        let index = number.checked_sub(self.first);
        let index = index.and_then(|index| usize::try_from(index).ok());
        let Some(given) = index.and_then(|index| self.recent.get_mut(index)) else {
            return; // the bucket has been empty since
        };
        given.used = Some(used);
        while let Some(GivenPermit {
            at,
            used: Some(used),
        }) = self.recent.front()
        {
            if *used {
                self.before = self.before.max(*at) + quota.every;
            }
            self.recent.pop_front();
            self.first += 1;
        }
        if !used {
            let counted = self.recent.iter().filter(|given| given.used != Some(false));
            self.empty_at = counted.fold(self.before, |empty, given| {
                empty.max(given.at) + quota.every
            });
        }
    }
}

impl fmt::Debug for RateLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} a minute", self.per_minute)
    }
}

#[cfg(test)]
mod tests;
