//! A store around any other in which what the platform answered is encrypted.
//! It changes no transition: what those need stays readable.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::EncryptionKeys;
use crate::error::StoreError;
use crate::key::{Fingerprint, Namespace, RecordName};
use crate::record::{
    Answer, Caller, Claim, Event, LeaseId, RecordState, Refusal, Resolution, StoredOutcome,
    decode_caller, encode_caller,
};
use crate::store::{BoxFuture, ListQuery, Page, Store, UnreadableRecord};

/// A [`Store`] that encrypts what the platform answered before it reaches the
/// store inside, with XChaCha20-Poly1305 and a new random nonce each time.
///
/// ```
/// use genesys_once::{Encrypted, EncryptionKeys, MemoryStore};
///
/// # let bytes = [7; 32];
/// let keys = EncryptionKeys::new("2026-11", bytes)?;
/// let store = Encrypted::new(MemoryStore::new(), keys);
/// # let _: &dyn genesys_once::Store = &store;
/// # Ok::<(), genesys_once::Error>(())
/// ```
///
/// | encrypted | readable |
/// |---|---|
/// | outcomes and handed-on refusals: status, headers, body, and whether all of it was kept; a request's own key, scope and label | namespace and key, state, times, lease, revision, fingerprint, action, attempts, holder, correlation id, the encryption key's id, about how long the outcome is |
///
/// - **Bound to its place.** The ciphertext is authenticated together with the
///   record's name and with what it is; an outcome also with the lease that it
///   was executed under and the request's fingerprint. So one moved to another
///   record, or a record whose fingerprint was changed, is not replayed.
/// - **Never a miss.** A record that cannot be opened (another key, a changed
///   byte, one moved here, one written without encryption) is
///   [`StoreError::unreadable`], which callers see as
///   [`Error::RecordUnreadable`](crate::Error::RecordUnreadable); nothing is
///   executed for it. So it is the other way round for an engine without
///   `Encrypted` on the same store.
/// - **What it does not hide.** Key and fingerprint are digests of the request:
///   who can guess a payload can tell whether it was executed. The `cause` of an
///   indeterminate key is readable text: with the client of this crate it has a status, a
///   correlation id or a network error, never anything of the request or the
///   answer; an [`Upstream`](crate::Upstream) of your own should keep personal
///   data out of its [`SendError`](crate::SendError)s. And it protects what is
///   read out of the store, not the promise: who may write to it can remove a
///   record, and so cause a second call.
/// - **Size.** A sealed outcome is its JSON and its body, 40 bytes and the key's id.
///
/// A clone is the same store where the one inside is.
pub struct Encrypted<S> {
    store: S,
    keys: Arc<EncryptionKeys>,
    reads_plain: bool,
}

impl<S: Store> Encrypted<S> {
    /// `store`, with outcomes encrypted by these keys.
    pub fn new(store: S, keys: EncryptionKeys) -> Self {
        Self {
            store,
            keys: Arc::new(keys),
            reads_plain: false,
        }
    }

    /// Also reads outcomes that were written without encryption, which are
    /// otherwise unreadable: for the time (`result_ttl`, 24 h by default) in
    /// which a store that was in use before still holds some. Everything new is
    /// encrypted.
    ///
    /// Until all processes encrypt, those that do not find the new records
    /// unreadable.
    #[must_use]
    pub fn also_reads_plain(mut self) -> Self {
        self.reads_plain = true;
        self
    }

    fn sealed(&self, name: &RecordName, mut event: Event) -> Result<Event, StoreError> {
        match &mut event {
            Event::Acquire { claim }
            | Event::TakeOver { claim, .. }
            | Event::Extend { claim, .. }
            | Event::Enter { claim, .. }
            | Event::Abandon { claim, .. } => self.seal_caller(name, claim)?,
            Event::Complete { claim, stored, .. } => {
                let bound_to = recorded(name, claim.lease, claim.fingerprint);
                *stored = self.keys.seal(&bound_to, stored)?;
            }
            Event::Release { claim, verdict, .. } => {
                if let Some(Refusal::Refused(stored)) = verdict {
                    let bound_to = refused(name, claim.fingerprint);
                    *stored = self.keys.seal(&bound_to, stored)?;
                }
            }
            Event::Resolve {
                lease,
                fingerprint,
                resolution,
                ..
            } => {
                if let Some(stored) = resolution.outcome() {
                    let bound_to = recorded(name, *lease, *fingerprint);
                    let sealed = self.keys.seal(&bound_to, stored)?;
                    *resolution = Resolution::applied(sealed);
                }
            }
            Event::Forget { .. } => {}
        }
        Ok(event)
    }

    /// What the caller called the request is for people: bound to the lease, with
    /// which it stays while the record goes from `Locked` to `Indeterminate`.
    fn seal_caller(&self, name: &RecordName, claim: &mut Claim) -> Result<(), StoreError> {
        let caller = &claim.about.caller;
        // Also where there is nothing: it shows that the records here are encrypted.
        if caller.sealed.is_none() {
            let plain = encode_caller(caller);
            let sealed = self.keys.seal_text(&called(name, claim.lease), &plain)?;
            Arc::make_mut(&mut claim.about).caller = Caller {
                sealed: Some(sealed.into()),
                ..Caller::default()
            };
        }
        Ok(())
    }

