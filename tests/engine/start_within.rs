//! `start_within`: nothing is sent after the limit of all callers, even if a cooldown begins
//! at the last moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use genesys_once::record::Event;
use genesys_once::testing::{Fault, FaultyStore, ScriptedUpstream, Step};
use genesys_once::{
    DataActionRequest, Engine, Error, IdempotencyKey, MemoryStore, OnUnknown, Reply, RetryHint,
    Served,
};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::{SECOND, request, until};

/// The platform's cooldown lasts 60 s after this.
const WARM_UP: &str = "0";

fn ask(engine: &Engine, request: DataActionRequest) -> JoinHandle<Result<Reply, Error>> {
    let engine = engine.clone();
    tokio::spawn(async move { engine.execute(request).await })
}

/// An engine in a cooldown of 60 s.
async fn held_back() -> (Engine, ScriptedUpstream) {
    let upstream = ScriptedUpstream::new(|call| match (&call.body()[..], call.attempt()) {
        (b"0", 1) => Step::status(429, "{}").header("retry-after", "60"),
        _ => Step::ok("{}"),
    });
    let engine = Engine::builder(upstream.clone()).start().await.unwrap();
    let _first = ask(&engine, request(WARM_UP));
    until("the cooldown has begun", || {
        !engine.stats().cooldown.is_zero()
    })
    .await;
    (engine, upstream)
}

fn calls(upstream: &ScriptedUpstream, request: &DataActionRequest) -> usize {
    upstream.ledger().calls(&IdempotencyKey::of(request))
}

/// Seen red: the caller gave up, the cooldown ended, and the request was sent.
///
/// Red without `expired` in `Flight::ready`.
#[tokio::test(start_paused = true)]
async fn nothing_is_sent_after_the_limit() {
    let (engine, upstream) = held_back().await;
    let begun = Instant::now();
    let late = request("1").start_within(20 * SECOND).unwrap();
    // The caller gives up long before that.
    let gone = engine.execute_within(late.clone(), SECOND).await;
    assert!(matches!(gone, Err(Error::DeadlineExceeded { .. })));
    sleep(120 * SECOND).await;
    assert_eq!(calls(&upstream, &late), 0);
    assert_eq!(engine.stats().executions, 0);

    let (engine, upstream) = held_back().await;
    let waited = Instant::now();
    let error = engine.execute(late.clone()).await.unwrap_err();
    assert!(matches!(error, Error::Expired { .. }), "{error}");
    assert_eq!(error.code(), "expired");
    assert_eq!(error.key(), Some(IdempotencyKey::of(&late)));
    assert!(matches!(error.hint(), RetryHint::After(_)));
    assert_eq!(waited.elapsed(), 20 * SECOND);
    assert!(begun < waited);
    // Proven not executed: the next request executes.
    let reply = engine.execute(late.clone().start_within(120 * SECOND).unwrap());
    assert!(reply.await.unwrap().is_success());
    assert_eq!(calls(&upstream, &late), 1);
}

/// Red if the first limit counts, or the shortest.
#[tokio::test(start_paused = true)]
async fn latest_limit_of_the_joined_counts() {
    for second in [Some(90), None] {
        let (engine, upstream) = held_back().await;
        let short = request("1").start_within(20 * SECOND).unwrap();
        let long = match second {
            Some(s) => request("1").start_within(Duration::from_secs(s)).unwrap(),
            None => request("1"),
        };
        let first = ask(&engine, short.clone());
        sleep(SECOND).await;
        let second = ask(&engine, long);
        for answer in [first, second] {
            assert!(answer.await.unwrap().unwrap().is_success());
        }
        assert_eq!(calls(&upstream, &short), 1);
    }
}

/// The limit of a caller runs on while the caller waits for another request's flight under
/// its key.
///
/// Red if the limit begins again once that flight has ended: sent at 60 s.
#[tokio::test(start_paused = true)]
async fn start_limit_counts_over_flights() {
    let upstream = ScriptedUpstream::new(|call| match (&call.body()[..], call.attempt()) {
        (b"0", 1) => Step::status(429, "{}").header("retry-after", "60"),
        (b"1", _) => Step::status(404, "{}"),
        _ => Step::ok("{}"),
    });
    let engine = Engine::builder(upstream.clone()).start().await.unwrap();
    let _first = ask(&engine, request(WARM_UP));
    until("the cooldown has begun", || {
        !engine.stats().cooldown.is_zero()
    })
    .await;
    let own = |payload| request(payload).with_key("own").unwrap();
    let other = ask(&engine, own("1"));
    sleep(SECOND).await;
    let late = own("2").start_within(20 * SECOND).unwrap();
    let error = engine.execute(late).await.unwrap_err();
    assert!(matches!(error, Error::Expired { .. }), "{error}");
    assert_eq!(other.await.unwrap().unwrap().status(), 404);
    assert_eq!(upstream.ledger().total(), 3);
}

