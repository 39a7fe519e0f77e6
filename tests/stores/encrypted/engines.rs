//! Engines over an encrypted store, and over a store that only some of them encrypt.

use std::sync::Arc;
use std::time::Duration;

use genesys_once::execution::{Execution, Terms};
use genesys_once::outcome::StoredBody;
use genesys_once::record::RecordState;
use genesys_once::testing::{Fault, FaultyStore, ScriptedUpstream, Step, answers};
use genesys_once::{
    DataActionRequest, Engine, Error, IdempotencyKey, MemoryStore, Outcome, Resolution, Served,
    Store, Upstream as _,
};
use tokio::time::advance;

use super::encrypted;

const SECOND: Duration = Duration::from_secs(1);

fn request() -> DataActionRequest {
    DataActionRequest::new("custom_-_refund", r#"{"order":42}"#).unwrap()
}

fn key() -> IdempotencyKey {
    IdempotencyKey::of(&request())
}

async fn engine(upstream: &ScriptedUpstream, store: impl Store) -> Engine {
    let builder = Engine::builder(upstream.clone()).store(store);
    builder.start().await.unwrap()
}

fn ok() -> ScriptedUpstream {
    ScriptedUpstream::new(|_| Step::ok(r#"{"refund":"R-1"}"#).after(SECOND))
}

#[tokio::test(start_paused = true)]
async fn engines_replay_shared_outcomes() {
    let (upstream, inner) = (ok(), MemoryStore::new());
    let one = engine(&upstream, encrypted(inner.clone())).await;
    let two = engine(&upstream, encrypted(inner)).await;
    let (first, second) = tokio::join!(one.execute(request()), two.execute(request()));
    let mut served = Vec::new();
    for reply in [first.unwrap(), second.unwrap()] {
        assert_eq!(reply.body().as_ref(), br#"{"refund":"R-1"}"#);
        assert_eq!(
            (reply.status().as_u16(), reply.stored_body()),
            (200, StoredBody::Full)
        );
        served.push(reply.served());
    }
    served.sort();
    assert_eq!(served, [Served::Upstream, Served::Store]);
    upstream.ledger().assert_exactly_once([&key()]);
}

#[tokio::test(start_paused = true)]
async fn refusal_reaches_waiters_elsewhere() {
    let refused = answers::platform_error(403, "missing.permissions", "no");
    let upstream = ScriptedUpstream::new(move |_| Step::Answer(refused.clone()).after(SECOND));
    let inner = MemoryStore::new();
    let one = engine(&upstream, encrypted(inner.clone())).await;
    let two = engine(&upstream, encrypted(inner)).await;
    let (first, second) = tokio::join!(one.execute(request()), two.execute(request()));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(first.outcome(), second.outcome());
    assert_eq!((second.status().as_u16(), second.recorded()), (403, false));
    assert_eq!(upstream.ledger().total(), 1);
}

#[tokio::test(start_paused = true)]
async fn encrypted_sensitive_answer_is_a_status() {
    let (upstream, inner) = (ok(), MemoryStore::new());
    let engine = engine(&upstream, encrypted(inner)).await;
    engine.execute(request().sensitive()).await.unwrap();
    let replay = engine.execute(request().sensitive()).await.unwrap();
    assert_eq!(
        (replay.served(), replay.stored_body(), replay.body().len()),
        (Served::Store, StoredBody::OmittedSensitive, 0)
    );
    assert!(replay.headers().is_empty());
    assert_eq!(upstream.ledger().total(), 1);
}

#[tokio::test(start_paused = true)]
async fn lost_reply_to_complete_changes_nothing() {
    let (upstream, inner) = (ok(), MemoryStore::new());
    let lossy = FaultyStore::new(inner.clone(), |operation| match operation.number {
        // The acquire, and the complete.
        1 | 3 => Fault::LoseReply,
        _ => Fault::Pass,
    });
    let reply = engine(&upstream, encrypted(lossy)).await;
    let reply = reply.execute(request()).await.unwrap();
    assert!(reply.recorded());
    let other = engine(&upstream, encrypted(inner)).await;
    let replay = other.execute(request()).await.unwrap();
    assert_eq!(
        (replay.served(), replay.outcome()),
        (Served::Store, reply.outcome())
    );
    assert_eq!(upstream.ledger().total(), 1);
}

#[tokio::test(start_paused = true)]
async fn resolved_outcome_is_encrypted_and_replayed() {
    let upstream = ScriptedUpstream::new(|_| Step::Reset);
    let inner = MemoryStore::new();
    let engine = engine(&upstream, encrypted(inner.clone())).await;
    let error = engine.execute(request()).await.unwrap_err();
    assert!(matches!(error, Error::Indeterminate { .. }), "{error}");
    assert_eq!(engine.indeterminate(9).await.unwrap().keys.len(), 1);
    let found = Outcome::new(http::StatusCode::OK, http::HeaderMap::new(), "found");
    let state = engine.inspect(&key()).await.unwrap().unwrap();
    for _ in 0..2 {
        let resolved = engine
            .resolve(&key(), &state, Resolution::applied(found.clone()))
            .await;
        // The second call finds no indeterminate key.
        assert!(matches!(
            resolved,
            Ok(()) | Err(Error::NotIndeterminate { .. })
        ));
    }
    let replay = engine.execute(request()).await.unwrap();
    assert_eq!(**replay.outcome(), found);
    let name = genesys_once::record::RecordName::new(engine.namespace().clone(), key());
    match inner.look(&name).await.unwrap() {
        Some(RecordState::Cached { stored, .. }) => assert!(stored.outcome.is_sealed()),
        state => panic!("{state:?}"),
    }
}

async fn assert_unreadable(engine: &Engine) {
    for error in [
        engine.execute(request()).await.unwrap_err(),
        engine.inspect(&key()).await.unwrap_err(),
    ] {
        assert!(matches!(error, Error::RecordUnreadable { .. }), "{error}");
    }
}

/// Red if the engine returns an encrypted outcome: without the check of a look, and without
/// the check of an answer. Also red if an encrypted refusal blocks its key for ten minutes,
/// although nothing was executed.
#[tokio::test(start_paused = true)]
async fn plain_engine_neither_replays_nor_executes() {
    for refused in [false, true] {
        let upstream = if refused {
            let refused = answers::platform_error(403, "missing.permissions", "no");
            ScriptedUpstream::new(move |_| Step::Answer(refused.clone()))
        } else {
            ok()
        };
        let inner = MemoryStore::new();
        let sealing = engine(&upstream, encrypted(inner.clone())).await;
        sealing.execute(request()).await.unwrap();
        let plain = engine(&upstream, inner.clone()).await;
        if refused {
            assert_eq!(plain.inspect(&key()).await.unwrap(), None);
            plain.execute(request()).await.unwrap();
            assert_eq!(upstream.ledger().total(), 2);
            continue;
        }
        assert_unreadable(&plain).await;
        assert_eq!(upstream.ledger().total(), 1);
        // An operator's command is not applied either.
        let hashed = Execution::new(request(), upstream.namespace());
        let error = hashed.lock(&inner, &Terms::default()).await.unwrap_err();
        assert!(matches!(error, Error::RecordUnreadable { .. }), "{error}");
        // An operator may forget the record.
        let forgotten = plain.forget(&key()).await.unwrap();
        assert_eq!(forgotten, genesys_once::engine::Forgotten::Unreadable);
    }
}

#[tokio::test(start_paused = true)]
async fn encrypting_engine_refuses_plain_outcomes() {
    let (upstream, inner) = (ok(), Arc::new(MemoryStore::new()));
    let plain = engine(&upstream, inner.clone()).await;
    plain.execute(request()).await.unwrap();
    let sealing = engine(&upstream, encrypted(inner.clone())).await;
    assert_unreadable(&sealing).await;
    // The engine that wrote the outcome still reads it, also without its memory.
    advance(61 * SECOND).await;
    assert_eq!(
        plain.execute(request()).await.unwrap().served(),
        Served::Store
    );
    let lenient = engine(&upstream, encrypted(inner).also_reads_plain()).await;
    assert_eq!(
        lenient.execute(request()).await.unwrap().served(),
        Served::Store
    );
    assert_eq!(upstream.ledger().total(), 1);
}
