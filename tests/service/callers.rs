//! Thousands of callers at once, and the answers they get: one execution per key, the first
//! answer marked as the first, all others as replays.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use genesys_once::testing::GenesysSimulator;
use tokio::sync::Semaphore;

use crate::key;
use crate::process::{Settings, execute};
use crate::support::redis::RedisServer;

const CALLERS: usize = 3_000;
/// A third of the callers ask for the first order.
const ORDERS: usize = 401;

/// All callers at once, or as many as this process may have open files: each caller is a
/// connection, in this process and in the service.
fn at_once() -> usize {
    let limit = std::process::Command::new("sh")
        .args(["-c", "ulimit -n"])
        .output()
        .unwrap();
    let limit = String::from_utf8(limit.stdout).unwrap();
    // "unlimited" is no number, and enough.
    let limit = limit.trim().parse().unwrap_or(usize::MAX);
    CALLERS.min(limit / 2)
}

/// The same request in another formatting.
fn spelling(order: usize, caller: usize) -> String {
    match caller % 3 {
        0 => format!(r#"{{"order":{order}}}"#),
        1 => format!(r#"{{ "\u006frder" : {order}.0 }}"#),
        _ => format!("{{\n\t\"order\": {order}e0\n}}"),
    }
}

/// Seen red if each caller has a scope of its own ("not executed exactly once"), if every
/// answer has the replay header, and without `/metrics`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_thousand_callers_make_one_call_per_key() {
    let redis = RedisServer::start();
    let platform = GenesysSimulator::start().await;
    platform.latency(Duration::from_millis(100));
    let service = Settings::of(&platform)
        .set("REDIS_URL", redis.url())
        .start()
        .await;

    let connections = Arc::new(Semaphore::new(at_once()));
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let order = if caller % 3 == 0 { 0 } else { caller % ORDERS };
            let (address, payload) = (service.address.clone(), spelling(order, caller));
            let connections = connections.clone();
            let calling = async move {
                let _one = connections.acquire().await;
                execute(&address, &payload, &[]).await
            };
            (order, tokio::spawn(calling))
        })
        .collect();
    let mut answers = BTreeMap::<_, Vec<_>>::new();
    for (order, caller) in callers {
        let answer = caller.await.unwrap().unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        answers.entry(order).or_default().push(answer);
    }

    assert_eq!(answers.len(), ORDERS);
    let keys: Vec<_> = answers.keys().map(|order| key(*order)).collect();
    platform.ledger().assert_exactly_once(&keys);
    assert_eq!(platform.ledger().total(), ORDERS);
    for (order, answers) in &answers {
        let key = key(*order).to_string();
        let first: Vec<_> = answers
            .iter()
            .filter(|answer| answer.header("idempotency-replayed").is_empty())
            .collect();
        assert_eq!(first.len(), 1, "order {order} has several first answers");
        assert_eq!(first[0].header("genesys-once-served"), "upstream");
        for answer in answers {
            assert_eq!(answer.body, first[0].body, "two answers for order {order}");
            assert_eq!(answer.header("genesys-once-key"), key);
            assert_eq!(answer.header("content-type"), "application/json");
        }
    }
    #[cfg(feature = "metrics")]
    assert_metrics(&service.get("/metrics").await.body);
    let health = service.get("/readyz").await;
    assert_eq!(health.status, 200);
    assert_eq!(health.json()["waiting"], 0);
    assert_eq!(health.json()["token"]["state"], "valid");
    assert!(health.json()["token"]["valid_for_seconds"].as_u64() > Some(3_600));
}

/// The sums that Prometheus reads equal the number of requests and calls.
#[cfg(feature = "metrics")]
fn assert_metrics(text: &str) {
    let sum = |series: &str| -> f64 {
        let lines = text.lines().filter(|line| line.starts_with(series));
        let values = lines.map(|line| line.rsplit_once(' ').unwrap().1);
        values.map(|value| value.parse::<f64>().unwrap()).sum()
    };
    assert_eq!(
        sum("genesys_once_requests_total{"),
        CALLERS as f64,
        "{text}"
    );
    assert_eq!(sum("genesys_once_upstream_calls_total{"), ORDERS as f64);
    let buckets = "genesys_once_upstream_call_duration_seconds_bucket{";
    assert!(text.contains(buckets), "{text}");
}

/// Seen red without `.with_key(…)` and without `.with_scope(…)` in `routes::request`.
#[tokio::test]
async fn own_key_and_scope_make_the_key() {
    let redis = RedisServer::start();
    let platform = GenesysSimulator::start().await;
    let service = Settings::of(&platform)
        .set("REDIS_URL", redis.url())
        .start()
        .await;
    let own = [("idempotency-key", "\"order-42\"")];
    let first = service.execute_with(r#"{"order":42}"#, &own).await;
    assert_eq!(first.status, 200);
    // The draft's quotation marks do not belong to the key.
    let bare = [("idempotency-key", "order-42")];
    let again = service.execute_with(r#"{ "order": 42.0 }"#, &bare).await;
    assert_eq!(
        (again.header("idempotency-replayed"), &again.body),
        ("true", &first.body)
    );
    assert_eq!(platform.ledger().total(), 1);

    let other = service.execute_with(r#"{"order":43}"#, &own).await;
    let document = other.problem(422, "payload_mismatch");
    assert_eq!(document["key"], first.header("genesys-once-key"));
    assert_eq!(document["retryable"], false);

    let scope = [("idempotency-key", "order-42"), ("idempotency-scope", "2")];
    let repeat = service.execute_with(r#"{"order":42}"#, &scope).await;
    assert_eq!(repeat.header("genesys-once-served"), "upstream");
    assert_eq!(platform.ledger().total(), 2);
}
