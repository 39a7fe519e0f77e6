//! The typestates driven by hand under virtual time: what a stopped, slow or dead holder may
//! do.

use std::time::Duration;

use genesys_once::execution::{Attempt, Execution, Hashed, Lock, Locked, Terms};
use genesys_once::record::{Namespace, Phase, RecordName, RecordState};
use genesys_once::testing::{ScriptedUpstream, Step, answers};
use genesys_once::{
    DataActionRequest, Engine, Error, IdempotencyKey, MemoryStore, Resolution, Served, Store,
    Upstream as _,
};
use tokio::time::{advance, sleep};

mod acquire;
mod attempts;
mod leases;
mod send_deadline;

const SECOND: Duration = Duration::from_secs(1);

fn request() -> DataActionRequest {
    DataActionRequest::new("custom_-_refund", "{}").unwrap()
}

fn namespace() -> Namespace {
    ScriptedUpstream::new(|_| Step::Silent).namespace()
}

fn terms() -> Terms {
    let mut terms = Terms::default();
    terms.lease = SECOND;
    terms
}

fn hashed() -> Execution<Hashed> {
    Execution::new(request(), namespace())
}

async fn locked(store: &dyn Store) -> Execution<Locked> {
    match hashed().lock(store, &terms()).await.unwrap() {
        Lock::Locked(locked) => locked,
        other => panic!("{other:?}"),
    }
}

async fn state(store: &MemoryStore) -> Option<RecordState> {
    let name = RecordName::new(namespace(), IdempotencyKey::of(&request()));
    store.look(&name).await.unwrap()
}

fn ok_after(delay: Duration) -> ScriptedUpstream {
    ScriptedUpstream::new(move |_| Step::ok("{}").after(delay))
}

fn ok() -> ScriptedUpstream {
    ScriptedUpstream::new(|_| Step::ok("{}"))
}

#[tokio::test(start_paused = true)]
async fn from_hashed_to_cached() {
    let (store, upstream) = (MemoryStore::new(), ok());
    let Attempt::Executed(executed) = locked(&store)
        .await
        .execute(&store, &upstream, None)
        .await
        .unwrap()
    else {
        panic!("not executed")
    };
    assert_eq!(executed.outcome().status().as_u16(), 200);
    let cached = executed.cache(&store).await.unwrap();
    assert_eq!(cached.left(), 24 * 3600 * SECOND);
    assert_eq!(cached.into_reply().served(), Served::Upstream);
    match hashed().lock(&store, &terms()).await.unwrap() {
        Lock::Cached(cached) => assert_eq!(cached.into_reply().served(), Served::Store),
        other => panic!("{other:?}"),
    }
    upstream
        .ledger()
        .assert_exactly_once([&IdempotencyKey::of(&request())]);
}

/// I4. Red if `Complete` does not check whose record it is.
#[tokio::test(start_paused = true)]
async fn late_answer_heals_only_its_own_record() {
    let (store, upstream) = (MemoryStore::new(), ok());
    // The request is executed, and its process is stopped before the outcome is recorded.
    let late = |store: MemoryStore, upstream: ScriptedUpstream| async move {
        match locked(&store)
            .await
            .execute(&store, &upstream, None)
            .await
            .unwrap()
        {
            Attempt::Executed(executed) => executed,
            other => panic!("{other:?}"),
        }
    };
    let executed = late(store.clone(), upstream.clone()).await;
    advance(2 * SECOND).await;
    let taken = hashed().lock(&store, &terms()).await.unwrap();
    assert!(
        matches!(taken, Lock::Taken(_, RecordState::Indeterminate { .. })),
        "{taken:?}"
    );
    let reply = executed.cache(&store).await.unwrap().into_reply();
    assert!(reply.recorded());
    assert!(matches!(
        state(&store).await,
        Some(RecordState::Cached { .. })
    ));

    // The same, but the key was resolved as not applied, and executed again.
    let (store, upstream) = (MemoryStore::new(), ok());
    let executed = late(store.clone(), upstream.clone()).await;
    advance(2 * SECOND).await;
    let engine = Engine::builder(upstream.clone())
        .store(store.clone())
        .lease(SECOND)
        .store_timeout(SECOND);
    let engine = engine.start().await.unwrap();
    engine.execute(request()).await.unwrap_err();
    advance(100 * SECOND).await;
    let key = IdempotencyKey::of(&request());
    let lost = engine.inspect(&key).await.unwrap().unwrap();
    engine
        .resolve(&key, &lost, Resolution::not_applied())
        .await
        .unwrap();
    engine.execute(request()).await.unwrap();
    let theirs = state(&store).await.unwrap().revision();
    let reply = executed.cache(&store).await.unwrap().into_reply();
    assert!(!reply.recorded());
    assert_eq!(state(&store).await.unwrap().revision(), theirs);
}

/// If the attempt is dropped, the request might have been executed.
#[tokio::test(start_paused = true)]
async fn dropped_attempt_is_finished_by_progress() {
    let (store, upstream) = (MemoryStore::new(), ok_after(10 * SECOND));
    let name = RecordName::new(namespace(), IdempotencyKey::of(&request()));

    let holder = locked(&store).await;
    let progress = holder.progress().clone();
    assert!(!progress.is_finished() && !progress.has_unknown_outcome());
    let executing = tokio::spawn({
        let (store, upstream) = (store.clone(), upstream.clone());
        async move { holder.execute(&store, &upstream, None).await }
    });
    upstream.ledger().wait_for(1).await;
    executing.abort();
    assert!(executing.await.is_err());
    assert!(progress.has_unknown_outcome());
    progress.finish(&store, &name).await.unwrap();
    assert!(progress.is_finished());
    assert!(matches!(
        state(&store).await,
        Some(RecordState::Indeterminate { .. })
    ));
}

