//! Callers with names of their own, and which key their requests get.

use genesys_once::testing::GenesysSimulator;

use crate::process::{Settings, TOKEN};
use crate::support::redis::RedisServer;

const BILLING: (&str, &str) = ("authorization", "Bearer token-of-billing-1");
const SALES: (&str, &str) = ("authorization", "Bearer token-of-sales-12345");
const CALLERS: &str = "billing=token-of-billing-1\n  sales=token-of-sales-12345 ";

/// Seen red if the caller's name is not the scope.
#[tokio::test]
async fn callers_do_not_share_answers() {
    let redis = RedisServer::start();
    let platform = GenesysSimulator::start().await;
    let service = Settings::of(&platform)
        .set("REDIS_URL", redis.url())
        .set("SERVICE_CALLERS", CALLERS)
        .start()
        .await;
    let admin = format!("Bearer {TOKEN}");
    for value in [
        "",
        "Bearer ",
        "Bearer token-of-billing-2",
        "Basic x",
        &admin,
    ] {
        let anonymous = [("authorization", value)];
        let answer = service.execute_with("1", &anonymous).await;
        answer.problem(401, "unauthenticated");
    }
    // With two tokens, the caller is not identified.
    let answer = service.execute_with("1", &[BILLING, SALES]).await;
    answer.problem(401, "unauthenticated");
    assert_eq!(platform.ledger().total(), 0);

    let key = ("idempotency-key", "order-42");
    let billing = service.execute_with("1", &[BILLING, key]).await;
    let sales = service.execute_with("1", &[SALES, key]).await;
    for answer in [&billing, &sales] {
        assert_eq!(answer.header("genesys-once-served"), "upstream");
    }
    assert_ne!(
        billing.header("genesys-once-key"),
        sales.header("genesys-once-key")
    );
    let again = service.execute_with("1", &[BILLING, key]).await;
    assert_eq!(again.body, billing.body);
    assert_eq!(platform.ledger().total(), 2);

    let stolen = ("idempotency-scope", "billing");
    let nested = service.execute_with("1", &[SALES, key, stolen]).await;
    assert_eq!(nested.header("genesys-once-served"), "upstream");
    let replay = service.execute_with("1", &[SALES, key]).await;
    assert_eq!(replay.body, sales.body);
}

/// The same settings from a file, as secret stores mount them.
#[tokio::test]
async fn callers_are_read_from_a_file() {
    let name = format!("service-callers-{}", std::process::id());
    let file = std::env::temp_dir().join(name);
    std::fs::write(&file, CALLERS).unwrap();
    let redis = RedisServer::start();
    let platform = GenesysSimulator::start().await;
    let service = Settings::of(&platform)
        .set("REDIS_URL", redis.url())
        .set("SERVICE_CALLERS_FILE", file.to_str().unwrap())
        .start()
        .await;
    std::fs::remove_file(file).unwrap();
    let anonymous = service.execute("1").await;
    anonymous.problem(401, "unauthenticated");
    assert_eq!(service.execute_with("1", &[SALES]).await.status, 200);
}

/// Seen red without the setting.
#[tokio::test]
async fn missing_key_is_refused_where_one_is_required() {
    let redis = RedisServer::start();
    let platform = GenesysSimulator::start().await;
    let service = Settings::of(&platform)
        .set("REDIS_URL", redis.url())
        .set("SERVICE_REQUIRE_KEY", "1")
        .start()
        .await;
    service.execute("1").await.problem(400, "key_required");
    assert_eq!(platform.ledger().total(), 0);
    let uuid = "8e03978e-40d5-43dd-bc93-6894a57f9324";
    let bare = [("idempotency-key", uuid)];
    let first = service.execute_with("1", &bare).await;
    assert_eq!(first.status, 200);
    let quoted = format!("\"{uuid}\"");
    let quoted = [("idempotency-key", quoted.as_str())];
    let again = service.execute_with("1", &quoted).await;
    assert_eq!(again.header("idempotency-replayed"), "true");
}
