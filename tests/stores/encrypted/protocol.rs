//! `Encrypted` in the conformance suite, and its keys.

use std::sync::Arc;

use genesys_once::outcome::StoredBody;
use genesys_once::record::{About, Answer, Claim, Event, RecordState};
use genesys_once::testing::{Fault, FaultyStore, store_conformance};
use genesys_once::{Encrypted, EncryptionKeys, Error, MemoryStore, Store};

use super::{claim, complete, done, encrypted, keys, name, outcome, read, reason, release};
use crate::support::indeterminate;

#[tokio::test(start_paused = true)]
async fn encrypted_memory_store_conforms() {
    let store = encrypted(MemoryStore::new());
    store_conformance(store, tokio::time::advance).await;
    // Also around an `Arc`, and around a store behind an `Arc`.
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    store_conformance(encrypted(store), tokio::time::advance).await;
}

#[tokio::test]
async fn encrypted_file_store_conforms() {
    use genesys_once::FileStore;
    use genesys_once::testing::ManualClock;

    let folder = super::at_rest::Folder::new("protocol");
    let clock = ManualClock::new();
    let store = FileStore::open_with_clock(folder.file(), clock.clone()).unwrap();
    store_conformance(encrypted(store), async |time| clock.advance(time)).await;
}

#[tokio::test]
async fn encrypted_redis_store_conforms() {
    let server = crate::support::redis::RedisServer::start();
    let store = genesys_once::RedisStore::connect(&server.url())
        .await
        .unwrap();
    store_conformance(encrypted(store), tokio::time::sleep).await;
}

/// Every event is encrypted with another nonce. A repeated command is still recognised by
/// its lease, and the stored outcome stays.
#[tokio::test(start_paused = true)]
async fn repeated_command_is_recognised() {
    let inner = MemoryStore::new();
    let store = encrypted(FaultyStore::new(
        inner.clone(),
        |operation| match operation.number {
            1 | 4 => Fault::LoseReply,
            _ => Fault::Pass,
        },
    ));
    for (number, event) in [
        (1, complete(1, outcome(), StoredBody::Full)),
        (2, release(1, outcome())),
    ] {
        let lost = store.apply(&name(number), event.clone()).await;
        assert!(lost.is_err(), "{lost:?}");
        let first = read(inner.look(&name(number)).await).unwrap().0;
        done(&store, number, event).await;
        let second = read(inner.look(&name(number)).await).unwrap().0;
        assert!(first.is_sealed() && first == second);
        assert_eq!(*read(store.look(&name(number)).await).unwrap().0, outcome());
    }
}

#[tokio::test(start_paused = true)]
async fn rotated_keys_lose_no_record() {
    let inner = MemoryStore::new();
    let with = |keys| Encrypted::new(inner.clone(), keys);
    let old = with(keys("old", 1));
    done(&old, 1, complete(1, outcome(), StoredBody::Full)).await;
    // First all processes can decrypt with the new key, …
    let prepared = with(keys("old", 1).also_reads("new", [2; 32]).unwrap());
    // … then it encrypts, …
    let rotated = with(keys("new", 2).also_reads("old", [1; 32]).unwrap());
    done(&rotated, 2, complete(1, outcome(), StoredBody::Full)).await;
    for store in [&prepared, &rotated] {
        for number in [1, 2] {
            assert_eq!(*read(store.look(&name(number)).await).unwrap().0, outcome());
        }
    }
    // … and a process without a record's key gets an error that names it.
    let error = read(old.look(&name(2)).await).unwrap_err();
    assert!(
        reason(&error).contains("encryption key \"new\""),
        "{error:?}"
    );
    let after = with(keys("new", 2));
    let error = read(after.look(&name(1)).await).unwrap_err();
    assert!(
        reason(&error).contains("encryption key \"old\""),
        "{error:?}"
    );
    // The right id with another key does not decrypt.
    let wrong = with(keys("old", 3));
    let error = read(wrong.look(&name(1)).await).unwrap_err();
    assert!(reason(&error).contains("cannot be decrypted"), "{error:?}");
}

