//! The time that something may take, told by a timer that may itself be late. It
//! knows nothing of what it waits for.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

/// How long a future is polled on after a timer that fired late. Delivering what
/// lies in a socket takes a few turns of the runtime; this is ample on a machine
/// that is catching up.
pub(crate) const GRACE: Duration = Duration::from_secs(1);

/// Later than this, a timer shows that this process did not run. The clock of the
/// runtime counts milliseconds, so that a timer in time is two or three late.
const LATE: Duration = Duration::from_millis(10);

/// What `future` completes with in `limit`; `None` where it does not complete.
///
/// A timer that fires late proves nothing about whoever is waited for: all workers
/// were blocked, or the process was stopped, and the answer may lie in the socket,
/// where no task has looked since. Then `future` is polled on for [`GRACE`], unless
/// `is_over`, which is asked once when the timer fires, says that nothing can come
/// of it.
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
    timeout(GRACE, future).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;
    use tokio::time::{advance, sleep};

    const LIMIT: Duration = Duration::from_secs(3);
    const MOMENT: Duration = Duration::from_millis(1);

    /// The tests stop the process by moving the clock past the timer before
    /// anything is polled.
    async fn after_a_stop<F: Future>(future: F, is_over: bool) -> (Option<F::Output>, Duration) {
        let mut waiting = Box::pin(within(LIMIT, future, || is_over));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        advance(2 * LIMIT).await;
        let woken = Instant::now();
        (waiting.await, woken.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn timer_in_time_ends_the_wait() {
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

    /// Red with `tokio::time::timeout` alone: what needs one more turn of the
    /// runtime is lost.
    #[tokio::test(start_paused = true)]
    async fn late_timer_leaves_time_for_what_is_there() {
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
