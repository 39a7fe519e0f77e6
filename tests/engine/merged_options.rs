//! `.with_ttl(…)` and `.sensitive()`: how much is stored, and for how long. Among joined
//! callers the longest time and the strictest option apply, however late a caller joins.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use genesys_once::outcome::StoredBody;
use genesys_once::record::{Event, RecordName, RecordState, Refusal};
use genesys_once::testing::{Fault, FaultyStore, ScriptedUpstream, Step, answers};
use genesys_once::{
    DataActionRequest, Engine, EngineBuilder, Error, IdempotencyKey, MemoryStore, Outcome, Reply,
    Resolution, Served, Store as _, Upstream as _,
};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::{SECOND, request, until};

const HOUR: Duration = Duration::from_secs(3600);
const BODY: &str = r#"{"customer":"Anna"}"#;

fn platform() -> ScriptedUpstream {
    ScriptedUpstream::new(|_| Step::ok(BODY).after(SECOND))
}

/// An engine that answers nothing from memory.
fn builder(upstream: &ScriptedUpstream, store: &MemoryStore) -> EngineBuilder {
    let builder = Engine::builder(upstream.clone()).store(store.clone());
    builder.recent(0, SECOND)
}

fn spawn(engine: &Engine, request: DataActionRequest) -> JoinHandle<Result<Reply, Error>> {
    let engine = engine.clone();
    tokio::spawn(async move { engine.execute(request).await })
}

async fn state(store: &MemoryStore) -> Option<RecordState> {
    let key = IdempotencyKey::of(&request("{}"));
    let name = RecordName::new(platform().namespace(), key);
    store.look(&name).await.unwrap()
}

/// How much is stored, and for how long from now.
async fn kept(store: &MemoryStore) -> (StoredBody, Duration) {
    match state(store).await {
        Some(RecordState::Cached { stored, left, .. }) => {
            let is_full = stored.body == StoredBody::Full;
            assert_eq!(stored.outcome.body().is_empty(), !is_full);
            (stored.body, left)
        }
        state => panic!("{state:?}"),
    }
}

/// The first request asks, then the second joins; both get the whole answer.
async fn both(first: DataActionRequest, second: DataActionRequest) -> MemoryStore {
    let (upstream, store) = (platform(), MemoryStore::new());
    let engine = builder(&upstream, &store).start().await.unwrap();
    let first = spawn(&engine, first);
    upstream.ledger().wait_for(1).await;
    let second = spawn(&engine, second);
    for (caller, served) in [(first, Served::Upstream), (second, Served::Joined)] {
        let reply = caller.await.unwrap().unwrap();
        assert_eq!(
            (reply.served(), reply.stored_body()),
            (served, StoredBody::Full)
        );
        assert_eq!(reply.body(), BODY);
    }
    assert_eq!(upstream.ledger().total(), 1);
    store
}

/// Red if a caller without a `ttl` does not count: its repeat within the engine's
/// `result_ttl` would be a second call.
#[tokio::test(start_paused = true)]
async fn longest_ttl_of_joined_callers_applies() {
    let plain = || request("{}");
    let asks = |ttl| request("{}").with_ttl(ttl).unwrap();
    for (first, second, expected) in [
        (asks(SECOND), asks(HOUR), HOUR),
        (asks(HOUR), asks(SECOND), HOUR),
        (asks(SECOND), plain(), 24 * HOUR),
        (plain(), asks(SECOND), 24 * HOUR),
        (plain(), asks(48 * HOUR), 48 * HOUR),
        (asks(48 * HOUR), plain(), 48 * HOUR),
    ] {
        let store = both(first, second).await;
        assert_eq!(kept(&store).await, (StoredBody::Full, expected));
    }
}

/// Red if the option of a joined caller does not reach the execution.
#[tokio::test(start_paused = true)]
async fn one_sensitive_joined_caller_is_enough() {
    for (first, second) in [
        (request("{}").sensitive(), request("{}")),
        (request("{}"), request("{}").sensitive()),
    ] {
        let store = both(first, second).await;
        assert_eq!(
            kept(&store).await,
            (StoredBody::OmittedSensitive, 24 * HOUR)
        );
        let engine = builder(&platform(), &store).start().await.unwrap();
        // A replay reports the omitted body to every caller.
        let replay = engine.execute(request("{}")).await.unwrap();
        assert_eq!(
            (
                replay.served(),
                replay.stored_body(),
                replay.status().as_u16()
            ),
            (Served::Store, StoredBody::OmittedSensitive, 200)
        );
        assert!(replay.headers().is_empty() && replay.body().is_empty());
    }
}

