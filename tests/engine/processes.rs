//! Ten processes, each with an engine of its own, wait for one key that an eleventh process
//! executes: one call, and the eleventh's outcome or refusal answers all.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Stdio};
use std::sync::Arc;
use std::time::Duration;

use genesys_once::error::SendError;
use genesys_once::record::{Namespace, RecordName};
use genesys_once::store::BoxFuture;
use genesys_once::testing::{GenesysSimulator, Step, answers};
use genesys_once::upstream::{AccessToken, Call, TokenSource};
use genesys_once::{
    Credentials, DataActionRequest, Engine, Environment, Error, GenesysCloud, IdempotencyKey,
    Outcome, RedisStore, Reply, Upstream,
};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::own_process::own_process;
use crate::support::eventually;
use crate::support::redis::RedisServer;

const WAITERS: usize = 10;
/// A caller without an answer after this time has been left unanswered.
const LIMIT: Duration = Duration::from_secs(60);

/// The environment variables of a waiting process: the store and the platform.
const REDIS: &str = "WAITERS_REDIS";
const PLATFORM: &str = "WAITERS_PLATFORM";
/// Begins the line in which a waiting process reports to its parent.
const MARK: &str = "waiter says: ";

/// The platform as one process sees it: its answers wait for a gate.
struct Gated {
    platform: GenesysCloud,
    gate: Semaphore,
}

impl Upstream for Gated {
    fn namespace(&self) -> Namespace {
        self.platform.namespace()
    }

    fn send<'a>(
        &'a self,
        call: &'a Call,
        token: Option<&'a AccessToken>,
    ) -> BoxFuture<'a, Result<Outcome, SendError>> {
        Box::pin(async move {
            let answer = self.platform.send(call, token).await;
            self.gate.acquire().await.unwrap().forget();
            answer
        })
    }

    fn token_source(&self) -> Option<Arc<dyn TokenSource>> {
        self.platform.token_source()
    }

    fn check(&self) -> Result<(), Error> {
        self.platform.check()
    }

    fn route_label(&self) -> &str {
        self.platform.route_label()
    }
}

fn request() -> DataActionRequest {
    DataActionRequest::new("custom_-_refund", "{}").unwrap()
}

fn platform(url: &str, id: &str, secret: &str) -> GenesysCloud {
    let environment = Environment::from_base_url(url).unwrap();
    GenesysCloud::new(environment, Credentials::new(id, secret))
}

/// A process of this very test binary that asks once; killed when dropped.
struct Waiter {
    process: Child,
    said: BufReader<ChildStdout>,
}

impl Waiter {
    fn start(redis: &str, simulator: &GenesysSimulator) -> Self {
        let (id, secret) = (simulator.client_id(), simulator.client_secret());
        let platform = format!("{} {id} {secret}", simulator.base_url());
        let mut process = own_process(module_path!(), "waiter")
            .envs([(REDIS, redis), (PLATFORM, &platform)])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(process.stdout.take().unwrap());
        Self { process, said }
    }

