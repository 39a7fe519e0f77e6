//! The other stores: a file, an encrypted store, a cluster, sentinels.

use genesys_once::testing::Step;
use genesys_once::{Encrypted, EncryptionKeys, FileStore, Served};

use super::process::{Cli, NAMESPACE, resolve};
use super::records::{engine, labelled, lose, record, request, slow_engine, store};
use super::tampering_proxy::has;
use crate::support::cluster::RedisCluster;
use crate::support::redis::RedisServer;
use crate::support::sentinel::{PRIMARY, RedisSentinel};

const ANSWER: &str = r#"{"refund":"R-1"}"#;

/// A folder that is removed with its guard.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("cli-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Red without the check for the file: opening a missing file creates it.
#[tokio::test]
async fn file_opens_while_no_service_has_it() {
    let folder = Folder::new("file");
    let path = folder.file("records.redb");
    let cli = Cli::bare()
        .set("SERVICE_NAMESPACE", NAMESPACE)
        .set("SERVICE_FILE", &path);
    let said = cli.run(&["list"]).await.expect(2);
    assert!(said.err.contains("there is no such file"), "{}", said.err);
    assert!(
        !std::path::Path::new(&path).exists(),
        "the file was created"
    );

    let opened = FileStore::open(&path).unwrap();
    let (losing, _) = slow_engine(opened).await;
    let (key, version) = lose(&losing, labelled(1)).await;
    cli.run(&["list"]).await.expect(6);
    losing.shutdown(std::time::Duration::ZERO).await;
    drop(losing);

    let key = key.to_string();
    let said = cli.run(&["list", "--file", &path]).await.expect(0).out;
    assert!(
        said.contains(&key) && said.contains("refund order 1"),
        "{said}"
    );
    let words = resolve(&key, &version, &["--applied", "200", ANSWER, "--yes"]);
    cli.run(&words).await.expect(0);
    let (again, upstream) = slow_engine(FileStore::open(&path).unwrap()).await;
    assert_eq!(
        again.execute(labelled(1)).await.unwrap().served(),
        Served::Store
    );
    assert_eq!(upstream.ledger().total(), 0);
}

/// Red if a resolution is written unencrypted into an encrypted namespace: no engine could
/// read it. Also red if a lock shows that it is encrypted only if its request has a name.
#[tokio::test]
async fn encrypted_records_need_their_keys() {
    let server = RedisServer::start();
    let keys = || EncryptionKeys::new("2026-11", [7; 32]).unwrap();
    let sealed = Encrypted::new(store(&server).await, keys());
    let (losing, _) = slow_engine(sealed).await;
    let (lost, version) = lose(&losing, labelled(1)).await;
    // For this key, only the answer is secret.
    let (bare, bare_version) = lose(&losing, request(3)).await;
    let sealed = Encrypted::new(store(&server).await, keys());
    let (answering, _) = engine(sealed, || Step::ok(ANSWER)).await;
    let recorded = record(&answering, request(2)).await.to_string();
    let lost = lost.to_string();

    let plain = Cli::on(&server);
    let said = plain.run(&["show", &lost]).await.expect(0).out;
    assert!(said.contains("encrypted: set ENCRYPTION_KEYS"), "{said}");
    plain.run(&["show", &recorded]).await.expect(7);
    let words = resolve(&lost, &version, &["--applied", "200", ANSWER, "--yes"]);
    let said = plain.run(&words).await.expect(2);
    assert!(said.err.contains("set ENCRYPTION_KEYS"), "{}", said.err);
    let bare = bare.to_string();
    let of_bare = resolve(&bare, &bare_version, &words[6..]);
    let said = plain.run(&of_bare).await.expect(2);
    assert!(said.err.contains("set ENCRYPTION_KEYS"), "{}", said.err);

    let folder = Folder::new("keys");
    let path = folder.file("keys");
    let (new, old) = ("08".repeat(32), "07".repeat(32));
    std::fs::write(&path, format!("2026-12 {new}\n\n2026-11 {old}\n")).unwrap();
    let cli = plain.clone().set("ENCRYPTION_KEYS_FILE", &path);
    let said = cli.run(&["show", &lost]).await.expect(0).out;
    assert!(said.contains("label          refund order 1"), "{said}");
    let said = cli.run(&["show", &recorded, "--body"]).await.expect(0).out;
    assert_eq!(said, ANSWER);
    // Encrypted with the key that the engines have.
    let cli = plain.set("ENCRYPTION_KEYS", format!("2026-11 {old}"));
    cli.run(&words).await.expect(0);
    let raw: Vec<u8> = server.command(&["GET", &format!("genesys-once:{NAMESPACE}:{lost}")]);
    assert!(!has(&raw, "R-1"));
    assert_eq!(
        &losing.execute(labelled(1)).await.unwrap().body()[..],
        ANSWER.as_bytes()
    );
}

#[tokio::test]
async fn also_reads_plain_reads_both_kinds_of_record() {
    let server = RedisServer::start();
    let (answering, _) = engine(store(&server).await, || Step::ok(ANSWER)).await;
    let key = record(&answering, request(1)).await.to_string();
    let cli = Cli::on(&server);
    cli.run(&["list", "--also-reads-plain"]).await.expect(2);
    let cli = cli.set("ENCRYPTION_KEYS", format!("2026-11 {}", "07".repeat(32)));
    cli.run(&["show", &key]).await.expect(7);
    cli.run(&["show", &key, "--also-reads-plain"])
        .await
        .expect(0);
    // With these keys the outcome is unreadable, the state is not.
    cli.run(&["forget", &key, "--unreadable", "--yes"])
        .await
        .expect(0);
    cli.run(&["show", &key]).await.expect(3);
}

#[tokio::test]
async fn cluster_and_sentinels_are_stores_too() {
    let cluster = RedisCluster::start().await;
    let urls = cluster.urls();
    let clustered = genesys_once::RedisStore::cluster(&urls).await.unwrap();
    let (losing, _) = slow_engine(clustered).await;
    let (key, _) = lose(&losing, labelled(1)).await;
    let cli = Cli::bare()
        .set("SERVICE_NAMESPACE", NAMESPACE)
        .set("REDIS_CLUSTER_URLS", urls.join(" "));
    let said = cli.run(&["list"]).await.expect(0).out;
    assert!(said.contains(&key.to_string()), "{said}");
    let said = cli.run(&["doctor", "--store-only"]).await.expect(11).out;
    assert_eq!(
        said.matches("  server  ").count(),
        3,
        "one line a primary: {said}"
    );
    assert_eq!(said.matches("allows every command").count(), 3, "{said}");
    drop(cluster);

    let watched = RedisSentinel::start().await;
    let urls: Vec<_> = watched.sentinels.iter().map(RedisServer::url).collect();
    let cli = Cli::bare()
        .set("SERVICE_NAMESPACE", NAMESPACE)
        .set("REDIS_SENTINEL_URLS", urls.join(" "));
    let said = cli.run(&["list"]).await.expect(2);
    assert!(said.err.contains("REDIS_PRIMARY"), "{}", said.err);
    let cli = cli.set("REDIS_PRIMARY", PRIMARY);
    cli.run(&["list"]).await.expect(0);
}
