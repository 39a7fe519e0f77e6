//! Outcomes too large for the shared connection: their bodies have separate keys, and a
//! record never gets the body of another answer. `body_transfer` tests the transfers.

use std::sync::Arc;
use std::time::Duration;

use genesys_once::outcome::StoredBody;
use genesys_once::record::{Answer, Event, LeaseId, RecordState, Resolution};
use genesys_once::store::{ListFilter, ListQuery};
use genesys_once::{Outcome, RedisStore, Store};

use super::limited_proxy::Narrow;
use super::{acquire, apply, claim, complete, name};
use crate::support::eventually;
use crate::support::redis::RedisServer;

/// Larger than a body that the shared connection carries.
pub const LARGE: usize = 200_000;

pub fn body(number: u8) -> String {
    format!("[{number},\"{}\"]", "é\n".repeat(LARGE / 3))
}

/// The key of the separate body of a record.
pub fn body_key(number: u8, lease: LeaseId) -> String {
    format!("genesys-once:{{{}}}:{lease}", name(number))
}

pub async fn replay(store: &RedisStore, number: u8) -> (StoredBody, Arc<Outcome>) {
    match apply(store, number, acquire(2)).await.unwrap() {
        Answer::Is(Some(RecordState::Cached { stored, .. })) => (stored.body, stored.outcome),
        other => panic!("{other:?}"),
    }
}

/// The ids of the connections whose last command was this command.
pub fn clients(server: &RedisServer, command: &str) -> Vec<String> {
    let clients: String = server.command(&["CLIENT", "LIST", "TYPE", "normal"]);
    let last = format!("cmd={command} ");
    let lines = clients.lines().filter(|line| line.contains(&last));
    lines
        .map(|line| line.split(' ').next().unwrap().to_owned())
        .collect()
}

/// Red if the record contains the body.
#[tokio::test]
async fn large_body_has_separate_key() {
    let server = RedisServer::start();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    for number in [1, 2] {
        apply(&store, number, acquire(1)).await.unwrap();
        // Also when the record is absent and written again.
        server.command::<()>(&["DEL", &name(2).to_string()]);
        let answer = apply(&store, number, complete(1, &body(number))).await;
        assert_eq!(answer.unwrap(), Answer::Done);
        let (record, key) = (name(number).to_string(), body_key(number, claim(1).lease));
        let record_bytes: usize = server.command(&["STRLEN", &record]);
        assert!(record_bytes < 1024, "{record_bytes}");
        let value: String = server.command(&["GET", &key]);
        let lease = claim(1).lease;
        let length = body(number).len();
        let head = format!("genesys-once/3 body {record} {lease} {length}\n");
        assert_eq!(value, head + &body(number));
        // Both keys expire together, as exactly as a server's clock allows.
        let expires = |key: &str| server.command::<i64>(&["PEXPIRETIME", key]);
        assert!((expires(&record) - expires(&key)).abs() < 1000);

        let (stored_body, outcome) = replay(&store, number).await;
        assert!(stored_body == StoredBody::Full && *outcome.body() == body(number));
        let looked = store.look(&name(number)).await.unwrap();
        let Some(RecordState::Cached { stored, .. }) = looked else {
            panic!("{looked:?}");
        };
        assert!(*stored.outcome.body() == body(number));
    }
    let [shared, apart] = ["evalsha", "getrange"].map(|last| clients(&server, last));
    assert_eq!((shared.len(), apart.len()), (1, 1), "{shared:?} {apart:?}");
    // The outcome is sent again, as after a lost reply: the body is not written a second
    // time.
    server.command::<()>(&["CONFIG", "RESETSTAT"]);
    let again = apply(&store, 1, complete(1, &body(1))).await.unwrap();
    assert_eq!(again, Answer::Done);
    let wrote = |(name, _): &(String, u64)| ["set", "setrange"].contains(&&**name);
    assert!(!server.calls().iter().any(wrote));
    eventually("the unused connection is closed", async || {
        clients(&server, "getrange").is_empty()
    })
    .await;
}

/// Red if a record is written without a check of its body, or a body without a check of
/// its record.
#[tokio::test]
async fn record_names_only_own_body() {
    let server = RedisServer::start();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    apply(&store, 1, acquire(1)).await.unwrap();
    let key = body_key(1, claim(1).lease);
    server.command::<()>(&["SET", &key, "something else"]);
    apply(&store, 1, complete(1, &body(1))).await.unwrap();
    let (stored_body, outcome) = replay(&store, 1).await;
    assert!(stored_body == StoredBody::Full && *outcome.body() == body(1));

    let late = apply(&store, 1, complete(7, &body(1))).await.unwrap();
    assert_eq!(late, Answer::NotHolder);
    let there: u32 = server.command(&["EXISTS", &body_key(1, claim(7).lease)]);
    assert_eq!(there, 0, "a body that no record has");
}

