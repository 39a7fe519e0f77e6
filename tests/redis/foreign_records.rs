//! Records that this version did not write: they never count as absent, and are never
//! overwritten.

use std::time::Duration;

use genesys_once::record::{
    self, Answer, Event, LeaseId, Phase, RecordState, Resolution, Revision,
};
use genesys_once::{RedisStore, Store};

use super::{acquire, chain, claim, complete, extend, name};
use crate::support::indeterminate;
use crate::support::redis::RedisServer;

/// One event of each kind.
fn events() -> Vec<Event> {
    let revision = Revision {
        rev: 1,
        lease: claim(1).lease,
    };
    vec![
        acquire(1),
        Event::TakeOver {
            claim: claim(1),
            revision,
            watched: false,
        },
        extend(1),
        Event::Enter {
            claim: claim(1),
            step: 9,
            phase: genesys_once::record::Phase::Claimed,
        },
        complete(1, "{}"),
        Event::Release {
            claim: claim(1),
            step: 9,
            refusal: None,
        },
        Event::Abandon {
            claim: claim(1),
            step: 9,
            cause: "?".into(),
        },
        Event::Resolve {
            lease: claim(2).lease,
            revision,
            fingerprint: claim(1).fingerprint,
            resolution: Resolution::not_applied(),
            origin: Default::default(),
            ttl: Duration::from_secs(9),
        },
        Event::Forget {
            lease: LeaseId::from_bytes([0xf0; 16]),
        },
    ]
}

#[tokio::test]
async fn unreadable_record_is_never_changed() {
    let server = RedisServer::start();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let (lease, fingerprint) = (claim(1).lease, claim(1).fingerprint);
    let name_of = name(1).to_string();
    let json = format!(r#"{{"name":"{name_of}","attempts":1,"attempt_timeout_ms":5}}"#);
    let line = |line: &str| format!("genesys-once/3 {line}\n{json}\n");
    let values = [
        (
            format!("genesys-once/4 locked {lease} something new\n"),
            "version \"4\"",
        ),
        (String::new(), "no header line"),
        ("garbage".into(), "no header line"),
        ("hello world\n{}".into(), "not a record of genesys-once"),
        (
            line(&format!("locked dispatched {lease} 1 0")),
            "expected 8 fields, found 5",
        ),
        (
            line(&format!("paused - {lease} 1 0 {fingerprint} 5 5")),
            "unknown record state",
        ),
        (
            line(&format!("locked - {lease} 1 0 {fingerprint} 5 5")),
            "unknown record state",
        ),
        (
            line(&format!("cached claimed {lease} 1 0 {fingerprint} 5 5")),
            "unknown record state",
        ),
        (
            line(&format!("locked claimed {lease} 1 -1 {fingerprint} 5 5")),
            "step is damaged",
        ),
        (
            line(&format!(
                "locked claimed {lease} 1 4294967296 {fingerprint} 5 5"
            )),
            "step is damaged",
        ),
        (
            line(&format!("locked claimed {lease} x 0 {fingerprint} 5 5")),
            "revision is damaged",
        ),
        (
            line(&format!("locked claimed {lease} +1 0 {fingerprint} 5 5")),
            "revision is damaged",
        ),
        (
            line(&format!("locked claimed {lease}0 1 0 {fingerprint} 5 5")),
            "lease is damaged",
        ),
        (
            line(&format!(
                "locked claimed {} 1 0 {fingerprint} 5 5",
                "AB".repeat(16)
            )),
            "lease is damaged",
        ),
        (
            line(&format!("locked claimed {lease} 1 0 {fingerprint}00 5 5")),
            "fingerprint is damaged",
        ),
        (
            line(&format!(
                "locked claimed {lease} 1 0 {fingerprint} 5 1000000000000000"
            )),
            "retention is damaged",
        ),
    ];
    for (value, reason) in values {
        let key = name(1).to_string();
        server.command::<()>(&["SET", &key, &value, "PX", "60000"]);
        for event in events() {
            let sent = format!("{event:?}");
            let error = store.apply(&name(1), event).await.unwrap_err();
            assert!(error.is_unreadable(), "{value:?}, {sent}: {error:?}");
            assert!(
                chain(&error).contains(reason),
                "{value:?}, {sent}: {error:?}"
            );
        }
        let error = store.look(&name(1)).await.unwrap_err();
        assert!(
            error.is_unreadable() && chain(&error).contains(reason),
            "{value:?}: {error:?}"
        );
        assert_eq!(server.command::<String>(&["GET", &key]), value);
        let left: u64 = server.command(&["PTTL", &key]);
        assert!((50_000..=60_000).contains(&left), "{value:?}: {left}");
    }
}

#[tokio::test]
async fn key_of_other_type_is_kept() {
    let server = RedisServer::start();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let key = name(1).to_string();
    server.command::<()>(&["RPUSH", &key, "a", "b"]);
    for event in events() {
        let sent = format!("{event:?}");
        let error = store.apply(&name(1), event).await.unwrap_err();
        assert!(error.is_unreadable(), "{sent}: {error:?}");
    }
    let error = store.look(&name(1)).await.unwrap_err();
    assert!(
        error.is_unreadable() && chain(&error).contains("another type"),
        "{error:?}"
    );
    assert_eq!(server.command::<u64>(&["LLEN", &key]), 2);
    // The key does not keep other records from being listed, either.
    assert!(
        indeterminate(&store, &"test".parse().unwrap(), 10)
            .await
            .unwrap()
            .is_empty()
    );
}

/// Red if only indeterminate records are read, and if a live or claimed lock is listed.
#[tokio::test]
async fn expired_dispatched_locks_are_listed() {
    let server = RedisServer::start();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    for number in 1..4 {
        store.apply(&name(number), acquire(1)).await.unwrap();
    }
    let enter = Event::Enter {
        claim: claim(1),
        step: 1,
        phase: Phase::Claimed,
    };
    store.apply(&name(2), enter).await.unwrap();
    // The time to live is below the retention: the leases have expired.
    let retention = claim(1).retention.as_millis() - 1;
    for number in [1, 2] {
        let key = name(number).to_string();
        server.command::<()>(&["PEXPIRE", &key, &retention.to_string()]);
    }
    let namespace = "test".parse().unwrap();
    let listed = indeterminate(&store, &namespace, 10).await.unwrap();
    let keys: Vec<_> = listed.iter().map(|(key, _)| *key).collect();
    assert_eq!(keys, [name(1).key], "{listed:?}");
}

/// Red if such a record ends the list with its error.
#[tokio::test]
async fn unreadable_record_hides_no_other() {
    let server = RedisServer::start();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let abandon = Event::Abandon {
        claim: claim(1),
        step: 1,
        cause: "reset".into(),
    };
    store.apply(&name(1), abandon).await.unwrap();
    let (key, copy) = (name(1).to_string(), name(2).to_string());
    server.command::<u64>(&["COPY", &key, &copy]);
    store.apply(&name(3), acquire(1)).await.unwrap();
    server.command::<()>(&["PERSIST", &name(3).to_string()]);
    let listed = indeterminate(&store, &"test".parse().unwrap(), 10).await;
    let keys: Vec<_> = listed.unwrap().into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, [name(1).key]);
}

