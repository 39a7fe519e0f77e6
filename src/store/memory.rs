//! Records in this process's memory: the default store, and the reference that
//! the others are compared with. It holds one lock for a transition and never
//! across an `.await`.

use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasherDefault;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::{BoxFuture, Store};
use crate::error::StoreError;
use crate::key::{DigestHasher, IdempotencyKey, Namespace, RecordName};
use crate::record::{self, Answer, Content, Event, Record, RecordState};

/// The store of **this process only**: nothing survives its end, and no other
/// process sees it.
///
/// A clone is the same store, so two engines over clones behave like two
/// processes over one Redis. Its clock is tokio's, which tests may pause.
/// Expired records are removed as others are written.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    inner: Arc<Mutex<Inner>>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A transition is pure and the map is written last, so a panic cannot
        // leave it half done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct Inner {
    records: ByName<Entry>,
    /// When each record expires, soonest first.
    expiries: BTreeSet<(Instant, RecordName)>,
    notices: ByName<Arc<Notify>>,
}

type ByName<T> = HashMap<RecordName, T, BuildHasherDefault<DigestHasher>>;

#[derive(Debug)]
struct Entry {
    record: Record,
    expires: Instant,
}

impl Inner {
    fn current(&self, name: &RecordName, now: Instant) -> Option<(&Record, Duration)> {
        let entry = self.records.get(name)?;
        let left = entry.expires.saturating_duration_since(now);
        (!left.is_zero()).then_some((&entry.record, left))
    }

    fn put(&mut self, name: &RecordName, next: Option<(Record, Duration)>, now: Instant) {
        let next = next.map(|(record, left)| {
            // A lifetime beyond the clock's range is for ever, in practice.
            let century = Duration::from_secs(100 * 365 * 24 * 3600);
            Entry {
                record,
                expires: now + left.min(century),
            }
        });
        if let Some(entry) = &next {
            self.expiries.insert((entry.expires, name.clone()));
        }
        let kept = next.as_ref().map(|entry| entry.expires);
        let before = match next {
            Some(entry) => self.records.insert(name.clone(), entry),
            None => self.records.remove(name),
        };
        if let Some(before) = before
            && Some(before.expires) != kept
        {
            self.expiries.remove(&(before.expires, name.clone()));
        }
        if let Some(notify) = self.notices.get(name) {
            notify.notify_waiters();
        }
    }

    /// Removes a few expired records: a bound on the work of each write that
    /// still outpaces what writes add.
    fn reclaim(&mut self, now: Instant) {
        for _ in 0..4 {
            match self.expiries.first() {
                Some((expires, _)) if *expires <= now => {}
                _ => return,
            }
            if let Some((_, name)) = self.expiries.pop_first() {
                self.records.remove(&name);
            }
        }
    }
}

impl Store for MemoryStore {
    fn apply<'a>(
        &'a self,
        name: &'a RecordName,
        event: Event,
    ) -> BoxFuture<'a, Result<Answer, StoreError>> {
        Box::pin(async move {
            let now = Instant::now();
            let mut inner = self.lock();
            inner.reclaim(now);
            let current = inner.current(name, now);
            let before = current.map(|(record, left)| (record.rev, left));
            let (next, answer) = record::apply(current, &event);
            if before != next.as_ref().map(|(record, left)| (record.rev, *left)) {
                inner.put(name, next, now);
            }
            Ok(answer)
        })
    }

    fn look<'a>(
        &'a self,
        name: &'a RecordName,
    ) -> BoxFuture<'a, Result<Option<RecordState>, StoreError>> {
        Box::pin(async move {
            let inner = self.lock();
            let current = inner.current(name, Instant::now());
            Ok(current.map(|(record, left)| record.state(left)))
        })
    }

    fn changed<'a>(&'a self, name: &'a RecordName) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let waiting = Waiting::new(self, name);
            waiting.notify.notified().await;
        })
    }

    fn unresolved<'a>(
        &'a self,
        namespace: &'a Namespace,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<(IdempotencyKey, RecordState)>, StoreError>> {
        Box::pin(async move {
            let now = Instant::now();
            let inner = self.lock();
            let found = inner
                .records
                .iter()
                .filter(|(name, _)| name.namespace == *namespace)
                .filter_map(|(name, _)| {
                    let (record, left) = inner.current(name, now)?;
                    let state = matches!(
                        record.content,
                        Content::Indeterminate { .. } | Content::Locked(_)
                    )
                    .then(|| record.state(left));
                    let state = state.filter(RecordState::is_unresolved)?;
                    Some((name.key, state))
                });
            Ok(found.take(limit).collect())
        })
    }
}

/// One who waits for a notice; the last one out removes the channel.
struct Waiting<'a> {
    store: &'a MemoryStore,
    name: &'a RecordName,
    notify: Arc<Notify>,
}

impl<'a> Waiting<'a> {
    fn new(store: &'a MemoryStore, name: &'a RecordName) -> Self {
        let notify = store
            .lock()
            .notices
            .entry(name.clone())
            .or_default()
            .clone();
        Self {
            store,
            name,
            notify,
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut inner = self.store.lock();
        // The map's and this one are the last two.
        if Arc::strong_count(&self.notify) <= 2 {
            inner.notices.remove(self.name);
        }
    }
}