/// Parts of two attempts: an abandoned connection still delivers its remaining bytes after
/// another attempt has started.
///
/// Red if a part is written without a check of the part before.
#[tokio::test]
async fn mixed_parts_make_no_body() {
    let server = RedisServer::start();
    let narrow = Narrow::start(server.port).await;
    let store = RedisStore::connect(&narrow.url()).await.unwrap();
    apply(&store, 1, acquire(1)).await.unwrap();
    narrow.cut_after(150_000);
    apply(&store, 1, complete(1, &body(1))).await.unwrap_err();
    // The whole length is reserved, and one part is written.
    let key = body_key(1, claim(1).lease);
    let value: Vec<u8> = server.command(&["GET", &key]);
    assert!(value.starts_with(b"unfinished ") && value.ends_with(&[0; 1000]));
    // No record names this body, so it expires soon.
    assert!(server.command::<i64>(&["PTTL", &key]) > 0);
    let late = |offset: usize| {
        let before = "unfinished 0123456789abcdef 1";
        let offset = offset.to_string();
        let part = include_str!("../../src/store/redis/protocol/body_part.lua");
        server.command::<u32>(&["EVAL", part, "1", &key, before, before, &offset, "late"])
    };
    assert_eq!(late(200), 0);
    narrow.cut_after(usize::MAX);
    apply(&store, 1, complete(1, &body(1))).await.unwrap();
    assert_eq!(late(200), 0);
    let (stored_body, outcome) = replay(&store, 1).await;
    assert!(stored_body == StoredBody::Full && *outcome.body() == body(1));
}

/// The body is missing, shorter, longer, of another record, or of another type. Red if the
/// body is not compared with its record, or if a missing body is an error: the key was
/// still executed.
#[tokio::test]
async fn foreign_body_counts_as_absent() {
    let server = RedisServer::start();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let key = |number| body_key(number, claim(1).lease);
    for number in 1..8 {
        apply(&store, number, complete(1, &body(number)))
            .await
            .unwrap();
    }
    let whole: String = server.command(&["GET", &key(2)]);
    let unfinished = whole.replacen("genesys-once/3 body", "unfinished         ", 1);
    server.command::<()>(&["DEL", &key(1)]);
    server.command::<()>(&["SET", &key(7), &unfinished]);
    server.command::<()>(&["SET", &key(2), &whole[..whole.len() - 1]]);
    server.command::<()>(&["APPEND", &key(3), "x"]);
    server.command::<u32>(&["COPY", &key(6), &key(4), "REPLACE"]);
    server.command::<()>(&["DEL", &key(5)]);
    server.command::<()>(&["LPUSH", &key(5), "x"]);
    for number in [1, 2, 3, 4, 5, 7] {
        let (stored_body, outcome) = replay(&store, number).await;
        let reported = (stored_body, outcome.status().as_u16(), outcome.body().len());
        assert_eq!(reported, (StoredBody::OmittedTooLarge, 200, 0), "{number}");
    }
    let (stored_body, outcome) = replay(&store, 6).await;
    assert!(stored_body == StoredBody::Full && *outcome.body() == body(6));
}

/// Red if a body outlives the record that has it.
#[tokio::test]
async fn body_is_removed_with_record() {
    let server = RedisServer::start();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let left = || -> Vec<String> { server.command(&["KEYS", "genesys-once:{*"]) };
    let forget = Event::Forget {
        lease: LeaseId::from_bytes([0xf0; 16]),
    };
    apply(&store, 1, complete(1, &body(1))).await.unwrap();
    assert_eq!(left().len(), 1);
    assert_eq!(apply(&store, 1, forget).await.unwrap(), Answer::Done);
    assert!(left().is_empty(), "forgotten");

    // An unreadable record: a copy under another name.
    apply(&store, 2, complete(1, &body(2))).await.unwrap();
    let (from, to) = (name(2).to_string(), name(3).to_string());
    server.command::<()>(&["RENAME", &from, &to]);
    let (from, to) = (body_key(2, claim(1).lease), body_key(3, claim(1).lease));
    server.command::<()>(&["RENAME", &from, &to]);
    let unreadable = store.look_unreadable(&name(3)).await.unwrap().unwrap();
    assert!(store.discard(&unreadable).await.unwrap());
    assert!(left().is_empty(), "discarded");

    // A late caller might request that no body is stored.
    apply(&store, 4, acquire(1)).await.unwrap();
    let Event::Complete { stored, .. } = complete(1, &body(4)) else {
        unreachable!();
    };
    let key = body_key(4, claim(1).lease);
    server.command::<()>(&[
        "SET",
        &key,
        std::str::from_utf8(stored.outcome.body()).unwrap(),
    ]);
    let mut reduced = complete(1, "");
    if let Event::Complete { stored, .. } = &mut reduced {
        stored.body = StoredBody::OmittedSensitive;
    }
    assert_eq!(apply(&store, 4, reduced).await.unwrap(), Answer::Done);
    assert!(left().is_empty(), "kept although it is sensitive");
}

