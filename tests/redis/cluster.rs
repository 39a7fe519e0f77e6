//! A real cluster: the protocol and its notifications, keys on every shard, moving slots.
//! Shards that die or hang are in `failover`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use genesys_once::record::{Answer, Event, LeaseId, RecordState};
use genesys_once::store::Persistence;
use genesys_once::testing::store_conformance;
use genesys_once::{RedisStore, Store};
use tokio::time::timeout;

use super::fake_server::FakeServer;
use super::{acquire, apply, chain, claim, complete, name};
use crate::support::cluster::RedisCluster;
use crate::support::redis::{Options, RedisServer};
use crate::support::{eventually, indeterminate};

/// Longer than a busy machine needs.
pub const EVER: Duration = Duration::from_secs(600);

/// The store's own deadline, with a large margin.
pub const IN_TIME: Duration = Duration::from_secs(10);

pub async fn connect(cluster: &RedisCluster) -> RedisStore {
    RedisStore::cluster(cluster.urls()).await.unwrap()
}

/// Numbers of keys on each of the three shards, in the order of their primaries.
pub fn shards(cluster: &RedisCluster) -> [Vec<u8>; 3] {
    let mut shards = [(); 3].map(|()| Vec::new());
    for number in 0..40 {
        let primary = cluster.primary_of(&name(number).to_string());
        shards[primary].push(number);
    }
    shards
}

pub fn is_cached(answer: &Answer) -> bool {
    matches!(answer, Answer::Is(Some(RecordState::Cached { .. })))
}

/// Waits until the server has confirmed the subscription, which wakes the waiter once.
pub async fn subscribe(store: &RedisStore, number: u8) {
    timeout(IN_TIME, store.changed(&name(number)))
        .await
        .unwrap();
}

#[tokio::test]
async fn store_conforms_to_protocol() {
    let cluster = RedisCluster::start().await;
    let store = connect(&cluster).await;
    store_conformance(store, tokio::time::sleep).await;
}

#[tokio::test]
async fn shards_form_one_store() {
    let cluster = RedisCluster::start().await;
    let here = connect(&cluster).await;
    // The URL of one node is enough to find the others.
    let there = RedisStore::cluster([cluster.nodes[4].url()]).await.unwrap();
    let shards = shards(&cluster);
    assert!(shards.iter().all(|keys| !keys.is_empty()), "{shards:?}");

    // Every record is on its shard, and both stores find it.
    for number in 0..40 {
        assert_eq!(
            apply(&here, number, acquire(1)).await.unwrap(),
            Answer::Done
        );
        let abandon = Event::Abandon {
            claim: claim(1),
            step: 1,
            cause: "reset".into(),
        };
        assert_eq!(apply(&there, number, abandon).await.unwrap(), Answer::Done);
    }
    for (primary, keys) in shards.iter().enumerate() {
        let size: usize = cluster.nodes[primary].command(&["DBSIZE"]);
        assert_eq!(size, keys.len());
    }
    let namespace = "test".parse().unwrap();
    let mut listed: Vec<_> = indeterminate(&here, &namespace, 100)
        .await
        .unwrap()
        .into_iter()
        .map(|(key, _)| key.as_bytes()[0])
        .collect();
    listed.sort_unstable();
    assert_eq!(listed, (0..40).collect::<Vec<_>>());
    assert_eq!(indeterminate(&there, &namespace, 7).await.unwrap().len(), 7);

    // A server forgets its scripts; they are sent again to this server only.
    for node in &cluster.nodes[..3] {
        node.command::<()>(&["SCRIPT", "FLUSH"]);
    }
    for keys in &shards {
        let done = apply(&here, keys[0], complete(1, "{}")).await.unwrap();
        assert_eq!(done, Answer::Done);
        assert!(is_cached(
            &apply(&there, keys[0], acquire(2)).await.unwrap()
        ));
    }

    let durability = here.durability();
    assert_eq!(durability.evicts, Some(false));
    assert_eq!(durability.persistence, Some(Persistence::None));
    assert_eq!(durability.replicas, Some(1));
    // The risk of any shard counts for the whole cluster.
    for node in &cluster.nodes[..3] {
        let set = |name, value| node.command::<()>(&["CONFIG", "SET", name, value]);
        set("maxmemory-policy", "allkeys-lru");
        set("maxmemory", "100mb");
        assert_eq!(connect(&cluster).await.durability().evicts, Some(true));
        set("maxmemory", "0");
    }
}

