//! Servers that change while a store runs: other settings, and lost records. The store
//! detects both at the next connection, and within a minute if there is none.

use std::time::Duration;

use genesys_once::error::{RefusalKind, StoreError};
use genesys_once::record::{Answer, Namespace, WRITER};
use genesys_once::store::{Persistence, WhenEmptied};
use genesys_once::testing::{ScriptedUpstream, Step};
use genesys_once::{DataActionRequest, Engine, Error, RedisStore, Store};
#[cfg(feature = "metrics")]
use metrics_exporter_prometheus::PrometheusBuilder;

use super::cluster::{connect, hand_over, shards};
use super::{acquire, apply, complete, extend, name};
use crate::support::cluster::RedisCluster;
use crate::support::eventually;
use crate::support::redis::{Options, RedisServer};

fn namespace() -> Namespace {
    "test".parse().unwrap()
}

async fn refusing(server: &RedisServer) -> RedisStore {
    let store = RedisStore::connect(&server.url()).await.unwrap();
    store.when_emptied(WhenEmptied::Refuse)
}

/// What an engine does before it acquires keys, and once a minute after that.
async fn look(store: &RedisStore) {
    store.least_writer(&namespace(), WRITER).await.unwrap();
}

fn is_refused<T>(answer: &Result<T, StoreError>) -> bool {
    let error = answer.as_ref().err();
    error.and_then(StoreError::refusal) == Some(RefusalKind::NotAllowed)
}

/// Closes the connections of all clients, like a restart.
fn disconnect(server: &RedisServer) {
    server.command::<()>(&["CLIENT", "KILL", "TYPE", "normal"]);
}

/// Lets more than a minute pass without a command.
async fn a_minute_passes() {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
}

fn forgetful(server: &RedisServer) {
    for (name, value) in [
        ("appendonly", "no"),
        ("save", ""),
        ("maxmemory-policy", "allkeys-lru"),
        ("maxmemory", "100mb"),
    ] {
        server.command::<()>(&["CONFIG", "SET", name, value]);
    }
}

/// Red if durability is read only at `connect`.
#[tokio::test]
async fn new_connection_refreshes_durability() {
    let server = Options::default().append_only().start();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let before = store.durability();
    assert_eq!(before.persistence, Some(Persistence::AppendOnly));
    assert_eq!(before.evicts, Some(false));
    forgetful(&server);
    disconnect(&server);
    eventually("the new settings are known", async || {
        let _ = store.look(&name(1)).await;
        let now = store.durability();
        (now.persistence, now.evicts) == (Some(Persistence::None), Some(true))
    })
    .await;
}

/// Red if an idle store reads neither settings nor markers.
#[tokio::test]
async fn idle_store_asks_once_a_minute() {
    let server = Options::default().append_only().start();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    look(&store).await;
    forgetful(&server);
    server.command::<()>(&["FLUSHALL"]);
    a_minute_passes().await;
    eventually("the settings and the loss are known", async || {
        store.durability().evicts == Some(true) && store.emptied(&namespace()) == 1
    })
    .await;
    // By default the store goes on after a loss.
    assert_eq!(apply(&store, 1, acquire(1)).await.unwrap(), Answer::Done);
    a_minute_passes().await;
    look(&store).await;
    assert_eq!(store.emptied(&namespace()), 1);
    assert_eq!(store.emptied(&"other".parse().unwrap()), 0);
}

/// A server that comes back without its records: no process acquires a key before an
/// operator accepts that, and running executions finish.
///
/// Red without the look before the first acquire on a connection, without the mark for
/// processes that start later, and if finishing is refused as well.
#[tokio::test]
async fn emptied_server_is_refused_until_accepted() {
    let mut server = RedisServer::start();
    let store = refusing(&server).await;
    // A first start is no loss.
    assert_eq!(apply(&store, 1, acquire(1)).await.unwrap(), Answer::Done);
    server.restart();
    eventually("the loss is refused", async || {
        let answer = apply(&store, 2, acquire(1)).await;
        assert!(answer.is_err(), "{answer:?}");
        is_refused(&answer)
    })
    .await;
    for event in [extend(1), complete(1, "{}")] {
        assert_eq!(apply(&store, 1, event).await.unwrap(), Answer::Done);
    }
    assert!(store.look(&name(1)).await.unwrap().is_some());
    let late = refusing(&server).await;
    assert!(is_refused(&apply(&late, 2, acquire(2)).await));
    assert_eq!(store.emptied(&namespace()), 1);
    assert_eq!(late.emptied(&namespace()), 0);

    let operator = RedisStore::connect(&server.url()).await.unwrap();
    assert_eq!(operator.accept_emptied(&namespace()).await.unwrap(), 1);
    assert_eq!(operator.accept_emptied(&namespace()).await.unwrap(), 0);
    for (number, store) in [(2, &late), (3, &store)] {
        eventually("keys are taken again", async || {
            matches!(apply(store, number, acquire(2)).await, Ok(Answer::Done))
        })
        .await;
    }
    // The next loss counts separately.
    server.command::<()>(&["FLUSHALL"]);
    look(&store).await;
    assert!(is_refused(&apply(&store, 4, acquire(1)).await));
}

