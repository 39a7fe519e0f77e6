//! `connect`: the URLs that it accepts, its errors, and what it reads from the server. No
//! message shows the password.

use std::time::Duration;

use genesys_once::record::Answer;
use genesys_once::store::Persistence;
use genesys_once::{Error, RedisStore, Store};

use super::fake_server::FakeServer;
use super::{acquire, apply, chain, name};
use crate::support::redis::{Certificate, Options, RedisServer};

const SECRET: &str = "hunter2";

pub async fn invalid(url: &str) -> String {
    reason(url, RedisStore::connect(url).await.unwrap_err())
}

pub async fn invalid_cluster(urls: &[String]) -> String {
    let error = RedisStore::cluster(urls).await.unwrap_err();
    reason(&urls.join(" "), error)
}

pub async fn invalid_sentinel(urls: &[String], primary: &str) -> String {
    let error = RedisStore::sentinel(urls, primary).await.unwrap_err();
    reason(&urls.join(" "), error)
}

/// The reason of a configuration error, which never contains the password.
fn reason(url: &str, error: Error) -> String {
    let Error::InvalidConfig {
        setting, reason, ..
    } = &error
    else {
        panic!("{url}: {error:?}");
    };
    assert_eq!(*setting, "redis url");
    assert!(!format!("{error:?} {error}").contains(SECRET), "{error:?}");
    reason.to_string()
}

pub async fn unavailable(url: &str) -> String {
    let error = RedisStore::connect(url).await.unwrap_err();
    assert!(
        matches!(error, Error::StoreUnavailable { .. }),
        "{url}: {error:?}"
    );
    assert!(
        !format!("{error:?} {}", chain(&error)).contains(SECRET),
        "{error:?}"
    );
    chain(&error)
}

#[tokio::test]
async fn absent_server_is_reported() {
    let mut server = RedisServer::start();
    server.kill();
    let message = unavailable(&format!("redis://:{SECRET}@127.0.0.1:{}", server.port)).await;
    let expected = format!(
        "the store is unavailable: the store did not answer: 127.0.0.1:{}: ",
        server.port
    );
    assert!(
        message.starts_with(&expected) && message.contains("refused"),
        "{message}"
    );
    let message = unavailable(&format!("redis://:{SECRET}@no-such-host.invalid")).await;
    assert!(message.contains("no-such-host.invalid:6379"), "{message}");
}

#[tokio::test]
async fn login_and_database_are_used() {
    let server = Options::default().password("p@ss w/rd").start();
    server_with_user(&server);
    let url = |login: &str, db: &str| format!("redis://{login}127.0.0.1:{}{db}", server.port);
    for (login, db) in [
        (":p%40ss%20w%2Frd@", "/3"),
        ("default:p%40ss%20w%2Frd@", "/4"),
        ("app:other@", "/5"),
    ] {
        let store = RedisStore::connect(&url(login, db)).await.unwrap();
        assert_eq!(
            apply(&store, 1, acquire(1)).await.unwrap(),
            Answer::Done,
            "{login} {db}"
        );
        assert!(!format!("{store:?}").contains("other"), "{store:?}");
    }
    let keyspace = admin(&server, &["INFO", "keyspace"]);
    for db in ["db3:keys=1", "db4:keys=1", "db5:keys=1"] {
        assert!(keyspace.contains(db), "{keyspace}");
    }

    assert_eq!(
        invalid(&url("", "")).await,
        "the server wants a password, and the url has none"
    );
    let wrong = "the server refuses this user name or password";
    assert_eq!(invalid(&url(&format!(":{SECRET}@"), "")).await, wrong);
    assert_eq!(
        invalid(&url(&format!("stranger:{SECRET}@"), "")).await,
        wrong
    );
    let message = invalid(&url(":p%40ss%20w%2Frd@", "/99")).await;
    assert_eq!(
        message,
        "the server refuses database 99: DB index is out of range"
    );
}

/// The guard's own URL does not encode its password.
fn admin(server: &RedisServer, words: &[&str]) -> String {
    let url = format!("redis://:p%40ss%20w%2Frd@127.0.0.1:{}", server.port);
    let mut connection = redis::Client::open(url).unwrap().get_connection().unwrap();
    redis::cmd(words[0])
        .arg(&words[1..])
        .query(&mut connection)
        .unwrap()
}

