//! Transfers of large bodies, which are stored separately: on separate connections, a few at
//! once, and with a limit on inactivity.

use std::time::Duration;

use genesys_once::error::{RefusalKind, StoreError};
use genesys_once::outcome::StoredBody;
use genesys_once::record::{Answer, Event};
use genesys_once::{RedisStore, Store};
use tokio::time::timeout;

use super::large_bodies::{LARGE, body, body_key, clients, replay};
use super::limited_proxy::Narrow;
use super::{acquire, apply, chain, claim, complete, name};
use crate::support::eventually;
use crate::support::redis::{Options, RedisServer};

/// Longer than a busy machine needs.
const EVER: Duration = Duration::from_secs(600);

/// Transfers that stop block no other command.
///
/// Red if bodies use the shared connection, or if more bodies are in transfer than allowed.
#[tokio::test]
async fn large_replays_block_no_commands() {
    let server = RedisServer::start();
    let direct = RedisStore::connect(&server.url()).await.unwrap();
    for number in 1..4 {
        apply(&direct, number, complete(1, &body(number)))
            .await
            .unwrap();
    }
    // For now, no connection delivers a whole body.
    let narrow = Narrow::start(server.port).await;
    narrow.bring_at_most(100_000);
    let store = RedisStore::connect(&narrow.url()).await.unwrap();
    let store = store.max_replay_bytes(LARGE + LARGE / 2);
    let replays: Vec<_> = (1..4)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move { replay(&store, number).await })
        })
        .collect();
    eventually("a body is in transfer", async || narrow.stopped() > 0).await;
    for number in 10..60 {
        let acquired = timeout(EVER, apply(&store, number, acquire(1))).await;
        assert_eq!(acquired.unwrap().unwrap(), Answer::Done);
    }
    assert_eq!(
        narrow.stopped(),
        1,
        "two bodies exceed the limit on transfers"
    );
    assert!(replays.iter().all(|replay| !replay.is_finished()));
    narrow.bring_at_most(usize::MAX);
    for (replay, number) in replays.into_iter().zip(1..) {
        let (stored_body, outcome) = timeout(EVER, replay).await.unwrap().unwrap();
        assert!(stored_body == StoredBody::Full && *outcome.body() == body(number));
    }
}

/// A proxy between engine and server cuts long transfers.
///
/// Red if a body is sent again without a limit on attempts.
#[tokio::test]
async fn body_is_sent_three_times() {
    let server = RedisServer::start();
    let narrow = Narrow::start(server.port).await;
    let store = RedisStore::connect(&narrow.url()).await.unwrap();
    apply(&store, 1, acquire(1)).await.unwrap();
    narrow.cut_after(100_000);
    let send = async || apply(&store, 1, complete(1, &body(1))).await.unwrap_err();
    for _ in 0..3 {
        let error = send().await;
        assert!(!error.is_refused() && !error.is_unreadable(), "{error:?}");
    }
    for _ in 0..2 {
        assert_eq!(send().await.refusal(), Some(RefusalKind::TooLarge));
    }
    assert_eq!(narrow.cut(), 3);
    // The outcome without its body is accepted, and other commands go on.
    let mut reduced = complete(1, "");
    if let Event::Complete { stored, .. } = &mut reduced {
        stored.body = StoredBody::OmittedTooLarge;
    }
    assert_eq!(apply(&store, 1, reduced).await.unwrap(), Answer::Done);
}

/// A server that is reachable and accepts no such value from any client.
#[tokio::test]
async fn refused_body_is_omitted() {
    let server = Options::default().set("proto-max-bulk-len", "1mb").start();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    apply(&store, 1, acquire(1)).await.unwrap();
    let long = "x".repeat(2 << 20);
    let mut refused: Option<StoreError> = None;
    for _ in 0..4 {
        let error = apply(&store, 1, complete(1, &long)).await.unwrap_err();
        refused = Some(error).filter(StoreError::is_refused);
    }
    let refused = refused.expect("the body is sent again without a limit");
    assert_eq!(
        refused.refusal(),
        Some(RefusalKind::TooLarge),
        "{refused:?}"
    );
    assert!(chain(&refused).contains("not accepted"), "{refused:?}");
}

/// Each part arrives, and the body is removed before its record names it.
///
/// Red if a body counts as recorded once its server has all of it (it was sent again
/// without a limit), or if the attempts of a recorded body still count: the last loop was
/// refused.
#[tokio::test]
async fn vanishing_body_is_sent_three_times() {
    let server = RedisServer::start();
    let narrow = Narrow::start(server.port).await;
    let store = RedisStore::connect(&narrow.url()).await.unwrap();
    let key = body_key(1, claim(1).lease);
    // The server knows the script from now on.
    apply(&store, 2, complete(1, "{}")).await.unwrap();
    apply(&store, 1, acquire(1)).await.unwrap();
    narrow.lose(Some(&key));
    server.command::<()>(&["CONFIG", "RESETSTAT"]);
    let send = async || apply(&store, 1, complete(1, &body(1))).await.unwrap_err();
    for _ in 0..3 {
        let error = send().await;
        assert!(chain(&error).contains("the body was removed"), "{error:?}");
        assert!(!error.is_refused() && !error.is_unreadable(), "{error:?}");
    }
    let parts = || server.calls().into_iter().find(|(name, _)| name == "eval");
    let sent = parts();
    assert!(sent.is_some());
    for _ in 0..2 {
        assert_eq!(send().await.refusal(), Some(RefusalKind::TooLarge));
    }
    assert_eq!(parts(), sent);

    narrow.lose(None);
    for _ in 0..5 {
        let answer = apply(&store, 3, complete(1, &body(3))).await;
        assert_eq!(answer.unwrap(), Answer::Done);
        let (record, key) = (name(3).to_string(), body_key(3, claim(1).lease));
        server.command::<()>(&["DEL", &record, &key]);
    }
}

/// When the shared connection is replaced, the address might belong to another server.
///
/// Red if an idle connection is used after the shared one was replaced.
#[tokio::test]
async fn pooled_connection_follows_shared_one() {
    let server = RedisServer::start();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    apply(&store, 1, complete(1, &body(1))).await.unwrap();
    replay(&store, 1).await;
    // Two commands: after them the server knows the script.
    for _ in 0..2 {
        store.look(&name(9)).await.unwrap();
    }
    let [shared, apart] = ["evalsha", "getrange"].map(|last| clients(&server, last));
    assert_eq!((shared.len(), apart.len()), (1, 1), "{shared:?} {apart:?}");
    let id = shared[0].strip_prefix("id=").unwrap();
    server.command::<u32>(&["CLIENT", "KILL", "ID", id]);
    eventually("another shared connection is made", async || {
        let looked = store.look(&name(9)).await;
        let now = clients(&server, "evalsha");
        looked.is_ok() && !now.is_empty() && now != shared
    })
    .await;
    let (stored_body, outcome) = replay(&store, 1).await;
    assert!(stored_body == StoredBody::Full && *outcome.body() == body(1));
    assert_ne!(clients(&server, "getrange"), apart);
}
