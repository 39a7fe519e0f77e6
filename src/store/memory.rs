//! Records in this process's memory: the default store, and the reference for the other
//! stores' tests. It holds one lock for a transition or a piece of a list, never across an
//! `.await`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::hash::BuildHasherDefault;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::notifications::Notifications;
use super::{BoxFuture, Cursor, ListQuery, Page, Store, UnreadableRecord};
use crate::error::StoreError;
use crate::key::{DigestHasher, IdempotencyKey, Namespace, RecordName};
use crate::record::{self, Answer, Content, Event, Record, RecordState, Refusal};

mod expiry;

use self::expiry::Expiry;

/// The store of **this process only**: its records end with the process, and no other
/// process sees them.
///
/// A clone is the same store, so two engines over clones behave like two
/// processes over one Redis. Its clock is tokio's, which tests may pause.
/// Expired records leave memory within a second or so, by a task in the runtime of
/// a writer.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    shared: Arc<MemoryShared>,
}

/// Names that a list examines under one lock: the longest that a transition waits.
const PIECE: usize = 1000;

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Records> {
        self.shared.lock()
    }
}

#[derive(Default)]
struct MemoryShared {
    records: Mutex<Records>,
    notifications: Notifications,
    /// Wakes the task that removes expired records.
    next_expiry_changed: Arc<Notify>,
}

impl MemoryShared {
    fn lock(&self) -> MutexGuard<'_, Records> {
        // A transition is pure and the map is written last, so a panic cannot
        // leave it half done.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for MemoryShared {
    fn drop(&mut self) {
        self.next_expiry_changed.notify_one();
    }
}

/// Shows counts: to print all records would block every command.
impl fmt::Debug for MemoryShared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (records, notifications) = (self.lock().by_name.len(), self.notifications.len());
        f.debug_struct("MemoryShared")
            .field("records", &records)
            .field("notifications", &notifications)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Records {
    by_name: HashMap<RecordName, RecordEntry, BuildHasherDefault<DigestHasher>>,
    /// When each record expires, soonest first.
    expiries: BTreeMap<ExpiryOrder, RecordName>,
    /// The last order number.
    number: u64,
    /// The keys of each namespace that has any, for lists.
    keys: HashMap<Namespace, BTreeSet<IdempotencyKey>>,
    /// The least version of each namespace's writers.
    least_writers: HashMap<Namespace, u32>,
    /// A task removes those that expire.
    expiring: bool,
}

#[derive(Debug)]
struct RecordEntry {
    record: Record,
    order: ExpiryOrder,
}

/// When a record expires, and a number that no other one has: names would be compared
/// at length.
type ExpiryOrder = (Instant, u64);

impl Records {
    fn current(&self, name: &RecordName, now: Instant) -> Option<(&Record, Duration)> {
        let entry = self.by_name.get(name)?;
        let left = entry.order.0.saturating_duration_since(now);
        (!left.is_zero()).then_some((&entry.record, left))
    }

    fn put(&mut self, name: &RecordName, next: Option<(Record, Duration)>, now: Instant) {
        let next = next.map(|(mut record, left)| {
            record.content = without_unkept(record.content);
            // A longer life would leave the clock's range.
            let century = Duration::from_secs(100 * 365 * 24 * 3600);
            self.number += 1;
            let order = (now + left.min(century), self.number);
            RecordEntry { record, order }
        });
        if let Some(entry) = &next {
            self.expiries.insert(entry.order, name.clone());
        }
        let is_kept = next.is_some();
        let before = match next {
            Some(entry) => self.by_name.insert(name.clone(), entry),
            None => self.by_name.remove(name),
        };
        match (&before, is_kept) {
            (None, true) => self.add_key(name),
            (Some(_), false) => self.remove_key(name),
            _ => {}
        }
        if let Some(before) = before {
            self.expiries.remove(&before.order);
        }
    }

    /// Removes up to 4 expired records, so that removal outpaces writes and the work of a
    /// write is bounded.
    fn reclaim(&mut self, now: Instant) {
        for _ in 0..4 {
            match self.expiries.first_key_value() {
                Some(((expires, _), _)) if *expires <= now => {}
                _ => return,
            }
            if let Some((_, name)) = self.expiries.pop_first() {
                self.by_name.remove(&name);
                self.remove_key(&name);
            }
        }
    }