/// An outcome waits to be recorded. Red if only callers count that had joined before the
/// outcome came.
#[tokio::test(start_paused = true)]
async fn caller_joining_before_recording_counts() {
    let (upstream, store) = (platform(), MemoryStore::new());
    let down = Arc::new(AtomicBool::new(true));
    let faulty = FaultyStore::new(store.clone(), {
        let down = down.clone();
        move |operation| match operation.event {
            Some(Event::Complete { .. }) if down.load(Ordering::SeqCst) => Fault::Fail,
            _ => Fault::Pass,
        }
    });
    let engine = Engine::builder(upstream.clone()).store(faulty);
    let engine = engine.start().await.unwrap();
    let first = engine.execute(request("{}")).await.unwrap();
    assert!(!first.recorded());
    let late = request("{}").sensitive().with_ttl(48 * HOUR).unwrap();
    let late = engine.execute(late).await.unwrap();
    assert_eq!((late.served(), late.body()), (Served::Joined, first.body()));
    assert_eq!(engine.stats().executions, 1, "its record is not finished");
    down.store(false, Ordering::SeqCst);
    while engine.stats().executions > 0 {
        sleep(SECOND).await;
    }
    let (kept, left) = kept(&store).await;
    assert_eq!(kept, StoredBody::OmittedSensitive);
    assert!(left > 47 * HOUR, "{left:?}");
    assert_eq!(upstream.ledger().total(), 1);
}

/// Red if a refusal is passed on unreduced.
#[tokio::test(start_paused = true)]
async fn sensitive_refusal_is_not_stored() {
    let refused = answers::platform_error(403, "missing.permissions", "Anna may not");
    let upstream = ScriptedUpstream::new({
        let refused = refused.clone();
        move |_| Step::Answer(refused.clone()).after(SECOND)
    });
    let store = MemoryStore::new();
    let one = builder(&upstream, &store).start().await.unwrap();
    let two = builder(&upstream, &store).start().await.unwrap();
    let first = spawn(&one, request("{}").sensitive());
    upstream.ledger().wait_for(1).await;
    let elsewhere = spawn(&two, request("{}"));
    until("the second engine waits", || two.stats().executions == 1).await;
    let first = first.await.unwrap().unwrap();
    assert_eq!(
        (&**first.outcome(), first.stored_body()),
        (&refused, StoredBody::Full)
    );
    let elsewhere = elsewhere.await.unwrap().unwrap();
    assert_eq!(
        (elsewhere.status().as_u16(), elsewhere.recorded()),
        (403, false)
    );
    assert_eq!(
        (elsewhere.stored_body(), elsewhere.body().len()),
        (StoredBody::OmittedSensitive, 0)
    );
    match state(&store).await {
        Some(RecordState::Released {
            refusal: Some(Refusal::Refused(stored)),
            ..
        }) => {
            assert!(stored.body == StoredBody::OmittedSensitive && stored.outcome.body().is_empty())
        }
        state => panic!("{state:?}"),
    }
    assert_eq!(upstream.ledger().total(), 1);
}

/// Red if the hook's result is stored unreduced.
#[tokio::test(start_paused = true)]
async fn sensitive_resolution_is_not_stored() {
    let upstream = ScriptedUpstream::new(|_| Step::Reset);
    let store = MemoryStore::new();
    let found = || Outcome::new(http::StatusCode::OK, http::HeaderMap::new(), BODY);
    let engine = builder(&upstream, &store)
        .reconcile(move |_, _| async move { Some(Resolution::applied(found())) })
        .start()
        .await
        .unwrap();
    let asked = request("{}").sensitive().with_ttl(HOUR).unwrap();
    let reply = engine.execute(asked).await.unwrap();
    assert_eq!(
        (reply.stored_body(), reply.status().as_u16()),
        (StoredBody::OmittedSensitive, 200)
    );
    assert_eq!(kept(&store).await, (StoredBody::OmittedSensitive, HOUR));

    // An operator resolves by hand.
    let store = MemoryStore::new();
    let engine = builder(&upstream, &store).start().await.unwrap();
    engine.execute(request("{}").sensitive()).await.unwrap_err();
    let key = IdempotencyKey::of(&request("{}"));
    let resolution = Resolution::applied(found()).sensitive();
    let state = engine.inspect(&key).await.unwrap().unwrap();
    engine.resolve(&key, &state, resolution).await.unwrap();
    assert_eq!(
        kept(&store).await,
        (StoredBody::OmittedSensitive, 24 * HOUR)
    );
}

/// What the docs of `sensitive` and `ttl` say of other processes: the outcome is stored as
/// the callers of the executing process ask.
#[tokio::test(start_paused = true)]
async fn options_do_not_reach_another_process() {
    let (upstream, store) = (platform(), MemoryStore::new());
    let one = builder(&upstream, &store).start().await.unwrap();
    let two = builder(&upstream, &store).start().await.unwrap();
    let first = spawn(&one, request("{}"));
    upstream.ledger().wait_for(1).await;
    let elsewhere = spawn(&two, request("{}").sensitive().with_ttl(48 * HOUR).unwrap());
    first.await.unwrap().unwrap();
    let reply = elsewhere.await.unwrap().unwrap();
    assert_eq!(
        (reply.served(), reply.stored_body()),
        (Served::Store, StoredBody::Full)
    );
    let (kept, left) = kept(&store).await;
    assert!(kept == StoredBody::Full && left <= 24 * HOUR, "{left:?}");
}
