//! What a further caller of a key has to do with the flight that it finds.

use futures_util::FutureExt as _;

use super::*;
use crate::error::StoreError;
use crate::outcome::Reply;
use crate::record::{LeaseId, Version};

/// Two requests under one key of the caller's.
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

/// A refusal, which nobody records.
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

/// I6. Red when a flight's fingerprint decides before the store has confirmed
/// it: the rightful owner of a key was refused for somebody's slip.
#[tokio::test(start_paused = true)]
async fn a_claim_decides_nothing_for_another_request() {
    let flights = table(LIMITS);
    let (one, other) = (mine(1), mine(2));
    let guard = first(&flights, &one);
    assert!(joins(&flights, &one) && follows(&flights, &other));
    let mut waiting = Box::pin(follower(&flights, &other).passed());
    assert!(waiting.as_mut().now_or_never().is_none());
    guard.confirm(true);
    waiting.await.unwrap();
    assert!(joins(&flights, &one) && is_refused(&flights, &other));
    // The lease was given back: the key is anybody's.
    guard.confirm(false);
    assert!(joins(&flights, &one) && follows(&flights, &other));
    // It was the other one's all the time.
    let waiting = follower(&flights, &other);
    let mismatch = Error::PayloadMismatch { key: guard.key() };
    guard.answer(Err(mismatch), Duration::ZERO);
    let mut waiting = Box::pin(waiting.passed());
    assert!(waiting.as_mut().now_or_never().is_none(), "not settled yet");
    drop(guard);
    waiting.await.unwrap();
    drop(first(&flights, &other));
}

/// Red when memory refuses another request: somebody elsewhere may have forgotten
/// what it has, so that the store decides. Red too when the other one's flight
/// takes it out of memory.
#[tokio::test(start_paused = true)]
async fn memory_answers_and_refuses_nobody() {
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
    // The key is the other one's by now.
    let guard = first(&flights, &other);
    guard.confirm(true);
    answer(&guard, 60 * SECOND);
    drop(guard);
    assert!(is_recent(&flights, &other) && !is_recent(&flights, &one));
}

/// I9. Red where a larger outcome does not count for more.
#[tokio::test(start_paused = true)]
async fn an_outcome_weighs_what_it_holds() {
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

/// The time of what memory had before ends nothing that it has now. Red when what
/// is over is removed by its key alone.
#[tokio::test(start_paused = true)]
async fn an_outcome_outlives_the_one_before_it() {
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

/// Red when a refusal, or an error, of a flight that is not settled yet is handed
/// to those who come after it.
#[tokio::test(start_paused = true)]
async fn what_says_only_how_an_execution_went_is_not_for_those_who_come_later() {
    let flights = table(LIMITS);
    let (one, other) = (mine(1), mine(2));
    for answers in [refuse as fn(&FlightGuard), |guard| {
        guard.answer(Err(Error::Stopped), Duration::ZERO)
    }] {
        let guard = first(&flights, &one);
        guard.confirm(true);
        let Admission::Joined(before) = flights.join_or_begin(&one).unwrap() else {
            panic!("it is under way")
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

/// Red when those who come later wait for an answer that holds for them.
#[tokio::test(start_paused = true)]
async fn an_outcome_and_a_doubt_are_for_those_who_come_later_too() {
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
            panic!("it is handed out")
        };
        assert!(late.answer().now_or_never().is_some());
        assert!(is_refused(&flights, &other));
    }
}

/// Red when those who come later wait for as long as the store is down.
#[tokio::test(start_paused = true)]
async fn a_try_to_finish_that_fails_is_told_to_those_who_came_before_it() {
    let flights = table(LIMITS);
    let one = mine(1);
    let guard = first(&flights, &one);
    guard.not_finished(&StoreError::unavailable("before"));
    refuse(&guard);
    let mut waiting = Box::pin(follower(&flights, &one).passed());
    assert!(waiting.as_mut().now_or_never().is_none(), "the next try");
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

/// I9, and what fail-fast says. Red when a follower takes no place.
#[tokio::test(start_paused = true)]
async fn a_follower_is_one_of_those_who_wait() {
    let max_waiting = 3;
    let flights = table(Limits {
        max_waiting,
        ..LIMITS
    });
    let guard = first(&flights, &mine(1));
    let waiting = follower(&flights, &mine(2));
    let Admission::Joined(joined) = flights.join_or_begin(&mine(1)).unwrap() else {
        panic!("it is under way")
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
        let told = fast.join_or_begin(&request);
        assert!(matches!(told, Err(Error::InProgress { .. })), "{told:?}");
    }
    // An answer that is there is nothing to wait for.
    guard.answer(Err(indeterminate(guard.key())), Duration::ZERO);
    assert!(joins(&fast, &mine(1)));
}
