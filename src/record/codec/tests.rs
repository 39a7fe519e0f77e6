//! Every state survives the round trip, and damage is never read as something else.

use super::*;
use crate::key::Fingerprint;
use crate::record::LeaseId;
use proptest::prelude::*;

fn record(content: Content) -> Record {
    Record {
        rev: 7,
        lease: LeaseId::from_bytes([0xab; 16]),
        step: 3,
        retention: Duration::from_millis(604_800_000),
        fingerprint: Fingerprint::from_bytes([0xcd; 32]),
        content,
    }
}

fn outcome(body: impl Into<Bytes>) -> Arc<Outcome> {
    let mut headers = HeaderMap::new();
    headers.append("x-a", HeaderValue::from_static("1"));
    headers.append("x-a", HeaderValue::from_static("2"));
    headers.append("x-latin", HeaderValue::from_bytes(b"caf\xe9").unwrap());
    Arc::new(Outcome::new(StatusCode::OK, headers, body))
}

#[test]
fn every_state_survives_the_round_trip() {
    let refusal = Refusal::RateLimited {
        retry_after: Duration::from_millis(1500),
    };
    for content in [
        Content::Locked(Phase::Claimed),
        Content::Locked(Phase::Dispatched),
        Content::Cached {
            outcome: outcome("{\"a\":\"\\u0000é\"}"),
            kept: Kept::Whole,
        },
        Content::Cached {
            outcome: outcome(vec![0xff, 0, 0xfe]),
            kept: Kept::Whole,
        },
        Content::Cached {
            outcome: outcome(""),
            kept: Kept::TooLarge,
        },
        Content::Cached {
            outcome: outcome("sha256"),
            kept: Kept::Sensitive,
        },
        Content::Indeterminate {
            since: UNIX_EPOCH + Duration::from_millis(1_795_000_000_123),
            cause: "connection reset\nby \"peer\"".into(),
        },
        Content::Released { verdict: None },
        Content::Released {
            verdict: Some(Refusal::Refused(outcome("no"))),
        },
        Content::Released {
            verdict: Some(Refusal::Reduced {
                outcome: outcome(""),
                kept: Kept::Sensitive,
            }),
        },
        Content::Released {
            verdict: Some(refusal),
        },
    ] {
        let record = record(content);
        assert_eq!(Record::decode(&record.encode()).unwrap(), record);
    }
}

#[test]
fn a_retention_for_ever_can_be_read_back() {
    let mut record = record(Content::Locked(Phase::Claimed));
    record.retention = Duration::MAX;
    let read = Record::decode(&record.encode()).unwrap();
    assert_eq!(read.retention, Duration::from_millis(u64::MAX));
}

#[test]
fn the_first_line_is_fixed() {
    let text = String::from_utf8(record(Content::Locked(Phase::Claimed)).encode()).unwrap();
    let expected = format!(
        "genesys-once/1 locked {} 3 7 claimed 604800000 {}\n",
        "ab".repeat(16),
        "cd".repeat(32)
    );
    assert_eq!(text, expected);
}

#[test]
fn cookies_and_hop_by_hop_headers_are_not_kept() {
    let mut headers = HeaderMap::new();
    for name in NOT_KEPT {
        headers.append(name, HeaderValue::from_static("x"));
    }
    headers.append("content-type", HeaderValue::from_static("application/json"));
    let outcome = Arc::new(Outcome::new(StatusCode::OK, headers, "{}"));
    let stored = record(Content::Cached {
        outcome,
        kept: Kept::Whole,
    })
    .encode();
    let Content::Cached { outcome, .. } = Record::decode(&stored).unwrap().content else {
        panic!("not cached");
    };
    assert_eq!(outcome.headers.len(), 1);
    assert_eq!(outcome.header("content-type"), Some("application/json"));
}

#[test]
fn a_newer_version_and_foreign_values_are_unreadable() {
    for text in [
        "",
        "\n",
        "hello\n",
        "genesys-once/2 locked a b\n",
        "genesys-once/1 locked\n",
        "genesys-once/1 cached 0 0 0 - 0 0\n{}",
    ] {
        let error = Record::decode(text.as_bytes()).unwrap_err();
        assert!(error.is_unreadable(), "{text:?}: {error:?}");
    }
    // A revision that cannot be raised any more would end in an overflow.
    let mut last = record(Content::Locked(Phase::Claimed));
    last.rev = u64::MAX;
    assert!(Record::decode(&last.encode()).unwrap_err().is_unreadable());
    let newer = Record::decode(b"genesys-once/2 x\n").unwrap_err();
    assert!(
        crate::error::chain(&newer).contains("version \"2\""),
        "{newer:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100_000))]

    /// A changed byte yields an error or a record, never a panic.
    #[test]
    fn mutated_records_never_panic(at in any::<prop::sample::Index>(), to: u8, cut in any::<prop::sample::Index>()) {
        let mut bytes = record(Content::Cached { outcome: outcome("{\"a\":1}"), kept: Kept::Whole }).encode();
        let at = at.index(bytes.len());
        bytes[at] = to;
        let _ = Record::decode(&bytes);
        bytes.truncate(cut.index(bytes.len()));
        let _ = Record::decode(&bytes);
    }
}
