//! `Encrypted` around every store: it follows the protocol, decrypts only its own records,
//! and stores no part of an answer in readable form.

mod at_rest;
mod delegation;
mod engines;
mod protocol;
mod tampering;

use std::sync::Arc;
use std::time::Duration;

use genesys_once::error::StoreError;
use genesys_once::outcome::StoredBody;
use genesys_once::record::{
    Answer, Attempts, Claim, Event, Fingerprint, LeaseId, RecordName, RecordState, Refusal,
    StoredOutcome,
};
use genesys_once::{Encrypted, EncryptionKeys, IdempotencyKey, Outcome, Store};
use http::{HeaderMap, HeaderValue, StatusCode};

pub const LONG: Duration = Duration::from_secs(3600);

pub fn keys(id: &str, byte: u8) -> EncryptionKeys {
    EncryptionKeys::new(id, [byte; 32]).unwrap()
}

pub fn encrypted<S: Store>(store: S) -> Encrypted<S> {
    Encrypted::new(store, keys("k1", 1))
}

pub fn name(number: u8) -> RecordName {
    let key = IdempotencyKey::from_bytes([number; 32]);
    RecordName::new("test".parse().unwrap(), key)
}

pub fn claim(holder: u8) -> Claim {
    Claim {
        lease: LeaseId::from_bytes([holder; 16]),
        fingerprint: Fingerprint::from_bytes([9; 32]),
        lease_ttl: LONG,
        retention: 2 * LONG,
        attempts: Attempts::default(),
        about: Default::default(),
    }
}

/// An answer whose parts are easy to find.
pub fn outcome() -> Outcome {
    let mut headers = HeaderMap::new();
    headers.append("x-customer", HeaderValue::from_static("header-of-Anna"));
    let body = r#"{"customer":"body-of-Anna","card":"4929-1234"}"#;
    Outcome::new(StatusCode::CREATED, headers, body)
}

pub fn complete(holder: u8, outcome: Outcome, body: StoredBody) -> Event {
    let outcome = Arc::new(outcome);
    Event::Complete {
        claim: claim(holder),
        step: 0,
        stored: StoredOutcome { outcome, body },
        origin: Default::default(),
        ttl: LONG,
    }
}

pub fn release(holder: u8, outcome: Outcome) -> Event {
    Event::Release {
        claim: claim(holder),
        step: 1,
        verdict: Some(Refusal::Refused(outcome.into())),
    }
}

pub async fn done(store: &dyn Store, number: u8, event: Event) {
    let answer = store.apply(&name(number), event).await.unwrap();
    assert_eq!(answer, Answer::Done);
}

/// The outcome that a look returns, or why it is unreadable.
pub fn read(
    state: Result<Option<RecordState>, StoreError>,
) -> Result<(Arc<Outcome>, StoredBody), StoreError> {
    match state? {
        Some(RecordState::Cached { stored, .. }) => Ok((stored.outcome, stored.body)),
        Some(RecordState::Released {
            verdict: Some(Refusal::Refused(stored)),
            ..
        }) => Ok((stored.outcome, stored.body)),
        state => panic!("{state:?}"),
    }
}

/// Whether a look returns a released key without a refusal.
pub fn is_silent(state: Result<Option<RecordState>, StoreError>) -> bool {
    matches!(state, Ok(Some(RecordState::Released { verdict: None, .. })))
}

/// Why the record is unreadable.
pub fn reason(error: &StoreError) -> String {
    assert!(error.is_unreadable(), "{error:?}");
    std::error::Error::source(error).unwrap().to_string()
}
