//! What `connect` checks before it returns a store: a primary that runs scripts, and a user
//! with the rights that the store needs.

use genesys_once::{Error, RedisStore};

use super::chain;
use super::connect::invalid;
use crate::support::cluster::RedisCluster;
use crate::support::eventually;
use crate::support::redis::{Options, RedisServer};

/// Red if `connect` returns a store whose writes are all refused.
#[tokio::test]
async fn replica_is_refused() {
    let primary = RedisServer::start();
    let replica = Options::default().replica_of(&primary).start();
    eventually("the replica follows", async || {
        primary.replicas_in_step() == 1
    })
    .await;
    let error = RedisStore::connect(&replica.url()).await.unwrap_err();
    assert!(matches!(error, Error::StoreUnavailable { .. }), "{error:?}");
    assert!(chain(&error).contains("is a replica"), "{error:?}");
}

/// Red if only the first execution detects a missing right.
#[tokio::test]
async fn missing_rights_are_named() {
    let server = RedisServer::start();
    let url = format!("redis://app:pw@127.0.0.1:{}", server.port);
    let message = async |rights: &[&str]| {
        let user = ["ACL", "SETUSER", "app", "reset", "on", ">pw", "&*", "+@all"];
        server.command::<()>(&[&user, rights].concat());
        invalid(&url).await
    };
    let keys = "on keys that begin with \"genesys-once:\"";
    assert_eq!(
        message(&["~*", "-set", "-pttl"]).await,
        format!("the user may not run PTTL, SET {keys}")
    );
    // The key of the script itself is checked first.
    let other = message(&["~other:*"]).await;
    assert!(
        other.starts_with("the user may not run scripts: NOPERM"),
        "{other}"
    );
    let read_only = message(&["%R~genesys-once:*"]).await;
    assert!(read_only.contains("may not run"), "{read_only}");
    let none = message(&["~*", "-eval", "-evalsha"]).await;
    assert!(
        none.starts_with("the user may not run scripts: NOPERM"),
        "{none}"
    );
    // The checks leave no key behind.
    assert_eq!(server.command::<u32>(&["DBSIZE"]), 0);
}

/// Red if only one primary is checked.
#[tokio::test]
async fn missing_right_on_shard_is_named() {
    let cluster = RedisCluster::start().await;
    for (number, node) in cluster.nodes.iter().enumerate() {
        let user = ["ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all"];
        let rights: &[&str] = if number == 2 { &["-set"] } else { &[] };
        node.command::<()>(&[&user, rights].concat());
    }
    let url = format!("redis://app:pw@127.0.0.1:{}", cluster.nodes[0].port);
    let message = super::connect::invalid_cluster(&[url]).await;
    assert!(message.starts_with("the user may not run SET"), "{message}");
}

/// Red if a server without scripts is accepted.
#[tokio::test]
async fn server_without_scripts_is_refused() {
    for command in ["EVALSHA", "EVAL"] {
        let server = Options::default().rename(command, "other").start();
        let message = invalid(&server.url()).await;
        assert!(
            message.starts_with("the server runs no scripts"),
            "{command}: {message}"
        );
    }
}
