//! Locks that replicas must have before a request is sent, with real replicas that hang or
//! die.

use std::time::Duration;

use futures_util::future::join_all;
use genesys_once::error::StoreError;
use genesys_once::record::{Answer, Event, Phase, RecordState};
use genesys_once::testing::{ScriptedUpstream, Step, store_conformance};
use genesys_once::{DataActionRequest, Engine, Error, IdempotencyKey, RedisStore, Served, Store};

use tokio::time::timeout;

use super::{acquire, apply, chain, claim, complete, extend, name};
use crate::support::cluster::RedisCluster;
use crate::support::eventually;
use crate::support::redis::{Options, RedisServer};

/// Longer than a busy machine needs.
const EVER: Duration = Duration::from_secs(600);

/// Short, since the tests wait for all of it.
const SHORT: Duration = Duration::from_millis(300);

/// A primary and its synchronised replicas.
async fn replicated<const N: usize>() -> (RedisServer, [RedisServer; N]) {
    let primary = Options::default()
        .set("repl-diskless-sync-delay", "0")
        .start();
    let replicas = std::array::from_fn(|_| Options::default().replica_of(&primary).start());
    in_step(&primary, N).await;
    (primary, replicas)
}

async fn in_step(primary: &RedisServer, count: usize) {
    eventually("the replicas follow", async || {
        primary.replicas_in_step() == count
    })
    .await;
}

async fn store(primary: &RedisServer, timeout: Duration) -> RedisStore {
    let store = RedisStore::connect(&primary.url()).await.unwrap();
    store.replicas(2, timeout)
}

fn enter(step: u32, phase: Phase) -> Event {
    Event::Enter {
        claim: claim(1),
        step,
        phase,
    }
}

/// The error of a transition that was applied, but not replicated to enough replicas.
#[track_caller]
fn assert_short(answer: Result<Answer, StoreError>) {
    let error = answer.unwrap_err();
    assert!(
        chain(&error).contains("1 of 2 replicas have it"),
        "{error:?}"
    );
    // The primary has the write: the error must not say that it was not applied.
    assert!(!error.is_refused() && !error.is_unreadable(), "{error:?}");
}

#[track_caller]
fn assert_held(answer: Result<Answer, StoreError>) {
    let answer = answer.unwrap();
    let Answer::Is(Some(RecordState::Locked { revision, .. })) = &answer else {
        panic!("{answer:?}");
    };
    assert_eq!(revision.lease, claim(1).lease);
}

#[tokio::test]
async fn store_conforms_to_protocol() {
    let (primary, _replicas) = replicated::<2>().await;
    let store = store(&primary, EVER).await;
    store_conformance(store, tokio::time::sleep).await;
}

#[tokio::test]
async fn dispatch_waits_for_every_replica() {
    let (primary, replicas) = replicated::<2>().await;
    let store = store(&primary, EVER).await;
    for number in 1..20 {
        let answer = apply(&store, number, acquire(1)).await.unwrap();
        assert_eq!(answer, Answer::Done);
        for replica in &replicas {
            let there: u32 = replica.command(&["EXISTS", &name(number).to_string()]);
            assert_eq!(there, 1);
        }
    }
}

/// Red if `WAIT` is left out, or sent on another connection, for any of the three ways into
/// `Dispatched`.
#[tokio::test]
async fn every_dispatch_waits_for_replicas() {
    let (primary, replicas) = replicated::<2>().await;
    let patient = store(&primary, EVER).await;
    apply(&patient, 2, acquire(1)).await.unwrap();
    let store = patient.clone().replicas(2, SHORT);
    // This is no transition into `Dispatched`, so the command does not wait.
    let claimed = apply(&store, 2, enter(1, Phase::Claimed)).await;
    assert_eq!(claimed.unwrap(), Answer::Done);
    // No other write is in transit: on another connection `WAIT` would return at once.
    in_step(&primary, 2).await;
    replicas[1].pause();

    assert_short(apply(&store, 1, acquire(1)).await);
    // The same acquire again, as after a lost reply, returns its own lease. The holder
    // extends it before it sends, and each attempt to extend waits.
    assert_held(apply(&store, 1, acquire(1)).await);
    assert_short(apply(&store, 1, extend(1)).await);
    assert_short(apply(&store, 1, extend(1)).await);
    assert_short(apply(&store, 2, enter(2, Phase::Dispatched)).await);
    assert_short(apply(&store, 2, enter(2, Phase::Dispatched)).await);
    // An absent record is written again.
    assert_short(apply(&store, 3, extend(1)).await);
    assert_short(apply(&store, 3, extend(1)).await);

    // The store reverts nothing: a request might have been sent.
    for number in 1..4 {
        let state = store.look(&name(number)).await.unwrap();
        let Some(RecordState::Locked { phase, .. }) = state else {
            panic!("{number}: {state:?}");
        };
        assert_eq!(phase, Phase::Dispatched);
    }
    replicas[1].resume();
    for number in 1..4 {
        let extended = apply(&patient, number, extend(1)).await.unwrap();
        assert_eq!(extended, Answer::Done);
    }
}

