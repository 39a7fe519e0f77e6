//! A rate limit that no minute exceeds, over governor's GCRA and tokio's clock.
//! It holds callers back in the order in which they came, and never refuses one.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter as Governor};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

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
    bucket: Option<Bucket>,
    /// Whoever holds it is next; its queue is first come, first served.
    turn: Mutex<()>,
}

type Bucket = Governor<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<Duration>>;

impl RateLimiter {
    pub(super) fn new(per_minute: u32) -> Self {
        Self {
            per_minute,
            bucket: quota(per_minute)
                .map(|quota| Governor::direct_with_clock(quota, TokioClock::new())),
            turn: Mutex::new(()),
        }
    }

    /// Whether it would never let anybody through.
    pub(super) fn is_closed(&self) -> bool {
        self.bucket.is_none()
    }

    /// Waits for its turn.
    ///
    /// # Cancel safety
    ///
    /// Nothing is taken until it completes: what takes is the last thing that
    /// it does.
    pub(super) async fn admit(&self) {
        let Some(bucket) = &self.bucket else {
            return std::future::pending().await;
        };
        let _turn = self.turn.lock().await;
        // Only one at a time looks: of thousands who wait, nobody else wakes.
        while let Err(not_until) = bucket.check() {
            sleep(not_until.wait_time_from(bucket.clock().now())).await;
        }
    }
}

/// A burst of `b`, then one every 60 s / (n − b + 1): in any 60 s, the end not
/// counted, that is `b` and at most `n − b` after them.
fn quota(per_minute: u32) -> Option<Quota> {
    let burst = (per_minute / 20).clamp(1, LARGEST_BURST);
    let further = u64::from(per_minute.checked_sub(burst)? + 1);
    // Rounded up: a nanosecond less would let one more into the minute.
    let every = Duration::from_nanos((MINUTE.as_nanos() as u64).div_ceil(further));
    Some(Quota::with_period(every)?.allow_burst(NonZeroU32::new(burst)?))
}

/// Tokio's clock, which tests may pause, as governor reads clocks.
#[derive(Clone, Debug)]
struct TokioClock {
    origin: Instant,
}

impl TokioClock {
    fn new() -> Self {
        Self {
            origin: Instant::now(),
        }
    }
}

impl Clock for TokioClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.origin.elapsed()
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
    use std::sync::Arc;

    use futures_util::FutureExt as _;
    use proptest::prelude::*;
    use tokio::time::{advance, timeout};

    /// When each of these callers is let through, who come after these pauses.
    async fn admissions(per_minute: u32, pauses: &[Duration]) -> Vec<Duration> {
        let limiter = Arc::new(RateLimiter::new(per_minute));
        let start = Instant::now();
        let mut callers = Vec::new();
        for pause in pauses {
            // Timers in between go off in their order, as they do not in a jump.
            sleep(*pause).await;
            let limiter = limiter.clone();
            callers.push(tokio::spawn(async move {
                limiter.admit().await;
                start.elapsed()
            }));
        }
        let mut times = Vec::new();
        for caller in callers {
            times.push(caller.await.unwrap());
        }
        times
    }

    fn pauses() -> impl Strategy<Value = Vec<Duration>> {
        // Crowds, trickles, and pauses in which the bucket fills up again.
        let pause = prop_oneof![
            12 => Just(0),
            3 => 0..2_000u64,
            1 => prop::sample::select(vec![29_999, 30_000, 59_999, 60_000, 60_001, 120_000]),
        ];
        prop::collection::vec(pause.prop_map(Duration::from_millis), 1..400)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// Red when the quota is governor's own `per_minute(n)`, and when the
        /// spacing is `60 s / n` beside the burst.
        #[test]
        fn no_minute_holds_more_than_the_limit(per_minute in 1..120u32, pauses in pauses()) {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .unwrap();
            let times = runtime.block_on(admissions(per_minute, &pauses));
            prop_assert!(times.is_sorted(), "first come, first served: {:?}", times);
            let limit = per_minute as usize;
            for minute in times.windows(limit + 1) {
                prop_assert!(minute[limit] - minute[0] >= MINUTE, "{:?}", minute);
            }
            // Nobody waits for longer than a crowd of that size takes: the
            // slowest is one in 60 s, and tokio's clock counts milliseconds.
            let every = quota(per_minute).unwrap().replenish_interval();
            let mut came = Duration::ZERO;
            for (ahead, (pause, time)) in pauses.iter().zip(&times).enumerate() {
                came += *pause;
                let longest = (every + Duration::from_millis(2)) * (ahead as u32 + 1);
                prop_assert!(*time <= came + longest, "{ahead}: {:?}", time);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_platform_s_limit_is_nearly_used_up() {
        // 300 a minute: a burst of 15, then one every 0.21 s.
        let times = admissions(300, &[Duration::ZERO; 2_000]).await;
        assert_eq!(times[14], Duration::ZERO);
        assert!(times[15] > Duration::from_millis(200), "{:?}", times[15]);
        let rate = 2_000.0 / times[1_999].as_secs_f64() * 60.0;
        assert!((270.0..300.0).contains(&rate), "{rate} a minute");
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_gives_up_takes_nothing() {
        let limiter = RateLimiter::new(1);
        let start = Instant::now();
        limiter.admit().await;
        for _ in 0..5 {
            let waiting = timeout(Duration::from_secs(1), limiter.admit());
            assert!(waiting.await.is_err());
        }
        limiter.admit().await;
        assert_eq!((Instant::now() - start).as_secs(), 60);
    }

    /// Red without the turn: who comes at the right moment then goes first.
    #[tokio::test(start_paused = true)]
    async fn nobody_overtakes_those_who_wait() {
        let limiter = RateLimiter::new(1);
        limiter.admit().await;
        let mut waiting = Box::pin(limiter.admit());
        assert!(waiting.as_mut().now_or_never().is_none());
        advance(MINUTE).await;
        assert!(limiter.admit().now_or_never().is_none());
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
