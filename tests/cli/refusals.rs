//! What the command line refuses, with which code, and that no message contains a secret.

use std::sync::atomic::{AtomicBool, Ordering};

use genesys_once::testing::Step;

use super::process::{Cli, NAMESPACE, resolve};
use super::records::{engine, lose, record, request, set_writer, slow_engine, store};
use super::tampering_proxy::{self, has};
use crate::support::redis::{Options, RedisServer};

const NO_KEY: &str = "0000000000000000000000000000000000000000000000000000000000000000";
const MARK: &str = "R-UNCERTAIN";

#[tokio::test]
async fn store_and_namespace_must_be_named_once() {
    for (cli, needed) in [
        (Cli::bare(), "SERVICE_NAMESPACE"),
        (
            Cli::bare().set("SERVICE_NAMESPACE", "A B"),
            "SERVICE_NAMESPACE: malformed namespace",
        ),
        (
            Cli::bare().set("SERVICE_NAMESPACE", ""),
            "SERVICE_NAMESPACE is set, and empty",
        ),
        (
            Cli::bare().set("SERVICE_NAMESPACE", "n"),
            "no store: set REDIS_URL",
        ),
        (
            Cli::bare().set("GENESYS_CLOUD_DOMAIN", "mypurecloud.ie"),
            "GENESYS_CLOUD_CLIENT_ID",
        ),
    ] {
        let said = cli.run(&["list"]).await.expect(2);
        assert!(said.err.contains(needed), "{needed}: {}", said.err);
    }
    let both = Cli::bare()
        .set("SERVICE_NAMESPACE", "n")
        .set("REDIS_URL", "redis://127.0.0.1:1")
        .set("SERVICE_FILE", "/tmp/x");
    let said = both.run(&["list"]).await.expect(2);
    assert!(
        said.err.contains("REDIS_URL, SERVICE_FILE are all set"),
        "{}",
        said.err
    );
    let two = [
        "--namespace",
        "a",
        "show",
        &format!("genesys-once:b:{NO_KEY}"),
    ];
    Cli::bare().run(&two).await.expect(2);
}

/// Red if the default namespace is not that of an engine with this platform and client.
#[tokio::test]
async fn default_namespace_is_that_of_platform_and_client() {
    use genesys_once::{Credentials, Environment, GenesysCloud, Upstream as _};
    let server = RedisServer::start();
    let environment = Environment::from_domain("mypurecloud.ie").unwrap();
    let upstream = GenesysCloud::new(environment, Credentials::new("client-1", "x"));
    let cli = Cli::on(&server)
        .unset("SERVICE_NAMESPACE")
        .set("GENESYS_CLOUD_DOMAIN", "mypurecloud.ie")
        .set("GENESYS_CLOUD_CLIENT_ID", "client-1");
    let said = cli.run(&["list"]).await.expect(0).out;
    assert!(said.contains(upstream.namespace().as_str()), "{said}");
}

#[tokio::test]
async fn unknown_key_is_3() {
    let server = RedisServer::start();
    let cli = Cli::on(&server);
    let version = format!("{}-{NO_KEY}", &NO_KEY[..32]);
    let resolve = resolve(NO_KEY, &version, &["--not-applied"]);
    for words in [&["show", NO_KEY][..], &["forget", NO_KEY], &resolve[..]] {
        let said = cli.run(words).await.expect(3);
        assert!(said.err.contains(NAMESPACE), "{}", said.err);
    }
}

#[tokio::test]
async fn key_in_another_state_or_version_is_4() {
    let server = RedisServer::start();
    let cli = Cli::on(&server);
    let (losing, _) = slow_engine(store(&server).await).await;
    let (answering, _) = engine(store(&server).await, || Step::ok("{}")).await;
    let (lost, version) = lose(&losing, request(1)).await;
    let (_, other) = lose(&losing, request(2)).await;
    let lost = lost.to_string();
    let words = resolve(&lost, &other, &["--not-applied", "--yes"]);
    let said = cli.run(&words).await.expect(4);
    assert!(
        said.err.contains(&version),
        "the error names the current version: {}",
        said.err
    );
    assert!(
        said.err.contains("not in the version that you named"),
        "{}",
        said.err
    );
    cli.run(&["forget", &lost, "--yes"]).await.expect(4);
    cli.run(&["show", &lost, "--body"]).await.expect(4);

    let recorded = record(&answering, request(3)).await.to_string();
    let shown = cli.run(&["show", &recorded, "--json"]).await.expect(0).out;
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let version = shown["version"].as_str().unwrap();
    let words = resolve(&recorded, version, &["--not-applied", "--yes"]);
    let said = cli.run(&words).await.expect(4);
    assert!(said.err.contains("it is not indeterminate"), "{}", said.err);
}

#[tokio::test]
async fn resolve_refuses_typing_errors_before_the_store() {
    let version = format!("{}-{NO_KEY}", &NO_KEY[..32]);
    let found = resolve(NO_KEY, &version, &[]);
    for more in [
        &["--applied", "99", "{}"][..],
        &["--applied", "600", "{}"],
        &["--applied", "yes", "{}"],
        &["--applied", "200", "{"],
        &["--applied", "200"],
        &["--applied", "200", "{}", "--not-applied"],
        &["--applied", "200", "{}", "--despite-clocks"],
        &["--not-applied", "--sensitive"],
        &[],
    ] {
        let words = [&found[..], more].concat();
        let said = Cli::bare().run(&words).await;
        assert_eq!(said.code, 2, "{more:?}: {}", said.said());
    }
    let unnamed = ["resolve", NO_KEY, "--version", &version, "--not-applied"];
    Cli::bare().run(&unnamed).await.expect(2);
}

