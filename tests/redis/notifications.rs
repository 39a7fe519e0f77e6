//! Notifications for waiters in other processes, and that nothing is left without waiters.

use std::task::Poll;
use std::time::Duration;

use genesys_once::{RedisStore, Store};
use tokio::time::timeout;

use super::{acquire, apply, complete, name};
use crate::support::eventually;
use crate::support::redis::RedisServer;

const SOON: Duration = Duration::from_secs(5);
const QUIET: Duration = Duration::from_millis(300);

/// Waits until the server has confirmed the subscription, which wakes the waiter once,
/// since it might have missed earlier changes.
async fn subscribe(store: &RedisStore, number: u8) {
    timeout(SOON, store.changed(&name(number))).await.unwrap();
}

fn subscribers(server: &RedisServer, number: u8) -> u64 {
    let channel = name(number).to_string();
    let (_, count): (String, u64) = server.command(&["PUBSUB", "NUMSUB", &channel]);
    count
}

fn connections(server: &RedisServer) -> usize {
    server
        .command::<String>(&["CLIENT", "LIST"])
        .lines()
        .count()
        - 1
}

#[tokio::test]
async fn change_in_other_process_wakes_waiter() {
    let server = RedisServer::start();
    let here = RedisStore::connect(&server.url()).await.unwrap();
    let there = RedisStore::connect(&server.url()).await.unwrap();
    apply(&there, 1, acquire(1)).await.unwrap();
    subscribe(&here, 1).await;
    subscribe(&here, 2).await;

    let (one, two) = (name(1), name(2));
    let (mut first, mut second, mut other) =
        (here.changed(&one), here.changed(&one), here.changed(&two));
    std::future::poll_fn(|context| {
        for waiter in [&mut first, &mut second, &mut other] {
            assert!(waiter.as_mut().poll(context).is_pending());
        }
        Poll::Ready(())
    })
    .await;
    // An extended lease sends no notification.
    apply(&there, 1, super::extend(1)).await.unwrap();
    assert!(timeout(QUIET, &mut first).await.is_err());

    apply(&there, 1, complete(1, "{}")).await.unwrap();
    timeout(SOON, first).await.unwrap();
    timeout(SOON, second).await.unwrap();
    assert!(timeout(QUIET, other).await.is_err());
}

/// A server counts a connection that listens as a client of pub/sub, and closes it if its
/// replies exceed `client-output-buffer-limit pubsub`.
///
/// Red if notifications use the connection of the commands.
#[tokio::test]
async fn notifications_use_separate_connection() {
    let server = RedisServer::start();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let listening = || -> usize {
        let clients: String = server.command(&["CLIENT", "LIST", "TYPE", "pubsub"]);
        clients.lines().count()
    };
    apply(&store, 1, acquire(1)).await.unwrap();
    assert_eq!((connections(&server), listening()), (1, 0), "before a wait");
    subscribe(&store, 1).await;
    assert_eq!((connections(&server), listening()), (2, 1));
    // Closing that connection does not affect the commands.
    let limits = "normal 0 0 0 replica 0 0 0 pubsub 1kb 0 0";
    server.command::<()>(&["CONFIG", "SET", "client-output-buffer-limit", limits]);
    let body = "x".repeat(1 << 20);
    apply(&store, 1, complete(1, &body)).await.unwrap();
    let looks = [(); 5].map(|()| apply(&store, 1, acquire(2)));
    for answer in futures_util::future::join_all(looks).await {
        answer.unwrap();
    }
}

#[tokio::test]
async fn channels_without_waiters_are_unsubscribed() {
    let server = RedisServer::start();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    subscribe(&store, 1).await;
    let name = name(2);
    let mut kept = store.changed(&name);
    let mut woken = false;
    eventually("the first subscription is gone", async || {
        woken |= timeout(Duration::from_millis(1), &mut kept).await.is_ok();
        if woken {
            kept = store.changed(&name);
            woken = false;
        }
        subscribers(&server, 1) == 0
    })
    .await;
    assert_eq!(
        subscribers(&server, 2),
        1,
        "the second channel still has a waiter"
    );
}

#[tokio::test]
async fn reconnect_wakes_waiters_and_resubscribes() {
    let mut server = RedisServer::start();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    subscribe(&store, 1).await;
    let one = name(1);
    let waiting = store.changed(&one);
    tokio::pin!(waiting);
    assert!(timeout(QUIET, &mut waiting).await.is_err());
    server.restart();
    timeout(SOON, waiting).await.unwrap();

    let waiting = store.changed(&one);
    tokio::pin!(waiting);
    assert!(timeout(QUIET, &mut waiting).await.is_err());
    apply(&store, 1, complete(1, "{}")).await.unwrap();
    timeout(SOON, waiting).await.unwrap();
}

#[tokio::test]
async fn last_clone_ends_tasks_and_connections() {
    let server = RedisServer::start();
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let before = tasks();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let clone = store.clone();
    subscribe(&clone, 1).await;
    let name = name(1);
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.changed(&super::name(7)).await }
    });
    assert!(timeout(QUIET, clone.changed(&name)).await.is_err());
    // One connection for commands, one for notifications.
    assert_eq!(connections(&server), 2);
    drop(store);
    waiting.abort();
    let _ = waiting.await;
    apply(&clone, 1, acquire(1)).await.unwrap();
    drop(clone);
    eventually("the connection is closed", async || {
        connections(&server) == 0
    })
    .await;
    eventually("no task is left", async || tasks() == before).await;
}
