//! Users with exactly the documented rights, on each kind of server.

use std::time::Duration;

use genesys_once::store::Durability;
use genesys_once::testing::store_conformance;
use genesys_once::{RedisStore, Store};
use tokio::time::timeout;

use super::{apply, complete, name};
use crate::support::cluster::RedisCluster;
use crate::support::indeterminate;
use crate::support::redis::RedisServer;
use crate::support::sentinel::{PRIMARY, RedisSentinel};

/// The rights for every kind of server.
const KEYS: [&str; 12] = [
    "+set",
    "+setrange",
    "+get",
    "+getrange",
    "+strlen",
    "+pttl",
    "+pexpire",
    "+exists",
    "+del",
    "+eval",
    "+evalsha",
    "+scan",
];

/// Rights for notifications, on a single server and in a cluster.
const CHANNELS: [&str; 3] = ["+publish", "+subscribe", "+unsubscribe"];
const SHARD_CHANNELS: [&str; 5] = [
    "+spublish",
    "+ssubscribe",
    "+sunsubscribe",
    "+cluster|slots",
    "+asking",
];

/// Creates a user `app` with only these rights.
fn allow(server: &RedisServer, rights: &[&str]) {
    let user = [
        "ACL",
        "SETUSER",
        "app",
        "on",
        ">pw",
        "~genesys-once:*",
        "&genesys-once:*",
    ];
    server.command::<()>(&[&user, &KEYS[..], rights].concat());
}

/// Checks the protocol, the list and the notifications.
async fn works(store: RedisStore) {
    assert_eq!(store.durability(), Durability::default());
    let one = name(99);
    let long = Duration::from_secs(10);
    timeout(long, store.changed(&one)).await.unwrap();
    let waiting = store.changed(&one);
    tokio::pin!(waiting);
    let quiet = timeout(Duration::from_millis(300), &mut waiting).await;
    assert!(quiet.is_err());
    apply(&store, 99, complete(1, "{}")).await.unwrap();
    timeout(long, waiting).await.unwrap();
    let listed = indeterminate(&store, &"test".parse().unwrap(), 10).await;
    assert!(listed.unwrap().is_empty());
    store_conformance(store.clone(), tokio::time::sleep).await;
}

#[tokio::test]
async fn single_server_works_with_documented_rights() {
    let server = RedisServer::start();
    allow(&server, &CHANNELS);
    let url = format!("redis://app:pw@127.0.0.1:{}", server.port);
    works(RedisStore::connect(&url).await.unwrap()).await;
}

#[tokio::test]
async fn cluster_works_with_documented_rights() {
    let cluster = RedisCluster::start().await;
    for node in &cluster.nodes {
        allow(node, &SHARD_CHANNELS);
    }
    let url = format!("redis://app:pw@127.0.0.1:{}", cluster.nodes[0].port);
    works(RedisStore::cluster([url]).await.unwrap()).await;
}

#[tokio::test]
async fn sentinel_setup_works_with_documented_rights() {
    let set_up = RedisSentinel::start().await;
    for server in &set_up.servers {
        allow(server, &[&CHANNELS[..], &["+role"]].concat());
    }
    let user = ["ACL", "SETUSER", "watch", "on", ">pw", "+sentinel"];
    set_up.sentinels[0].command::<()>(&user);
    let url = format!("redis://watch:pw@127.0.0.1:{}", set_up.sentinels[0].port);
    let primary = format!("redis://app:pw@{PRIMARY}");
    works(RedisStore::sentinel([url], &primary).await.unwrap()).await;
}