/// Red if `WAIT` uses the shared connection, or if a replay waits for replicas.
#[tokio::test]
async fn other_commands_wait_for_no_replicas() {
    let (primary, replicas) = replicated::<2>().await;
    let store = store(&primary, EVER).await;
    apply(&store, 1, complete(1, "{}")).await.unwrap();
    replicas[1].pause();
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { apply(&store, 2, acquire(1)).await }
    });
    eventually("the acquire waits for its replicas", async || {
        primary.blocked_clients() == 1
    })
    .await;
    let replay = timeout(Duration::from_secs(60), apply(&store, 1, acquire(2))).await;
    let replay = replay.expect("a replay waits for replicas").unwrap();
    assert!(
        matches!(replay, Answer::Is(Some(RecordState::Cached { .. }))),
        "{replay:?}"
    );
    assert!(store.look(&name(2)).await.unwrap().is_some());
    assert!(!waiting.is_finished());
    assert_eq!(primary.blocked_clients(), 1);
    replicas[1].resume();
    assert_eq!(waiting.await.unwrap().unwrap(), Answer::Done);
}

/// As many commands wait as there are connections for them; one more is refused.
///
/// Red if the refusal counts as a store that is down (without the arm of `waiting.busy` in
/// `ReplicaAcks::apply`). Red if a lease without a free connection is not extended (without
/// the arm of `waiting.unsent`, or `busy ||` in it). Red if such a lease counts as
/// replicated (with `Ok` instead of `Err(error)` there).
#[tokio::test]
async fn excess_command_waits_for_no_replica() {
    let (primary, replicas) = replicated::<2>().await;
    let store = store(&primary, EVER).await;
    apply(&store, 1, acquire(1)).await.unwrap();
    replicas[1].pause();
    let waiting: Vec<_> = (2..18)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move { apply(&store, number, acquire(1)).await })
        })
        .collect();
    eventually("all connections are in use", async || {
        primary.blocked_clients() == 16
    })
    .await;
    let busy = |answer: Result<Answer, StoreError>| {
        let error = answer.unwrap_err();
        assert!(
            chain(&error).contains("too many commands wait"),
            "{error:?}"
        );
        assert!(!error.is_refused() && !error.is_unreadable(), "{error:?}");
    };
    busy(apply(&store, 20, acquire(1)).await);
    assert_eq!(
        store.look(&name(20)).await.unwrap(),
        None,
        "nothing is sent"
    );
    let Some(RecordState::Locked {
        revision: before, ..
    }) = store.look(&name(1)).await.unwrap()
    else {
        panic!("not locked");
    };
    busy(apply(&store, 1, extend(1)).await);
    let Some(RecordState::Locked { revision, .. }) = store.look(&name(1)).await.unwrap() else {
        panic!("not locked");
    };
    assert_ne!(revision.rev, before.rev, "the lease was not extended");
    // For the key of another holder, the answer is still `NotHolder`.
    let late = apply(&store, 1, extend(7)).await.unwrap();
    assert_eq!(late, Answer::NotHolder);
    replicas[1].resume();
    for acquired in waiting {
        assert_eq!(acquired.await.unwrap().unwrap(), Answer::Done);
    }
}

#[tokio::test]
async fn idle_connections_are_reused() {
    let (primary, _replicas) = replicated::<2>().await;
    let store = store(&primary, EVER).await;
    let clients = || {
        let list: String = primary.command(&["CLIENT", "LIST", "TYPE", "normal"]);
        list.lines().count()
    };
    apply(&store, 1, acquire(1)).await.unwrap();
    let before = clients();
    for number in 2..20 {
        apply(&store, number, acquire(1)).await.unwrap();
    }
    assert_eq!(clients(), before);
}

#[tokio::test]
async fn missing_wait_right_is_reported() {
    let (primary, _replicas) = replicated::<2>().await;
    let user = ["app", "on", ">pw", "~*", "&*", "+@all", "-wait"];
    primary.command::<()>(&[&["ACL", "SETUSER"][..], &user].concat());
    let url = format!("redis://app:pw@127.0.0.1:{}", primary.port);
    let store = RedisStore::connect(&url).await.unwrap();
    let answer = apply(&store.replicas(2, EVER), 1, acquire(1)).await;
    let error = answer.unwrap_err();
    assert!(!error.is_refused(), "the command was applied: {error:?}");
    assert!(chain(&error).to_lowercase().contains("wait"), "{error:?}");
}

#[tokio::test]
async fn zero_replicas_wait_for_none() {
    let primary = RedisServer::start();
    let store = RedisStore::connect(&primary.url()).await.unwrap();
    let strict = store.replicas(1, SHORT);
    let error = apply(&strict, 1, acquire(1)).await.unwrap_err();
    assert!(
        chain(&error).contains("0 of 1 replicas have it"),
        "{error:?}"
    );
    let store = strict.replicas(0, SHORT);
    assert_eq!(apply(&store, 2, acquire(1)).await.unwrap(), Answer::Done);
}

