//! Every problem document: the table over all errors of the engine, and over HTTP each
//! document that a caller can cause.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::response::IntoResponse as _;
use genesys_once::testing::{GenesysSimulator, Step, every_error};
use genesys_once::{Error, RetryHint};
use serde_json::json;

use crate::http_client::send;
use crate::problem::{Problem, TITLES};
use crate::process::Settings;
use crate::support::eventually;
use crate::support::redis::RedisServer;

/// Seen red if a row of the table is missing ("no row"), if `Retry-After` is not set, and
/// if a cause is shown.
#[test]
fn every_error_has_a_fitting_status() {
    let codes: BTreeSet<_> = TITLES.iter().map(|(code, _)| *code).collect();
    assert_eq!(codes.len(), TITLES.len(), "a code occurs twice");
    for error in every_error() {
        let (code, hint, key) = (error.code(), error.hint(), error.key());
        let expected = error.status();
        // No execution inside a runtime returns these errors.
        if !matches!(error, Error::InvalidConfig { .. } | Error::NoRuntime) {
            assert!(codes.contains(code), "no row for {code}");
        }
        let problem = Problem::from(error);
        let document = problem.document();
        let response = problem.into_response();
        let status = response.status();
        assert!(status.is_client_error() || status.is_server_error());
        assert_eq!(status, expected, "{code}");
        assert_eq!(document["status"], status.as_u16());
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json"
        );
        assert_eq!(document["key"], json!(key), "{code}");
        let retry_after = response.headers().get("retry-after");
        let wait = match hint {
            RetryHint::After(wait) => Some(wait.as_secs().max(1)),
            _ if code == "stopped" => Some(1),
            _ => None,
        };
        let said = retry_after.map(|value| value.to_str().unwrap().parse().unwrap());
        assert_eq!(said, wait, "{code}");
        assert_eq!(document["retryable"], wait.is_some(), "{code}");
        for cause in ["connection re", "version 9", "invalid_client"] {
            assert!(!document.to_string().contains(cause), "{document}");
        }
    }
}

