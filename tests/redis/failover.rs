//! Shards of a real cluster that die, hang, or fail over, and what the other shards do
//! meanwhile.

use std::time::Duration;

use futures_util::future::join_all;
use genesys_once::record::{Answer, Event, LeaseId, RecordName, RecordState};
use genesys_once::testing::{ScriptedUpstream, Step};
use genesys_once::{DataActionRequest, Engine, Error, IdempotencyKey, Store};
use tokio::time::timeout;

use super::cluster::{EVER, IN_TIME, connect, is_cached, shards, subscribe};
use super::{acquire, apply, chain, claim, complete, extend, name};
use crate::support::cluster::RedisCluster;
use crate::support::{eventually, eventually_within};

/// The time within which the store finds a new primary.
const RECOVERY: Duration = Duration::from_secs(60);

/// Red if a dead shard is retried without a limit, or affects the others.
#[tokio::test]
async fn dead_shard_recovers_and_others_go_on() {
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

    cluster.stable().await;
    let mut found = None;
    eventually_within(RECOVERY, "the shard is back", async || {
        found = store.look(&name(dead[0])).await.unwrap_or_default();
        found.is_some()
    })
    .await;
    // The waiter for a key of that shard is woken to read again.
    timeout(RECOVERY, waiting).await.unwrap().unwrap();
    // The replica had the lock, and its holder goes on.
    let Some(RecordState::Locked { revision, .. }) = found else {
        panic!("{found:?}");
    };
    assert_eq!(revision.lease, claim(1).lease);
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
    // The shard also acquires an absent key.
    assert_eq!(
        apply(&store, dead[2], acquire(1)).await.unwrap(),
        Answer::Done
    );
}

/// Red if a command without an answer does not lead to a new map.
#[tokio::test]
async fn hung_primary_blocks_no_other_shard() {
    let cluster = RedisCluster::start().await;
    let store = connect(&cluster).await;
    let [hung, second, third] = shards(&cluster);
    for number in [hung[0], second[0], third[0]] {
        apply(&store, number, complete(1, "{}")).await.unwrap();
    }
    // When the replica has this record, it also has the record before it.
    let strict = store.clone().replicas(1, EVER);
    apply(&strict, hung[1], acquire(1)).await.unwrap();
    let one = name(hung[0]);
    subscribe(&store, hung[0]).await;
    let waiting = store.changed(&one);
    tokio::pin!(waiting);
    let quiet = timeout(Duration::from_millis(300), &mut waiting).await;
    assert!(quiet.is_err());
    cluster.nodes[0].pause();
    let number = hung[0];
    let asked = tokio::spawn({
        let store = store.clone();
        let many =
            async move { join_all([(); 10].map(|()| apply(&store, number, acquire(2)))).await };
        timeout(IN_TIME, many)
    });
    // The other servers forget their scripts; the store does not load the scripts onto the
    // hung server.
    cluster.nodes[1].command::<()>(&["SCRIPT", "FLUSH"]);
    for round in 0..50 {
        for number in [second[0], third[0]] {
            let answer = apply(&store, number, acquire(2)).await.unwrap();
            assert!(is_cached(&answer), "round {round}: {answer:?}");
            let state = store.look(&name(number)).await.unwrap();
            assert!(state.is_some());
        }
    }
    for answer in asked.await.unwrap().unwrap() {
        let error = answer.unwrap_err();
        assert!(chain(&error).contains("within 2 s"), "{error:?}");
    }

    cluster.stable().await;
    // One command is enough, whatever its result. The waiters follow to the new primary,
    // too.
    let _ = apply(&store, hung[0], acquire(2)).await;
    timeout(RECOVERY, waiting).await.unwrap();
    assert!(is_cached(
        &apply(&store, hung[0], acquire(2)).await.unwrap()
    ));
    // The old primary resumes, and the store does not return to it.
    cluster.nodes[0].resume();
    cluster.replicated().await;
    for number in &hung {
        let answer = apply(&store, *number, complete(1, "new")).await.unwrap();
        assert_eq!(answer, Answer::Done);
        let primary = cluster.primary_of(&name(*number).to_string());
        assert_eq!(primary, 3);
    }
}

