//! How much of an answer's body can be read, and whether it is what its headers say. It
//! looks for no error code, and decides only that an unread body is no proof.

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, TRANSFER_ENCODING};
use serde::de::IgnoredAny;

use crate::outcome::{BodyEnd, Outcome, Verdict};

/// Checks that the body was read to its end and can be searched for error codes.
///
/// # Errors
///
/// The reason why not: the body was not read; it might be cut, because only the end of
/// the connection ends it and it is not whole JSON; it has a content coding; it is in an
/// encoding that hides ASCII (UTF-16, UTF-7, …), announced or found; it is not text.
pub(crate) fn check_searchable(outcome: &Outcome) -> Result<(), &'static str> {
    let body = outcome.body();
    match outcome.body_end() {
        BodyEnd::Unread => return Err("its body was not read"),
        BodyEnd::Closed if !is_json(body) => {
            return Err("its body might be cut: it has no length, and the connection ended");
        }
        _ if body.is_empty() => return Ok(()),
        _ => {}
    }
    if is_coded(outcome) {
        Err("its body has a content coding")
    } else if hides_ascii(outcome) {
        Err("its body is in an encoding that hides text")
    } else {
        Ok(())
    }
}

/// Checks that the body of a success is the action's answer. If it was not read, the
/// status decides, unless it is HTML.
///
/// # Errors
///
/// The reason why not: HTML; a body that is announced as JSON, or not announced, and is
/// not JSON; an empty body or a number that only the end of the connection ends.
pub(crate) fn check_answer_body(outcome: &Outcome) -> Result<(), &'static str> {
    let body = outcome.body();
    let closed = outcome.body_end() == BodyEnd::Closed;
    let announced = Announced::of(outcome);
    if body.is_empty() && outcome.body_end() != BodyEnd::Unread {
        return match closed {
            true => Err("its body might be cut: it is empty, and the connection ended"),
            false => Ok(()),
        };
    }
    match announced {
        Announced::Html => Err("its body is an HTML page"),
        _ if outcome.body_end() == BodyEnd::Unread || is_coded(outcome) => Ok(()),
        Announced::Other => Ok(()),
        Announced::Json | Announced::Nothing if !is_json(body) => Err("its body is not JSON"),
        // A further digit might be lost.
        _ if closed && body.last().is_some_and(u8::is_ascii_digit) => {
            Err("its body might be cut: it is a number, and the connection ended")
        }
        _ => Ok(()),
    }
}

/// The verdict of `classify`, as far as the body was read. A classifier cannot judge a
/// body that was not read: it would find nothing in it, and take that for proof. Then
/// `by_status` decides, which takes no proof from a missing body.
pub(crate) fn checked_verdict(
    outcome: &Outcome,
    classify: impl FnOnce(&Outcome) -> Verdict,
    by_status: impl FnOnce(&Outcome) -> Verdict,
) -> Verdict {
    if outcome.body_end() == BodyEnd::Unread {
        return by_status(outcome);
    }
    match classify(outcome) {
        Verdict::NotExecuted(_) if check_searchable(outcome).is_err() => Verdict::Unknown,
        verdict => verdict,
    }
}

/// What is wrong with the body, for the cause of an unknown outcome.
pub(crate) fn body_fault(outcome: &Outcome) -> Option<&'static str> {
    match outcome.status().is_success() {
        true => check_answer_body(outcome).err(),
        false => check_searchable(outcome).err(),
    }
}

/// The text behind a byte order mark.
pub(crate) fn without_byte_order_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}

/// Whether the body is one JSON value in structure. Invalid UTF-8, lone surrogates, raw
/// control characters and a byte order mark do not matter.
fn is_json(body: &[u8]) -> bool {
    let parses = |text| serde_json::from_slice::<IgnoredAny>(text).is_ok();
    let body = without_byte_order_mark(body);
    parses(body) || body.iter().any(u8::is_ascii_control) && parses(&respelled(body))
}

/// The body without control characters: of UTF-16, one byte for each ASCII character.
fn respelled(body: &[u8]) -> Vec<u8> {
    let marks: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];
    let mark = marks.iter().any(|mark| body.starts_with(mark));
    let body = if mark { &body[2..] } else { body };
    let characters = body.iter().filter(|byte| **byte != 0);
    let plain = |byte: &u8| if byte.is_ascii_control() { b' ' } else { *byte };
    characters.map(plain).collect()
}

