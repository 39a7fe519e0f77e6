//! A rate limit that no minute exceeds: a generic cell rate algorithm over tokio's
//! clock that takes back what was not used, which no library's does. It holds
//! callers back in the order in which they came, and never refuses one.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex as PlainMutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex, Notify};
use tokio::time::{Instant, sleep_until};

use crate::upstream::RatePermit;

const MINUTE: Duration = Duration::from_secs(60);

/// The largest burst: what the platform lets an organisation run at once.
const LARGEST_BURST: u32 = 50;

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
    /// Whoever holds it is next; its queue is first come, first served.
    turn: Mutex<()>,
    bucket: PlainMutex<Bucket>,
    /// Wakes the next one when a permit is given back.
    given_back: Notify,
}

impl RateLimiter {
    pub(super) fn new(per_minute: u32) -> Self {
        Self {
            per_minute,
            quota: Quota::new(per_minute),
            turn: Mutex::new(()),
            bucket: PlainMutex::new(Bucket::new(Instant::now())),
            given_back: Notify::new(),
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
    /// it does.
    pub(super) async fn acquire(self: &Arc<Self>) -> RatePermit {
        let Some(quota) = self.quota else {
            return std::future::pending().await;
        };
        let _turn = self.turn.lock().await;
        // Only one at a time looks: of thousands who wait, nobody else wakes.
        loop {
            let taken = self.bucket().take(quota, Instant::now());
            match taken {
                Ok(number) => {
                    let limiter = self.clone();
                    return RatePermit::new(move |used| limiter.end(quota, number, used));
                }
                Err(free) => tokio::select! {
                    biased;
                    () = self.given_back.notified() => {}
                    () = sleep_until(free) => {}
                },
            }
        }
    }

    fn end(&self, quota: Quota, number: u64, used: bool) {
        self.bucket().end(quota, number, used);
        if !used {
            self.given_back.notify_one();
        }
    }

    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        // No critical section can panic half-way.
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
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
        let rest = self.empty_at.saturating_duration_since(now);
        let room = quota.every * (quota.burst - 1);
        if rest > room {
            return Err(now + (rest - room));
        }
        self.empty_at += quota.every;
        self.recent.push_back(Given {
            at: now,
            used: None,
        });
        Ok(self.first + self.recent.len() as u64 - 1)
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
mod tests {
    use super::*;

    use futures_util::FutureExt as _;
    use proptest::prelude::*;
    use tokio::time::{advance, sleep, timeout};

    /// When each of these callers is let through, who come after these pauses; a
    /// caller with a time keeps its permit for so long and then gives it back.
    async fn admissions(
        per_minute: u32,
        callers: &[(Duration, Option<Duration>)],
    ) -> Vec<Duration> {
        let limiter = Arc::new(RateLimiter::new(per_minute));
        let start = Instant::now();
        let mut tasks = Vec::new();
        for (pause, kept) in callers.iter().copied() {
            // Timers in between go off in their order, as they do not in a jump.
            sleep(pause).await;
            let limiter = limiter.clone();
            tasks.push(tokio::spawn(async move {
                let permit = limiter.acquire().await;
                let time = start.elapsed();
                match kept {
                    Some(kept) => sleep(kept).await,
                    None => permit.spend(),
                }
                time
            }));
        }
        let mut times = Vec::new();
        for task in tasks {
            times.push(task.await.unwrap());
        }
        times
    }

    fn pauses() -> impl Strategy<Value = Vec<(Duration, Option<Duration>)>> {
        // Crowds, trickles, and pauses in which the bucket fills up again.
        let pause = prop_oneof![
            12 => Just(0),
            3 => 0..2_000u64,
            1 => prop::sample::select(vec![29_999, 30_000, 59_999, 60_000, 60_001, 120_000]),
        ];
        // Most use their permits; the others have them for a moment, or for long.
        let kept = prop_oneof![
            3 => Just(None),
            1 => Just(Some(0)),
            1 => (0..5_000u64).prop_map(Some),
            1 => (0..90_000u64).prop_map(Some),
        ];
        let millis = Duration::from_millis;
        let caller = (pause, kept).prop_map(move |(p, k)| (millis(p), k.map(millis)));
        prop::collection::vec(caller, 1..400)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// Red when the quota is a bucket of `n` that is filled up once a minute, and
        /// when the spacing is `60 s / n` beside the burst.
        #[test]
        fn no_minute_holds_more_than_the_limit(per_minute in 1..120u32, callers in pauses()) {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .unwrap();
            let times = runtime.block_on(admissions(per_minute, &callers));
            prop_assert!(times.is_sorted(), "first come, first served: {:?}", times);
            let limit = per_minute as usize;
            let used = callers.iter().zip(&times).filter(|((_, kept), _)| kept.is_none());
            let used: Vec<_> = used.map(|(_, time)| *time).collect();
            for minute in used.windows(limit + 1) {
                prop_assert!(minute[limit] - minute[0] >= MINUTE, "{:?}", minute);
            }
            // Nobody waits for longer than a crowd of that size takes: the
            // slowest is one in 60 s, and tokio's clock counts milliseconds.
            let every = Quota::new(per_minute).unwrap().every;
            let mut came = Duration::ZERO;
            for (ahead, ((pause, _), time)) in callers.iter().zip(&times).enumerate() {
                came += *pause;
                let longest = (every + Duration::from_millis(2)) * (ahead as u32 + 1);
                prop_assert!(*time <= came + longest, "{ahead}: {:?}", time);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_platform_s_limit_is_nearly_used_up() {
        // 300 a minute: a burst of 15, then one every 0.21 s.
        let times = admissions(300, &[(Duration::ZERO, None); 2_000]).await;
        assert_eq!(times[14], Duration::ZERO);
        assert!(times[15] > Duration::from_millis(200), "{:?}", times[15]);
        let rate = 2_000.0 / times[1_999].as_secs_f64() * 60.0;
        assert!((270.0..300.0).contains(&rate), "{rate} a minute");
    }

    /// What is not used is as if it had never been taken, also for one who waits
    /// already. Red where a permit is only ever taken.
    #[tokio::test(start_paused = true)]
    async fn what_is_given_back_goes_to_the_next() {
        let limiter = Arc::new(RateLimiter::new(300));
        let start = Instant::now();
        for _ in 0..1_000 {
            drop(limiter.acquire().await);
        }
        let mut permits: Vec<_> = Vec::new();
        for _ in 0..15 {
            permits.push(limiter.acquire().await);
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        let mut waiting = Box::pin(limiter.acquire());
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(permits.pop());
        waiting.await.spend();
        assert_eq!(start.elapsed(), Duration::ZERO);
        // The bucket was empty meanwhile: nothing is owed any more.
        sleep(MINUTE).await;
        drop(permits);
        let burst = [(); 16].map(|()| limiter.acquire().now_or_never());
        assert_eq!(burst.iter().flatten().count(), 15);
    }

    /// What comes back late owes little any more. Red where a permit given back is
    /// taken off the bucket as it is by then: this minute then holds more than 60.
    #[tokio::test(start_paused = true)]
    async fn what_comes_back_late_lets_nobody_through() {
        let limiter = Arc::new(RateLimiter::new(60));
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(limiter.acquire().await);
        }
        // The bucket is nearly empty; without them it has long been.
        sleep(Duration::from_secs(3)).await;
        let (begun, mut used) = (Instant::now(), 0);
        while begun.elapsed() < MINUTE {
            limiter.acquire().await.spend();
            used += usize::from(begun.elapsed() < MINUTE);
            if used == 2 {
                held.clear();
            }
        }
        assert!((57..=60).contains(&used), "{used}");
    }

    /// Nothing is kept of what is over. Red where each permit is remembered until
    /// the bucket is empty, which under load it never is.
    #[tokio::test(start_paused = true)]
    async fn what_was_used_is_forgotten() {
        let limiter = Arc::new(RateLimiter::new(300));
        let mut open = None;
        for n in 0..10_000 {
            let permit = limiter.acquire().await;
            match n % 10 {
                0 => open = Some(permit),
                _ => permit.spend(),
            }
            assert!(limiter.bucket().recent.len() <= 20, "{n}");
        }
        drop(open);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_gives_up_takes_nothing() {
        let limiter = Arc::new(RateLimiter::new(1));
        let start = Instant::now();
        limiter.acquire().await.spend();
        for _ in 0..5 {
            let waiting = timeout(Duration::from_secs(1), limiter.acquire());
            assert!(waiting.await.is_err());
        }
        limiter.acquire().await.spend();
        assert_eq!((Instant::now() - start).as_secs(), 60);
    }

    /// Red without the turn: who comes at the right moment then goes first.
    #[tokio::test(start_paused = true)]
    async fn nobody_overtakes_those_who_wait() {
        let limiter = Arc::new(RateLimiter::new(1));
        limiter.acquire().await.spend();
        let mut waiting = Box::pin(limiter.acquire());
        assert!(waiting.as_mut().now_or_never().is_none());
        advance(MINUTE).await;
        assert!(limiter.acquire().now_or_never().is_none());
        assert!(waiting.now_or_never().is_some());
    }

    #[test]
    fn a_limit_of_nothing_is_closed() {
        assert!(RateLimiter::new(0).is_closed());
        for per_minute in [1, 19, 20, 300, 2_500, u32::MAX] {
            assert!(!RateLimiter::new(per_minute).is_closed(), "{per_minute}");
        }
    }
}
