//! A real Sentinel set-up: primaries that die, hang, or are replaced while isolated,
//! sentinels that do not answer, and logins for both kinds. Sentinels that disagree are in
//! `sentinel_votes`.

use std::time::Duration;

use genesys_once::record::{Answer, RecordState};
use genesys_once::testing::store_conformance;
use genesys_once::{Error, RedisStore, Store};
use tokio::time::timeout;

use super::fake_server::FakeServer;
use super::{acquire, apply, chain, claim, complete, extend, name};
use crate::support::redis::{Options, RedisServer};
use crate::support::sentinel::{PRIMARY, RedisSentinel};
use crate::support::{eventually, eventually_within};

/// Longer than a busy machine needs.
const EVER: Duration = Duration::from_secs(600);

/// The store's own deadline, with a large margin.
pub const IN_TIME: Duration = Duration::from_secs(10);

/// The time within which the store finds a new primary.
const RECOVERY: Duration = Duration::from_secs(60);

async fn connect(set_up: &RedisSentinel) -> RedisStore {
    RedisStore::sentinel(set_up.urls(), PRIMARY).await.unwrap()
}

pub fn is_cached(answer: &Answer) -> bool {
    matches!(answer, Answer::Is(Some(RecordState::Cached { .. })))
}

pub fn has(server: &RedisServer, number: u8) -> bool {
    server.command(&["EXISTS", &name(number).to_string()])
}

#[tokio::test]
async fn store_conforms_and_notifies() {
    let set_up = RedisSentinel::start().await;
    let store = connect(&set_up).await;
    assert_eq!(store.durability().replicas, Some(2));
    let one = name(77);
    timeout(IN_TIME, store.changed(&one)).await.unwrap();
    let waiting = store.changed(&one);
    tokio::pin!(waiting);
    let quiet = timeout(Duration::from_millis(300), &mut waiting).await;
    assert!(quiet.is_err());
    let there = connect(&set_up).await;
    apply(&there, 77, complete(1, "{}")).await.unwrap();
    timeout(IN_TIME, waiting).await.unwrap();
    store_conformance(store.clone(), tokio::time::sleep).await;
}

/// Red if the store keeps using its first server.
#[tokio::test]
async fn dead_primary_is_replaced() {
    let mut set_up = RedisSentinel::start().await;
    let store = connect(&set_up).await.replicas(2, EVER);
    apply(&store, 1, acquire(1)).await.unwrap();
    let one = name(1);
    timeout(IN_TIME, store.changed(&one)).await.unwrap();
    let waiting = store.changed(&one);
    tokio::pin!(waiting);
    let quiet = timeout(Duration::from_millis(300), &mut waiting).await;
    assert!(quiet.is_err());

    set_up.servers[0].kill();
    for _ in 0..3 {
        let lost = timeout(IN_TIME, store.look(&one)).await.unwrap();
        let error = lost.unwrap_err();
        assert!(!error.is_refused() && !error.is_unreadable(), "{error:?}");
    }
    set_up.stable().await;
    // The waiter is woken to read again, without any command.
    timeout(RECOVERY, waiting).await.unwrap();
    let store = store.clone().replicas(1, EVER);
    let mut extended = None;
    eventually_within(RECOVERY, "the new primary is found", async || {
        extended = apply(&store, 1, extend(1)).await.ok();
        extended.is_some()
    })
    .await;
    // Both replicas had the lock, so that its holder goes on.
    assert_eq!(extended, Some(Answer::Done));
    let Some(RecordState::Locked { revision, .. }) = store.look(&one).await.unwrap() else {
        panic!("the lock is forgotten");
    };
    assert_eq!(revision.lease, claim(1).lease);
    assert_eq!(apply(&store, 2, acquire(1)).await.unwrap(), Answer::Done);
    assert!(has(&set_up.servers[set_up.primary()], 2));
}

