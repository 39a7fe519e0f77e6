//! A walk through the records of a namespace, page by page, for lists. It only
//! reads.

use std::collections::HashSet;

use genesys_once::error::RefusalKind;
use genesys_once::record::RecordState;
use genesys_once::request::ActionId;
use genesys_once::store::{ListFilter, ListQuery, UnreadableRecord};
use genesys_once::{Engine, Error, IdempotencyKey};

use super::record;

/// How often a walk begins where servers or slots change under it.
const WALKS: u32 = 4;

/// What a walk found.
#[derive(Default)]
pub struct Found {
    pub records: Vec<(IdempotencyKey, RecordState)>,
    pub unreadable: Vec<UnreadableRecord>,
    /// Names that were looked at.
    pub examined: usize,
    /// The limit was reached: there might be more.
    pub more: bool,
}

/// Walks until the end, or, where all states are wanted, until `limit` records are
/// found: those of `action`, where one is named, the `limit` oldest of them first. `progress` gets the counts of records looked at and found.
///
/// # Errors
///
/// The store's; what was found until then is not returned, since it would look whole.
pub async fn walk(
    engine: &Engine,
    query: ListQuery,
    action: Option<&ActionId>,
    limit: usize,
    progress: impl Fn(usize, usize),
) -> Result<Found, Error> {
    let mut walks = 0;
    loop {
        walks += 1;
        match once(engine, query.clone(), action, limit, &progress).await {
            Err(error) if walks < WALKS && is_moved(&error) => {}
            found => return found,
        }
    }
}

/// Whether the list has to begin again.
fn is_moved(error: &Error) -> bool {
    matches!(error, Error::StoreUnavailable { source, .. }
        if source.refusal() == Some(RefusalKind::NotNow))
}

async fn once(
    engine: &Engine,
    mut query: ListQuery,
    action: Option<&ActionId>,
    limit: usize,
    progress: &impl Fn(usize, usize),
) -> Result<Found, Error> {
    let mut found = Found::default();
    // A server may return a key twice.
    let mut known = HashSet::new();
    // The oldest may come last.
    let to_the_end = query.filter() == ListFilter::Indeterminate;
    loop {
        let page = engine.list(&query).await?;
        found.examined += page.examined;
        for (key, state) in page.records {
            let wanted = action.is_none() || record::action(&state) == action;
            if wanted && known.insert(key) {
                found.records.push((key, state));
            }
        }
        let fresh = page.unreadable.into_iter();
        found
            .unreadable
            .extend(fresh.filter(|record| known.insert(record.key())));
        progress(found.examined, found.records.len());
        found.more = found.records.len() > limit;
        match page.next {
            Some(next) if !found.more || to_the_end => query = query.after(next),
            _ => break,
        }
    }
    found
        .records
        .sort_by_key(|(_, state)| record::moment(state));
    found.records.truncate(limit);
    Ok(found)
}