    fn opened(&self, name: &RecordName, mut state: RecordState) -> Result<RecordState, StoreError> {
        match &mut state {
            RecordState::Locked {
                about, revision, ..
            }
            | RecordState::Indeterminate {
                about, revision, ..
            } => {
                // Nobody is kept from anything where it cannot be opened.
                let sealed = about.caller.sealed.as_deref();
                let plain = sealed
                    .and_then(|text| self.keys.open_text(&called(name, revision.lease), text));
                if let Some(caller) = plain.as_deref().and_then(decode_caller) {
                    Arc::make_mut(about).caller = caller;
                }
            }
            RecordState::Cached {
                stored,
                revision,
                fingerprint,
                ..
            } => {
                let bound_to = recorded(name, revision.lease, *fingerprint);
                *stored = self.open(&bound_to, stored.clone())?;
            }
            RecordState::Released {
                verdict,
                fingerprint,
                ..
            } => {
                let bound_to = refused(name, *fingerprint);
                // Nothing was executed, whatever it says: one that cannot be opened
                // is none.
                *verdict = match verdict.take() {
                    Some(Refusal::Refused(stored)) => {
                        self.open(&bound_to, stored).ok().map(Refusal::Refused)
                    }
                    verdict => verdict,
                };
            }
        }
        Ok(state)
    }

    fn open(&self, bound_to: &str, stored: StoredOutcome) -> Result<StoredOutcome, StoreError> {
        if stored.outcome.is_sealed() {
            self.keys.open(bound_to, &stored.outcome)
        } else if self.reads_plain {
            Ok(stored)
        } else {
            Err(StoreError::unreadable("its outcome is not encrypted"))
        }
    }
}

/// What a recorded outcome is bound to: all of it stays as long as there is one.
fn recorded(name: &RecordName, lease: LeaseId, fingerprint: Fingerprint) -> String {
    format!("recorded\n{name}\n{lease}\n{fingerprint}")
}

/// What a refusal is bound to. A later release, by whatever lease, keeps it
/// together with its request's fingerprint.
fn refused(name: &RecordName, fingerprint: Fingerprint) -> String {
    format!("refused\n{name}\n{fingerprint}")
}

/// What the caller's names for a request are bound to.
fn called(name: &RecordName, lease: LeaseId) -> String {
    format!("called\n{name}\n{lease}")
}

impl<S: Store> Store for Encrypted<S> {
    fn apply<'a>(
        &'a self,
        name: &'a RecordName,
        event: Event,
    ) -> BoxFuture<'a, Result<Answer, StoreError>> {
        Box::pin(async move {
            let answer = self.store.apply(name, self.sealed(name, event)?).await?;
            match answer {
                Answer::Is(Some(state)) => Ok(Answer::Is(Some(self.opened(name, state)?))),
                Answer::Lost(state) => Ok(Answer::Lost(self.opened(name, state)?)),
                answer => Ok(answer),
            }
        })
    }

    fn look<'a>(
        &'a self,
        name: &'a RecordName,
    ) -> BoxFuture<'a, Result<Option<RecordState>, StoreError>> {
        Box::pin(async move {
            let state = self.store.look(name).await?;
            state.map(|state| self.opened(name, state)).transpose()
        })
    }

    fn peek<'a>(
        &'a self,
        name: &'a RecordName,
    ) -> BoxFuture<'a, Result<Option<RecordState>, StoreError>> {
        Box::pin(async move {
            let state = self.store.peek(name).await?;
            state.map(|state| self.opened(name, state)).transpose()
        })
    }

    fn changed<'a>(&'a self, name: &'a RecordName) -> BoxFuture<'a, ()> {
        self.store.changed(name)
    }

    fn shard(&self, name: &RecordName) -> u64 {
        self.store.shard(name)
    }

    fn least_writer<'a>(
        &'a self,
        namespace: &'a Namespace,
        at_least: u32,
    ) -> BoxFuture<'a, Result<u32, StoreError>> {
        self.store.least_writer(namespace, at_least)
    }

    fn emptied(&self, namespace: &Namespace) -> u64 {
        self.store.emptied(namespace)
    }

    fn list<'a>(
        &'a self,
        namespace: &'a Namespace,
        query: &'a ListQuery,
    ) -> BoxFuture<'a, Result<Page, StoreError>> {
        Box::pin(async move {
            let page = self.store.list(namespace, query).await?;
            let name = |key| RecordName::new(namespace.clone(), key);
            page.map(query, name, |name, state| self.opened(name, state))
        })
    }

    fn walk_turn<'a>(
        &'a self,
        namespace: &'a Namespace,
        period: Duration,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        self.store.walk_turn(namespace, period)
    }

    fn look_unreadable<'a>(
        &'a self,
        name: &'a RecordName,
    ) -> BoxFuture<'a, Result<Option<UnreadableRecord>, StoreError>> {
        self.store.look_unreadable(name)
    }

    fn discard<'a>(
        &'a self,
        record: &'a UnreadableRecord,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        self.store.discard(record)
    }
}

impl<S: Clone> Clone for Encrypted<S> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            keys: self.keys.clone(),
            reads_plain: self.reads_plain,
        }
    }
}

impl<S> fmt::Debug for Encrypted<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encrypted")
            .field("keys", &self.keys)
            .field("reads_plain", &self.reads_plain)
            .finish_non_exhaustive()
    }
}