/// Red if a command for a hung server hangs, or if the store keeps using that server.
#[tokio::test]
async fn hung_primary_is_replaced() {
    let set_up = RedisSentinel::start().await;
    let store = connect(&set_up).await;
    apply(&store, 1, acquire(1)).await.unwrap();
    set_up.servers[0].pause();
    let lost = timeout(IN_TIME, apply(&store, 1, extend(1))).await.unwrap();
    let error = lost.unwrap_err();
    assert!(chain(&error).contains("within 2 s"), "{error:?}");
    set_up.stable().await;
    eventually_within(RECOVERY, "the new primary is found", async || {
        let extended = timeout(IN_TIME, apply(&store, 1, extend(1))).await;
        matches!(extended.unwrap(), Ok(Answer::Done))
    })
    .await;
    set_up.servers[0].resume();
    // The hung server becomes a replica; all commands go to the new primary.
    for number in 2..100 {
        assert_eq!(
            apply(&store, number, acquire(1)).await.unwrap(),
            Answer::Done
        );
    }
    set_up.stable().await;
    assert!((2..100).all(|number| has(&set_up.servers[set_up.primary()], number)));
}

/// The old primary does not know the new one and accepts every write, which is then lost.
/// Red if the sentinels are asked only after a failure.
#[tokio::test]
async fn isolated_old_primary_is_abandoned() {
    let set_up = RedisSentinel::start().await;
    let store = connect(&set_up).await;
    apply(&store, 1, acquire(1)).await.unwrap();
    // The sentinels can no longer make the old primary a replica, nor close the store's
    // connection.
    let deaf = ["ACL", "SETUSER", "default", "-replicaof", "-slaveof"];
    set_up.servers[0].command::<()>(&deaf);
    set_up.sentinels[0].command::<()>(&["SENTINEL", "FAILOVER", PRIMARY]);
    eventually_within(RECOVERY, "the sentinels have a new primary", async || {
        set_up.primary() != 0
    })
    .await;
    let role: Vec<redis::Value> = set_up.servers[0].command(&["ROLE"]);
    assert_eq!(role[0], redis::Value::BulkString(b"master".into()));
    let new = &set_up.servers[set_up.primary()];
    let mut number = 1;
    eventually("writes go to the new primary", async || {
        number += 1;
        apply(&store, number, acquire(1)).await.unwrap();
        has(new, number)
    })
    .await;
    // No write goes to the old primary again.
    for number in 100..150 {
        apply(&store, number, acquire(1)).await.unwrap();
        assert!(has(new, number) && !has(&set_up.servers[0], number));
    }
}

/// A single sentinel is enough for a server that most sentinels named before, and for the
/// first server of a store without a password.
#[tokio::test]
async fn known_primary_needs_one_sentinel() {
    let mut set_up = RedisSentinel::start().await;
    let store = connect(&set_up).await;
    assert_eq!(apply(&store, 1, acquire(1)).await.unwrap(), Answer::Done);
    set_up.sentinels[0].kill();
    set_up.sentinels[1].pause();
    set_up.servers[0].command::<()>(&["CLIENT", "KILL", "TYPE", "normal"]);
    eventually("a new connection is made", async || {
        apply(&store, 1, extend(1)).await.is_ok()
    })
    .await;
    let fresh = connect(&set_up).await;
    assert_eq!(apply(&fresh, 1, extend(1)).await.unwrap(), Answer::Done);
    set_up.sentinels[1].resume();
}

/// After a reset the configuration of the sentinels starts at epoch 0 again. Red if a
/// remembered epoch counts more than the answers of all sentinels: the store would be down
/// until it is made again.
#[tokio::test]
async fn reset_sentinels_are_followed() {
    let set_up = RedisSentinel::start().await;
    set_up.sentinels[0].command::<()>(&["SENTINEL", "FAILOVER", PRIMARY]);
    eventually_within(RECOVERY, "the sentinels have a new primary", async || {
        set_up.primary() != 0
    })
    .await;
    set_up.stable().await;
    let store = connect(&set_up).await;
    assert_eq!(apply(&store, 1, acquire(1)).await.unwrap(), Answer::Done);
    let now = &set_up.servers[set_up.primary()];
    let port = now.port.to_string();
    for sentinel in &set_up.sentinels {
        sentinel.command::<()>(&["SENTINEL", "REMOVE", PRIMARY]);
        sentinel.command::<()>(&["SENTINEL", "MONITOR", PRIMARY, "127.0.0.1", &port, "2"]);
    }
    now.command::<()>(&["CLIENT", "KILL", "TYPE", "normal"]);
    eventually("a new connection is made", async || {
        apply(&store, 1, extend(1)).await.is_ok()
    })
    .await;
}

