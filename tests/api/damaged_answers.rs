//! 100,000 damaged or random answers through all functions that read an answer. None panics,
//! and damage never turns an unknown outcome into a proof that nothing was executed.

use std::time::{Duration, SystemTime};

use genesys_once::Outcome;
use genesys_once::genesys::classify;
use genesys_once::outcome::{BodyEnd, Verdict};
use genesys_once::testing::answers;
use http::{HeaderMap, HeaderValue, StatusCode};
use proptest::prelude::*;

const STATUSES: [u16; 14] = [
    200, 302, 400, 401, 403, 404, 408, 409, 425, 429, 500, 502, 503, 504,
];

/// Bodies as the platform sends them, cut and changed at random, and random bodies.
fn bodies() -> impl Strategy<Value = Vec<u8>> {
    let made = prop::sample::select(vec![
        answers::platform_error(
            429,
            "too.many.requests.retry.after",
            "Retry the request in [42] seconds",
        )
        .body()
        .to_vec(),
        answers::remote_error(400, "ACTION.REMOTE_ENDPOINT", "it answered 500")
            .body()
            .to_vec(),
        answers::remote_error(429, "ACTION.PROCESSING", "no")
            .body()
            .to_vec(),
        br#"{"details":[{"errorCode":"ACTION.AUTHENTICATION"}]}"#.to_vec(),
        br#"{"code":"authentication.request.timeout"}"#.to_vec(),
        br#"{"code":"client.failed.request"}"#.to_vec(),
        vec![b'['; 1_000],
        br#"{"message":"Retry the request in [99999999999999999999999] seconds"}"#.to_vec(),
    ]);
    let changed = (
        made,
        any::<prop::sample::Index>(),
        any::<u8>(),
        any::<prop::sample::Index>(),
    )
        .prop_map(|(mut body, at, to, cut)| {
            let at = at.index(body.len());
            body[at] = to;
            if to % 3 == 0 {
                body.truncate(cut.index(body.len()) + 1);
            }
            body
        });
    prop_oneof![4 => changed, 1 => prop::collection::vec(any::<u8>(), 0..200)]
}

fn outcomes() -> impl Strategy<Value = Outcome> {
    let retry_after = prop_oneof![
        Just(Vec::new()),
        "[0-9]{1,30}".prop_map(String::into_bytes),
        "[ -~]{0,40}".prop_map(String::into_bytes),
        prop::collection::vec(0x80..=0xffu8, 1..10),
    ];
    (
        prop::sample::select(STATUSES.to_vec()),
        retry_after,
        bodies(),
    )
        .prop_map(|(status, retry_after, body)| {
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_bytes(&retry_after) {
                headers.insert("retry-after", value);
            }
            Outcome::new(StatusCode::from_u16(status).unwrap(), headers, body)
        })
}

/// Whether a whole error body names the remote endpoint at the platform's place for it.
fn named(body: &serde_json::Value) -> bool {
    let details = body["details"].as_array();
    let codes = details
        .into_iter()
        .flatten()
        .map(|detail| &detail["errorCode"]);
    codes
        .into_iter()
        .any(|code| code == "ACTION.REMOTE_ENDPOINT")
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(
            proptest::test_runner::FileFailurePersistence::Direct(
                "proptest-regressions/tests/damaged_answers.txt",
            ),
        )),
        ..ProptestConfig::with_cases(100_000)
    })]

    #[test]
    fn nothing_panics_and_nothing_is_misread(outcome in outcomes()) {
        let status = outcome.status().as_u16();
        let verdict = classify::genesys(&outcome);
        // The only proof that a 5xx can be, undamaged.
        let timeout = br#"{"code":"authentication.request.timeout"}"#;
        if status >= 500 && (status != 504 || outcome.body()[..] != timeout[..]) {
            prop_assert_eq!(verdict, Verdict::Unknown);
        }
        if status == 409 {
            prop_assert_eq!(verdict, Verdict::Final);
        }
        if status == 200 {
            prop_assert!(matches!(verdict, Verdict::Final | Verdict::Unknown));
            let whole = serde_json::from_slice::<serde_json::Value>(outcome.body()).is_ok();
            prop_assert!(!whole || verdict == Verdict::Final);
        }
        // A code that was named before a byte changed is still named, unless the changed
        // byte belongs to the code.
        if outcome.body().windows(22).any(|window| window == b"ACTION.REMOTE_ENDPOINT") {
            let in_text = serde_json::from_slice::<serde_json::Value>(outcome.body());
            let named = in_text.is_err() || in_text.is_ok_and(|body| named(&body));
            prop_assert!(!named || !matches!(verdict, Verdict::NotExecuted(_)));
        }
        let everything = classify::everything_final(&outcome);
        prop_assert_eq!(everything == Verdict::Final, ![401, 408, 425, 429].contains(&status));
        let cut = outcome.clone().with_body_end(BodyEnd::Unread);
        prop_assert!(!matches!(classify::genesys(&cut), Verdict::NotExecuted(_)));
        if let Some(wait) = genesys_once::genesys::retry_after(&outcome, SystemTime::now()) {
            prop_assert!(wait <= Duration::from_secs(366 * 24 * 3600), "{wait:?}");
        }
    }
}

/// Other members of an error body are skipped, at any depth and with any numbers. Red if
/// they are parsed: the answer then counts as an answer without a body.
#[test]
fn unknown_members_of_error_body_are_skipped() {
    let read = |status: u16, body: &str| {
        let status = StatusCode::from_u16(status).unwrap();
        classify::genesys(&Outcome::new(status, HeaderMap::new(), body.to_owned()))
    };
    let deep = "[".repeat(5_000) + &"]".repeat(5_000);
    let errors = [
        answers::remote_error(429, "ACTION.PROCESSING", "no"),
        answers::remote_error(400, "ACTION.REMOTE_ENDPOINT", "it answered 500"),
    ];
    let mut differing = 0;
    for error in errors {
        let body = String::from_utf8(error.body().to_vec()).unwrap();
        for beside in [&deep, "1e999", r#"{"x":[1e999]}"#] {
            let more = body.replacen('{', &format!(r#"{{"beside":{beside},"#), 1);
            for status in STATUSES {
                assert_eq!(read(status, &more), read(status, &body), "{status}");
                differing += usize::from(read(status, &body) != read(status, "{}"));
            }
        }
    }
    assert!(differing > 0, "the body changes no verdict");
}
