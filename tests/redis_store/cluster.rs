//! A real cluster: the protocol and its notices, keys on every shard, shards
//! that die, hang or move, and what the others do meanwhile.

use std::time::Duration;

use futures_util::future::join_all;
use genesys_once::record::{Answer, Event, RecordState};
use genesys_once::testing::store_conformance;
use genesys_once::{Persistence, RedisStore, Store};
use tokio::time::timeout;

use super::{acquire, apply, chain, claim, complete, extend, name};
use crate::support::cluster::RedisCluster;
use crate::support::redis::Options;
use crate::support::{eventually, eventually_within};

/// As long as it takes on a busy machine.
const EVER: Duration = Duration::from_secs(600);

/// The store's own deadline, and a lot of air.
const IN_TIME: Duration = Duration::from_secs(10);

/// A fail-over, seen by the store.
const RECOVERY: Duration = Duration::from_secs(60);

async fn connect(cluster: &RedisCluster) -> RedisStore {
    RedisStore::cluster(cluster.urls()).await.unwrap()
}

/// Numbers of keys on each of the three shards, in the order of their primaries.
fn shards(cluster: &RedisCluster) -> [Vec<u8>; 3] {
    let mut shards = [(); 3].map(|()| Vec::new());
    for number in 0..40 {
        let primary = cluster.primary_of(&name(number).to_string());
        shards[primary].push(number);
    }
    shards
}

fn is_cached(answer: &Answer) -> bool {
    matches!(answer, Answer::Is(Some(RecordState::Cached { .. })))
}

/// Waits until the subscription stands, which wakes the waiter once.
async fn subscribe(store: &RedisStore, number: u8) {
    timeout(IN_TIME, store.changed(&name(number)))
        .await
        .unwrap();
}

#[tokio::test]
async fn it_keeps_the_protocol() {
    let cluster = RedisCluster::start().await;
    let store = connect(&cluster).await;
    store_conformance(store, tokio::time::sleep).await;
}

#[tokio::test]
async fn all_shards_together_are_one_store() {
    let cluster = RedisCluster::start().await;
    let here = connect(&cluster).await;
    // One node is enough to find the others.
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
            since: std::time::SystemTime::now(),
            cause: "reset".into(),
        };
        assert_eq!(apply(&there, number, abandon).await.unwrap(), Answer::Done);
    }
    for (primary, keys) in shards.iter().enumerate() {
        let size: usize = cluster.nodes[primary].command(&["DBSIZE"]);
        assert_eq!(size, keys.len());
    }
    let namespace = "test".parse().unwrap();
    let mut listed: Vec<_> = here
        .unresolved(&namespace, 100)
        .await
        .unwrap()
        .into_iter()
        .map(|(key, _)| key.as_bytes()[0])
        .collect();
    listed.sort_unstable();
    assert_eq!(listed, (0..40).collect::<Vec<_>>());
    assert_eq!(there.unresolved(&namespace, 7).await.unwrap().len(), 7);

    // A server forgets its scripts; they are sent along, to that one.
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
    cluster.nodes[1].command::<()>(&["CONFIG", "SET", "maxmemory", "100mb"]);
    cluster.nodes[1].command::<()>(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    // One shard's risk is a risk of all.
    assert_eq!(connect(&cluster).await.durability().evicts, Some(true));
}

#[tokio::test]
async fn notices_come_from_every_shard() {
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
    // Its own shard's server only is told.
    let (channel, server) = (name(shards[2][1]).to_string(), 2);
    subscribe(&here, shards[2][1]).await;
    for (number, node) in cluster.nodes.iter().enumerate() {
        let (_, count): (String, u64) = node.command(&["PUBSUB", "SHARDNUMSUB", &channel]);
        assert_eq!(count, u64::from(number == server));
    }
    // And listened to no longer than somebody waits.
    eventually("nobody listens any more", async || {
        let (_, count): (String, u64) =
            cluster.nodes[server].command(&["PUBSUB", "SHARDNUMSUB", &channel]);
        count == 0
    })
    .await;
}

