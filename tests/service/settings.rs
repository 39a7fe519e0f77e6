//! The settings with which a service starts, and those with which it refuses to start. A
//! simulated platform never answers in place of a real platform.

use genesys_once::testing::GenesysSimulator;

use crate::http_client::send;
use crate::process::{Settings, TOKEN};
use crate::support::redis::RedisServer;

/// A folder that is removed with its guard.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("service-{name}-{}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn file(&self) -> String {
        self.0.join("records.redb").to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Seen red without the ranges of numbers: the engine reported the error, and knows no
/// variables.
#[tokio::test]
async fn invalid_settings_are_named_with_their_values() {
    let folder = Folder::new("refused");
    for (name, value, says) in [
        ("SERVICE_ADMIN_TOKEN", "", "set, and empty"),
        ("SERVICE_ADMIN_TOKEN", "short", "fewer than 16 characters"),
        (
            "SERVICE_ADMIN_TOKEN",
            "with a blank in between",
            "visible ASCII",
        ),
        (
            "SERVICE_ADDRESS",
            "localhost:80",
            "is \"localhost:80\": expected an IP address",
        ),
        (
            "SERVICE_METRICS_ADDRESS",
            "here",
            "is \"here\": expected an IP address",
        ),
        (
            "SERVICE_BODY_LIMIT",
            "-1",
            "is \"-1\": expected a number from 1 to",
        ),
        (
            "SERVICE_BODY_LIMIT",
            "0",
            "is \"0\": expected a number from 1 to",
        ),
        (
            "SERVICE_BODY_TOTAL",
            "9",
            "is 9, less than SERVICE_BODY_LIMIT, 1048576",
        ),
        (
            "SERVICE_CONNECTIONS",
            "0",
            "is \"0\": expected a number from 1 to",
        ),
        (
            "SERVICE_DEADLINE_SECONDS",
            "0",
            "is \"0\": expected a number from 1 to 86400",
        ),
        (
            "SERVICE_GRACE_SECONDS",
            "1m",
            "is \"1m\": expected a number from 0 to 86400",
        ),
        ("SERVICE_REQUIRE_KEY", "yes", "is \"yes\": expected 0 or 1"),
        (
            "SERVICE_ON_DUPLICATE",
            "both",
            "is \"both\": expected wait or fail-fast",
        ),
        ("SERVICE_HOSTS", "a b", "is \"a b\": expected host names"),
        (
            "SERVICE_CALLERS",
            "hunter2-hunter2-hunter2",
            "pair 1 is not NAME=TOKEN",
        ),
        (
            "SERVICE_CALLERS",
            "a=hunter2",
            "the token of \"a\" has fewer",
        ),
        (
            "SERVICE_CALLERS",
            "ä=hunter2-hunter2-hunter2",
            "the name of pair 1",
        ),
        (
            "SERVICE_CALLERS",
            "a=hunter2-hunter2-hunter2 b=hunter2-hunter2-hunter2",
            "\"a\" and \"b\" have the same token",
        ),
        (
            "SERVICE_CALLERS_FILE",
            "/nowhere",
            "is \"/nowhere\": No such file",
        ),
        (
            "SERVICE_NAMESPACE",
            "Billing",
            "is \"Billing\": malformed namespace",
        ),
        (
            "SERVICE_NAMESPACE",
            "simulated-service",
            "is \"simulated-service\": expected another",
        ),
        ("GENESYS_SIMULATE", "true", "is \"true\": expected 0 or 1"),
        ("GENESYS_SIMULATE", "1", "GENESYS_CLOUD_DOMAIN is set"),
        (
            "GENESYS_CLOUD_URL",
            "http://h",
            "GENESYS_CLOUD_DOMAIN and GENESYS_CLOUD_URL",
        ),
        (
            "GENESYS_CLOUD_DOMAIN",
            "not a domain",
            "is \"not a domain\": ",
        ),
        (
            "REDIS_URL",
            "redis://user:hunter2@127.0.0.1:1",
            "REDIS_URL: ",
        ),
    ] {
        let mut settings = Settings::none()
            .set("GENESYS_CLOUD_DOMAIN", "mypurecloud.ie")
            .set("GENESYS_CLOUD_CLIENT_ID", "id")
            .set("GENESYS_CLOUD_CLIENT_SECRET", "hunter2");
        if name != "REDIS_URL" {
            settings = settings.set("SERVICE_FILE", folder.file());
        }
        let output = settings.set(name, value).fail().await;
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{name}={value:?}: {said}");
        assert!(said.contains(name), "{name}={value:?}: {said}");
        assert!(said.contains(says), "{name}={value:?}: {said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}

/// Seen red if the error of the engine's `start` is passed on unchanged.
#[tokio::test]
async fn impossible_address_is_named_with_its_variable() {
    let folder = Folder::new("plain");
    let output = Settings::none()
        .set("SERVICE_FILE", folder.file())
        .set("GENESYS_CLOUD_URL", "http://192.0.2.1")
        .set("GENESYS_CLOUD_CLIENT_ID", "id")
        .set("GENESYS_CLOUD_CLIENT_SECRET", "hunter2")
        .fail()
        .await;
    let said = String::from_utf8(output.stderr).unwrap();
    let expected = "GENESYS_CLOUD_URL is \"http://192.0.2.1\": ";
    assert!(said.contains(expected), "{said}");
}

/// Seen red if the service simulates a platform when none is named.
#[tokio::test]
async fn missing_credentials_are_named_and_not_simulated() {
    const ALL: [(&str, &str); 3] = [
        ("GENESYS_CLOUD_DOMAIN", "mypurecloud.ie"),
        ("GENESYS_CLOUD_CLIENT_ID", "id"),
        ("GENESYS_CLOUD_CLIENT_SECRET", "hunter2"),
    ];
    let folder = Folder::new("missing");
    // Every subset of the variables but the whole set.
    for set in 0..7 {
        let mut settings = Settings::none().set("SERVICE_FILE", folder.file());
        for (number, (name, value)) in ALL.iter().enumerate() {
            if set & (1 << number) != 0 {
                settings = settings.set(name, *value);
            }
        }
        let output = settings.fail().await;
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        let missing = said.split(';').next().unwrap();
        for (number, (name, _)) in ALL.iter().enumerate() {
            assert_eq!(missing.contains(name), set & (1 << number) == 0, "{said}");
        }
        assert!(said.contains("GENESYS_SIMULATE=1"), "{said}");
    }
}

/// The same Redis, the same namespace, the same request: first a simulator, then the real
/// platform. Seen red if a simulator uses SERVICE_NAMESPACE: the real instance executed
/// nothing.
#[tokio::test]
async fn real_platform_replays_no_simulated_answer() {
    let redis = RedisServer::start();
    let simulated = Settings::simulated()
        .set("REDIS_URL", redis.url())
        .set("SERVICE_NAMESPACE", "prod")
        .start()
        .await;
    let answer = simulated.execute("1").await;
    assert_eq!(answer.header("genesys-once-served"), "upstream");
    drop(simulated);

    let platform = GenesysSimulator::start().await;
    let real = Settings::of(&platform)
        .set("REDIS_URL", redis.url())
        .set("SERVICE_NAMESPACE", "prod")
        .start()
        .await;
    let answer = real.execute("1").await;
    assert_eq!(answer.header("genesys-once-served"), "upstream");
    assert_eq!(platform.ledger().total(), 1);
}

/// Every variable that the source reads is explained. Seen red with one left out of
/// `help.txt`.
#[tokio::test]
async fn help_and_manual_name_every_variable() {
    let output = Settings::none().run("--help").await;
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).unwrap();
    let manual = include_str!("../../examples/service/README.md");
    let mut names = std::collections::BTreeSet::new();
    for source in [
        include_str!("../../examples/service/settings.rs"),
        include_str!("../../examples/service/platform.rs"),
    ] {
        let quoted = source.split('"').skip(1).step_by(2);
        names.extend(quoted.filter(|text| {
            let begins = ["SERVICE_", "GENESYS_", "REDIS_URL"];
            let is_name = |c: char| c.is_ascii_uppercase() || c == '_';
            begins.iter().any(|b| text.starts_with(b)) && text.chars().all(is_name)
        }));
    }
    assert!(names.len() > 20, "{names:?}");
    for name in names {
        assert!(help.contains(&format!("  {name} ")), "--help lacks {name}");
        assert!(manual.contains(&format!("`{name}`")), "README lacks {name}");
    }
    let unknown = Settings::none().run("--port").await;
    assert!(!unknown.status.success());
    assert!(
        String::from_utf8(unknown.stderr)
            .unwrap()
            .contains("\"--port\"")
    );
}

/// A file at a default path would be lost with its container: executed requests would be
/// executed again. Red if a real platform falls back on such a file, and if a caller's
/// token may be the operators' token.
#[tokio::test]
async fn real_platform_needs_store_and_distinct_tokens() {
    let platform = GenesysSimulator::start().await;
    let said = Settings::of(&platform).fail().await;
    assert!(!said.status.success());
    let said = String::from_utf8(said.stderr).unwrap();
    assert!(
        said.contains("not set: REDIS_URL or SERVICE_FILE"),
        "{said}"
    );
    let both = format!("billing={TOKEN}");
    let settings = Settings::of(&platform).set("SERVICE_CALLERS", both);
    let said = String::from_utf8(settings.fail().await.stderr).unwrap();
    assert!(said.contains("a caller's token, too"), "{said}");
}

/// Seen red without the check of the host, and with a check that probes must pass.
#[tokio::test]
async fn unlisted_hosts_are_refused() {
    let redis = RedisServer::start();
    let platform = GenesysSimulator::start().await;
    let service = Settings::of(&platform)
        .set("REDIS_URL", redis.url())
        .set("SERVICE_HOSTS", "Service.example, other.example:8443")
        .start()
        .await;
    let get = async |path: &str, host: &str| {
        let headers = [("host", host)];
        let answer = send(&service.address, "GET", path, &headers, "").await;
        answer.unwrap()
    };
    for host in [
        "service.example",
        "SERVICE.example:81",
        "other.example:8443",
    ] {
        assert_eq!(get("/problems/internal", host).await.status, 200, "{host}");
    }
    for host in [
        "",
        "evil.example",
        "other.example",
        "service.example.evil",
        "x@service.example",
    ] {
        let answer = get("/problems/internal", host).await;
        answer.problem(421, "unknown_host");
        assert_eq!(get("/login", host).await.status, 421);
        assert_eq!(get("/readyz", host).await.status, 200);
    }
}

/// Seen red with `/metrics` on both addresses.
#[tokio::test]
async fn metrics_address_serves_metrics_and_probes() {
    let redis = RedisServer::start();
    let platform = GenesysSimulator::start().await;
    let service = Settings::of(&platform)
        .set("REDIS_URL", redis.url())
        .set("SERVICE_METRICS_ADDRESS", "127.0.0.1:0")
        .start()
        .await;
    let apart = async |path: &str| {
        let bearer = format!("Bearer {TOKEN}");
        let headers = [("authorization", bearer.as_str())];
        let answer = send(&service.metrics, "GET", path, &headers, "").await;
        answer.unwrap()
    };
    assert_eq!(apart("/livez").await.status, 200);
    assert_eq!(apart("/readyz").await.status, 200);
    apart("/keys?state=indeterminate")
        .await
        .problem(404, "not_found");
    apart("/actions/refund/execute")
        .await
        .problem(404, "not_found");
    service.get("/metrics").await.problem(404, "not_found");
    #[cfg(feature = "metrics")]
    assert!(apart("/metrics").await.body.contains("genesys_once_"));
}
