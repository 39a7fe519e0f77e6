//! A store's time to live is only one witness. Here the store's clock does not move, as after
//! it was set back or behind a replica that lags, so that the store sees no lease expiry.

use std::sync::Arc;

use genesys_once::error::StoreError;
use genesys_once::record::{
    Answer, Attempts, Claim, Event, LeaseId, Phase, RecordName, RecordState,
};
use genesys_once::store::BoxFuture;
use genesys_once::testing::{ScriptedUpstream, Step};
use genesys_once::{Engine, Error, IdempotencyKey, MemoryStore, Resolution, Store};
use tokio::time::{Instant, sleep};

use super::{SECOND, request};

/// Shows every lease as if it had just begun, and refuses a take-over that relies on the
/// store's clock.
#[derive(Clone)]
struct StoppedClock(MemoryStore);

fn alive(mut state: RecordState) -> RecordState {
    if let RecordState::Locked {
        lease_left, lease, ..
    } = &mut state
    {
        *lease_left = *lease;
    }
    state
}

impl Store for StoppedClock {
    fn apply<'a>(
        &'a self,
        name: &'a RecordName,
        event: Event,
    ) -> BoxFuture<'a, Result<Answer, StoreError>> {
        Box::pin(async move {
            if let Event::TakeOver { watched: false, .. } = &event
                && let Some(state @ RecordState::Locked { .. }) = self.0.look(name).await?
            {
                return Ok(Answer::Is(Some(alive(state))));
            }
            Ok(match self.0.apply(name, event).await? {
                Answer::Is(state) => Answer::Is(state.map(alive)),
                answer => answer,
            })
        })
    }

    fn look<'a>(
        &'a self,
        name: &'a RecordName,
    ) -> BoxFuture<'a, Result<Option<RecordState>, StoreError>> {
        Box::pin(async move { Ok(self.0.look(name).await?.map(alive)) })
    }

    fn list<'a>(
        &'a self,
        namespace: &'a genesys_once::record::Namespace,
        query: &'a genesys_once::store::ListQuery,
    ) -> BoxFuture<'a, Result<genesys_once::store::Page, StoreError>> {
        self.0.list(namespace, query)
    }
}

fn key() -> IdempotencyKey {
    IdempotencyKey::of(&request("{}"))
}

/// Leaves the lease of a holder that is gone, in this phase.
async fn left_behind(
    engine: &Engine,
    store: &StoppedClock,
    upstream: &ScriptedUpstream,
    phase: Phase,
) {
    use genesys_once::Upstream as _;
    let name = RecordName::new(engine.namespace().clone(), key());
    let claim = Claim {
        lease: LeaseId::from_bytes([7; 16]),
        fingerprint: request("{}").fingerprint(upstream.route_label()),
        lease_ttl: 30 * SECOND,
        retention: 3600 * SECOND,
        attempts: Attempts {
            timeout: 65 * SECOND,
            ..Attempts::default()
        },
        about: Default::default(),
    };
    let acquire = Event::Acquire {
        claim: claim.clone(),
    };
    let enter = Event::Enter {
        claim,
        step: 1,
        phase,
    };
    for event in [acquire, enter] {
        assert_eq!(store.apply(&name, event).await.unwrap(), Answer::Done);
    }
}

/// Red if only the store's clock counts: the key was stuck for as long as that clock did
/// not move, and the caller's error said that its deadline had passed.
#[tokio::test(start_paused = true)]
async fn dead_lease_expires_by_waiters_clock() {
    for phase in [Phase::Claimed, Phase::Dispatched] {
        let upstream = ScriptedUpstream::new(|_| Step::ok("{}"));
        let store = StoppedClock(MemoryStore::new());
        let engine = Engine::builder(upstream.clone()).store(store.clone());
        let engine = engine.start().await.unwrap();
        left_behind(&engine, &store, &upstream, phase).await;
        let begun = Instant::now();
        let answer = engine.execute(request("{}")).await;
        let waited = begun.elapsed();
        assert!(waited >= 30 * SECOND && waited < 33 * SECOND, "{waited:?}");
        match phase {
            Phase::Claimed => assert_eq!(answer.unwrap().body(), "{}"),
            _ => assert!(
                matches!(answer, Err(Error::Indeterminate { .. })),
                "{answer:?}"
            ),
        }
        let calls = u64::from(phase == Phase::Claimed);
        assert_eq!(upstream.ledger().total() as u64, calls);
    }
}

/// Red if an extension does not change the revision: the second engine took over the lease
/// of a live holder, and its caller got an unknown outcome.
#[tokio::test(start_paused = true)]
async fn live_holder_keeps_lease_during_long_call() {
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}").after(50 * SECOND));
    let store = StoppedClock(MemoryStore::new());
    let builder = Engine::builder(upstream.clone())
        .store(store)
        .lease(5 * SECOND);
    let holder = builder.clone().start().await.unwrap();
    let other = builder.start().await.unwrap();
    let first = tokio::spawn(async move { holder.execute(request("{}")).await });
    upstream.ledger().wait_for(1).await;
    let second = other.execute(request("{}")).await.unwrap();
    assert_eq!(second.body(), first.await.unwrap().unwrap().body());
    assert_eq!(upstream.ledger().total(), 1);
}

/// Red if an operator's engine uses the store's clock alone: `resolve` had no effect.
#[tokio::test(start_paused = true)]
async fn operator_resolves_after_watching_whole_lease() {
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}"));
    let store = StoppedClock(MemoryStore::new());
    let engine = Engine::builder(upstream.clone()).store(store.clone());
    let engine = engine.start().await.unwrap();
    left_behind(&engine, &store, &upstream, Phase::Dispatched).await;
    let state = engine.inspect(&key()).await.unwrap().unwrap();
    let resolve = async || {
        let resolution = Resolution::not_applied().despite_clocks();
        engine.resolve(&key(), &state, resolution).await
    };
    let early = resolve().await.unwrap_err();
    assert!(matches!(early, Error::NotIndeterminate { .. }), "{early}");
    sleep(30 * SECOND).await;
    resolve().await.unwrap();
    assert_eq!(engine.execute(request("{}")).await.unwrap().body(), "{}");
}

/// The first process that asks takes over the revision that all of them watched.
#[tokio::test(start_paused = true)]
async fn only_one_watcher_takes_over() {
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}").after(SECOND));
    let store = StoppedClock(MemoryStore::new());
    let mut engines = Vec::new();
    for _ in 0..8 {
        let builder = Engine::builder(upstream.clone()).store(store.clone());
        engines.push(Arc::new(builder.start().await.unwrap()));
    }
    left_behind(&engines[0], &store, &upstream, Phase::Claimed).await;
    let asked = engines.iter().map(|engine| {
        let engine = engine.clone();
        tokio::spawn(async move { engine.execute(request("{}")).await })
    });
    let asked: Vec<_> = asked.collect();
    for asked in asked {
        asked.await.unwrap().unwrap();
    }
    assert_eq!(upstream.ledger().total(), 1);
}
