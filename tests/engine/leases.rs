//! A lease is extended, and a record finished, while an actor lives that can do so: through
//! outages of the store that are shorter than a lease, and longer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use genesys_once::record::{Event, Phase, RecordState};
use genesys_once::testing::{Fault, FaultyStore, ScriptedUpstream, Step};
use genesys_once::{
    Engine, EngineBuilder, Error, IdempotencyKey, MemoryStore, Reply, RetryPolicy, Served,
};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use super::outage::{faulty, state, switch};
use super::{SECOND, child, request, until};

const MS: Duration = Duration::from_millis(1);

fn slow_platform() -> ScriptedUpstream {
    ScriptedUpstream::new(|call| match call.request().payload().as_ref() {
        b"{}" => Step::ok("{}").after(60 * SECOND),
        _ => Step::ok("{}"),
    })
}

/// A store that fails with this fault between two moments, counted from now.
fn outage(store: &MemoryStore, from: Duration, to: Duration, fault: Fault) -> FaultyStore {
    let start = Instant::now();
    FaultyStore::new(store.clone(), move |_| {
        let now = start.elapsed();
        match now >= from && now < to {
            true => fault.clone(),
            false => Fault::Pass,
        }
    })
}

/// The command is neither applied nor answered within any time-out.
fn cut() -> Fault {
    Fault::After(3600 * SECOND, Box::new(Fault::Fail))
}

fn ask(engine: &Engine) -> JoinHandle<Result<Reply, Error>> {
    let engine = engine.clone();
    tokio::spawn(async move { engine.execute(request("{}")).await })
}

async fn start(builder: EngineBuilder) -> Engine {
    builder.start().await.unwrap()
}

/// Seen red: an outage of 9.75 s cost a lease of 30 s, since a failed heartbeat waited for
/// another third of the lease, and the open breaker stopped the next heartbeat.
#[tokio::test(start_paused = true)]
async fn short_outage_costs_no_lease() {
    for fault in [cut(), Fault::Fail] {
        for traffic in [false, true] {
            // The failure takes some time.
            if traffic && fault == Fault::Fail {
                continue;
            }
            for (off, len) in [
                (9_000, 10_000),
                (9_900, 12_200),
                (9_900, 17_000),
                (11_000, 17_000),
            ] {
                let what = format!("{off} + {len} ms, {fault:?}, traffic: {traffic}");
                let (from, to) = (off * MS, (off + len) * MS);
                let (upstream, store) = (slow_platform(), MemoryStore::new());
                let partial = outage(&store, from, to, fault.clone());
                let builder = Engine::builder(upstream.clone());
                let holder = start(builder.clone().store(partial)).await;
                let other = start(builder.store(store.clone())).await;
                let first = ask(&holder);
                upstream.ledger().wait_for(1).await;
                let second = ask(&other);
                let crowd = traffic.then(|| {
                    let holder = holder.clone();
                    tokio::spawn(async move {
                        for n in 0..600 {
                            let (holder, payload) = (holder.clone(), n.to_string());
                            tokio::spawn(async move {
                                let _ = holder.execute(request(&payload)).await;
                            });
                            sleep(100 * MS).await;
                        }
                    })
                });
                let reply = second
                    .await
                    .unwrap()
                    .unwrap_or_else(|e| panic!("{what}: {e}"));
                assert_eq!(reply.served(), Served::Store, "{what}");
                assert!(first.await.unwrap().unwrap().recorded(), "{what}");
                if let Some(crowd) = crowd {
                    crowd.abort();
                }
                let key = IdempotencyKey::of(&request("{}"));
                assert_eq!(upstream.ledger().executed(&key), 1, "{what}");
            }
        }
    }
}

