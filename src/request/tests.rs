//! What makes two requests one, and what is sent.

use sha2::{Digest, Sha256};

use super::*;

mod asked;

const PAYLOAD: &str = r#"{"b":2,"a":{"x":1}}"#;
const CANONICAL: &str = r#"{"a":{"x":1},"b":2}"#;

fn request(payload: &str) -> DataActionRequest {
    DataActionRequest::new("action", payload).unwrap()
}

fn key(request: &DataActionRequest) -> IdempotencyKey {
    IdempotencyKey::of(request)
}

fn hashed(text: impl AsRef<[u8]>) -> IdempotencyKey {
    IdempotencyKey::from_bytes(Sha256::digest(text).into())
}

fn sent(request: &DataActionRequest) -> String {
    String::from_utf8(request.wire_body().to_vec()).unwrap()
}

#[track_caller]
fn assert_refused<T: fmt::Debug>(result: Result<T, Error>, expected: &str) {
    match result.unwrap_err() {
        Error::InvalidRequest { field, reason } => {
            assert_eq!(field, expected);
            assert!(!reason.contains("secret"), "{reason}");
        }
        error => panic!("{error:?}"),
    }
}

#[test]
fn key_has_four_forms() {
    let plain = request(PAYLOAD);
    assert_eq!(key(&plain), hashed(format!("action:{CANONICAL}")));
    let scoped = plain.clone().with_scope("eu 1").unwrap();
    assert_eq!(key(&scoped), hashed(format!("action:{CANONICAL}\neu 1")));
    let own = plain.clone().with_key(r#"a"b\c"é""#).unwrap();
    assert_eq!(key(&own), hashed(r#"action::"a\"b\\c\"é\"""#));
    for both in [
        scoped.with_key("42").unwrap(),
        plain.with_key("42").unwrap().with_scope("eu 1").unwrap(),
    ] {
        assert_eq!(key(&both), hashed("action::\"42\"\neu 1"));
    }
}

#[test]
fn own_key_is_hashed_as_json_string() {
    for own in ["x", "\"", "\\", "\\\"", "a\\", "/é😂\u{2028}", "\\u0041"] {
        let json = serde_json::to_string(own).unwrap();
        assert_eq!(
            key(&request("1").with_key(own).unwrap()),
            hashed(format!("action::{json}"))
        );
    }
}

#[test]
fn settings_apply_in_any_order() {
    let pointers = ["/t", "/u"];
    let a = request(r#"{"t":1,"a":2}"#)
        .with_scope("s")
        .unwrap()
        .with_key("k")
        .unwrap()
        .ignoring(pointers)
        .unwrap()
        .forward_key("/k")
        .unwrap()
        .with_ttl(Duration::from_secs(5))
        .unwrap()
        .sensitive();
    let b = request(r#"{"a":2,"t":7}"#)
        .sensitive()
        .with_ttl(Duration::from_secs(5))
        .unwrap()
        .forward_key("/k")
        .unwrap()
        .ignoring(["/u"])
        .unwrap()
        .ignoring(["/t", "/u"])
        .unwrap()
        .with_key("k")
        .unwrap()
        .with_scope("s")
        .unwrap();
    assert_eq!(key(&a), key(&b));
    assert_eq!(a.fingerprint("r"), b.fingerprint("r"));
    assert_eq!(b.requested_ttl(), Some(Duration::from_secs(5)));
    assert!(b.is_sensitive());
    assert!(!request("1").is_sensitive());
    assert_eq!(request("1").requested_ttl(), None);
    let other = b.clone().with_key("t").unwrap();
    assert_ne!(key(&b), key(&other), "a clone is left as it was");
    assert_eq!(key(&a), key(&b));
}

#[test]
fn scopes_and_keys_have_1_to_255_bytes_without_control_characters() {
    let longest = "é".repeat(127) + "x";
    for good in ["x", " ", ":", &longest] {
        request("1")
            .with_scope(good)
            .unwrap()
            .with_key(good)
            .unwrap();
    }
    let too_long = "x".repeat(256);
    for bad in ["", "secret\n", "\0", "a\u{7f}", "\u{9f}", &too_long] {
        assert_refused(request("1").with_scope(bad), "scope");
        assert_refused(request("1").with_key(bad), "key");
    }
}

/// Red where a time outside of the bounds is clamped, or set as it is.
#[test]
fn time_outside_its_bounds_is_refused() {
    let years = Duration::from_secs(10 * 365 * 24 * 3600);
    let millisecond = Duration::from_millis(1);
    for good in [millisecond, years] {
        let request = request("1").with_ttl(good).unwrap();
        assert_eq!(request.requested_ttl(), Some(good));
        assert!(request.start_within(good).is_ok());
    }
    for bad in [
        Duration::ZERO,
        millisecond / 2,
        years + millisecond,
        Duration::MAX,
    ] {
        assert_refused(request("1").with_ttl(bad), "ttl");
    }
    assert_refused(request("1").start_within(Duration::MAX), "start_within");
    assert!(request("1").start_within(Duration::ZERO).is_ok());
}

#[test]
fn malformed_payload_is_refused_and_not_quoted() {
    for bad in [
        "",
        "{\"secret\":}",
        "\"secret",
        "secret",
        "{\"secret\":1,\"secret\":2}",
    ] {
        assert_refused(DataActionRequest::new("action", bad), "payload");
    }
    let error = DataActionRequest::new("action", "{\"secret\":}").unwrap_err();
    assert_eq!(
        error.to_string(),
        "invalid payload: expected a value at byte 10"
    );
    assert_refused(DataActionRequest::new("a:b", "secret"), "action_id");
}

#[test]
fn serialised_payload_is_json() {
    #[derive(Serialize)]
    struct Order<'a> {
        id: u64,
        note: &'a str,
    }
    let order = Order {
        id: 9_007_199_254_740_993,
        note: "é",
    };
    let made = DataActionRequest::from_serialize("action", &order).unwrap();
    assert_eq!(
        key(&made),
        key(&request(r#"{"note":"\u00e9","id":9007199254740993}"#))
    );
    let no_text = std::collections::HashMap::from([((1, 2), "secret")]);
    assert_refused(
        DataActionRequest::from_serialize("action", &no_text),
        "payload",
    );
}

#[test]
fn ignored_part_is_only_sent() {
    let a = request(r#"{"id":1,"t":[1]}"#).ignoring(["/t"]).unwrap();
    let b = request(r#"{"t":"later","id":1.0}"#)
        .ignoring(["/t"])
        .unwrap();
    assert_eq!(key(&a), hashed("action:{\"id\":1}"));
    assert_eq!((key(&a), a.fingerprint("")), (key(&b), b.fingerprint("")));
    assert_eq!(sent(&a), r#"{"id":1,"t":[1]}"#);
    for bad in ["", "t", "/t~", "/~2", "secret"] {
        assert_refused(a.clone().ignoring(["/ok", bad]), "ignoring");
    }
    let nothing: [&str; 0] = [];
    assert_eq!(key(&a.clone().ignoring(nothing).unwrap()), key(&a));
    let other = a.clone().ignoring(["/no such member"]).unwrap();
    assert_eq!(key(&other), key(&a));
    assert_eq!(other.fingerprint(""), a.fingerprint(""));
}

/// Red without the check: two customers then share one key.
#[test]
fn ignoring_the_whole_payload_is_refused() {
    let all: [(&str, &[&str]); 5] = [
        (r#"{"a":1}"#, &["/a"]),
        (r#" { "a" : { "b" : 1 }, "c": [2] } "#, &["/a", "/c"]),
        ("[1, [2]]", &["/1", "/0"]),
        (r#"{"a":{}}"#, &["/a"]),
        ("[{}]", &["/0"]),
    ];
    for (payload, pointers) in all {
        assert_refused(request(payload).ignoring(pointers), "ignoring");
        let keyed = request(payload).with_key("k").unwrap();
        assert_refused(keyed.ignoring(pointers), "ignoring");
        // Pointer by pointer it is the last one that leaves nothing.
        let (last, first) = pointers.split_last().unwrap();
        let most = request(payload).ignoring(first).unwrap();
        assert_refused(most.ignoring([last]), "ignoring");
    }
    for empty in ["{}", " [ ] ", "{\n}"] {
        assert!(request(empty).ignoring(["/a"]).is_ok(), "{empty}");
    }
    for (payload, pointer) in [
        (r#"{"a":{"b":1}}"#, "/a/b"),
        ("[1,2]", "/0"),
        ("{\"a\":[]}", "/b"),
    ] {
        assert!(request(payload).ignoring([pointer]).is_ok(), "{payload}");
    }
}

#[test]
fn request_lists_its_unmatched_pointers() {
    let payload = r#"{"a/b":1,"list":[{"t":1},2],"0":{"x":null}}"#;
    let unmatched = |pointers: &[&str]| -> Vec<String> {
        let request = request(payload).ignoring(pointers).unwrap();
        request.unmatched().map(str::to_owned).collect()
    };
    assert!(unmatched(&["/a~1b", "/list/0/t", "/list/1", "/0/x", "/0"]).is_empty());
    let slips = ["/0/x/y", "/0/y", "/a", "/list/01", "/list/2", "/list/t"];
    assert_eq!(unmatched(&slips), slips);
    // What is inside of something ignored matches all the same.
    assert_eq!(
        unmatched(&["/list", "/list/0/t", "/list/0/u"]),
        ["/list/0/u"]
    );
    let again = request(payload).ignoring(["/slip"]).unwrap();
    let again = again.ignoring(["/list"]).unwrap();
    assert_eq!(again.unmatched().collect::<Vec<_>>(), ["/slip"]);
}

#[test]
fn forwarded_key_changes_no_other_byte() {
    for (payload, pointer, before, after) in [
        ("{}", "/k", "{\"k\":\"", "\"}"),
        (" { } ", "/k", " {\"k\":\"", "\" } "),
        ("{ \"b\" : 1.0 }", "/k", "{\"k\":\"", "\", \"b\" : 1.0 }"),
        (
            r#"{"b":{"c":"}"},"a":0}"#,
            "/b/k",
            r#"{"b":{"k":""#,
            r#"","c":"}"},"a":0}"#,
        ),
        (
            r#"{"x":"\"{","b":[ 1, {"a":{}} ]}"#,
            "/b/1/a/k",
            r#"{"x":"\"{","b":[ 1, {"a":{"k":""#,
            r#""}} ]}"#,
        ),
        (
            r#"[[],{"a":[-1e5,null]},{}]"#,
            "/2/k",
            r#"[[],{"a":[-1e5,null]},{"k":""#,
            "\"}]",
        ),
        (
            r#"{"\u0061~":{}}"#,
            "/a~0/\"é\\~1",
            r#"{"\u0061~":{"\"é\\/":""#,
            "\"}}",
        ),
        (r#"{"k":{"a":1}}"#, "/k/k", r#"{"k":{"k":""#, r#"","a":1}}"#),
        (r#"{"a":1}"#, "/", r#"{"":""#, r#"","a":1}"#),
    ] {
        let plain = request(payload);
        let forwarding = plain.clone().forward_key(pointer).unwrap();
        assert_eq!(key(&forwarding), key(&plain));
        assert_eq!(
            sent(&forwarding),
            format!("{before}{}{after}", key(&plain)),
            "{payload}"
        );
        assert_eq!(forwarding.payload(), plain.payload());
        let later = forwarding.with_key("own").unwrap().with_scope("s").unwrap();
        assert_ne!(key(&later), key(&plain));
        assert_eq!(sent(&later), format!("{before}{}{after}", key(&later)));
        let value: serde_json::Value = serde_json::from_slice(&later.wire_body()).unwrap();
        assert_eq!(
            value.pointer(pointer),
            Some(&key(&later).to_string().into())
        );
    }
    let twice = request("{}")
        .forward_key("/a")
        .unwrap()
        .forward_key("/b")
        .unwrap();
    assert_eq!(sent(&twice), format!("{{\"b\":\"{}\"}}", key(&twice)));
}

#[test]
fn key_is_forwarded_only_as_a_new_member() {
    for (payload, pointer) in [
        ("{}", ""),
        ("{}", "k"),
        ("{}", "/k~"),
        ("[]", "/0"),
        ("[]", "/-"),
        ("1", "/k"),
        ("\"k\"", "/k"),
        (r#"{"k":null}"#, "/k"),
        (r#"{"a":1,"\u006b":2}"#, "/k"),
        (r#"{"a":1}"#, "/a/k"),
        (r#"{"a":[{}]}"#, "/a/k"),
        (r#"{"a":[{}]}"#, "/a/1/k"),
        (r#"{"a":[{}]}"#, "/a/00/k"),
        (r#"{"b":{}}"#, "/a/k"),
        (r#"{"a":{"k":1}}"#, "/a/k"),
        ("null", "/k"),
        (r#"{"":1}"#, "/"),
    ] {
        assert_refused(request(payload).forward_key(pointer), "forward_key");
    }
}

#[test]
fn another_payload_keeps_every_setting() {
    let original = request(r#"{"a":1,"t":2}"#)
        .with_scope("s")
        .unwrap()
        .ignoring(["/t"])
        .unwrap()
        .forward_key("/k")
        .unwrap()
        .with_ttl(Duration::from_secs(9))
        .unwrap()
        .sensitive();
    let other = original.with_payload(r#"{ "t":3, "a":1.0 }"#).unwrap();
    assert_eq!(key(&other), key(&original));
    assert_eq!(other.fingerprint(""), original.fingerprint(""));
    assert_eq!(other.requested_ttl(), original.requested_ttl());
    assert!(other.is_sensitive());
    let own = original.with_key("own").unwrap();
    assert_eq!(key(&own.with_payload("{}").unwrap()), key(&own));
}

#[test]
fn debug_shows_no_content() {
    let shown = format!(
        "{:?}",
        request("\"secret\"")
            .with_key("secret-key")
            .unwrap()
            .with_scope("secret")
            .unwrap()
    );
    assert!(
        shown.contains("8 bytes") && shown.contains("action"),
        "{shown}"
    );
    assert!(!shown.contains("secret"), "{shown}");
}
