//! A walk through the indeterminate records of a namespace, page by page. It starts again if
//! the store's servers change meanwhile, and recovers the records of lost holders. It never
//! resolves a key.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout};

use super::resolution::notice_loss;
use super::shared::Shared;
use crate::error::{Error, StoreError};
use crate::key::IdempotencyKey;
use crate::record::RecordState;
use crate::store::{Cursor, ListQuery, Page, Store as _, UnreadableRecord};

/// How long the store may take for one page.
const PAGE_WITHIN: Duration = Duration::from_secs(30);

/// How often a walk starts before its caller gets the store's error.
const STARTS: u32 = 4;

/// The result of a walk.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub keys: Vec<(IdempotencyKey, RecordState)>,
    /// Unreadable records, at most as many as keys.
    pub unreadable: Vec<UnreadableRecord>,
    /// The number of all unreadable records.
    pub unreadable_count: usize,
    /// Where the walk stopped; `None` at the end.
    pub next: Option<Cursor>,
    /// The first error while recovering records of lost holders.
    pub failed: Option<Error>,
}

impl Found {
    fn cannot_read(&mut self, record: UnreadableRecord, bound: usize) {
        self.unreadable_count += 1;
        if self.unreadable.len() < bound {
            self.unreadable.push(record);
        }
    }
}

/// How far a walk goes, and how fast.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// The number of keys after which it stops; the last page can exceed it.
    pub keys: usize,
    /// No page is read after this time.
    pub until: Instant,
    /// The pause between two pages.
    pub pause: Duration,
}

/// Walks until the bounds are reached; the rest begins at `next`.
///
/// # Errors
///
/// [`Error::StoreUnavailable`].
pub(crate) async fn walk(shared: &Shared, bounds: Bounds) -> Result<Found, Error> {
    let mut starts = 1;
    loop {
        match from_the_start(shared, bounds).await {
            Ok(found) => return Ok(found),
            Err(Stopped::Midway(_)) if starts < STARTS => starts += 1,
            Err(Stopped::Midway(error) | Stopped::AtOnce(error)) => return Err(error),
        }
    }
}

enum Stopped {
    /// After the first page: the other pages would belong to another walk.
    Midway(Error),
    /// Another start would find the same.
    AtOnce(Error),
}

async fn from_the_start(shared: &Shared, bounds: Bounds) -> Result<Found, Stopped> {
    let mut found = Found::default();
    let mut known = HashSet::new();
    loop {
        let left = bounds.keys.saturating_sub(found.keys.len());
        let mut query = ListQuery::indeterminate().with_limit(left);
        if let Some(next) = found.next.take() {
            query = query.after(next);
        }
        let unavailable = |source| Error::StoreUnavailable { source };
        let page = match page(shared, &query).await {
            Ok(page) => page,
            Err(source) if query.cursor().is_some() => {
                return Err(Stopped::Midway(unavailable(source)));
            }
            Err(source) => return Err(Stopped::AtOnce(unavailable(source))),
        };
        for (key, state) in page.records {
            if known.insert(key) {
                recover(shared, key, state, &mut found).await;
            }
        }
        for record in page.unreadable {
            if known.insert(record.key()) {
                found.cannot_read(record, bounds.keys);
            }
        }
        found.next = page.next;
        let is_over = found.next.is_none() || found.keys.len() >= bounds.keys;
        if is_over || Instant::now() >= bounds.until {
            return Ok(found);
        }
        sleep(bounds.pause).await;
    }
}

/// Looks again at the keys of an earlier walk.
///
/// # Errors
///
/// [`Error::StoreUnavailable`].
pub(crate) async fn again(shared: &Shared, keys: &[IdempotencyKey]) -> Result<Found, Error> {
    /// How many keys are looked at in parallel.
    const AT_ONCE: usize = 16;
    let mut found = Found::default();
    for some in keys.chunks(AT_ONCE) {
        let looks = some.iter().map(|key| async move {
            let name = shared.name(*key);
            shared.store.look(&name).await
        });
        for (key, state) in some.iter().zip(join_all(looks).await) {
            match state {
                Ok(Some(state)) => recover(shared, *key, state, &mut found).await,
                Ok(None) => {}
                Err(source) if source.is_unreadable() => {
                    let record = unreadable(shared, *key, &source).await;
                    found.cannot_read(record, keys.len());
                }
                Err(source) => return Err(Error::StoreUnavailable { source }),
            }
        }
    }
    Ok(found)
}

/// One page, with a time limit of its own.
///
/// # Errors
///
/// The store's; [`StoreError::unavailable`] if it does not answer in time.
pub(crate) async fn page(shared: &Shared, query: &ListQuery) -> Result<Page, StoreError> {
    let page = shared.store.list(&shared.namespace, query);
    let late = |_| StoreError::unavailable("no page of the list within 30 s");
    timeout(PAGE_WITHIN, page).await.map_err(late)?
}

/// Recovers one record. An error, for example of a store that accepts no writes, does not end
/// the walk.
async fn recover(shared: &Shared, key: IdempotencyKey, state: RecordState, found: &mut Found) {
    let name = shared.name(key);
    match notice_loss(shared, &name, state).await {
        Ok(Some(state @ RecordState::Indeterminate { .. })) => found.keys.push((key, state)),
        Ok(_) => {}
        Err(Error::RecordUnreadable { source, .. }) => {
            let record = unreadable(shared, key, &source).await;
            found.cannot_read(record, usize::MAX);
        }
        Err(error) => {
            found.failed.get_or_insert(error);
        }
    }
}

/// The unreadable record as the store identifies it, if the store can.
async fn unreadable(shared: &Shared, key: IdempotencyKey, source: &StoreError) -> UnreadableRecord {
    let name = shared.name(key);
    let record = shared.store.look_unreadable(&name).await.ok().flatten();
    record.unwrap_or_else(|| UnreadableRecord::of(name, source))
}