/// Red if 0 is sent as the time, which means no limit (without `max(1)` in
/// `AckTransport::send`), or if the longest time is added to others (without
/// `min(MAX_ACK_TIMEOUT)` in `ReplicaAcks::new`).
#[tokio::test]
async fn wait_is_capped_at_one_day() {
    let (primary, _replicas) = replicated::<2>().await;
    let store = RedisStore::connect(&primary.url()).await.unwrap();
    let strict = store.clone().replicas(3, Duration::ZERO);
    let error = apply(&strict, 1, acquire(1)).await.unwrap_err();
    assert!(chain(&error).contains("of 3 replicas have it"), "{error:?}");
    let patient = store.replicas(2, Duration::MAX);
    assert_eq!(apply(&patient, 2, acquire(1)).await.unwrap(), Answer::Done);
}

/// Red if transitions that wait for replicas follow no redirection: they failed for a key
/// in a moving slot.
#[tokio::test]
async fn moving_slot_waits_for_replicas() {
    let cluster = RedisCluster::start().await;
    let store = RedisStore::cluster(cluster.urls()).await.unwrap();
    let store = store.replicas(1, EVER);
    let record = name(1).to_string();
    let (slot, from) = (
        cluster.slot(&record).to_string(),
        cluster.primary_of(&record),
    );
    let to = (from + 1) % 3;
    let set = |node: usize, state: &str, of: usize| {
        let id: String = cluster.nodes[of].command(&["CLUSTER", "MYID"]);
        cluster.nodes[node].command::<()>(&["CLUSTER", "SETSLOT", &slot, state, &id]);
    };
    set(to, "IMPORTING", from);
    set(from, "MIGRATING", to);
    assert_eq!(apply(&store, 1, acquire(1)).await.unwrap(), Answer::Done);
    assert_eq!(apply(&store, 1, extend(1)).await.unwrap(), Answer::Done);
    set(to, "NODE", to);
    set(from, "NODE", to);
    assert_eq!(apply(&store, 1, extend(1)).await.unwrap(), Answer::Done);
    let replica = (0..6).find(|node| {
        let info: String = cluster.nodes[*node].command(&["INFO", "replication"]);
        let port = format!("master_port:{}\r\n", cluster.nodes[to].port);
        info.contains(&port)
    });
    let mut there = cluster.nodes[replica.unwrap()].command::<Vec<String>>(&["KEYS", "*"]);
    there.retain(|key| *key == record);
    assert_eq!(there.len(), 1);
}

fn request(payload: &str) -> DataActionRequest {
    DataActionRequest::new("custom_-_refund", payload).unwrap()
}

/// Red if a request is sent without the replicas, or its lock is not released.
#[tokio::test]
async fn engine_sends_nothing_without_replicas() {
    let (primary, mut replicas) = replicated::<2>().await;
    let platform = ScriptedUpstream::new(|_| Step::ok("{}"));
    let engine = async |timeout| {
        let builder = Engine::builder(platform.clone()).store_timeout(Duration::from_secs(30));
        let builder = builder.store(store(&primary, timeout).await);
        builder.start().await.unwrap()
    };
    let (patient, hasty) = (engine(EVER).await, engine(SHORT).await);
    patient.execute(request("0")).await.unwrap();
    assert_eq!(platform.ledger().total(), 1);

    replicas[1].pause();
    // Many requests at once: this error does not open the breaker.
    let payloads = ["1", "2", "3", "4", "5"];
    let answers = join_all(payloads.map(|payload| hasty.execute(request(payload)))).await;
    for (payload, answer) in payloads.into_iter().zip(answers) {
        let error = answer.unwrap_err();
        assert!(matches!(error, Error::StoreUnavailable { .. }), "{error}");
        assert!(chain(&error).contains("1 of 2 replicas have it"), "{error}");
        let key = IdempotencyKey::of(&request(payload));
        // Released, without a refusal.
        assert_eq!(hasty.inspect(&key).await.unwrap(), None);
    }
    assert_eq!(platform.ledger().total(), 1);
    let reply = hasty.execute(request("0")).await.unwrap();
    assert_eq!(reply.served(), Served::Store);

    // A dead replica counts like a hung replica; a released key is acquired in two steps.
    replicas[1].kill();
    for payload in ["1", "6"] {
        let error = hasty.execute(request(payload)).await.unwrap_err();
        assert!(chain(&error).contains("1 of 2 replicas have it"), "{error}");
    }
    assert_eq!(platform.ledger().total(), 1);

    replicas[1].restart();
    in_step(&primary, 2).await;
    for (number, payload) in ["1", "6", "7"].into_iter().enumerate() {
        patient.execute(request(payload)).await.unwrap();
        assert_eq!(platform.ledger().total(), 2 + number);
    }
}
