//! How much the simulated platform takes, and how long it needs. It counts and
//! measures; the words of a refusal are `answers`' business.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::outcome::Outcome;
use crate::testing::answers;
use crate::testing::ledger::lock;

const MINUTE: Duration = Duration::from_secs(60);

/// The limits on executions.
#[derive(Default)]
pub(super) struct Limits(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    latency: Duration,
    rate: Window,
    at_once: Option<usize>,
    running: usize,
}

impl Limits {
    pub(super) fn set_latency(&self, latency: Duration) {
        lock(&self.0).latency = latency;
    }

    pub(super) fn set_rate(&self, limit: u32, window: Duration) {
        lock(&self.0).rate = Window::within(limit, window);
    }

    pub(super) fn set_concurrency(&self, at_once: usize) {
        lock(&self.0).at_once = Some(at_once);
    }

    pub(super) fn latency(&self) -> Duration {
        lock(&self.0).latency
    }

    /// Takes one execution in for as long as the answer lives, or refuses it
    /// with the platform's 429.
    pub(super) fn admit(&self) -> Result<Running, Box<Outcome>> {
        let mut state = lock(&self.0);
        if let Some(at_once) = state.at_once.filter(|at_once| state.running >= *at_once) {
            return Err(Box::new(answers::too_many_at_once(at_once)));
        }
        state.rate.admit(Instant::now()).map_err(|wait| {
            let per_minute = state.rate.limit.unwrap_or_default();
            Box::new(answers::too_many_a_minute(wait, per_minute))
        })?;
        state.running += 1;
        Ok(Running(self.0.clone()))
    }
}

/// One execution under way.
pub(super) struct Running(Arc<Mutex<State>>);

impl Drop for Running {
    fn drop(&mut self) {
        lock(&self.0).running -= 1;
    }
}

/// So many within any minute, or another time; without a limit it counts
/// nothing.
#[derive(Debug, Default)]
pub(super) struct Window {
    limit: Option<u32>,
    length: Duration,
    /// When those of the last minute were let in; never more than the limit.
    admitted: VecDeque<Instant>,
}

impl Window {
    pub(super) fn of(per_minute: u32) -> Self {
        Self::within(per_minute, MINUTE)
    }

    pub(super) fn within(limit: u32, length: Duration) -> Self {
        Self {
            limit: Some(limit),
            length,
            admitted: VecDeque::new(),
        }
    }

    /// Lets one in, or says how long until there is room.
    pub(super) fn admit(&mut self, now: Instant) -> Result<(), Duration> {
        let Some(limit) = self.limit else {
            return Ok(());
        };
        while self
            .admitted
            .front()
            .is_some_and(|first| now - *first >= self.length)
        {
            self.admitted.pop_front();
        }
        if self.admitted.len() < usize::try_from(limit).unwrap_or(usize::MAX) {
            self.admitted.push_back(now);
            return Ok(());
        }
        Err(self
            .admitted
            .front()
            .map_or(self.length, |first| self.length - (now - *first)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_window_slides() {
        let start = Instant::now();
        let mut window = Window::of(2);
        let second = Duration::from_secs(1);
        assert_eq!(window.admit(start), Ok(()));
        assert_eq!(window.admit(start + 20 * second), Ok(()));
        assert_eq!(window.admit(start + 50 * second), Err(10 * second));
        assert_eq!(window.admit(start + MINUTE), Ok(()));
        assert_eq!(window.admit(start + MINUTE), Err(20 * second));
        assert_eq!(Window::of(0).admit(start), Err(MINUTE));
        assert_eq!(Window::default().admit(start), Ok(()));
    }

    #[test]
    fn execution_counts_until_it_ends() {
        let limits = Limits::default();
        limits.set_concurrency(1);
        let running = limits.admit().ok();
        assert!(running.is_some());
        assert_eq!(
            limits
                .admit()
                .err()
                .map(|refusal| refusal.status().as_u16()),
            Some(429)
        );
        drop(running);
        assert!(limits.admit().is_ok());
    }
}
