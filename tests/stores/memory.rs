//! `MemoryStore` in the conformance suite, and the life of a record.

use std::time::Duration;

use genesys_once::record::{Attempts, Claim, Event, Fingerprint, LeaseId, RecordName, RecordState};
use genesys_once::testing::store_conformance;
use genesys_once::{IdempotencyKey, MemoryStore, Outcome, Store};
use tokio::time::advance;

#[tokio::test(start_paused = true)]
async fn memory_store_conforms() {
    store_conformance(MemoryStore::new(), tokio::time::advance).await;
}

/// A record lives as long as its last write says. Red if the time of an earlier state still
/// ends it: an outcome was gone ten minutes after an earlier release of its key.
#[tokio::test(start_paused = true)]
async fn record_lives_by_its_last_ttl() {
    const MINUTE: Duration = Duration::from_secs(60);
    let store = MemoryStore::new();
    let name = |number| {
        RecordName::new(
            "test".parse().unwrap(),
            IdempotencyKey::from_bytes([number; 32]),
        )
    };
    let claim = Claim {
        lease: LeaseId::from_bytes([1; 16]),
        fingerprint: Fingerprint::from_bytes([9; 32]),
        lease_ttl: MINUTE / 2,
        retention: 60 * MINUTE,
        attempts: Attempts::default(),
        about: Default::default(),
    };
    let release = Event::Release {
        claim: claim.clone(),
        step: 1,
        refusal: None,
    };
    let complete = Event::Complete {
        claim: claim.clone(),
        step: 1,
        stored: Outcome::new(Default::default(), Default::default(), "{}").into(),
        origin: Default::default(),
        ttl: 60 * MINUTE,
    };
    for event in [release, complete] {
        store.apply(&name(1), event).await.unwrap();
    }
    for later in 0..5 {
        advance(11 * MINUTE).await;
        // Each write removes expired records.
        let acquire = Event::Acquire {
            claim: claim.clone(),
        };
        store.apply(&name(2 + later), acquire).await.unwrap();
        let state = store.look(&name(1)).await.unwrap();
        assert!(
            matches!(state, Some(RecordState::Cached { .. })),
            "{state:?}"
        );
    }
    advance(6 * MINUTE).await;
    assert_eq!(store.look(&name(1)).await.unwrap(), None);
}