/// Seen red without the body limit, without the check of the content type, and with keys
/// that have parameters.
#[tokio::test]
async fn request_without_execution_is_refused() {
    let redis = RedisServer::start();
    let platform = GenesysSimulator::start().await;
    let service = Settings::of(&platform)
        .set("REDIS_URL", redis.url())
        .set("SERVICE_BODY_LIMIT", "1000")
        .start()
        .await;
    let refused = async |path: &str, headers: &[(&str, &str)], body: &str| {
        let answer = send(&service.address, "POST", path, headers, body).await;
        answer.unwrap()
    };
    let json = ("content-type", "application/json; charset=utf-8");
    let path = "/actions/refund/execute";
    let document = refused(path, &[json], r#"{"a":1,"a":2}"#).await;
    let document = document.problem(400, "invalid_request");
    assert_eq!(document["field"], "payload");
    let document = refused("/actions/a%3Ab/execute", &[json], "{}").await;
    let document = document.problem(400, "invalid_request");
    assert_eq!(document["field"], "action_id");
    let answer = refused("/actions/%ff/execute", &[json], "{}").await;
    answer.problem(400, "invalid_request");
    for key in [
        "",
        "\"",
        "\"a\"b\"",
        "\"a\\n\"",
        "é",
        "a, b",
        "(\"a\")",
        "\"a\";b=1",
        "?1",
    ] {
        let answer = refused(path, &[json, ("idempotency-key", key)], "{}").await;
        answer.problem(400, "invalid_request");
    }
    let twice = [json, ("idempotency-key", "a"), ("idempotency-key", "b")];
    refused(path, &twice, "{}")
        .await
        .problem(400, "invalid_request");
    let large = format!("\"{}\"", "x".repeat(1_000));
    let answer = refused(path, &[json], &large).await;
    answer.problem(413, "payload_too_large");
    let form = ("content-type", "application/x-www-form-urlencoded");
    for headers in [&[][..], &[form]] {
        let answer = refused(path, headers, "{}").await;
        answer.problem(415, "unsupported_media_type");
    }
    refused("/nowhere", &[json], "{}")
        .await
        .problem(404, "not_found");
    let answer = service.get(path).await;
    answer.problem(405, "method_not_allowed");
    assert_eq!(answer.header("allow"), "POST");
    assert_eq!(platform.ledger().total(), 0);
    // The page behind a problem's type.
    let explained = service.get("/problems/indeterminate").await.json();
    assert_eq!(
        explained["title"],
        "It might have been executed, and is not repeated"
    );
    let answer = service.get("/problems/unheard-of").await;
    answer.problem(404, "not_found");
}

/// Seen red without `ALLOW`, and without `LOCATION`, in `routes::HANDED_OVER`.
#[tokio::test]
async fn platform_refusals_are_passed_or_named() {
    let redis = RedisServer::start();
    let platform = GenesysSimulator::start().await;
    let settings = Settings::of(&platform).set("REDIS_URL", redis.url());
    let wrong = settings.set("GENESYS_CLOUD_CLIENT_SECRET", "wrong");
    let wrong = wrong.start().await;
    let document = wrong.execute("{}").await.problem(502, "token");
    assert_eq!(document["retryable"], false);

    let settings = Settings::of(&platform).set("REDIS_URL", redis.url());
    let service = settings.start().await;
    // The platform's own refusals are answers, and are passed on unchanged.
    platform.script(|_| Step::status(403, r#"{"code":"no.permission"}"#));
    let answer = service.execute("3").await;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (403, r#"{"code":"no.permission"}"#)
    );
    assert_eq!(answer.header("genesys-once-recorded"), "false");
    assert_eq!(answer.header("content-type"), "application/json");

    // They are passed on with the headers that a client needs to read them.
    for (status, name, value) in [
        (405, "allow", "GET"),
        (307, "location", "/elsewhere"),
        (200, "content-encoding", "gzip"),
    ] {
        platform.script(move |_| Step::status(status, "{}").header(name, value));
        let answer = service.execute(&status.to_string()).await;
        assert_eq!((answer.status, answer.header(name)), (status, value));
    }

    platform.script(|_| Step::status(401, "{}").header("inin-correlation-id", "c-1"));
    let document = service.execute("1").await.problem(502, "unauthorized");
    assert_eq!(document["correlation_id"], "c-1");

    platform.refuse_connections(true).await;
    let document = service.execute("2").await.problem(503, "unreachable");
    assert_eq!(document["retryable"], true);
    platform.refuse_connections(false).await;

    // Last, since every later caller waits for this cooldown.
    platform.script(|_| Step::RateLimited(Duration::from_secs(200)));
    let answer = service.execute("4").await;
    answer.problem(429, "rate_limited");
    let seconds: u64 = answer.header("retry-after").parse().unwrap();
    assert!((190..=200).contains(&seconds), "{seconds}");
    let health = service.get("/readyz").await.json();
    assert!(
        health["cooldown_seconds"].as_f64() > Some(100.0),
        "{health}"
    );
}

#[tokio::test]
async fn deadline_and_execution_under_way_are_problems() {
    let redis = RedisServer::start();
    let platform = GenesysSimulator::start().await;
    platform.script(|_| Step::Silent);
    let service = Settings::of(&platform)
        .set("REDIS_URL", redis.url())
        .set("SERVICE_DEADLINE_SECONDS", "1")
        .set("SERVICE_ON_DUPLICATE", "fail-fast")
        .start()
        .await;
    let late = service.execute("1").await.problem(504, "deadline_exceeded");
    assert_eq!(late["retryable"], true);
    let under_way = service.execute("1").await.problem(409, "in_progress");
    assert_eq!(late["key"], under_way["key"]);
    assert_eq!(platform.ledger().total(), 1);
}

/// Seen red if `ready` uses `stats` alone: an idle engine does not notice the outage. Seen
/// red if `livez` uses `ready`.
#[tokio::test]
async fn unavailable_store_is_reported_and_nothing_is_sent() {
    let mut redis = RedisServer::start();
    let platform = GenesysSimulator::start().await;
    let service = Settings::of(&platform)
        .set("REDIS_URL", redis.url())
        .start()
        .await;
    redis.kill();
    let health = service.get("/readyz").await;
    assert_eq!(health.status, 503);
    assert_eq!(health.json()["store"], "down");
    // No supervisor should restart a process because of an outage.
    assert_eq!(service.get("/livez").await.status, 200);
    let document = service.execute("1").await.problem(503, "store_unavailable");
    assert_eq!(document["retryable"], true);
    assert_eq!(platform.ledger().total(), 0);
    redis.restart();
    eventually("the store is back", async || {
        service.get("/readyz").await.status == 200
    })
    .await;
    assert_eq!(service.execute("1").await.status, 200);
}
