//! The execute routes, and what the ledger counts of them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use genesys_once::IdempotencyKey;
use genesys_once::testing::{GenesysSimulator, Step, answers};
use genesys_once::upstream::Call;

use super::client::{Client, PAYLOAD, key, path};

#[tokio::test]
async fn both_routes_execute_with_distinct_answers() {
    let platform = GenesysSimulator::start().await;
    let mut client = Client::with_token(&platform).await;
    let routes = [
        path("refund"),
        "/api/v2/integrations/actions/refund/execute".to_owned(),
        "/api/v2/integrations/actions/refund/execute?flatten=true".to_owned(),
        path("%72efund"),
    ];
    let mut ids = Vec::new();
    for (i, route) in routes.iter().enumerate() {
        let answer = client.post(route, &[], PAYLOAD).await.unwrap();
        let n = i + 1;
        let expected = format!(r#"{{"refund":"R-{n}","action":"refund","input":{PAYLOAD}}}"#);
        assert_eq!(
            (answer.status, answer.body),
            (200, expected.into_bytes()),
            "{route}"
        );
        ids.push(answer.headers["inin-correlation-id"].clone());
    }
    ids.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    ids.dedup();
    assert_eq!(ids.len(), 4);
    let ledger = platform.ledger();
    assert_eq!(
        (
            ledger.total(),
            ledger.calls(&key()),
            ledger.executed(&key())
        ),
        (4, 4, 4)
    );
    assert_eq!(ledger.keys(), [key()]);
    assert_eq!(platform.max_concurrent(), 1);
}

#[tokio::test]
async fn other_request_is_refused_and_not_counted() {
    let platform = GenesysSimulator::start().await;
    let mut client = Client::with_token(&platform).await;
    for wrong in [
        "/",
        "/api/v2/users/me",
        &path(""),
        &path("a/b"),
        &path("%zz"),
        "/oauth/tokens",
    ] {
        let answer = client.post(wrong, &[], "{}").await.unwrap();
        let body = answer.json();
        assert_eq!(
            (answer.status, &body["status"]),
            (404, &404.into()),
            "{wrong}"
        );
        assert_eq!(body["code"], "not.found");
        assert_eq!(body["details"], serde_json::json!([]));
        assert!(!answer.header("inin-correlation-id").is_empty());
    }
    let answer = client
        .request("PUT", &path("refund"), &[], b"{}")
        .await
        .unwrap();
    assert_eq!((answer.status, answer.header("allow")), (405, "POST"));
    assert_eq!(platform.ledger().total(), 0);
}

#[tokio::test]
async fn call_with_bad_token_is_not_executed() {
    let platform = GenesysSimulator::start().await;
    platform.script(|_| panic!("a call without a token reaches no action"));
    let mut client = Client::connect(&platform).await.unwrap();
    for headers in [
        &[][..],
        &["authorization: Bearer wrong"],
        &["authorization: Basic eDp5"],
    ] {
        let body = PAYLOAD.as_bytes();
        let answer = client
            .request("POST", &path("refund"), headers, body)
            .await
            .unwrap();
        assert_eq!(
            (answer.status, &answer.json()["status"]),
            (401, &401.into())
        );
    }
    let ledger = platform.ledger();
    assert_eq!((ledger.calls(&key()), ledger.executed(&key())), (3, 0));
}

#[tokio::test]
async fn header_names_the_key_of_each_arrival() {
    let platform = GenesysSimulator::start().await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let notes = seen.clone();
    platform.script(move |call: &Call| {
        assert_eq!(call.request().payload(), PAYLOAD);
        notes.lock().unwrap().push((call.key(), call.attempt()));
        Step::ok("{}")
    });
    let mut client = Client::with_token(&platform).await;
    let other = IdempotencyKey::from_bytes([7; 32]);
    let header = format!("idempotency-key: {other}");
    for headers in [
        &[&*header][..],
        &[],
        &[&header],
        &["idempotency-key: no key"],
    ] {
        client
            .post(&path("refund"), headers, PAYLOAD)
            .await
            .unwrap();
    }
    assert_eq!(
        *seen.lock().unwrap(),
        [(other, 1), (key(), 1), (other, 2), (key(), 2)]
    );
    assert_eq!(platform.ledger().keys(), [other, key()]);
}

#[tokio::test]
async fn non_json_body_does_not_reach_the_script() {
    let platform = GenesysSimulator::start().await;
    platform.script(|_| panic!("what is no request reaches no action"));
    let mut client = Client::with_token(&platform).await;
    let name = IdempotencyKey::from_bytes([8; 32]);
    let header = format!("idempotency-key: {name}");
    for body in ["", "{", "{} {}", "nul"] {
        let answer = client
            .post(&path("refund"), &[&header], body)
            .await
            .unwrap();
        assert_eq!(
            (answer.status, &answer.json()["status"]),
            (400, &400.into()),
            "{body}"
        );
    }
    // This answer is final like any other, and proves nothing.
    assert_eq!(platform.ledger().executed(&name), 4);
}

#[tokio::test]
async fn oversized_body_is_413_and_not_executed() {
    let platform = GenesysSimulator::start().await;
    let mut client = Client::with_token(&platform).await;
    let name = IdempotencyKey::from_bytes([9; 32]);
    let header = format!("idempotency-key: {name}");
    let mut body = format!("\"{}\"", "x".repeat(16 * 1024 * 1024 - 2));
    let answer = client
        .post(&path("refund"), &[&header], &body)
        .await
        .unwrap();
    assert_eq!(answer.status, 200);
    body.push(' ');
    let answer = client
        .post(&path("refund"), &[&header], &body)
        .await
        .unwrap();
    assert_eq!(answer.status, 413);
    platform.ledger().assert_exactly_once(&[name]);
}

#[tokio::test]
async fn answer_is_sent_as_scripted() {
    let platform = GenesysSimulator::start().await;
    let remote = answers::remote_error(403, "ACTION.REMOTE_ENDPOINT", "not yours");
    let steps = Mutex::new(vec![
        Step::status(307, "").header("location", "/elsewhere"),
        Step::RateLimited(Duration::from_millis(41_500)),
        Step::Answer(remote),
        Step::status(503, "{}").after(Duration::from_millis(1)),
        Step::ok("{}")
            .header("set-cookie", "a=1")
            .header("set-cookie", "b=2"),
        Step::ok("[1]")
            .header("inin-correlation-id", "given")
            .header("content-length", "99"),
    ]);
    platform.script(move |_| steps.lock().unwrap().remove(0));
    let mut client = Client::with_token(&platform).await;
    let mut next = async || client.execute().await.unwrap();
    let executed = || platform.ledger().executed(&key());

    let moved = next().await;
    assert_eq!(
        (moved.status, moved.header("location"), executed()),
        (307, "/elsewhere", 0)
    );
    let limited = next().await;
    assert_eq!(
        (limited.status, limited.header("retry-after"), executed()),
        (429, "42", 0)
    );
    assert_eq!(limited.json()["code"], "too.many.requests.retry.after");
    let remote = next().await;
    assert_eq!((remote.status, executed()), (403, 1));
    assert_eq!(
        remote.json()["details"][0]["errorCode"],
        "ACTION.REMOTE_ENDPOINT"
    );
    assert_eq!(
        remote.header("inin-correlation-id"),
        remote.json()["contextId"]
    );
    assert_eq!((next().await.status, executed()), (503, 2));
    let cookies = next().await;
    assert_eq!(cookies.headers.get_all("set-cookie").iter().count(), 2);
    let given = next().await;
    assert_eq!(
        (given.header("inin-correlation-id"), &*given.body),
        ("given", &b"[1]"[..])
    );
}

#[tokio::test]
async fn panic_in_a_script_fails_the_test() {
    let running = tokio::spawn(async {
        let platform = GenesysSimulator::start().await;
        platform.script(|call| panic!("unexpected: {}", call.request().action_id()));
        let mut client = Client::with_token(&platform).await;
        client.execute().await.err().unwrap();
        platform.stop().await;
    });
    let panic = running.await.unwrap_err().into_panic();
    let message = panic.downcast_ref::<String>().unwrap();
    assert_eq!(
        message,
        "the simulator's script panicked: unexpected: refund"
    );
}

#[cfg(feature = "genesys")]
#[tokio::test]
async fn simulator_returns_environment_and_credentials() {
    let platform = GenesysSimulator::start().await;
    let debug = format!("{:?} {:?}", platform.environment(), platform.credentials());
    assert!(!debug.contains(platform.client_secret()));
}
