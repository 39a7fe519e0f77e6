//! The table alone: what it keeps of a key after the answer, and for how long.

use std::sync::{Arc, Weak};
use std::time::Duration;

use http::{HeaderMap, StatusCode};

use super::*;
use crate::key::Namespace;
use crate::outcome::{Outcome, Served};

mod relations;

const SECOND: Duration = Duration::from_secs(1);
const LIMITS: Limits = Limits {
    max_waiting: 100,
    recent_bytes: 1 << 20,
    recent_ttl: Duration::from_secs(60),
};

fn table(limits: Limits) -> Arc<Flights> {
    let namespace: Namespace = "test".parse().unwrap();
    let meters = Arc::new(Meters::new(&namespace));
    Flights::new(limits, OnDuplicate::Wait, "".into(), meters)
}

fn request(n: usize) -> DataActionRequest {
    DataActionRequest::new("refund", n.to_string()).unwrap()
}

fn first(flights: &Arc<Flights>, request: &DataActionRequest) -> FlightGuard {
    match flights.join_or_begin(request).unwrap() {
        Admission::First(_, guard) => *guard,
        other => panic!("{other:?}"),
    }
}

fn answer(guard: &FlightGuard, left: Duration) -> Arc<Outcome> {
    let outcome = Arc::new(Outcome::new(StatusCode::OK, HeaderMap::new(), "{}"));
    let reply = Reply::new(guard.key(), outcome.clone(), Served::Upstream);
    guard.answer(Ok(reply), left);
    outcome
}

fn is_recent(flights: &Arc<Flights>, request: &DataActionRequest) -> bool {
    matches!(flights.join_or_begin(request), Ok(Admission::Recent(reply)) if reply.served() == Served::Memory)
}

/// Whether a further caller would wait for the end of the flight.
fn follows(flights: &Arc<Flights>, request: &DataActionRequest) -> bool {
    matches!(flights.join_or_begin(request), Ok(Admission::Follows(_)))
}

/// Red when a finished flight leaves no outcome, or stays in the table.
#[tokio::test(start_paused = true)]
async fn outcome_is_recent_after_its_answer() {
    let flights = table(LIMITS);
    let (kept, gone) = (request(1), request(2));
    let guard = first(&flights, &kept);
    answer(&guard, SECOND);
    assert!(is_recent(&flights, &kept));
    drop(guard);
    assert!(is_recent(&flights, &kept));
    // The store does not replay this one.
    let guard = first(&flights, &gone);
    answer(&guard, Duration::ZERO);
    assert!(matches!(
        flights.join_or_begin(&gone),
        Ok(Admission::Joined(_))
    ));
    assert_eq!(flights.in_flight(), 1);
    drop(guard);
    assert_eq!((flights.in_flight(), flights.table.len()), (0, 1));
    tokio::time::advance(SECOND).await;
    // The key of the expired outcome begins a new flight.
    let guard = first(&flights, &kept);
    assert_eq!((flights.in_flight(), flights.capacity_used()), (1, 1));
    drop(guard);
    assert_eq!((flights.in_flight(), flights.table.len()), (0, 0));
}

/// Red when `forget` skips flights that are not finished, and when it only removes what
/// such a flight keeps by then: the store had forgotten the outcome, and memory got it
/// with the reply.
#[tokio::test(start_paused = true)]
async fn forgotten_outcome_is_not_recent_again() {
    let flights = table(LIMITS);
    let request = request(1);
    for forgotten_first in [false, true] {
        let guard = first(&flights, &request);
        if forgotten_first {
            flights.forget(&guard.key());
            assert!(follows(&flights, &request));
        }
        answer(&guard, SECOND);
        flights.forget(&guard.key());
        // Later callers do not get it either.
        assert!(follows(&flights, &request));
        drop(guard);
    }
    let guard = first(&flights, &request);
    answer(&guard, SECOND);
    let key = guard.key();
    drop(guard);
    assert!(is_recent(&flights, &request));
    flights.forget(&key);
    assert!(!is_recent(&flights, &request));
    assert_eq!(flights.recents.weight(), 0);
}

