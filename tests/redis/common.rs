//! What these tests share: events of one execution, and a store that answers them.

use std::time::Duration;

use genesys_once::error::StoreError;
use genesys_once::record::{Answer, Attempts, Claim, Event, Fingerprint, LeaseId, RecordName};
use genesys_once::{IdempotencyKey, Outcome, RedisStore, Store};

pub fn name(number: u8) -> RecordName {
    RecordName::new(
        "test".parse().unwrap(),
        IdempotencyKey::from_bytes([number; 32]),
    )
}

pub fn claim(holder: u8) -> Claim {
    Claim {
        lease: LeaseId::from_bytes([holder; 16]),
        fingerprint: Fingerprint::from_bytes([9; 32]),
        lease_ttl: Duration::from_secs(60),
        retention: Duration::from_secs(3600),
        attempts: Attempts::default(),
        about: Default::default(),
    }
}

pub fn acquire(holder: u8) -> Event {
    Event::Acquire {
        claim: claim(holder),
    }
}

pub fn extend(holder: u8) -> Event {
    Event::Extend {
        claim: claim(holder),
        dispatched: Some(0),
    }
}

pub fn complete(holder: u8, body: &str) -> Event {
    let outcome = Outcome::new(
        http::StatusCode::OK,
        http::HeaderMap::new(),
        body.to_owned(),
    );
    Event::Complete {
        claim: claim(holder),
        step: 0,
        stored: outcome.into(),
        origin: Default::default(),
        ttl: Duration::from_secs(3600),
    }
}

pub async fn apply(store: &RedisStore, number: u8, event: Event) -> Result<Answer, StoreError> {
    store.apply(&name(number), event).await
}

/// An error and all its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        line = format!("{line}: {cause}");
        next = cause.source();
    }
    line
}
