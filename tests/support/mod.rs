//! Support for several test binaries. Each binary uses a part of it, so unused items are no
//! mistake.
#![allow(dead_code)]

pub mod cluster;
pub mod redis;
pub mod sentinel;

use std::time::{Duration, Instant};

use genesys_once::error::StoreError;
use genesys_once::record::{Namespace, RecordState};
use genesys_once::store::{ListQuery, Page};
use genesys_once::{IdempotencyKey, Store};

/// All pages of a list as one page, up to the query's limit of records.
pub async fn listed(
    store: &impl Store,
    namespace: &Namespace,
    query: ListQuery,
) -> Result<Page, StoreError> {
    let mut all = Page::default();
    let limit = query.limit();
    let mut query = query;
    loop {
        let mut page = store.list(namespace, &query).await?;
        all.records.append(&mut page.records);
        all.unreadable.append(&mut page.unreadable);
        all.examined += page.examined;
        let found = all.records.len() + all.unreadable.len();
        match page.next {
            Some(next) if found < limit => query = query.after(next),
            next => {
                all.next = next;
                return Ok(all);
            }
        }
    }
}

/// The indeterminate records of a namespace, up to `limit`.
pub async fn indeterminate(
    store: &impl Store,
    namespace: &Namespace,
    limit: usize,
) -> Result<Vec<(IdempotencyKey, RecordState)>, StoreError> {
    let query = ListQuery::indeterminate().with_limit(limit);
    Ok(listed(store, namespace, query).await?.records)
}

/// Waits until `condition` holds; for events without a notification.
pub async fn eventually(what: &str, condition: impl AsyncFnMut() -> bool) {
    eventually_within(Duration::from_secs(60), what, condition).await;
}

/// The same with a limit of its own, for slower events.
pub async fn eventually_within(
    limit: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> bool,
) {
    let deadline = Instant::now() + limit;
    while !condition().await {
        assert!(Instant::now() < deadline, "timed out: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