/// The engine's own deadline might be shorter. Red if only a completed command leads to a
/// new map.
#[tokio::test]
async fn dropped_commands_still_find_new_primary() {
    const SHORT: Duration = Duration::from_millis(300);
    let cluster = RedisCluster::start().await;
    let store = connect(&cluster).await;
    let [hung, ..] = shards(&cluster);
    let one = name(hung[0]);
    subscribe(&store, hung[0]).await;
    let waiting = store.changed(&one);
    tokio::pin!(waiting);
    assert!(timeout(SHORT, &mut waiting).await.is_err());
    cluster.nodes[0].pause();
    cluster.stable().await;
    // One command whose caller drops it.
    let answer = timeout(SHORT, apply(&store, hung[0], extend(1))).await;
    assert!(answer.is_err(), "{answer:?}");
    timeout(RECOVERY, waiting).await.unwrap();
    let answer = apply(&store, hung[0], extend(1)).await.unwrap();
    assert_eq!(answer, Answer::Done);
}

/// One shard in three hangs, and executions for keys of the other shards go on. Red if the
/// engine counts the whole store as down.
#[tokio::test]
async fn engine_continues_on_other_shards() {
    let cluster = RedisCluster::start().await;
    let platform = ScriptedUpstream::new(|_| Step::ok("{}"));
    let builder = Engine::builder(platform.clone()).store(connect(&cluster).await);
    let builder = builder.store_timeout(Duration::from_millis(500));
    let engine = builder
        .namespace("test".parse().unwrap())
        .start()
        .await
        .unwrap();
    let mut requests = [(); 3].map(|()| Vec::new());
    for number in 0..60 {
        let request = DataActionRequest::new("refund", format!("{number}")).unwrap();
        let name = RecordName::new("test".parse().unwrap(), IdempotencyKey::of(&request));
        requests[cluster.primary_of(&name.to_string())].push(request);
    }
    let [hung, second, third] = requests;
    cluster.nodes[0].pause();
    let failing = tokio::spawn({
        let (engine, hung) = (engine.clone(), hung.clone());
        async move {
            let mut failed = 0;
            for request in hung.into_iter().take(5) {
                let error = engine.execute(request).await.unwrap_err();
                assert!(matches!(error, Error::StoreUnavailable { .. }), "{error}");
                failed += 1;
            }
            failed
        }
    });
    eventually("the store is known to be down in part", async || {
        !engine.stats().store_up
    })
    .await;
    for request in second.into_iter().chain(third) {
        let reply = engine.execute(request).await.unwrap();
        assert!(reply.recorded());
    }
    assert_eq!(timeout(RECOVERY, failing).await.unwrap().unwrap(), 5);
    cluster.stable().await;
    eventually_within(RECOVERY, "all executions go on", async || {
        engine.execute(hung[9].clone()).await.is_ok()
    })
    .await;
    assert!(engine.stats().store_up);
    // No request of a caller that got `StoreUnavailable` was sent.
    let reported = hung[..5].iter().map(IdempotencyKey::of);
    assert!(
        reported
            .into_iter()
            .all(|key| platform.ledger().calls(&key) == 0)
    );
}

/// A replica takes over from a healthy primary while both are in use.
#[tokio::test]
async fn planned_fail_over_loses_no_record() {
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
                // The first wake comes with the subscription, the second with the move.
                store.changed(&name).await;
                store.changed(&name).await;
            })
        })
        .collect();
    eventually("all waiters are subscribed", async || {
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
                    // An error, an answer and a wrong answer are distinguished.
                    if let Ok(Some(RecordState::Cached { stored, .. })) =
                        store.look(&name(*number)).await
                    {
                        assert_eq!(*stored.outcome.body(), format!("{number}"));
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
    cluster.stable().await;
    // A change wakes the waiters that the move itself has not woken.
    for number in &moving {
        assert!(!read.is_finished(), "a reply was another command's");
        let answer = apply(
            &store,
            *number,
            Event::Forget {
                lease: LeaseId::from_bytes([0xf0; 16]),
            },
        )
        .await
        .unwrap();
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