/// The body's type by its headers; of several, the first in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Announced {
    Html,
    Json,
    Other,
    Nothing,
}

impl Announced {
    fn of(outcome: &Outcome) -> Self {
        let types = values(outcome, CONTENT_TYPE).map(|value| {
            let value = value.unwrap_or_default();
            let kind = value.split(';').next().unwrap_or_default().trim();
            Self::named(&kind.to_ascii_lowercase())
        });
        types.min().unwrap_or(Self::Nothing)
    }

    fn named(kind: &str) -> Self {
        match kind.split_once('/') {
            None | Some(("", _) | (_, "")) => Self::Nothing,
            Some(("text", "html") | ("application", "xhtml+xml")) => Self::Html,
            Some((_, "json" | "x-json")) => Self::Json,
            Some((_, name)) if name.ends_with("+json") => Self::Json,
            Some(_) => Self::Other,
        }
    }
}

/// Whether the body has a content coding, or a transfer coding that was not removed.
fn is_coded(outcome: &Outcome) -> bool {
    let plain = |value: Option<&str>| {
        value.is_some_and(|value| {
            let known = ["", "identity", "chunked"];
            known.iter().any(|known| value.eq_ignore_ascii_case(known))
        })
    };
    let mut codings = values(outcome, CONTENT_ENCODING).chain(values(outcome, TRANSFER_ENCODING));
    !codings.all(plain)
}

/// Whether the body is in an encoding that might hide ASCII text.
fn hides_ascii(outcome: &Outcome) -> bool {
    const PLAIN: [&str; 6] = [
        "utf-8",
        "utf8",
        "us-ascii",
        "ascii",
        "iso-8859-",
        "windows-125",
    ];
    let body = outcome.body();
    // No text has both, so it is compressed without a header.
    let binary = || {
        let controls = |byte: &u8| byte.is_ascii_control() && !byte.is_ascii_whitespace();
        body.iter().any(controls) && std::str::from_utf8(body).is_err() && !is_json(body)
    };
    let announced = || {
        values(outcome, CONTENT_TYPE).any(|value| {
            let parameters = value.unwrap_or_default().split(';').skip(1);
            parameters
                .filter_map(|parameter| parameter.trim().split_once('='))
                .filter(|(name, _)| name.trim().eq_ignore_ascii_case("charset"))
                .map(|(_, name)| name.trim().trim_matches('"').to_ascii_lowercase())
                .any(|name| !PLAIN.iter().any(|plain| name.starts_with(plain)))
        })
    };
    body.contains(&0)
        || body.starts_with(b"\xff\xfe")
        || body.starts_with(b"\xfe\xff")
        || announced()
        || binary()
}

