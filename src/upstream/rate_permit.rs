//! A permit of an upstream's rate limit to send one call, which is used or returned. It
//! knows no limit.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A permit to send one call, from
/// [`Upstream::acquire_rate_permit`](super::Upstream::acquire_rate_permit). Dropped
/// without [`spend`](Self::spend), it is returned to its limit.
#[derive(Default)]
#[must_use = "a dropped permit is returned"]
pub struct RatePermit {
    /// `None` without a limit, and after it was called.
    end: Option<Box<dyn FnOnce(bool) + Send>>,
}

impl RatePermit {
    /// A permit that calls `end` once, with whether it was used. An upstream without a
    /// limit, or whose limit takes no permit back, returns `default()`.
    pub fn new(end: impl FnOnce(bool) + Send + 'static) -> Self {
        let end = Some(Box::new(end) as _);
        Self { end }
    }

    /// Uses the permit: the call is made.
    pub fn spend(mut self) {
        self.report(true);
    }

    /// Contains a panic of the limit, since this also runs in `drop`.
    fn report(&mut self, used: bool) {
        if let Some(end) = self.end.take() {
            drop(catch_unwind(AssertUnwindSafe(move || end(used))));
        }
    }
}

impl Drop for RatePermit {
    fn drop(&mut self) {
        self.report(false);
    }
}

impl fmt::Debug for RatePermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RatePermit").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn permit_reports_its_use_once() {
        let (sender, receiver) = mpsc::channel();
        let permit = || {
            let sender = sender.clone();
            RatePermit::new(move |used| sender.send(used).unwrap())
        };
        permit().spend();
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [true]);
        drop(permit());
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [false]);
        drop(RatePermit::default());
    }

    #[test]
    fn panic_of_the_limit_is_contained() {
        drop(RatePermit::new(|_| panic!("the limit")));
        RatePermit::new(|_| panic!("the limit")).spend();
    }
}
