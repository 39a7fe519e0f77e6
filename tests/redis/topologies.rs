//! The test servers themselves: a cluster and a Sentinel set-up fail over when a primary
//! dies or hangs.

use crate::support::cluster::RedisCluster;
use crate::support::sentinel::RedisSentinel;

#[tokio::test]
async fn cluster_fails_over() {
    let mut cluster = RedisCluster::start().await;
    let dead = cluster.primary_of("a");
    assert!(dead < 3);
    cluster.nodes[dead].kill();
    cluster.stable().await;
    let promoted = cluster.primary_of("a");
    assert_eq!(promoted, dead + 3);
    cluster.nodes[dead].restart();
    cluster.replicated().await;
    cluster.nodes[promoted].pause();
    cluster.stable().await;
    assert_eq!(cluster.primary_of("a"), dead);
    cluster.nodes[promoted].resume();
    cluster.replicated().await;
}

#[tokio::test]
async fn sentinels_fail_over() {
    let mut set_up = RedisSentinel::start().await;
    assert_eq!(set_up.primary(), 0);
    set_up.servers[0].kill();
    set_up.stable().await;
    let second = set_up.primary();
    assert_ne!(second, 0);
    set_up.servers[0].restart();
    set_up.stable().await;
    set_up.servers[second].pause();
    set_up.stable().await;
    assert_ne!(set_up.primary(), second);
    set_up.servers[second].resume();
    set_up.stable().await;
}