/// An expiry that no process noticed costs nothing: seen red if the heartbeat gave up at the
/// expiry, and if the next heartbeat came a third of the lease later.
#[tokio::test(start_paused = true)]
async fn expired_lease_is_extended_after_outage() {
    let (upstream, store) = (slow_platform(), MemoryStore::new());
    let away = outage(&store, 9 * SECOND, 36 * SECOND, cut());
    let builder = Engine::builder(upstream.clone());
    let holder = start(builder.clone().store(away)).await;
    let other = start(builder.store(store.clone())).await;
    let begun = Instant::now();
    let first = ask(&holder);
    upstream.ledger().wait_for(1).await;
    sleep_until(begun + 39 * SECOND).await;
    let reply = other.execute(request("{}")).await.unwrap();
    assert_eq!(reply.served(), Served::Store);
    assert!(first.await.unwrap().unwrap().recorded());
    assert_eq!(upstream.ledger().total(), 1);
}

/// A store that is down is probed at the pace of its time-out, by one of all the heartbeats
/// that wait for it. Seen red if a failed heartbeat waited for another third of its lease,
/// and no heartbeat probed.
#[tokio::test(start_paused = true)]
async fn many_heartbeats_share_one_probe() {
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}").after(60 * SECOND));
    let store = MemoryStore::new();
    let away = outage(&store, 9 * SECOND, 29 * SECOND, Fault::Fail);
    let builder = Engine::builder(upstream.clone()).max_in_flight(500);
    let engine = start(builder.store(away.clone())).await;
    let callers: Vec<_> = (0..500)
        .map(|n| {
            let engine = engine.clone();
            tokio::spawn(async move { engine.execute(request(&n.to_string())).await })
        })
        .collect();
    upstream.ledger().wait_for(500).await;
    sleep(18 * SECOND).await;
    let before = away.commands();
    sleep(10 * SECOND).await;
    let probes = away.commands() - before;
    assert!((4..=6).contains(&probes), "{probes}");
    for caller in callers {
        assert!(caller.await.unwrap().unwrap().recorded());
    }
}

/// Seen red: three looks that failed within 180 ms ended the wait.
#[tokio::test(start_paused = true)]
async fn waiter_outlasts_outage_shorter_than_lease() {
    for fault in [cut(), Fault::Fail] {
        for (from, len) in [(10, 180), (10, 12_000), (10, 25_000), (15_000, 15_000)] {
            let what = format!("{from} + {len} ms, {fault:?}");
            let upstream = ScriptedUpstream::new(|_| Step::ok("{}").after(40 * SECOND));
            let store = MemoryStore::new();
            let builder = Engine::builder(upstream.clone());
            let holder = start(builder.clone().store(store.clone())).await;
            let first = ask(&holder);
            upstream.ledger().wait_for(1).await;
            let away = outage(&store, from * MS, (from + len) * MS, fault.clone());
            let other = start(builder.store(away)).await;
            let second = ask(&other);
            let reply = second
                .await
                .unwrap()
                .unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(reply.served(), Served::Store, "{what}");
            assert!(first.await.unwrap().is_ok(), "{what}");
            assert_eq!(upstream.ledger().total(), 1, "{what}");
        }
    }
}

/// The wait for a silent holder ends: at the expiry that the waiter saw, plus a time-out.
#[tokio::test(start_paused = true)]
async fn waiter_reports_outage_longer_than_lease() {
    for fault in [cut(), Fault::Fail] {
        let (upstream, store) = (slow_platform(), MemoryStore::new());
        let builder = Engine::builder(upstream.clone());
        let holder = start(builder.clone().store(store.clone())).await;
        let first = ask(&holder);
        upstream.ledger().wait_for(1).await;
        let away = outage(&store, SECOND, 3600 * SECOND, fault.clone());
        let other = start(builder.store(away.clone())).await;
        let begun = Instant::now();
        let error = other.execute(request("{}")).await.unwrap_err();
        assert!(matches!(error, Error::StoreUnavailable { .. }), "{error}");
        let took = begun.elapsed();
        let seconds = 28 * SECOND..=36 * SECOND;
        assert!(seconds.contains(&took), "{fault:?}: {took:?}");
        assert!(away.commands() < 40, "{}", away.commands());
        assert!(first.await.unwrap().is_ok());
        assert_eq!(upstream.ledger().total(), 1);
    }
}