#[tokio::test]
async fn every_shard_sends_notifications() {
    let cluster = RedisCluster::start().await;
    let here = connect(&cluster).await;
    let there = connect(&cluster).await;
    let shards = shards(&cluster);
    for keys in &shards {
        let one = name(keys[0]);
        apply(&there, keys[0], acquire(1)).await.unwrap();
        subscribe(&here, keys[0]).await;
        let waiting = here.changed(&one);
        tokio::pin!(waiting);
        let quiet = timeout(Duration::from_millis(300), &mut waiting).await;
        assert!(quiet.is_err());
        apply(&there, keys[0], complete(1, "{}")).await.unwrap();
        timeout(IN_TIME, waiting).await.unwrap();
    }
    // Only the shard's own server has the subscription, …
    let (channel, server) = (name(shards[2][1]).to_string(), 2);
    subscribe(&here, shards[2][1]).await;
    for (number, node) in cluster.nodes.iter().enumerate() {
        let (_, count): (String, u64) = node.command(&["PUBSUB", "SHARDNUMSUB", &channel]);
        assert_eq!(count, u64::from(number == server));
    }
    // … and only while there are waiters.
    eventually("no channel is subscribed", async || {
        let (_, count): (String, u64) =
            cluster.nodes[server].command(&["PUBSUB", "SHARDNUMSUB", &channel]);
        count == 0
    })
    .await;
}

/// A slot moves from one server to another. Red if `ASK` or `MOVED` is not followed.
#[tokio::test]
async fn moving_slot_is_followed() {
    let cluster = RedisCluster::start().await;
    let store = connect(&cluster).await;
    let [moving, ..] = shards(&cluster);
    let number = moving[0];
    let key = name(number).to_string();
    let slot = cluster.slot(&key).to_string();
    let ids = [0, 1].map(|node| cluster.nodes[node].command::<String>(&["CLUSTER", "MYID"]));
    let set_slot = |node: usize, state: &str, id: &str| {
        cluster.nodes[node].command::<()>(&["CLUSTER", "SETSLOT", &slot, state, id]);
    };
    set_slot(1, "IMPORTING", &ids[0]);
    set_slot(0, "MIGRATING", &ids[1]);
    // Absent on the old server, so the key is acquired on the new one.
    assert_eq!(
        apply(&store, number, acquire(1)).await.unwrap(),
        Answer::Done
    );
    let counts = [0, 1].map(|node| cluster.nodes[node].command::<u64>(&["DBSIZE"]));
    assert_eq!(counts, [0, 1]);
    let done = apply(&store, number, complete(1, "{}")).await.unwrap();
    assert_eq!(done, Answer::Done);
    assert!(is_cached(&apply(&store, number, acquire(2)).await.unwrap()));
    set_slot(1, "NODE", &ids[1]);
    set_slot(0, "NODE", &ids[1]);
    // From now on the new server owns the slot.
    assert!(is_cached(&apply(&store, number, acquire(2)).await.unwrap()));
    let forgotten = apply(
        &store,
        number,
        Event::Forget {
            lease: LeaseId::from_bytes([0xf0; 16]),
        },
    )
    .await
    .unwrap();
    assert_eq!(forgotten, Answer::Done);
    let free = apply(&store, number, acquire(2)).await.unwrap();
    assert!(
        matches!(free, Answer::Is(Some(RecordState::Released { .. }))),
        "{free:?}"
    );
}

/// Moves a slot from one server to another, with its keys.
pub fn hand_over(cluster: &RedisCluster, slot: &str, from: usize, to: usize) {
    let id = |node: usize| cluster.nodes[node].command::<String>(&["CLUSTER", "MYID"]);
    for (node, state, id) in [
        (to, "IMPORTING", id(from)),
        (from, "MIGRATING", id(to)),
        (to, "NODE", id(to)),
        (from, "NODE", id(to)),
    ] {
        if state == "NODE" && node == to {
            let keys: Vec<String> =
                cluster.nodes[from].command(&["CLUSTER", "GETKEYSINSLOT", slot, "100"]);
            let port = cluster.nodes[to].port.to_string();
            for key in keys {
                let migrate = ["MIGRATE", "127.0.0.1", &port, &key, "0", "5000"];
                cluster.nodes[from].command::<()>(&migrate);
            }
        }
        cluster.nodes[node].command::<()>(&["CLUSTER", "SETSLOT", slot, state, &id]);
    }
}

/// The server that loses a slot removes its subscriptions and sends a notification.
/// redis-rs takes it for the reply to the current command, and a look then gets the record
/// of another key. Red if notifications and commands share a connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaving_slots_mix_up_no_replies() {
    let cluster = RedisCluster::start().await;
    let store = connect(&cluster).await;
    let keys = shards(&cluster)[0].clone();
    let (staying, leaving) = keys.split_at(3);
    for number in staying {
        let body = format!("{number}");
        apply(&store, *number, complete(1, &body)).await.unwrap();
    }
    let over = Arc::new(AtomicBool::new(false));
    let read = tokio::spawn({
        let (store, staying, over) = (store.clone(), staying.to_vec(), over.clone());
        async move {
            while !over.load(Ordering::Relaxed) {
                let looks = staying.repeat(20).into_iter().map(async |number| {
                    let state = store.look(&name(number)).await;
                    let Ok(Some(RecordState::Cached { stored, .. })) = state else {
                        panic!("{number}: {state:?}");
                    };
                    assert_eq!(
                        *stored.outcome.body(),
                        format!("{number}"),
                        "the reply to another command"
                    );
                });
                join_all(looks).await;
            }
        }
    });
    for number in leaving {
        subscribe(&store, *number).await;
        let slot = cluster.slot(&name(*number).to_string()).to_string();
        hand_over(&cluster, &slot, 0, 1);
    }
    over.store(true, Ordering::Relaxed);
    read.await.unwrap();
}

