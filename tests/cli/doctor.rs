//! `doctor`: what it finds, what it recommends, and how it ends.

use genesys_once::testing::{GenesysSimulator, Step};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::process::{Cli, NAMESPACE};
use super::records::{engine, labelled, lose, record, request, set_writer, slow_engine, store};
use super::tampering_proxy;
use crate::support::redis::{Options, RedisServer};

pub fn lasting() -> RedisServer {
    let options = Options::default().append_only();
    options.set("maxmemory-policy", "noeviction").start()
}

pub fn with_platform(cli: Cli, platform: &GenesysSimulator) -> Cli {
    cli.set("GENESYS_CLOUD_URL", platform.base_url())
        .set("GENESYS_CLOUD_CLIENT_ID", platform.client_id())
        .set("GENESYS_CLOUD_CLIENT_SECRET", platform.client_secret())
}

#[track_caller]
fn has(said: &str, line: &[&str]) {
    let found = said
        .lines()
        .any(|found| line.iter().all(|part| found.contains(part)));
    assert!(found, "no line with {line:?}:\n{said}");
}

/// Red if a finding that needs no action is a warning: the exit code would say nothing.
#[tokio::test]
async fn durable_store_and_platform_are_all_ok() {
    let server = lasting();
    let (answering, _) = engine(store(&server).await, || Step::ok("{}")).await;
    record(&answering, request(1)).await;
    let platform = GenesysSimulator::start().await;
    let cli = with_platform(Cli::on(&server), &platform);
    // The limit holds on a busy machine, too.
    let said = cli.run(&["doctor", "--slow", "1m"]).await.expect(0).out;
    let address = format!("127.0.0.1:{}", server.port);
    for line in [
        &["OK", "store", "Redis of REDIS_URL"][..],
        &["OK", "latency", "10 looks: median"],
        &["OK", "server", &address, "redis 7"],
        &["OK", "durability", "evicts no record"],
        &["OK", "durability", "append-only file"],
        &["OK", "rights", "allows every command"],
        &["OK", "clock", "agrees with this machine"],
        &["OK", "writers", "as this program"],
        &[
            "OK",
            "namespace",
            "night, set by name: for one organisation only",
        ],
        &["OK", "records", "night: 1 cached"],
        &["OK", "token", "valid for 1day"],
        &["OK", "platform", "answers 404"],
    ] {
        has(&said, line);
    }
    assert!(!said.contains("WARN") && !said.contains("->"), "{said}");
    assert_eq!(platform.ledger().total(), 0, "no action is executed");
    assert_eq!(platform.token_requests(), 1);
    assert!(!said.contains(platform.client_secret()), "{said}");
}

#[tokio::test]
async fn possible_loss_fails_with_a_remedy() {
    let options = Options::default().set("maxmemory", "100mb");
    let server = options.set("maxmemory-policy", "allkeys-lru").start();
    let said = Cli::on(&server)
        .run(&["doctor", "--store-only"])
        .await
        .expect(11)
        .out;
    has(&said, &["FAIL", "durability", "evicts records"]);
    has(&said, &["-> CONFIG SET maxmemory-policy noeviction"]);
    has(
        &said,
        &["FAIL", "durability", "forgets everything when it restarts"],
    );
    has(&said, &["-> CONFIG SET appendonly yes"]);
    has(&said, &["WARN", "records", "night has no record"]);
    let snapshots = Options::default().set("save", "3600 1").start();
    let said = Cli::on(&snapshots)
        .run(&["doctor", "--store-only"])
        .await
        .expect(10)
        .out;
    has(&said, &["WARN", "durability", "since its last snapshot"]);
}

#[tokio::test]
async fn open_keys_and_holders_are_reported() {
    let server = lasting();
    let (losing, _) = slow_engine(store(&server).await).await;
    lose(&losing, labelled(1)).await;
    let name = format!("genesys-once:{NAMESPACE}:{}", "ab".repeat(32));
    server.command::<()>(&["SET", &name, "damaged"]);
    let said = Cli::on(&server)
        .run(&["doctor", "--store-only"])
        .await
        .expect(10)
        .out;
    has(&said, &["WARN", "keys", "1 indeterminate"]);
    has(&said, &["-> genesys-once list"]);
    has(&said, &["WARN", "keys", "1 records cannot be read"]);
    let process = format!("process {} since 20", std::process::id());
    has(&said, &["OK", "holders", &process]);
}

#[tokio::test]
async fn missing_rights_are_named_with_their_effects() {
    let server = lasting();
    let user = "ACL SETUSER app on >pw ~genesys-once:* &genesys-once:* +set +get +getrange +strlen \
                +exists +pttl +pexpire +eval +evalsha +del +setrange";
    server.command::<()>(&user.split(' ').collect::<Vec<_>>());
    let url = format!("redis://app:pw@127.0.0.1:{}", server.port);
    let cli = Cli::on(&server).set("REDIS_URL", url);
    let said = cli.run(&["doctor", "--store-only"]).await.expect(10).out;
    for command in [
        "PUBLISH",
        "SCAN",
        "ROLE",
        "INFO",
        "CONFIG GET",
        "TIME",
        "WAIT",
    ] {
        has(&said, &["WARN", "rights", &format!("forbids {command}:")]);
    }
    has(&said, &["-> ACL SETUSER", "+config|get"]);
    has(&said, &["WARN", "durability", "does not say"]);
    has(&said, &["WARN", "records", "cannot be listed"]);
    // Connecting checks the rights that every store needs.
    server.command::<()>(&["ACL", "SETUSER", "app", "-get"]);
    let said = cli.run(&["doctor", "--store-only"]).await.expect(11).out;
    has(&said, &["FAIL", "store", "GET"]);
}

