//! Lists of a namespace's records, page by page: the query and the page. It knows no store.

use std::fmt;
use std::sync::Arc;

use super::UnreadableRecord;
use crate::error::{RefusalKind, StoreError};
use crate::key::{IdempotencyKey, RecordName};
use crate::record::RecordState;

/// How many records a page has at most, where the query does not say.
const DEFAULT_LIMIT: usize = 1000;

/// How many bytes of encrypted outcomes a page holds before it ends: only a complete
/// outcome can be decrypted.
const MAX_SEALED_BYTES: usize = 8 << 20;

/// Which records a list has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ListFilter {
    /// Those that are [indeterminate](RecordState::is_indeterminate).
    Indeterminate,
    /// All of them, whatever their state.
    All,
    /// Only records that cannot be read: of a newer version, with a damaged first line, or
    /// possibly indeterminate.
    Unreadable,
}

/// A query for a list: [`Engine::list`](crate::Engine::list) and
/// [`Store::list`](crate::Store::list) return one [`Page`] of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListQuery {
    filter: ListFilter,
    limit: usize,
    after: Option<Cursor>,
}

impl ListQuery {
    /// The indeterminate records of a namespace.
    pub fn indeterminate() -> Self {
        Self::of(ListFilter::Indeterminate)
    }

    /// All records of a namespace.
    pub fn all() -> Self {
        Self::of(ListFilter::All)
    }

    /// The records of a namespace that cannot be read.
    pub fn unreadable() -> Self {
        Self::of(ListFilter::Unreadable)
    }

    fn of(filter: ListFilter) -> Self {
        let (limit, after) = (DEFAULT_LIMIT, None);
        Self {
            filter,
            limit,
            after,
        }
    }

    /// At most so many records in a page, at least 1; 1,000 by default.
    #[must_use]
    pub fn with_limit(mut self, limit: usize) -> Self {
        self.limit = limit.max(1);
        self
    }

    /// Continues the list where a page of it has ended.
    #[must_use]
    pub fn after(mut self, cursor: Cursor) -> Self {
        self.after = Some(cursor);
        self
    }

    /// Which records are asked for.
    pub fn filter(&self) -> ListFilter {
        self.filter
    }

    /// How many records a page has at most.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Where the last page ended; `None` for the first one.
    pub fn cursor(&self) -> Option<&Cursor> {
        self.after.as_ref()
    }

    /// For stores that walk in the order of keys: the key that the list continues
    /// after, where the cursor was made by [`Cursor::of_key`].
    ///
    /// # Errors
    ///
    /// A refusal, where the cursor is of another store.
    pub fn after_key(&self) -> Result<Option<IdempotencyKey>, StoreError> {
        let key = self.after.as_ref().map(|cursor| cursor.as_str().parse());
        key.transpose().map_err(|_| Cursor::foreign())
    }
}

/// Where a page has ended: opaque text of the store's own.
///
/// It is valid for the store that made it, in the process that made it, while the store's
/// connections and its servers' keys stay. Otherwise the next page is an error,
/// [`RefusalKind::NotNow`](crate::error::RefusalKind): start the list again, without a cursor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cursor(Arc<str>);

impl Cursor {
    /// For stores, and for callers that kept the text of one.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// For stores that walk in the order of keys: the last key that was looked at.
    pub fn of_key(key: IdempotencyKey) -> Self {
        Self::new(key.to_string())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// For stores: the error for a cursor that the store did not make.
    pub(crate) fn foreign() -> StoreError {
        let reason = "unknown cursor: start the list again, without a cursor";
        StoreError::refused_as(RefusalKind::NotNow, reason)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One page of a list.
///
/// The work for a page is bounded, so an empty page need not be the last one: only `next`
/// says that. A list is complete or an error: it contains every record that was in the
/// store from its first page to its last. A record that is written meanwhile might be in
/// it, and a record might be in two pages.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Page {
    /// The records, in no order. A list has no bodies: the `outcome` of a
    /// [`Cached`](RecordState::Cached) record has an empty one, and
    /// [`Engine::inspect`](crate::Engine::inspect) returns the body.
    pub records: Vec<(IdempotencyKey, RecordState)>,
    /// The records that cannot be read. They hide no other record.
    pub unreadable: Vec<UnreadableRecord>,
    /// How many records the store examined for this page: the progress of a long walk.
    pub examined: usize,
    /// Where the next page begins; `None` for the last page.
    pub next: Option<Cursor>,
    /// Bytes of encrypted outcomes among the records.
    sealed_bytes: usize,
}

impl Page {
    /// For stores: adds a record where the query asks for it.
    pub fn add(&mut self, query: &ListQuery, key: IdempotencyKey, state: RecordState) {
        let is_wanted = match query.filter {
            ListFilter::Indeterminate => state.is_indeterminate(),
            ListFilter::All => true,
            ListFilter::Unreadable => false,
        };
        if is_wanted {
            let (state, sealed_bytes) = state.for_list();
            self.sealed_bytes += sealed_bytes;
            self.records.push((key, state));
        }
    }

    /// For stores: adds a record that cannot be read.
    pub fn add_unreadable(&mut self, record: UnreadableRecord) {
        self.unreadable.push(record);
    }

    /// For stores: adds what was read of a record; nothing where there is none.
    ///
    /// # Errors
    ///
    /// Those of reading, unless they say that the record cannot be read.
    pub fn add_read(
        &mut self,
        query: &ListQuery,
        name: &RecordName,
        read: Result<Option<RecordState>, StoreError>,
    ) -> Result<(), StoreError> {
        match read {
            Ok(Some(state)) => self.add(query, name.key, state),
            Ok(None) => {}
            Err(error) if error.is_unreadable() => {
                self.add_unreadable(UnreadableRecord::of(name.clone(), &error));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// For stores: whether the page is full.
    pub fn is_full(&self, query: &ListQuery) -> bool {
        self.records.len() + self.unreadable.len() >= query.limit
            || self.sealed_bytes >= MAX_SEALED_BYTES
    }

    /// The same page, each record as `read` has it.
    #[cfg_attr(not(feature = "encrypted"), allow(dead_code))]
    pub(crate) fn map(
        mut self,
        query: &ListQuery,
        name: impl Fn(IdempotencyKey) -> RecordName,
        read: impl Fn(&RecordName, RecordState) -> Result<RecordState, StoreError>,
    ) -> Result<Self, StoreError> {
        self.sealed_bytes = 0;
        for (key, state) in std::mem::take(&mut self.records) {
            let name = name(key);
            let read = read(&name, state).map(Some);
            self.add_read(query, &name, read)?;
        }
        Ok(self)
    }
}