/// A caller without a limit joins while a flight ends because of another caller's limit.
///
/// Red if the late caller gets the error that the flight ends with.
#[tokio::test(start_paused = true)]
async fn late_joining_caller_is_executed() {
    let slow = FaultyStore::new(MemoryStore::new(), |operation| match operation.event {
        Some(Event::Release { .. } | Event::Acquire { .. }) => Fault::Late(SECOND),
        _ => Fault::Pass,
    });
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}"));
    let engine = Engine::builder(upstream.clone()).store(slow);
    let engine = engine.start().await.unwrap();
    let first = ask(&engine, request("1").start_within(SECOND / 2).unwrap());
    // The lease is acquired after the limit, and the release takes another second.
    sleep(SECOND + SECOND / 2).await;
    let second = engine.execute(request("1")).await;
    assert!(matches!(first.await.unwrap(), Err(Error::Expired { .. })));
    assert!(second.unwrap().is_success());
    assert_eq!(upstream.ledger().total(), 1);
}

/// The limit passes between the last wait and the send: while the store verifies the lease.
///
/// Red without both checks of the limit: the check behind `dispatch` and the check in
/// `Call::may_leave`. Either alone is enough.
#[tokio::test(start_paused = true)]
async fn limit_is_looked_at_right_before_sending() {
    let slow = FaultyStore::new(MemoryStore::new(), |operation| match operation.event {
        Some(Event::Acquire { .. }) => Fault::Late(SECOND),
        _ => Fault::Pass,
    });
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}"));
    let engine = Engine::builder(upstream.clone()).store(slow);
    let engine = engine.start().await.unwrap();
    let late = request("1").start_within(SECOND / 2).unwrap();
    let error = engine.execute(late.clone()).await.unwrap_err();
    assert!(matches!(error, Error::Expired { .. }), "{error}");
    assert_eq!(upstream.ledger().total(), 0);
    // The key is free at once.
    engine.execute(request("1")).await.unwrap();
    // A recorded outcome is replayed, however late.
    let at_once = request("1").start_within(Duration::ZERO).unwrap();
    let reply = engine.execute(at_once).await.unwrap();
    assert_eq!(reply.served(), Served::Memory);
}

/// An attempt that might have been executed outweighs the limit.
///
/// Red if such a flight ends with `Expired`.
#[tokio::test(start_paused = true)]
async fn unknown_outcome_is_never_called_expired() {
    let upstream = ScriptedUpstream::new(|_| Step::Reset);
    let engine = Engine::builder(upstream.clone()).on_unknown(OnUnknown::Retry);
    let engine = engine.start().await.unwrap();
    let late = request("1").start_within(SECOND / 10).unwrap();
    let error = engine.execute(late).await.unwrap_err();
    assert!(matches!(error, Error::Indeterminate { .. }), "{error}");
    assert_eq!(upstream.ledger().total(), 1);
}

/// A cooldown begins while a lease is acquired: the call that was ready waits.
///
/// Red without the check of the cooldown behind `dispatch`: the call was sent into the
/// cooldown.
#[tokio::test(start_paused = true)]
async fn cooldown_is_looked_at_right_before_sending() {
    let acquires = Arc::new(AtomicUsize::new(0));
    let slow = FaultyStore::new(MemoryStore::new(), move |operation| match operation.event {
        // The second key's acquire: the first key's 429 comes meanwhile.
        Some(Event::Acquire { .. }) if acquires.fetch_add(1, Ordering::SeqCst) == 1 => {
            Fault::Late(SECOND)
        }
        _ => Fault::Pass,
    });
    let upstream = ScriptedUpstream::new(|call| match (&call.body()[..], call.attempt()) {
        (b"0", 1) => Step::status(429, "{}")
            .header("retry-after", "60")
            .after(SECOND / 2),
        _ => Step::ok("{}"),
    });
    let engine = Engine::builder(upstream.clone()).store(slow);
    let engine = engine.start().await.unwrap();
    let begun = Instant::now();
    let first = ask(&engine, request(WARM_UP));
    upstream.ledger().wait_for(1).await;
    let second = ask(&engine, request("1"));
    assert!(second.await.unwrap().unwrap().is_success());
    assert!(begun.elapsed() >= 60 * SECOND, "{:?}", begun.elapsed());
    assert!(first.await.unwrap().unwrap().is_success());
    assert_eq!(upstream.ledger().total(), 3);
}
