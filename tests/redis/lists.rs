//! What an operator lists: the whole list, or an error. Servers are replaced and slots move
//! during the walk, and records cannot be read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use genesys_once::error::RefusalKind;
use genesys_once::record::{Answer, Event, Namespace};
use genesys_once::store::{ListQuery, UnreadableRecord};
use genesys_once::testing::{ScriptedUpstream, Step};
use genesys_once::{Engine, Error, RedisStore, Store};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use super::cluster::{connect, shards};
use super::{acquire, apply, chain, claim, name};
use crate::support::cluster::RedisCluster;
use crate::support::redis::RedisServer;
use crate::support::{eventually, eventually_within, indeterminate, listed};

/// The time within which the store finds another server.
const RECOVERY: Duration = Duration::from_secs(60);

fn abandon() -> Event {
    Event::Abandon {
        claim: claim(1),
        step: 1,
        cause: "reset".into(),
    }
}

/// One address; the server behind it changes from time to time.
async fn endpoint(port: Arc<AtomicU16>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!(
        "redis://127.0.0.1:{}",
        listener.local_addr().unwrap().port()
    );
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let port = port.load(Ordering::SeqCst);
            tokio::spawn(async move {
                let mut server = TcpStream::connect(("127.0.0.1", port)).await?;
                copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    url
}

async fn unreadable(store: &RedisStore, limit: usize) -> Vec<UnreadableRecord> {
    let query = ListQuery::unreadable().with_limit(limit);
    let namespace = "test".parse().unwrap();
    listed(store, &namespace, query).await.unwrap().unreadable
}

fn scans(server: &RedisServer) -> u64 {
    let calls = server.calls();
    let scans = calls.iter().find(|(name, _)| name == "scan");
    scans.map_or(0, |(_, count)| *count)
}

/// Records that are damaged, copied from another key, of another type, or of a newer
/// version. The list says what is wrong with each, and an operator removes exactly what was
/// listed.
///
/// Red if such records are on no list, or if a record is removed that has changed since, or
/// that a newer version wrote.
#[tokio::test]
async fn unreadable_record_is_listed_and_removed() {
    let server = RedisServer::start();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let set = |number, value: &str| {
        server.command::<()>(&["SET", &name(number).to_string(), value]);
    };
    set(1, "genesys-once/4 indeterminate - and more\n{}");
    set(2, "something else\n");
    server.command::<u64>(&["RPUSH", &name(3).to_string(), "a"]);
    set(4, "{}");
    store.apply(&name(5), acquire(1)).await.unwrap();
    let mut listed = unreadable(&store, 10).await;
    listed.sort_by_key(|record| record.key().as_bytes()[0]);
    let reasons: Vec<_> = listed
        .iter()
        .map(|record| (record.key().as_bytes()[0], record.reason()))
        .collect();
    assert_eq!(
        reasons,
        [
            (1, "it has version \"4\", this is version 3"),
            (2, "it is not a record of genesys-once"),
            (3, "the key holds another type of value, not a record"),
            (4, "malformed record: no header line in its first 512 bytes"),
        ]
    );
    assert_eq!(unreadable(&store, 2).await.len(), 2);
    assert_eq!(store.look_unreadable(&name(5)).await.unwrap(), None);
    assert_eq!(store.look_unreadable(&name(6)).await.unwrap(), None);
    assert!(listed[0].is_newer());
    for kept in [&listed[0], &listed[2]] {
        let error = store.discard(kept).await.unwrap_err();
        assert_eq!(error.refusal(), Some(RefusalKind::NotAllowed), "{error:?}");
    }
    // One key is written again, the other now holds a lock.
    set(2, "something new\n");
    server.command::<u64>(&["DEL", &name(4).to_string()]);
    store.apply(&name(4), acquire(1)).await.unwrap();
    for changed in [&listed[1], &listed[3]] {
        assert!(!store.discard(changed).await.unwrap());
    }
    let now = store.look_unreadable(&name(2)).await.unwrap().unwrap();
    assert!(store.discard(&now).await.unwrap());
    assert!(!store.discard(&now).await.unwrap());
    let left: u32 = server.command(&["DBSIZE"]);
    assert_eq!(left, 4);
    assert_eq!(
        store.apply(&name(2), acquire(1)).await.unwrap(),
        Answer::Done
    );
}

/// Keys that come and go between two pages change what one `SCAN` returns. The list still
/// misses no record that stays.
///
/// Red if a page goes on after a key of a batch when the batch has changed.
#[tokio::test]
async fn pages_miss_no_key_during_removals() {
    let server = RedisServer::start();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let load = |script: &str| server.command::<Option<u32>>(&["EVAL", script, "0"]);
    // Unreadable records are enough: the list names them by key.
    load(
        "for i = 1, 3000 do redis.call('SET', 'genesys-once:test:' .. redis.sha1hex(i) .. \
         string.sub(redis.sha1hex(i), 1, 24), 'x') end \
         for i = 1, 1500 do redis.call('SET', 'other:' .. i, 'x') end",
    );
    let namespace: Namespace = "test".parse().unwrap();
    let mut query = ListQuery::unreadable().with_limit(500);
    let mut found = std::collections::HashSet::new();
    for page in 0.. {
        let listed = store.list(&namespace, &query).await.unwrap();
        found.extend(listed.unreadable.iter().map(UnreadableRecord::key));
        let Some(next) = listed.next else { break };
        query = query.after(next);
        let gone = format!(
            "for i = {}, {} do redis.call('DEL', 'other:' .. i) end",
            page * 250,
            page * 250 + 249
        );
        load(&gone);
    }
    assert_eq!(found.len(), 3000);
}

/// The same through an engine, which removes no record of another namespace.
///
/// Red if the engine asks the store for any record that it is shown.
#[tokio::test]
async fn engine_removes_damaged_records() {
    let server = RedisServer::start();
    let engine = async |namespace: &str| {
        let store = RedisStore::connect(&server.url()).await.unwrap();
        let upstream = ScriptedUpstream::new(|_| Step::ok("{}"));
        let engine = Engine::builder(upstream).store(store);
        let engine = engine.namespace(namespace.parse().unwrap());
        engine.start().await.unwrap()
    };
    let (ours, other) = (engine("test").await, engine("other").await);
    server.command::<()>(&["SET", &name(1).to_string(), "something else"]);
    let listed = ours
        .list(&ListQuery::unreadable())
        .await
        .unwrap()
        .unreadable;
    assert_eq!(listed.len(), 1);
    let found = ours.inspect_unreadable(&listed[0].key()).await.unwrap();
    assert_eq!(found.as_ref(), listed.first());
    assert!(
        other
            .list(&ListQuery::unreadable())
            .await
            .unwrap()
            .unreadable
            .is_empty()
    );
    let error = other.discard_unreadable(&listed[0]).await.unwrap_err();
    let Error::StoreUnavailable { source, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!(source.refusal(), Some(RefusalKind::NotAllowed));
    assert!(ours.discard_unreadable(&listed[0]).await.unwrap());
    assert!(!ours.discard_unreadable(&listed[0]).await.unwrap());
    assert!(
        ours.list(&ListQuery::unreadable())
            .await
            .unwrap()
            .unreadable
            .is_empty()
    );
}

/// A fail-over behind one address, in the middle of a walk: the walk's cursor means nothing
/// to the server behind the next connection.
///
/// Red if the walk goes on there and its result counts as the whole list.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn list_is_complete_or_fails() {
    const RECORDS: usize = 200;
    let servers = [RedisServer::start(), RedisServer::start()];
    let others = "for i = 1, 100000 do redis.call('SET', 'other:' .. i, 'x') end";
    for server in &servers {
        let store = RedisStore::connect(&server.url()).await.unwrap();
        for number in 0..RECORDS {
            apply(&store, number as u8, abandon()).await.unwrap();
        }
        // Other keys, so that the walk takes long enough to be interrupted.
        server.command::<()>(&["EVAL", others, "0"]);
    }
    let port = Arc::new(AtomicU16::new(servers[0].port));
    let store = RedisStore::connect(&endpoint(port.clone()).await)
        .await
        .unwrap();
    let namespace: Namespace = "test".parse().unwrap();
    let whole = indeterminate(&store, &namespace, 1000).await.unwrap();
    assert_eq!(whole.len(), RECORDS);
    for round in 0..6 {
        let (old, new) = (&servers[round % 2], &servers[(round + 1) % 2]);
        let before = scans(old);
        let walk = tokio::spawn({
            let (store, namespace) = (store.clone(), namespace.clone());
            async move { indeterminate(&store, &namespace, 1000).await }
        });
        eventually("the walk has started", async || scans(old) > before + 3).await;
        port.store(new.port, Ordering::SeqCst);
        old.command::<()>(&["REPLICAOF", "127.0.0.1", "1"]);
        // The store replaces its shared connection because of this command, between two
        // commands of the walk.
        let _ = apply(&store, 250, acquire(1)).await;
        let listed = walk.await.unwrap();
        if let Ok(listed) = listed {
            assert_eq!(listed.len(), RECORDS, "round {round}");
        }
        old.command::<()>(&["REPLICAOF", "NO", "ONE"]);
    }
    eventually_within(RECOVERY, "the store answers", async || {
        let listed = indeterminate(&store, &namespace, 1000).await;
        listed.is_ok_and(|listed| listed.len() == RECORDS)
    })
    .await;
}

/// A key that moves from a shard that is walked last to a shard that was walked first is in
/// neither shard's part of the list.
///
/// Red if a walk does not check for moving slots.
#[tokio::test]
async fn list_is_refused_while_slots_move() {
    let cluster = RedisCluster::start().await;
    let store = connect(&cluster).await;
    let moving = shards(&cluster)[0][0];
    apply(&store, moving, abandon()).await.unwrap();
    let namespace = "test".parse().unwrap();
    let listed = indeterminate(&store, &namespace, 10).await.unwrap();
    assert_eq!(listed.len(), 1);
    let slot = cluster.slot(&name(moving).to_string()).to_string();
    let ids = [0, 1].map(|node| cluster.nodes[node].command::<String>(&["CLUSTER", "MYID"]));
    cluster.nodes[1].command::<()>(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &ids[0]]);
    let error = indeterminate(&store, &namespace, 10).await.unwrap_err();
    assert!(chain(&error).contains("would be incomplete"), "{error:?}");
    cluster.nodes[1].command::<()>(&["CLUSTER", "SETSLOT", &slot, "STABLE"]);
    let listed = indeterminate(&store, &namespace, 10).await.unwrap();
    assert_eq!(listed.len(), 1);
}

/// One process walks in a period, and the next process may walk after it.
///
/// Red if each process may walk.
#[tokio::test]
async fn one_process_walks_a_namespace() {
    let server = RedisServer::start();
    let one = RedisStore::connect(&server.url()).await.unwrap();
    let two = RedisStore::connect(&server.url()).await.unwrap();
    let (namespace, other) = ("test".parse().unwrap(), "other".parse().unwrap());
    let day = Duration::from_secs(24 * 3600);
    assert!(one.walk_turn(&namespace, day).await.unwrap());
    assert!(!two.walk_turn(&namespace, day).await.unwrap());
    assert!(!one.walk_turn(&namespace, day).await.unwrap());
    assert!(two.walk_turn(&other, day).await.unwrap());
    let key = "genesys-once:test:walk";
    let left: u64 = server.command(&["PTTL", key]);
    assert!(left > 0 && left <= 24 * 3600 * 1000, "{left}");
    server.command::<u64>(&["DEL", key]);
    assert!(two.walk_turn(&namespace, day).await.unwrap());
    // The key that marks the turn is on no list.
    let all = listed(&one, &namespace, ListQuery::all()).await.unwrap();
    assert_eq!((all.records.len(), all.unreadable.len()), (0, 0));
}

/// A page ends in the middle of what the server scans; a cursor of another connection is
/// refused.
///
/// Red if a page goes on behind the batch that it cut, and if a cursor is accepted from any
/// connection.
#[tokio::test]
async fn pages_of_any_size_are_complete() {
    let server = RedisServer::start();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    for number in 0..40 {
        apply(&store, number, abandon()).await.unwrap();
    }
    let namespace: Namespace = "test".parse().unwrap();
    for limit in [1, 7, 40, 1000] {
        for query in [ListQuery::indeterminate(), ListQuery::all()] {
            let mut query = query.with_limit(limit);
            let mut keys = Vec::new();
            loop {
                let page = store.list(&namespace, &query).await.unwrap();
                assert!(page.records.len() <= limit);
                keys.extend(page.records.iter().map(|(key, _)| key.as_bytes()[0]));
                match page.next {
                    Some(next) => query = query.after(next),
                    None => break,
                }
            }
            keys.sort_unstable();
            assert_eq!(keys, (0..40).collect::<Vec<_>>(), "{limit}");
        }
    }
    let first = store
        .list(&namespace, &ListQuery::all().with_limit(7))
        .await;
    let next = ListQuery::all().after(first.unwrap().next.unwrap());
    let another = RedisStore::connect(&server.url()).await.unwrap();
    let error = another.list(&namespace, &next).await.unwrap_err();
    assert_eq!(error.refusal(), Some(RefusalKind::NotNow), "{error:?}");
    assert!(chain(&error).contains("start it again"), "{error:?}");
    assert_eq!(
        store.list(&namespace, &next).await.unwrap().records.len(),
        33
    );
}