#[tokio::test]
async fn store_that_is_away_is_6() {
    let server = RedisServer::start();
    let cli = Cli::on(&server);
    drop(server);
    for words in [
        &["list"][..],
        &["show", NO_KEY],
        &["watch", "--rounds", "1"],
    ] {
        let said = cli.run(words).await.expect(6);
        assert!(said.err.contains("REDIS_URL"), "{}", said.err);
    }
}

/// Red without `Error::ResolutionUnknown` in the table: a write that might have been
/// applied would look like a write that was refused.
#[tokio::test]
async fn resolution_whose_reply_is_lost_is_9() {
    let server = RedisServer::start();
    let (losing, _) = slow_engine(store(&server).await).await;
    let (key, version) = lose(&losing, request(1)).await;
    let name = format!("genesys-once:{NAMESPACE}:{key}");
    let url = server.url();
    // The resolution is applied, its reply is lost, and another operator removes the record.
    let lost = AtomicBool::new(false);
    let port = tampering_proxy::start(server.port, move |request, reply| {
        let resolves = has(request, MARK) && !has(&reply, "NOSCRIPT");
        if !resolves || lost.swap(true, Ordering::SeqCst) {
            return Some(reply);
        }
        let client = redis::Client::open(url.as_str()).unwrap();
        let mut connection = client.get_connection().unwrap();
        redis::cmd("DEL").arg(&name).exec(&mut connection).unwrap();
        None
    })
    .await;
    let cli = Cli::on(&server).set("REDIS_URL", format!("redis://127.0.0.1:{port}"));
    let key = key.to_string();
    let body = format!("{{\"refund\":\"{MARK}\"}}");
    let words = resolve(&key, &version, &["--applied", "200", &body, "--yes"]);
    let said = cli.run(&words).await.expect(9);
    assert!(said.err.contains("might have been applied"), "{}", said.err);
}

#[tokio::test]
async fn full_disk_behind_standard_output_is_1() {
    let mut command = Cli::bare().command(&["key", "a", "{}"]);
    command.stdout(
        std::fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap(),
    );
    // `output` would capture standard output.
    let output = command.spawn().unwrap().wait_with_output().await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("standard output"), "{said}");
}

/// Red if a password is accepted on the command line, or if a message contains a secret.
#[tokio::test]
async fn secrets_are_neither_taken_nor_shown() {
    const SECRET: &str = "hunter2-hunter2";
    let server = Options::default().password(SECRET).start();
    let cli = Cli::on(&server);
    cli.run(&["list"]).await.expect(0);
    let url = server.url();
    let words = ["list", "--redis-url", &url];
    let said = cli.run(&words).await.expect(2);
    assert!(
        said.err.contains("every user of this machine can read"),
        "{}",
        said.err
    );
    assert!(!said.said().contains(SECRET));

    let path = std::env::temp_dir().join(format!("cli-secret-{}", std::process::id()));
    std::fs::write(&path, format!("{url}\n")).unwrap();
    let file = path.display().to_string();
    let by_file = cli.clone().unset("REDIS_URL").set("REDIS_URL_FILE", &file);
    by_file.run(&["list"]).await.expect(0);
    let said = cli
        .clone()
        .set("REDIS_URL_FILE", &file)
        .run(&["list"])
        .await
        .expect(2);
    assert!(
        said.err
            .contains("REDIS_URL and REDIS_URL_FILE are both set"),
        "{}",
        said.err
    );
    std::fs::remove_file(&path).unwrap();
    by_file.run(&["list"]).await.expect(2);

    let wrong = format!("redis://:{SECRET}-wrong@127.0.0.1:{}", server.port);
    let key = format!("2026-11 {SECRET}");
    for cli in [
        cli.clone().set("REDIS_URL", wrong),
        cli.clone()
            .set("REDIS_URL", format!("http://:{SECRET}@127.0.0.1")),
        cli.clone().set("ENCRYPTION_KEYS", key),
    ] {
        let said = cli.run(&["-v", "list"]).await.expect(2);
        assert!(!said.said().contains(SECRET), "{}", said.said());
    }
}

/// Red if a program of a later release raises a namespace's minimum writer version by
/// resolving a key: the running engines would acquire no more keys.
#[tokio::test]
async fn older_engines_are_not_locked_out() {
    let server = RedisServer::start();
    let cli = Cli::on(&server);
    let (answering, _) = engine(store(&server).await, || Step::ok("{}")).await;
    let key = record(&answering, request(1)).await.to_string();
    set_writer(&server, 1);
    let said = cli.run(&["forget", &key, "--yes"]).await.expect(4);
    assert!(said.err.contains("writer version 1"), "{}", said.err);
    cli.run(&["show", &key]).await.expect(0);
    assert_eq!(set_writer(&server, 1), 1, "the version has not changed");
}
