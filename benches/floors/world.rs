//! What the rows share: one runtime, one `redis-server`, one simulated platform,
//! payloads and engines. It measures nothing.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use genesys_once::error::SendError;
use genesys_once::record::Namespace;
use genesys_once::store::BoxFuture;
use genesys_once::testing::GenesysSimulator;
use genesys_once::upstream::{AccessToken, Call};
use genesys_once::{
    DataActionRequest, Engine, EngineBuilder, Outcome, RedisStore, Store, Upstream,
};
use http::{HeaderMap, StatusCode};
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, IntoConnectionInfo as _};
use tokio::runtime::Runtime;

use crate::measure::TASKS;
use crate::redis_server::RedisServer;

/// The action of all requests.
pub const ACTION: &str = "custom_-_0f6e7a1c-1c7d-4d0e-9a52-2f1f0a4a0b0c";

/// The answer of all upstreams of a row's engine, and of the baselines' records.
pub const ANSWER: &str =
    r#"{"refund":"R-100042","status":"booked","amount":19.9,"currency":"EUR"}"#;

pub struct World {
    pub runtime: Runtime,
    redis: OnceLock<RedisServer>,
    platform: OnceLock<GenesysSimulator>,
}

impl World {
    /// With as many worker threads as the machine has cores.
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build();
        Self {
            runtime: runtime.expect("a runtime"),
            redis: OnceLock::new(),
            platform: OnceLock::new(),
        }
    }

    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// The server that all rows over Redis share.
    pub fn redis(&self) -> &RedisServer {
        self.redis.get_or_init(RedisServer::start)
    }

    /// The engine's store over that server.
    pub async fn redis_store(&self) -> RedisStore {
        let store = RedisStore::connect(&self.redis().url()).await;
        store.expect("a server that was just started")
    }

    /// A baseline's connection to that server.
    pub async fn redis_connection(&self) -> MultiplexedConnection {
        redis_connection(&self.redis().url()).await
    }

    /// The platform that all rows over HTTP share.
    pub fn platform(&self) -> &GenesysSimulator {
        self.platform
            .get_or_init(|| self.block_on(GenesysSimulator::start()))
    }
}

/// A baseline's connection, of the same kind as the engine's: one connection for all tasks,
/// without Nagle's delay.
pub async fn redis_connection(url: &str) -> MultiplexedConnection {
    let info = url.into_connection_info().expect("a URL of ours");
    let tcp = TcpSettings::default().set_nodelay(true);
    let client = redis::Client::open(info.set_tcp_settings(tcp)).expect("a URL of ours");
    // redis-rs gives up after half a second, and a busy machine might need longer.
    let patient = AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(10)));
    let connection = client.get_multiplexed_async_connection_with_config(&patient);
    connection.await.expect("a server that was just started")
}

/// An engine with a permit for every task of a row.
pub async fn engine(
    upstream: impl Upstream,
    store: impl Store,
    settings: impl FnOnce(EngineBuilder) -> EngineBuilder,
) -> Engine {
    let builder = Engine::builder(upstream)
        .store(store)
        .max_in_flight(4 * TASKS);
    settings(builder).start().await.expect("possible settings")
}

/// An upstream in this process: after `delay` it always returns the same answer.
#[derive(Clone, Debug)]
pub struct Answering {
    delay: Duration,
    outcome: Outcome,
}

impl Answering {
    pub fn at_once() -> Self {
        Self::after(Duration::ZERO)
    }

    pub fn after(delay: Duration) -> Self {
        let body = Bytes::from_static(ANSWER.as_bytes());
        Self {
            delay,
            outcome: Outcome::new(StatusCode::OK, HeaderMap::new(), body),
        }
    }
}

impl Upstream for Answering {
    fn namespace(&self) -> Namespace {
        "floors".parse().expect("a namespace by its alphabet")
    }

    fn send<'a>(
        &'a self,
        _: &'a Call,
        _: Option<&'a AccessToken>,
    ) -> BoxFuture<'a, Result<Outcome, SendError>> {
        Box::pin(async {
            if !self.delay.is_zero() {
                tokio::time::sleep(self.delay).await;
            }
            Ok(self.outcome.clone())
        })
    }
}

/// A new payload of 60 bytes, as programs write it: members out of order and a price with
/// two decimals.
pub fn payload() -> Bytes {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let order = NEXT.fetch_add(1, Ordering::Relaxed);
    payload_of(order)
}

/// The payload with this order number.
pub fn payload_of(order: u64) -> Bytes {
    let text = format!(r#"{{"order":"R-{order:011}","customer":"C-1001","amount":19.90}}"#);
    assert_eq!(text.len(), 60);
    text.into()
}

pub fn request(payload: &Bytes) -> DataActionRequest {
    DataActionRequest::new(ACTION, payload.clone()).expect("a payload of ours")
}

/// `count` requests with new keys, made before anything is measured.
pub fn requests(count: usize) -> Arc<[DataActionRequest]> {
    (0..count).map(|_| request(&payload())).collect()
}
