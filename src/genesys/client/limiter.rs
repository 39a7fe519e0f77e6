//! A rate limit that no minute exceeds: a generic cell rate algorithm over tokio's
//! clock that takes back what was not used, which no library's does. It holds
//! callers back in the order in which they came, and never refuses one.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::upstream::RatePermit;

const MINUTE: Duration = Duration::from_secs(60);

/// The largest burst: what the platform lets an organisation run at once.
const LARGEST_BURST: u32 = 50;

/// Who is first, and takes nothing for so long although it may, stands still: engines
/// on several runtimes may share a limit, and one of these may no longer be driven.
const LATE: Duration = Duration::from_secs(1);

/// Lets at most so many through in any 60 s.
///
/// A bucket of `n`, refilled by `n` a minute, would let `2n` through in the
/// first minute after a pause, and the platform counts minutes. So the bucket
/// is small: a burst of a twentieth, then evenly spaced, together never more
/// than the limit. A caller who comes alone is not held back at all.
pub(super) struct RateLimiter {
    per_minute: u32,
    /// `None` where the limit is 0.
    quota: Option<Quota>,
    line: Mutex<Line>,
}

/// What was let through, and who waits: first come, first served.
struct Line {
    bucket: Bucket,
    waiting: BTreeMap<u64, Arc<Notify>>,
    /// Numbers those who wait.
    last: u64,
}

impl Line {
    fn first(&self) -> Option<u64> {
        self.waiting.first_key_value().map(|(number, _)| *number)
    }

    /// The first one has reason to look.
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

/// A place in the line, given up when it is dropped.
struct Place<'a> {
    limiter: &'a RateLimiter,
    number: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.limiter.line().leave(self.number);
    }
}

impl RateLimiter {
    pub(super) fn new(per_minute: u32) -> Self {
        Self {
            per_minute,
            quota: Quota::new(per_minute),
            line: Mutex::new(Line {
                bucket: Bucket::new(Instant::now()),
                waiting: BTreeMap::new(),
                last: 0,
            }),
        }
    }

    /// Whether it would never let anybody through.
    pub(super) fn is_closed(&self) -> bool {
        self.quota.is_none()
    }

    /// Waits for its turn. A permit that is dropped unused is as if it had never
    /// been given.
    ///
    /// # Cancel safety
    ///
    /// Nothing is taken until it completes: what takes is the last thing that
    /// it does. Not polled, it holds nobody up for longer than [`LATE`].
    pub(super) async fn acquire(self: &Arc<Self>) -> RatePermit {
        let Some(quota) = self.quota else {
            return std::future::pending().await;
        };
        let woken = Arc::new(Notify::new());
        let mut place = Place {
            limiter: self,
            number: 0,
        };
        // Who is first, where it might have taken by then.
        let mut due: Option<(u64, Instant)> = None;
        loop {
            let look_again = {
                let mut line = self.line();
                let now = Instant::now();
                // New, or left behind since it stood still.
                if !line.waiting.contains_key(&place.number) {
                    line.last += 1;
                    place.number = line.last;
                    line.waiting.insert(place.number, woken.clone());
                }
                let first = line.first().unwrap_or(place.number);
                if first == place.number {
                    match line.bucket.take(quota, now) {
                        Ok(number) => {
                            line.leave(place.number);
                            let limiter = self.clone();
                            return RatePermit::new(move |used| limiter.end(quota, number, used));
                        }
                        Err(free) => free,
                    }
                } else {
                    match (line.bucket.free(quota, now), due) {
                        (Some(free), _) => {
                            due = None;
                            free + LATE
                        }
                        (None, Some((late, since))) if late == first && since + LATE <= now => {
                            line.leave(first);
                            due = None;
                            now
                        }
                        (None, Some((late, since))) if late == first => since + LATE,
                        (None, _) => {
                            due = Some((first, now));
                            now + LATE
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
        let mut line = self.line();
        line.bucket.end(quota, number, used);
        if !used {
            line.wake_first();
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        // No critical section can panic half-way.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A burst, then one in each `every`.
#[derive(Clone, Copy, Debug)]
struct Quota {
    burst: u32,
    every: Duration,
}

impl Quota {
    /// A burst of `b`, then one every 60 s / (n − b + 1): in any 60 s, the end not
    /// counted, that is `b` and at most `n − b` after them.
    fn new(per_minute: u32) -> Option<Self> {
        let burst = (per_minute / 20).clamp(1, LARGEST_BURST);
        let further = u64::from(per_minute.checked_sub(burst)? + 1);
        // Rounded up: a nanosecond less would let one more into the minute.
        let every = Duration::from_nanos((MINUTE.as_nanos() as u64).div_ceil(further));
        Some(Self { burst, every })
    }
}

/// What was let through, as the time at which the bucket is empty again: each
/// permit fills it by `every`, and it drains all the time.
///
/// A permit given back cannot be taken off that time, since the bucket may have
/// been empty meanwhile. So what came after the oldest open permit is kept, and
/// counted anew without the one that was given back.
struct Bucket {
    empty_at: Instant,
    /// The same, before the first of `recent`.
    before: Instant,
    recent: VecDeque<Given>,
    /// The number of the first of `recent`.
    first: u64,
}

struct Given {
    at: Instant,
    /// `None` while it is open.
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

    /// Takes a permit and returns its number; or when there is one.
    fn take(&mut self, quota: Quota, now: Instant) -> Result<u64, Instant> {
        if self.empty_at <= now {
            // Whatever becomes of earlier permits changes nothing any more.
            self.first += self.recent.len() as u64;
            self.recent.clear();
            self.before = now;
            self.empty_at = now;
        }
        if let Some(free) = self.free(quota, now) {
            return Err(free);
        }
        self.empty_at += quota.every;
        self.recent.push_back(Given {
            at: now,
            used: None,
        });
        Ok(self.first + self.recent.len() as u64 - 1)
    }

    /// When there is a permit, where there is none now.
    fn free(&self, quota: Quota, now: Instant) -> Option<Instant> {
        let rest = self.empty_at.saturating_duration_since(now);
        let room = quota.every * (quota.burst - 1);
        (rest > room).then(|| now + (rest - room))
    }

    /// A permit was used, or given back.
    fn end(&mut self, quota: Quota, number: u64, used: bool) {
        let place = number.checked_sub(self.first);
        let place = place.and_then(|place| usize::try_from(place).ok());
        let Some(given) = place.and_then(|place| self.recent.get_mut(place)) else {
            return; // the bucket has been empty since
        };
        given.used = Some(used);
        while let Some(Given {
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
