//! The relation of further callers of a key to its flight.

use futures_util::FutureExt as _;

use super::*;
use crate::error::StoreError;
use crate::outcome::Reply;
use crate::record::{LeaseId, Version};

/// Requests with one caller-defined key.
fn mine(n: usize) -> DataActionRequest {
    request(n).with_key("order-42").unwrap()
}

fn follower(flights: &Arc<Flights>, request: &DataActionRequest) -> Follower {
    match flights.join_or_begin(request).unwrap() {
        Admission::Follows(follower) => follower,
        other => panic!("{other:?}"),
    }
}

fn joins(flights: &Arc<Flights>, request: &DataActionRequest) -> bool {
    matches!(flights.join_or_begin(request), Ok(Admission::Joined(_)))
}

fn is_refused(flights: &Arc<Flights>, request: &DataActionRequest) -> bool {
    matches!(
        flights.join_or_begin(request),
        Err(Error::PayloadMismatch { .. })
    )
}

/// A refusal, which is not recorded.
fn refuse(guard: &FlightGuard) {
    let outcome = Outcome::new(StatusCode::FORBIDDEN, HeaderMap::new(), "{}");
    let reply = Reply::new(guard.key(), outcome.into(), Served::Upstream);
    guard.answer(Ok(reply.with_recorded(false)), Duration::ZERO);
}

fn indeterminate(key: IdempotencyKey) -> Error {
    let version = Version {
        lease: LeaseId::from_bytes([1; 16]),
        fingerprint: Fingerprint::from_bytes([1; 32]),
    };
    Error::Indeterminate {
        key,
        version,
        since: std::time::SystemTime::UNIX_EPOCH,
        cause: "cut".into(),
    }
}

/// I6. Red when a flight's fingerprint counts before the store has confirmed it: the
/// owner of a key was refused because of another caller's mistake.
#[tokio::test(start_paused = true)]
async fn unconfirmed_fingerprint_refuses_no_request() {
    let flights = table(LIMITS);
    let (one, other) = (mine(1), mine(2));
    let guard = first(&flights, &one);
    assert!(joins(&flights, &one) && follows(&flights, &other));
    let mut waiting = Box::pin(follower(&flights, &other).passed());
    assert!(waiting.as_mut().now_or_never().is_none());
    guard.confirm(true);
    waiting.await.unwrap();
    assert!(joins(&flights, &one) && is_refused(&flights, &other));
    // The lease was released: any request can get the key.
    guard.confirm(false);
    assert!(joins(&flights, &one) && follows(&flights, &other));
    // The key belonged to the other request from the start.
    let waiting = follower(&flights, &other);
    let mismatch = Error::PayloadMismatch { key: guard.key() };
    guard.answer(Err(mismatch), Duration::ZERO);
    let mut waiting = Box::pin(waiting.passed());
    assert!(waiting.as_mut().now_or_never().is_none(), "not finished");
    drop(guard);
    waiting.await.unwrap();
    drop(first(&flights, &other));
}

/// Red when memory reports a mismatch: another process might have forgotten the
/// outcome, so only the store decides. Red too when the other request's flight removes
/// the outcome from memory.
#[tokio::test(start_paused = true)]
async fn memory_never_reports_a_mismatch() {
    let flights = table(LIMITS);
    let (one, other) = (mine(1), mine(2));
    answer(&first(&flights, &one), 60 * SECOND);
    let weight = flights.recents.weight();
    let guard = first(&flights, &other);
    assert!(is_recent(&flights, &one));
    let mismatch = Error::PayloadMismatch { key: guard.key() };
    guard.answer(Err(mismatch), Duration::ZERO);
    assert!(is_recent(&flights, &one) && follows(&flights, &other));
    drop(guard);
    assert!(is_recent(&flights, &one));
    assert_eq!(flights.recents.weight(), weight);
    // The key belongs to the other request now.
    let guard = first(&flights, &other);
    guard.confirm(true);
    answer(&guard, 60 * SECOND);
    drop(guard);
    assert!(is_recent(&flights, &other) && !is_recent(&flights, &one));
}

/// I9. Red if a larger outcome has no larger weight.
#[tokio::test(start_paused = true)]
async fn outcome_weight_follows_its_size() {
    let flights = table(LIMITS);
    let (light, large) = (first(&flights, &mine(1)), first(&flights, &request(2)));
    answer(&light, 60 * SECOND);
    drop(light);
    let one = flights.recents.weight();
    let outcome = Outcome::new(StatusCode::OK, HeaderMap::new(), vec![b' '; 1002]);
    let reply = Reply::new(large.key(), outcome.into(), Served::Upstream);
    large.answer(Ok(reply), 60 * SECOND);
    drop(large);
    assert_eq!(flights.recents.weight() - one, one + 1000);
}

