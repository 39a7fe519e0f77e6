//! Lists in pieces, and what expires in an idle process.

use futures_util::FutureExt as _;
use tokio::runtime::Handle;
use tokio::time::sleep;

use super::*;
use crate::key::Fingerprint;
use crate::outcome::Outcome;
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
        stored: outcome.into(),
        origin: Default::default(),
        ttl: DAY,
    }
}

/// How many pages a list has, and what is on them.
fn list(store: &MemoryStore, mut query: ListQuery) -> (usize, usize) {
    let namespace = name(0).namespace;
    let (mut pages, mut found) = (0, 0);
    loop {
        let page = store.list(&namespace, &query).now_or_never().unwrap();
        let page = page.unwrap();
        assert!(page.examined <= PIECE && page.records.len() <= query.limit());
        (pages, found) = (pages + 1, found + page.records.len());
        match page.next {
            Some(next) => query = query.after(next),
            None => return (pages, found),
        }
    }
}

/// Red when a list walks all records under one lock: it was one page.
#[tokio::test(start_paused = true)]
async fn list_walks_records_in_pieces() {
    let store = MemoryStore::new();
    for number in 0..3 * PIECE {
        done(&store, number, Event::Acquire { claim: claim() });
    }
    tokio::time::advance(Duration::from_secs(31)).await;
    let open = ListQuery::indeterminate;
    assert_eq!(list(&store, open()), (3, 3 * PIECE));
    assert_eq!(list(&store, open().with_limit(PIECE / 2)), (6, 3 * PIECE));
    assert_eq!(list(&store, open().with_limit(usize::MAX)), (3, 3 * PIECE));
    for number in 1..3 * PIECE {
        done(&store, number, completed());
    }
    assert_eq!(list(&store, open()), (3, 1));
    assert_eq!(list(&store, ListQuery::all()), (3, 3 * PIECE));
    tokio::time::advance(2 * DAY).await;
    for number in 0..PIECE {
        done(&store, number, completed());
    }
    {
        let records = store.lock();
        assert_eq!(
            records.keys.values().map(BTreeSet::len).sum::<usize>(),
            records.by_name.len()
        );
    }
    assert_eq!(list(&store, ListQuery::all()).1, PIECE);
}

/// I9. Red without the task: what is expired stayed in an idle process. Red
/// too when the task outlives its store.
#[tokio::test(start_paused = true)]
async fn expired_records_leave_an_idle_process() {
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let store = MemoryStore::new();
    let complete = |number, ttl| {
        let mut event = completed();
        let Event::Complete {
            stored, ttl: lasts, ..
        } = &mut event
        else {
            unreachable!()
        };
        *lasts = ttl;
        let weak = Arc::downgrade(&stored.outcome);
        done(&store, number, event);
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
