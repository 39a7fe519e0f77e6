//! Executing once over Redis without this crate: no actors, coalescing, lease extension or
//! waiting. It is the baseline of the rows over Redis: each function takes the shortest way
//! that its order of commands allows.

use std::hint::black_box;

use genesys_once::{DataActionRequest, IdempotencyKey};
use redis::aio::MultiplexedConnection;
use redis::{Script, cmd};
use reqwest::header::{CONTENT_TYPE, HeaderName};
use serde::{Deserialize, Serialize};

use crate::world::{ACTION, ANSWER, World};

/// Writes the outcome if the lease is still there.
const COMPARE_AND_SET: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then \
     redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) return 1 end return 0";

const LEASE_MS: u64 = 30_000;
const RESULT_MS: u64 = 24 * 3600 * 1000;

/// The baseline's record of an answer.
#[derive(Debug, Deserialize, Serialize)]
pub struct Record {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl Record {
    /// An answer with the headers that the platform sends.
    pub fn of(body: &str) -> Self {
        let headers = [
            ("content-type", "application/json"),
            ("inin-correlation-id", "c-1"),
        ];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self {
            status: 200,
            headers: headers.into(),
            body: body.to_owned(),
        }
    }

    pub fn read(json: &[u8]) -> Self {
        serde_json::from_slice(json).expect("what was written")
    }

    pub fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and a number")
    }
}

/// One service; a clone shares connection, client and token.
#[derive(Clone)]
pub struct Baseline {
    redis: MultiplexedConnection,
    http: reqwest::Client,
    url: String,
    token: String,
}

impl Baseline {
    pub async fn new(world: &World) -> Self {
        let platform = world.platform();
        // Like the engine's client, this client must neither retry nor follow redirects.
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
        let name = format!("baseline:{key}");
        let lease = acquire(&mut self.redis, &name).await;
        let record = self.post(request, &key).await;
        complete(&mut self.redis, script, &name, &lease, &record).await;
        black_box(record);
    }

    /// `GET`, `SET NX`, POST, `SET`: a common first implementation, in which a holder that
    /// was too slow overwrites its successor's outcome.
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
        let record = self.post(request, &key).await;
        let mut set = cmd("SET");
        set.arg(&name).arg(record.write()).arg("PX").arg(RESULT_MS);
        let () = set.query_async(&mut self.redis).await.expect("a reply");
        black_box(record);
    }

    async fn post(&self, request: &DataActionRequest, key: &str) -> Record {
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
        Record {
            status: response.status().as_u16(),
            headers: headers.collect(),
            body: response.text().await.expect("a whole body"),
        }
    }
}

pub fn script() -> Script {
    Script::new(COMPARE_AND_SET)
}

/// Acquires a new key and returns the lease.
async fn acquire(redis: &mut MultiplexedConnection, name: &str) -> String {
    let lease = format!("lease {:032x}", fastrand::u128(..));
    let mut set = cmd("SET");
    set.arg(name).arg(&lease).arg("NX").arg("GET");
    set.arg("PX").arg(LEASE_MS);
    let before: Option<Vec<u8>> = set.query_async(redis).await.expect("a reply");
    assert!(before.is_none(), "a new key");
    lease
}

/// Writes the outcome, if the lease is still there.
async fn complete(
    redis: &mut MultiplexedConnection,
    script: &Script,
    name: &str,
    lease: &str,
    record: &Record,
) {
    let mut call = script.key(name);
    call.arg(lease).arg(record.write()).arg(RESULT_MS);
    let written: bool = call.invoke_async(redis).await.expect("a reply");
    assert!(written);
}

/// `SET NX GET` and the script, without a call between them.
pub async fn locked_without_call(
    redis: &mut MultiplexedConnection,
    request: &DataActionRequest,
    script: &Script,
) {
    let name = format!("baseline:{}", IdempotencyKey::of(request));
    let lease = acquire(redis, &name).await;
    complete(redis, script, &name, &lease, &Record::of(ANSWER)).await;
}

/// Records an answer as `locked` does, for the baseline of a replay.
pub async fn record(redis: &mut MultiplexedConnection, name: &str) {
    let mut set = cmd("SET");
    set.arg(name).arg(Record::of(ANSWER).write());
    set.arg("PX").arg(RESULT_MS);
    let () = set.query_async(redis).await.expect("a reply");
}

/// The least possible work for a replay: `GET`, and parsing its JSON.
pub async fn replay(redis: &mut MultiplexedConnection, name: &str) -> Record {
    let mut get = cmd("GET");
    get.arg(name);
    let json: Vec<u8> = get.query_async(redis).await.expect("a record");
    Record::read(&json)
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
