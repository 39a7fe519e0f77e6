//! How long the platform asked to be left alone: by everybody after its own
//! 429, by one action after a relayed one. Being held costs no attempt.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::request::ActionId;

/// How many actions are held back at a time. Beyond it the hold that ends first
/// is dropped: that action is refused once more.
const MAX_ACTIONS: usize = 1_000;

/// The holds of one upstream.
#[derive(Debug, Default)]
pub(crate) struct Hold {
    until: Mutex<Until>,
}

#[derive(Debug, Default)]
struct Until {
    everybody: Option<Instant>,
    actions: HashMap<ActionId, Instant>,
}

impl Hold {
    /// Holds every execution back; a longer hold stays.
    pub(crate) fn everybody(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let mut holds = self.lock();
        holds.everybody = holds.everybody.max(Some(until));
    }

    /// Holds the executions of one action back; a longer hold stays.
    pub(crate) fn action(&self, action: &ActionId, wait: Duration) {
        let now = Instant::now();
        let actions = &mut self.lock().actions;
        if !actions.contains_key(action) && actions.len() >= MAX_ACTIONS {
            actions.retain(|_, until| *until > now);
        }
        let until = actions.entry(action.clone()).or_insert(now);
        *until = (*until).max(now + wait);
        if actions.len() > MAX_ACTIONS {
            let first = actions
                .iter()
                .min_by_key(|(action, until)| (*until, *action));
            let first = first.map(|(action, _)| action.clone());
            first.and_then(|first| actions.remove(&first));
        }
    }

    /// How long everybody is held back from now.
    pub(crate) fn left(&self) -> Duration {
        let everybody = self.lock().everybody;
        everybody.map_or(Duration::ZERO, |until| {
            until.saturating_duration_since(Instant::now())
        })
    }

    /// How long this action is held back from now.
    pub(crate) fn left_for(&self, action: &ActionId) -> Duration {
        self.until(action).map_or(Duration::ZERO, |until| {
            until.saturating_duration_since(Instant::now())
        })
    }

    pub(crate) fn is_free(&self, action: &ActionId) -> bool {
        self.until(action).is_none()
    }

    /// Completes when nothing holds this action back, and with what is left of a hold
    /// that is too long to be waited out.
    pub(crate) async fn free(
        &self,
        action: &ActionId,
        is_too_long: impl Fn(Duration) -> bool,
    ) -> Result<(), Duration> {
        // A hold may grow while it is waited out.
        loop {
            let left = self.left_for(action);
            if left.is_zero() {
                return Ok(());
            }
            if is_too_long(left) {
                return Err(left);
            }
            sleep(left).await;
        }
    }

    fn until(&self, action: &ActionId) -> Option<Instant> {
        let holds = self.lock();
        holds
            .everybody
            .max(holds.actions.get(action).copied())
            .filter(|until| *until > Instant::now())
    }

    fn lock(&self) -> MutexGuard<'_, Until> {
        // No critical section can leave the map half changed.
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn the_longer_hold_stays() {
        let hold = Hold::default();
        let action: ActionId = "custom_-_1".parse().unwrap();
        assert!(hold.is_free(&action));
        hold.everybody(10 * SECOND);
        hold.everybody(SECOND);
        assert_eq!(hold.left(), 10 * SECOND);
        let start = Instant::now();
        hold.free(&action, |_| false).await.unwrap();
        assert_eq!(start.elapsed(), 10 * SECOND);
        assert!(hold.is_free(&action));
    }

    #[tokio::test(start_paused = true)]
    async fn a_relayed_limit_holds_its_action_only() {
        let hold = Hold::default();
        let held: ActionId = "custom_-_1".parse().unwrap();
        let other: ActionId = "custom_-_2".parse().unwrap();
        hold.action(&held, 5 * SECOND);
        assert!(!hold.is_free(&held));
        assert!(hold.is_free(&other));
        assert_eq!(hold.left(), Duration::ZERO);
        hold.free(&held, |_| false).await.unwrap();
    }

    /// Red without the bound: the map then has an entry for each action that was
    /// ever refused while the others are held.
    #[tokio::test(start_paused = true)]
    async fn the_holds_of_actions_are_bounded() {
        let hold = Hold::default();
        let action = |n: usize| n.to_string().parse::<ActionId>().unwrap();
        let last = 5 * MAX_ACTIONS;
        for n in 0..=last {
            hold.action(&action(n), SECOND * (n as u32 + 1));
            assert!(hold.lock().actions.len() <= MAX_ACTIONS);
        }
        // The longest stay.
        assert!(!hold.is_free(&action(last)));
        assert!(!hold.is_free(&action(last + 1 - MAX_ACTIONS)));
        assert!(hold.is_free(&action(last - MAX_ACTIONS)));
        // A full map forgets what is over.
        tokio::time::advance(SECOND * (last as u32 + 1)).await;
        hold.action(&action(0), SECOND);
        assert_eq!(hold.lock().actions.len(), 1);
    }
}