/// Scripts compute with doubles and must not write `1e+14`.
#[tokio::test]
async fn large_numbers_stay_exact() {
    let server = RedisServer::start();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let (lease, fingerprint) = (claim(1).lease, claim(1).fingerprint);
    let key = name(1).to_string();
    let json = format!(r#"{{"name":"{key}","attempts":0,"attempt_timeout_ms":0}}"#);
    let line = |step: u32, rev: u64, phase: &str, retention: u64| {
        let terms = format!("{lease} {rev} {step} {fingerprint} 60000 {retention}");
        format!("genesys-once/3 locked {phase} {terms}\n{json}\n")
    };
    let (step, rev) = (u32::MAX - 1, 123_456_789_012_344);
    let value = line(step, rev, "dispatched", 3_600_000);
    server.command::<()>(&["SET", &key, &value, "PX", "9000000"]);
    // A century: the bound on a retention that is longer than Redis can count.
    let century = 100 * 365 * 24 * 3600 * 1000;
    let enter = Event::Enter {
        claim: genesys_once::record::Claim {
            retention: Duration::MAX,
            ..claim(1)
        },
        step: u32::MAX,
        phase: genesys_once::record::Phase::Claimed,
    };
    store.apply(&name(1), enter).await.unwrap();
    let value: String = server.command(&["GET", &key]);
    assert_eq!(value, line(u32::MAX, rev + 1, "claimed", century));
    // Beyond 2^53 no number is exact, so the script refuses to count.
    let value = line(0, 1 << 53, "dispatched", 3_600_000);
    server.command::<()>(&["SET", &key, &value, "PX", "9000000"]);
    assert!(
        store
            .apply(&name(1), extend(1))
            .await
            .unwrap_err()
            .is_unreadable()
    );
}

/// The script writes exactly the bytes of `record::apply`, on its fast path and for an
/// outcome of a later step. Red if the fast path does not compare the step.
#[tokio::test]
async fn complete_writes_the_transition_result() {
    let server = RedisServer::start();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    for (number, at) in [(1, 0), (2, 3)] {
        let mut event = complete(1, r#"{"amount": 19.90}"#);
        if let Event::Complete { step, .. } = &mut event {
            *step = at;
        }
        let taken = record::apply(None, &acquire(1)).0.unwrap();
        let written = record::apply(Some((&taken.0, taken.1)), &event).0.unwrap();
        for event in [acquire(1), event] {
            let answer = store.apply(&name(number), event).await.unwrap();
            assert_eq!(answer, Answer::Done);
        }
        let value: Vec<u8> = server.command(&["GET", &name(number).to_string()]);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert_eq!(
            text(&value),
            text(&written.0.encode(&name(number))),
            "step {at}"
        );
    }
}

/// A value that this crate cannot have written, as large as Redis accepts by default. Only
/// an acquire, which is one command, asks for the value, and its connection ends before the
/// value has arrived. Red if a look or a script reads a value of any size, or if an acquire
/// waits for all of it.
#[tokio::test]
async fn huge_value_is_never_fetched() {
    const SIZE: usize = 128 << 20;
    let server = RedisServer::start();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let key = name(1).to_string();
    // The first line is that of a valid record.
    let (lease, fingerprint) = (claim(1).lease, claim(1).fingerprint);
    let line = format!("genesys-once/3 cached - {lease} 2 0 {fingerprint} 60000 3600000\n");
    server.command::<()>(&["SET", &key, &line, "PX", "600000"]);
    server.command::<()>(&["SETRANGE", &key, &(SIZE - 1).to_string(), "x"]);
    let sent = || -> usize {
        let info: String = server.command(&["INFO", "stats"]);
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix("total_net_output_bytes:"));
        line.unwrap().trim().parse().unwrap()
    };
    let before = sent();
    let acquires = events()
        .iter()
        .filter(|event| matches!(event, Event::Acquire { .. }))
        .count();
    assert_eq!(acquires, 1);
    for event in events() {
        let name_of = format!("{event:?}");
        let error = store.apply(&name(1), event).await.unwrap_err();
        assert!(error.is_unreadable(), "{name_of}: {error:?}");
        assert!(chain(&error).contains("larger than"), "{error:?}");
    }
    let error = store.look(&name(1)).await.unwrap_err();
    assert!(error.is_unreadable(), "{error:?}");
    // Some bytes were on their way before the connection ended.
    let sent = sent() - before;
    assert!(sent < SIZE / 4, "{sent} bytes");
    assert_eq!(server.command::<usize>(&["STRLEN", &key]), SIZE);
    store.apply(&name(2), acquire(1)).await.unwrap();
}

/// The largest record that can be written can be read. Red without a limit on writes.
#[tokio::test]
async fn unreadable_outcome_is_never_written() {
    let server = RedisServer::start();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    store.apply(&name(1), acquire(1)).await.unwrap();
    let error = store
        .apply(&name(1), complete(1, &"\u{1}".repeat((32 << 20) + 1)))
        .await
        .unwrap_err();
    assert!(
        error.is_refused() && chain(&error).contains("larger than 32 MiB"),
        "{error:?}"
    );
    let body = "\u{1}".repeat(32 << 20);
    store.apply(&name(1), complete(1, &body)).await.unwrap();
    let answer = store.apply(&name(1), acquire(2)).await.unwrap();
    let Answer::Is(Some(RecordState::Cached { stored, .. })) = answer else {
        panic!("not cached");
    };
    assert!(*stored.outcome.body() == body);
}

/// Red if a script reads the outcome.
#[tokio::test]
async fn recorded_outcome_is_read_by_get() {
    let server = RedisServer::start();
    let store = RedisStore::connect(&server.url()).await.unwrap();
    store.apply(&name(1), acquire(1)).await.unwrap();
    // The lease has a time left, which a plain `GET` does not return.
    let held = store.peek(&name(1)).await.unwrap();
    let minute = Duration::from_secs(60);
    assert!(
        matches!(held, Some(RecordState::Locked { lease_left, .. }) if lease_left > minute / 2),
        "{held:?}"
    );
    store.apply(&name(1), complete(1, "{}")).await.unwrap();
    server.command::<()>(&["CONFIG", "RESETSTAT"]);
    let found = store.peek(&name(1)).await.unwrap();
    assert!(
        matches!(found, Some(RecordState::Cached { .. })),
        "{found:?}"
    );
    assert_eq!(store.peek(&name(2)).await.unwrap(), None);
    assert_eq!(server.calls(), [("get".to_owned(), 2)]);
}