/// The server that loses a slot removes its subscriptions. Red if the store ignores the
/// removal: the channel still counts as subscribed when the slot returns.
#[tokio::test]
async fn returned_slot_is_subscribed_again() {
    let cluster = RedisCluster::start().await;
    let store = connect(&cluster).await;
    let number = shards(&cluster)[0][0];
    let one = name(number);
    let slot = cluster.slot(&one.to_string()).to_string();
    subscribe(&store, number).await;
    let mut waiting = store.changed(&one);
    let quiet = timeout(Duration::from_millis(300), &mut waiting).await;
    assert!(quiet.is_err());
    hand_over(&cluster, &slot, 0, 1);
    hand_over(&cluster, &slot, 1, 0);
    // The waiter might also be notified of the change, and then waits again.
    let listens = || {
        let (_, count): (String, u64) =
            cluster.nodes[0].command(&["PUBSUB", "SHARDNUMSUB", &one.to_string()]);
        count == 1
    };
    eventually("the channel is subscribed again", async || {
        if timeout(Duration::from_millis(1), &mut waiting)
            .await
            .is_ok()
        {
            waiting = store.changed(&one);
        }
        listens()
    })
    .await;
}

/// A node that has missed a fail-over returns an old map. Red if maps are not compared
/// by their epoch.
#[tokio::test]
async fn outdated_map_is_ignored() {
    let (old, new) = (RedisServer::start(), RedisServer::start());
    let stale = FakeServer::cluster_node(1, &[old.port, new.port]).await;
    let informed = FakeServer::cluster_node(2, &[new.port, old.port]).await;
    for number in 0..10 {
        let urls = [stale.url(), informed.url()];
        let store = RedisStore::cluster(urls).await.unwrap();
        apply(&store, number, acquire(1)).await.unwrap();
    }
    assert_eq!(new.command::<u32>(&["DBSIZE"]), 10);
    assert_eq!(old.command::<u32>(&["DBSIZE"]), 0);
}

/// Red if `WAIT` goes to a server other than the key's primary.
#[tokio::test]
async fn acknowledgements_are_from_own_shard() {
    let cluster = RedisCluster::start().await;
    let store = connect(&cluster).await;
    let [first, second, _] = shards(&cluster);
    cluster.nodes[3].pause();
    let strict = store.clone().replicas(1, Duration::from_millis(300));
    let error = apply(&strict, first[0], acquire(1)).await.unwrap_err();
    assert!(
        chain(&error).contains("0 of 1 replicas have it"),
        "{error:?}"
    );
    let strict = store.replicas(1, EVER);
    let answer = apply(&strict, second[0], acquire(1)).await.unwrap();
    assert_eq!(answer, Answer::Done);
    let keys: Vec<String> = cluster.nodes[4].command(&["KEYS", "*"]);
    assert_eq!(keys, [name(second[0]).to_string()]);
    cluster.nodes[3].resume();
}

#[tokio::test]
async fn last_clone_ends_tasks_and_connections() {
    let cluster = RedisCluster::start().await;
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let clients = || -> usize {
        let count = |node: &RedisServer| {
            let clients: String = node.command(&["CLIENT", "LIST", "TYPE", "normal"]);
            let pubsub: String = node.command(&["CLIENT", "LIST", "TYPE", "pubsub"]);
            // One of these connections sends this command.
            clients.lines().count() + pubsub.lines().count() - 1
        };
        cluster.nodes.iter().map(count).sum()
    };
    let (before, clients_before) = (tasks(), clients());
    let store = connect(&cluster).await;
    for keys in shards(&cluster) {
        apply(&store, keys[0], acquire(1)).await.unwrap();
        subscribe(&store, keys[0]).await;
    }
    assert!(tasks() > before && clients() > clients_before);
    drop(store);
    eventually("the connections are closed", async || {
        clients() == clients_before
    })
    .await;
    eventually("no task is left", async || tasks() == before).await;
}

#[tokio::test]
async fn cluster_password_is_used_on_all_nodes() {
    let options = Options::default().password("pw").set("masterauth", "pw");
    let cluster = RedisCluster::start_with(options).await;
    let store = connect(&cluster).await;
    for keys in shards(&cluster) {
        assert_eq!(
            apply(&store, keys[0], acquire(1)).await.unwrap(),
            Answer::Done
        );
    }
    assert!(!format!("{store:?}").contains("pw"), "{store:?}");
}
