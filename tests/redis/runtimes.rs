//! `connect` on runtimes without a driver or a free blocking thread. A store on runtimes that
//! end, or that are no longer driven.

use std::task::Poll;
use std::time::Duration;

use genesys_once::{RedisStore, Store};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::connect::unavailable;
use super::name;
use crate::support::eventually;
use crate::support::redis::RedisServer;
use crate::support::sentinel::{PRIMARY, RedisSentinel};

/// A runtime without a driver makes the client panic while it connects.
///
/// Red if the panic reaches the caller.
#[test]
fn client_panic_is_an_error() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().build().unwrap();
    let message = runtime.block_on(unavailable("redis://127.0.0.1:1"));
    assert!(message.contains("the redis client panicked"), "{message}");
}

/// Red if the runtime's blocking threads resolve names: no answer in time.
#[test]
fn name_lookup_needs_no_blocking_pool() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (free, busy) = std::sync::mpsc::channel::<()>();
    runtime.spawn_blocking(move || busy.recv());
    let message = runtime.block_on(unavailable("redis://localhost:1"));
    drop(free);
    // The address was found and refused the connection; no time-out was needed.
    assert!(message.contains("refused"), "{message}");
}

fn single() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Another runtime sends one command, and is then no longer driven.
///
/// Red if a connection is made on the runtime of the first caller, and an attempt never
/// counts as stuck: all other callers wait for it without end.
#[test]
fn reconnect_runs_on_store_runtime() {
    let server = RedisServer::start();
    let (home, visitor) = (Runtime::new().unwrap(), single());
    let store = home.block_on(RedisStore::connect(&server.url())).unwrap();
    server.pause();
    // The first look gives up the connection, the second begins to connect.
    for _ in 0..2 {
        visitor.block_on(store.look(&name(1))).unwrap_err();
    }
    server.resume();
    home.block_on(eventually("the store is back", async || {
        store.look(&name(1)).await.is_ok()
    }));
    drop(visitor);
}

/// Red if the subscriber runs on the runtime of the first waiter.
#[test]
fn stopped_waiter_blocks_no_notification() {
    let server = RedisServer::start();
    let (home, visitor) = (Runtime::new().unwrap(), single());
    let store = home.block_on(RedisStore::connect(&server.url())).unwrap();
    // Drives the waiter until it is listed, and no further.
    visitor.block_on(async {
        let one = name(1);
        let mut waiting = store.changed(&one);
        std::future::poll_fn(|context| {
            let _ = waiting.as_mut().poll(context);
            Poll::Ready(())
        })
        .await;
    });
    let two = name(2);
    let confirmed = async { timeout(Duration::from_secs(60), store.changed(&two)).await };
    home.block_on(confirmed).expect("the channel is subscribed");
    drop(visitor);
}

#[test]
fn store_outlives_its_runtime() {
    let server = RedisServer::start();
    let home = Runtime::new().unwrap();
    let store = home.block_on(RedisStore::connect(&server.url())).unwrap();
    drop(home);
    let visitor = single();
    visitor.block_on(eventually("the store connects again", async || {
        store.look(&name(1)).await.is_ok()
    }));
    let waiting = async { timeout(Duration::from_secs(60), store.changed(&name(1))).await };
    visitor
        .block_on(waiting)
        .expect("the channel is subscribed");
}

/// Red if the task that follows the sentinels ends with the first runtime (without
/// `sentinels.follow()` in `PrimaryConnector::open`, or without `is_finished()` in
/// `Sentinels::follow`): the store would not learn that a primary was replaced.
#[test]
fn sentinel_task_moves_to_next_runtime() {
    let (home, visitor) = (Runtime::new().unwrap(), single());
    let set_up = visitor.block_on(RedisSentinel::start());
    let store = home.block_on(RedisStore::sentinel(set_up.urls(), PRIMARY));
    let store = store.unwrap();
    let listeners = || {
        let listens = |sentinel: &&RedisServer| {
            let clients: String = sentinel.command(&["CLIENT", "LIST", "TYPE", "pubsub"]);
            clients.contains(" sub=1 ")
        };
        set_up.sentinels.iter().filter(listens).count()
    };
    home.block_on(eventually("the store is subscribed", async || {
        listeners() == 3
    }));
    drop(home);
    visitor.block_on(async {
        eventually("no channel is subscribed", async || listeners() == 0).await;
        eventually("the store connects again", async || {
            store.look(&name(1)).await.is_ok()
        })
        .await;
        eventually("the store is subscribed again", async || listeners() == 3).await;
    });
}
