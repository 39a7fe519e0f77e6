//! A lease whose acquire got only errors might be in the store, and is released. Impossible
//! terms acquire no lease.

use std::sync::Mutex;
use std::time::Duration;

use super::*;
use crate::store::{BoxFuture, MemoryStore};

/// Fails the first commands in turn. A failed command can be applied nevertheless.
struct Failing {
    store: MemoryStore,
    failures: Mutex<Vec<(StoreError, bool)>>,
}

impl Store for Failing {
    fn apply<'a>(
        &'a self,
        name: &'a RecordName,
        event: Event,
    ) -> BoxFuture<'a, Result<Answer, StoreError>> {
        let failure = self.failures.lock().unwrap().pop();
        Box::pin(async move {
            match failure {
                Some((error, applied)) => {
                    if applied {
                        self.store.apply(name, event).await?;
                    }
                    Err(error)
                }
                None => self.store.apply(name, event).await,
            }
        })
    }

    fn look<'a>(
        &'a self,
        name: &'a RecordName,
    ) -> BoxFuture<'a, Result<Option<RecordState>, StoreError>> {
        self.store.look(name)
    }
}

/// The record after `lock` failed because of these two errors.
async fn left_by(first: (StoreError, bool), second: (StoreError, bool)) -> Option<RecordState> {
    let store = Failing {
        store: MemoryStore::new(),
        failures: Mutex::new(vec![second, first]),
    };
    let request = DataActionRequest::new("refund", "{}").unwrap();
    let namespace: Namespace = "test".parse().unwrap();
    let name = RecordName::new(namespace.clone(), crate::IdempotencyKey::of(&request));
    let hashed = Execution::new(request, namespace);
    let progress = hashed.progress().clone();
    assert!(hashed.lock(&store, &Terms::default()).await.is_err());
    assert!(progress.is_finished());
    assert!(store.failures.lock().unwrap().is_empty());
    store.look(&name).await.unwrap()
}

/// I3: otherwise the key would stay locked as long as an indeterminate key, without a
/// report. Red if an error of the first or of the last command does not count as a lost
/// reply.
#[tokio::test(start_paused = true)]
async fn lease_with_lost_reply_is_released() {
    let lost = || StoreError::unavailable("no answer");
    let refused = StoreError::refused("out of memory");
    let unsent = StoreError::unsent("the breaker is open");
    for (first, second) in [
        ((lost(), true), (refused, false)),
        ((unsent, false), (lost(), true)),
    ] {
        let left = left_by(first, second).await;
        assert!(
            matches!(left, Some(RecordState::Released { .. })),
            "{left:?}"
        );
    }
}

/// A lease that was applied but is not durable does not count, and is released. Red if the
/// record stays locked.
#[cfg(feature = "redis")]
#[tokio::test(start_paused = true)]
async fn undurable_lease_is_released() {
    let store = Failing {
        store: MemoryStore::new(),
        failures: Mutex::new(vec![(StoreError::undurable("on one copy only"), true)]),
    };
    let request = DataActionRequest::new("refund", "{}").unwrap();
    let namespace: Namespace = "test".parse().unwrap();
    let name = RecordName::new(namespace.clone(), crate::IdempotencyKey::of(&request));
    let hashed = Execution::new(request, namespace);
    assert!(hashed.lock(&store, &Terms::default()).await.is_err());
    let left = store.look(&name).await.unwrap();
    assert!(
        matches!(left, Some(RecordState::Released { .. })),
        "{left:?}"
    );
}

/// A command that was never sent needs no release.
#[tokio::test(start_paused = true)]
async fn unsent_acquire_leaves_no_record() {
    let unsent = || (StoreError::unsent("the breaker is open"), false);
    let left = left_by(unsent(), unsent()).await;
    assert!(left.is_none(), "{left:?}");
}

/// Red without the check: a lease is acquired that is over, and a lease of
/// `Duration::MAX` overflows when a store adds the retention.
#[tokio::test]
async fn impossible_terms_never_reach_the_store() {
    type Change = fn(&mut Terms);
    let changes: [(&str, Change); 9] = [
        ("lease", |terms| terms.lease = Duration::ZERO),
        ("lease", |terms| terms.lease = Duration::MAX),
        ("result_ttl", |terms| terms.result_ttl = Duration::ZERO),
        ("result_ttl", |terms| terms.result_ttl = Duration::MAX),
        ("indeterminate_ttl", |terms| {
            terms.indeterminate_ttl = Duration::ZERO
        }),
        ("indeterminate_ttl", |terms| {
            terms.indeterminate_ttl = Duration::MAX
        }),
        ("indeterminate_ttl", |terms| {
            let shortest = terms.lease + terms.attempt_timeout;
            terms.indeterminate_ttl = shortest - Duration::from_millis(1);
        }),
        ("lease", |terms| terms.lease = Duration::from_millis(99)),
        ("max_response_bytes", |terms| terms.max_response_bytes = 0),
    ];
    for (named, change) in changes {
        let mut terms = Terms::default();
        change(&mut terms);
        let store = MemoryStore::new();
        let request = DataActionRequest::new("refund", "{}").unwrap();
        let namespace: Namespace = "test".parse().unwrap();
        let name = RecordName::new(namespace.clone(), crate::IdempotencyKey::of(&request));
        let hashed = Execution::new(request, namespace);
        let progress = hashed.progress().clone();
        match hashed.lock(&store, &terms).await {
            Err(Error::InvalidConfig { setting, .. }) => assert_eq!(setting, named),
            other => panic!("{named}: {other:?}"),
        }
        assert!(progress.is_finished());
        assert_eq!(store.look(&name).await.unwrap(), None, "{named}");
    }
}
