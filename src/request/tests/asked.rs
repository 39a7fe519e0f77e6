//! Fingerprints, which depend on what a request asks for alone, and labels, on which
//! neither key nor fingerprint depends.

use sha2::{Digest as _, Sha256};

use super::{assert_refused, key, request};
use crate::key::Fingerprint;
use crate::request::DataActionRequest;

/// Red if a pointer is a part of the fingerprint: a new pointer that matched nothing
/// then made a mismatch of each recorded request.
#[test]
fn fingerprint_depends_on_the_request_alone() {
    let base = || request(r#"{"a":{},"b":1}"#);
    let variants = [
        (base(), ""),
        (base(), "r"),
        (base(), "/b"),
        (request("1"), ""),
        (request("2"), ""),
        (base().ignoring(["/a"]).unwrap(), ""),
        (base().ignoring(["/b"]).unwrap(), ""),
        (
            DataActionRequest::new("other", r#"{"a":{},"b":1}"#).unwrap(),
            "",
        ),
    ];
    for (i, (a, route_a)) in variants.iter().enumerate() {
        for (b, route_b) in &variants[..i] {
            assert_ne!(a.fingerprint(route_a), b.fingerprint(route_b));
        }
        let other_ways = [
            a.clone()
                .with_key("k")
                .unwrap()
                .with_scope("s")
                .unwrap()
                .sensitive(),
            a.clone().with_label("refund").unwrap(),
            a.clone().ignoring(["/x", "/y/z"]).unwrap(),
            a.clone().forward_key("/x").unwrap_or(a.clone()),
            a.clone().forward_key("/a/x").unwrap_or(a.clone()),
        ];
        for other in other_ways {
            assert_eq!(other.fingerprint(route_a), a.fingerprint(route_a));
        }
    }
    let left = request(r#"{"a":{}}"#);
    let pruned = base().ignoring(["/b"]).unwrap();
    assert_eq!(left.fingerprint(""), pruned.fingerprint(""));
}

/// Byte by byte: a fingerprint is compared with those that other versions wrote.
#[test]
fn fingerprint_is_this_hash() {
    let request = request(r#"{ "b":1.0, "a":"x" }"#).ignoring(["/a"]).unwrap();
    let action = request.action_id().as_str().to_owned();
    let hashed = Sha256::digest(format!(
        "{action}:{{\"b\":1}}\0fingerprint 2\0https://h:443\nactions"
    ));
    let expected = Fingerprint::from_bytes(hashed.into());
    assert_eq!(request.fingerprint("https://h:443\nactions"), expected);
}

#[test]
fn labels_are_bounded_and_change_nothing() {
    let plain = request("{}");
    let labelled = plain.clone().with_label("refund order 42").unwrap();
    assert_eq!(key(&plain), key(&labelled));
    assert_eq!(plain.called(), [None, None, None]);
    assert_eq!(labelled.called()[2].as_deref(), Some("refund order 42"));
    assert!(plain.clone().with_label("é".repeat(128)).is_ok());
    for bad in ["", "a\nb", &"x".repeat(257)] {
        assert_refused(plain.clone().with_label(bad), "label");
    }
}
