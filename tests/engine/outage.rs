//! A store that fails: before anything was sent nothing is sent, afterwards
//! everybody is answered, and a lost reply is followed up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use genesys_once::record::Event;
use genesys_once::testing::{Fault, FaultyStore, Operation, ScriptedUpstream, Step};
use genesys_once::{
    Engine, Error, IdempotencyKey, MemoryStore, OnStoreDown, RecordState, Resolution, Served,
};
use tokio::time::Instant;

use super::{SECOND, request};

fn platform() -> ScriptedUpstream {
    ScriptedUpstream::new(|_| Step::ok("{}").after(SECOND))
}

/// A store that does this to events of one kind for as long as the switch is on.
fn faulty(
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

fn switch() -> Arc<AtomicBool> {
    Arc::new(AtomicBool::new(true))
}

async fn state(store: &MemoryStore, engine: &Engine) -> Option<RecordState> {
    use genesys_once::{RecordName, Store as _};
    let key = IdempotencyKey::of(&request("{}"));
    store
        .look(&RecordName::new(engine.namespace().clone(), key))
        .await
        .unwrap()
}

/// Red when what one broken connection takes along opens the breaker: the
/// second try of each is the one that a new connection answers.
#[tokio::test(start_paused = true)]
async fn one_broken_connection_fails_nobody() {
    let broken = FaultyStore::new(MemoryStore::new(), |operation| {
        match operation.number <= 40 {
            true => Fault::After(SECOND / 100, Box::new(Fault::Fail)),
            // A round trip, so that all fail before the first one is answered.
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
async fn a_store_that_is_down_means_that_nothing_is_sent() {
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
        // It heals by itself: what the store took of it is given back.
        on.store(false, Ordering::SeqCst);
        tokio::time::sleep(10 * SECOND).await;
        assert!(engine.execute(request("{}")).await.is_ok());
        assert_eq!(upstream.ledger().total(), 1);
    }
}

/// Red when a lost reply of an acquire is taken for somebody else's lease, or
/// for none.
#[tokio::test(start_paused = true)]
async fn a_lost_reply_is_followed_up_at_every_step() {
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
        // No detour over a release and another lease.
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
async fn an_outage_after_the_call_delays_the_record_and_not_the_answer() {
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
    // Until it is recorded nobody in this process begins anew.
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

#[tokio::test(start_paused = true)]
async fn an_outcome_that_the_store_cannot_take_is_kept_without_its_body() {
    let (upstream, store, on) = (platform(), MemoryStore::new(), switch());
    let full = faulty(&store, &on, |operation| match operation.event {
        Some(Event::Complete { outcome, .. }) if !outcome.body.is_empty() => Fault::Refuse,
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
        (replay.served(), replay.kept()),
        (Served::Store, genesys_once::Kept::TooLarge)
    );
    assert_eq!(replay.status().as_u16(), 200);
    assert_eq!(upstream.ledger().total(), 1);
}

#[tokio::test(start_paused = true)]
async fn fail_open_executes_once_in_this_process() {
    let (upstream, store, on) = (platform(), MemoryStore::new(), switch());
    let broken = faulty(&store, &on, |_| Fault::Fail);
    let engine = Engine::builder(upstream.clone())
        .store(broken)
        .on_store_down(OnStoreDown::FailOpen)
        .start()
        .await
        .unwrap();
    let (one, two) = tokio::join!(engine.execute(request("{}")), engine.execute(request("{}")));
    assert!(!one.unwrap().recorded() && !two.unwrap().recorded());
    assert!(!engine.stats().store_up);
    // Still down, and back again: this process remembers.
    for down in [true, false] {
        on.store(down, Ordering::SeqCst);
        tokio::time::sleep(100 * SECOND).await;
        let reply = engine.execute(request("{}")).await.unwrap();
        assert_eq!(upstream.ledger().total(), 1, "{reply:?}");
    }
    assert!(engine.execute(request("[2]")).await.unwrap().recorded());
    assert!(engine.stats().store_up);
}

/// I1. Red without the check of `live_until` before the first poll of `send`,
/// and without the extension before it.
#[tokio::test(start_paused = true)]
async fn a_process_stopped_past_its_lease_sends_nothing_by_it() {
    // The acquire is applied at once and answered after the lease.
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
    let reply = engine.execute(request("{}")).await;
    // Whoever looked at it meanwhile took it for lost; nobody sent it twice.
    assert!(upstream.ledger().total() <= 1, "{reply:?}");
    match reply {
        Ok(reply) => assert!(reply.recorded()),
        Err(error) => assert!(matches!(error, Error::StoreUnavailable { .. }), "{error}"),
    }
}

/// Red without the breaker: fifty callers then cost fifty deadlines of a hung
/// store.
#[tokio::test(start_paused = true)]
async fn a_store_known_to_be_down_is_not_waited_for() {
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
    // It probes by itself as long as something is left to settle, or with the
    // next request.
    on.store(false, Ordering::SeqCst);
    tokio::time::sleep(10 * SECOND).await;
    assert!(engine.execute(request("[1]")).await.is_ok());
    assert!(engine.stats().store_up);
    assert_eq!(upstream.ledger().total(), 1);
}

/// Red when an unknown outcome that the store took note of is forgotten with the
/// next outage: this process then called a second time, seconds later.
#[tokio::test(start_paused = true)]
async fn fail_open_remembers_what_it_does_not_know() {
    let (store, on) = (MemoryStore::new(), switch());
    let upstream = first(Step::Reset);
    let engine = fail_open(&upstream, &store, &on).await;
    on.store(false, Ordering::SeqCst);
    let unknown = engine.execute(request("{}")).await.unwrap_err();
    assert!(matches!(unknown, Error::Indeterminate { .. }), "{unknown}");
    on.store(true, Ordering::SeqCst);
    let again = engine.execute(request("{}")).await.unwrap_err();
    assert!(matches!(again, Error::Indeterminate { .. }), "{again}");
    assert_eq!(upstream.ledger().total(), 1);
    // Settled by somebody, and seen to be: it is no longer in doubt.
    on.store(false, Ordering::SeqCst);
    tokio::time::sleep(200 * SECOND).await;
    let key = IdempotencyKey::of(&request("{}"));
    engine.resolve(&key, Resolution::NotApplied).await.unwrap();
    on.store(true, Ordering::SeqCst);
    assert!(engine.execute(request("{}")).await.is_ok());
    assert_eq!(upstream.ledger().total(), 2);
}

/// Red when every reply of the fallback is taken for an outcome: the refusal is
/// then recorded under the lease that the store held, for everybody and a day.
#[tokio::test(start_paused = true)]
async fn fail_open_records_no_refusal() {
    let (store, on) = (MemoryStore::new(), switch());
    let upstream = first(Step::status(403, "{}"));
    let lossy = faulty(&store, &on, takes_the_lease_and_falls_silent);
    let engine = Engine::builder(upstream.clone())
        .store(lossy)
        .on_store_down(OnStoreDown::FailOpen);
    let engine = engine.start().await.unwrap();
    let refused = engine.execute(request("{}")).await.unwrap();
    assert_eq!(
        (refused.status().as_u16(), refused.recorded()),
        (403, false)
    );
    on.store(false, Ordering::SeqCst);
    tokio::time::sleep(100 * SECOND).await;
    assert!(matches!(
        state(&store, &engine).await,
        Some(RecordState::Released { .. })
    ));
    assert!(engine.execute(request("{}")).await.unwrap().recorded());
    assert_eq!(upstream.ledger().total(), 2);
}

/// Red when the lease that the store holds is given back: another process then
/// executes what this one may have executed.
#[tokio::test(start_paused = true)]
async fn fail_open_tells_the_store_what_it_does_not_know() {
    let (store, on) = (MemoryStore::new(), switch());
    let upstream = ScriptedUpstream::new(|_| Step::Reset);
    let lossy = faulty(&store, &on, takes_the_lease_and_falls_silent);
    let engine = Engine::builder(upstream.clone())
        .store(lossy)
        .on_store_down(OnStoreDown::FailOpen);
    let engine = engine.start().await.unwrap();
    let unknown = engine.execute(request("{}")).await.unwrap_err();
    assert!(matches!(unknown, Error::Indeterminate { .. }), "{unknown}");
    on.store(false, Ordering::SeqCst);
    tokio::time::sleep(100 * SECOND).await;
    assert!(matches!(
        state(&store, &engine).await,
        Some(RecordState::Indeterminate { .. })
    ));
}

fn takes_the_lease_and_falls_silent(operation: &Operation<'_>) -> Fault {
    match operation.event {
        Some(Event::Acquire { .. }) => Fault::LoseReply,
        _ => Fault::Fail,
    }
}

/// A platform that does this once, and then succeeds.
fn first(step: Step) -> ScriptedUpstream {
    let first = AtomicBool::new(true);
    ScriptedUpstream::new(move |_| match first.swap(false, Ordering::SeqCst) {
        true => step.clone(),
        false => Step::ok("{}"),
    })
}

async fn fail_open(
    upstream: &ScriptedUpstream,
    store: &MemoryStore,
    down: &Arc<AtomicBool>,
) -> Engine {
    let broken = faulty(store, down, |_| Fault::Fail);
    let engine = Engine::builder(upstream.clone())
        .store(broken)
        .on_store_down(OnStoreDown::FailOpen);
    engine.start().await.unwrap()
}
