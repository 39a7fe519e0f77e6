//! A walk meets records that it cannot recover or read, and still comes to its end.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use genesys_once::error::StoreError;
use genesys_once::record::{
    Answer, Attempts, Claim, Event, LeaseId, Namespace, Phase, RecordName, RecordState,
};
use genesys_once::store::{BoxFuture, ListQuery, Page, UnreadableRecord};
use genesys_once::testing::{Fault, FaultyStore, ScriptedUpstream, Step};
use genesys_once::{Error, IdempotencyKey, MemoryStore, Outcome, Resolution, Store};
use http::{HeaderMap, StatusCode};
use tokio::time::sleep;

use super::watcher::{MINUTE, Slow, Warnings, watching};
use super::{SECOND, request};

/// Acquires the key of a request, new or forgotten, and leaves the record with the request
/// under way.
async fn abandon(store: &impl Store, namespace: &Namespace, payload: &str) -> IdempotencyKey {
    let request = request(payload);
    let key = IdempotencyKey::of(&request);
    let claim = Claim {
        lease: LeaseId::random(),
        fingerprint: request.fingerprint(""),
        lease_ttl: SECOND,
        retention: 3600 * SECOND,
        attempts: Attempts::default(),
        about: Default::default(),
    };
    let name = RecordName::new(namespace.clone(), key);
    let taken = Event::Acquire {
        claim: claim.clone(),
    };
    let Answer::Is(Some(free)) = store.apply(&name, taken).await.unwrap() else {
        return key;
    };
    let revision = free.revision();
    let events = [
        Event::TakeOver {
            claim: claim.clone(),
            revision,
            watched: false,
        },
        Event::Enter {
            claim,
            step: 1,
            phase: Phase::Dispatched,
        },
    ];
    for event in events {
        assert_eq!(store.apply(&name, event).await.unwrap(), Answer::Done);
    }
    key
}

/// Red if the walk ends at the record that the store refuses to take over: no key was
/// reported. Red if `recover` drops the error: no log said that the walk had failed. Red if
/// `Engine::indeterminate` drops the error of its own walk, or of re-reading the last
/// walk's keys: the list lacked a key and was no error.
#[tokio::test(start_paused = true)]
async fn unrecoverable_record_hides_no_other() {
    let warnings = Warnings::default();
    let _here = warnings.listen();
    let refusing = Arc::new(AtomicBool::new(true));
    let store = FaultyStore::new(MemoryStore::new(), {
        let refusing = refusing.clone();
        move |operation| match operation.event {
            Some(Event::TakeOver { .. }) if refusing.load(Ordering::SeqCst) => Fault::Refuse,
            _ => Fault::Pass,
        }
    });
    let upstream = ScriptedUpstream::new(|_| Step::Reset);
    let engine = watching(&upstream, store.clone()).await;
    let mut lost = HashSet::new();
    for payload in ["1", "2", "3"] {
        lost.insert(IdempotencyKey::of(&request(payload)));
        engine.execute(request(payload)).await.unwrap_err();
    }
    let stuck = abandon(&store, engine.namespace(), "4").await;
    sleep(MINUTE + SECOND).await;
    for key in &lost {
        let logged = warnings.of(&key.to_string());
        assert!(
            logged
                .iter()
                .any(|text| text.contains("a key is indeterminate"))
        );
    }
    assert_eq!(warnings.count(), 3);
    let failed = warnings.of("could not walk through");
    assert_eq!(failed.len(), 1, "{failed:?}");
    let error = engine.indeterminate(10).await.unwrap_err();
    assert!(matches!(error, Error::StoreUnavailable { .. }), "{error}");

    refusing.store(false, Ordering::SeqCst);
    sleep(MINUTE).await;
    assert_eq!(warnings.count(), 4);
    let listed = engine.indeterminate(10).await.unwrap();
    assert!(!listed.age.is_zero(), "the list is the walk's");
    lost.insert(stuck);
    let (key, state) = listed.keys[0].clone();
    let listed: HashSet<_> = listed.keys.into_iter().map(|(key, _)| key).collect();
    assert_eq!(listed, lost);

    // One of that walk's keys is lost again, by a holder that is gone.
    let applied = Resolution::applied(Outcome::new(StatusCode::OK, HeaderMap::new(), "{}"));
    engine.resolve(&key, &state, applied).await.unwrap();
    engine.forget(&key).await.unwrap();
    let payload = ["1", "2", "3", "4"];
    let payload = payload.map(|payload| (IdempotencyKey::of(&request(payload)), payload));
    let (_, payload) = payload.iter().find(|(known, _)| *known == key).unwrap();
    abandon(&store, engine.namespace(), payload).await;
    refusing.store(true, Ordering::SeqCst);
    sleep(2 * SECOND).await;
    let error = engine.indeterminate(10).await.unwrap_err();
    assert!(matches!(error, Error::StoreUnavailable { .. }), "{error}");
}

