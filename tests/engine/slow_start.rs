//! What follows a cooldown: one call first, turns that are given back, an operator that ends
//! the cooldown, and more actions with waiters than may be delayed without a cooldown.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use genesys_once::outcome::{Recovery, Verdict};
use genesys_once::testing::{ScriptedUpstream, Step};
use genesys_once::{DataActionRequest, Engine, RetryPolicy};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::cooldown::{ask, engine, limit};
use super::{SECOND, child, until};

const HOUR: Duration = Duration::from_secs(3600);

/// Seen red: nothing lifted a cooldown.
#[tokio::test(start_paused = true)]
async fn operator_ends_a_cooldown() {
    let refuse = Arc::new(AtomicBool::new(true));
    let refuses = refuse.clone();
    let upstream = ScriptedUpstream::new(move |_| match refuses.load(Ordering::SeqCst) {
        true => limit(&[("retry-after", "170")]),
        false => Step::ok("{}").after(SECOND),
    });
    let engine = engine(&upstream).await;
    engine.end_cooldown();
    let first = ask(&engine, 0);
    until("the cooldown has begun", || {
        !engine.stats().cooldown.is_zero()
    })
    .await;
    let crowd: Vec<_> = (1..20).map(|n| ask(&engine, n)).collect();
    sleep(SECOND).await;
    assert_eq!(upstream.ledger().total(), 1);
    // Too early: the probe is refused, and all others wait on.
    engine.end_cooldown();
    sleep(SECOND).await;
    assert_eq!(upstream.ledger().total(), 2);
    assert!(engine.stats().cooldown > 160 * SECOND);
    refuse.store(false, Ordering::SeqCst);
    let begun = Instant::now();
    engine.end_cooldown();
    assert_eq!(engine.stats().cooldown, Duration::ZERO);
    first.await.unwrap().unwrap();
    for caller in crowd {
        caller.await.unwrap().unwrap();
    }
    // Calls per second: 1, 2, 4, 8, 5.
    assert_eq!(begun.elapsed(), 5 * SECOND);
    assert_eq!(upstream.ledger().total(), 22);
}

/// How the first call after the cooldown can end.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ending {
    Silent,
    Slow,
    Reset,
    Refused,
    Panic,
    Kill,
    CallerLeaves,
    Replay,
}

/// Seen red: turns of silent calls had no time limit and kept the others waiting without
/// end; before that, all calls came at once.
#[tokio::test(start_paused = true)]
async fn turn_returns_however_execution_ends() {
    use Ending::*;
    for ending in [
        Silent,
        Slow,
        Reset,
        Refused,
        Panic,
        Kill,
        CallerLeaves,
        Replay,
    ] {
        let upstream = ScriptedUpstream::new(move |call| match (&call.body()[..], ending) {
            (b"0", _) if call.attempt() == 1 => limit(&[("retry-after", "10")]),
            (b"0", Silent | Kill) => Step::Silent,
            (b"0", Slow) => Step::ok("{}").after(30 * SECOND),
            (b"0", Reset) => Step::Reset.after(SECOND),
            (b"0", Refused) => Step::Refused.after(SECOND),
            (b"0", Panic) => Step::Panic.after(SECOND),
            _ => Step::ok("{}").after(SECOND / 10),
        });
        let engine = engine(&upstream).await;
        let first = ask(&engine, 0);
        until("the cooldown has begun", || {
            !engine.stats().cooldown.is_zero()
        })
        .await;
        let actor = child(&engine, 1);
        let crowd: Vec<_> = (1..=20).map(|n| ask(&engine, n)).collect();
        let begun = Instant::now();
        match ending {
            CallerLeaves => first.abort(),
            Kill => {
                sleep(10 * SECOND + SECOND / 2).await;
                assert_eq!(upstream.ledger().total(), 2);
                actor.kill();
            }
            _ => {}
        }
        for caller in crowd {
            caller.await.unwrap().unwrap();
        }
        let took = begun.elapsed();
        assert!(
            took >= 10 * SECOND && took < 15 * SECOND,
            "{ending:?}: {took:?}"
        );
    }
}

