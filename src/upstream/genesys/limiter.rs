//! A rate limit over a sliding minute. It holds callers back in the order in
//! which they came, and never refuses one.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

const WINDOW: Duration = Duration::from_secs(60);

/// Lets at most so many through in any 60 s.
///
/// It remembers when each was let through, rather than filling a bucket: a full
/// bucket would let through twice the limit within its first minute, and the
/// platform counts minutes.
pub(super) struct RateLimiter {
    per_minute: u32,
    /// The last `per_minute` admissions, oldest first.
    admitted: Mutex<VecDeque<Instant>>,
}

impl RateLimiter {
    pub(super) fn new(per_minute: u32) -> Self {
        Self {
            per_minute,
            admitted: Mutex::new(VecDeque::new()),
        }
    }

    /// Whether it would never let anybody through.
    pub(super) fn is_closed(&self) -> bool {
        self.per_minute == 0
    }

    /// Waits for its turn.
    ///
    /// # Cancel safety
    ///
    /// Nothing is taken until it completes: whoever holds the lock waits for
    /// the oldest admission to age, and the lock's queue is first come, first
    /// served.
    pub(super) async fn admit(&self) {
        let mut admitted = self.admitted.lock().await;
        if admitted.len() >= self.per_minute as usize
            && let Some(&oldest) = admitted.front()
        {
            sleep_until(oldest + WINDOW).await;
            admitted.pop_front();
        }
        admitted.push_back(Instant::now());
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

    #[tokio::test(start_paused = true)]
    async fn no_window_of_a_minute_holds_more_than_the_limit() {
        let limiter = Arc::new(RateLimiter::new(3));
        let start = Instant::now();
        let tasks: Vec<_> = (0..10)
            .map(|_| {
                let limiter = Arc::clone(&limiter);
                tokio::spawn(async move {
                    limiter.admit().await;
                    Instant::now()
                })
            })
            .collect();
        let mut times = Vec::new();
        for task in tasks {
            times.push(task.await.unwrap());
        }
        times.sort();
        for window in times.windows(4) {
            assert!(window[3] - window[0] >= WINDOW);
        }
        // And it holds nobody back for longer than that takes.
        assert_eq!((times[9] - start).as_secs(), 180);
        assert!(limiter.admitted.lock().await.len() <= 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_gives_up_takes_nothing() {
        let limiter = RateLimiter::new(1);
        let start = Instant::now();
        limiter.admit().await;
        for _ in 0..5 {
            let waiting = tokio::time::timeout(Duration::from_secs(1), limiter.admit());
            assert!(waiting.await.is_err());
        }
        limiter.admit().await;
        assert_eq!((Instant::now() - start).as_secs(), 60);
    }
}