    /// The process's answer.
    fn answer(mut self) -> Value {
        loop {
            let mut line = String::new();
            let read = self.said.read_line(&mut line).unwrap();
            assert!(read > 0, "a waiting process ended without an answer");
            // The test harness writes to the same output.
            if let Some((_, answer)) = line.split_once(MARK) {
                return serde_json::from_str(answer).unwrap();
            }
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        // The process might have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The code of a waiting process; in an ordinary test run it does nothing.
#[tokio::test]
async fn waiter() {
    let Ok(redis) = std::env::var(REDIS) else {
        return;
    };
    let words = std::env::var(PLATFORM).unwrap();
    let [url, id, secret] = words.split(' ').collect::<Vec<_>>()[..] else {
        panic!("no platform: {words}");
    };
    let store = RedisStore::connect(&redis).await.unwrap();
    let engine = Engine::builder(platform(url, id, secret)).store(store);
    let engine = engine.start().await.unwrap();
    println!(
        "\n{MARK}{}",
        summary_of(engine.execute_within(request(), LIMIT).await)
    );
}

fn summary_of(answer: Result<Reply, Error>) -> Value {
    match answer {
        Ok(reply) => json!({
            "status": reply.status().as_u16(),
            "body": String::from_utf8_lossy(reply.body()),
            "recorded": reply.recorded(),
            "served": reply.served().to_string(),
        }),
        Err(Error::RateLimited { retry_after, .. }) => {
            json!({ "code": "rate_limited", "retry_after": retry_after.as_secs() })
        }
        Err(error) => json!({ "code": error.code() }),
    }
}

/// The answers of the process that called, and of ten processes that waited for it. The
/// platform answers only when all ten have seen that the key was locked, and is called
/// once.
async fn all_answers(step: Step) -> (Value, Vec<Value>) {
    let server = RedisServer::start();
    let simulator = GenesysSimulator::start().await;
    simulator.script(move |_| step.clone());
    let upstream = Arc::new(Gated {
        platform: platform(
            simulator.base_url(),
            simulator.client_id(),
            simulator.client_secret(),
        ),
        gate: Semaphore::new(0),
    });
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let engine = Engine::builder(upstream.clone()).store(store);
    let engine = engine.start().await.unwrap();
    let calling = tokio::spawn(async move { engine.execute_within(request(), LIMIT).await });
    simulator.ledger().wait_for(1).await;
    let waiters: Vec<_> = (0..WAITERS)
        .map(|_| Waiter::start(&server.url(), &simulator))
        .collect();
    let name = RecordName::new(upstream.namespace(), IdempotencyKey::of(&request())).to_string();
    eventually("all ten wait for a notification", async || {
        let (_, listening): (String, usize) = server.command(&["PUBSUB", "NUMSUB", &name]);
        listening == WAITERS
    })
    .await;
    upstream.gate.add_permits(1);
    let called = calling.await.unwrap();
    // Each process ends by itself, at the latest with its own deadline.
    let reading = tokio::task::spawn_blocking(|| waiters.into_iter().map(Waiter::answer).collect());
    let waited: Vec<Value> = reading.await.unwrap();
    assert_eq!(waited.len(), WAITERS);
    assert_eq!(simulator.ledger().total(), 1);
    (summary_of(called), waited)
}

/// Red if a release carries no refusal: each waiter then calls for itself.
#[tokio::test(flavor = "multi_thread")]
async fn refusal_answers_every_process() {
    let forbidden = answers::platform_error(403, "missing.permissions", "no");
    let body = String::from_utf8(forbidden.body().to_vec()).unwrap();
    let (called, waited) = all_answers(Step::Answer(forbidden)).await;
    let refusal =
        |served| json!({"status": 403, "body": body, "recorded": false, "served": served});
    assert_eq!(called, refusal("upstream"));
    for answer in waited {
        assert_eq!(answer, refusal("store"));
    }
}

/// Red if a release carries no refusal.
#[tokio::test(flavor = "multi_thread")]
async fn rate_limit_answers_every_process() {
    let (called, waited) = all_answers(Step::RateLimited(Duration::from_secs(600))).await;
    let limited = json!({ "code": "rate_limited", "retry_after": 600 });
    assert_eq!(called, limited);
    for answer in waited {
        assert_eq!(answer, limited);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn outcome_answers_every_process() {
    let (called, waited) = all_answers(Step::ok(r#"{"refund":"R-1"}"#)).await;
    let outcome = |served| {
        json!({
            "status": 200, "body": r#"{"refund":"R-1"}"#, "recorded": true, "served": served,
        })
    };
    assert_eq!(called, outcome("upstream"));
    for answer in waited {
        assert_eq!(answer, outcome("store"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_outcome_reaches_every_process() {
    let (called, waited) = all_answers(Step::Reset).await;
    let unknown = json!({ "code": "indeterminate" });
    assert_eq!(called, unknown);
    for answer in waited {
        assert_eq!(answer, unknown);
    }
}
