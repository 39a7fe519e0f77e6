//! Engines that leave records behind for the command line to find.

use std::time::Duration;

use genesys_once::record::{Answer, Attempts, Claim, Event, LeaseId, RecordName};
use genesys_once::testing::{ScriptedUpstream, Step};
use genesys_once::{DataActionRequest, Engine, Error, IdempotencyKey, RedisStore, Store};

use super::process::NAMESPACE;
use crate::support::redis::RedisServer;

pub const ACTION: &str = "custom_-_refund";

pub fn request(order: u32) -> DataActionRequest {
    DataActionRequest::new(ACTION, format!(r#"{{"order":{order}}}"#)).unwrap()
}

/// A request with an own key, a scope and a label, as an operator would like it.
pub fn labelled(order: u32) -> DataActionRequest {
    let request = request(order).with_key(format!("order-{order}")).unwrap();
    let request = request.with_scope("eu").unwrap();
    request.with_label(format!("refund order {order}")).unwrap()
}

pub async fn store(server: &RedisServer) -> RedisStore {
    RedisStore::connect(&server.url()).await.unwrap()
}

/// An engine whose calls all end with this step. Its lost attempts have soon ended.
pub async fn engine(
    store: impl Store,
    step: impl Fn() -> Step + Send + Sync + 'static,
) -> (Engine, ScriptedUpstream) {
    let upstream = ScriptedUpstream::new(move |_| step());
    let upstream = upstream.with_attempt_timeout(Duration::from_millis(100));
    let engine = Engine::builder(upstream.clone())
        .store(store)
        .namespace(NAMESPACE.parse().unwrap())
        .lease(Duration::from_secs(2))
        .start();
    (engine.await.unwrap(), upstream)
}

/// An engine whose lost attempts might still be running for a minute and a half.
pub async fn slow_engine(store: impl Store) -> (Engine, ScriptedUpstream) {
    let upstream = ScriptedUpstream::new(|_| Step::Reset);
    let builder = Engine::builder(upstream.clone()).store(store);
    let engine = builder.namespace(NAMESPACE.parse().unwrap()).start();
    (engine.await.unwrap(), upstream)
}

/// Leaves an indeterminate key behind; returns the key and its version.
pub async fn lose(engine: &Engine, request: DataActionRequest) -> (IdempotencyKey, String) {
    match engine.execute(request).await {
        Err(Error::Indeterminate { key, version, .. }) => (key, version.to_string()),
        other => panic!("{other:?}"),
    }
}

/// Leaves a recorded outcome behind.
pub async fn record(engine: &Engine, request: DataActionRequest) -> IdempotencyKey {
    let key = IdempotencyKey::of(&request);
    assert!(engine.execute(request).await.unwrap().recorded());
    key
}

/// Leaves a lock behind whose holder is gone, with its request under way.
pub async fn abandoned(store: &RedisStore, order: u32) -> RecordName {
    taken(store, order, Duration::from_millis(100)).await
}

/// Acquires a key for this long, with the request under way.
pub async fn taken(store: &RedisStore, order: u32, lease: Duration) -> RecordName {
    let request = labelled(order);
    let claim = Claim {
        lease: LeaseId::random(),
        fingerprint: request.fingerprint(""),
        lease_ttl: lease,
        retention: Duration::from_secs(3600),
        attempts: Attempts::default(),
        about: Default::default(),
    };
    let name = RecordName::new(NAMESPACE.parse().unwrap(), IdempotencyKey::of(&request));
    let taken = store.apply(&name, Event::Acquire { claim }).await.unwrap();
    assert_eq!(taken, Answer::Done);
    name
}

/// Sets the minimum writer version of the namespace, and returns the version before. The
/// version is the first word in a small key that belongs to no record.
pub fn set_writer(server: &RedisServer, version: u32) -> u32 {
    let names: Vec<String> = server.command(&["KEYS", &format!("genesys-once:{NAMESPACE}:*")]);
    let is_record = |name: &String| {
        let last = name.rsplit(':').next();
        last.is_some_and(|last| last.parse::<IdempotencyKey>().is_ok())
    };
    let names: Vec<_> = names.into_iter().filter(|name| !is_record(name)).collect();
    let [name] = &names[..] else {
        panic!("an engine has written its version: {names:?}");
    };
    let value: String = server.command(&["GET", name]);
    let (before, more) = value.split_at(value.find(' ').unwrap_or(value.len()));
    server.command::<()>(&["SET", name, &format!("{version}{more}")]);
    before.parse().unwrap()
}
