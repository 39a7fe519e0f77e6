//! The options of all callers of one execution, merged: how long the outcome is kept, when
//! the request may be sent, and whether the answer is stored. An option is never removed.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::request::DataActionRequest;

/// The merged options of the callers that have joined one execution.
#[derive(Default)]
pub(super) struct MergedOptions {
    /// The longest `ttl` that a caller asked for, in milliseconds; 0 for none.
    ttl_ms: AtomicU64,
    /// A caller asked for no `ttl`: the engine's applies to it.
    usual_ttl: AtomicBool,
    sensitive: AtomicBool,
    /// The latest moment at which a caller lets the request be sent.
    latest_start: Mutex<Option<Instant>>,
    /// A caller lets it be sent at any time.
    any_start: AtomicBool,
}

impl MergedOptions {
    /// Adds the options of another caller.
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

    /// How long the outcome is kept; `usual` applies to callers that ask for nothing. A short
    /// `ttl` of one caller must not shorten the time of others: their repeats would be
    /// second calls.
    pub(super) fn ttl(&self, usual: Duration) -> Duration {
        let asked = Duration::from_millis(self.ttl_ms.load(Ordering::Relaxed));
        if asked.is_zero() || self.usual_ttl.load(Ordering::Relaxed) {
            asked.max(usual)
        } else {
            asked
        }
    }

    /// When the request may no longer be sent; `None` if a caller sets no limit.
    pub(super) fn start_limit(&self) -> Option<Instant> {
        match self.any_start.load(Ordering::Relaxed) {
            true => None,
            false => *self.latest_start(),
        }
    }

    fn latest_start(&self) -> MutexGuard<'_, Option<Instant>> {
        // Changed by one assignment, so a panic leaves no half-made change.
        let latest = self.latest_start.lock();
        latest.unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a caller asked to keep the answer out of the store.
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

    /// Red when a caller that asks for nothing does not count.
    #[test]
    fn longest_ttl_of_all_callers_counts() {
        let ms = Duration::from_millis;
        assert_eq!(ttl(&[None]), HOUR);
        assert_eq!(ttl(&[Some(7)]), ms(7));
        assert_eq!(ttl(&[Some(7), Some(9), Some(8)]), ms(9));
        assert_eq!(ttl(&[Some(7), None]), HOUR);
        assert_eq!(ttl(&[None, Some(7_200_000)]), 2 * HOUR);
        assert_eq!(ttl(&[Some(1)]), ms(1));
    }

    /// Red when the first limit counts, or when a caller without a limit does not count.
    #[test]
    fn latest_start_limit_of_all_callers_counts() {
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
