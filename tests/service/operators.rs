//! What operators do with keys, and which clients are not operators.

use std::time::Duration;

use genesys_once::testing::{GenesysSimulator, Step};
use serde_json::json;

use crate::http_client::send;
use crate::key;
use crate::process::{Settings, TOKEN};
use crate::support::redis::RedisServer;

/// The metrics that the alerts of `ops/` use exist. Red without `watch_indeterminate`.
#[cfg(feature = "metrics")]
#[tokio::test]
async fn watcher_counts_a_lost_call() {
    let redis = RedisServer::start();
    let platform = GenesysSimulator::start().await;
    platform.script(|_| Step::Reset);
    let service = Settings::of(&platform)
        .set("REDIS_URL", redis.url())
        .set("SERVICE_WATCH_SECONDS", "1")
        .start()
        .await;
    let lost = service.execute(r#"{"order":1}"#).await;
    lost.problem(502, "indeterminate");
    crate::support::eventually("the gauge shows the key", async || {
        let metrics = service.get("/metrics").await;
        let mut gauges = metrics.body.lines();
        gauges.any(|line| {
            line.starts_with("genesys_once_indeterminate_keys{") && line.ends_with("} 1")
        })
    })
    .await;
}

/// Seen red without the call of `resolve`, without the call of `forget`, and with a guard
/// that admits every client.
#[tokio::test]
async fn operators_look_resolve_and_forget() {
    let redis = RedisServer::start();
    let platform = GenesysSimulator::start().await;
    platform.script(|call| match call.attempt() {
        1 => Step::Reset,
        _ => Step::ok(r#"{"refund":"R-2"}"#),
    });
    let service = Settings::of(&platform)
        .set("REDIS_URL", redis.url())
        .start()
        .await;
    let (payload, key) = (r#"{"order":1}"#, key(1).to_string());
    let path = format!("/keys/{key}");
    let resolve = format!("{path}/resolve");

    for (method, path) in [("GET", &path), ("DELETE", &path), ("POST", &resolve)] {
        for token in ["", "Bearer ", "Bearer an-admin-token-of-the-test", TOKEN] {
            let headers = [("authorization", token)];
            let answer = send(&service.address, method, path, &headers, "").await;
            let answer = answer.unwrap();
            answer.problem(401, "unauthenticated");
            assert_eq!(answer.header("www-authenticate"), "Bearer");
        }
    }
    service
        .admin("GET", &path, "")
        .await
        .problem(404, "not_found");

    let lost = service.execute(payload).await.problem(502, "indeterminate");
    assert_eq!(
        (&lost["key"], &lost["retryable"]),
        (&json!(key), &json!(false))
    );
    let list = service.admin("GET", "/keys?state=indeterminate", "").await;
    assert_eq!(list.status, 200);
    let list = list.json();
    assert_eq!(
        (&list["keys"][0]["key"], &list["more"]),
        (&json!(key), &json!(false))
    );
    assert_eq!(list["keys"][0]["state"], "indeterminate");
    assert_eq!(list["keys"][0]["request"]["action"], "refund");
    for query in ["", "?state=cached", "?state=indeterminate&limit=0"] {
        let answer = service.admin("GET", &format!("/keys{query}"), "").await;
        answer.problem(400, "invalid_request");
    }

    let shown = service.admin("GET", &path, "").await;
    let tag = shown.header("etag").to_owned();
    assert_eq!(
        tag,
        format!("\"{}\"", shown.json()["version"].as_str().unwrap())
    );
    assert_eq!(lost["version"], shown.json()["version"]);

    // The lost attempt might still be running: the service refuses `not_applied`.
    let not_applied = r#"{"resolution":"not_applied"}"#;
    let early = service.resolve(&resolve, &tag, not_applied).await;
    assert!(early.header("retry-after").parse::<u64>().unwrap() > 60);
    early.problem(409, "too_early");
    for body in [
        "",
        "{}",
        r#"{"resolution":"applied","status":99}"#,
        r#"{"resolution":"applied","status":200,"bdy":"{}"}"#,
        r#"{"resolution":"applied","status":200,"body":"{"}"#,
        r#"{"resolution":"not_applied","status":200}"#,
    ] {
        let answer = service.resolve(&resolve, &tag, body).await;
        answer.problem(400, "invalid_request");
    }
    let found = r#"{"resolution":"applied","status":200,"body":"{\"refund\":\"R-1\"}"}"#;
    // The service refuses a resolution without a version, and with a version that was not
    // shown.
    let blind = service.admin("POST", &resolve, found).await;
    blind.problem(428, "version_required");
    for tag in ["*", "", "W/\"1\"", "\"not-a-version\""] {
        let answer = service.resolve(&resolve, tag, found).await;
        answer.problem(428, "version_required");
    }
    let other = format!("\"{}-{}\"", "0".repeat(32), "0".repeat(64));
    let answer = service.resolve(&resolve, &other, found).await;
    answer.problem(409, "not_indeterminate");
    assert_eq!(service.resolve(&resolve, &tag, found).await.status, 204);
    let replay = service.execute(payload).await;
    assert_eq!(
        (replay.status, replay.body.as_str()),
        (200, r#"{"refund":"R-1"}"#)
    );
    assert_eq!(replay.header("idempotency-replayed"), "true");
    let record = service.admin("GET", &path, "").await.json();
    assert_eq!(
        (&record["state"], &record["body_bytes"]),
        (&json!("cached"), &json!(16))
    );
    assert_eq!(platform.ledger().total(), 1);

    assert_eq!(service.admin("DELETE", &path, "").await.status, 204);
    service
        .admin("DELETE", &path, "")
        .await
        .problem(404, "not_found");
    let executed = service.execute(payload).await;
    assert_eq!(executed.body, r#"{"refund":"R-2"}"#);
    assert_eq!(platform.ledger().total(), 2);
}

/// A repeated request to forget, whose first answer was lost, removes no later outcome.
///
/// Red if `If-Match` is not compared: 204, and the next request was executed.
#[tokio::test]
async fn operators_forget_the_version_they_saw() {
    let redis = RedisServer::start();
    let platform = GenesysSimulator::start().await;
    platform.script(|call| Step::ok(call.attempt().to_string()));
    let service = Settings::of(&platform)
        .set("REDIS_URL", redis.url())
        .start()
        .await;
    let (payload, path) = (r#"{"order":1}"#, format!("/keys/{}", key(1)));
    let mut tags = Vec::new();
    for answer in ["1", "2"] {
        assert_eq!(service.execute(payload).await.body, answer);
        tags.push(
            service
                .admin("GET", &path, "")
                .await
                .header("etag")
                .to_owned(),
        );
        if answer == "1" {
            assert_eq!(service.forget(&path, &tags[0]).await.status, 204);
        }
    }
    assert_ne!(tags[0], tags[1]);
    let repeated = service.forget(&path, &tags[0]).await;
    repeated.problem(412, "changed");
    service
        .forget(&path, "*")
        .await
        .problem(428, "version_required");
    let shown = service.admin("GET", &path, "").await;
    assert_eq!((shown.status, shown.header("etag")), (200, &*tags[1]));
    assert_eq!(service.execute(payload).await.body, "2");
    assert_eq!(platform.ledger().total(), 2);

    assert_eq!(service.forget(&path, &tags[1]).await.status, 204);
    let gone = service.admin("GET", &path, "").await;
    gone.problem(404, "not_found");
    assert_eq!(service.execute(payload).await.body, "3");
}

/// Seen red if the routes are merged without a token.
#[tokio::test]
async fn without_a_token_there_are_no_operators() {
    let folder = std::env::temp_dir().join(format!("service-{}", std::process::id()));
    let file = folder.join("records.redb");
    let service = Settings::simulated()
        .set("SERVICE_FILE", file.to_str().unwrap())
        .start()
        .await;
    assert_eq!(service.execute(r#"{"order":1}"#).await.status, 200);
    let answer = service.admin("GET", &format!("/keys/{}", key(1)), "").await;
    answer.problem(404, "not_found");
    for path in ["/keys?state=indeterminate", "/", "/login", "/page.css"] {
        service
            .admin("GET", path, "")
            .await
            .problem(404, "not_found");
    }
    drop(service);
    std::fs::remove_dir_all(folder).unwrap();
}

/// Seen red without the call of `end_cooldown`, and with a token that keeps the line break
/// that its secret store appended.
#[tokio::test]
async fn operator_ends_a_cooldown() {
    let redis = RedisServer::start();
    let platform = GenesysSimulator::start().await;
    platform.script(|_| Step::RateLimited(Duration::from_secs(200)));
    let service = Settings::of(&platform)
        .set("REDIS_URL", redis.url())
        .set("SERVICE_ADMIN_TOKEN", format!(" {TOKEN}\n"))
        .start()
        .await;
    service.execute("1").await.problem(429, "rate_limited");
    platform.script(|_| Step::ok("{}"));
    let held = service.get("/readyz").await.json()["cooldown_seconds"].as_f64();
    assert!(held > Some(100.0), "{held:?}");
    let anonymous = send(&service.address, "DELETE", "/cooldown", &[], "").await;
    anonymous.unwrap().problem(401, "unauthenticated");
    assert_eq!(service.admin("DELETE", "/cooldown", "").await.status, 204);
    assert_eq!(service.execute("2").await.status, 200);
}
