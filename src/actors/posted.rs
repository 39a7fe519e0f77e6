//! A shared value whose readers can wait for a change. Waiters wake in the order in which they
//! came, so that a run under `EngineBuilder::deterministic` repeats; tokio's `watch` wakes
//! them in a random order. It never changes the value itself.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// A value and the waiters for its change.
#[derive(Debug, Default)]
pub(crate) struct Posted<T> {
    value: Mutex<T>,
    changed: Notify,
}

impl<T> Posted<T> {
    /// The value as it is now.
    pub(crate) fn read(&self) -> MutexGuard<'_, T> {
        // Changed by plain assignments, so a panic leaves no half-made change.
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the value and wakes all waiters. `change` runs under its lock.
    pub(crate) fn post<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let result = change(&mut self.read());
        self.changed.notify_waiters();
        result
    }

    /// Waits until `look` finds something in the value.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn wait_for<R>(&self, mut look: impl FnMut(&T) -> Option<R>) -> R {
        loop {
            // Subscribed before the look, so that no change is missed between the two.
            let changed = self.changed.notified();
            let found = look(&self.read());
            match found {
                Some(found) => return found,
                None => changed.await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// Red with `tokio::sync::watch` instead.
    #[tokio::test]
    async fn waiters_wake_in_order_of_arrival() {
        let posted = Arc::new(Posted::<bool>::default());
        let woken = Arc::new(Mutex::new(Vec::new()));
        let mut waiting = tokio::task::JoinSet::new();
        for number in 0..100 {
            let (posted, woken) = (posted.clone(), woken.clone());
            waiting.spawn(async move {
                posted.wait_for(|set| set.then_some(())).await;
                woken.lock().unwrap().push(number);
            });
        }
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        posted.post(|set| *set = true);
        while waiting.join_next().await.is_some() {}
        assert!(woken.lock().unwrap().is_sorted());
    }
}
