//! Waiters for an open breaker, and when they continue.

use futures_util::FutureExt as _;

use super::*;

/// Waiters for an open breaker, and how long each waits.
fn waiters(breaker: &Arc<BreakerStore>, count: usize) -> tokio::task::JoinSet<Duration> {
    let start = Instant::now();
    let mut waiters = tokio::task::JoinSet::new();
    for _ in 0..count {
        let breaker = breaker.clone();
        waiters.spawn(async move {
            breaker.again(&name(), 60 * SECOND).await;
            start.elapsed()
        });
    }
    waiters
}

/// Seen red without the wake-up at the end of a probe, and where each waiter probes.
#[tokio::test(start_paused = true)]
async fn one_waiter_probes_and_its_success_wakes_all() {
    for does in [Does::Fail, Does::Silence] {
        let (store, breaker) = breaker_store(does);
        open(&breaker).await;
        let waiters = waiters(&breaker, 100);
        let before = store.calls();
        tokio::time::sleep(20 * SECOND).await;
        let probes = store.calls() - before;
        // At the pace of the time-out, with no busy loop.
        assert!((8..=11).contains(&probes), "{does:?}: {probes}");
        store.set(Does::Answer);
        let times = waiters.join_all().await;
        let (first, last) = (times.iter().min().unwrap(), times.iter().max().unwrap());
        assert_eq!(first, last, "{does:?}");
        let late = *last - 20 * SECOND;
        assert!(late <= LIMIT + SECOND / 2, "{does:?}: {late:?}");
        let probe = if does == Does::Silence { 2 } else { 1 };
        assert!(store.calls() - before <= probes + probe, "{does:?}");
        assert!(breaker.is_up());
    }
}

/// Seen red where a dropped probe wakes no other waiter.
#[tokio::test(start_paused = true)]
async fn next_waiter_repeats_a_dropped_probe() {
    let (store, breaker) = breaker_store(Does::Silence);
    open(&breaker).await;
    let name = name();
    let mut first = breaker.again(&name, SECOND);
    advance(SECOND).await;
    assert!(first.as_mut().now_or_never().is_none());
    let mut second = breaker.again(&name, SECOND);
    assert!(second.as_mut().now_or_never().is_none());
    let before = store.calls();
    store.set(Does::Answer);
    drop(first);
    assert!(timeout(SECOND / 10, second).await.is_ok());
    assert_eq!(store.calls(), before + 1);
}

/// Seen red where a probe lasts until its command ends: a caller of `Engine::inspect` might
/// hold a future that it never polls again.
#[tokio::test(start_paused = true)]
async fn unpolled_probe_blocks_no_other_probe() {
    let (store, breaker) = breaker_store(Does::Silence);
    open(&breaker).await;
    let name = name();
    advance(SECOND).await;
    let mut left_alone = breaker.look(&name);
    assert!(left_alone.as_mut().now_or_never().is_none());
    store.set(Does::Answer);
    assert!(breaker.look(&name).await.unwrap_err().is_unsent());
    let start = Instant::now();
    breaker.again(&name, SECOND).await;
    assert!(start.elapsed() <= LIMIT + SECOND / 2);
    assert!(breaker.is_up());
}

/// With a closed breaker, a failed command waits for its pause, or for the end of an outage
/// that begins meanwhile.
#[tokio::test(start_paused = true)]
async fn closed_breaker_waits_for_the_pause() {
    let (store, breaker) = breaker_store(Does::Answer);
    let start = Instant::now();
    breaker.again(&name(), 3 * SECOND).await;
    assert_eq!((start.elapsed(), store.calls()), (3 * SECOND, 0));
    let waiters = waiters(&breaker, 1);
    tokio::time::sleep(SECOND).await;
    store.set(Does::Fail);
    open(&breaker).await;
    store.set(Does::Answer);
    tokio::time::sleep(SECOND).await;
    breaker.look(&name()).await.unwrap();
    let times = waiters.join_all().await;
    assert!(times[0] < 3 * SECOND, "{times:?}");
}
