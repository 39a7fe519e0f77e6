//! A server that answers but refuses writes: replays go on, and locked keys are finished if
//! any memory is left.

use std::time::Duration;

use genesys_once::error::RefusalKind::{NotAllowed, NotNow, TooLarge};
use genesys_once::record::{Answer, Event, RecordState};
use genesys_once::{RedisStore, Store};

use super::{acquire, apply, chain, claim, complete, name};
use crate::support::eventually;
use crate::support::redis::{Options, RedisServer};

fn is_cached(answer: &Answer) -> bool {
    matches!(answer, Answer::Is(Some(RecordState::Cached { .. })))
}

#[tokio::test]
async fn full_server_refuses_acquires_and_replays() {
    let server = RedisServer::start();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    apply(&store, 1, complete(1, "{}")).await.unwrap();
    for number in 2..6 {
        apply(&store, number, acquire(1)).await.unwrap();
    }
    // Less than any server needs for itself.
    server.command::<()>(&["CONFIG", "SET", "maxmemory", "100kb"]);

    let error = apply(&store, 9, acquire(1)).await.unwrap_err();
    assert!(
        error.refusal() == Some(TooLarge) && chain(&error).contains("OOM"),
        "{error:?}"
    );
    assert!(is_cached(&apply(&store, 1, acquire(2)).await.unwrap()));
    // The holder of a key gets its own lock as the answer.
    let own = apply(&store, 2, acquire(1)).await.unwrap();
    assert!(
        matches!(own, Answer::Is(Some(RecordState::Locked { .. }))),
        "{own:?}"
    );

    // The body is refused; the outcome is recorded without it.
    let error = apply(&store, 2, complete(1, &"x".repeat(4096)))
        .await
        .unwrap_err();
    assert_eq!(error.refusal(), Some(TooLarge), "{error:?}");
    assert_eq!(
        apply(&store, 2, complete(1, "")).await.unwrap(),
        Answer::Done
    );
    let release = Event::Release {
        claim: claim(1),
        step: 1,
        refusal: None,
    };
    assert_eq!(apply(&store, 3, release).await.unwrap(), Answer::Done);
    let abandon = Event::Abandon {
        claim: claim(1),
        step: 1,
        cause: "reset".into(),
    };
    assert_eq!(apply(&store, 4, abandon).await.unwrap(), Answer::Done);
    assert_eq!(
        apply(&store, 5, super::extend(1)).await.unwrap(),
        Answer::Done
    );
}

#[tokio::test]
async fn server_without_replicas_refuses_and_replays() {
    let server = RedisServer::start();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    apply(&store, 1, complete(1, "{}")).await.unwrap();
    apply(&store, 2, acquire(1)).await.unwrap();
    server.command::<()>(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    assert!(is_cached(&apply(&store, 1, acquire(2)).await.unwrap()));
    for (number, event) in [
        (9, acquire(1)),
        (2, complete(1, "{}")),
        (2, super::extend(1)),
    ] {
        let error = apply(&store, number, event).await.unwrap_err();
        assert!(
            error.refusal() == Some(NotNow) && chain(&error).contains("NOREPLICAS"),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn demoted_server_refuses_writes_and_replays() {
    let primary = RedisServer::start();
    let server = RedisServer::start();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    apply(&store, 1, complete(1, "{}")).await.unwrap();
    // The server's data stays as it is until the first synchronisation is over.
    server.command::<()>(&["CONFIG", "SET", "repl-diskless-sync", "no"]);
    primary.pause();
    server.command::<()>(&["REPLICAOF", "127.0.0.1", &primary.port.to_string()]);
    assert!(is_cached(&apply(&store, 1, acquire(2)).await.unwrap()));
    let error = apply(&store, 9, acquire(1)).await.unwrap_err();
    assert!(
        error.refusal() == Some(NotNow) && chain(&error).contains("READONLY"),
        "{error:?}"
    );
    server.command::<()>(&["REPLICAOF", "NO", "ONE"]);
    assert_eq!(apply(&store, 9, acquire(1)).await.unwrap(), Answer::Done);
}

/// While the script of another program runs, a server answers every command with `BUSY` and
/// runs nothing.
///
/// Red if `BUSY` counts as no answer, which opens the breaker.
#[tokio::test]
async fn busy_server_refuses_for_now() {
    let server = Options::default().set("busy-reply-threshold", "50").start();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let url = server.url();
    let busy = std::thread::spawn(move || {
        let client = redis::Client::open(url).unwrap();
        let mut connection = client.get_connection().unwrap();
        let mut script = redis::cmd("EVAL");
        script.arg("while true do end").arg(0);
        script.query::<()>(&mut connection)
    });
    let mut error = None;
    eventually("the server is busy", async || {
        error = store.look(&name(1)).await.err();
        error.is_some()
    })
    .await;
    for error in [
        error.unwrap(),
        apply(&store, 1, acquire(1)).await.unwrap_err(),
        apply(&store, 1, complete(1, "{}")).await.unwrap_err(),
    ] {
        assert_eq!(error.refusal(), Some(NotNow), "{error:?}");
        assert!(chain(&error).contains("BUSY"), "{error:?}");
    }
    server.command::<()>(&["SCRIPT", "KILL"]);
    busy.join().unwrap().unwrap_err();
    assert_eq!(apply(&store, 1, acquire(1)).await.unwrap(), Answer::Done);
}

#[tokio::test]
async fn user_without_publish_right_writes() {
    let server = RedisServer::start();
    let user = [
        "ACL",
        "SETUSER",
        "app",
        "on",
        ">pw",
        "~genesys-once:*",
        "resetchannels",
        "+@all",
        "-publish",
    ];
    server.command::<()>(&user);
    let url = format!("redis://app:pw@127.0.0.1:{}", server.port);
    let store = RedisStore::connect(&url).await.unwrap();
    assert_eq!(apply(&store, 1, acquire(1)).await.unwrap(), Answer::Done);
    // The user may not subscribe either: the wait stays pending, and a waiter polls
    // instead.
    let name = name(1);
    let waiting = store.changed(&name);
    assert_eq!(
        apply(&store, 1, complete(1, "{}")).await.unwrap(),
        Answer::Done
    );
    assert!(
        tokio::time::timeout(Duration::from_millis(300), waiting)
            .await
            .is_err()
    );
    assert!(is_cached(&apply(&store, 1, acquire(2)).await.unwrap()));
}

#[tokio::test]
async fn revoked_write_right_is_reported() {
    let server = RedisServer::start();
    let user = ["ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all"];
    server.command::<()>(&user);
    let url = format!("redis://app:pw@127.0.0.1:{}", server.port);
    let store = RedisStore::connect(&url).await.unwrap();
    server.command::<()>(&["ACL", "SETUSER", "app", "-set"]);
    let error = apply(&store, 1, acquire(1)).await.unwrap_err();
    assert_eq!(error.refusal(), Some(NotAllowed), "{error:?}");
    assert!(chain(&error).contains("NOPERM"), "{error:?}");
}