#[tokio::test(start_paused = true)]
async fn unknown_outcome_cannot_be_released() {
    let (store, upstream) = (MemoryStore::new(), ScriptedUpstream::new(|_| Step::Reset));
    let mut terms = terms();
    terms.on_unknown = genesys_once::OnUnknown::Retry;
    let Lock::Locked(holder) = hashed().lock(&store, &terms).await.unwrap() else {
        panic!()
    };
    let attempt = holder.execute(&store, &upstream, None).await.unwrap();
    let Attempt::UnknownOutcome(holder, _) = attempt else {
        panic!("{attempt:?}")
    };
    // During the wait the record stays in `Dispatched`: no process may take over.
    let (holder, ()) = holder.pause(&store, sleep(SECOND)).await;
    let now = state(&store).await;
    assert!(
        matches!(
            now,
            Some(RecordState::Locked {
                phase: Phase::Dispatched,
                ..
            })
        ),
        "{now:?}"
    );
    let error = holder.release(&store).await.unwrap_err();
    assert!(matches!(error, Error::Indeterminate { .. }), "{error}");
}

/// After a restart of the store without persistence, an eviction or a flush, the living
/// holder puts its record back, so that no other process begins.
#[tokio::test(start_paused = true)]
async fn heartbeat_restores_absent_record() {
    let (store, upstream) = (MemoryStore::new(), ok_after(10 * SECOND));
    let holder = locked(&store).await;
    // From here on another store answers, which forgot everything.
    let empty = MemoryStore::new();
    let executing = tokio::spawn({
        let (store, upstream) = (empty.clone(), upstream.clone());
        async move { holder.execute(&store, &upstream, None).await }
    });
    sleep(2 * SECOND).await;
    let now = state(&empty).await;
    assert!(
        matches!(
            now,
            Some(RecordState::Locked {
                phase: Phase::Dispatched,
                ..
            })
        ),
        "{now:?}"
    );
    let Attempt::Executed(executed) = executing.await.unwrap().unwrap() else {
        panic!()
    };
    assert!(
        executed
            .cache(&empty)
            .await
            .unwrap()
            .into_reply()
            .recorded()
    );
}

/// Red if an answer that proves that nothing was executed is not noted at once: otherwise a
/// dropped execution leaves an indeterminate key.
#[tokio::test(start_paused = true)]
async fn not_executed_proof_reaches_progress_at_once() {
    let name = RecordName::new(namespace(), IdempotencyKey::of(&request()));
    for step in [
        Step::RateLimited(SECOND),
        Step::Refused,
        Step::status(403, "{}"),
    ] {
        let (store, upstream) = (
            MemoryStore::new(),
            ScriptedUpstream::new(move |_| step.clone()),
        );
        let attempt = locked(&store)
            .await
            .execute(&store, &upstream, None)
            .await
            .unwrap();
        let Attempt::NotExecuted(holder, ..) = attempt else {
            panic!("{attempt:?}")
        };
        let progress = holder.progress().clone();
        drop(holder);
        assert!(!progress.is_finished() && !progress.has_unknown_outcome());
        progress.finish(&store, &name).await.unwrap();
        let now = state(&store).await;
        assert!(matches!(now, Some(RecordState::Released { .. })), "{now:?}");
    }
}

/// No caller might ever request such a key again. Red if the store lists only indeterminate
/// records, and if `resolve` ignores an expired lock.
#[tokio::test(start_paused = true)]
async fn lost_holders_key_is_listed_and_resolved() {
    let applied = Resolution::applied(answers::json(200, "{}"));
    for (resolution, calls) in [(Resolution::not_applied(), 1), (applied, 0)] {
        let (store, upstream) = (MemoryStore::new(), ok());
        drop(locked(&store).await);
        let engine = Engine::builder(upstream.clone()).store(store.clone());
        let engine = engine.start().await.unwrap();
        // The lease is live: the holder may still get an answer.
        assert_eq!(engine.indeterminate(10).await.unwrap().keys, []);
        advance(2 * SECOND).await;
        let key = IdempotencyKey::of(&request());
        let lost = engine.inspect(&key).await.unwrap().unwrap();
        if resolution == Resolution::not_applied() {
            let listed = engine.indeterminate(10).await.unwrap().keys;
            let [(listed, RecordState::Indeterminate { .. })] = &*listed else {
                panic!("{listed:?}");
            };
            assert_eq!(*listed, key);
            // The engine has noticed the loss just now.
            let early = engine.resolve(&key, &lost, Resolution::not_applied()).await;
            assert!(matches!(early, Err(Error::TooEarly { .. })), "{early:?}");
            advance(100 * SECOND).await;
        }
        engine.resolve(&key, &lost, resolution).await.unwrap();
        assert_eq!(engine.indeterminate(10).await.unwrap().keys, []);
        assert!(engine.execute(request()).await.unwrap().is_success());
        assert_eq!(upstream.ledger().total(), calls);
    }
}
