//! What people and their tools do with a key: look at it, settle it, forget it,
//! list what is open. None of it sends anything to the platform.

use tokio::time::timeout;

use super::Engine;
use crate::actors::{notice_loss, resolve};
use crate::ambient::in_runtime;
use crate::error::{Error, StoreError};
use crate::key::IdempotencyKey;
use crate::record::{Answer, Event, RecordState, Resolution};
use crate::store::Store as _;

impl Engine {
    /// What is known of a key; `None` where nothing is.
    ///
    /// # Errors
    ///
    /// [`Error::StoreUnavailable`] and [`Error::RecordUnreadable`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn inspect(&self, key: &IdempotencyKey) -> Result<Option<RecordState>, Error> {
        in_runtime()?;
        let shared = &*self.inner.shared;
        let name = shared.name(*key);
        let state = shared.store.look(&name).await;
        state.map_err(|source| Error::of_store(*key, source))
    }

    /// Settles an indeterminate key, also one whose holder was lost with its
    /// request under way: `NotApplied` lets the next request execute it, `Applied`
    /// replays the outcome given.
    ///
    /// # Errors
    ///
    /// [`Error::NotIndeterminate`] where the key is not indeterminate (any
    /// more), and for `NotApplied` as long as the lost attempt may still be
    /// running: attempt time-out and lease (95 s by default) after `since`.
    /// [`Error::StoreUnavailable`] and [`Error::RecordUnreadable`].
    ///
    /// # Cancel safety
    ///
    /// The resolution may or may not have been applied; asking again is safe.
    pub async fn resolve(&self, key: &IdempotencyKey, resolution: Resolution) -> Result<(), Error> {
        in_runtime()?;
        let shared = &*self.inner.shared;
        let ttl = shared.terms.result_ttl;
        resolve(shared, *key, resolution, ttl).await
    }

    /// Removes the recorded outcome of a key, so that the next request executes
    /// it again; `false` where there was none. Nothing but a recorded outcome is
    /// ever removed. Other processes may answer from memory for another minute
    /// (their `recent` time).
    ///
    /// # Errors
    ///
    /// [`Error::StoreUnavailable`] and [`Error::RecordUnreadable`].
    ///
    /// # Cancel safety
    ///
    /// The outcome may or may not have been removed; asking again is safe.
    pub async fn forget(&self, key: &IdempotencyKey) -> Result<bool, Error> {
        in_runtime()?;
        let shared = &*self.inner.shared;
        let name = shared.name(*key);
        let forgotten = shared.store.apply(&name, Event::Forget).await;
        // Afterwards, so that what is remembered meanwhile goes, too.
        shared.flights.forget(key);
        match forgotten {
            Ok(answer) => Ok(answer == Answer::Done),
            Err(source) => Err(Error::of_store(*key, source)),
        }
    }

    /// Up to `limit` indeterminate keys of this engine's namespace, in no order.
    /// One whose holder was lost with its request under way is among them as soon
    /// as its lease has lapsed, and its record says so from then on.
    ///
    /// It walks the whole store: for people and their tools, not for a request.
    ///
    /// # Errors
    ///
    /// [`Error::StoreUnavailable`], also from a store that cannot list, and
    /// where the list takes longer than the engine's `deadline`.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn unresolved(
        &self,
        limit: usize,
    ) -> Result<Vec<(IdempotencyKey, RecordState)>, Error> {
        in_runtime()?;
        let shared = &*self.inner.shared;
        let unavailable = |source| Error::StoreUnavailable { source };
        let listed = shared.store.unresolved(&shared.namespace, limit);
        let listed = timeout(self.inner.deadline, listed).await;
        let late = |_| unavailable(StoreError::unavailable("no list within the deadline"));
        let mut found = Vec::new();
        for (key, state) in listed.map_err(late)?.map_err(unavailable)? {
            let name = shared.name(key);
            let state = notice_loss(shared, &name, state).await?;
            let open = state.filter(|state| matches!(state, RecordState::Indeterminate { .. }));
            found.extend(open.map(|state| (key, state)));
        }
        Ok(found)
    }
}