/// A store with this number of records that cannot be read.
struct Damaged(MemoryStore, u64);

impl Damaged {
    fn keys(&self) -> impl Iterator<Item = IdempotencyKey> {
        (0..self.1).map(|n| {
            let mut bytes = [0xff; 32];
            bytes[..8].copy_from_slice(&n.to_be_bytes());
            IdempotencyKey::from_bytes(bytes)
        })
    }
}

impl Store for Damaged {
    delegate!(0: apply);

    fn look<'a>(
        &'a self,
        name: &'a RecordName,
    ) -> BoxFuture<'a, Result<Option<RecordState>, StoreError>> {
        Box::pin(async move {
            match self.keys().any(|key| key == name.key) {
                true => Err(StoreError::unreadable("damaged")),
                false => self.0.look(name).await,
            }
        })
    }

    fn list<'a>(
        &'a self,
        namespace: &'a Namespace,
        query: &'a ListQuery,
    ) -> BoxFuture<'a, Result<Page, StoreError>> {
        Box::pin(async move {
            let mut page = self.0.list(namespace, query).await?;
            for key in self.keys() {
                let name = RecordName::new(namespace.clone(), key);
                page.add_unreadable(UnreadableRecord::new(name, "damaged"));
            }
            Ok(page)
        })
    }
}

/// Red without `MAX_WARNED`: all warnings at once. Red if a walk forgets which records it
/// has warned of: the first ten again. Red if records that were warned of before take the
/// places of the others: the second walk named none of the 15 that were left.
#[tokio::test(start_paused = true)]
async fn unreadable_records_are_logged_once_each() {
    let warnings = Warnings::default();
    let _here = warnings.listen();
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}"));
    let _engine = watching(&upstream, Damaged(MemoryStore::new(), 25)).await;
    let logged = || warnings.of("a record cannot be read");
    sleep(SECOND).await;
    for expected in [10, 20, 25, 25] {
        assert_eq!(logged().len(), expected, "{:?}", logged());
        sleep(MINUTE).await;
    }
    let logged: HashSet<_> = logged().into_iter().collect();
    assert_eq!(logged.len(), 25, "each warning names another record");
    assert!(logged.iter().all(|text| text.contains("records=25")));
}

/// Red if the last walk does not remember the unreadable records: none listed. Red without
/// the bound: all 25 where the caller asks for 5.
#[tokio::test(start_paused = true)]
async fn last_walk_lists_unreadable_records() {
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}"));
    let engine = watching(&upstream, Damaged(MemoryStore::new(), 25)).await;
    sleep(SECOND).await;
    let listed = engine.indeterminate(100).await.unwrap();
    assert_eq!((listed.unreadable.len(), listed.age), (25, SECOND));
    let listed = engine.indeterminate(5).await.unwrap();
    assert_eq!((listed.unreadable.len(), listed.age), (5, Duration::ZERO));
}

/// Each page takes most of the time allowed for it, so that three pages take longer than
/// the minute between two walks.
///
/// Red with a minute in `WALK_WITHIN`: each walk ended early, with three keys of six.
#[tokio::test(start_paused = true)]
async fn slow_walk_comes_to_its_end() {
    let warnings = Warnings::default();
    let _here = warnings.listen();
    let upstream = ScriptedUpstream::new(|_| Step::Reset);
    let slow = Slow(MemoryStore::new(), Arc::default(), 25 * SECOND);
    let engine = watching(&upstream, slow).await;
    for payload in ["1", "2", "3", "4", "5", "6"] {
        engine.execute(request(payload)).await.unwrap_err();
    }
    sleep(10 * MINUTE).await;
    assert_eq!(warnings.of("ended early"), Vec::<String>::new());
    assert_eq!(warnings.count(), 6);
}
