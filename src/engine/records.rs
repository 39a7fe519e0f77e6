//! Operations of operators on one key: inspect, resolve, forget, discard. None of them
//! sends anything to the platform.

use super::Engine;
use crate::actors::resolve;
use crate::ambient::in_runtime;
use crate::error::{Error, RefusalKind, StoreError};
use crate::execution::{Commands, Resend};
use crate::key::{IdempotencyKey, Version};
use crate::record::{Answer, Event, RecordState, Resolution};
use crate::store::{Store as _, UnreadableRecord};

/// What [`Engine::forget`] removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Forgotten {
    /// Nothing: no outcome was recorded.
    Nothing,
    /// A recorded outcome.
    Outcome,
    /// A record of an outcome that could not be read: damaged, encrypted with a missing
    /// key, or copied from another record.
    Unreadable,
}

impl Engine {
    /// The record of a key. `None` without a record, after `forget`, after a resolution as
    /// not applied, and after a release without a refusal for the waiters.
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
        Ok(state.filter(|state| !matches!(state, RecordState::Released { refusal: None, .. })))
    }

    /// Resolves an indeterminate key, also if its holder was lost during the call. After
    /// [`Resolution::not_applied`] the next request executes the key; after
    /// [`Resolution::applied`] the given outcome is replayed.
    ///
    /// `version` names the execution to resolve: a state that [`inspect`](Self::inspect)
    /// or [`indeterminate`](Self::indeterminate) returned, or the `version` of
    /// [`Error::Indeterminate`]. No other execution and no other request of the key is
    /// resolved.
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
    ///     // The lost attempt must have ended for certain: after 96 s by default.
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
    /// [`Error::UnknownKey`] if the key has no record. [`Error::NotIndeterminate`] if the
    /// key is not indeterminate in that version; it says what is recorded instead, and
    /// which operator resolved the key. [`Error::TooEarly`] for `not_applied` while the
    /// lost attempt might still be running: for the attempt time-out and the lease of its
    /// holder, 96 s by default. This time counts by the store's clock from the
    /// indeterminate record, and by this engine's wall clock from the sending.
    /// [`Error::ResolutionUnknown`] if the reply was lost and the key has changed
    /// since. [`Error::StoreUnavailable`] and [`Error::RecordUnreadable`].
    ///
    /// # Cancel safety
    ///
    /// The resolution might have been applied; a second call is safe.
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

    /// Forgets the recorded outcome of a key, so that the next request executes it again.
    /// Returns what it removed: a recorded outcome, readable or not, and nothing else.
    ///
    /// An empty mark stays in the store for as long as the outcome would have lasted. It
    /// keeps a late command of the holder from bringing the outcome back. One case
    /// remains: another request acquires and releases the key meanwhile, and the holder
    /// cannot reach the store for more than ten minutes after that. Other processes can
    /// replay the outcome from memory for another minute (their `recent` time).
    ///
    /// # Errors
    ///
    /// [`Error::StoreUnavailable`] and [`Error::RecordUnreadable`].
    ///
    /// # Cancel safety
    ///
    /// The outcome might have been removed; a second call is safe.
    pub async fn forget(&self, key: &IdempotencyKey) -> Result<Forgotten, Error> {
        in_runtime()?;
        let shared = &*self.inner.shared;
        let name = shared.name(*key);
        // Some stores find a recorded outcome by the first line of its record alone.
        let looked = shared.store.look(&name).await;
        let unreadable = looked.is_err_and(|error| error.is_unreadable());
        let lease = shared.terms.ambient.lease_id();
        let mut commands = Commands::new(&*shared.store, &name, Resend::IfQuick);
        let forgotten = commands.send(&Event::Forget { lease }).await;
        // After the store, so that outcomes that entered memory meanwhile go, too.
        shared.flights.forget(key);
        match forgotten {
            Ok((Answer::Done, _)) if unreadable => Ok(Forgotten::Unreadable),
            Ok((Answer::Done, _)) => Ok(Forgotten::Outcome),
            Ok(_) => Ok(Forgotten::Nothing),
            Err(source) => Err(Error::of_store(*key, source)),
        }
    }

    /// The unreadable record of a key, after [`Error::RecordUnreadable`]; `None` if the
    /// key has no record, or a readable one.
    ///
    /// # Errors
    ///
    /// [`Error::StoreUnavailable`], also from a store that cannot find such records.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn inspect_unreadable(
        &self,
        key: &IdempotencyKey,
    ) -> Result<Option<UnreadableRecord>, Error> {
        in_runtime()?;
        let shared = &*self.inner.shared;
        let name = shared.name(*key);
        let found = shared.store.look_unreadable(&name).await;
        found.map_err(|source| Error::of_store(*key, source))
    }

    /// Removes an unreadable record exactly as it was listed. Returns `false` if the
    /// record has changed since, or is gone. The next request of the key then executes it,
    /// so the operator must find out first whether the request was executed.
    ///
    /// # Errors
    ///
    /// [`Error::StoreUnavailable`], also for a record of a newer version (which is not
    /// damaged), for a record of another namespace, and from a store that cannot remove
    /// such records.
    ///
    /// # Cancel safety
    ///
    /// The record might have been removed; a second call is safe.
    pub async fn discard_unreadable(&self, record: &UnreadableRecord) -> Result<bool, Error> {
        in_runtime()?;
        let store = &*self.inner.shared.store;
        let of_store = |source| Error::of_store(record.key(), source);
        let refused = match record {
            _ if record.name().namespace != self.inner.shared.namespace => {
                Some("the record is of another namespace")
            }
            _ if record.is_newer() => Some("a newer version wrote the record"),
            _ => None,
        };
        if let Some(reason) = refused {
            return Err(of_store(StoreError::refused_as(
                RefusalKind::NotAllowed,
                reason,
            )));
        }
        store.discard(record).await.map_err(of_store)
    }
}
