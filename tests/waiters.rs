//! Ten engines, each with a connection of its own, wait for one key that an
//! eleventh is executing: one call, and all answer from its verdict.
#![cfg(all(feature = "testing", feature = "redis"))]

mod support;

use std::sync::Arc;
use std::time::Duration;

use genesys_once::testing::{ScriptedUpstream, Step, answers};
use genesys_once::{
    AccessToken, BoxFuture, Call, DataActionRequest, Engine, Error, IdempotencyKey, Namespace,
    Outcome, RecordName, RedisStore, Reply, SendError, Served, Upstream,
};
use support::eventually;
use support::redis::RedisServer;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

const WAITERS: usize = 10;

/// A platform whose answer waits until the test opens the gate.
struct Gated {
    platform: ScriptedUpstream,
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
}

fn request() -> DataActionRequest {
    DataActionRequest::new("custom_-_refund", "{}").unwrap()
}

fn ask(engine: &Engine) -> JoinHandle<Result<Reply, Error>> {
    let engine = engine.clone();
    tokio::spawn(async move { engine.execute(request()).await })
}

/// The answers of the one who called and of ten who waited for it, from the
/// moment on when all ten had seen that the key was held.
async fn all_answers(step: Step) -> (Vec<Result<Reply, Error>>, ScriptedUpstream) {
    let server = RedisServer::start();
    let platform = ScriptedUpstream::new(move |_| step.clone());
    let gate = Semaphore::new(0);
    let upstream = Arc::new(Gated {
        platform: platform.clone(),
        gate,
    });
    let mut engines = Vec::new();
    for _ in 0..=WAITERS {
        let store = RedisStore::connect(&server.url()).await.unwrap();
        engines.push(
            Engine::builder(upstream.clone())
                .store(store)
                .start()
                .await
                .unwrap(),
        );
    }
    let mut callers = vec![ask(&engines[0])];
    platform.ledger().wait_for(1).await;
    callers.extend(engines[1..].iter().map(ask));
    let name = RecordName::new(upstream.namespace(), IdempotencyKey::of(&request())).to_string();
    eventually("all ten wait for a notice", async || {
        let (_, listening): (String, usize) = server.command(&["PUBSUB", "NUMSUB", &name]);
        listening == WAITERS
    })
    .await;
    upstream.gate.add_permits(1);
    let mut all = Vec::new();
    for caller in callers {
        let answer = tokio::time::timeout(Duration::from_secs(30), caller).await;
        all.push(answer.expect("a waiter was left unanswered").unwrap());
    }
    (all, platform)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_answers_everybody_everywhere() {
    let forbidden = answers::platform_error(403, "missing.permissions", "no");
    let (all, platform) = all_answers(Step::Answer(forbidden)).await;
    for answer in all {
        let reply = answer.unwrap();
        assert_eq!((reply.status().as_u16(), reply.recorded()), (403, false));
        assert!(reply.json::<serde_json::Value>().unwrap()["code"] == "missing.permissions");
    }
    assert_eq!(platform.ledger().total(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_answers_everybody_everywhere() {
    let (all, platform) = all_answers(Step::RateLimited(Duration::from_secs(600))).await;
    for answer in all {
        let error = answer.unwrap_err();
        assert!(
            matches!(error, Error::RateLimited { retry_after, .. } if retry_after.as_secs() == 600),
            "{error}"
        );
    }
    assert_eq!(platform.ledger().total(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_answers_everybody_everywhere() {
    let (all, platform) = all_answers(Step::ok("{\"refund\":\"R-1\"}")).await;
    for (n, answer) in all.into_iter().enumerate() {
        let reply = answer.unwrap();
        assert_eq!(reply.body().as_ref(), b"{\"refund\":\"R-1\"}");
        let served = if n == 0 {
            Served::Upstream
        } else {
            Served::Store
        };
        assert_eq!((reply.served(), reply.recorded()), (served, true));
    }
    assert_eq!(platform.ledger().total(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_outcome_is_told_to_everybody_everywhere() {
    let (all, platform) = all_answers(Step::Reset).await;
    for answer in all {
        let error = answer.unwrap_err();
        assert!(matches!(error, Error::Indeterminate { .. }), "{error}");
    }
    assert_eq!(platform.ledger().total(), 1);
}
