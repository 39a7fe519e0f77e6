//! What the callers of one execution ask for beyond its outcome: how long it is
//! kept, and whether anything of it may be. The strictest and the longest apply
//! to all; nothing is ever taken back.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::request::DataActionRequest;

/// The options of everybody who joined one execution, so far.
#[derive(Default)]
pub(super) struct MergedOptions {
    /// The longest `ttl` that a caller asked for, in milliseconds; 0 for none.
    ttl_ms: AtomicU64,
    /// A caller asked for no `ttl`: the engine's is theirs.
    usual_ttl: AtomicBool,
    sensitive: AtomicBool,
    /// The latest moment at which a caller lets the request be sent.
    latest_start: Mutex<Option<Instant>>,
    /// A caller lets it be sent at any time.
    any_start: AtomicBool,
}

impl MergedOptions {
    /// Another caller joined.
    pub(super) fn join(&self, request: &DataActionRequest) {
        match request.requested_ttl() {
            Some(ttl) => {
                let ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
                self.ttl_ms.fetch_max(ms.max(1), Ordering::Relaxed);
            }
            None => self.usual_ttl.store(true, Ordering::Relaxed),
        }
        match request.sent_within() {
            Some(limit) => {
                let limit = Some(Instant::now() + limit);
                let mut latest = self.latest_start();
                *latest = limit.max(*latest);
            }
            None => self.any_start.store(true, Ordering::Relaxed),
        }
        if request.is_sensitive() {
            self.sensitive.store(true, Ordering::Relaxed);
        }
    }

    /// How long the outcome is kept, where `usual` is what who asks for nothing
    /// gets. A caller with a short wish must not cut short what others rely on:
    /// their repeats would be second calls.
    pub(super) fn ttl(&self, usual: Duration) -> Duration {
        let asked = Duration::from_millis(self.ttl_ms.load(Ordering::Relaxed));
        if asked.is_zero() || self.usual_ttl.load(Ordering::Relaxed) {
            asked.max(usual)
        } else {
            asked
        }
    }

    /// When the request may no longer be sent; `None` where a caller sets no limit.
    pub(super) fn start_limit(&self) -> Option<Instant> {
        match self.any_start.load(Ordering::Relaxed) {
            true => None,
            false => *self.latest_start(),
        }
    }

    fn latest_start(&self) -> MutexGuard<'_, Option<Instant>> {
        // A single value, written whole.
        let latest = self.latest_start.lock();
        latest.unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a caller asked that nothing of the answer be stored.
    pub(super) fn is_sensitive(&self) -> bool {
        self.sensitive.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for MergedOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MergedOptions")
            .field("sensitive", &self.is_sensitive())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn ttl(asked: &[Option<u64>]) -> Duration {
        let options = MergedOptions::default();
        for asked in asked {
            let request = DataActionRequest::new("a", "{}").unwrap();
            options.join(&match asked {
                Some(ms) => request.with_ttl(Duration::from_millis(*ms)).unwrap(),
                None => request,
            });
        }
        options.ttl(HOUR)
    }

    /// Red when who asks for nothing counts for nothing.
    #[test]
    fn the_longest_wish_counts_and_who_asks_for_nothing_has_one_too() {
        let ms = Duration::from_millis;
        assert_eq!(ttl(&[None]), HOUR);
        assert_eq!(ttl(&[Some(7)]), ms(7));
        assert_eq!(ttl(&[Some(7), Some(9), Some(8)]), ms(9));
        assert_eq!(ttl(&[Some(7), None]), HOUR);
        assert_eq!(ttl(&[None, Some(7_200_000)]), 2 * HOUR);
        assert_eq!(ttl(&[Some(1)]), ms(1));
    }

    /// Red when the first limit counts, or when a caller without one counts for
    /// nothing.
    #[test]
    fn latest_start_counts_and_one_without_a_limit_removes_it() {
        let options = MergedOptions::default();
        let request = DataActionRequest::new("a", "{}").unwrap();
        options.join(&request.clone().start_within(HOUR).unwrap());
        let first = options.start_limit().unwrap();
        options.join(&request.clone().start_within(2 * HOUR).unwrap());
        let second = options.start_limit().unwrap();
        assert!(second >= first + HOUR);
        options.join(&request.clone().start_within(HOUR).unwrap());
        assert_eq!(options.start_limit(), Some(second));
        options.join(&request);
        options.join(&request.start_within(HOUR).unwrap());
        assert_eq!(options.start_limit(), None);
    }

    #[test]
    fn one_sensitive_caller_is_enough() {
        let options = MergedOptions::default();
        let request = DataActionRequest::new("a", "{}").unwrap();
        options.join(&request);
        assert!(!options.is_sensitive());
        options.join(&request.clone().sensitive());
        options.join(&request);
        assert!(options.is_sensitive());
    }
}
