//! No minute holds more than the limit, nothing is lost, and nobody is held up.

use super::*;

use futures_util::FutureExt as _;
use proptest::prelude::*;
use tokio::time::{advance, sleep, timeout};

/// When each of these callers is let through, who come after these pauses; a
/// caller with a time keeps its permit for so long and then gives it back.
async fn admissions(per_minute: u32, callers: &[(Duration, Option<Duration>)]) -> Vec<Duration> {
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
        assert!(limiter.line().bucket.recent.len() <= 20, "{n}");
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

/// Its turn had come, and nobody polls it: it belongs to another engine, whose
/// runtime is no longer driven. Red where all wait behind it for ever.
#[tokio::test(start_paused = true)]
async fn one_that_stands_still_holds_nobody_up() {
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
        next.expect("it is held up").spend();
    }
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "{:?}",
        begun.elapsed()
    );
    // They go on where they are polled again.
    for still in still {
        still.await.spend();
    }
}

#[test]
fn a_limit_of_nothing_is_closed() {
    assert!(RateLimiter::new(0).is_closed());
    for per_minute in [1, 19, 20, 300, 2_500, u32::MAX] {
        assert!(!RateLimiter::new(per_minute).is_closed(), "{per_minute}");
    }
}
