//! A changed, moved or planted record is an error, never an answer and never an absent key.

use std::sync::{Arc, Mutex};

use genesys_once::error::StoreError;
use genesys_once::outcome::StoredBody;
use genesys_once::record::{
    Answer, Content, Event, Fingerprint, LeaseId, Record, RecordName, RecordState, Refusal,
    Revision,
};
use genesys_once::store::BoxFuture;
use genesys_once::{MemoryStore, Outcome, Store};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::{claim, complete, done, encrypted, is_silent, name, outcome, read, reason, release};

type Change = Arc<dyn Fn(&mut RecordState) + Send + Sync>;

/// A store whose records another program changes or swaps.
#[derive(Clone)]
struct Tampered {
    store: MemoryStore,
    change: Arc<Mutex<Change>>,
    /// The name of the record that the store reads in place of the requested name.
    place: fn(&RecordName) -> RecordName,
}

impl Tampered {
    fn new() -> Self {
        Self {
            store: MemoryStore::new(),
            change: Arc::new(Mutex::new(Arc::new(|_| {}))),
            place: RecordName::clone,
        }
    }

    fn change(&self, change: impl Fn(&mut RecordState) + Send + Sync + 'static) {
        *self.change.lock().unwrap() = Arc::new(change);
    }

    fn changed_state(&self, mut state: RecordState) -> RecordState {
        let change = self.change.lock().unwrap().clone();
        change(&mut state);
        state
    }
}

impl Store for Tampered {
    fn apply<'a>(
        &'a self,
        name: &'a RecordName,
        event: Event,
    ) -> BoxFuture<'a, Result<Answer, StoreError>> {
        Box::pin(async move {
            match self.store.apply(&(self.place)(name), event).await? {
                Answer::Is(Some(state)) => Ok(Answer::Is(Some(self.changed_state(state)))),
                answer => Ok(answer),
            }
        })
    }

    fn look<'a>(
        &'a self,
        name: &'a RecordName,
    ) -> BoxFuture<'a, Result<Option<RecordState>, StoreError>> {
        Box::pin(async move {
            let state = self.store.look(&(self.place)(name)).await?;
            Ok(state.map(|state| self.changed_state(state)))
        })
    }
}

fn outcome_in(state: &mut RecordState) -> &mut Outcome {
    match state {
        RecordState::Cached { stored, .. }
        | RecordState::Released {
            refusal: Some(Refusal::Refused(stored)),
            ..
        } => Arc::make_mut(&mut stored.outcome),
        state => panic!("{state:?}"),
    }
}

/// Record 1 is an outcome, record 2 a refusal.
async fn filled() -> Tampered {
    let inner = Tampered::new();
    let store = encrypted(inner.clone());
    done(&store, 1, complete(1, outcome(), StoredBody::Full)).await;
    done(&store, 2, release(1, outcome())).await;
    for number in [1, 2] {
        assert_eq!(*read(store.look(&name(number)).await).unwrap().0, outcome());
    }
    inner
}

/// A changed refusal is dropped: nothing was executed, whatever the refusal says.
#[tokio::test(start_paused = true)]
async fn changed_bits_are_detected() {
    let inner = filled().await;
    let store = encrypted(inner.clone());
    for number in [1, 2] {
        let look = async || {
            let state = store.look(&name(number)).await;
            match number {
                1 => reason(&read(state).unwrap_err()),
                _ => is_silent(state).to_string(),
            }
        };
        let found = ["", "cannot be decrypted", "true"][usize::from(number)];
        let mut state = inner.look(&name(number)).await.unwrap().unwrap();
        let bits = 8 * outcome_in(&mut state).body().len();
        assert!(bits > 8 * 40, "there is a nonce and a tag");
        for bit in 0..bits {
            inner.change(move |state| {
                let body = outcome_in(state).body_mut();
                let mut bytes = body.to_vec();
                bytes[bit / 8] ^= 1 << (bit % 8);
                *body = bytes.into();
            });
            let answer = look().await;
            assert!(answer.contains(found), "{answer}");
        }
        for length in 0..bits / 8 {
            inner.change(move |state| outcome_in(state).body_mut().truncate(length));
            let answer = look().await;
            assert!(number == 1 || answer == found, "{answer}");
        }
        // The answer to an event is checked as well.
        let acquire = Event::Acquire { claim: claim(2) };
        match store.apply(&name(number), acquire).await {
            Err(error) => drop(reason(&error)),
            Ok(Answer::Is(state)) => assert!(number == 2 && is_silent(Ok(state))),
            other => panic!("{other:?}"),
        }
    }
}