/// A turn that is not used for 2 s goes to the next execution, so that none waits for a
/// permit of another action. The tests in `src/actors/cooldown/gate.rs` were seen red for
/// this. The wait for a permit does not count towards the sum of waits.
#[tokio::test(start_paused = true)]
async fn turn_without_permit_blocks_no_other() {
    let upstream = ScriptedUpstream::new(|call| match &call.body()[..] {
        b"0" => limit(&[("retry-after", "10")]),
        b"1" | b"2" => Step::ok("{}").after(60 * SECOND),
        _ => Step::ok("{}"),
    });
    let engine = Engine::builder(upstream.clone()).max_in_flight_per_action(1);
    let retry = RetryPolicy::default().max_wait(5 * SECOND);
    let engine = engine.retry(retry).start().await.unwrap();
    let other = |payload: &str| {
        let request = DataActionRequest::new("custom_-_other", payload.to_owned()).unwrap();
        let engine = engine.clone();
        tokio::spawn(async move { engine.execute(request).await })
    };
    let begun = Instant::now();
    let slow = ask(&engine, 1);
    upstream.ledger().wait_for(1).await;
    assert!(other("0").await.unwrap().is_err());
    sleep_until(begun + 6 * SECOND).await;
    let first = ask(&engine, 2);
    until("the execution waits", || {
        engine.stats().backlog.cooldown.executions == 1
    })
    .await;
    let crowd: Vec<_> = (3..30).map(|n| other(&n.to_string())).collect();
    for caller in crowd {
        caller.await.unwrap().unwrap();
    }
    let took = begun.elapsed();
    assert!(took >= 10 * SECOND && took <= 13 * SECOND, "{took:?}");
    slow.await.unwrap().unwrap();
    first.await.unwrap().unwrap();
    assert_eq!(begun.elapsed(), 120 * SECOND);
}

/// Seen red if a cooldown with waiters is dropped for lack of room: 174 calls for each
/// action, and more without end.
#[tokio::test(start_paused = true)]
async fn relayed_limits_of_many_actions_end() {
    let remote = r#"{"details":[{"errorCode":"ACTION.REMOTE_ENDPOINT"}]}"#;
    let upstream = ScriptedUpstream::new(move |_| {
        Step::status(429, remote)
            .header("retry-after", "1")
            .after(SECOND / 100)
    });
    let engine = Engine::builder(upstream.clone())
        .classify(|_| Verdict::NotExecuted(Recovery::Retry))
        .retry(RetryPolicy::default().max_wait(20 * SECOND))
        .max_in_flight(2_000);
    let engine = engine.start().await.unwrap();
    let crowd: Vec<_> = (0..1_100)
        .map(|n| {
            let engine = engine.clone();
            let request = DataActionRequest::new(format!("action-{n}"), "{}").unwrap();
            tokio::spawn(async move { engine.execute_within(request, HOUR).await })
        })
        .collect();
    let all = async {
        for caller in crowd {
            assert!(caller.await.unwrap().is_err());
        }
    };
    timeout(60 * SECOND, all).await.unwrap();
    let each = upstream.ledger().total() / 1_100;
    assert!(each <= 11, "{each} calls for each");
}

/// A platform that accepts calls and answers them after a minute. Red without
/// `permits.pass.sent()` in `src/actors/flight/retry.rs`: a sent call counts as an unused
/// turn, and one call is sent every two seconds.
#[tokio::test(start_paused = true)]
async fn slow_calls_widen_the_slow_start() {
    let upstream = ScriptedUpstream::new(|call| match (&call.body()[..], call.attempt()) {
        (b"0", 1) => limit(&[("retry-after", "10")]),
        _ => Step::ok("{}").after(60 * SECOND),
    });
    let engine = engine(&upstream).await;
    let begun = Instant::now();
    let first = ask(&engine, 0);
    until("the cooldown has begun", || {
        !engine.stats().cooldown.is_zero()
    })
    .await;
    let crowd: Vec<_> = (1..=30).map(|n| ask(&engine, n)).collect();
    for (after, calls) in [(11, 1), (13, 3), (15, 7), (17, 15), (19, 31)] {
        sleep_until(begun + after * SECOND).await;
        assert_eq!(upstream.ledger().total(), 1 + calls, "after {after} s");
    }
    for caller in crowd.into_iter().chain([first]) {
        caller.await.unwrap().unwrap();
    }
}
