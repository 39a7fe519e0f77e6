//! The state that a store's clones, readers and writer share: the open file, and reads of
//! its last commit. It writes nothing.

use std::path::PathBuf;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use redb::Database;

use super::super::notifications::Notifications;
use super::clock::Timeline;
use super::meta;
use super::open::Opened;
use super::tables::{Snapshot, row_name, unreadable};
use crate::error::StoreError;
use crate::key::{Namespace, RecordName};
use crate::record::{self, Answer, Event, Record, RecordState};
use crate::store::{ListQuery, Page, UnreadableRecord};

pub(super) struct FileCore {
    pub(super) path: PathBuf,
    /// The lock is held to begin a transaction, never during one.
    slot: RwLock<FileSlot>,
    pub(super) timeline: Timeline,
    pub(super) notifications: Notifications,
}

/// The open file.
pub(super) struct FileSlot {
    /// `None` once closed, and while a file that failed cannot be opened again.
    pub(super) opened: Option<Opened>,
    /// Why reads and writes fail; `None` where they do not. An open file can still be
    /// copied, also where its name is gone.
    pub(super) outage: Option<String>,
}

impl FileCore {
    pub(super) fn new(path: PathBuf, opened: Opened, timeline: Timeline) -> Self {
        Self {
            path,
            slot: RwLock::new(FileSlot {
                opened: Some(opened),
                outage: None,
            }),
            timeline,
            notifications: Notifications::default(),
        }
    }

    pub(super) fn slot(&self) -> RwLockReadGuard<'_, FileSlot> {
        self.slot.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn slot_mut(&self) -> RwLockWriteGuard<'_, FileSlot> {
        self.slot.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let slot = self.slot();
        if let Some(outage) = &slot.outage {
            return Err(StoreError::unavailable(outage.clone()));
        }
        slot.with(Snapshot::take).map_err(StoreError::unavailable)
    }

    fn current(&self, name: &RecordName) -> Result<Option<(Record, Duration)>, StoreError> {
        let row = self
            .snapshot()?
            .row(&row_name(name))
            .map_err(StoreError::unavailable)?;
        row.map_or(Ok(None), |row| row.read(name, self.timeline.now()))
    }

    pub(super) fn look(&self, name: &RecordName) -> Result<Option<RecordState>, StoreError> {
        let current = self.current(name)?;
        Ok(current.map(|(record, left)| record.state(left)))
    }

    /// Why a record that has not expired cannot be read; `None` where it can.
    pub(super) fn look_unreadable(
        &self,
        name: &RecordName,
    ) -> Result<Option<UnreadableRecord>, StoreError> {
        let row = self.snapshot()?.row(&row_name(name));
        let Some(row) = row.map_err(StoreError::unavailable)? else {
            return Ok(None);
        };
        let error = row.read(name, self.timeline.now()).err();
        Ok(error.map(|error| unreadable(name, &row.bytes, &error)))
    }

    /// The least version of a namespace's writers, as of the last commit.
    pub(super) fn least_writer(&self, namespace: &Namespace) -> Result<u32, StoreError> {
        let slot = self.slot();
        let least = slot.with(|db| meta::least_writer(db, namespace));
        least.map_err(StoreError::unavailable)
    }

    /// The answer to an event that changes nothing, from the last commit; `None` for an
    /// event that writes. So an acquire that finds an outcome does not wait for a sync.
    pub(super) fn answer_unchanged(
        &self,
        name: &RecordName,
        event: &Event,
    ) -> Result<Option<Answer>, StoreError> {
        let Some((record, left)) = self.current(name)? else {
            return Ok(None);
        };
        let (next, answer) = record::apply(Some((&record, left)), event);
        let unchanged = next.is_some_and(|next| next.0.rev == record.rev && next.1 == left);
        Ok(unchanged.then_some(answer))
    }

    pub(super) fn list(
        &self,
        namespace: &Namespace,
        query: &ListQuery,
    ) -> Result<Page, StoreError> {
        let after = query.after_key()?;
        self.snapshot()?
            .page(namespace, after, query, self.timeline.now())
            .map_err(StoreError::unavailable)
    }
}

impl FileSlot {
    pub(super) fn with<T>(
        &self,
        take: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, redb::Error> {
        match &self.opened {
            Some(opened) => take(&opened.db),
            None => Err(redb::Error::DatabaseClosed),
        }
    }
}
