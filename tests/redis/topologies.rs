//! That the guards of the other tests here start what they say: a cluster and
//! a Sentinel set-up that fail over when a primary dies or hangs.

use crate::support::cluster::RedisCluster;
use crate::support::sentinel::RedisSentinel;

#[tokio::test]
async fn a_cluster_fails_over() {
    let mut cluster = RedisCluster::start().await;
    let dead = cluster.primary_of("a");
    assert!(dead < 3);
    cluster.nodes[dead].kill();
    cluster.settled().await;
    let promoted = cluster.primary_of("a");
    assert_eq!(promoted, dead + 3);
    cluster.nodes[dead].restart();
    cluster.replicated().await;
    cluster.nodes[promoted].pause();
    cluster.settled().await;
    assert_eq!(cluster.primary_of("a"), dead);
    cluster.nodes[promoted].resume();
    cluster.replicated().await;
}

#[tokio::test]
async fn sentinels_fail_over() {
    let mut set_up = RedisSentinel::start().await;
    assert_eq!(set_up.primary(), 0);
    set_up.servers[0].kill();
    set_up.settled().await;
    let second = set_up.primary();
    assert_ne!(second, 0);
    set_up.servers[0].restart();
    set_up.settled().await;
    set_up.servers[second].pause();
    set_up.settled().await;
    assert_ne!(set_up.primary(), second);
    set_up.servers[second].resume();
    set_up.settled().await;
}
