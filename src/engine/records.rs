//! What people and their tools do with a key: look at it, resolve it, forget it.
//! None of it sends anything to the platform.

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
    /// A record of an outcome that could not be read: damaged, encrypted with a
    /// key that is not at hand, or another record's.
    Unreadable,
}

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
    /// or [`indeterminate`](Self::indeterminate) returned, or the `version` of
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
    /// [`Error::UnknownKey`] where nothing is recorded of the key, and
    /// [`Error::NotIndeterminate`] where the key is not, or no longer, indeterminate
    /// in that version: it says what is recorded instead, and by whom the key was
    /// resolved. [`Error::TooEarly`] for `not_applied` while the lost attempt
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

    /// Forgets the recorded outcome of a key, so that the next request executes it again,
    /// and says what it removed. Nothing but a recorded outcome is ever forgotten, or one
    /// that was recorded and can no longer be read. What is left in the store is an empty
    /// mark for as long as the outcome would have lasted, so that no late command of its
    /// holder brings it back: unless another request takes the key and gives it back
    /// meanwhile, and the holder is cut off from the store for more than ten minutes
    /// after that. Other processes may answer from memory for another minute (their
    /// `recent` time).
    ///
    /// # Errors
    ///
    /// [`Error::StoreUnavailable`] and [`Error::RecordUnreadable`].
    ///
    /// # Cancel safety
    ///
    /// The outcome may or may not have been removed; asking again is safe.
    pub async fn forget(&self, key: &IdempotencyKey) -> Result<Forgotten, Error> {
        in_runtime()?;
        let shared = &*self.inner.shared;
        let name = shared.name(*key);
        // A store may tell a recorded outcome by its record's first line alone.
        let looked = shared.store.look(&name).await;
        let unreadable = looked.is_err_and(|error| error.is_unreadable());
        let lease = shared.terms.ambient.lease_id();
        let mut commands = Commands::new(&*shared.store, &name, Resend::IfQuick);
        let forgotten = commands.send(&Event::Forget { lease }).await;
        // Afterwards, so that what is remembered meanwhile goes, too.
        shared.flights.forget(key);
        match forgotten {
            Ok((Answer::Done, _)) if unreadable => Ok(Forgotten::Unreadable),
            Ok((Answer::Done, _)) => Ok(Forgotten::Outcome),
            Ok(_) => Ok(Forgotten::Nothing),
            Err(source) => Err(Error::of_store(*key, source)),
        }
    }

    /// What is wrong with the record of a key, for one that was refused with
    /// [`Error::RecordUnreadable`]; `None` where there is none, or it can be read.
    ///
    /// # Errors
    ///
    /// [`Error::StoreUnavailable`], also from a store that cannot tell.
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

    /// Removes a record that cannot be read, exactly as it was listed; returns
    /// `false` where it has changed since, or is gone. The next request of its key
    /// executes it: whether the lost record stood for a call is for the operator to
    /// find out first.
    ///
    /// # Errors
    ///
    /// [`Error::StoreUnavailable`], also for a record of a newer version, which is
    /// not damaged, for one of another namespace, and from a store that cannot remove such records.
    ///
    /// # Cancel safety
    ///
    /// The record might have been removed; asking again is safe.
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