fn server_with_user(server: &RedisServer) {
    admin(
        server,
        &["ACL", "SETUSER", "app", "on", ">other", "~*", "&*", "+@all"],
    );
}

#[tokio::test]
async fn tls_mismatch_is_reported() {
    let plain = RedisServer::start();
    let reason = invalid(&format!("rediss://:{SECRET}@127.0.0.1:{}", plain.port)).await;
    assert_eq!(
        reason,
        "the server speaks no TLS on that port: use redis://"
    );
    let locked = Options::default().password("other").start();
    let reason = invalid(&format!("rediss://:{SECRET}@127.0.0.1:{}", locked.port)).await;
    assert_eq!(
        reason,
        "the server speaks no TLS on that port: use redis://"
    );

    let tls = Options::default().tls(&Certificate::new()).start();
    let reason = invalid(&format!("redis://:{SECRET}@127.0.0.1:{}", tls.port)).await;
    assert_eq!(reason, "the server expects TLS on that port: use rediss://");
}

#[tokio::test]
async fn old_server_is_refused() {
    let old = "the server is older than Redis 7.0, which cannot look up and lock in one command";
    let server = FakeServer::version("6.2.14").await;
    assert_eq!(
        invalid(&server.url()).await,
        format!("{old}: it says 6.2.14")
    );
    let server = FakeServer::without_hello().await;
    assert_eq!(invalid(&server.url()).await, old);
    for version in ["7.0.0", "8.1.2", "255.255.255", "unstable"] {
        let server = FakeServer::version(version).await;
        RedisStore::connect(&server.url()).await.unwrap();
    }
}

#[tokio::test]
async fn silent_server_times_out() {
    let server = FakeServer::silent().await;
    let begun = std::time::Instant::now();
    let message = unavailable(&server.url()).await;
    assert!(message.contains("did not answer within 4 s"), "{message}");
    assert!(
        begun.elapsed() < Duration::from_secs(7),
        "{:?}",
        begun.elapsed()
    );
    let server = FakeServer::closing_connections().await;
    let message = unavailable(&server.url()).await;
    assert!(
        message.contains(&format!("127.0.0.1:{}", server.port)),
        "{message}"
    );
}

#[tokio::test]
async fn temporary_refusal_is_reported() {
    let server = Options::default().set("maxclients", "10").start();
    let mut connected = Vec::new();
    let error = loop {
        match RedisStore::connect(&server.url()).await {
            Ok(store) => connected.push(store),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::StoreUnavailable { .. }), "{error:?}");
    assert!((8..=10).contains(&connected.len()));
}

#[tokio::test]
async fn durability_risks_are_reported() {
    let server = RedisServer::start();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let durability = store.durability();
    assert_eq!(durability.evicts, Some(false));
    assert_eq!(durability.persistence, Some(Persistence::None));
    assert_eq!(durability.replicas, Some(0));

    let server = Options::default()
        .append_only()
        .set("maxmemory", "100mb")
        .set("maxmemory-policy", "allkeys-lru")
        .start();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    assert_eq!(store.durability().evicts, Some(true));
    assert_eq!(
        store.durability().persistence,
        Some(Persistence::AppendOnly)
    );

    let server = RedisServer::start();
    server.command::<()>(&["CONFIG", "SET", "save", "3600 1"]);
    let replica = Options::default()
        .set("replicaof", &format!("127.0.0.1 {}", server.port))
        .start();
    crate::support::eventually("the replica is connected", async || {
        server
            .command::<String>(&["INFO", "replication"])
            .contains("connected_slaves:1")
    })
    .await;
    let store = RedisStore::connect(&server.url()).await.unwrap();
    assert_eq!(store.durability().persistence, Some(Persistence::Snapshots));
    assert_eq!(store.durability().replicas, Some(1));
    drop(replica);
}

