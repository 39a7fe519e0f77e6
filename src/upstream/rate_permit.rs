//! Leave to send one call, from an upstream's own rate limit: used, or given back.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Leave to send one call, given by
/// [`Upstream::acquire_rate_permit`](super::Upstream::acquire_rate_permit).
/// Dropped without [`spend`](Self::spend), it is given back.
#[derive(Default)]
#[must_use = "a dropped permit is given back"]
pub struct RatePermit {
    /// `None` where there is no limit, and once it was told.
    end: Option<Box<dyn FnOnce(bool) + Send>>,
}

impl RatePermit {
    /// A permit of a limit that wants to know what became of it: `end` hears
    /// once, at once, whether the permit was used. The permit of an upstream
    /// without a limit, or of one that takes nothing back, is `default()`.
    pub fn new(end: impl FnOnce(bool) + Send + 'static) -> Self {
        let end = Some(Box::new(end) as _);
        Self { end }
    }

    /// The call is being made: the permit is used.
    pub fn spend(mut self) {
        self.tell(true);
    }

    /// A panic of the limit's own ends here: it may come from a `drop`.
    fn tell(&mut self, used: bool) {
        if let Some(end) = self.end.take() {
            drop(catch_unwind(AssertUnwindSafe(move || end(used))));
        }
    }
}

impl Drop for RatePermit {
    fn drop(&mut self) {
        self.tell(false);
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
    fn a_permit_is_used_or_given_back_once() {
        let (told, hears) = mpsc::channel();
        let permit = || {
            let told = told.clone();
            RatePermit::new(move |used| told.send(used).unwrap())
        };
        permit().spend();
        assert_eq!(hears.try_iter().collect::<Vec<_>>(), [true]);
        drop(permit());
        assert_eq!(hears.try_iter().collect::<Vec<_>>(), [false]);
        drop(RatePermit::default());
    }

    #[test]
    fn a_limit_that_panics_is_contained() {
        drop(RatePermit::new(|_| panic!("the limit")));
        RatePermit::new(|_| panic!("the limit")).spend();
    }
}