/// A store that is silent from the moment at which an execution ends.
fn silent_at_the_end(store: &MemoryStore, fault: Fault) -> FaultyStore {
    let gone = AtomicBool::new(false);
    FaultyStore::new(store.clone(), move |operation| {
        let ends = matches!(
            operation.event,
            Some(Event::Complete { .. } | Event::Release { .. } | Event::Abandon { .. })
        );
        if ends {
            gone.store(true, Ordering::SeqCst);
        }
        match gone.load(Ordering::SeqCst) {
            true => fault.clone(),
            false => Fault::Pass,
        }
    })
}

/// Seen red: the command that ends an execution was tried twice before its callers had
/// their answer, 4.02 s after the platform's answer.
#[tokio::test(start_paused = true)]
async fn silent_store_delays_answer_by_one_timeout() {
    let limited = Step::RateLimited(500 * SECOND);
    let steps = [
        ("executed", Step::ok("{}").after(SECOND), "200"),
        ("refused", Step::status(403, "{}").after(SECOND), "403"),
        (
            "unknown",
            Step::status(503, "{}").after(SECOND),
            "indeterminate",
        ),
        ("unreachable", Step::Refused, "unreachable"),
        ("limited", limited, "rate_limited"),
    ];
    let limit = 2 * SECOND;
    for (what, step, expected) in steps {
        for fault in [Fault::Silent, cut(), Fault::Fail] {
            let mut times = Vec::new();
            for down in [false, true] {
                let step = step.clone();
                let upstream = ScriptedUpstream::new(move |_| step.clone());
                let store = MemoryStore::new();
                let happens = if down { fault.clone() } else { Fault::Pass };
                let builder = Engine::builder(upstream.clone())
                    .store(silent_at_the_end(&store, happens))
                    .retry(RetryPolicy::default().attempts(1));
                let engine = start(builder).await;
                let begun = Instant::now();
                let answer = match engine.execute(request("{}")).await {
                    Ok(reply) => {
                        assert_eq!(reply.recorded(), !down && what == "executed", "{what}");
                        reply.status().as_str().to_owned()
                    }
                    Err(error) => error.code().to_owned(),
                };
                assert_eq!(answer, expected, "{what}, {fault:?}");
                times.push(begun.elapsed());
            }
            let more = times[1] - times[0];
            assert!(more <= limit + 2 * MS, "{what}, {fault:?}: {more:?}");
        }
    }
}

/// The silence of the store keeps an execution from its next attempt, and does not delay
/// the execution's end. Seen red: the command for the attempt was sent twice, and the key
/// was given back 6 s after the platform's answer.
#[tokio::test(start_paused = true)]
async fn silent_store_ends_retry_within_timeout() {
    for (wait, step) in [
        (Duration::ZERO, Step::Refused),
        (5 * SECOND, Step::RateLimited(5 * SECOND)),
    ] {
        for fault in [Fault::Silent, cut()] {
            let (step, happens) = (step.clone(), fault.clone());
            let upstream = ScriptedUpstream::new(move |_| step.clone());
            let store = MemoryStore::new();
            let away = FaultyStore::new(store, move |operation| match operation.number {
                1 => Fault::Pass,
                _ => happens.clone(),
            });
            let retry = RetryPolicy::default().backoff(MS);
            let engine = start(Engine::builder(upstream.clone()).store(away).retry(retry)).await;
            let begun = Instant::now();
            let error = engine.execute(request("{}")).await.unwrap_err();
            assert!(matches!(error, Error::StoreUnavailable { .. }), "{error}");
            let took = begun.elapsed() - wait;
            assert!(took <= 2 * SECOND + SECOND / 2, "{fault:?}: {took:?}");
            assert_eq!(engine.stats().calls_not_executed, 1);
        }
    }
}