/// The store cannot see whether a sealed outcome is reduced.
///
/// Red if only an outcome that is marked as reduced removes its body (without
/// `outcome.is_sealed()` in `outcome_args`).
#[cfg(feature = "encrypted")]
#[tokio::test]
async fn sealed_outcome_removes_full_body() {
    use genesys_once::{Encrypted, EncryptionKeys};

    let server = RedisServer::start();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let store = Encrypted::new(store, EncryptionKeys::new("k1", [1; 32]).unwrap());
    let (name, key) = (name(1), body_key(1, claim(1).lease));
    store.apply(&name, acquire(1)).await.unwrap();
    // The body that the whole outcome left behind when it was not recorded.
    server.command::<()>(&["SET", &key, "all of it"]);
    let mut reduced = complete(1, "");
    if let Event::Complete { stored, .. } = &mut reduced {
        stored.body = StoredBody::OmittedSensitive;
    }
    assert_eq!(store.apply(&name, reduced).await.unwrap(), Answer::Done);
    assert_eq!(server.command::<u32>(&["EXISTS", &key]), 0);
    let Some(RecordState::Cached { stored, .. }) = store.look(&name).await.unwrap() else {
        panic!("the outcome is not recorded");
    };
    assert_eq!(stored.body, StoredBody::OmittedSensitive);
}

/// An outcome from an operator can be large, too.
#[tokio::test]
async fn resolution_accepts_large_body() {
    let server = RedisServer::start();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    apply(&store, 1, acquire(1)).await.unwrap();
    let abandon = Event::Abandon {
        claim: claim(1),
        step: 1,
        cause: "reset".into(),
    };
    apply(&store, 1, abandon).await.unwrap();
    let state = store.look(&name(1)).await.unwrap().unwrap();
    let RecordState::Indeterminate { revision, .. } = state else {
        panic!("{state:?}");
    };
    let found = Outcome::new(http::StatusCode::OK, http::HeaderMap::new(), body(1));
    let resolve = || Event::Resolve {
        lease: LeaseId::from_bytes([0xaa; 16]),
        revision,
        fingerprint: claim(1).fingerprint,
        resolution: Resolution::applied(found.clone()),
        origin: Default::default(),
        ttl: Duration::from_secs(60),
    };
    for _ in 0..2 {
        assert_eq!(apply(&store, 1, resolve()).await.unwrap(), Answer::Done);
    }
    let (stored_body, outcome) = replay(&store, 1).await;
    assert!(stored_body == StoredBody::Full && *outcome.body() == body(1));
}

/// Red if a walk counts a body's key as a record.
#[tokio::test]
async fn separate_bodies_are_never_listed() {
    let server = RedisServer::start();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    apply(&store, 1, complete(1, &body(1))).await.unwrap();
    let namespace = "test".parse().unwrap();
    for query in [
        ListQuery::all(),
        ListQuery::indeterminate(),
        ListQuery::unreadable(),
    ] {
        let page = store.list(&namespace, &query).await.unwrap();
        let keys: Vec<_> = page.records.iter().map(|(key, _)| *key).collect();
        let expected: &[_] = match query.filter() {
            ListFilter::All => &[name(1).key],
            _ => &[],
        };
        assert_eq!((&keys[..], page.unreadable.len()), (expected, 0));
    }
    let fetched = |(name, _): &(String, u64)| name == "getrange";
    server.command::<()>(&["CONFIG", "RESETSTAT"]);
    store.list(&namespace, &ListQuery::all()).await.unwrap();
    assert!(!server.calls().iter().any(fetched), "a list has no bodies");
}
