//! What a service makes of the engine's types: HTTP statuses of errors, HTTP responses of
//! replies, JSON of figures.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use genesys_once::error::TokenError;
use genesys_once::testing::{ScriptedTokens, ScriptedUpstream, Step, TokenStep, every_error};
use genesys_once::{DataActionRequest, Engine, Error, Outcome, Reply, RetryHint, Served};
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Value, json};
use tokio::time::sleep;

/// The statuses after which clients usually retry by themselves.
const RETRIED: [u16; 3] = [429, 503, 504];

#[test]
fn each_error_has_its_status() {
    let expected = BTreeMap::from([
        ("crashed", 503),
        ("deadline_exceeded", 504),
        ("expired", 504),
        ("in_progress", 409),
        ("indeterminate", 502),
        ("invalid_config", 500),
        ("invalid_request", 400),
        ("no_runtime", 500),
        ("not_indeterminate", 409),
        ("overloaded", 503),
        ("payload_mismatch", 422),
        ("rate_limited", 429),
        ("record_unreadable", 500),
        ("resolution_unknown", 409),
        ("stopped", 503),
        ("store_unavailable", 503),
        // For refused credentials: a retry does not help.
        ("token", 502),
        ("too_early", 409),
        ("unauthorized", 502),
        ("unknown_key", 404),
        ("unreachable", 503),
    ]);
    let errors = every_error();
    let found = errors
        .iter()
        .map(|error| (error.code(), error.status().as_u16()));
    assert_eq!(found.collect::<BTreeMap<_, _>>(), expected);
}

/// Red with 503 for refused credentials.
#[test]
fn no_status_invites_a_retry_that_the_hint_forbids() {
    for error in every_error() {
        let retried = RETRIED.contains(&error.status().as_u16());
        match (error.hint(), &error) {
            // Another instance might answer.
            (_, Error::Stopped) => assert!(retried),
            (RetryHint::After(_), Error::InProgress { .. } | Error::TooEarly { .. }) => {
                assert_eq!(error.status(), StatusCode::CONFLICT);
            }
            (RetryHint::After(_), _) => assert!(retried, "{error}"),
            _ => assert!(!retried, "{error}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn token_status_depends_on_its_cause() {
    for (cause, status) in [
        (TokenError::rejected("invalid_client"), 502),
        (TokenError::new("connection refused"), 503),
        (TokenError::rate_limited(Duration::from_secs(3_000)), 503),
    ] {
        let tokens = ScriptedTokens::new(move |_| TokenStep::Fail(cause.clone()));
        let upstream = ScriptedUpstream::new(|_| Step::ok("{}")).with_tokens(tokens);
        let engine = Engine::builder(upstream).start().await.unwrap();
        let error = engine.execute(request("{}")).await.unwrap_err();
        assert_eq!(error.code(), "token");
        assert_eq!(error.status(), status, "{error:?}");
    }
}

fn request(payload: &str) -> DataActionRequest {
    DataActionRequest::new("refund", payload.to_owned()).unwrap()
}

fn response(of: impl Into<Response<Bytes>>) -> Response<Bytes> {
    of.into()
}

/// Red if the headers of the platform's connection are in the response, and if a replay
/// becomes another response than the first reply.
#[tokio::test]
async fn reply_and_its_replay_are_one_response() {
    let upstream = ScriptedUpstream::new(|_| {
        Step::status(201, r#"{"refund":"R-1"}"#)
            .header("set-cookie", "session=1")
            .header("transfer-encoding", "chunked")
            .header("link", "</a>")
            .header("link", "</b>")
    });
    let engine = Engine::builder(upstream).start().await.unwrap();
    let first = engine.execute(request("{}")).await.unwrap();
    let replay: Reply = engine.execute(request("{}")).await.unwrap();
    assert_eq!(
        (first.served(), replay.served()),
        (Served::Upstream, Served::Memory)
    );
    let outcome = Outcome::clone(first.outcome());
    for response in [response(first), response(replay), response(outcome)] {
        assert_eq!(response.status(), StatusCode::CREATED);
        assert_eq!(response.body(), r#"{"refund":"R-1"}"#);
        let mut expected = HeaderMap::new();
        expected.append("content-type", "application/json".parse().unwrap());
        expected.append("link", "</a>".parse().unwrap());
        expected.append("link", "</b>".parse().unwrap());
        assert_eq!(*response.headers(), expected);
    }
}

/// Red with a member that is a pair of seconds and nanoseconds.
#[tokio::test(start_paused = true)]
async fn stats_are_json_with_milliseconds() {
    let upstream = ScriptedUpstream::new(|_| Step::RateLimited(Duration::from_secs(60)));
    let engine = Engine::builder(upstream).start().await.unwrap();
    let waiting = tokio::spawn({
        let engine = engine.clone();
        async move { engine.execute(request("{}")).await }
    });
    sleep(Duration::from_millis(1_500)).await;
    let stats = engine.stats();
    let shown = serde_json::to_value(&stats).unwrap();
    let left = stats.cooldown.as_millis() as u64;
    assert!(left > 50_000, "{left} ms");
    assert_eq!(shown["cooldown_ms"], left);
    assert_eq!(shown["token_valid_for_ms"], Value::Null);
    assert_eq!(shown["executions"], 1);
    assert_eq!(shown["store_up"], true);
    let oldest = stats.backlog.retry.oldest.as_millis() as u64;
    assert!(oldest >= 1_000, "{oldest} ms");
    assert_eq!(
        shown["backlog"]["retry"],
        json!({ "executions": 1, "oldest_ms": oldest })
    );
    for served in [
        Served::Upstream,
        Served::Joined,
        Served::Memory,
        Served::Store,
    ] {
        assert_eq!(json!(served), served.as_str());
    }
    waiting.abort();
}