/// Each assertion is red if the ciphertext is not bound to the record's name, to the lease,
/// or to the fingerprint.
#[tokio::test(start_paused = true)]
async fn moved_ciphertext_is_not_decrypted() {
    let mut inner = filled().await;
    // The store reads record 1 under every name.
    inner.place = |_| name(1);
    let moved = encrypted(inner.clone());
    assert!(read(moved.look(&name(1)).await).is_ok());
    let mut wrong = vec![("name", read(moved.look(&name(3)).await))];
    inner.place = |_| name(2);
    let moved = encrypted(inner.clone());
    assert!(is_silent(moved.look(&name(3)).await), "name of a refusal");

    inner.place = RecordName::clone;
    let store = encrypted(inner.clone());
    inner.change(|state| match state {
        RecordState::Cached { fingerprint, .. } => *fingerprint = Fingerprint::from_bytes([8; 32]),
        state => panic!("{state:?}"),
    });
    wrong.push(("fingerprint", read(store.look(&name(1)).await)));
    inner.change(|state| match state {
        RecordState::Cached { revision, .. } => revision.lease = LeaseId::from_bytes([8; 16]),
        state => panic!("{state:?}"),
    });
    wrong.push(("lease", read(store.look(&name(1)).await)));
    inner.change(|state| {
        let outcome = outcome_in(state).clone();
        *state = released(state, Refusal::Refused(outcome.into()));
    });
    assert!(is_silent(store.look(&name(1)).await), "kind");
    for (what, result) in wrong {
        let error = result.expect_err(what);
        assert!(
            reason(&error).contains("cannot be decrypted"),
            "{what}: {error:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn changed_key_id_is_detected() {
    let inner = filled().await;
    let keys = super::keys("k1", 1).also_reads("k2", [1; 32]).unwrap();
    let store = genesys_once::Encrypted::new(inner.clone(), keys);
    let rename = |id: &'static str| {
        inner.change(move |state| {
            let headers = outcome_in(state).headers_mut();
            let name = headers.keys().next().unwrap().clone();
            headers.insert(name, HeaderValue::from_static(id));
        });
    };
    // The same key bytes under another id.
    rename("k2");
    let error = read(store.look(&name(1)).await).unwrap_err();
    assert!(reason(&error).contains("cannot be decrypted"), "{error:?}");
    rename("k3");
    let error = read(store.look(&name(1)).await).unwrap_err();
    assert!(
        reason(&error).contains("encryption key \"k3\""),
        "{error:?}"
    );
    inner.change(|state| outcome_in(state).headers_mut().clear());
    let error = read(store.look(&name(1)).await).unwrap_err();
    assert!(reason(&error).contains("does not name"), "{error:?}");
}

/// Red if a plain outcome is returned.
#[tokio::test(start_paused = true)]
async fn plain_outcome_is_refused() {
    let inner = MemoryStore::new();
    done(&inner, 1, complete(1, outcome(), StoredBody::Full)).await;
    done(&inner, 2, release(1, outcome())).await;
    // A platform's answer that resembles an encrypted one is plain.
    let mut headers = HeaderMap::new();
    headers.insert("encryption-key-id", HeaderValue::from_static("k1"));
    let forged = Outcome::new(StatusCode::from_u16(599).unwrap(), headers, vec![7; 90]);
    done(&inner, 3, complete(1, forged.clone(), StoredBody::Full)).await;
    let store = encrypted(inner);
    for number in [1, 3] {
        let error = read(store.look(&name(number)).await).unwrap_err();
        assert!(reason(&error).contains("not encrypted"), "{error:?}");
    }
    assert!(is_silent(store.look(&name(2)).await));
    // A store accepts it only if it also reads plain outcomes, during a migration.
    let lenient = store.clone().also_reads_plain();
    assert_eq!(*read(lenient.look(&name(1)).await).unwrap().0, outcome());
    assert_eq!(*read(lenient.look(&name(2)).await).unwrap().0, outcome());
    assert_eq!(*read(lenient.look(&name(3)).await).unwrap().0, forged);
    done(&lenient, 4, complete(1, outcome(), StoredBody::Full)).await;
    assert!(read(store.look(&name(4)).await).is_ok());
}

/// A released record of the same version, as the inner store would return it.
fn released(state: &RecordState, refusal: Refusal) -> RecordState {
    let Revision { rev, lease } = state.revision();
    let record = Record {
        rev,
        lease,
        step: 0,
        lease_ttl: super::LONG,
        retention: super::LONG,
        fingerprint: state.fingerprint(),
        content: Content::Released {
            refusal: Some(refusal),
        },
    };
    record.state(super::LONG)
}
