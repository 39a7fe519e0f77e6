//! No minute has more calls than the limit, no permit is lost, and no waiter is stuck.

use super::*;

use futures_util::FutureExt as _;
use proptest::prelude::*;
use tokio::time::{advance, sleep, timeout};

/// When each caller gets through, after its pause. A caller with a time keeps its permit
/// for so long and then returns it.
async fn admissions(per_minute: u32, callers: &[(Duration, Option<Duration>)]) -> Vec<Duration> {
    let limiter = Arc::new(RateLimiter::new(per_minute));
    let start = Instant::now();
    let mut tasks = Vec::new();
    for (pause, kept) in callers.iter().copied() {
        // A sleep fires timers in their order, and a jump of the clock does not.
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
    // Crowds, single callers, and pauses in which the bucket drains.
    let pause = prop_oneof![
        12 => Just(0),
        3 => 0..2_000u64,
        1 => prop::sample::select(vec![29_999, 30_000, 59_999, 60_000, 60_001, 120_000]),
    ];
    // Most use their permits; the others return them at once, or late.
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

    /// Red if the quota is a bucket of `n` that is refilled once a minute, and if the
    /// spacing is `60 s / n` with the burst added.
    #[test]
    fn no_minute_exceeds_the_limit(per_minute in 1..120u32, callers in pauses()) {
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
        // No caller waits longer than the callers ahead take: the slowest limit is one
        // in 60 s, and tokio's clock counts milliseconds.
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
async fn steady_calls_nearly_reach_the_limit() {
    // 300 a minute: a burst of 15, then one every 0.21 s.
    let times = admissions(300, &[(Duration::ZERO, None); 2_000]).await;
    assert_eq!(times[14], Duration::ZERO);
    assert!(times[15] > Duration::from_millis(200), "{:?}", times[15]);
    let rate = 2_000.0 / times[1_999].as_secs_f64() * 60.0;
    assert!((270.0..300.0).contains(&rate), "{rate} a minute");
}

/// An unused permit does not count, also for a caller that is waiting. Red if a returned
/// permit counts.
#[tokio::test(start_paused = true)]
async fn returned_permit_goes_to_the_next_caller() {
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
    // The bucket was empty since: the returned permits change nothing.
    sleep(MINUTE).await;
    drop(permits);
    let burst = [(); 16].map(|()| limiter.acquire().now_or_never());
    assert_eq!(burst.iter().flatten().count(), 15);
}

/// A permit that is returned late frees little. Red if it is subtracted from the bucket's
/// present level: this minute then has more than 60 calls.
#[tokio::test(start_paused = true)]
async fn late_returned_permit_frees_little() {
    let limiter = Arc::new(RateLimiter::new(60));
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(limiter.acquire().await);
    }
    // The bucket is nearly empty; without these permits it was empty long before.
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

/// Red if each permit is kept until the bucket is empty, which under load never happens.
#[tokio::test(start_paused = true)]
async fn used_permits_take_no_memory() {
    let limiter = Arc::new(RateLimiter::new(300));
    let mut open = None;
    for n in 0..10_000 {
        let permit = limiter.acquire().await;
        match n % 10 {
            0 => open = Some(permit),
            _ => permit.spend(),
        }
        assert!(limiter.queue().bucket.recent.len() <= 20, "{n}");
    }
    drop(open);
}

#[tokio::test(start_paused = true)]
async fn dropped_waiter_takes_no_permit() {
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

/// Red without the queue: a caller that arrives at the right moment then goes first.
#[tokio::test(start_paused = true)]
async fn new_caller_does_not_overtake_waiters() {
    let limiter = Arc::new(RateLimiter::new(1));
    limiter.acquire().await.spend();
    let mut waiting = Box::pin(limiter.acquire());
    assert!(waiting.as_mut().now_or_never().is_none());
    advance(MINUTE).await;
    assert!(limiter.acquire().now_or_never().is_none());
    assert!(waiting.now_or_never().is_some());
}

/// The first waiters belong to another engine, whose runtime no longer runs: no task polls
/// them. Red if all later callers wait behind them without end.
#[tokio::test(start_paused = true)]
async fn idle_waiter_does_not_block_others() {
    let limiter = Arc::new(RateLimiter::new(60));
    for _ in 0..3 {
        limiter.acquire().await.spend();
    }
    let mut still = [(); 3].map(|()| Box::pin(limiter.acquire()));
    for still in &mut still {
        assert!(still.as_mut().now_or_never().is_none());
    }
    let begun = Instant::now();
    for _ in 0..20 {
        let next = timeout(MINUTE, limiter.acquire()).await;
        next.expect("it is not blocked").spend();
    }
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "{:?}",
        begun.elapsed()
    );
    // Polled again, they go on.
    for still in still {
        still.await.spend();
    }
}

#[test]
fn limit_of_zero_is_closed() {
    assert!(RateLimiter::new(0).is_closed());
    for per_minute in [1, 19, 20, 300, 2_500, u32::MAX] {
        assert!(!RateLimiter::new(per_minute).is_closed(), "{per_minute}");
    }
}