/// Between two attempts a silent store delays nothing: seen red if the phase is written
/// before the wait begins.
#[tokio::test(start_paused = true)]
async fn silent_store_prolongs_no_retry_wait() {
    let upstream = ScriptedUpstream::new(|call| match call.attempt() {
        1 => Step::Refused,
        _ => Step::ok("{}"),
    });
    let away = FaultyStore::new(MemoryStore::new(), |operation| match operation.event {
        Some(Event::Enter { phase, .. }) if *phase == Phase::Claimed => cut(),
        _ => Fault::Pass,
    });
    let retry = RetryPolicy::default().backoff(SECOND / 2);
    let engine = start(Engine::builder(upstream.clone()).store(away).retry(retry)).await;
    let begun = Instant::now();
    assert!(engine.execute(request("{}")).await.unwrap().recorded());
    let took = begun.elapsed();
    assert!(took < SECOND, "{took:?}");
}

/// Seen red: the root dropped a dead execution's outcome after 3.1 s, and the record said
/// that the outcome is unknown.
#[tokio::test(start_paused = true)]
async fn known_outcome_survives_actor_and_outage() {
    for (step, code) in [(Step::ok("{}"), 200), (Step::status(403, "{}"), 403)] {
        let next = step.clone();
        let upstream = ScriptedUpstream::new(move |_| next.clone().after(SECOND));
        let (store, down) = (MemoryStore::new(), switch());
        down.store(false, Ordering::SeqCst);
        let broken = faulty(&store, &down, |_| Fault::Fail);
        let engine = start(Engine::builder(upstream.clone()).store(broken)).await;
        let caller = ask(&engine);
        upstream.ledger().wait_for(1).await;
        down.store(true, Ordering::SeqCst);
        assert_eq!(caller.await.unwrap().unwrap().status(), code);
        child(&engine, 1).kill();
        sleep(12 * 3600 * SECOND).await;
        assert_eq!(engine.stats().executions, 0);
        down.store(false, Ordering::SeqCst);
        sleep(5 * SECOND).await;
        match (state(&store, &engine).await, code) {
            (Some(RecordState::Cached { .. }), 200) => {
                let reply = engine.execute(request("{}")).await.unwrap();
                assert_eq!(reply.served(), Served::Store);
                assert_eq!(upstream.ledger().total(), 1);
            }
            (Some(RecordState::Released { .. }), 403) => {}
            (other, _) => panic!("{other:?}"),
        }
    }
}

/// I9. The outcomes that wait for the store have a bound in bytes, and outcomes beyond the
/// bound are dropped: seen red without the bound.
#[tokio::test(start_paused = true)]
async fn outcomes_beyond_the_bound_are_given_up() {
    let body = format!("\"{}\"", "x".repeat(7 << 20));
    let upstream = ScriptedUpstream::new(move |_| Step::ok(body.clone()).after(SECOND));
    let (store, down) = (MemoryStore::new(), switch());
    let broken = faulty(&store, &down, |operation| match operation.event {
        Some(Event::Complete { .. }) => Fault::Fail,
        _ => Fault::Pass,
    });
    let engine = start(Engine::builder(upstream.clone()).store(broken)).await;
    let mut callers = tokio::task::JoinSet::new();
    for n in 0..12 {
        let engine = engine.clone();
        callers.spawn(async move { engine.execute(request(&n.to_string())).await });
    }
    for answer in callers.join_all().await {
        assert!(!answer.unwrap().recorded());
    }
    until("nine outcomes are left", || engine.stats().executions == 9).await;
    down.store(false, Ordering::SeqCst);
    sleep(10 * SECOND).await;
    assert_eq!(engine.stats().executions, 0);
    // There is room for further outcomes once those are recorded.
    assert!(engine.execute(request("[1]")).await.unwrap().recorded());
}
