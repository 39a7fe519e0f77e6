//! I6 and I8: another request under the same key, and another namespace in the
//! same store, in every state that a record can be in.

use genesys_once::error::StoreError;
use genesys_once::record::{Answer, Event, RecordName, RecordState};
use genesys_once::store::BoxFuture;
use genesys_once::testing::{ScriptedTokens, ScriptedUpstream, Step, TokenStep};
use genesys_once::{
    DataActionRequest, Engine, EngineBuilder, Error, IdempotencyKey, MemoryStore, Store,
};

use super::{SECOND, request, until};

/// The states, and the platform that leads to each.
fn states() -> [(&'static str, Step); 5] {
    [
        ("dispatched", Step::ok("{}").after(60 * SECOND)),
        ("claimed", Step::RateLimited(60 * SECOND)),
        ("cached", Step::ok("{}")),
        ("indeterminate", Step::Reset),
        ("released", Step::status(403, "{}")),
    ]
}

fn mine(payload: &str) -> DataActionRequest {
    request(payload).with_key("order-42").unwrap()
}

/// A store with a record of `mine("[1]")` in this state, and the engine that
/// made it.
async fn in_state(
    state: &str,
    step: Step,
) -> (EngineBuilder, Engine, ScriptedUpstream, MemoryStore) {
    let upstream = ScriptedUpstream::new(move |call| match call.request().payload().as_ref() {
        b"[1]" => step.clone(),
        _ => Step::ok("{}"),
    });
    let store = MemoryStore::new();
    let builder = Engine::builder(upstream.clone()).store(store.clone());
    let engine = builder.clone().start().await.unwrap();
    tokio::spawn({
        let engine = engine.clone();
        async move { engine.execute(mine("[1]")).await }
    });
    upstream.ledger().wait_for(1).await;
    until(state, || {
        let stats = engine.stats();
        match state {
            "dispatched" => true,
            "claimed" => !stats.cooldown.is_zero(),
            _ => stats.executions == 0,
        }
    })
    .await;
    let key = IdempotencyKey::of(&mine("[1]"));
    let record = engine.inspect(&key).await.unwrap().unwrap();
    let found = match record {
        RecordState::Locked { phase, .. } => format!("{phase:?}").to_lowercase(),
        RecordState::Cached { .. } => "cached".into(),
        RecordState::Indeterminate { .. } => "indeterminate".into(),
        RecordState::Released { .. } => "released".into(),
        other => panic!("{other:?}"),
    };
    assert_eq!(found, state);
    (builder, engine, upstream, store)
}

/// I6. Red without the comparisons in the table of flights and in the table of recent
/// outcomes. The comparisons of the store and of the execution cover for each other.
#[tokio::test(start_paused = true)]
async fn foreign_payload_is_refused_in_every_state() {
    for (state, step) in states() {
        let (builder, here, upstream, _) = in_state(state, step).await;
        let elsewhere = builder.start().await.unwrap();
        let calls = upstream.ledger().total();
        for engine in [elsewhere, here] {
            // A released record has no answer, and its key is free.
            let answer = engine.execute(mine("[2]")).await;
            match answer {
                Ok(_) => assert_eq!(state, "released"),
                Err(Error::PayloadMismatch { key, .. }) => {
                    assert_ne!(state, "released");
                    assert_eq!(key, IdempotencyKey::of(&mine("[1]")));
                }
                Err(error) => panic!("{state}: {error}"),
            }
        }
        let more = usize::from(state == "released");
        assert_eq!(upstream.ledger().total(), calls + more, "{state}");
    }
}

/// I6. Red without the comparison in `Execution::seen`: an engine that has no token only
/// looks, and must not return what it finds.
#[tokio::test(start_paused = true)]
async fn foreign_peek_is_refused_too() {
    for (state, step) in states() {
        if state == "released" {
            continue; // the key is free: the engine would wait for its token
        }
        let (.., store) = in_state(state, step).await;
        let tokens = ScriptedTokens::new(|_| TokenStep::Silent);
        let looks = ScriptedUpstream::new(|_| Step::ok("{}")).with_tokens(tokens);
        let engine = Engine::builder(looks.clone()).store(store);
        let engine = engine.start().await.unwrap();
        let error = engine.execute(mine("[2]")).await.unwrap_err();
        assert!(
            matches!(error, Error::PayloadMismatch { .. }),
            "{state}: {error}"
        );
        assert_eq!(looks.ledger().total(), 0);
    }
}

/// A foreign store that does not compare fingerprints.
struct Careless(MemoryStore);

impl Store for Careless {
    delegate!(0: look);

    fn apply<'a>(
        &'a self,
        name: &'a RecordName,
        event: Event,
    ) -> BoxFuture<'a, Result<Answer, StoreError>> {
        Box::pin(async move {
            match self.0.apply(name, event).await? {
                Answer::Mismatch => Ok(Answer::Is(self.0.look(name).await?)),
                answer => Ok(answer),
            }
        })
    }
}

/// I6. Red without the comparison in `Execution::read`.
#[tokio::test(start_paused = true)]
async fn store_without_comparison_leaks_nothing() {
    for (state, step) in states() {
        if state == "released" {
            continue;
        }
        let (builder, _here, upstream, store) = in_state(state, step).await;
        let engine = builder.store(Careless(store)).start().await.unwrap();
        let calls = upstream.ledger().total();
        let error = engine.execute(mine("[2]")).await.unwrap_err();
        assert!(
            matches!(error, Error::PayloadMismatch { .. }),
            "{state}: {error}"
        );
        assert_eq!(upstream.ledger().total(), calls, "{state}");
    }
}

/// I8. Red if a record's name leaves the namespace out.
#[tokio::test(start_paused = true)]
async fn namespaces_separate_records_in_every_state() {
    for (state, step) in states() {
        let (builder, _here, ..) = in_state(state, step).await;
        // The same store under another organisation's name.
        let theirs = builder.namespace("another".parse().unwrap());
        let engine = theirs.start().await.unwrap();
        let key = IdempotencyKey::of(&mine("[1]"));
        assert_eq!(engine.inspect(&key).await.unwrap(), None, "{state}");
        assert_eq!(engine.indeterminate(10).await.unwrap().keys, [], "{state}");
        let forgotten = engine.forget(&key).await.unwrap();
        assert_eq!(
            forgotten,
            genesys_once::engine::Forgotten::Nothing,
            "{state}"
        );
        let reply = engine.execute(mine("[2]")).await.unwrap();
        assert!(reply.recorded(), "{state}");
    }
}