/// Red if clocks that differ are no failure.
#[tokio::test]
async fn clock_that_differs_is_reported() {
    let server = lasting();
    let port = tampering_proxy::start(server.port, |request, reply| {
        let asks =
            request.windows(6).any(|part| part == b"TIME\r\n") && reply.starts_with(b"*2\r\n$10");
        Some(match asks {
            true => b"*2\r\n$10\r\n1700000000\r\n$1\r\n0\r\n".to_vec(),
            false => reply,
        })
    })
    .await;
    let cli = Cli::on(&server).set("REDIS_URL", format!("redis://127.0.0.1:{port}"));
    let said = cli.run(&["doctor", "--store-only"]).await.expect(11).out;
    has(&said, &["FAIL", "clock", "is behind this machine by"]);
    has(&said, &["-> run NTP"]);
}

#[tokio::test]
async fn writers_of_another_release_are_reported() {
    let server = lasting();
    let cli = Cli::on(&server);
    let (answering, _) = engine(store(&server).await, || Step::ok("{}")).await;
    record(&answering, request(1)).await;
    for (version, code, level) in [(1, 10, "WARN"), (99, 11, "FAIL")] {
        set_writer(&server, version);
        let said = cli.run(&["doctor", "--store-only"]).await.expect(code).out;
        has(
            &said,
            &[
                level,
                "writers",
                &format!("engines of version {version} or later"),
            ],
        );
    }
}

#[tokio::test]
async fn store_token_and_platform_fail_separately() {
    let server = lasting();
    let (answering, _) = engine(store(&server).await, || Step::ok("{}")).await;
    record(&answering, request(1)).await;
    let platform = GenesysSimulator::start().await;
    let cli = with_platform(Cli::on(&server), &platform);

    let wrong = cli
        .clone()
        .set("GENESYS_CLOUD_CLIENT_SECRET", "wrong-secret");
    let said = wrong.run(&["doctor"]).await.expect(11).out;
    has(&said, &["FAIL", "token", "refused the client"]);
    has(&said, &["-> correct GENESYS_CLOUD_CLIENT_ID"]);
    assert!(!said.contains("wrong-secret"), "{said}");

    let none = cli.clone().unset("GENESYS_CLOUD_CLIENT_SECRET");
    let said = none.run(&["doctor"]).await.expect(10).out;
    has(&said, &["WARN", "token", "not checked"]);

    platform.refuse_connections(true).await;
    let said = cli.run(&["doctor"]).await.expect(11).out;
    has(&said, &["FAIL", "token"]);
    has(&said, &["OK", "records"]);
    platform.refuse_connections(false).await;

    drop(server);
    let said = cli.run(&["doctor"]).await.expect(11).out;
    has(&said, &["FAIL", "store", "REDIS_URL"]);
    has(&said, &["OK", "token"]);
}

/// A platform that issues tokens and answers every other request with `status`.
async fn platform_with(status: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = Vec::new();
                // Reads the whole request: closing a connection with unread bytes resets
                // it.
                let asks = loop {
                    client.read_buf(&mut request).await.unwrap();
                    match request.starts_with(b"POST /oauth/token") {
                        true if tampering_proxy::has(&request, "client_credentials") => break true,
                        false if request.ends_with(b"\r\n\r\n") => break false,
                        _ => {}
                    }
                };
                let body = match asks {
                    true => r#"{"access_token":"t","token_type":"bearer","expires_in":300}"#,
                    false => "",
                };
                let status = if asks { "200 OK" } else { status };
                assert!(asks || request.starts_with(b"HEAD /api/v2/tokens/me HTTP/1.1\r\n"));
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
                );
                client.write_all(answer.as_bytes()).await.unwrap();
            });
        }
    });
    url
}

/// Red if an answer that refuses the token counts as an answer that accepts it.
#[tokio::test]
async fn refused_token_and_failing_platform_are_reported() {
    let server = lasting();
    let cli = Cli::on(&server)
        .set("GENESYS_CLOUD_CLIENT_ID", "id")
        .set("GENESYS_CLOUD_CLIENT_SECRET", "secret");
    for (status, code, line) in [
        (
            "401 Unauthorized",
            11,
            ["FAIL", "platform", "refuses the token"],
        ),
        (
            "503 Service Unavailable",
            10,
            ["WARN", "platform", "answers 503"],
        ),
    ] {
        let cli = cli
            .clone()
            .set("GENESYS_CLOUD_URL", platform_with(status).await);
        let said = cli.run(&["doctor"]).await.expect(code).out;
        has(&said, &["OK", "token", "valid for 5m"]);
        has(&said, &line);
    }
}

/// Red if a namespace that is a name is reported as a digest.
#[tokio::test]
async fn default_namespace_is_reported_as_a_digest() {
    let server = lasting();
    let cli = Cli::on(&server)
        .unset("SERVICE_NAMESPACE")
        .set("GENESYS_CLOUD_DOMAIN", "mypurecloud.ie")
        .set("GENESYS_CLOUD_CLIENT_ID", "id");
    let said = cli.run(&["doctor", "--store-only"]).await.expect(10).out;
    has(
        &said,
        &[
            "OK",
            "namespace",
            "go-",
            "the digest of platform and client",
        ],
    );
}

#[tokio::test]
async fn latency_over_the_limit_is_a_warning() {
    let server = lasting();
    let words = ["doctor", "--store-only", "--slow", "0s"];
    let said = Cli::on(&server).run(&words).await.expect(10).out;
    has(&said, &["WARN", "latency", "10 looks: median"]);
}
