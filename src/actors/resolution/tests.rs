//! Sightings of records whose age no other clock shows.

use super::*;
use crate::record::LeaseId;

const SECOND: Duration = Duration::from_secs(1);

fn key(n: usize) -> IdempotencyKey {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    IdempotencyKey::from_bytes(bytes)
}

fn seen(rev: u64) -> Revision {
    Revision {
        rev,
        lease: LeaseId::from_bytes([1; 16]),
    }
}

/// I9. Red if the wait of a known record begins again because another record is seen or the
/// memory is full. Red too if a changed record keeps its wait.
#[tokio::test(start_paused = true)]
async fn sightings_are_remembered_and_bounded() {
    let sightings = Sightings::default();
    let start = Instant::now();
    for n in 0..MAX_SIGHTINGS {
        assert_eq!(sightings.first_seen(key(n), seen(1)), start);
    }
    tokio::time::advance(SECOND).await;
    // The memory is full; a known record clears nothing.
    assert_eq!(sightings.first_seen(key(0), seen(1)), start);
    assert_eq!(sightings.first_seen(key(1), seen(1)), start);
    // The record has changed: another lost attempt, which might still be running.
    assert_eq!(sightings.first_seen(key(1), seen(2)), start + SECOND);
    sightings.forget(&key(2));
    assert_eq!(sightings.first_seen(key(2), seen(1)), start + SECOND);
    sightings.first_seen(key(MAX_SIGHTINGS), seen(1));
    assert!(sightings.0.lock().unwrap().len() <= MAX_SIGHTINGS);
}
