//! A store around any other that encrypts the platform's answers. It changes no transition:
//! what transitions read stays readable.

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

/// A [`Store`] that encrypts the platform's answers before they reach the inner store, with
/// XChaCha20-Poly1305 and a new random nonce each time.
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
/// | outcomes and refusals: status, headers, body, and how much is stored; a request's own key, scope and label | namespace and key, state, times, lease, revision, fingerprint, action, attempts, holder, correlation id, the encryption key's id, about how long the outcome is |
///
/// - **Bound to its place.** The ciphertext is authenticated together with its kind and the
///   record's name; an outcome also with its lease and the request's fingerprint. So a
///   ciphertext that was moved to another record, or whose record has a changed
///   fingerprint, is not replayed.
/// - **Never a miss.** A record that cannot be decrypted (another key, a changed byte, a
///   moved record, one written without encryption) is [`StoreError::unreadable`], which
///   callers see as [`Error::RecordUnreadable`](crate::Error::RecordUnreadable); nothing is
///   executed for it. An engine without `Encrypted` on the same store finds encrypted
///   records unreadable as well.
/// - **What it does not hide.** Key and fingerprint are digests of the request: a reader
///   that guesses a payload can verify whether it was executed. The `cause` of an
///   indeterminate key is readable text: with the client of this crate it has a status, a
///   correlation id or a network error, never a part of the request or the answer. Your own
///   [`Upstream`](crate::Upstream) should put no personal data into its
///   [`SendError`](crate::error::SendError)s. Encryption protects the content of the store, not
///   the promise: a program that may write to the store can remove a record, and so cause a
///   second call.
/// - **Size.** An encrypted outcome has the bytes of its JSON and its body, 40 more, and
///   the key's id.
///
/// A clone is the same store if a clone of the inner store is.
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

    /// Also reads outcomes that were written without encryption, which are otherwise
    /// unreadable. For a store that was in use before, until its last such outcome has
    /// expired (`result_ttl`, 24 h by default). Every new outcome is encrypted.
    ///
    /// A process that does not encrypt finds the new records unreadable.
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
            Event::Release { claim, refusal, .. } => {
                if let Some(Refusal::Refused(stored)) = refusal {
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

    /// The caller's names for the request are for people. They are bound to the lease,
    /// which stays while the record goes from `Locked` to `Indeterminate`.
    fn seal_caller(&self, name: &RecordName, claim: &mut Claim) -> Result<(), StoreError> {
        let caller = &claim.about.caller;
        // Also without any name: it shows that this store's records are encrypted.
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
                // Names that cannot be decrypted block no key.
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
                refusal,
                fingerprint,
                ..
            } => {
                let bound_to = refused(name, *fingerprint);
                // Nothing was executed, whatever the refusal says: one that cannot be
                // decrypted is removed.
                *refusal = match refusal.take() {
                    Some(Refusal::Refused(stored)) => {
                        self.open(&bound_to, stored).ok().map(Refusal::Refused)
                    }
                    refusal => refusal,
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

/// What a recorded outcome is bound to: these parts stay as long as the outcome does.
fn recorded(name: &RecordName, lease: LeaseId, fingerprint: Fingerprint) -> String {
    format!("recorded\n{name}\n{lease}\n{fingerprint}")
}

/// What a refusal is bound to. A later release by any lease keeps it together with its
/// request's fingerprint.
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
