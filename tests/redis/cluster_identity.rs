//! Servers of another cluster under known addresses: whatever their epoch, the store does not
//! use them.

use std::fs;
use std::time::Duration;

use genesys_once::RedisStore;
use genesys_once::record::Answer;

use super::cluster::{connect, is_cached, shards};
use super::fake_server::FakeServer;
use super::{acquire, apply, chain, complete};
use crate::support::cluster::RedisCluster;
use crate::support::redis::RedisServer;
use crate::support::{eventually, eventually_within};

/// The time within which the store finds a new primary.
const RECOVERY: Duration = Duration::from_secs(60);

/// What an acquire finds once its shard answers.
async fn found(store: &RedisStore, number: u8) -> Answer {
    let mut found = None;
    eventually_within(RECOVERY, "the shard answers", async || {
        found = apply(store, number, acquire(2)).await.ok();
        found.is_some()
    })
    .await;
    found.unwrap()
}

fn was_asked(node: &RedisServer) -> bool {
    let calls = node.calls();
    calls
        .iter()
        .any(|(name, _)| name.starts_with("cluster|slots") || name == "cluster|myid")
}

async fn is_ok(node: &RedisServer) {
    eventually("the node serves all slots", async || {
        node.command::<String>(&["CLUSTER", "INFO"])
            .contains("cluster_state:ok")
    })
    .await;
}

/// Two replicas leave, each for a cluster of its own with a later epoch; one keeps its id.
///
/// Red if the latest epoch wins, whatever the cluster: all keys are executed again, on a
/// node that has left the cluster.
#[tokio::test]
async fn departed_node_gets_no_keys() {
    let cluster = RedisCluster::start().await;
    let store = connect(&cluster).await;
    for number in 0..40 {
        apply(&store, number, complete(1, "{}")).await.unwrap();
    }
    for (leaving, how) in [(4, "SOFT"), (5, "HARD")] {
        let node = &cluster.nodes[leaving];
        let id: String = node.command(&["CLUSTER", "MYID"]);
        node.command::<()>(&["CLUSTER", "RESET", how]);
        for other in &cluster.nodes {
            // A node does not forget itself, or a node that left before it.
            let _ = other.try_command::<()>(&["CLUSTER", "FORGET", &id]);
        }
        node.command::<()>(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
        match how {
            "SOFT" => node.command::<()>(&["CLUSTER", "BUMPEPOCH"]),
            _ => node.command::<()>(&["CLUSTER", "SET-CONFIG-EPOCH", "50"]),
        }
        node.command::<()>(&["CONFIG", "RESETSTAT"]);
    }
    is_ok(&cluster.nodes[4]).await;
    is_ok(&cluster.nodes[5]).await;
    let one = shards(&cluster)[0][0];
    eventually_within(RECOVERY, "the nodes are asked for the map", async || {
        cluster.nodes[0].command::<()>(&["CLIENT", "KILL", "TYPE", "normal"]);
        let _ = apply(&store, one, acquire(2)).await;
        was_asked(&cluster.nodes[4]) && was_asked(&cluster.nodes[5])
    })
    .await;
    for number in 0..40 {
        let found = found(&store, number).await;
        assert!(is_cached(&found), "{number}: {found:?}");
    }
    for node in &cluster.nodes[4..] {
        assert_eq!(node.command::<u32>(&["DBSIZE"]), 0);
    }
}

/// A node that comes back without its configuration, or another node with its address.
///
/// Red if a server is identified by its address: the new node gets keys that belong to the
/// promoted replica.
#[tokio::test]
async fn other_node_at_address_is_refused() {
    let mut cluster = RedisCluster::start().await;
    let store = connect(&cluster).await;
    let keys = shards(&cluster)[2].clone();
    for number in &keys {
        apply(&store, *number, complete(1, "{}")).await.unwrap();
    }
    eventually("the replica has all records", async || {
        cluster.nodes[2].replicas_in_step() == 1
    })
    .await;
    cluster.nodes[2].kill();
    // The store sends no command meanwhile, so it knows of no fail-over.
    cluster.stable().await;
    let node = &mut cluster.nodes[2];
    fs::remove_file(node.folder.join("nodes.conf")).unwrap();
    node.restart();
    node.command::<()>(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    is_ok(node).await;
    for number in &keys {
        let found = found(&store, *number).await;
        assert!(is_cached(&found), "{number}: {found:?}");
    }
    assert_eq!(cluster.nodes[2].command::<u32>(&["DBSIZE"]), 0);
}

/// The name in the URL now belongs to another cluster, and no server of the old map
/// answers.
///
/// Red if the store accepts any map when it has none.
#[tokio::test]
async fn url_of_other_cluster_is_refused() {
    let (ours, foreign) = (RedisServer::start(), RedisServer::start());
    let seed = FakeServer::cluster_node(1, &[ours.port]).await;
    let store = RedisStore::cluster([seed.url()]).await.unwrap();
    apply(&store, 1, complete(1, "{}")).await.unwrap();
    seed.set_map(9, &[foreign.port]);
    let before = seed.accepted();
    eventually("the url is asked again", async || {
        ours.command::<()>(&["CLIENT", "KILL", "TYPE", "normal"]);
        let _ = apply(&store, 1, acquire(2)).await;
        seed.accepted() > before + 1
    })
    .await;
    assert!(is_cached(&found(&store, 1).await));
    assert_eq!(foreign.command::<u32>(&["DBSIZE"]), 0);
}

/// Red if the latest epoch decides which cluster is used.
#[tokio::test]
async fn urls_of_different_clusters_are_refused() {
    let (ours, foreign) = (RedisServer::start(), RedisServer::start());
    let seeds = [
        FakeServer::cluster_node(9, &[foreign.port]).await,
        FakeServer::cluster_node(1, &[ours.port]).await,
        FakeServer::cluster_node(1, &[ours.port]).await,
    ];
    let urls = seeds.each_ref().map(FakeServer::url);
    // Most of the URLs belong to one cluster.
    let store = RedisStore::cluster(&urls).await.unwrap();
    apply(&store, 1, acquire(1)).await.unwrap();
    let counts = [&ours, &foreign].map(|server| server.command::<u32>(&["DBSIZE"]));
    assert_eq!(counts, [1, 0]);
    let error = RedisStore::cluster(&urls[..2]).await.unwrap_err();
    let message = "the urls are of different clusters";
    assert!(chain(&error).contains(message), "{error:?}");
}

/// Red if a node that does not report its id counts as the node in the map (without the arm
/// of `CommandError::Lost` in `MemberConnector`): the store was made with that node alone.
#[tokio::test]
async fn node_without_id_answer_is_refused() {
    let node = FakeServer::without_id().await;
    let map = FakeServer::cluster_node(1, &[node.port]).await;
    let error = RedisStore::cluster([map.url()]).await.unwrap_err();
    let message = format!("127.0.0.1:{}: does not answer", node.port);
    assert!(chain(&error).contains(&message), "{error:?}");
}
