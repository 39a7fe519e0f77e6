//! A time limit that distinguishes a slow peer from a process that did not run. It knows
//! nothing of the future that it limits.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

/// How long a future is polled after its timer fired late. The runtime needs a few turns
/// to deliver the bytes of a socket; this suffices on a machine under load.
pub(crate) const GRACE: Duration = Duration::from_secs(1);

/// A timer that fires later than this shows that the process did not run. The runtime's
/// clock counts milliseconds, so that a timely timer is two or three late.
const LATE: Duration = Duration::from_millis(10);

/// The output of `future` within `limit`; `None` if it does not complete.
///
/// A timer that fires late proves nothing about the peer: all workers were blocked, or the
/// process was stopped, and the answer might be in the socket. Then `future` is polled for
/// [`GRACE`] more, unless `is_over`, which is called once when the timer fires, returns
/// `true`: no answer can follow.
pub(crate) async fn within<F: Future>(
    limit: Duration,
    future: F,
    is_over: impl FnOnce() -> bool,
) -> Option<F::Output> {
    let begun = Instant::now();
    let mut future = pin!(future);
    let in_time = match begun.checked_add(limit) {
        Some(end) => timeout_at(end, &mut future).await,
        None => timeout(limit, &mut future).await,
    };
    if let Ok(output) = in_time {
        return Some(output);
    }
    let late = begun.elapsed().saturating_sub(limit) >= LATE;
    if is_over() || !late {
        return None;
    }
    // Boxed: it is rare, and would have its own place in every limited future.
    Box::pin(timeout(GRACE, future)).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;
    use tokio::time::{advance, sleep};

    const LIMIT: Duration = Duration::from_secs(3);
    const MOMENT: Duration = Duration::from_millis(1);

    /// Simulates a stopped process: the clock passes the timer before a poll.
    async fn after_a_stop<F: Future>(future: F, is_over: bool) -> (Option<F::Output>, Duration) {
        let mut waiting = Box::pin(within(LIMIT, future, || is_over));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        advance(2 * LIMIT).await;
        let woken = Instant::now();
        (waiting.await, woken.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn timely_timer_ends_the_wait() {
        let begun = Instant::now();
        assert_eq!(within(LIMIT, async { 1 }, || false).await, Some(1));
        let just = sleep(LIMIT - MOMENT);
        assert_eq!(within(LIMIT, just, || false).await, Some(()));
        let begun = begun + LIMIT - MOMENT;
        assert_eq!(within(LIMIT, pending::<()>(), || false).await, None);
        assert_eq!(begun.elapsed(), LIMIT);
        let late = sleep(LIMIT + MOMENT);
        assert_eq!(within(LIMIT, late, || false).await, None);
        let endless = within(Duration::MAX, sleep(LIMIT), || false);
        assert_eq!(endless.await, Some(()));
    }

    /// Red with `tokio::time::timeout` alone: an answer that needs one more turn of the
    /// runtime is lost.
    #[tokio::test(start_paused = true)]
    async fn late_timer_leaves_time_for_the_answer() {
        let in_some_turns = || async {
            sleep(LIMIT).await;
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
        };
        let (output, _) = after_a_stop(in_some_turns(), false).await;
        assert_eq!(output, Some(()));
        let (output, waited) = after_a_stop(pending::<()>(), false).await;
        assert_eq!((output, waited), (None, GRACE));
        let (output, waited) = after_a_stop(pending::<()>(), true).await;
        assert_eq!((output, waited), (None, Duration::ZERO));
    }
}