/// The members of a header's lists; `None` for one that is not text.
fn values(outcome: &Outcome, name: HeaderName) -> impl Iterator<Item = Option<&str>> {
    let values = outcome.headers().get_all(name).into_iter();
    values.flat_map(|value| {
        let text = value.to_str().ok();
        let members = text.unwrap_or_default().split(',');
        members.map(move |member| text.and(Some(member.trim())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, HeaderValue, StatusCode};

    fn outcome(headers: &[(&'static str, &[u8])], body: &[u8]) -> Outcome {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        Outcome::new(StatusCode::OK, map, body.to_vec())
    }

    #[test]
    fn json_structure_ignores_spelling() {
        for body in [
            "{}".as_bytes(),
            b" [1, 2.5e99999, null]\r\n",
            b"\xef\xbb\xbf{}",
            b"{\"a\xff\":\"\xfc\"}",
            b"[\"\x00\x01\x1f\n\"]",
            br#"{"\ud83d":"\udc00 \ud83d\ude00"}"#,
            b"{\0}\0",
            b"\xfe\xff\0[\0t\0r\0u\0e\0]",
            "[".repeat(100_000).as_bytes(),
        ] {
            let nested = body.starts_with(b"[[");
            let body = match nested {
                true => [body, "]".repeat(100_000).as_bytes()].concat(),
                false => body.to_vec(),
            };
            assert!(is_json(&body), "{}", String::from_utf8_lossy(&body));
        }
        for body in [
            "".as_bytes(),
            b" \n",
            b"\xef\xbb\xbf",
            b"{\"a\":",
            b"{\"a\":\"",
            b"{}{}",
            b"{}x",
            b"{a:1}",
            b"'a'",
            b"NaN",
            b"[1,]",
            b"<html>",
            b"\0",
            b"\xff\xfe",
        ] {
            assert!(!is_json(body), "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn media_type_is_read_in_every_spelling() {
        let page = b"<html>";
        for (kind, is_json_or_nothing) in [
            ("", true),
            ("nonsense", true),
            ("/", true),
            ("application/", true),
            ("application/json", true),
            ("APPLICATION/JSON ; charset=utf-8", true),
            ("text/json", true),
            ("application/problem+json;a=b", true),
            ("text/plain, application/json", true),
            ("text/plain", false),
            ("application/jsonp", false),
            ("application/x-ndjson", false),
            ("application/octet-stream", false),
            ("image/svg+xml; a=\"b, c\"", false),
        ] {
            let outcome = outcome(&[("content-type", kind.as_bytes())], page);
            assert_eq!(
                check_answer_body(&outcome).is_err(),
                is_json_or_nothing,
                "{kind}"
            );
        }
        for kind in ["text/html", "Text/HTML;charset=x", "application/xhtml+xml"] {
            let outcome = outcome(&[("content-type", kind.as_bytes())], b"{}");
            assert!(check_answer_body(&outcome).is_err(), "{kind}");
        }
        assert!(check_answer_body(&outcome(&[("content-type", b"\xff")], page)).is_err());
    }

    #[test]
    fn coding_or_encoding_hides_a_body() {
        for (name, value, readable) in [
            ("content-encoding", b"identity".as_slice(), true),
            ("content-encoding", b"", true),
            ("content-encoding", b"Identity, GZIP", false),
            ("content-encoding", b"\xff", false),
            ("transfer-encoding", b"chunked", true),
            ("transfer-encoding", b"gzip, chunked", false),
            ("content-type", b"application/json", true),
            ("content-type", b"application/json; charset=UTF-8", true),
            (
                "content-type",
                b"text/plain; a=b; Charset = \"ISO-8859-15\"",
                true,
            ),
            ("content-type", b"application/json; charset=utf-16", false),
            ("content-type", b"application/json; charset=utf-7", false),
            ("content-type", b"application/json; charset=IBM037", false),
        ] {
            let text = String::from_utf8_lossy(value);
            let refusal = outcome(&[(name, value)], b"{}");
            assert_eq!(
                check_searchable(&refusal).is_ok(),
                readable,
                "{name}: {text}"
            );
            assert!(check_searchable(&outcome(&[(name, value)], b"")).is_ok());
        }
        for body in [b"\0{\0}".as_slice(), b"{\0}\0", b"\xff\xfe", b"\xfe\xff"] {
            assert!(check_searchable(&outcome(&[], body)).is_err());
        }
    }

    #[test]
    fn body_end_decides_what_may_be_cut() {
        let of = |end, body| outcome(&[], body).with_body_end(end);
        for (end, body, read, answer) in [
            (BodyEnd::Marked, b"".as_slice(), true, true),
            (BodyEnd::Marked, b"12", true, true),
            (BodyEnd::Marked, b"{", true, false),
            (BodyEnd::Closed, b"", false, false),
            (BodyEnd::Closed, b"{}", true, true),
            (BodyEnd::Closed, b"{", false, false),
            (BodyEnd::Closed, b"12", true, false),
            (BodyEnd::Closed, b"12 ", true, true),
            (BodyEnd::Unread, b"{}", false, true),
        ] {
            let text = String::from_utf8_lossy(body);
            assert_eq!(
                check_searchable(&of(end, body)).is_ok(),
                read,
                "{end:?} {text}"
            );
            assert_eq!(
                check_answer_body(&of(end, body)).is_ok(),
                answer,
                "{end:?} {text}"
            );
        }
    }
}
