//! The lists of records that operators and their tools ask an engine for. They send
//! nothing to the platform.

use std::time::Duration;

use tokio::time::Instant;

use super::Engine;
use crate::actors::walk::{self, Bounds, walk};
use crate::actors::watcher::Watch;
use crate::ambient::in_runtime;
use crate::error::Error;
use crate::key::IdempotencyKey;
use crate::record::RecordState;
use crate::store::{Cursor, ListQuery, Page, UnreadableRecord};

/// For how long a walk that a caller waits for reads further pages.
const WALK_WITHIN: Duration = Duration::from_secs(30);

/// The indeterminate keys of a namespace, as [`Engine::indeterminate`] returns them.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct IndeterminateKeys {
    /// The keys in no order, each with its state: always
    /// [`RecordState::Indeterminate`].
    pub keys: Vec<(IdempotencyKey, RecordState)>,
    /// Records that cannot be read and might be indeterminate.
    pub unreadable: Vec<UnreadableRecord>,
    /// The age of the walk that found them; zero if this call made the walk.
    pub age: Duration,
    /// The cursor for [`ListQuery::after`], if there might be more keys.
    pub next: Option<Cursor>,
}

impl Engine {
    /// Up to `limit` indeterminate keys of this engine's namespace, at least 1, in no
    /// order. If a holder was lost during its call, its key is included as soon as the
    /// lease has expired; the record becomes indeterminate then.
    ///
    /// If [`watch_indeterminate`](crate::EngineBuilder::watch_indeterminate) is set and
    /// this process made the last walk, the keys are those of the walk that still are
    /// indeterminate; [`age`](IndeterminateKeys::age) is the age of the walk. Otherwise
    /// this call walks through the store for 30 s at most. The rest begins at
    /// [`next`](IndeterminateKeys::next).
    ///
    /// # Errors
    ///
    /// [`Error::StoreUnavailable`], also from a store that cannot list, and if the store
    /// takes longer than 30 s for one page.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn indeterminate(&self, limit: usize) -> Result<IndeterminateKeys, Error> {
        in_runtime()?;
        let shared = &*self.inner.shared;
        let last = shared.watch.as_ref().and_then(Watch::last);
        if let Some(last) = last.filter(|last| last.keys.len() <= limit) {
            let found = walk::again(shared, &last.keys).await?;
            if let Some(error) = found.failed {
                return Err(error);
            }
            return Ok(IndeterminateKeys {
                keys: found.keys,
                unreadable: found.unreadable,
                age: last.begun.elapsed(),
                next: None,
            });
        }
        let bounds = Bounds {
            keys: limit.max(1),
            until: Instant::now() + WALK_WITHIN,
            pause: Duration::ZERO,
        };
        let found = walk(shared, bounds).await?;
        // Without this key the list would be incomplete.
        if let Some(error) = found.failed {
            return Err(error);
        }
        Ok(IndeterminateKeys {
            keys: found.keys,
            unreadable: found.unreadable,
            age: Duration::ZERO,
            next: found.next,
        })
    }

    /// One page of this engine's records: the records that match the query, and those
    /// that cannot be read. It changes no record. If a holder was lost during its call,
    /// its record is `Locked` with no lease time left.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
    /// # use genesys_once::testing::{ScriptedUpstream, Step};
    /// use genesys_once::store::ListQuery;
    /// use genesys_once::{DataActionRequest, Engine};
    ///
    /// # let engine = Engine::builder(ScriptedUpstream::new(|_| Step::ok("{}"))).start().await?;
    /// # engine.execute(DataActionRequest::new("custom_-_refund", "{}")?).await?;
    /// let mut query = ListQuery::all();
    /// loop {
    ///     let page = engine.list(&query).await?;
    ///     for (key, state) in page.records {
    ///         println!("{key}: {state:?}");
    ///     }
    ///     match page.next {
    ///         Some(next) => query = query.after(next),
    ///         None => break,
    ///     }
    /// }
    /// # Ok::<(), genesys_once::Error>(())
    /// # }).unwrap();
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::StoreUnavailable`], also from a store that cannot list, and if the store
    /// takes longer than 30 s. With [`RefusalKind::NotNow`](crate::error::RefusalKind), start the
    /// list again without a cursor.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn list(&self, query: &ListQuery) -> Result<Page, Error> {
        in_runtime()?;
        let page = walk::page(&self.inner.shared, query).await;
        page.map_err(|source| Error::StoreUnavailable { source })
    }
}
