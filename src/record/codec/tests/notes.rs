//! Notes for people and JSON for other programs: notes block no key, and the JSON is fixed.

use super::*;
use crate::record::RecordState;

/// Red when notes must have their type: a label that is a number made the key unreadable.
#[test]
fn unknown_notes_block_no_key() {
    let record = record(locked(Phase::Dispatched));
    let text = String::from_utf8(encode(&record)).unwrap();
    for (from, to) in [
        ("\"refund\"", "7"),
        ("\"refund\"", "[1,{}]"),
        ("\"refund\"", "null"),
        ("\"refund\"", "{\"a\":[]}"),
        ("\"app-3\"", "-1.5"),
        ("4711", "true"),
        ("4711", "4294967296"),
        ("\"started_ms\":1000", "\"started_ms\":\"x\""),
        ("\"started_ms\":1000", "\"started_ms\":18446744073709551615"),
        ("\"custom_-_1\"", "\"a:b\""),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        let read = decode(changed.as_bytes()).unwrap();
        assert_eq!(
            (read.revision(), read.step),
            (record.revision(), record.step),
            "{to}"
        );
    }
    let whole = Content::Released {
        refusal: Some(Refusal::Refused(outcome("no").into())),
    };
    let text = String::from_utf8(encode(&super::record(whole))).unwrap();
    for (from, to) in [
        ("released refused", "released later-kind"),
        ("\"status\":200", "\"status\":\"ok\""),
        ("\"status\":200", "\"kind\":\"of a later version\""),
        ("\"headers\":[", "\"headers\":[7,"),
    ] {
        let read = decode(text.replacen(from, to, 1).as_bytes()).unwrap();
        let left = matches!(read.content, Content::Released { refusal: None });
        assert!(left || to.starts_with("released"), "{to}: {read:?}");
    }
    // Whose record it is, is needed.
    let copied = text.replacen("billing", "another", 1);
    assert!(decode(copied.as_bytes()).unwrap_err().is_unreadable());
}

/// The JSON for other programs, byte by byte.
#[test]
fn states_are_this_json() {
    let left = Duration::from_secs(604_800 + 7);
    let shown = |content| serde_json::to_value(record(content).state(left)).unwrap();
    let revision = serde_json::json!({"rev": 7, "lease": "ab".repeat(16)});
    let about = serde_json::json!({
        "action": "custom_-_1", "own_key": "order \"42\"", "scope": "eu", "label": "refund",
        "sealed": false, "holder": {"host": "app-3", "process": 4711, "started_ms": 1000},
        "sent_ms": 0, "attempts": 2, "attempt_timeout_ms": 65_000,
        "revision": revision, "fingerprint": "cd".repeat(32),
    });
    let with = |base: &serde_json::Value, more: serde_json::Value| {
        let mut all = base.clone();
        all.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        all
    };
    let held = serde_json::json!({
        "state": "locked", "phase": "dispatched", "lease_left_ms": 7000, "lease_ms": 30_000,
    });
    assert_eq!(shown(locked(Phase::Dispatched)), with(&about, held));
    let lost = Content::Indeterminate {
        attempts: ATTEMPTS,
        about: Arc::new(super::about()),
        cause: Some("cut".into()),
    };
    let open = serde_json::json!({
        "state": "indeterminate", "since_ms": 0, "cause": "cut", "correlation_id": null,
        "age_ms": null, "may_run_ms": 95_000,
    });
    assert_eq!(shown(lost), with(&about, open));
    let cached = Content::Cached {
        stored: Outcome::new(StatusCode::OK, HeaderMap::new(), "{}").into(),
        origin: origin(),
    };
    let known = serde_json::json!({
        "state": "cached", "outcome": {"status": 200, "headers": [], "body": "{}"},
        "left_ms": 604_800_000, "stored_body": "full", "action": "custom_-_1", "answered_ms": 2000,
        "attempts": 2, "resolved": {"at_ms": 3000, "by": "ticket 4711"},
        "revision": revision, "fingerprint": "cd".repeat(32),
    });
    assert_eq!(shown(cached), known);
    let free = serde_json::json!({
        "state": "released", "refusal": {"rate_limited": {"retry_after_ms": 1500}},
        "revision": revision, "fingerprint": "cd".repeat(32),
    });
    let refused = Outcome::new(StatusCode::FORBIDDEN, HeaderMap::new(), "no");
    let refused = StoredOutcome::full(refused);
    let reduced = refused.clone().reduced(StoredBody::OmittedSensitive);
    let status_only = serde_json::json!({"status": 403, "headers": [], "body": ""});
    for (stored, json) in [
        (
            refused,
            serde_json::json!({"refused": {"outcome": {"status": 403, "headers": [], "body": "no"}, "stored_body": "full"}}),
        ),
        (
            reduced,
            serde_json::json!({"refused": {"outcome": status_only, "stored_body": "omitted_sensitive"}}),
        ),
    ] {
        let refusal = Some(Refusal::Refused(stored));
        assert_eq!(shown(Content::Released { refusal })["refusal"], json);
    }
    let retry_after = Duration::from_millis(1500);
    let refusal = Some(Refusal::RateLimited { retry_after });
    assert_eq!(shown(Content::Released { refusal }), free);
}

/// Red when the time to live counts as it is: after a server's clock was set back, a lost
/// holder's lease of half a second showed an hour.
#[test]
fn lease_never_shows_more_than_its_length() {
    let record = record(locked(Phase::Dispatched));
    let hour = Duration::from_secs(3600);
    for left in [record.lifetime(), record.lifetime() + hour, Duration::MAX] {
        let RecordState::Locked { lease_left, .. } = record.state(left) else {
            panic!("not locked");
        };
        assert_eq!(lease_left, record.lease_ttl);
    }
}
