//! A walk through the indeterminate records of a namespace, page by page. It starts
//! again where the store's servers change under it, and recovers the records of
//! holders that are gone.

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

/// How often a walk starts before its caller is told of the store's error.
const STARTS: u32 = 4;

/// What a walk has found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub keys: Vec<(IdempotencyKey, RecordState)>,
    pub unreadable: Vec<UnreadableRecord>,
    /// Where it has stopped, unless it was through.
    pub next: Option<Cursor>,
}

/// How far a walk goes, and how fast.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Keys that it finds at most, or a page more.
    pub keys: usize,
    /// No page is asked for after that.
    pub until: Instant,
    /// The pause between two pages.
    pub pause: Duration,
}

/// Walks until the bounds are reached; what is left then begins at `next`.
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
    /// After the first page: the pages that are left would not be of one walk.
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
                let recovered = recover(shared, key, state, &mut found);
                recovered.await.map_err(Stopped::AtOnce)?;
            }
        }
        let mut new = page.unreadable;
        new.retain(|record| known.insert(record.key()));
        found.unreadable.append(&mut new);
        found.next = page.next;
        let is_over = found.next.is_none() || found.keys.len() >= bounds.keys;
        if is_over || Instant::now() >= bounds.until {
            return Ok(found);
        }
        sleep(bounds.pause).await;
    }
}

/// What the keys of an earlier walk are now.
///
/// # Errors
///
/// [`Error::StoreUnavailable`].
pub(crate) async fn again(shared: &Shared, keys: &[IdempotencyKey]) -> Result<Found, Error> {
    /// Keys that are looked at at a time.
    const AT_ONCE: usize = 16;
    let mut found = Found::default();
    for some in keys.chunks(AT_ONCE) {
        let looks = some.iter().map(|key| async move {
            let name = shared.name(*key);
            shared.store.look(&name).await
        });
        for (key, state) in some.iter().zip(join_all(looks).await) {
            match state {
                Ok(Some(state)) => recover(shared, *key, state, &mut found).await?,
                Ok(None) => {}
                Err(source) if source.is_unreadable() => {
                    let record = UnreadableRecord::of(shared.name(*key), &source);
                    found.unreadable.push(record);
                }
                Err(source) => return Err(Error::StoreUnavailable { source }),
            }
        }
    }
    Ok(found)
}

/// One page, for which the store has a time of its own.
///
/// # Errors
///
/// The store's; [`StoreError::unavailable`] where it does not answer in time.
pub(crate) async fn page(shared: &Shared, query: &ListQuery) -> Result<Page, StoreError> {
    let page = shared.store.list(&shared.namespace, query);
    let late = |_| StoreError::unavailable("no page of the list within 30 s");
    timeout(PAGE_WITHIN, page).await.map_err(late)?
}

async fn recover(
    shared: &Shared,
    key: IdempotencyKey,
    state: RecordState,
    found: &mut Found,
) -> Result<(), Error> {
    let name = shared.name(key);
    match notice_loss(shared, &name, state).await {
        Ok(Some(state @ RecordState::Indeterminate { .. })) => found.keys.push((key, state)),
        Ok(_) => {}
        Err(Error::RecordUnreadable { source, .. }) => {
            found.unreadable.push(UnreadableRecord::of(name, &source));
        }
        Err(error) => return Err(error),
    }
    Ok(())
}
