//! A store that fails: before the request was sent, no request is sent; afterwards every
//! caller is answered, and a command with a lost reply is sent again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use genesys_once::error::RefusalKind;
use genesys_once::record::{Event, RecordState};
use genesys_once::testing::{Fault, FaultyStore, Operation, ScriptedUpstream, Step};
use genesys_once::{Engine, Error, IdempotencyKey, MemoryStore, Served};
use tokio::time::Instant;

use super::{SECOND, request};

pub fn platform() -> ScriptedUpstream {
    ScriptedUpstream::new(|_| Step::ok("{}").after(SECOND))
}

/// A store with this fault for events of one kind, for as long as the switch is on.
pub fn faulty(
    store: &MemoryStore,
    on: &Arc<AtomicBool>,
    fault: impl Fn(&Operation<'_>) -> Fault + Send + Sync + 'static,
) -> FaultyStore {
    let on = on.clone();
    FaultyStore::new(store.clone(), move |operation| {
        match on.load(Ordering::SeqCst) {
            true => fault(operation),
            false => Fault::Pass,
        }
    })
}

pub fn switch() -> Arc<AtomicBool> {
    Arc::new(AtomicBool::new(true))
}

pub async fn state(store: &MemoryStore, engine: &Engine) -> Option<RecordState> {
    use genesys_once::Store as _;
    use genesys_once::record::RecordName;
    let key = IdempotencyKey::of(&request("{}"));
    store
        .look(&RecordName::new(engine.namespace().clone(), key))
        .await
        .unwrap()
}

/// One broken connection fails many commands at once. Red if that opens the breaker: a new
/// connection answers the second try of each command.
#[tokio::test(start_paused = true)]
async fn one_broken_connection_fails_no_caller() {
    let broken = FaultyStore::new(MemoryStore::new(), |operation| {
        match operation.number <= 40 {
            true => Fault::After(SECOND / 100, Box::new(Fault::Fail)),
            // The reply takes a round trip, so that all commands fail before the first
            // answer.
            false => Fault::Late(SECOND / 100),
        }
    });
    let upstream = platform();
    let engine = Engine::builder(upstream.clone()).store(broken);
    let engine = engine.start().await.unwrap();
    let callers = (0..40).map(|n| engine.execute(request(&n.to_string())));
    for answer in futures_util::future::join_all(callers).await {
        assert!(answer.unwrap().recorded());
    }
    assert_eq!(upstream.ledger().total(), 40);
    assert!(engine.stats().store_up);
}

#[tokio::test(start_paused = true)]
async fn unavailable_store_prevents_every_call() {
    for fault in [Fault::Fail, Fault::Silent, Fault::Refuse] {
        let (upstream, store, on) = (platform(), MemoryStore::new(), switch());
        let broken = faulty(&store, &on, move |_| fault.clone());
        let engine = Engine::builder(upstream.clone())
            .store(broken)
            .start()
            .await
            .unwrap();
        let error = engine.execute(request("{}")).await.unwrap_err();
        assert!(matches!(error, Error::StoreUnavailable { .. }), "{error}");
        assert_eq!(upstream.ledger().total(), 0);
        // The key recovers by itself: what the store applied of the failed acquire is
        // released.
        on.store(false, Ordering::SeqCst);
        tokio::time::sleep(10 * SECOND).await;
        assert!(engine.execute(request("{}")).await.is_ok());
        assert_eq!(upstream.ledger().total(), 1);
    }
}

/// Red if a lost reply of an acquire counts as another holder's lease, or as no lease.
#[tokio::test(start_paused = true)]
async fn lost_reply_is_resent_at_every_step() {
    for number in 1..=4 {
        let (upstream, store) = (platform(), MemoryStore::new());
        let lossy = FaultyStore::new(store.clone(), move |operation| {
            if operation.number == number {
                Fault::LoseReply
            } else {
                Fault::Pass
            }
        });
        let engine = Engine::builder(upstream.clone())
            .store(lossy)
            .start()
            .await
            .unwrap();
        let start = Instant::now();
        let reply = engine.execute(request("{}")).await.unwrap();
        // No further release and no second lease.
        let took = start.elapsed();
        assert!(
            took <= SECOND + Duration::from_millis(20),
            "{number}: {took:?}"
        );
        assert_eq!(
            (reply.served(), reply.recorded()),
            (Served::Upstream, true),
            "{number}"
        );
        assert_eq!(upstream.ledger().total(), 1);
        assert!(matches!(
            state(&store, &engine).await,
            Some(RecordState::Cached { .. })
        ));
    }
}

#[tokio::test(start_paused = true)]
async fn outage_after_call_delays_only_the_record() {
    let (upstream, store, on) = (platform(), MemoryStore::new(), switch());
    let broken = faulty(&store, &on, |operation| match operation.event {
        Some(Event::Complete { .. }) => Fault::Fail,
        _ => Fault::Pass,
    });
    let engine = Engine::builder(upstream.clone())
        .store(broken)
        .start()
        .await
        .unwrap();
    let start = Instant::now();
    let reply = engine.execute(request("{}")).await.unwrap();
    assert_eq!(
        (reply.served(), reply.recorded()),
        (Served::Upstream, false)
    );
    assert!(start.elapsed() < 2 * SECOND, "{:?}", start.elapsed());
    // Until the outcome is recorded, no new flight of the key begins in this process.
    let joined = engine.execute(request("{}")).await.unwrap();
    assert_eq!(
        (joined.served(), joined.recorded()),
        (Served::Joined, false)
    );
    on.store(false, Ordering::SeqCst);
    tokio::time::sleep(10 * SECOND).await;
    assert!(matches!(
        state(&store, &engine).await,
        Some(RecordState::Cached { .. })
    ));
    assert_eq!(engine.stats().executions, 0);
    assert_eq!(upstream.ledger().total(), 1);
}

/// Found by the chaos test: the outcome was returned while the store was down, recorded
/// when the store was back, and not known in the next outage. Red without `recorded` in the
/// guard.
#[tokio::test(start_paused = true)]
async fn late_recorded_outcome_enters_memory() {
    let (upstream, store, losing) = (platform(), MemoryStore::new(), switch());
    let dead = Arc::new(AtomicBool::new(false));
    let broken = FaultyStore::new(store, {
        let (losing, dead) = (losing.clone(), dead.clone());
        move |operation| match operation.event {
            _ if dead.load(Ordering::SeqCst) => Fault::Fail,
            Some(Event::Complete { .. }) if losing.load(Ordering::SeqCst) => Fault::Fail,
            _ => Fault::Pass,
        }
    });
    let engine = Engine::builder(upstream.clone()).store(broken);
    let engine = engine.recent(1 << 20, 3600 * SECOND).start().await.unwrap();
    assert!(!engine.execute(request("{}")).await.unwrap().recorded());
    losing.store(false, Ordering::SeqCst);
    tokio::time::sleep(20 * SECOND).await;
    assert_eq!(engine.stats().executions, 0, "the outcome is recorded");
    dead.store(true, Ordering::SeqCst);
    let replay = engine.execute(request("{}")).await.unwrap();
    assert_eq!((replay.served(), replay.recorded()), (Served::Memory, true));
    assert_eq!(upstream.ledger().total(), 1);
}

#[tokio::test(start_paused = true)]
async fn too_large_outcome_is_recorded_without_body() {
    let (upstream, store, on) = (platform(), MemoryStore::new(), switch());
    let full = faulty(&store, &on, |operation| match operation.event {
        Some(Event::Complete { stored, .. }) if !stored.outcome.body().is_empty() => Fault::Refuse,
        _ => Fault::Pass,
    });
    let engine = Engine::builder(upstream.clone())
        .store(full)
        .start()
        .await
        .unwrap();
    let first = engine.execute(request("{}")).await.unwrap();
    assert_eq!(
        (first.body().as_ref(), first.recorded()),
        (&b"{}"[..], true)
    );
    let replay = engine.execute(request("{}")).await.unwrap();
    assert_eq!(
        (replay.served(), replay.stored_body()),
        (
            Served::Store,
            genesys_once::outcome::StoredBody::OmittedTooLarge
        )
    );
    assert_eq!(replay.status().as_u16(), 200);
    assert_eq!(upstream.ledger().total(), 1);
}

/// A fail-over, a full replica set, a missing permission: none of these refusals means that
/// the outcome is too large.
///
/// Red if every refusal counts as `TooLarge`: the body is dropped.
#[tokio::test(start_paused = true)]
async fn outcome_waits_for_read_only_store() {
    for kind in [RefusalKind::NotNow, RefusalKind::NotAllowed] {
        let (upstream, store, on) = (platform(), MemoryStore::new(), switch());
        let refusing = faulty(&store, &on, move |operation| match operation.event {
            Some(Event::Complete { stored, .. }) if !stored.outcome.body().is_empty() => {
                Fault::RefuseAs(kind)
            }
            _ => Fault::Pass,
        });
        let engine = Engine::builder(upstream.clone()).store(refusing);
        let engine = engine.recent(0, SECOND).start().await.unwrap();
        let first = engine.execute(request("{}")).await.unwrap();
        assert!(!first.recorded(), "{kind:?}");
        assert!(engine.stats().store_up, "a store that refuses answers");
        on.store(false, Ordering::SeqCst);
        tokio::time::sleep(20 * SECOND).await;
        assert_eq!(
            engine.stats().executions,
            0,
            "{kind:?}: the outcome is recorded"
        );
        let replay = engine.execute(request("{}")).await.unwrap();
        assert_eq!(
            (
                replay.served(),
                replay.stored_body(),
                replay.body().as_ref()
            ),
            (
                Served::Store,
                genesys_once::outcome::StoredBody::Full,
                &b"{}"[..]
            )
        );
        assert_eq!(upstream.ledger().total(), 1);
    }
}

/// The acquire is applied, and its reply does not come within the lease, twice. What I1
/// says of an expired lease is proven in `tests/protocol/execution.rs` and
/// `tests/genesys/lease.rs`.
#[tokio::test(start_paused = true)]
async fn acquire_answered_after_lease_is_unused() {
    // The acquire is applied at once and never answered.
    let (upstream, store) = (platform(), MemoryStore::new());
    let slow = FaultyStore::new(store.clone(), |operation| match operation.event {
        Some(Event::Acquire { .. }) if operation.number <= 2 => Fault::Silent,
        _ => Fault::Pass,
    });
    let engine = Engine::builder(upstream.clone())
        .store(slow)
        .lease(SECOND)
        .store_timeout(SECOND)
        .start()
        .await
        .unwrap();
    let error = engine.execute(request("{}")).await.unwrap_err();
    assert!(matches!(error, Error::StoreUnavailable { .. }), "{error}");
    assert_eq!(upstream.ledger().total(), 0);
}

/// Red without the breaker: fifty callers then cost fifty deadlines of a hung store. Also
/// red if a command that the breaker stopped counts as a command whose fate is unknown:
/// fifty executions then wait for the store to finish nothing.
#[tokio::test(start_paused = true)]
async fn open_breaker_delays_no_caller() {
    let (upstream, store, on) = (platform(), MemoryStore::new(), switch());
    let hung = faulty(&store, &on, |_| Fault::Silent);
    let engine = Engine::builder(upstream.clone())
        .store(hung.clone())
        .start()
        .await
        .unwrap();
    engine.execute(request("{}")).await.unwrap_err();
    let (start, commands) = (Instant::now(), hung.commands());
    for n in 0..50 {
        let error = engine.execute(request(&n.to_string())).await.unwrap_err();
        assert!(matches!(error, Error::StoreUnavailable { .. }), "{error}");
    }
    assert!(start.elapsed() < 4 * SECOND, "{:?}", start.elapsed());
    assert!(
        hung.commands() - commands < 5,
        "{}",
        hung.commands() - commands
    );
    assert!(!engine.stats().store_up);
    // Executions whose commands were not sent have nothing to finish.
    assert!(
        engine.stats().executions <= 5,
        "{}",
        engine.stats().executions
    );
    // The engine probes the store by itself while a record is left to finish; otherwise the
    // next request probes.
    on.store(false, Ordering::SeqCst);
    tokio::time::sleep(10 * SECOND).await;
    assert!(engine.execute(request("[1]")).await.is_ok());
    assert!(engine.stats().store_up);
    assert_eq!(upstream.ledger().total(), 1);
}

/// A process waits for another process's lease and cannot look at the record. It waits as
/// long as the lease was seen to live, and for one more look. Red if it gives up before.
#[tokio::test(start_paused = true)]
async fn blind_waiter_waits_for_lease_end() {
    let upstream = ScriptedUpstream::new(|_| Step::Silent);
    let store = MemoryStore::new();
    let builder = Engine::builder(upstream.clone()).lease(30 * SECOND);
    let lost = builder.clone().store(store.clone()).start().await.unwrap();
    let asked = tokio::spawn({
        let lost = lost.clone();
        async move { lost.execute(request("{}")).await }
    });
    upstream.ledger().wait_for(1).await;
    lost.actor().kill();
    asked.await.unwrap().unwrap_err();
    let blind = FaultyStore::new(store, |operation| match operation.event {
        None => Fault::Fail,
        Some(_) => Fault::Pass,
    });
    let waiter = builder.store(blind).start().await.unwrap();
    let start = Instant::now();
    let error = waiter.execute_within(request("{}"), 300 * SECOND).await;
    let error = error.unwrap_err();
    assert!(matches!(error, Error::StoreUnavailable { .. }), "{error}");
    let waited = start.elapsed();
    assert!(waited >= 30 * SECOND && waited < 40 * SECOND, "{waited:?}");
}