/// Red when a dead shard is asked for ever, or takes the others along.
#[tokio::test]
async fn a_shard_whose_primary_dies_comes_back_and_the_others_go_on() {
    let mut cluster = RedisCluster::start().await;
    let store = connect(&cluster).await.replicas(1, EVER);
    let [dead, second, third] = shards(&cluster);
    for number in [dead[0], dead[1], second[0], third[0]] {
        assert_eq!(
            apply(&store, number, acquire(1)).await.unwrap(),
            Answer::Done
        );
    }
    subscribe(&store, dead[0]).await;
    let waiting = tokio::spawn({
        let (store, name) = (store.clone(), name(dead[0]));
        async move { store.changed(&name).await }
    });
    cluster.nodes[0].kill();
    for round in 0..20 {
        for number in [second[0], third[0]] {
            let answer = timeout(IN_TIME, apply(&store, number, extend(1))).await;
            assert_eq!(answer.unwrap().unwrap(), Answer::Done, "round {round}");
        }
    }
    let lost = timeout(IN_TIME, store.look(&name(dead[0]))).await.unwrap();
    let error = lost.unwrap_err();
    assert!(!error.is_refused() && !error.is_unreadable(), "{error:?}");

    cluster.settled().await;
    let mut found = None;
    eventually_within(RECOVERY, "the shard is back", async || {
        found = store.look(&name(dead[0])).await.unwrap_or_default();
        found.is_some()
    })
    .await;
    // Who waited there is told to look again.
    timeout(RECOVERY, waiting).await.unwrap().unwrap();
    // The replica had the lock, and its holder goes on.
    let Some(RecordState::Locked { seen, .. }) = found else {
        panic!("{found:?}");
    };
    assert_eq!(seen.lease, claim(1).lease);
    let store = store.replicas(0, EVER);
    subscribe(&store, dead[1]).await;
    let one = name(dead[1]);
    let waiting = store.changed(&one);
    tokio::pin!(waiting);
    let quiet = timeout(Duration::from_millis(300), &mut waiting).await;
    assert!(quiet.is_err());
    let done = apply(&store, dead[1], complete(1, "{}")).await.unwrap();
    assert_eq!(done, Answer::Done);
    timeout(IN_TIME, waiting).await.unwrap();
    assert!(is_cached(
        &apply(&store, dead[1], acquire(2)).await.unwrap()
    ));
    // An absent one is taken there, too.
    assert_eq!(
        apply(&store, dead[2], acquire(1)).await.unwrap(),
        Answer::Done
    );
}

/// Red when a hung server holds up commands for others, or one for it hangs.
#[tokio::test]
async fn a_hung_primary_holds_up_nobody_else() {
    let cluster = RedisCluster::start().await;
    let store = connect(&cluster).await;
    let [hung, second, third] = shards(&cluster);
    for number in [hung[0], second[0], third[0]] {
        apply(&store, number, complete(1, "{}")).await.unwrap();
    }
    cluster.nodes[0].pause();
    let stuck = tokio::spawn({
        let store = store.clone();
        async move { join_all([(); 10].map(|()| apply(&store, 0, acquire(2)))).await }
    });
    let stuck = if hung.contains(&0) { Some(stuck) } else { None };
    let number = hung[0];
    let asked = tokio::spawn({
        let store = store.clone();
        async move { timeout(IN_TIME, apply(&store, number, acquire(2))).await }
    });
    // Scripts that the others have forgotten are not loaded onto the hung one.
    cluster.nodes[1].command::<()>(&["SCRIPT", "FLUSH"]);
    for round in 0..50 {
        for number in [second[0], third[0]] {
            let answer = apply(&store, number, acquire(2)).await.unwrap();
            assert!(is_cached(&answer), "round {round}: {answer:?}");
            let state = store.look(&name(number)).await.unwrap();
            assert!(state.is_some());
        }
    }
    assert!(!asked.is_finished(), "the others have waited for it");
    let error = asked.await.unwrap().unwrap().unwrap_err();
    assert!(chain(&error).contains("within 2 s"), "{error:?}");
    if let Some(stuck) = stuck {
        let answers = timeout(IN_TIME, stuck).await.unwrap().unwrap();
        assert!(answers.iter().all(Result::is_err), "{answers:?}");
    }

    cluster.settled().await;
    eventually_within(RECOVERY, "the shard is back", async || {
        matches!(apply(&store, hung[0], acquire(2)).await, Ok(answer) if is_cached(&answer))
    })
    .await;
    // The old one wakes up, and is not gone back to.
    cluster.nodes[0].resume();
    cluster.replicated().await;
    for number in &hung {
        let answer = apply(&store, *number, complete(1, "new")).await.unwrap();
        assert_eq!(answer, Answer::Done);
        let primary = cluster.primary_of(&name(*number).to_string());
        assert_eq!(primary, 3);
    }
}

