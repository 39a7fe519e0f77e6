//! Notices of changed records to those who wait in this process. They carry
//! nothing: whoever is woken looks for himself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::key::RecordName;

/// Who waits for which record; no entry outlives its last waiter.
#[derive(Debug, Default)]
pub(super) struct Notices(Mutex<HashMap<RecordName, Arc<Notify>>>);

impl Notices {
    pub(super) async fn changed(&self, name: &RecordName) {
        let waiting = Waiting::new(self, name);
        waiting.notify.notified().await;
    }

    pub(super) fn notify(&self, name: &RecordName) {
        if let Some(notify) = self.lock().get(name) {
            notify.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RecordName, Arc<Notify>>> {
        // Single insertions and removals: no panic can leave one half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One who waits; the last one out removes the entry.
struct Waiting<'a> {
    notices: &'a Notices,
    name: &'a RecordName,
    notify: Arc<Notify>,
}

impl<'a> Waiting<'a> {
    fn new(notices: &'a Notices, name: &'a RecordName) -> Self {
        let notify = notices.lock().entry(name.clone()).or_default().clone();
        Self {
            notices,
            name,
            notify,
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut entries = self.notices.lock();
        // The map's and this one are the last two.
        if Arc::strong_count(&self.notify) <= 2 {
            entries.remove(self.name);
        }
    }
}
