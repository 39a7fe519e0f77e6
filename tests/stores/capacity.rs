//! How much memory a record takes, in Redis and in a file: measures the figures of the guide
//! *operating*.
//!
//! ```sh
//! cargo test --all-features --test stores -- --nocapture capacity
//! ```
//!
//! prints them for the server that `REDIS_SERVER` names.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use genesys_once::record::{
    About, Answer, Attempts, Claim, Event, Fingerprint, Holder, LeaseId, Origin, RecordName,
};
use genesys_once::{
    Encrypted, EncryptionKeys, FileStore, IdempotencyKey, Outcome, RedisStore, Store,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::support::redis::RedisServer;

const GUIDE: &str = include_str!("../../src/guide/operating.md");
const RECORDS: u64 = 4_000;

/// A kind of record, by its name in the guide's table.
#[derive(Clone, Copy)]
enum Kind {
    Locked,
    Indeterminate,
    Cached(usize),
    Encrypted(usize),
}

const KINDS: [(&str, Kind); 7] = [
    ("locked", Kind::Locked),
    ("indeterminate", Kind::Indeterminate),
    ("cached, 200 bytes of body", Kind::Cached(200)),
    ("cached, 1 KiB of body", Kind::Cached(1 << 10)),
    ("cached, 4 KiB of body", Kind::Cached(4 << 10)),
    ("cached, 64 KiB of body", Kind::Cached(64 << 10)),
    ("encrypted: cached, 1 KiB of body", Kind::Encrypted(1 << 10)),
];

/// The headers of an answer of the platform: 12 of them, some 450 bytes.
fn headers() -> HeaderMap {
    const PLATFORM: [(&str, &str); 12] = [
        ("content-type", "application/json"),
        ("date", "Tue, 24 Nov 2026 07:00:00 GMT"),
        (
            "inin-correlation-id",
            "5a0b3f0e-6d1c-4b8e-9f59-3a1f0c6f7a10",
        ),
        ("cache-control", "no-cache, no-store, must-revalidate"),
        ("pragma", "no-cache"),
        ("expires", "0"),
        (
            "strict-transport-security",
            "max-age=600; includeSubDomains",
        ),
        ("inin-ratelimit-count", "17"),
        ("inin-ratelimit-allowed", "300"),
        ("inin-ratelimit-reset", "54"),
        ("vary", "Accept-Encoding"),
        ("server", "nginx"),
    ];
    PLATFORM
        .into_iter()
        .map(|(name, value)| {
            let value = HeaderValue::from_static(value);
            (HeaderName::from_static(name), value)
        })
        .collect()
}

/// The notes of a record: an action, a label, a host.
fn about() -> About {
    let mut about = About {
        action: "custom_-_5a0b3f0e-6d1c-4b8e-9f59-3a1f0c6f7a10".parse().ok(),
        holder: Some(Arc::new(Holder {
            host: "refunds-7d9c5b6f4-x2x8k".into(),
            process: 4711,
            started: SystemTime::now(),
        })),
        ..About::default()
    };
    about.caller.label = Some("refund order 42-4711".into());
    about
}

/// Writes one record under its own key, as the engine does.
async fn write(store: &dyn Store, number: u64, kind: Kind) {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    // As long as the platform's own namespaces.
    let namespace = "go-0123456789abcdef0123456789abcdef".parse().unwrap();
    let name = RecordName::new(namespace, IdempotencyKey::from_bytes(key));
    let claim = Claim {
        lease: LeaseId::random(),
        fingerprint: Fingerprint::from_bytes([7; 32]),
        lease_ttl: Duration::from_secs(30),
        retention: Duration::from_secs(7 * 24 * 3600),
        attempts: Attempts {
            sent: Some(SystemTime::now()),
            count: 1,
            timeout: Duration::from_secs(65),
        },
        about: Arc::new(about()),
    };
    let end = match kind {
        Kind::Locked => None,
        Kind::Indeterminate => Some(Event::Abandon {
            claim: claim.clone(),
            step: 1,
            cause: "no whole answer after the request might have been sent: connection reset"
                .into(),
        }),
        Kind::Cached(bytes) | Kind::Encrypted(bytes) => {
            let body = format!(r#"{{"refund":"{}"}}"#, "x".repeat(bytes - 13));
            Some(Event::Complete {
                claim: claim.clone(),
                step: 0,
                stored: Outcome::new(StatusCode::OK, headers(), body).into(),
                origin: Origin {
                    action: about().action,
                    answered: Some(SystemTime::now()),
                    attempts: 1,
                    resolved: None,
                },
                ttl: Duration::from_secs(24 * 3600),
            })
        }
    };
    for event in [Some(Event::Acquire { claim }), end].into_iter().flatten() {
        let answer = store.apply(&name, event).await.unwrap();
        assert_eq!(answer, Answer::Done);
    }
}

async fn write_all(store: &dyn Store, records: u64, kind: Kind) {
    // Writes in batches: a reply behind megabytes of others comes too late.
    for start in (0..records).step_by(50) {
        let some = start..records.min(start + 50);
        join_all(some.map(|number| write(store, number, kind))).await;
    }
}

fn memory(redis: &RedisServer) -> u64 {
    let info: String = redis.command(&["INFO", "memory"]);
    let used = info.lines().find_map(|l| l.strip_prefix("used_memory:"));
    used.unwrap().trim().parse().unwrap()
}

/// The guide's figure: the second column of its row.
fn guide(name: &str) -> u64 {
    let row = GUIDE
        .lines()
        .find(|line| line.starts_with(&format!("| {name} |")));
    let row = row.unwrap_or_else(|| panic!("the guide has no row {name:?}"));
    let digits = row.split('|').nth(2).unwrap().replace([',', ' '], "");
    digits.parse().unwrap()
}

/// Red if a figure of the guide is changed by a third. A measured figure may differ by a
/// quarter, since servers differ.
#[tokio::test]
async fn record_size_in_redis_matches_the_guide() {
    let redis = RedisServer::start();
    let store = RedisStore::connect(&redis.url()).await.unwrap();
    let keys = EncryptionKeys::new("2026-11", [7; 32]).unwrap();
    let encrypted = Encrypted::new(store.clone(), keys);
    let mut wrong = Vec::new();
    println!("record, bytes: whole server, MEMORY USAGE, guide");
    for (name, kind) in KINDS {
        let _: () = redis.command(&["FLUSHALL", "SYNC"]);
        let before = memory(&redis);
        match kind {
            Kind::Encrypted(_) => write_all(&encrypted, RECORDS, kind).await,
            _ => write_all(&store, RECORDS, kind).await,
        }
        let each = (memory(&redis) - before) / RECORDS;
        let any: String = redis.command(&["RANDOMKEY"]);
        let usage: u64 = redis.command(&["MEMORY", "USAGE", &any]);
        let guide = guide(name);
        println!("{name}: {each}, {usage}, {guide}");
        if each.abs_diff(guide) * 4 > guide {
            wrong.push(format!("{name}: {each} bytes, and the guide says {guide}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn record_size_in_a_file_matches_the_guide() {
    const ROW: &str = "in a file: cached, 1 KiB of body";
    let folder = std::env::temp_dir().join(format!("capacity-{}", std::process::id()));
    let path = folder.join("records.redb");
    let store = FileStore::open(&path).unwrap();
    write_all(&store, RECORDS, Kind::Cached(1 << 10)).await;
    drop(store);
    // Opening the file compacts it.
    drop(FileStore::open(&path).unwrap());
    let each = std::fs::metadata(&path).unwrap().len() / RECORDS;
    std::fs::remove_dir_all(folder).unwrap();
    let guide = guide(ROW);
    println!("{ROW}: {each}, {guide}");
    assert!(
        each.abs_diff(guide) * 4 <= guide,
        "{each} bytes, and the guide says {guide}"
    );
}
