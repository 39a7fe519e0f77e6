//! What people and their tools do with a key: look at it, settle it, forget it,
//! list what is open. None of it sends anything to the platform.

use tokio::time::timeout;

use super::Engine;
use crate::actors::{notice_loss, resolve};
use crate::ambient::in_runtime;
use crate::error::{Error, StoreError};
use crate::execution::follow_up;
use crate::key::{IdempotencyKey, Version};
use crate::record::{Answer, Event, RecordState, Resolution};
use crate::store::Store as _;

impl Engine {
    /// What is known of a key; `None` where nothing is: no record, one that was
    /// forgotten or resolved as not applied, or one that its holder released
    /// without a refusal for those who wait.
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
        let state = state.map_err(|source| Error::of_store(*key, source))?;
        Ok(state.filter(|state| !matches!(state, RecordState::Released { verdict: None, .. })))
    }

    /// Resolves an indeterminate key, also one whose holder was lost with its
    /// request under way: [`Resolution::not_applied`] lets the next request execute
    /// it, [`Resolution::applied`] replays the outcome given.
    ///
    /// `version` is what the caller saw: the state that [`inspect`](Self::inspect)
    /// or [`unresolved`](Self::unresolved) returned, or the `version` of
    /// [`Error::Indeterminate`]. Another execution of the key, or another request
    /// under the same key, is never resolved by it.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
    /// # use genesys_once::testing::{ScriptedUpstream, Step};
    /// use genesys_once::{DataActionRequest, Engine, Error, Resolution};
    ///
    /// # let upstream = ScriptedUpstream::new(|_| Step::Reset);
    /// let engine = Engine::builder(upstream).start().await?;
    /// let request = DataActionRequest::new("custom_-_refund", r#"{"order": 42}"#)?;
    /// if let Err(Error::Indeterminate { key, .. }) = engine.execute(request).await {
    ///     let state = engine.inspect(&key).await?.expect("it is indeterminate");
    ///     // Not before the lost attempt has ended for certain: 96 s by default.
    ///     let early = engine.resolve(&key, &state, Resolution::not_applied()).await;
    ///     assert!(matches!(early, Err(Error::TooEarly { .. })));
    /// # tokio::time::advance(std::time::Duration::from_secs(96)).await;
    /// # engine.resolve(&key, &state, Resolution::not_applied()).await?;
    /// }
    /// # Ok::<(), Error>(())
    /// # }).unwrap();
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::NotIndeterminate`] where the key is not, or no longer, indeterminate
    /// in that version. [`Error::TooEarly`] for `not_applied` while the lost attempt
    /// might still be running: for the attempt time-out and the lease of its holder
    /// (96 s by default), by the store's clock since the record became
    /// indeterminate and by this engine's wall clock since the attempt was sent.
    /// [`Error::ResolutionUnknown`] where the reply was lost and the key has changed
    /// since. [`Error::StoreUnavailable`] and [`Error::RecordUnreadable`].
    ///
    /// # Cancel safety
    ///
    /// The resolution might have been applied; asking again is safe.
    pub async fn resolve(
        &self,
        key: &IdempotencyKey,
        version: impl Into<Version>,
        resolution: Resolution,
    ) -> Result<(), Error> {
        in_runtime()?;
        let shared = &*self.inner.shared;
        let ttl = shared.terms.result_ttl;
        resolve(shared, *key, version.into(), resolution, ttl).await
    }

    /// Forgets the recorded outcome of a key, so that the next request executes
    /// it again; `false` where there was none. Nothing but a recorded outcome is
    /// ever forgotten. What is left in the store is an empty mark for as long as
    /// the outcome would have lasted, so that no late command of its holder brings
    /// it back: unless another request takes the key and gives it back meanwhile,
    /// and the holder is cut off from the store for more than ten minutes after
    /// that. Other processes may answer from memory for another minute (their
    /// `recent` time).
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
        let lease = shared.terms.ambient.lease_id();
        let forgotten = follow_up(&*shared.store, &name, &Event::Forget { lease }, 2).await;
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
