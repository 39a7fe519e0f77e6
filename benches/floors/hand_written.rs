//! Executing once over Redis as somebody writes it by hand, without actors,
//! coalescing, renewal or waiting: the floors of the fresh rows. Each takes the
//! shortest way that its order of commands allows.

use std::hint::black_box;

use genesys_once::{DataActionRequest, IdempotencyKey};
use redis::aio::MultiplexedConnection;
use redis::{Script, cmd};
use reqwest::header::{CONTENT_TYPE, HeaderName};
use serde::{Deserialize, Serialize};

use crate::world::{ACTION, World};

/// Writes the outcome where the lease is still there.
const COMPARE_AND_SET: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then \
     redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) return 1 end return 0";

const LEASE_MS: u64 = 30_000;
const KEPT_MS: u64 = 24 * 3600 * 1000;

/// What a hand-written record holds of an answer.
#[derive(Debug, Deserialize, Serialize)]
pub struct StoredBody {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl StoredBody {
    pub fn read(json: &[u8]) -> Self {
        serde_json::from_slice(json).expect("what was written")
    }

    fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and a number")
    }
}

/// One service that executes once by hand; a clone shares connection, client
/// and token.
#[derive(Clone)]
pub struct ByHand {
    redis: MultiplexedConnection,
    http: reqwest::Client,
    url: String,
    token: String,
}

impl ByHand {
    pub async fn new(world: &World) -> Self {
        let platform = world.platform();
        // As the engine's client, which must not repeat or follow anything.
        let http = reqwest::Client::builder()
            .http1_only()
            .tcp_nodelay(true)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .tls_certs_only([])
            .timeout(std::time::Duration::from_secs(65))
            .no_proxy()
            .build()
            .expect("a client");
        let base = platform.base_url();
        Self {
            redis: world.redis_connection().await,
            token: token(&http, base, platform.client_id(), platform.client_secret()).await,
            url: format!("{base}/api/v2/integrations/dataactions/{ACTION}/execute"),
            http,
        }
    }

    /// `SET NX GET`, POST, compare-and-set script.
    pub async fn locked(&mut self, request: &DataActionRequest, script: &Script) {
        let key = IdempotencyKey::of(request).to_string();
        let name = format!("by-hand:{key}");
        let lease = format!("lease {:032x}", fastrand::u128(..));
        let mut set = cmd("SET");
        set.arg(&name)
            .arg(&lease)
            .arg("NX")
            .arg("GET")
            .arg("PX")
            .arg(LEASE_MS);
        let before: Option<Vec<u8>> = set.query_async(&mut self.redis).await.expect("a reply");
        assert!(before.is_none(), "a new key");
        let kept = self.post(request, &key).await;
        let mut call = script.key(&name);
        call.arg(&lease).arg(kept.write()).arg(KEPT_MS);
        let written: bool = call.invoke_async(&mut self.redis).await.expect("a reply");
        assert!(written);
        black_box(kept);
    }

    /// `GET`, `SET NX`, POST, `SET`: the order that most write first, although a
    /// holder that was too slow overwrites its successor's outcome.
    pub async fn naive(&mut self, request: &DataActionRequest) {
        let key = IdempotencyKey::of(request).to_string();
        let name = format!("naive:{key}");
        let redis = &mut self.redis;
        let before: Option<Vec<u8>> = cmd("GET")
            .arg(&name)
            .query_async(redis)
            .await
            .expect("a reply");
        assert!(before.is_none(), "a new key");
        let mut set = cmd("SET");
        set.arg(&name)
            .arg("locked")
            .arg("NX")
            .arg("PX")
            .arg(LEASE_MS);
        let locked: bool = set.query_async(redis).await.expect("a reply");
        assert!(locked);
        let kept = self.post(request, &key).await;
        let mut set = cmd("SET");
        set.arg(&name).arg(kept.write()).arg("PX").arg(KEPT_MS);
        let () = set.query_async(&mut self.redis).await.expect("a reply");
        black_box(kept);
    }

    async fn post(&self, request: &DataActionRequest, key: &str) -> StoredBody {
        let response = self
            .http
            .post(&self.url)
            .bearer_auth(&self.token)
            .header(CONTENT_TYPE, "application/json")
            .header(HeaderName::from_static("idempotency-key"), key)
            .body(request.payload().clone())
            .send()
            .await
            .expect("an answer");
        assert_eq!(response.status(), 200);
        let headers = response.headers().iter();
        let headers = headers.map(|(name, value)| {
            (
                name.to_string(),
                value.to_str().expect("readable").to_owned(),
            )
        });
        StoredBody {
            status: response.status().as_u16(),
            headers: headers.collect(),
            body: response.text().await.expect("a whole body"),
        }
    }
}

pub fn script() -> Script {
    Script::new(COMPARE_AND_SET)
}

/// Records an answer as it stands after `locked`, for the floor of a replay.
pub async fn record(redis: &mut MultiplexedConnection, name: &str, body: &str) {
    let headers = [
        ("content-type", "application/json"),
        ("inin-correlation-id", "c-1"),
    ];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let kept = StoredBody {
        status: 200,
        headers: headers.into(),
        body: body.to_owned(),
    };
    let mut set = cmd("SET");
    set.arg(name).arg(kept.write()).arg("PX").arg(KEPT_MS);
    let () = set.query_async(redis).await.expect("a reply");
}

async fn token(http: &reqwest::Client, base: &str, id: &str, secret: &str) -> String {
    let response = http
        .post(format!("{base}/oauth/token"))
        .basic_auth(id, Some(secret))
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body("grant_type=client_credentials")
        .send()
        .await
        .expect("an answer");
    let body = response.bytes().await.expect("a whole body");
    let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    body["access_token"].as_str().expect("a token").to_owned()
}
