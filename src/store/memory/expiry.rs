//! Removes expired records of a store without writes, so that an idle process holds none.
//! It decides nothing: no command sees an expired record, removed or not.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

use super::MemoryShared;

/// Records that expire one after the other are one round of work.
const PACE: Duration = Duration::from_secs(1);
/// As far ahead as a timer is set.
const FAR: Duration = Duration::from_secs(24 * 3600);

/// A task that runs until no record is left, the store is gone, or its runtime
/// ends.
pub(super) struct Expiry {
    store: Weak<MemoryShared>,
    /// The store is gone, or has a record that expires sooner than all others.
    next_expiry_changed: Arc<Notify>,
}

impl Expiry {
    /// Starts it for a store that has marked itself as having one. Outside of a runtime it
    /// starts nothing.
    pub(super) fn start(store: &Arc<MemoryShared>) {
        let expiry = Self {
            store: Arc::downgrade(store),
            next_expiry_changed: store.next_expiry_changed.clone(),
        };
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(expiry.run());
        }
    }

    async fn run(mut self) {
        while let Some(due) = self.remove_some() {
            let now = Instant::now();
            if due <= now {
                yield_now().await;
                continue;
            }
            tokio::select! {
                biased;
                () = self.next_expiry_changed.notified() => {}
                () = sleep_until(due.clamp(now + PACE, now + FAR)) => {}
            }
        }
        self.store = Weak::new();
    }

    /// Removes up to 4, and returns when the next one expires.
    fn remove_some(&self) -> Option<Instant> {
        let store = self.store.upgrade()?;
        let mut records = store.lock();
        records.reclaim(Instant::now());
        let next = records.expiries.first_key_value();
        let next = next.map(|((expires, _), _)| *expires);
        records.expiring = next.is_some();
        next
    }
}

impl Drop for Expiry {
    /// If its runtime ends, the next write starts another task.
    fn drop(&mut self) {
        if let Some(store) = self.store.upgrade()
            && !std::thread::panicking()
        {
            store.lock().expiring = false;
        }
    }
}