/// The expiry of an earlier outcome does not remove a later outcome of its key. Red when
/// expired outcomes are removed by key alone.
#[tokio::test(start_paused = true)]
async fn later_outcome_survives_expiry_of_earlier() {
    let flights = table(LIMITS);
    let _expiring = tokio::spawn(flights.clone().expire());
    let (one, other) = (mine(1), mine(2));
    answer(&first(&flights, &one), 60 * SECOND);
    tokio::time::sleep(30 * SECOND).await;
    let guard = first(&flights, &other);
    guard.confirm(true);
    answer(&guard, 60 * SECOND);
    drop(guard);
    assert!(is_recent(&flights, &other));
    tokio::time::sleep(40 * SECOND).await;
    assert!(is_recent(&flights, &other));
    tokio::time::sleep(25 * SECOND).await;
    assert!(!is_recent(&flights, &other));
}

/// Red when callers that come after a refusal or an error get it while the flight's
/// record is not finished.
#[tokio::test(start_paused = true)]
async fn later_callers_follow_a_failed_flight() {
    let flights = table(LIMITS);
    let (one, other) = (mine(1), mine(2));
    for answers in [refuse as fn(&FlightGuard), |guard| {
        guard.answer(Err(Error::Stopped), Duration::ZERO)
    }] {
        let guard = first(&flights, &one);
        guard.confirm(true);
        let Admission::Joined(before) = flights.join_or_begin(&one).unwrap() else {
            panic!("it is in flight")
        };
        answers(&guard);
        assert!(before.answer().now_or_never().is_some());
        assert!(follows(&flights, &one) && follows(&flights, &other));
        let waiting = [follower(&flights, &one), follower(&flights, &other)];
        drop(guard);
        for follower in waiting {
            follower.passed().await.unwrap();
        }
        drop(first(&flights, &one));
    }
}

/// Red when later callers wait although the answer applies to them.
#[tokio::test(start_paused = true)]
async fn later_callers_join_outcome_or_indeterminate() {
    let flights = table(LIMITS);
    let (one, other) = (mine(1), mine(2));
    for answers in [
        (|guard| drop(answer(guard, Duration::ZERO))) as fn(&FlightGuard),
        |guard| guard.answer(Err(indeterminate(guard.key())), Duration::ZERO),
    ] {
        let guard = first(&flights, &one);
        guard.confirm(true);
        answers(&guard);
        let Admission::Joined(late) = flights.join_or_begin(&one).unwrap() else {
            panic!("the answer is set")
        };
        assert!(late.answer().now_or_never().is_some());
        assert!(is_refused(&flights, &other));
    }
}

/// Red when followers wait for as long as the store is unavailable.
#[tokio::test(start_paused = true)]
async fn failed_finish_is_reported_to_followers() {
    let flights = table(LIMITS);
    let one = mine(1);
    let guard = first(&flights, &one);
    guard.not_finished(&StoreError::unavailable("before"));
    refuse(&guard);
    let mut waiting = Box::pin(follower(&flights, &one).passed());
    assert!(
        waiting.as_mut().now_or_never().is_none(),
        "the next attempt"
    );
    guard.not_finished(&StoreError::unavailable("after"));
    let error = waiting.await.unwrap_err();
    let Error::StoreUnavailable { source } = &error else {
        panic!("{error}")
    };
    let cause = std::error::Error::source(source).unwrap();
    assert_eq!(cause.to_string(), "after");
    let mut next = Box::pin(follower(&flights, &one).passed());
    assert!(next.as_mut().now_or_never().is_none(), "the one after it");
}

/// I9, and the answers of fail-fast. Red when a follower takes no capacity.
#[tokio::test(start_paused = true)]
async fn follower_counts_towards_max_waiting() {
    let max_waiting = 3;
    let flights = table(Limits {
        max_waiting,
        ..LIMITS
    });
    let guard = first(&flights, &mine(1));
    let waiting = follower(&flights, &mine(2));
    let Admission::Joined(joined) = flights.join_or_begin(&mine(1)).unwrap() else {
        panic!("it is in flight")
    };
    let full = flights.join_or_begin(&mine(2));
    assert!(matches!(full, Err(Error::Overloaded { .. })), "{full:?}");
    drop((waiting, joined));
    assert_eq!(flights.capacity_used(), 1);
    drop(guard);
    assert_eq!(flights.capacity_used(), 0);

    let meters = Arc::new(Meters::new(&"test".parse().unwrap()));
    let fast = Flights::new(LIMITS, OnDuplicate::FailFast, "".into(), meters);
    let guard = first(&fast, &mine(1));
    for request in [mine(1), mine(2)] {
        let answer = fast.join_or_begin(&request);
        assert!(
            matches!(answer, Err(Error::InProgress { .. })),
            "{answer:?}"
        );
    }
    // A caller does not wait for an answer that is set.
    guard.answer(Err(indeterminate(guard.key())), Duration::ZERO);
    assert!(joins(&fast, &mine(1)));
}
