//! One call for any number of callers, spellings and engines.

use std::collections::BTreeMap;

use genesys_once::engine::Forgotten;
use genesys_once::testing::{ScriptedUpstream, Step};
use genesys_once::{
    DataActionRequest, Engine, EngineMessage, Error, IdempotencyKey, MemoryStore, OnDuplicate,
    Served,
};
use ractor::call_t;
use serde_json::json;

use super::{SECOND, request};

fn slow() -> ScriptedUpstream {
    ScriptedUpstream::new(|_| Step::ok(r#"{"refund":"R-1"}"#).after(SECOND))
}

async fn served(engine: &Engine, requests: Vec<DataActionRequest>) -> BTreeMap<Served, usize> {
    let callers: Vec<_> = requests
        .into_iter()
        .map(|request| {
            let engine = engine.clone();
            tokio::spawn(async move { engine.execute(request).await })
        })
        .collect();
    let mut served = BTreeMap::new();
    for caller in callers {
        let reply = caller.await.unwrap().unwrap();
        assert_eq!(reply.body().as_ref(), br#"{"refund":"R-1"}"#);
        assert!(reply.recorded());
        *served.entry(reply.served()).or_default() += 1;
    }
    served
}

#[tokio::test(start_paused = true)]
async fn thousand_callers_make_one_call() {
    let upstream = slow();
    let engine = Engine::builder(upstream.clone()).start().await.unwrap();
    let spellings = [
        r#"{"order":42,"amount":1.5}"#,
        r#"{ "amount" : 15e-1, "order" : 42.0 }"#,
        "{\n\t\"\\u006frder\": 4.2e1, \"amount\": 1.50\n}",
    ];
    let requests: Vec<_> = (0..1000).map(|n| request(spellings[n % 3])).collect();
    let key = IdempotencyKey::of(&requests[0]);
    let served = served(&engine, requests).await;
    assert_eq!(
        served,
        BTreeMap::from([(Served::Upstream, 1), (Served::Joined, 999)])
    );
    upstream.ledger().assert_exactly_once([&key]);

    let again = engine.execute(request(spellings[1])).await.unwrap();
    assert_eq!(again.served(), Served::Memory);
    assert_eq!(upstream.ledger().total(), 1);
    let stats = engine.stats();
    assert_eq!(
        (
            stats.served_upstream,
            stats.served_joined,
            stats.served_memory
        ),
        (1, 999, 1)
    );
    assert_eq!(
        (stats.executions, stats.waiting, stats.in_flight),
        (0, 0, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn second_engine_waits_and_replays() {
    let upstream = slow();
    let store = MemoryStore::new();
    let builder = Engine::builder(upstream.clone()).store(store);
    let (one, two) = (
        builder.clone().start().await.unwrap(),
        builder.start().await.unwrap(),
    );
    let (first, second) = tokio::join!(one.execute(request("{}")), two.execute(request("{ }")));
    let mut kinds = [first.unwrap().served(), second.unwrap().served()];
    kinds.sort();
    assert_eq!(kinds, [Served::Upstream, Served::Store]);
    assert_eq!(upstream.ledger().total(), 1);
}

#[tokio::test(start_paused = true)]
async fn other_keys_are_other_calls() {
    let upstream = slow();
    let engine = Engine::builder(upstream.clone()).start().await.unwrap();
    let requests = [
        request(r#"{"order":9007199254740992}"#),
        request(r#"{"order":9007199254740993}"#),
        DataActionRequest::new("custom_-_other", r#"{"order":9007199254740992}"#).unwrap(),
        request(r#"{"order":9007199254740992}"#)
            .with_scope("again")
            .unwrap(),
    ];
    let keys: Vec<_> = requests.iter().map(IdempotencyKey::of).collect();
    served(&engine, requests.to_vec()).await;
    upstream.ledger().assert_exactly_once(&keys);
    assert_eq!(upstream.ledger().total(), 4);
}

#[tokio::test(start_paused = true)]
async fn key_never_returns_other_payloads_answer() {
    let upstream = slow();
    let store = MemoryStore::new();
    let builder = Engine::builder(upstream.clone()).store(store);
    let engine = builder.clone().start().await.unwrap();
    let mine = |payload| request(payload).with_key("order-42").unwrap();

    // While the first request is in flight, …
    let first = tokio::spawn({
        let engine = engine.clone();
        async move { engine.execute(mine("[1]")).await }
    });
    upstream.ledger().wait_for(1).await;
    let error = engine.execute(mine("[2]")).await.unwrap_err();
    assert!(matches!(error, Error::PayloadMismatch { .. }), "{error}");
    first.await.unwrap().unwrap();
    // … from memory, …
    let error = engine.execute(mine("[2]")).await.unwrap_err();
    assert!(matches!(error, Error::PayloadMismatch { .. }), "{error}");
    // … and from the store.
    let other = builder.start().await.unwrap();
    let error = other.execute(mine("[2]")).await.unwrap_err();
    assert!(matches!(error, Error::PayloadMismatch { .. }), "{error}");
    assert!(other.execute(mine("[1.0]")).await.is_ok());
    assert_eq!(upstream.ledger().total(), 1);
}

#[tokio::test(start_paused = true)]
async fn messages_and_calls_are_one_flight() {
    let upstream = slow();
    let engine = Engine::builder(upstream.clone()).start().await.unwrap();
    let actor = engine.actor().clone();
    let asked =
        tokio::spawn(async move { call_t!(actor, EngineMessage::Execute, 60_000, request("{}")) });
    let called = engine.execute(request("{}"));
    let (asked, called) = tokio::join!(asked, called);
    let mut kinds = [
        asked.unwrap().unwrap().unwrap().served(),
        called.unwrap().served(),
    ];
    kinds.sort();
    assert_eq!(kinds, [Served::Upstream, Served::Joined]);
    // Admission too: what memory knows needs no call, what is bad is refused.
    let actor = engine.actor();
    let reply = call_t!(actor, EngineMessage::Execute, 1_000, request("{}")).unwrap();
    assert_eq!(reply.unwrap().served(), Served::Memory);
    assert_eq!(upstream.ledger().total(), 1);
}

#[tokio::test(start_paused = true)]
async fn fail_fast_applies_to_remote_holders() {
    let upstream = slow();
    let builder = Engine::builder(upstream.clone())
        .store(MemoryStore::new())
        .on_duplicate(OnDuplicate::FailFast);
    let (one, two) = (
        builder.clone().start().await.unwrap(),
        builder.start().await.unwrap(),
    );
    let first = tokio::spawn({
        let one = one.clone();
        async move { one.execute(request("{}")).await }
    });
    upstream.ledger().wait_for(1).await;
    for engine in [&one, &two] {
        let error = engine.execute(request("{}")).await.unwrap_err();
        assert!(matches!(error, Error::InProgress { .. }), "{error}");
    }
    assert!(first.await.unwrap().is_ok());
    assert_eq!(
        two.execute(request("{}")).await.unwrap().served(),
        Served::Store
    );
    assert_eq!(upstream.ledger().total(), 1);
}

#[tokio::test(start_paused = true)]
async fn outcome_is_replayed_until_it_expires() {
    let upstream = slow();
    let engine = Engine::builder(upstream.clone()).start().await.unwrap();
    let short = || {
        request(&json!({"a": 1}).to_string())
            .with_ttl(10 * SECOND)
            .unwrap()
    };
    engine.execute(short()).await.unwrap();
    tokio::time::advance(9 * SECOND).await;
    assert_eq!(
        engine.execute(short()).await.unwrap().served(),
        Served::Memory
    );
    tokio::time::advance(2 * SECOND).await;
    assert_eq!(
        engine.execute(short()).await.unwrap().served(),
        Served::Upstream
    );
    // The default is a day: longer than memory keeps it.
    engine.execute(request("{}")).await.unwrap();
    tokio::time::advance(61 * SECOND).await;
    assert_eq!(
        engine.execute(request("{}")).await.unwrap().served(),
        Served::Store
    );
    tokio::time::advance(24 * 3600 * SECOND).await;
    assert_eq!(
        engine.execute(request("{}")).await.unwrap().served(),
        Served::Upstream
    );
}

#[tokio::test(start_paused = true)]
async fn forgotten_key_executes_again() {
    let upstream = slow();
    let engine = Engine::builder(upstream.clone()).start().await.unwrap();
    let key = IdempotencyKey::of(&request("{}"));
    assert_eq!(engine.forget(&key).await.unwrap(), Forgotten::Nothing);
    engine.execute(request("{}")).await.unwrap();
    assert_eq!(engine.forget(&key).await.unwrap(), Forgotten::Outcome);
    assert_eq!(engine.forget(&key).await.unwrap(), Forgotten::Nothing);
    assert_eq!(
        engine.execute(request("{}")).await.unwrap().served(),
        Served::Upstream
    );
}

#[tokio::test(start_paused = true)]
async fn sensitive_answer_keeps_only_status() {
    let upstream = slow();
    let engine = Engine::builder(upstream.clone()).start().await.unwrap();
    let first = engine.execute(request("{}").sensitive()).await.unwrap();
    assert_eq!(first.body().as_ref(), br#"{"refund":"R-1"}"#);
    let replay = engine.execute(request("{}").sensitive()).await.unwrap();
    assert_eq!(replay.served(), Served::Store);
    assert_eq!(
        replay.stored_body(),
        genesys_once::outcome::StoredBody::OmittedSensitive
    );
    assert_eq!((replay.status().as_u16(), replay.body().len()), (200, 0));
    assert!(replay.headers().is_empty());
    assert_eq!(upstream.ledger().total(), 1);
}
