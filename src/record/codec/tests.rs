//! Every state survives the round trip, and no damaged record is read as another one.

use super::*;
use crate::key::{Fingerprint, IdempotencyKey};
use crate::outcome::{NOT_KEPT, Outcome, StoredBody};
use crate::record::{
    About, Attempts, Caller, Cause, Holder, LeaseId, Origin, Resolved, StoredOutcome,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use proptest::prelude::*;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

mod notes;
#[cfg(feature = "redis")]
mod separate_body;

fn name() -> RecordName {
    let key = IdempotencyKey::from_bytes([0x1f; 32]);
    RecordName::new("billing".parse().unwrap(), key)
}

const ATTEMPTS: Attempts = Attempts {
    sent: Some(UNIX_EPOCH),
    count: 2,
    timeout: Duration::from_millis(65_000),
};

fn encode(record: &Record) -> Vec<u8> {
    record.encode(&name())
}

fn decode(bytes: &[u8]) -> Result<Record, StoreError> {
    Record::decode(&name(), bytes)
}

fn moment(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn about() -> About {
    About {
        action: "custom_-_1".parse().ok(),
        caller: Caller {
            own_key: Some("order \"42\"".into()),
            scope: Some("eu".into()),
            label: Some("refund".into()),
            sealed: None,
        },
        holder: Some(Arc::new(Holder {
            host: "app-3".into(),
            process: 4711,
            started: moment(1),
        })),
    }
}

fn origin() -> Origin {
    Origin {
        action: "custom_-_1".parse().ok(),
        answered: Some(moment(2)),
        attempts: 2,
        resolved: Some(Resolved {
            at: moment(3),
            by: Some("ticket 4711".into()),
        }),
    }
}

fn locked(phase: Phase) -> Content {
    Content::Locked {
        phase,
        attempts: ATTEMPTS,
        about: Arc::new(about()),
    }
}

fn record(content: Content) -> Record {
    Record {
        rev: 7,
        lease: LeaseId::from_bytes([0xab; 16]),
        step: 3,
        lease_ttl: Duration::from_millis(30_000),
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
        locked(Phase::Claimed),
        locked(Phase::Dispatched),
        Content::Locked {
            phase: Phase::Claimed,
            attempts: Attempts {
                sent: None,
                count: 0,
                ..ATTEMPTS
            },
            about: Default::default(),
        },
        Content::Cached {
            stored: outcome("{\"a\":\"\\u0000é\"}").into(),
            origin: origin(),
        },
        Content::Cached {
            stored: outcome(vec![0xff, 0, 0xfe]).into(),
            origin: origin(),
        },
        Content::Cached {
            stored: StoredOutcome {
                outcome: outcome(""),
                body: StoredBody::OmittedTooLarge,
            },
            origin: origin(),
        },
        Content::Cached {
            stored: StoredOutcome {
                outcome: outcome("sha256"),
                body: StoredBody::OmittedSensitive,
            },
            origin: origin(),
        },
        Content::Indeterminate {
            attempts: Attempts {
                sent: Some(UNIX_EPOCH + Duration::from_millis(1_795_000_000_123)),
                ..ATTEMPTS
            },
            about: Arc::new(about()),
            cause: Some("connection reset\nby \"peer\"".into()),
        },
        Content::Indeterminate {
            attempts: ATTEMPTS,
            about: Default::default(),
            cause: None,
        },
        Content::Cached {
            stored: outcome("a line\n{}\ngenesys-once/3 locked\n").into(),
            origin: origin(),
        },
        Content::Released { refusal: None },
        Content::Released {
            refusal: Some(Refusal::Refused(outcome("no").into())),
        },
        Content::Released {
            refusal: Some(Refusal::Refused(StoredOutcome {
                outcome: outcome(""),
                body: StoredBody::OmittedSensitive,
            })),
        },
        Content::Released {
            refusal: Some(refusal),
        },
    ] {
        let record = record(content);
        assert_eq!(decode(&encode(&record)).unwrap(), record);
    }
}

#[test]
fn endless_retention_is_read_back_as_the_longest_time() {
    let mut record = record(locked(Phase::Claimed));
    record.retention = Duration::MAX;
    let read = decode(&encode(&record)).unwrap();
    assert_eq!(read.retention, Duration::from_millis(MAX_NUMBER));
}

/// Names, prefix and JSON, byte by byte: other programs read them.
#[test]
fn records_are_these_bytes() {
    let (lease, fingerprint) = ("ab".repeat(16), "cd".repeat(32));
    let key = "1f".repeat(32);
    let name = format!("\"name\":\"genesys-once:billing:{key}\"");
    let terms = format!("{lease} 7 3 {fingerprint} 30000 604800000");
    let small = Arc::new(Outcome::new(
        StatusCode::OK,
        HeaderMap::new(),
        "{\"a\":\n1}",
    ));
    let refusal = Some(Refusal::RateLimited {
        retry_after: Duration::from_millis(1500),
    });
    for (content, expected) in [
        (
            locked(Phase::Claimed),
            format!(
                "locked claimed {terms}\n{{{name},\"sent_ms\":0,\"attempts\":2,\"attempt_timeout_ms\":65000,\"action\":\"custom_-_1\",\"own_key\":\"order \\\"42\\\"\",\"scope\":\"eu\",\"label\":\"refund\",\"host\":\"app-3\",\"process\":4711,\"started_ms\":1000}}\n"
            ),
        ),
        (
            Content::Indeterminate {
                attempts: ATTEMPTS,
                about: Arc::new(about()),
                cause: Some(Cause {
                    text: "cut".into(),
                    correlation_id: Some("1b2c".into()),
                }),
            },
            format!(
                "indeterminate - {terms}\n{{{name},\"sent_ms\":0,\"attempts\":2,\"attempt_timeout_ms\":65000,\"action\":\"custom_-_1\",\"own_key\":\"order \\\"42\\\"\",\"scope\":\"eu\",\"label\":\"refund\",\"host\":\"app-3\",\"process\":4711,\"started_ms\":1000,\"cause\":\"cut\",\"correlation_id\":\"1b2c\"}}\n"
            ),
        ),
        (
            Content::Cached {
                stored: small.into(),
                origin: origin(),
            },
            format!(
                "cached - {terms}\n{{{name},\"status\":200,\"headers\":[],\"body\":8,\"action\":\"custom_-_1\",\"answered_ms\":2000,\"attempts\":2,\"resolved_ms\":3000,\"resolved_by\":\"ticket 4711\"}}\n{{\"a\":\n1}}"
            ),
        ),
        (
            Content::Released { refusal: None },
            format!("released - {terms}\n{{{name}}}\n"),
        ),
        (
            Content::Released { refusal },
            format!("released refused {terms}\n{{{name},\"retry_after_ms\":1500}}\n"),
        ),
    ] {
        let text = String::from_utf8(encode(&record(content))).unwrap();
        assert_eq!(text, format!("genesys-once/3 {expected}"));
    }
}

/// Red without the length of the body in the JSON: a cut body was read as another answer.
#[test]
fn cut_or_grown_body_is_unreadable() {
    let whole = encode(&record(Content::Cached {
        stored: outcome("{\"amount\":100}").into(),
        origin: origin(),
    }));
    for cut in 1..14 {
        let error = decode(&whole[..whole.len() - cut]).unwrap_err();
        assert!(error.is_unreadable(), "{cut}: {error:?}");
    }
    for (tail, read) in [("\n", true), ("\r\n", true), ("x", false), ("\n0", false)] {
        let grown = [&whole[..], tail.as_bytes()].concat();
        match decode(&grown) {
            Ok(record) if read => {
                let Content::Cached { stored, .. } = record.content else {
                    panic!("{record:?}");
                };
                assert_eq!(stored.outcome.body(), "{\"amount\":100}");
            }
            Err(error) if !read => assert!(error.is_unreadable()),
            other => panic!("{tail:?}: {other:?}"),
        }
    }
}

#[test]
fn record_answers_under_its_own_name_only() {
    let bytes = encode(&record(locked(Phase::Dispatched)));
    let key = IdempotencyKey::from_bytes([0x2f; 32]);
    for other in [
        RecordName::new("billing".parse().unwrap(), key),
        RecordName::new("billing-2".parse().unwrap(), name().key),
    ] {
        let error = Record::decode(&other, &bytes).unwrap_err();
        assert!(error.is_unreadable(), "{error:?}");
    }
}

#[test]
fn unknown_words_and_members_are_ignored() {
    let record = record(locked(Phase::Dispatched));
    let text = String::from_utf8(encode(&record)).unwrap();
    let text = text.replacen("604800000\n{", "604800000 later words\n{\"later\":[1],", 1);
    assert_eq!(decode(text.as_bytes()).unwrap(), record);
}

#[test]
fn unreadable_refusal_counts_as_absent() {
    let refused = Some(Refusal::Refused(outcome("no").into()));
    let text = encode(&record(Content::Released { refusal: refused }));
    let cut = decode(&text[..text.len() - 1]).unwrap();
    assert_eq!(cut.content, Content::Released { refusal: None });
}

/// The scripts read the first line by the same rules.
#[test]
fn numbers_and_hex_digits_have_one_spelling() {
    let text = String::from_utf8(encode(&record(locked(Phase::Claimed)))).unwrap();
    assert!(decode(text.as_bytes()).is_ok());
    for (from, to) in [
        (" 7 3 ", " +7 3 "),
        (" 7 3 ", " 1000000000000000 3 "),
        (" 7 3 ", " 7 4294967296 "),
        (" 7 3 ", "  3 "),
        ("abab", "ABAB"),
        ("cdcd", "CDcd"),
    ] {
        let spelled = text.replacen(from, to, 1);
        let error = decode(spelled.as_bytes()).unwrap_err();
        assert!(error.is_unreadable(), "{to:?}: {error:?}");
    }
}

#[test]
fn cookies_and_hop_by_hop_headers_are_not_stored() {
    let mut headers = HeaderMap::new();
    for name in NOT_KEPT {
        headers.append(name, HeaderValue::from_static("x"));
    }
    headers.append("content-type", HeaderValue::from_static("application/json"));
    let outcome = Arc::new(Outcome::new(StatusCode::OK, headers, "{}"));
    let bytes = record(Content::Cached {
        stored: outcome.into(),
        origin: origin(),
    })
    .encode(&name());
    let Content::Cached { stored, .. } = decode(&bytes).unwrap().content else {
        panic!("not cached");
    };
    assert_eq!(stored.outcome.headers().len(), 1);
    assert_eq!(
        stored.outcome.header("content-type"),
        Some("application/json")
    );
}

#[test]
fn newer_versions_and_foreign_values_are_unreadable() {
    for text in [
        "",
        "\n",
        "hello\n",
        "genesys-once/4 locked a b\n",
        "genesys-once/2 locked\n",
        "genesys-once/3 locked\n",
        "genesys-once/3 cached - 0 0 0 0 0 0\n{}",
    ] {
        let error = decode(text.as_bytes()).unwrap_err();
        assert!(error.is_unreadable(), "{text:?}: {error:?}");
    }
    let newer = decode(b"genesys-once/4 x\n").unwrap_err();
    assert!(
        crate::error::chain(&newer).contains("version \"4\""),
        "{newer:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100_000))]

    /// A changed byte yields an error or a record, never a panic.
    #[test]
    fn mutated_records_never_panic(at in any::<prop::sample::Index>(), to: u8, cut in any::<prop::sample::Index>()) {
        let mut bytes = record(Content::Cached { stored: outcome("{\"a\":1}").into(), origin: origin() }).encode(&name());
        let at = at.index(bytes.len());
        bytes[at] = to;
        let _ = decode(&bytes);
        bytes.truncate(cut.index(bytes.len()));
        let _ = decode(&bytes);
    }
}

/// Red with `HeaderMap::with_capacity` of the record's number, and with `append`: both
/// panicked in the reader.
#[test]
fn more_headers_than_a_map_holds_are_unreadable() {
    let header: String = (0..40_000).map(|n| format!("[\"x-{n}\",\"1\"],")).collect();
    let text = String::from_utf8(encode(&record(Content::Cached {
        stored: Outcome::new(StatusCode::OK, HeaderMap::new(), "{}").into(),
        origin: origin(),
    })))
    .unwrap();
    let header = header.trim_end_matches(',');
    let text = text.replacen("\"headers\":[]", &format!("\"headers\":[{header}]"), 1);
    let error = decode(text.as_bytes()).unwrap_err();
    assert!(error.is_unreadable(), "{error:?}");
}
