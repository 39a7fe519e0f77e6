//! When a connection is closed: not while it is slow but delivers, but when it is silent or
//! sends an unrequested reply.

use std::time::Duration;

use genesys_once::outcome::StoredBody;
use genesys_once::record::RecordState;
use genesys_once::testing::{ScriptedUpstream, Step};
use genesys_once::{DataActionRequest, Engine, IdempotencyKey, RedisStore, Served, Store};

use super::fake_server::FakeServer;
use super::limited_proxy::Narrow;
use super::name;
use crate::support::eventually;
use crate::support::redis::RedisServer;

/// The pause of the proxy: a body's transfer then takes several times the limit of a
/// command.
const SLOW: Duration = Duration::from_millis(300);

/// Red if 2 s are the limit of a whole transfer, in the engine or in the store: the
/// outcome was sent again without end and never recorded.
#[tokio::test]
async fn slow_transfer_is_completed() {
    let server = RedisServer::start();
    let narrow = Narrow::start(server.port).await;
    let body = format!("\"{}\"", "x".repeat(300_000));
    let platform = ScriptedUpstream::new(move |_| Step::ok(body.clone()));
    let engine = async |url: String| {
        let store = RedisStore::connect(&url).await.unwrap();
        let builder = Engine::builder(platform.clone()).store(store);
        builder.start().await.unwrap()
    };
    let (here, there) = (engine(narrow.url()).await, engine(narrow.url()).await);
    let fast = engine(server.url()).await;
    narrow.slow_down(SLOW);
    let request = || DataActionRequest::new("custom_-_report", "{}").unwrap();
    // The caller does not wait until the outcome is recorded.
    let reply = here.execute(request()).await.unwrap();
    assert_eq!(reply.body().len(), 300_002);
    let key = IdempotencyKey::of(&request());
    let mut recorded = None;
    eventually("the outcome is recorded", async || {
        recorded = match fast.inspect(&key).await.unwrap() {
            Some(RecordState::Cached { stored, .. }) => Some(stored.body),
            _ => None,
        };
        recorded.is_some()
    })
    .await;
    assert_eq!(recorded, Some(StoredBody::Full));
    let replay = there.execute(request()).await.unwrap();
    assert_eq!(replay.served(), Served::Store);
    assert_eq!(replay.body().len(), 300_002);
    assert_eq!(platform.ledger().total(), 1);
}

/// Red if redis-rs buffers bytes that arrive without a command.
#[tokio::test]
async fn unrequested_reply_closes_connection() {
    let fake = FakeServer::version("7.0.0").await;
    let store = RedisStore::connect(&fake.url()).await.unwrap();
    fake.flood();
    // The answer to the look might be lost with the connection.
    let _ = store.look(&name(1)).await;
    eventually("the connection ends", async || fake.flooded().is_some()).await;
    let flooded = fake.flooded().unwrap();
    // Some bytes were on their way before the connection ended.
    assert!(flooded < 32 << 20, "{flooded} bytes");
}
