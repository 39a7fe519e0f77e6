//! The lists that people and their tools ask an engine for. None of it sends
//! anything to the platform.

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

/// How long a walk that a caller waits for asks for further pages.
const WALK_WITHIN: Duration = Duration::from_secs(30);

/// The indeterminate keys of a namespace, as [`Engine::indeterminate`] returns them.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct IndeterminateKeys {
    /// The keys, in no order, each with what is known of it: always
    /// [`RecordState::Indeterminate`].
    pub keys: Vec<(IdempotencyKey, RecordState)>,
    /// Records that cannot be read and might be indeterminate.
    pub unreadable: Vec<UnreadableRecord>,
    /// How long ago the walk was made that found them; zero for one that was made
    /// for this call.
    pub age: Duration,
    /// Where the list goes on, where there might be more keys: for
    /// [`ListQuery::after`].
    pub next: Option<Cursor>,
}

impl Engine {
    /// Up to `limit` indeterminate keys of this engine's namespace, at least 1, in no
    /// order. A key whose holder was lost with its request under way is among them as
    /// soon as its lease has lapsed, and its record says so from then on.
    ///
    /// Where [`watch_indeterminate`](crate::EngineBuilder::watch_indeterminate) is set
    /// and this process made the last walk, the keys are those of that walk which are
    /// still indeterminate: [`age`](IndeterminateKeys::age) says how old the walk is.
    /// Otherwise this walks through the store for 30 s at most. What is left then
    /// begins at [`next`](IndeterminateKeys::next).
    ///
    /// # Errors
    ///
    /// [`Error::StoreUnavailable`], also from a store that cannot list, and where
    /// the store takes longer than 30 s for one page.
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
        // Nothing is known of that key: the list would not be whole.
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

    /// One page of this engine's records: those that a query asks for, and those that
    /// cannot be read. It changes no record: one whose holder was lost with its
    /// request under way is `Locked`, with no time left of its lease.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
    /// # use genesys_once::testing::{ScriptedUpstream, Step};
    /// use genesys_once::{DataActionRequest, Engine, ListQuery};
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
    /// [`Error::StoreUnavailable`], also from a store that cannot list, where the
    /// store takes longer than 30 s, and where the list has to start again, without a
    /// cursor: [`RefusalKind::NotNow`](crate::RefusalKind).
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
