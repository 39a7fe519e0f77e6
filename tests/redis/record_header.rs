//! The time to live of a record that other clients change, the first line as scripts and
//! codec read it, and the keys beside the records.

use genesys_once::record::{self, Answer, Event, LeaseId, RecordState, Revision, WRITER};
use genesys_once::{RedisStore, Store};

use super::{acquire, claim, name};
use crate::support::indeterminate;
use crate::support::redis::RedisServer;

/// Every reader corrects a time to live that is missing, or longer than any that the store
/// writes. Red if such a time is used: the key stayed unreadable, or its lease showed an
/// hour.
#[tokio::test]
async fn changed_time_to_live_is_corrected() {
    let server = RedisServer::start();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let key = name(1).to_string();
    let moved: [&[&str]; 2] = [&["PERSIST", &key], &["EXPIRE", &key, "2592000"]];
    let take_over = || Event::TakeOver {
        claim: claim(2),
        revision: Revision {
            rev: 1,
            lease: claim(1).lease,
        },
        watched: false,
    };
    for command in moved {
        let finders: [&str; 3] = ["look", "acquire", "take over"];
        for finder in finders {
            server.command::<()>(&["FLUSHALL"]);
            store.apply(&name(1), acquire(1)).await.unwrap();
            server.command::<()>(command);
            let found = match finder {
                "look" => store.look(&name(1)).await.unwrap(),
                "acquire" => state_of(store.apply(&name(1), acquire(2)).await.unwrap()),
                _ => state_of(store.apply(&name(1), take_over()).await.unwrap()),
            };
            let Some(RecordState::Locked {
                lease_left, lease, ..
            }) = found
            else {
                panic!("{finder}: {found:?}");
            };
            assert_eq!(
                (lease_left, lease),
                (claim(1).lease_ttl, claim(1).lease_ttl)
            );
            let left: u64 = server.command(&["PTTL", &key]);
            assert!((3_650_000..=3_660_000).contains(&left), "{finder}: {left}");
        }
    }
    // The same holds for an indeterminate record; its malformed content is still reported.
    store.apply(&name(1), abandon(1)).await.unwrap();
    for command in moved {
        server.command::<()>(command);
        let state = store.look(&name(1)).await.unwrap();
        let Some(RecordState::Indeterminate { age: None, .. }) = state else {
            panic!("{state:?}");
        };
        let left: u64 = server.command(&["PTTL", &key]);
        assert!((3_590_000..=3_600_000).contains(&left), "{left}");
    }
}

fn abandon(step: u32) -> Event {
    Event::Abandon {
        claim: claim(1),
        step,
        cause: "reset".into(),
    }
}

fn state_of(answer: Answer) -> Option<RecordState> {
    match answer {
        Answer::Is(state) => state,
        answer => panic!("{answer:?}"),
    }
}

/// Scripts and `Record::decode` accept the same lines. Red if either has a rule that the
/// other lacks.
#[tokio::test]
async fn scripts_and_codec_read_same_headers() {
    let server = RedisServer::start();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let key = name(1).to_string();
    let (lease, fingerprint) = (claim(1).lease, claim(1).fingerprint);
    let json = format!(r#"{{"name":"{key}","attempts":1,"attempt_timeout_ms":5}}"#);
    let sound = format!("genesys-once/3 locked claimed {lease} 7 3 {fingerprint} 5 9");
    let mut lines: Vec<Vec<u8>> = vec![sound.clone().into_bytes()];
    for tail in ["", " later", " \u{e9}", "x", "\t", " ", "  "] {
        lines.push(format!("{sound}{tail}").into_bytes());
    }
    lines.push([sound.as_bytes(), b" \xff\0"].concat());
    for room in [400, 511 - sound.len(), 512 - sound.len()] {
        lines.push(format!("{sound}{}", " x".repeat(300)[..room].to_owned()).into_bytes());
    }
    for (from, to) in [
        ("locked claimed", "released whatever-else"),
        ("locked claimed", "released 9"),
        ("locked claimed", "released -"),
        ("locked claimed", "locked  claimed"),
        ("locked claimed", "Locked claimed"),
        ("locked claimed", "locked dispatched"),
        ("locked claimed", "paused -"),
        (" 7 ", " 007 "),
        (" 7 ", " +7 "),
        (" 7 ", " 7.0 "),
        (" 7 ", " 0x7 "),
        (" 7 ", " 999999999999999 "),
        (" 7 ", " 0000000000000007 "),
        (" 3 ", " 4294967295 "),
        (" 3 ", " 4294967296 "),
        (" 3 ", " -1 "),
        ("genesys-once/3", "genesys-once/03"),
        ("genesys-once/3", "genesys_once/3"),
    ] {
        lines.push(sound.replacen(from, to, 1).into_bytes());
    }
    lines.push(sound.to_uppercase().into_bytes());
    for digits in [lease.to_string(), fingerprint.to_string()] {
        for wrong in [
            digits.to_uppercase() + "A",
            digits[1..].to_owned(),
            "g".to_owned() + &digits[1..],
        ] {
            lines.push(sound.replacen(&digits, &wrong, 1).into_bytes());
        }
    }
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_connection().unwrap();
    let (mut read, mut refused) = (0, 0);
    for line in lines {
        let value = [&line[..], b"\n", json.as_bytes(), b"\n"].concat();
        let () = redis::cmd("SET")
            .arg(&key)
            .arg(&value)
            .query(&mut connection)
            .unwrap();
        let decoded = record::Record::decode(&name(1), &value);
        let asked = store.apply(&name(1), forget()).await;
        assert_eq!(
            decoded.is_ok(),
            asked.is_ok(),
            "{}: {decoded:?}, {asked:?}",
            line.escape_ascii()
        );
        match decoded {
            Ok(_) => read += 1,
            Err(_) => refused += 1,
        }
    }
    assert!(
        read >= 10 && refused >= 15,
        "{read} read, {refused} refused"
    );
}

fn forget() -> Event {
    Event::Forget {
        lease: LeaseId::from_bytes([0xf0; 16]),
    }
}

/// Red if the version is not stored, if an older process lowers it, and if its key counts
/// as a record.
#[tokio::test]
async fn least_writer_is_raised_and_never_lowered() {
    let server = RedisServer::start();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let [namespace, other] = ["test", "other"].map(|name| name.parse().unwrap());
    // `older` stands for another process.
    let older = RedisStore::connect(&server.url()).await.unwrap();
    for (store, at_least, least) in [
        (&store, WRITER, WRITER),
        (&store, WRITER + 1, WRITER + 1),
        (&older, WRITER, WRITER + 1),
    ] {
        let message = store.least_writer(&namespace, at_least).await.unwrap();
        assert_eq!(message, least);
    }
    assert_eq!(store.least_writer(&other, 1).await.unwrap(), 1);
    let key = "genesys-once:test:shard:0";
    let marker: String = server.command(&["GET", key]);
    assert!(marker.starts_with(&format!("{} ", WRITER + 1)), "{marker}");
    assert_eq!(server.command::<i64>(&["TTL", key]), -1);
    assert!(
        indeterminate(&store, &namespace, 10)
            .await
            .unwrap()
            .is_empty()
    );
}