/// Red when `remember` does not ask: a caller might have joined after the full outcome
/// went to the store.
#[tokio::test(start_paused = true)]
async fn sensitive_caller_keeps_outcome_out_of_memory() {
    let flights = table(LIMITS);
    let request = request(1);
    let guard = first(&flights, &request);
    let sensitive = request.clone().sensitive();
    assert!(matches!(
        flights.join_or_begin(&sensitive),
        Ok(Admission::Joined(_))
    ));
    answer(&guard, SECOND);
    assert!(!is_recent(&flights, &request));
    drop(guard);
    assert!(!is_recent(&flights, &request));
}

/// I9. Red when `finished` evicts no outcome, and when it evicts one only.
#[tokio::test(start_paused = true)]
async fn table_keeps_only_the_latest_outcomes() {
    let flights = table(Limits {
        recent_bytes: 10 * 600,
        ..LIMITS
    });
    for n in 0..100 {
        let guard = first(&flights, &request(n));
        answer(&guard, SECOND);
    }
    assert!((5..=11).contains(&flights.table.len()));
    assert!(is_recent(&flights, &request(99)));
    assert!(!is_recent(&flights, &request(0)));
}

/// I9. Red without `expire`: an idle process kept its outcomes in memory, and the table
/// kept the capacity that a burst had reserved.
#[tokio::test(start_paused = true)]
async fn expired_outcomes_are_evicted_without_callers() {
    let flights = table(LIMITS);
    let expiring = tokio::spawn(flights.clone().expire());
    let mut outcomes = Vec::new();
    for n in 0..5_000 {
        let guard = first(&flights, &request(n));
        // The last outcome expires first.
        let left = if n == 4_999 { SECOND } else { 60 * SECOND };
        outcomes.push(Arc::downgrade(&answer(&guard, left)));
    }
    let kept =
        |outcomes: &[Weak<Outcome>]| outcomes.iter().filter(|o| o.strong_count() > 0).count();
    let reserved = flights.table.capacity();
    assert_eq!(kept(&outcomes), flights.table.len());
    // No caller comes meanwhile.
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(outcomes[4_999].strong_count(), 0);
    assert_eq!(kept(&outcomes), flights.table.len());
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!((kept(&outcomes), flights.table.len()), (0, 0));
    assert_eq!(flights.recents.weight(), 0);
    assert!(flights.table.capacity() * 8 < reserved);
    // And again.
    answer(&first(&flights, &request(1)), SECOND);
    tokio::time::sleep(3 * SECOND).await;
    assert_eq!(flights.table.len(), 0);
    expiring.abort();
}

/// Red when `close` keeps outcomes that no caller can get.
#[tokio::test(start_paused = true)]
async fn closed_table_keeps_no_outcome() {
    let flights = table(LIMITS);
    answer(&first(&flights, &request(1)), SECOND);
    let guard = first(&flights, &request(2));
    flights.close();
    assert_eq!(flights.table.len(), 1, "the flight under way");
    answer(&guard, SECOND);
    drop(guard);
    assert_eq!((flights.table.len(), flights.recents.weight()), (0, 0));
}

/// A guard that stays in a mailbox that nothing reads, as tokio's channel allows. Red if the end of
/// the table does not answer the flight.
#[tokio::test(start_paused = true)]
async fn ended_table_answers_every_flight() {
    let flights = table(LIMITS);
    let Ok(Admission::First(waiter, guard)) = flights.join_or_begin(&request(1)) else {
        panic!("the key is new");
    };
    flights.end();
    let answer = tokio::time::timeout(SECOND, waiter.answer()).await;
    assert!(matches!(answer.unwrap(), Err(Error::Stopped)));
    drop(guard);
    let refused = flights.join_or_begin(&request(2));
    assert!(matches!(refused, Err(Error::Stopped)));
    assert_eq!(flights.in_flight(), 0);
}
