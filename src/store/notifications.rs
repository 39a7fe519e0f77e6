//! Notifications of changed records to waiters in this process. They carry
//! nothing: a woken waiter reads the record again.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::key::{DigestHasher, RecordName};

/// Which records have waiters; an entry lives as long as its last waiter.
#[derive(Default)]
pub(super) struct Notifications(Mutex<Entries>);

type Entries = HashMap<RecordName, Entry, BuildHasherDefault<DigestHasher>>;

#[derive(Default)]
struct Entry {
    notify: Arc<Notify>,
    /// Counted under the lock. References to `notify` are not: a waiter drops its own after
    /// it has read the count.
    waiters: usize,
}

impl Notifications {
    pub(super) async fn changed(&self, name: &RecordName) {
        let waiting = RegisteredWaiter::new(self, name);
        waiting.notify.notified().await;
    }

    /// Wakes the waiters. A waker is foreign code and may drop another waiter,
    /// so none runs under a lock; the caller must hold none either.
    pub(super) fn notify(&self, name: &RecordName) {
        let notify = self.lock().get(name).map(|entry| entry.notify.clone());
        if let Some(notify) = notify {
            notify.notify_waiters();
        }
    }

    /// How many records have waiters.
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        // Single insertions, removals and counts: no panic leaves one half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One waiter; the last one removes the entry.
struct RegisteredWaiter<'a> {
    notifications: &'a Notifications,
    name: &'a RecordName,
    notify: Arc<Notify>,
}

impl<'a> RegisteredWaiter<'a> {
    fn new(notifications: &'a Notifications, name: &'a RecordName) -> Self {
        let mut entries = notifications.lock();
        let entry = entries.entry(name.clone()).or_default();
        entry.waiters += 1;
        Self {
            notifications,
            name,
            notify: entry.notify.clone(),
        }
    }
}

impl Drop for RegisteredWaiter<'_> {
    fn drop(&mut self) {
        let mut entries = self.notifications.lock();
        if let Some(entry) = entries.get_mut(self.name) {
            entry.waiters -= 1;
            if entry.waiters == 0 {
                entries.remove(self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Wake, Waker};
    use std::time::Duration;

    use futures_util::FutureExt as _;

    use super::*;
    use crate::key::IdempotencyKey;
    use crate::store::BoxFuture;

    fn name() -> RecordName {
        let key = IdempotencyKey::from_bytes([1; 32]);
        RecordName::new("unit".parse().unwrap(), key)
    }

    /// Two waiters leave at the same moment: the first has counted itself out and
    /// has not given up its reference yet when the second does.
    ///
    /// Red when the entry is removed by the count of references.
    #[test]
    fn last_two_waiters_leave_no_entry() {
        let (notifications, name) = (Notifications::default(), name());
        let first = RegisteredWaiter::new(&notifications, &name);
        let second = RegisteredWaiter::new(&notifications, &name);
        let not_yet_given_up = first.notify.clone();
        drop(first);
        drop(second);
        drop(not_yet_given_up);
        assert_eq!(notifications.len(), 0);
    }

    /// Wakes nothing and drops another waiter, as a runtime does whose task is
    /// woken after the runtime's end.
    struct DropsAnother(Mutex<Option<BoxFuture<'static, ()>>>);

    impl Wake for DropsAnother {
        fn wake(self: Arc<Self>) {
            drop(self.0.lock().unwrap().take());
        }
    }

    /// Red (it hangs) when the waiters are woken under the table's lock.
    #[test]
    fn waker_may_drop_another_waiter() {
        let notifications = Arc::new(Notifications::default());
        let changed = || -> BoxFuture<'static, ()> {
            let notifications = notifications.clone();
            Box::pin(async move { notifications.changed(&name()).await })
        };
        let (mut woken, mut dropped) = (changed(), changed());
        assert!(dropped.as_mut().now_or_never().is_none());
        let waker = Waker::from(Arc::new(DropsAnother(Mutex::new(Some(dropped)))));
        let pending = woken.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(pending.is_pending());
        let (done, ended) = std::sync::mpsc::channel();
        let notifying = notifications.clone();
        std::thread::spawn(move || {
            notifying.notify(&name());
            let _ = done.send(());
        });
        if ended.recv_timeout(Duration::from_secs(30)).is_err() {
            // Dropping it would wait for the lock, too.
            std::mem::forget(woken);
            panic!("the waker waits for the lock that its caller holds");
        }
        drop(woken);
        assert_eq!(notifications.len(), 0);
    }
}