#[test]
fn invalid_keys_are_refused_with_a_reason() {
    let long = "x".repeat(65);
    let good = || keys("k1", 1);
    for (made, expected) in [
        (
            EncryptionKeys::new("k", [0; 31]),
            "expected 32 bytes, found 31",
        ),
        (
            EncryptionKeys::new("k", "x".repeat(64)),
            "expected 32 bytes, found 64",
        ),
        (EncryptionKeys::new("", [0; 32]), "expected 1 to 64 letters"),
        (
            EncryptionKeys::new(&long, [0; 32]),
            "expected 1 to 64 letters",
        ),
        (
            EncryptionKeys::new("a b", [0; 32]),
            "expected 1 to 64 letters",
        ),
        (
            EncryptionKeys::new("é", [0; 32]),
            "expected 1 to 64 letters",
        ),
        (
            good().also_reads("k1", [2; 32]),
            "two encryption keys have the id \"k1\"",
        ),
        (
            good().also_reads("k2", [2; 33]),
            "expected 32 bytes, found 33",
        ),
    ] {
        let Error::InvalidConfig {
            setting, reason, ..
        } = made.unwrap_err()
        else {
            panic!("{expected}")
        };
        assert_eq!(setting, "encryption_keys");
        assert!(reason.contains(expected), "{reason}");
    }
    assert!(EncryptionKeys::new(&long[1..], [0; 32]).is_ok());
}

#[test]
fn debug_shows_ids_and_no_key() {
    let keys = keys("2026-11", b'#').also_reads("2026-05", [b'~'; 32]);
    let shown = format!("{:?}", Encrypted::new(MemoryStore::new(), keys.unwrap()));
    assert!(
        shown.contains("2026-11") && shown.contains("2026-05"),
        "{shown}"
    );
    for byte in ["##", "~~", "35, 35", "126, 126", "2323", "7e7e"] {
        assert!(!shown.contains(byte), "{shown}");
    }
}

/// A caller's names for a request are encrypted and bound to the lease, also when the
/// record becomes indeterminate. Red if they are written in plain text, and if a process
/// without the key cannot read the record.
#[tokio::test(start_paused = true)]
async fn names_of_a_request_are_encrypted() {
    let inner = MemoryStore::new();
    let store = encrypted(inner.clone());
    let mut about = About {
        action: "custom_-_1".parse().ok(),
        ..About::default()
    };
    about.caller.label = Some("refund of Anna".into());
    let about = Arc::new(about);
    let other = claim(2);
    let claim = Claim {
        about: about.clone(),
        ..claim(1)
    };
    let acquire = Event::Acquire {
        claim: claim.clone(),
    };
    done(&store, 1, acquire).await;
    let shown = |state| match state {
        Some(RecordState::Locked { about, .. } | RecordState::Indeterminate { about, .. }) => about,
        state => panic!("{state:?}"),
    };
    let check = async || {
        let sealed = shown(inner.look(&name(1)).await.unwrap());
        assert!(!format!("{:?}", sealed.caller).contains("Anna"));
        assert_eq!(sealed.action, about.action);
        assert_eq!(shown(store.look(&name(1)).await.unwrap()), about);
        let other = Encrypted::new(inner.clone(), keys("k1", 2));
        assert_eq!(shown(other.look(&name(1)).await.unwrap()), sealed);
        assert_eq!(shown(inner.look(&name(1)).await.unwrap()), sealed);
    };
    check().await;
    tokio::time::advance(super::LONG).await;
    let revision = store.look(&name(1)).await.unwrap().unwrap().revision();
    let take_over = Event::TakeOver {
        claim: other,
        revision,
        watched: false,
    };
    match store.apply(&name(1), take_over).await.unwrap() {
        Answer::Lost(state) => assert_eq!(shown(Some(state)), about),
        answer => panic!("{answer:?}"),
    }
    check().await;
    // Red if the list shows encrypted names.
    let listed = indeterminate(&store, &name(1).namespace, 9).await.unwrap();
    assert_eq!(shown(Some(listed[0].1.clone())), about);
}