/// A server that loses its shard takes the subscriptions back unasked. redis-rs
/// takes that for the reply to a command, so that all later replies on that
/// connection are one off. Red when notices and commands share a connection.
#[tokio::test]
async fn a_planned_fail_over_mixes_up_no_replies() {
    let cluster = RedisCluster::start().await;
    let store = connect(&cluster).await.replicas(1, EVER);
    let [moving, ..] = shards(&cluster);
    for number in &moving {
        apply(&store, *number, acquire(1)).await.unwrap();
        let body = format!("{number}");
        apply(&store, *number, complete(1, &body)).await.unwrap();
    }
    let waiters: Vec<_> = moving
        .iter()
        .map(|number| {
            let (store, name) = (store.clone(), name(*number));
            tokio::spawn(async move {
                // Once for the subscription, once for the move.
                store.changed(&name).await;
                store.changed(&name).await;
            })
        })
        .collect();
    eventually("all listen", async || {
        let channels: Vec<String> = cluster.nodes[0].command(&["PUBSUB", "SHARDCHANNELS"]);
        channels.len() == moving.len()
    })
    .await;
    let read = tokio::spawn({
        let (store, moving) = (store.clone(), moving.clone());
        async move {
            let mut read = 0;
            loop {
                let looks = moving.iter().map(async |number| {
                    // An error is told from an answer, and a wrong answer from both.
                    if let Ok(Some(RecordState::Cached { outcome, .. })) =
                        store.look(&name(*number)).await
                    {
                        assert_eq!(outcome.body, format!("{number}"));
                        return 1;
                    }
                    0
                });
                read += join_all(looks).await.into_iter().sum::<usize>();
                tokio::task::yield_now().await;
                if read > 100_000 {
                    return;
                }
            }
        }
    });
    cluster.nodes[3].command::<()>(&["CLUSTER", "FAILOVER"]);
    eventually_within(RECOVERY, "the replica has taken over", async || {
        cluster.primary_of(&name(moving[0]).to_string()) == 3
    })
    .await;
    cluster.settled().await;
    // A change wakes whoever has not been woken by the move itself.
    for number in &moving {
        assert!(!read.is_finished(), "a reply was another command's");
        let answer = apply(&store, *number, Event::Forget).await.unwrap();
        assert_eq!(answer, Answer::Done, "{number}");
    }
    for waiter in join_all(waiters.into_iter().map(|waiter| timeout(RECOVERY, waiter))).await {
        waiter.unwrap().unwrap();
    }
    read.abort();
    if let Err(error) = read.await {
        assert!(
            error.is_cancelled(),
            "a reply was another command's: {error}"
        );
    }
}

/// A slot on its way from one server to another.
#[tokio::test]
async fn a_slot_on_the_move_is_followed() {
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
    // Absent here, so it is taken there.
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
    // From now on it is there without being asked for.
    assert!(is_cached(&apply(&store, number, acquire(2)).await.unwrap()));
    let forgotten = apply(&store, number, Event::Forget).await.unwrap();
    assert_eq!(forgotten, Answer::Done);
    assert_eq!(
        apply(&store, number, acquire(2)).await.unwrap(),
        Answer::Done
    );
}

/// Red when `WAIT` goes to another server than the key's primary.
#[tokio::test]
async fn copies_are_those_of_the_shard() {
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
async fn a_cluster_with_a_password_is_logged_in_to_everywhere() {
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
