//! What operators do with keys, and who is no operator. Also what a service
//! refuses to start with.

use genesys_once::testing::{GenesysSimulator, Step};
use serde_json::json;

use crate::http_client::send;
use crate::key;
use crate::process::{Settings, TOKEN};
use crate::support::redis::RedisServer;

/// Seen red without the call of `resolve`, without that of `forget`, and with a
/// guard that admits everybody.
#[tokio::test]
async fn they_look_resolve_and_forget() {
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

    // The lost attempt might still be running: nobody may say that it is not.
    let not_applied = r#"{"resolution":"not_applied"}"#;
    let early = service.resolve(&resolve, &tag, not_applied).await;
    assert!(early.header("retry-after").parse::<u64>().unwrap() > 60);
    early.problem(409, "too_early");
    for body in [
        "",
        "{}",
        r#"{"resolution":"applied","status":99}"#,
        r#"{"resolution":"applied","status":200,"bdy":"{}"}"#,
        r#"{"resolution":"not_applied","status":200}"#,
    ] {
        let answer = service.resolve(&resolve, &tag, body).await;
        answer.problem(400, "invalid_request");
    }
    let found = r#"{"resolution":"applied","status":200,"body":"{\"refund\":\"R-1\"}"}"#;
    // Not without the version that was seen, and no other one.
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

/// Seen red where the routes are merged without a token.
#[tokio::test]
async fn without_a_token_there_are_no_operators() {
    let folder = std::env::temp_dir().join(format!("service-{}", std::process::id()));
    let file = folder.join("records.redb");
    // Nothing but the file is set: the simulator is inside.
    let service = Settings::none()
        .set("SERVICE_FILE", file.to_str().unwrap())
        .start()
        .await;
    assert_eq!(service.execute(r#"{"order":1}"#).await.status, 200);
    let answer = service.admin("GET", &format!("/keys/{}", key(1)), "").await;
    answer.problem(404, "not_found");
    let list = service.admin("GET", "/keys?state=indeterminate", "").await;
    list.problem(404, "not_found");
    drop(service);
    std::fs::remove_dir_all(folder).unwrap();
}

/// Seen red without the check of the token's length: that service started.
#[tokio::test]
async fn it_does_not_start_with_settings_that_it_does_not_understand() {
    for (name, value, says) in [
        ("SERVICE_ADMIN_TOKEN", "", "set, and empty"),
        ("SERVICE_ADMIN_TOKEN", "short", "fewer than 16 characters"),
        ("SERVICE_ADDRESS", "here", "SERVICE_ADDRESS"),
        ("SERVICE_BODY_LIMIT", "-1", "SERVICE_BODY_LIMIT"),
        ("SERVICE_BODY_LIMIT", "0", "max_payload_bytes"),
        ("SERVICE_ON_DUPLICATE", "both", "fail-fast"),
        ("SERVICE_NAMESPACE", "Billing", "SERVICE_NAMESPACE"),
        (
            "GENESYS_CLOUD_DOMAIN",
            "mypurecloud.ie",
            "go with the platform",
        ),
        ("GENESYS_CLOUD_CLIENT_ID", "id", "name one platform"),
        ("REDIS_URL", "redis://user:hunter2@127.0.0.1:1", "REDIS_URL"),
    ] {
        let file = std::env::temp_dir().join(format!("service-none-{}", std::process::id()));
        let mut settings = Settings::none().set(name, value);
        if name != "REDIS_URL" {
            settings = settings.set("SERVICE_FILE", file.join("records.redb").to_str().unwrap());
        }
        let output = settings.fail().await;
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{name}={value:?}: {said}");
        assert!(said.contains(says), "{name}={value:?}: {said}");
        assert!(!said.contains("hunter2"), "{said}");
        let _ = std::fs::remove_dir_all(file);
    }
}
