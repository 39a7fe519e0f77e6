//! A server that dies, hangs, or comes back: every command ends in time with a precise
//! error, and the next one finds the server again.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use genesys_once::record::{Answer, RecordState};
use genesys_once::{RedisStore, Store};
use tokio::time::timeout;

use super::{acquire, apply, chain, complete, extend, name};
use crate::support::eventually;
use crate::support::redis::{Options, RedisServer};

/// The store's own deadline, with a margin for a busy machine.
const DEADLINE: Duration = Duration::from_millis(3000);

#[tokio::test]
async fn dead_server_fails_fast_and_reconnects() {
    let mut server = Options::default().append_only().start();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    apply(&store, 1, acquire(1)).await.unwrap();
    server.kill();
    for _ in 0..3 {
        let begun = Instant::now();
        let error = apply(&store, 1, extend(1)).await.unwrap_err();
        assert!(!error.is_refused() && !error.is_unreadable(), "{error:?}");
        assert!(
            begun.elapsed() < Duration::from_secs(1),
            "{:?}",
            begun.elapsed()
        );
    }
    // Many commands at once do not wait for each other.
    let begun = Instant::now();
    let answers = join_all((0..200).map(|_| apply(&store, 1, extend(1)))).await;
    assert!(answers.iter().all(Result::is_err));
    assert!(begun.elapsed() < DEADLINE, "{:?}", begun.elapsed());

    server.restart();
    // No extra command is needed first: the first command succeeds.
    assert_eq!(apply(&store, 1, extend(1)).await.unwrap(), Answer::Done);
    assert_eq!(
        apply(&store, 1, complete(1, "{}")).await.unwrap(),
        Answer::Done
    );
}

#[tokio::test]
async fn server_killed_under_load_answers_all_waiters() {
    let mut server = Options::default().append_only().start();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let load = tokio::spawn({
        let store = store.clone();
        async move {
            let worker = async |number: u8| {
                let begun = Instant::now();
                let mut slowest = Duration::ZERO;
                while begun.elapsed() < Duration::from_secs(2) {
                    let sent = Instant::now();
                    let _ = apply(&store, number, extend(1)).await;
                    slowest = slowest.max(sent.elapsed());
                    tokio::task::yield_now().await;
                }
                slowest
            };
            join_all((0..32).map(worker))
                .await
                .into_iter()
                .max()
                .unwrap()
        }
    });
    eventually("the load has begun", async || {
        store.look(&name(31)).await.unwrap().is_some()
    })
    .await;
    server.kill();
    server.restart();
    let slowest = load.await.unwrap();
    assert!(slowest < DEADLINE, "{slowest:?}");
    apply(&store, 1, extend(1)).await.unwrap();
}

#[tokio::test]
async fn hanging_server_times_out_and_reconnects() {
    let server = RedisServer::start();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    apply(&store, 1, acquire(1)).await.unwrap();
    server.pause();
    for _ in 0..2 {
        let begun = Instant::now();
        let answers = join_all((0..20).map(|_| apply(&store, 1, extend(1)))).await;
        for answer in answers {
            let error = answer.unwrap_err();
            assert!(chain(&error).contains("within 2 s"), "{error:?}");
        }
        assert!(begun.elapsed() < DEADLINE, "{:?}", begun.elapsed());
    }
    server.resume();
    let begun = Instant::now();
    eventually("the server is found again", async || {
        apply(&store, 1, extend(1)).await.is_ok()
    })
    .await;
    assert!(begun.elapsed() < DEADLINE, "{:?}", begun.elapsed());
}

/// The command that timed out might have been applied: its caller finds out.
#[tokio::test]
async fn lost_reply_is_followed_up() {
    let server = RedisServer::start();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    server.pause();
    let error = apply(&store, 1, acquire(1)).await.unwrap_err();
    assert!(!error.is_refused(), "its fate is unknown: {error:?}");
    server.resume();
    eventually("the record says what happened", async || {
        match apply(&store, 1, acquire(1)).await {
            // Either the first acquire was applied, and this is its lease; or it was not,
            // and this acquire was applied.
            Ok(Answer::Done) => true,
            Ok(Answer::Is(Some(RecordState::Locked { revision, .. }))) => {
                revision.lease == super::claim(1).lease
            }
            _ => false,
        }
    })
    .await;
}

/// The engine's own deadline might be shorter: dropped commands count. Red if
/// `AbandonedCommandGuard` ignores a dropped command.
#[tokio::test]
async fn dropped_commands_still_replace_connection() {
    let server = RedisServer::start();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    apply(&store, 1, acquire(1)).await.unwrap();
    let client = |server: &RedisServer| -> String {
        let clients: String = server.command(&["CLIENT", "LIST", "TYPE", "normal"]);
        // The store itself may send commands, so the last command does not identify its
        // connection.
        let is_ours = |line: &&str| line.contains("resp=3");
        let ours = clients.lines().find(is_ours).expect("a connection of ours");
        ours.split(' ').next().unwrap().to_owned()
    };
    let before = client(&server);
    server.pause();
    for _ in 0..3 {
        let short = Duration::from_millis(150);
        assert!(timeout(short, apply(&store, 1, extend(1))).await.is_err());
    }
    server.resume();
    eventually("a command gets through", async || {
        matches!(
            timeout(DEADLINE, apply(&store, 1, extend(1))).await,
            Ok(Ok(_))
        )
    })
    .await;
    assert_ne!(client(&server), before);
}

/// A caller that gives up does not end the connect attempt of the others.
#[tokio::test]
async fn callers_share_one_connect_attempt() {
    let mut server = RedisServer::start();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    server.restart();
    // This command makes the store notice the restart.
    let _ = apply(&store, 1, acquire(1)).await;
    let connections = || -> u64 {
        let info: String = server.command(&["INFO", "stats"]);
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix("total_connections_received:"));
        line.unwrap().trim().parse().unwrap()
    };
    let before = connections();
    let answers = join_all((1..101).map(|number| apply(&store, number, acquire(1)))).await;
    assert!(
        answers
            .iter()
            .all(|answer| matches!(answer, Ok(Answer::Done))),
        "{answers:?}"
    );
    // Each call of `connections` opens a connection, too.
    assert_eq!(connections() - before, 2);
}