#[tokio::test]
async fn servers_of_wrong_kind_are_refused() {
    let alone = RedisServer::start();
    let node = Options::default().cluster_node().start();
    let line = format!("sentinel monitor orders 127.0.0.1 {} 1", alone.port);
    let sentinel = Options::default().sentinel(vec![line]).start();
    let at = |server: &RedisServer| format!("127.0.0.1:{}", server.port);

    let to_cluster = "the server is a node of a cluster: use RedisStore::cluster";
    let to_sentinel = "the server is a sentinel: use RedisStore::sentinel";
    assert_eq!(invalid(&node.url()).await, to_cluster);
    assert_eq!(invalid(&sentinel.url()).await, to_sentinel);

    let reason = "the server is no node of a cluster: use RedisStore::connect";
    let reason = format!("{}: {reason}", at(&alone));
    assert_eq!(invalid_cluster(&[alone.url()]).await, reason);
    let reason = format!("{}: {to_sentinel}", at(&sentinel));
    assert_eq!(invalid_cluster(&[sentinel.url()]).await, reason);

    for server in [&alone, &node] {
        let reason = format!(
            "{} is a data server, not a sentinel: use RedisStore::connect, or the urls of its sentinels",
            at(server)
        );
        assert_eq!(invalid_sentinel(&[server.url()], "orders").await, reason);
    }
    let reason = format!(
        "the sentinel {} watches no primary named \"other\"",
        at(&sentinel)
    );
    assert_eq!(invalid_sentinel(&[sentinel.url()], "other").await, reason);
    // One usable URL is enough.
    let urls = [alone.url(), sentinel.url()];
    RedisStore::sentinel(urls, "orders").await.unwrap();
    // A node that has not met the others is no cluster yet.
    let error = RedisStore::cluster([node.url()]).await.unwrap_err();
    assert!(
        chain(&error).contains("its cluster has no slots"),
        "{error:?}"
    );
}

#[tokio::test]
async fn contradicting_urls_are_refused() {
    let url = |part: &str| format!("redis://:{SECRET}@127.0.0.1:1{part}");
    assert_eq!(invalid_cluster(&[]).await, "no url is given");
    assert_eq!(invalid_sentinel(&[], "orders").await, "no url is given");
    assert_eq!(
        invalid_cluster(&[url(""), url("/1")]).await,
        "a cluster has database 0 only"
    );
    assert_eq!(
        invalid_cluster(&[url(""), "redis://127.0.0.1:2".into()]).await,
        "the urls differ in user, password or TLS, and all nodes are logged in to alike"
    );
    assert_eq!(
        invalid_sentinel(&[url("/2")], "orders").await,
        "a sentinel has no databases; the primary's is named so: redis://NAME/1"
    );
    assert_eq!(
        invalid_sentinel(&[url("")], "").await,
        "the primary has no name"
    );
    assert_eq!(
        invalid_sentinel(&[url("")], "http://orders").await,
        "its scheme is neither redis:// nor rediss://"
    );
    // No server answers there: that might pass.
    let absent = url("");
    for error in [
        RedisStore::cluster([&absent]).await.unwrap_err(),
        RedisStore::sentinel([&absent], "orders").await.unwrap_err(),
    ] {
        let message = format!("{error:?} {}", chain(&error));
        assert!(matches!(error, Error::StoreUnavailable { .. }), "{message}");
        assert!(
            message.contains("127.0.0.1:1: ") && !message.contains(SECRET),
            "{message}"
        );
    }
}

#[tokio::test]
async fn old_cluster_and_primary_are_refused() {
    let old = FakeServer::version("6.2.14").await;
    let said = "the server is older than Redis 7.0, which cannot look up and lock in one command: it says 6.2.14";
    let reason = invalid_cluster(&[old.url()]).await;
    assert_eq!(reason, format!("127.0.0.1:{}: {said}", old.port));
    let sentinel = FakeServer::sentinel(1, old.port).await;
    let reason = invalid_sentinel(&[sentinel.url()], "orders").await;
    let primary = format!("the primary \"orders\", 127.0.0.1:{}", old.port);
    assert_eq!(reason, format!("{primary}: {said}"));
}

#[tokio::test]
async fn user_without_info_right_works() {
    let server = RedisServer::start();
    let user = [
        "ACL",
        "SETUSER",
        "app",
        "on",
        ">pw",
        "~*",
        "&*",
        "+@all",
        "-@dangerous",
    ];
    server.command::<()>(&user);
    let url = format!("redis://app:pw@127.0.0.1:{}", server.port);
    let store = RedisStore::connect(&url).await.unwrap();
    assert_eq!(
        store.durability(),
        genesys_once::store::Durability::default()
    );
    assert_eq!(apply(&store, 1, acquire(1)).await.unwrap(), Answer::Done);
    assert!(store.look(&name(1)).await.unwrap().is_some());
}
