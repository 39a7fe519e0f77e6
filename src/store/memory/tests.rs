//! Lists in pieces, and what expires in an idle process.

use futures_util::FutureExt as _;
use tokio::runtime::Handle;
use tokio::time::sleep;

use super::*;
use crate::key::Fingerprint;
use crate::outcome::{Kept, Outcome};
use crate::record::{Attempts, Claim, LeaseId};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn name(number: usize) -> RecordName {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&number.to_le_bytes());
    RecordName::new("unit".parse().unwrap(), IdempotencyKey::from_bytes(key))
}

fn claim() -> Claim {
    Claim {
        lease: LeaseId::from_bytes([1; 16]),
        fingerprint: Fingerprint::from_bytes([7; 32]),
        lease_ttl: Duration::from_secs(30),
        retention: DAY,
        attempts: Attempts::default(),
        about: Default::default(),
    }
}

fn done(store: &MemoryStore, number: usize, event: Event) {
    let answer = store.apply(&name(number), event).now_or_never().unwrap();
    assert_eq!(answer.unwrap(), Answer::Done);
}

fn completed() -> Event {
    let outcome = Outcome::new(http::StatusCode::OK, http::HeaderMap::new(), "{}");
    Event::Complete {
        claim: claim(),
        step: 1,
        outcome: Arc::new(outcome),
        kept: Kept::Whole,
        origin: Default::default(),
        ttl: DAY,
    }
}

/// How often a list gives way to other tasks, and what it found.
fn list(store: &MemoryStore, limit: usize) -> (usize, usize) {
    let namespace = name(0).namespace;
    let mut listing = store.unresolved(&namespace, limit);
    for polled in 0.. {
        if let Some(found) = (&mut listing).now_or_never() {
            return (polled, found.unwrap().len());
        }
    }
    unreachable!()
}

/// Red when a list walks all records under one lock: it gave way 0 times.
#[tokio::test(start_paused = true)]
async fn list_walks_unsettled_records_in_pieces() {
    let store = MemoryStore::new();
    for number in 0..3 * PIECE {
        done(&store, number, Event::Acquire { claim: claim() });
    }
    tokio::time::advance(Duration::from_secs(31)).await;
    assert_eq!(list(&store, usize::MAX), (3, 3 * PIECE));
    assert_eq!(list(&store, PIECE + 1), (1, PIECE + 1));
    assert_eq!(list(&store, 0), (0, 0));
    // Outcomes are not walked, and neither are other namespaces.
    for number in 1..3 * PIECE {
        done(&store, number, completed());
    }
    assert_eq!(list(&store, usize::MAX), (0, 1));
    tokio::time::advance(2 * DAY).await;
    for number in 0..3 * PIECE {
        done(&store, number, completed());
    }
    assert_eq!(store.lock().unsettled.len(), 0);
}

/// I9. Red without the task: what is expired stayed in an idle process. Red
/// too when the task outlives its store.
#[tokio::test(start_paused = true)]
async fn expired_records_leave_an_idle_process() {
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let store = MemoryStore::new();
    let complete = |number, ttl| {
        let Event::Complete { outcome, .. } = &mut completed() else {
            unreachable!()
        };
        let outcome = outcome.clone();
        let weak = Arc::downgrade(&outcome);
        let (claim, step, kept) = (claim(), 1, Kept::Whole);
        let origin = Default::default();
        done(
            &store,
            number,
            Event::Complete {
                claim,
                step,
                outcome,
                kept,
                origin,
                ttl,
            },
        );
        weak
    };
    let mut outcomes: Vec<_> = (1..=100).map(|number| complete(number, DAY)).collect();
    outcomes.push(complete(0, Duration::from_secs(1)));
    assert_eq!(tasks(), 1);
    sleep(Duration::from_secs(3)).await;
    assert_eq!(outcomes.pop().unwrap().strong_count(), 0);
    assert!(outcomes.iter().all(|outcome| outcome.strong_count() == 1));
    sleep(DAY).await;
    assert!(outcomes.iter().all(|outcome| outcome.strong_count() == 0));
    assert_eq!(tasks(), 0, "nothing is left to remove");
    let again = complete(0, Duration::from_secs(1));
    sleep(Duration::from_secs(3)).await;
    assert_eq!(again.strong_count(), 0);
    complete(0, DAY);
    drop(store);
    tokio::task::yield_now().await;
    assert_eq!(tasks(), 0, "the store is gone");
}