    fn add_key(&mut self, name: &RecordName) {
        if let Some(keys) = self.keys.get_mut(&name.namespace) {
            keys.insert(name.key);
        } else {
            let keys = BTreeSet::from([name.key]);
            self.keys.insert(name.namespace.clone(), keys);
        }
    }

    fn remove_key(&mut self, name: &RecordName) {
        if let Some(keys) = self.keys.get_mut(&name.namespace) {
            keys.remove(&name.key);
            if keys.is_empty() {
                self.keys.remove(&name.namespace);
            }
        }
    }

    /// A page of a namespace's records after a key, or its first.
    fn page(
        &self,
        namespace: &Namespace,
        after: Option<IdempotencyKey>,
        query: &ListQuery,
    ) -> Page {
        let mut page = Page::default();
        let Some(keys) = self.keys.get(namespace) else {
            return page;
        };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let now = Instant::now();
        let mut keys = keys.range((from, Bound::Unbounded));
        while let Some(key) = keys.next() {
            page.examined += 1;
            let name = RecordName::new(namespace.clone(), *key);
            if let Some((record, left)) = self.current(&name, now) {
                page.add(query, *key, record.state(left));
            }
            if page.examined == PIECE || page.is_full(query) {
                page.next = keys.next().map(|_| Cursor::of_key(*key));
                break;
            }
        }
        page
    }
}

/// The content as other stores hold it: an outcome with the headers of a replay.
fn without_unkept(content: Content) -> Content {
    match content {
        Content::Cached { stored, origin } => Content::Cached {
            stored: stored.replayable(),
            origin,
        },
        Content::Released {
            refusal: Some(Refusal::Refused(stored)),
        } => Content::Released {
            refusal: Some(Refusal::Refused(stored.replayable())),
        },
        content => content,
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
            let mut records = self.lock();
            records.reclaim(now);
            let current = records.current(name, now);
            let before = current.map(|(record, left)| (record.rev, left));
            let (next, answer) = record::apply(current, &event);
            if before != next.as_ref().map(|(record, left)| (record.rev, *left)) {
                records.put(name, next, now);
                let first = records.expiries.first_key_value();
                if first.is_some_and(|(_, first)| first == name) {
                    self.shared.next_expiry_changed.notify_one();
                }
                let expiring = std::mem::replace(&mut records.expiring, true);
                drop(records);
                if !expiring {
                    Expiry::start(&self.shared);
                }
                self.shared.notifications.notify(name);
            }
            Ok(answer)
        })
    }

    fn look<'a>(
        &'a self,
        name: &'a RecordName,
    ) -> BoxFuture<'a, Result<Option<RecordState>, StoreError>> {
        Box::pin(async move {
            let records = self.lock();
            let current = records.current(name, Instant::now());
            Ok(current.map(|(record, left)| record.state(left)))
        })
    }

    fn changed<'a>(&'a self, name: &'a RecordName) -> BoxFuture<'a, ()> {
        Box::pin(self.shared.notifications.changed(name))
    }

    fn least_writer<'a>(
        &'a self,
        namespace: &'a Namespace,
        at_least: u32,
    ) -> BoxFuture<'a, Result<u32, StoreError>> {
        Box::pin(async move {
            let mut records = self.lock();
            let least = records.least_writers.entry(namespace.clone()).or_default();
            *least = at_least.max(*least);
            Ok(*least)
        })
    }

    fn look_unreadable<'a>(
        &'a self,
        _: &'a RecordName,
    ) -> BoxFuture<'a, Result<Option<UnreadableRecord>, StoreError>> {
        // Its records are not bytes: all can be read.
        Box::pin(async { Ok(None) })
    }

    fn discard<'a>(&'a self, _: &'a UnreadableRecord) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(async { Ok(false) })
    }

    fn list<'a>(
        &'a self,
        namespace: &'a Namespace,
        query: &'a ListQuery,
    ) -> BoxFuture<'a, Result<Page, StoreError>> {
        Box::pin(async move {
            let after = query.after_key()?;
            Ok(self.lock().page(namespace, after, query))
        })
    }
}

#[cfg(test)]
mod tests;
