//! What an engine may still do that is older than its namespace requires.

use super::*;

/// Red where an engine that is older than its namespace's least writer takes over another
/// engine's lost lease.
#[tokio::test(start_paused = true)]
async fn outdated_engine_takes_over_nothing() {
    let store = crate::store::MemoryStore::new();
    let namespace = name().namespace;
    let newer = crate::record::WRITER + 1;
    store.least_writer(&namespace, newer).await.unwrap();
    store.apply(&name(), acquire()).await.unwrap();
    let revision = store.look(&name()).await.unwrap().unwrap().revision();
    advance(31 * SECOND).await;
    let breaker = BreakerStore::new(Arc::new(store.clone()), LIMIT, namespace);
    let Event::Acquire { mut claim } = acquire() else {
        unreachable!();
    };
    claim.lease = LeaseId::from_bytes([7; 16]);
    let take_over = Event::TakeOver {
        claim,
        revision,
        watched: false,
    };
    let error = breaker.apply(&name(), take_over).await.unwrap_err();
    assert_eq!(error.refusal(), Some(crate::error::RefusalKind::NotAllowed));
    let left = store.look(&name()).await.unwrap().unwrap();
    assert_eq!(left.revision(), revision);
}

/// One rule replays recorded outcomes, whatever prevents an engine from acquiring keys.
///
/// Red where a store that takes no writes returns the record of another request.
#[tokio::test(start_paused = true)]
async fn full_store_compares_fingerprints() {
    let (store, breaker) = breaker_store(Does::Refuse);
    *store.cached.lock().unwrap() = true;
    let Event::Acquire { mut claim } = acquire() else {
        unreachable!();
    };
    claim.fingerprint = Fingerprint::from_bytes([3; 32]);
    let answer = breaker.apply(&name(), Event::Acquire { claim }).await;
    assert_eq!(answer.unwrap(), Answer::Mismatch);
    let answer = breaker.apply(&name(), acquire()).await.unwrap();
    assert!(matches!(answer, Answer::Is(Some(_))), "{answer:?}");
}
