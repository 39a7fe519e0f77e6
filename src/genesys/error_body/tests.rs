//! Which facts each shape of an error body has.

use super::*;

fn remote() -> ErrorBody {
    ErrorBody {
        remote: true,
        ..ErrorBody::default()
    }
}

#[test]
fn remote_code_is_found_at_its_positions() {
    for body in [
        r#"{"details":[{"errorCode":"ACTION.REMOTE_ENDPOINT"}]}"#,
        r#"{"details":[{"errorCode":"x"},{"a":[1],"errorCode":"ACTION.PROCESSING"}]}"#,
        r#"{"details":{"errorCode":"ACTION.PROCESSING"}}"#,
        r#"{"errors":[{"errors":[{"details":[{"errorCode":"ACTION.PROCESSING"}]}]}]}"#,
        r#"{"errorCode":"ACTION.REMOTE_ENDPOINT","correlationId":"x"}"#,
        r#"{"det\u0061ils":[{"errorCode":"ACTION\u002eREMOTE_ENDPOINT"}]}"#,
        // A second `details` does not replace the first.
        r#"{"details":[{"errorCode":"ACTION.PROCESSING"}],"details":[]}"#,
        r#"{"details":[{"errorCode":"Action.Processing"}]}"#,
        r#"{"details":[{"code":"ACTION.PROCESSING"}]}"#,
        r#"{"errors":[{"code":"ACTION.PROCESSING"}]}"#,
        r#"{"code":"ACTION.REMOTE_ENDPOINT"}"#,
        "\u{feff}{\"errorCode\":\"ACTION.REMOTE_ENDPOINT\"}",
    ] {
        assert_eq!(ErrorBody::read(body.as_bytes()), remote(), "{body}");
    }
}

#[test]
fn code_at_another_position_counts_for_nothing() {
    for body in [
        r#"{"message":"ACTION.REMOTE_ENDPOINT"}"#,
        r#"{"errorCode":"ACTION.AUTHENTICATION"}"#,
        r#"{"entity":{"details":[{"errorCode":"ACTION.PROCESSING"}]}}"#,
        r#"[{"details":[{"errorCode":"ACTION.PROCESSING"}]}]"#,
        r#"{"details":["ACTION.PROCESSING",1,null,true,1.5,-1,[]]}"#,
        r#"{"details":[{"errorCode":["ACTION.PROCESSING"]}]}"#,
        r#"{"details":null,"errors":7,"message":{}}"#,
        "\"ACTION.PROCESSING\"",
    ] {
        assert_eq!(
            ErrorBody::read(body.as_bytes()),
            ErrorBody::default(),
            "{body}"
        );
    }
}

#[test]
fn broken_text_proves_and_hides_nothing() {
    let proof = r#"{"details":[{"errorCode":"ACTION.AUTHENTICATION"}],"message":"Retry the request in [4] seconds""#;
    for end in ["", "}x", ",\"a\":tru}", ",\"a\":\"\u{1}\"}"] {
        assert_eq!(
            ErrorBody::read(format!("{proof}{end}").as_bytes()),
            ErrorBody::default(),
            "{end}"
        );
    }
    for start in ["", "\u{feff}"] {
        assert!(ErrorBody::read(format!("{start}{proof}}}").as_bytes()).authentication);
    }
    assert_eq!(
        ErrorBody::read(br#"{"details":[{"errorCode":"ACTION.PROCESSING"}],"#),
        remote()
    );
    // Not JSON: at any position, in any spelling.
    for body in [
        "ACTION.REMOTE_ENDPOINT",
        "{}{\"a\":\"ACTION.PROCESSING\"}",
        "{\"message\":\"a\nb\",\"x\":\"action.remote_Endpoint\"}",
        r"x \u0041CTION\u002eREMOTE\u005FENDPOINT",
        r"\\\u0041CTION.PROCESSING\u00",
    ] {
        assert_eq!(ErrorBody::read(body.as_bytes()), remote(), "{body}");
    }
    for body in [r"ACTION\u00zzPROCESSING", r"\u00", "ACTION.PROCESSIN"] {
        assert_eq!(ErrorBody::read(body.as_bytes()), ErrorBody::default());
    }
}

#[test]
fn code_must_be_the_bodys_only_one() {
    let code = |body: &str| ErrorBody::read(body.as_bytes()).code;
    let failed = r#""code":"client.failed.request""#;
    assert_eq!(code(&format!("{{{failed}}}")), Code::FailedRequest);
    assert_eq!(
        code(r#"{"code":"authentication.request.timeout"}"#),
        Code::AuthenticationTimeout
    );
    for (body, expected) in [
        (format!(r#"{{{failed},"code":"bad.request"}}"#), Code::Other),
        (format!(r#"{{"code":"bad.request",{failed}}}"#), Code::Other),
        (
            r#"{"code":"Client.Failed.Request"}"#.to_owned(),
            Code::Other,
        ),
        (format!(r#"{{"errors":[{{{failed}}}]}}"#), Code::None),
        (format!(r#"{{"details":[{{{failed}}}]}}"#), Code::None),
        (
            r#"{"errorCode":"client.failed.request"}"#.to_owned(),
            Code::None,
        ),
        (format!("{{{failed}}}x"), Code::None),
        (format!("[{{{failed}}}]"), Code::None),
    ] {
        assert_eq!(code(&body), expected, "{body}");
    }
}

#[test]
fn hostile_body_has_no_facts() {
    let nested = |open: &str, close: &str, n: usize| open.repeat(n) + &close.repeat(n);
    for body in [
        nested("[", "]", 1_000_000),
        nested(r#"{"errors":["#, "]}", 200_000),
        nested(r#"{"x":["#, "]}", 200_000),
        format!(
            r#"{{"message":"{}"}}"#,
            "Retry the request in [".repeat(200_000)
        ),
        format!(r#"{{{}"a":1}}"#, r#""details":[{}],"#.repeat(100_000)),
        "9".repeat(1_000_000),
    ] {
        assert_eq!(ErrorBody::read(body.as_bytes()), ErrorBody::default());
    }
    assert_eq!(ErrorBody::read(&[0xff; 4096]), ErrorBody::default());
    assert_eq!(ErrorBody::read(b""), ErrorBody::default());
}

#[test]
fn wait_is_read_from_the_message() {
    for (message, seconds) in [
        (
            "Rate limit exceeded. Retry the request in [42] seconds",
            Some(42),
        ),
        ("retry the request in [0] seconds.", Some(0)),
        (
            "Retry the request in [99999999999999999999] seconds",
            Some(u64::MAX),
        ),
        ("Retry the request in [-1] seconds", None),
        ("Retry the request in [] seconds", None),
        ("Retry the request in [4.5] seconds", None),
        ("Retry the request in [4] minutes", None),
        ("Retry the request in [4", None),
        ("Retry later", None),
    ] {
        assert_eq!(seconds_in(message), seconds, "{message}");
    }
}