/// Red if another existing marker counts as the marker seen before.
#[tokio::test]
async fn other_database_is_detected() {
    let server = RedisServer::start();
    let other = RedisStore::connect(&format!("{}/1", server.url())).await;
    let other = other.unwrap();
    look(&other).await;
    let store = refusing(&server).await;
    look(&store).await;
    server.command::<()>(&["SWAPDB", "0", "1"]);
    look(&store).await;
    assert!(is_refused(&apply(&store, 1, acquire(1)).await));
    assert_eq!(store.emptied(&namespace()), 1);
    look(&other).await;
    assert_eq!(other.emptied(&namespace()), 1);
}

/// An engine over an emptied server calls nothing twice, and reports the loss.
///
/// Red if `RedisStore::apply` checks nothing before an acquire.
#[cfg(feature = "metrics")]
#[tokio::test]
async fn engine_repeats_no_call_after_flush() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _here = metrics::set_default_local_recorder(&recorder);
    let server = RedisServer::start();
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}"));
    let engine = Engine::builder(upstream.clone()).store(refusing(&server).await);
    let engine = engine
        .recent(0, Duration::from_secs(1))
        .namespace(namespace());
    let engine = engine.start().await.unwrap();
    let request = |number: u32| DataActionRequest::new("refund", number.to_string()).unwrap();
    for number in 0..20 {
        engine.execute(request(number)).await.unwrap();
    }
    assert_eq!(engine.stats().store_emptied, 0);
    server.command::<()>(&["FLUSHALL"]);
    disconnect(&server);
    for number in 0..20 {
        let error = engine.execute(request(number)).await.unwrap_err();
        assert!(matches!(error, Error::StoreUnavailable { .. }), "{error}");
    }
    assert_eq!(upstream.ledger().total(), 20);
    assert_eq!(engine.stats().store_emptied, 1);
    let metrics = recorder.handle().render();
    let counted = "genesys_once_store_emptied_total{namespace=\"test\"} 1";
    assert!(metrics.contains(counted), "{metrics}");
}

/// One shard loses its records: its keys are refused, and no other keys. A replica that
/// takes over has the marker.
///
/// Red with one marker for all shards.
#[tokio::test]
async fn shard_of_a_cluster_is_refused_alone() {
    let mut cluster = RedisCluster::start().await;
    let store = connect(&cluster).await.when_emptied(WhenEmptied::Refuse);
    look(&store).await;
    for node in &cluster.nodes[..3] {
        eventually("each shard has a marker", async || {
            let markers: Vec<String> = node.command(&["KEYS", "genesys-once:test:shard:*"]);
            markers.len() == 1
        })
        .await;
    }
    let shards = shards(&cluster);
    cluster.nodes[0].command::<()>(&["FLUSHALL"]);
    disconnect(&cluster.nodes[0]);
    eventually("the loss is refused", async || {
        let answer = apply(&store, shards[0][0], acquire(1)).await;
        assert!(answer.is_err(), "{answer:?}");
        is_refused(&answer)
    })
    .await;
    for shard in &shards[1..] {
        let answer = apply(&store, shard[0], acquire(1)).await;
        assert_eq!(answer.unwrap(), Answer::Done);
    }
    assert_eq!(store.accept_emptied(&namespace()).await.unwrap(), 1);
    let answer = apply(&store, shards[0][1], acquire(1)).await;
    assert_eq!(answer.unwrap(), Answer::Done);
    cluster.replicated().await;
    cluster.nodes[0].kill();
    eventually("the replica has taken over", async || {
        let answer = apply(&store, shards[0][2], acquire(1)).await;
        assert!(!is_refused(&answer), "{answer:?}");
        answer.is_ok()
    })
    .await;
    assert_eq!(store.emptied(&namespace()), 1);
}

/// Red if a shard that does not answer is ignored: the other shards count as all.
#[tokio::test]
async fn cluster_durability_covers_all_shards() {
    let mut cluster = RedisCluster::start().await;
    for node in &cluster.nodes {
        node.command::<()>(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    }
    let evicts = |store: RedisStore| store.durability().evicts;
    assert_eq!(evicts(connect(&cluster).await), Some(false));
    for node in [0, 3] {
        cluster.nodes[node].kill();
    }
    let urls = [cluster.nodes[1].url(), cluster.nodes[2].url()];
    assert_eq!(evicts(RedisStore::cluster(urls).await.unwrap()), None);
}

/// A shard that gives the slot of its marker away gets a new marker, which is no loss.
///
/// Red if a marker that was never seen counts as lost.
#[tokio::test]
async fn shard_with_a_new_marker_is_not_emptied() {
    let cluster = RedisCluster::start().await;
    let store = connect(&cluster).await.when_emptied(WhenEmptied::Refuse);
    look(&store).await;
    let markers = |node: usize| -> Vec<String> {
        cluster.nodes[node].command(&["KEYS", "genesys-once:test:shard:*"])
    };
    eventually("the first shard has a marker", async || {
        !markers(0).is_empty()
    })
    .await;
    let marker = markers(0).remove(0);
    hand_over(&cluster, &cluster.slot(&marker).to_string(), 0, 1);
    eventually("the first shard has a new marker", async || {
        look(&store).await;
        markers(0).len() == 1 && markers(1).contains(&marker)
    })
    .await;
    assert_eq!(store.emptied(&namespace()), 0);
    for shard in shards(&cluster) {
        let answer = apply(&store, shard[0], acquire(1)).await;
        assert_eq!(answer.unwrap(), Answer::Done);
    }
}
