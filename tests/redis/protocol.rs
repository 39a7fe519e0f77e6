//! The conformance cases of every store, and the number of commands that they take.

use genesys_once::record::{Answer, RecordState};
use genesys_once::testing::store_conformance;
use genesys_once::{RedisStore, Store};

use super::{acquire, apply, claim, complete, name};
use crate::support::redis::RedisServer;

#[tokio::test]
async fn store_conforms_to_protocol() {
    let server = RedisServer::start();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    store_conformance(store, tokio::time::sleep).await;
}

#[tokio::test]
async fn execution_takes_two_round_trips() {
    let server = RedisServer::start();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    // The server learns the script.
    apply(&store, 1, complete(1, "{}")).await.unwrap();

    server.command::<()>(&["CONFIG", "RESETSTAT"]);
    assert_eq!(apply(&store, 2, acquire(1)).await.unwrap(), Answer::Done);
    assert_eq!(
        apply(&store, 2, complete(1, "{}")).await.unwrap(),
        Answer::Done
    );
    // The script's own calls count, too: `getrange` and `set` once each, and the others.
    let calls = |calls: &[(&str, u64)]| -> Vec<(String, u64)> {
        calls
            .iter()
            .map(|(name, times)| ((*name).to_owned(), *times))
            .collect()
    };
    let expected = calls(&[("evalsha", 1), ("getrange", 1), ("publish", 1), ("set", 2)]);
    assert_eq!(server.calls(), expected);

    server.command::<()>(&["CONFIG", "RESETSTAT"]);
    let replay = apply(&store, 2, acquire(2)).await.unwrap();
    assert!(
        matches!(replay, Answer::Is(Some(RecordState::Cached { .. }))),
        "{replay:?}"
    );
    assert_eq!(server.calls(), calls(&[("set", 1)]));
}

#[tokio::test]
async fn forgotten_scripts_are_sent_again() {
    let server = RedisServer::start();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    for number in 1..4 {
        apply(&store, number, acquire(1)).await.unwrap();
        server.command::<()>(&["SCRIPT", "FLUSH"]);
        assert_eq!(
            apply(&store, number, complete(1, "{}")).await.unwrap(),
            Answer::Done
        );
    }
}

#[tokio::test]
async fn stored_record_matches_documentation() {
    let server = RedisServer::start();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    apply(&store, 1, acquire(1)).await.unwrap();
    let key = name(1).to_string();
    let value: String = server.command(&["GET", &key]);
    let (lease, fingerprint) = (claim(1).lease, claim(1).fingerprint);
    let expected = format!(
        "genesys-once/3 locked dispatched {lease} 1 0 {fingerprint} 60000 3600000\n\
         {{\"name\":\"{key}\",\"attempts\":0,\"attempt_timeout_ms\":0}}\n"
    );
    assert_eq!(value, expected);
    let left: u64 = server.command(&["PTTL", &key]);
    assert!((3_650_000..=3_660_000).contains(&left), "{left}");

    apply(&store, 1, complete(1, "{\"a\":[]}")).await.unwrap();
    let value: String = server.command(&["GET", &key]);
    let expected = format!(
        "genesys-once/3 cached - {lease} 2 0 {fingerprint} 60000 3600000\n\
         {{\"name\":\"{key}\",\"status\":200,\"headers\":[],\"body\":8,\"attempts\":0}}\n{{\"a\":[]}}"
    );
    assert_eq!(value, expected);
    let Some(RecordState::Cached { left, .. }) = store.look(&name(1)).await.unwrap() else {
        panic!("not cached");
    };
    assert!((3590..=3600).contains(&left.as_secs()), "{left:?}");
}
