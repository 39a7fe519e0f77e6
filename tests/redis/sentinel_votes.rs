//! Sentinels that disagree on which server is the primary.

use genesys_once::record::Answer;
use genesys_once::{RedisStore, Store};
use tokio::time::timeout;

use super::fake_server::FakeServer;
use super::sentinel::{IN_TIME, has, is_cached};
use super::{acquire, apply, chain, complete, extend, name};
use crate::support::eventually;
use crate::support::redis::{Options, RedisServer};
use crate::support::sentinel::PRIMARY;

/// Each of three sentinels names another server, so the new primary is unknown.
///
/// Red if the previous primary is used although sentinels name others (without `*count ==
/// answered` in `Sentinels::ask_all`): it was used again.
#[tokio::test]
async fn contested_primary_is_refused() {
    let (old, new) = (RedisServer::start(), RedisServer::start());
    let sentinels = [
        FakeServer::sentinel(1, old.port).await,
        FakeServer::sentinel(1, old.port).await,
        FakeServer::sentinel(1, old.port).await,
    ];
    let urls = sentinels.each_ref().map(FakeServer::url);
    let store = RedisStore::sentinel(&urls, PRIMARY).await.unwrap();
    assert_eq!(apply(&store, 1, acquire(1)).await.unwrap(), Answer::Done);
    sentinels[1].name_primary(2, new.port);
    sentinels[2].name_primary(3, 1);
    old.command::<()>(&["CLIENT", "KILL", "TYPE", "normal"]);
    let mut seen = String::new();
    eventually("a new connection is refused", async || {
        let error = store.look(&name(1)).await.unwrap_err();
        seen = chain(&error);
        seen.contains("too few sentinels agree")
    })
    .await;
    assert!(seen.contains("1 of 3 name"), "{seen}");
    // Most of the sentinels are enough.
    sentinels[0].name_primary(2, new.port);
    eventually("the new primary is found", async || {
        apply(&store, 2, acquire(1)).await.is_ok()
    })
    .await;
    assert!(has(&new, 2) && !has(&old, 2));
}

/// The sentinels name another primary without a notification: none accepts a subscription.
///
/// Red if the sentinels are asked only after a notification (without
/// `sleep(CHECK_INTERVAL)` in `follow`): all commands went to the old primary.
#[tokio::test]
async fn sentinels_are_polled_without_notifications() {
    let (old, new) = (RedisServer::start(), RedisServer::start());
    let sentinel = FakeServer::sentinel(1, old.port).await;
    let store = RedisStore::sentinel([sentinel.url()], PRIMARY)
        .await
        .unwrap();
    assert_eq!(apply(&store, 1, acquire(1)).await.unwrap(), Answer::Done);
    assert!(has(&old, 1));
    sentinel.name_primary(2, new.port);
    eventually("the new primary is found", async || {
        apply(&store, 2, extend(1)).await.is_ok() && has(&new, 2)
    })
    .await;
}

/// A sentinel that missed a fail-over names the old primary. Red if the first answer
/// counts, or any answer.
#[tokio::test]
async fn outdated_sentinel_is_outvoted() {
    let (old, new) = (RedisServer::start(), RedisServer::start());
    let stale = FakeServer::sentinel(1, old.port).await;
    let informed = [
        FakeServer::sentinel(2, new.port).await,
        FakeServer::sentinel(2, new.port).await,
    ];
    let urls = [stale.url(), informed[0].url(), informed[1].url()];
    let store = RedisStore::sentinel(&urls, PRIMARY).await.unwrap();
    apply(&store, 1, complete(1, "{}")).await.unwrap();
    assert!(has(&new, 1) && !has(&old, 1));
    // The outdated sentinel does not decide when the other sentinels are gone either.
    drop(informed);
    new.command::<()>(&["CLIENT", "KILL", "TYPE", "normal"]);
    let mut errors = 0;
    for _ in 0..10 {
        match timeout(IN_TIME, apply(&store, 1, acquire(2)))
            .await
            .unwrap()
        {
            Ok(answer) => assert!(is_cached(&answer), "{answer:?}"),
            Err(_) => errors += 1,
        }
    }
    assert!(errors > 0);
    assert!(!has(&old, 1));
}

/// One of three sentinels watches another primary with more fail-overs, or is
/// malicious.
///
/// Red if the latest configuration counts, even of a single sentinel: the password is sent
/// to a server that only this sentinel names. Also red if a credentials provider counts as
/// no password.
#[tokio::test]
async fn single_sentinel_gets_no_password_sent() {
    let ours = Options::default().password("data-pw").start();
    let other = FakeServer::silent().await;
    let liar = FakeServer::sentinel(9, other.port).await;
    let honest = [
        FakeServer::sentinel(1, ours.port).await,
        FakeServer::sentinel(1, ours.port).await,
    ];
    let primary = format!("redis://:data-pw@{PRIMARY}");
    let urls = [liar.url(), honest[0].url(), honest[1].url()];
    let store = RedisStore::sentinel(&urls, &primary).await.unwrap();
    assert_eq!(apply(&store, 1, acquire(1)).await.unwrap(), Answer::Done);
    ours.command::<()>(&["CLIENT", "KILL", "TYPE", "normal"]);
    eventually("a new connection is made", async || {
        apply(&store, 1, extend(1)).await.is_ok()
    })
    .await;
    assert_eq!(other.accepted(), 0);
    // A single sentinel does not decide either when it alone answers.
    drop(honest);
    let error = RedisStore::sentinel(&urls, &primary).await.unwrap_err();
    let message = format!("1 of 3 name 127.0.0.1:{}", other.port);
    assert!(chain(&error).contains(&message), "{error:?}");
    // A password from a provider counts as a password.
    let login = || async { Ok((String::new(), "data-pw".to_owned())) };
    let builder = RedisStore::builder(&urls).credentials(login);
    let primary = format!("redis://{PRIMARY}");
    let error = builder.sentinel(&primary).await.unwrap_err();
    assert!(chain(&error).contains(&message), "{error:?}");
    assert_eq!(other.accepted(), 0);
}