/// Red if the store only polls the sentinels.
#[tokio::test]
async fn sentinel_notification_moves_store() {
    let set_up = RedisSentinel::start().await;
    let store = connect(&set_up).await;
    eventually("the store is subscribed to all sentinels", async || {
        set_up.sentinels.iter().all(|sentinel| {
            let clients: String = sentinel.command(&["CLIENT", "LIST", "TYPE", "pubsub"]);
            clients.contains(" sub=1 ")
        })
    })
    .await;
    drop(store);
}

/// A replica during a fail-over. Red if the store does not ask the server for its role.
#[tokio::test]
async fn replica_is_never_used_as_primary() {
    let primary = RedisServer::start();
    let mut replica = Options::default().replica_of(&primary).start();
    let sentinel = FakeServer::sentinel(1, replica.port).await;
    let connect = async || RedisStore::sentinel([sentinel.url()], PRIMARY).await;
    let error = connect().await.unwrap_err();
    assert!(matches!(error, Error::StoreUnavailable { .. }), "{error:?}");
    assert!(chain(&error).contains("is a replica"), "{error:?}");

    // The server is promoted; then a restart breaks the connection and makes it a replica
    // again.
    replica.command::<()>(&["REPLICAOF", "NO", "ONE"]);
    let store = connect().await.unwrap();
    assert_eq!(apply(&store, 1, acquire(1)).await.unwrap(), Answer::Done);
    replica.restart();
    let mut seen = String::new();
    eventually("a new connection is refused", async || {
        let error = store.look(&name(1)).await.unwrap_err();
        seen = chain(&error);
        seen.contains("is a replica")
    })
    .await;
}

#[tokio::test]
async fn last_clone_ends_tasks_and_connections() {
    let set_up = RedisSentinel::start().await;
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let before = tasks();
    let named = |server: &RedisServer| {
        let clients: String = server.command(&["CLIENT", "LIST", "TYPE", "normal"]);
        clients.matches("cmd=sentinel").count()
    };
    let store = connect(&set_up).await;
    timeout(IN_TIME, store.changed(&name(1))).await.unwrap();
    assert!(tasks() > before);
    eventually("the sentinels are asked", async || {
        set_up.sentinels.iter().all(|sentinel| named(sentinel) == 1)
    })
    .await;
    drop(store);
    eventually("the connections are closed", async || {
        set_up.sentinels.iter().all(|sentinel| named(sentinel) == 0)
    })
    .await;
    eventually("no task is left", async || tasks() == before).await;
}

#[tokio::test]
async fn sentinels_and_servers_have_separate_logins() {
    let data = Options::default()
        .password("data pw")
        .set("masterauth", "data pw");
    let watcher = Options::default().password("sentinel-pw");
    let settings = [("auth-pass", "\"data pw\"")];
    let set_up = RedisSentinel::start_with(data, watcher, &settings).await;
    // The guard's own URLs name the sentinels' password.
    let primary = format!("redis://:data%20pw@{PRIMARY}/3");
    let store = RedisStore::sentinel(set_up.urls(), &primary).await.unwrap();
    assert_eq!(apply(&store, 1, acquire(1)).await.unwrap(), Answer::Done);
    let keyspace: String = set_up.servers[0].command(&["INFO", "keyspace"]);
    assert!(keyspace.contains("db3:keys=1"), "{keyspace}");
    assert!(!format!("{store:?}").contains("pw"), "{store:?}");

    for (urls, primary, reason) in [
        (
            set_up.urls(),
            PRIMARY.to_owned(),
            "the server refuses this user name or password",
        ),
        (
            set_up.urls(),
            format!("redis://:hunter2@{PRIMARY}"),
            "the server refuses this user name or password",
        ),
        (
            set_up.urls(),
            format!("redis://{PRIMARY}"),
            "the server wants a password, and the url has none",
        ),
    ] {
        let reason = format!(
            "the primary {PRIMARY:?}, 127.0.0.1:{}: {reason}",
            set_up.servers[0].port
        );
        assert_eq!(
            super::connect::invalid_sentinel(&urls, &primary).await,
            reason
        );
    }
    for (login, reason) in [
        ("", "the server wants a password, and the url has none"),
        (":hunter2@", "the server refuses this user name or password"),
    ] {
        let port = set_up.sentinels[0].port;
        let urls = [format!("redis://{login}127.0.0.1:{port}")];
        let reason = format!("the sentinel 127.0.0.1:{port}: {reason}");
        assert_eq!(
            super::connect::invalid_sentinel(&urls, &primary).await,
            reason
        );
    }
}
