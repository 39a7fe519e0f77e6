//! What becomes of a lease whose acquire was answered with errors only: it may
//! be in the store, and is given back. And by which terms no lease is taken.

use std::sync::Mutex;
use std::time::Duration;

use super::*;
use crate::store::{BoxFuture, MemoryStore};

/// Fails the first commands in turn; one that fails may be applied all the same.
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

/// What stands in the store after a key could not be taken because of these two.
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

/// I3: nobody would be told, and the key held for as long as an unknown one.
/// Red where either error is not taken for a reply that may be lost: that of the
/// first try, and that of the last.
#[tokio::test(start_paused = true)]
async fn a_lease_that_may_be_in_the_store_is_given_back() {
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

/// What a store took and does not vouch for is no lease, and is given back. Red
/// where the record stays locked.
#[cfg(feature = "redis")]
#[tokio::test(start_paused = true)]
async fn a_lease_that_is_not_durable_is_given_back() {
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

/// What was never sent leaves nothing to give back, and sends no release.
#[tokio::test(start_paused = true)]
async fn what_was_not_sent_leaves_nothing() {
    let unsent = || (StoreError::unsent("the breaker is open"), false);
    let left = left_by(unsent(), unsent()).await;
    assert!(left.is_none(), "{left:?}");
}

/// Red without the check: the key is taken by a lease that is over, and one of
/// `Duration::MAX` overflows where a store adds the retention to it.
#[tokio::test]
async fn impossible_terms_are_refused_before_the_store_is_asked() {
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
