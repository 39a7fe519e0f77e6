//! What an answer proves about the execution of its request. Pure: nothing here waits,
//! counts attempts or reads a clock.
//!
//! A data action calls a remote system, and the platform may relay that system's status.
//! So a status alone proves little, and the platform's error details can disprove it.
//!
//! | answer | [`genesys`] | with `ACTION.REMOTE_ENDPOINT` or `ACTION.PROCESSING` | with a body that cannot be read |
//! |---|---|---|---|
//! | 2xx | `Final` | the same | see below |
//! | 400, 409 and every 4xx not listed below | `Final` | the same | 400 `Unknown`, others the same |
//! | 401 | `NotExecuted(RenewToken)` | `Unknown` | `Unknown` |
//! | 408, 425, 429 | `NotExecuted(Retry)` | `Unknown` | `Unknown` |
//! | 3xx, 403, 404, 405, 406, 407, 411, 413, 414, 415, 417, 421, 426, 431 | `NotExecuted(PassThrough)` | `Final` | `Unknown` |
//! | 400 with `ACTION.AUTHENTICATION` | `NotExecuted(PassThrough)` | `Final` | |
//! | 400 with code `client.failed.request`, 504 with `authentication.request.timeout` | `NotExecuted(Retry)` | 400 `Final`, 504 `Unknown` | |
//! | other 5xx, 1xx, 600 and above | `Unknown` | the same | the same |
//!
//! The error codes are those in the body's `details[].errorCode`: see the
//! vendor's help pages on data action errors. `client.failed.request`,
//! `authentication.request.timeout` and `response.entity.too.large` (a 400 of an
//! action that **was executed** and whose answer is lost: `Final`) are the body's
//! own `code`, from the vendor's public API definition.
//!
//! # Bodies that cannot be read
//!
//! A refusal proves something only if its body was read to its end and searched for these
//! codes. A body cannot be read if
//!
//! - it has a `Content-Encoding` (the client asks for none),
//! - its charset is not a superset of ASCII, or it is UTF-16,
//! - it is not text (compressed without a header),
//! - only the end of the connection ends it, and it is not whole JSON.
//!
//! In a body that can be read and is not JSON, the remote end's codes count anywhere. The
//! engine never accepts `NotExecuted` for a body that cannot be read, whatever the
//! classifier returns.
//!
//! # Successes
//!
//! A 2xx is the action's answer only where its body is:
//!
//! | body of a 2xx | verdict |
//! |---|---|
//! | HTML (`text/html`, `application/xhtml+xml`): a login or maintenance page | `Unknown` |
//! | announced as JSON, or not announced, and not JSON | `Unknown` |
//! | empty, or a number, and only the end of the connection ends it | `Unknown` |
//! | any other: JSON, none (204, `Content-Length: 0`, no chunks), another type, a content coding | `Final` |
//! | not read, since it is larger than `max_response_bytes`, and not HTML | `Final`, recorded without it |
//!
//! JSON with a byte order mark, invalid UTF-8, a lone surrogate or a raw control character
//! counts as JSON.

use super::error_body::{Code, ErrorBody};
use crate::outcome::{Outcome, Recovery, Verdict};
use crate::policy::{check_answer_body, check_searchable};

/// The engine's default classifier: the table of this module.
///
/// A closure for `EngineBuilder::classify` may decide some answers and call this function
/// for the rest. It reads the body only if the body can change the verdict.
///
/// [`Outcome::body_end`] says whether the body might be cut. An `Upstream` sets it; the
/// body of an outcome made by hand is whole.
///
/// ```
/// use genesys_once::genesys::classify;
/// use genesys_once::outcome::{Recovery, Verdict};
/// use genesys_once::Outcome;
/// use http::{HeaderMap, StatusCode};
///
/// let refused = Outcome::new(StatusCode::FORBIDDEN, HeaderMap::new(), "");
/// assert_eq!(classify::genesys(&refused), Verdict::NotExecuted(Recovery::PassThrough));
///
/// let remote = r#"{"details":[{"errorCode":"ACTION.REMOTE_ENDPOINT"}]}"#;
/// let relayed = Outcome::new(StatusCode::FORBIDDEN, HeaderMap::new(), remote);
/// assert_eq!(classify::genesys(&relayed), Verdict::Final);
/// ```
pub fn genesys(outcome: &Outcome) -> Verdict {
    match outcome.status().as_u16() {
        200..=299 if check_answer_body(outcome).is_ok() => Verdict::Final,
        401 | 408 | 425 | 429 => refused_for_now(outcome),
        300..=399 | 403..=407 | 411 | 413..=415 | 417 | 421 | 426 | 431 => match read(outcome) {
            None => Verdict::Unknown,
            Some(body) if body.remote => Verdict::Final,
            Some(_) => Verdict::NotExecuted(Recovery::PassThrough),
        },
        400 => match read(outcome) {
            None => Verdict::Unknown,
            Some(body) if body.remote => Verdict::Final,
            Some(body) if body.authentication => Verdict::NotExecuted(Recovery::PassThrough),
            Some(body) if body.code == Code::FailedRequest => Verdict::NotExecuted(Recovery::Retry),
            Some(_) => Verdict::Final,
        },
        402..=499 => Verdict::Final,
        504 => match read(outcome) {
            Some(body) if !body.remote && body.code == Code::AuthenticationTimeout => {
                Verdict::NotExecuted(Recovery::Retry)
            }
            _ => Verdict::Unknown,
        },
        _ => Verdict::Unknown,
    }
}

/// A classifier that records each answer: all are `Final`, also a 500, a redirect, and a
/// 2xx with any body. Only 401, 408, 425 and 429 are as in [`genesys`], since they ask for
/// another attempt.
///
/// For actions whose failures may be replayed for the whole `result_ttl`. Requests without
/// an answer (time-outs, resets) stay unknown.
pub fn everything_final(outcome: &Outcome) -> Verdict {
    match outcome.status().as_u16() {
        401 | 408 | 425 | 429 => refused_for_now(outcome),
        _ => Verdict::Final,
    }
}

/// 401, 408, 425, 429: the platform's own refusal, unless the body names the remote end.
fn refused_for_now(outcome: &Outcome) -> Verdict {
    match read(outcome) {
        Some(body) if !body.remote => match outcome.status() {
            http::StatusCode::UNAUTHORIZED => Verdict::NotExecuted(Recovery::RenewToken),
            _ => Verdict::NotExecuted(Recovery::Retry),
        },
        _ => Verdict::Unknown,
    }
}

/// The body of a refusal; `None` if it cannot be read.
fn read(outcome: &Outcome) -> Option<ErrorBody> {
    let readable = check_searchable(outcome).is_ok();
    readable.then(|| ErrorBody::read(outcome.body()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::BodyEnd;
    use crate::policy::{body_fault, checked_verdict};
    use Recovery::{PassThrough, RenewToken, Retry};
    use Verdict::{Final, NotExecuted, Unknown};
    use http::{HeaderMap, StatusCode};

    const REMOTE: &str = r#"{"message":"no","code":"bad.request","details":[{"errorCode":"ACTION.REMOTE_ENDPOINT"}]}"#;
    const PROCESSING: &str = r#"{"details":[{"errorCode":"ACTION.PROCESSING"}]}"#;
    const AUTHENTICATION: &str = r#"{"details":[{"errorCode":"ACTION.AUTHENTICATION"}]}"#;
    const BOTH: &str = r#"{"details":[{"errorCode":"ACTION.AUTHENTICATION"},{"errorCode":"ACTION.REMOTE_ENDPOINT"}]}"#;

    fn answer(status: u16, body: &str) -> Outcome {
        Outcome::new(
            StatusCode::from_u16(status).unwrap(),
            HeaderMap::new(),
            body.to_owned(),
        )
    }

    /// The table of the module's docs, status by status: the status, the verdict by status
    /// alone, and the verdict if the remote end has answered.
    fn table() -> Vec<(u16, Verdict, Verdict)> {
        let mut rows = Vec::new();
        let mut add = |statuses: &[u16], alone, remote| {
            rows.extend(statuses.iter().map(|&s| (s, alone, remote)))
        };
        add(&[100, 101, 102, 103, 199], Unknown, Unknown);
        add(
            &[200, 201, 202, 203, 204, 205, 206, 207, 226, 299],
            Final,
            Final,
        );
        add(
            &[300, 301, 302, 303, 304, 305, 307, 308, 399],
            NotExecuted(PassThrough),
            Final,
        );
        add(
            &[400, 402, 409, 410, 412, 416, 418, 422, 423, 424],
            Final,
            Final,
        );
        add(&[427, 428, 430, 451, 499], Final, Final);
        add(&[401], NotExecuted(RenewToken), Unknown);
        add(&[408, 425, 429], NotExecuted(Retry), Unknown);
        add(
            &[403, 404, 405, 406, 407, 411, 413, 414, 415],
            NotExecuted(PassThrough),
            Final,
        );
        add(&[417, 421, 426, 431], NotExecuted(PassThrough), Final);
        add(&[500, 501, 502, 503, 504, 505, 511, 599], Unknown, Unknown);
        add(&[600, 999], Unknown, Unknown);
        rows
    }

    #[test]
    fn each_status_has_its_verdict() {
        for (status, alone, remote) in table() {
            for body in [
                "",
                "{}",
                "<html>",
                r#"{"message":"ACTION.PROCESSING"}"#,
                r#"{"details":[]}"#,
            ] {
                let page = body == "<html>" && (200..300).contains(&status);
                let expected = if page { Unknown } else { alone };
                assert_eq!(genesys(&answer(status, body)), expected, "{status} {body}");
            }
            for body in [REMOTE, PROCESSING, BOTH] {
                assert_eq!(genesys(&answer(status, body)), remote, "{status} {body}");
            }
        }
    }

    /// An answer of each kind whose body cannot be read.
    fn unreadable(status: u16) -> [Outcome; 4] {
        let coded = {
            let mut coded = answer(status, REMOTE);
            let gzip = http::HeaderValue::from_static("gzip");
            coded.headers_mut().insert("content-encoding", gzip);
            coded
        };
        [
            coded,
            answer(status, "{\0}\0"),
            answer(status, "<html>").with_body_end(BodyEnd::Closed),
            answer(status, "").with_body_end(BodyEnd::Unread),
        ]
    }

    #[test]
    fn unreadable_body_proves_nothing() {
        for (status, alone, _) in table() {
            for outcome in unreadable(status) {
                let silent = outcome.body_end() != BodyEnd::Closed || status >= 300;
                let expected = match alone {
                    NotExecuted(_) => Unknown,
                    Final if status == 400 || !silent => Unknown,
                    verdict => verdict,
                };
                assert_eq!(genesys(&outcome), expected, "{status} {outcome:?}");
                if matches!(status, 401 | 408 | 425 | 429) {
                    assert_eq!(everything_final(&outcome), Unknown, "{status}");
                } else {
                    assert_eq!(everything_final(&outcome), Final, "{status}");
                }
            }
        }
    }

    /// Red if the engine accepts a classifier's verdict without a readable body.
    #[test]
    fn classifier_cannot_prove_by_unreadable_body() {
        for status in [200, 401, 403, 429, 500] {
            for outcome in unreadable(status) {
                let given = checked_verdict(&outcome, |_| NotExecuted(Retry), genesys);
                let unread = outcome.body_end() == BodyEnd::Unread;
                let expected = if unread && status == 200 {
                    Final
                } else {
                    Unknown
                };
                assert_eq!(given, expected, "{status} {outcome:?}");
                if status >= 300 {
                    assert!(body_fault(&outcome).is_some(), "{status} {outcome:?}");
                }
            }
        }
        let readable = answer(503, "busy");
        assert_eq!(
            checked_verdict(&readable, |_| NotExecuted(Retry), genesys),
            NotExecuted(Retry)
        );
        assert_eq!(body_fault(&readable), None);
    }

    #[test]
    fn vendor_code_counts_for_its_status_alone() {
        for code in ["client.failed.request", "authentication.request.timeout"] {
            let body = format!(r#"{{"code":"{code}","details":[]}}"#);
            let relayed = format!(
                r#"{{"code":"{code}","details":[{{"code":"{}"}}]}}"#,
                "ACTION.PROCESSING"
            );
            for (status, alone, remote) in table() {
                let expected = match (status, code) {
                    (400, "client.failed.request") => NotExecuted(Retry),
                    (504, "authentication.request.timeout") => NotExecuted(Retry),
                    _ => alone,
                };
                assert_eq!(genesys(&answer(status, &body)), expected, "{status} {code}");
                assert_eq!(
                    genesys(&answer(status, &relayed)),
                    remote,
                    "{status} {code}"
                );
            }
        }
        let lost = answer(400, r#"{"code":"response.entity.too.large"}"#);
        assert_eq!(genesys(&lost), Final);
    }

    #[test]
    fn failed_remote_login_counts_for_400_alone() {
        for (status, alone, _) in table() {
            let expected = if status == 400 {
                NotExecuted(PassThrough)
            } else {
                alone
            };
            assert_eq!(
                genesys(&answer(status, AUTHENTICATION)),
                expected,
                "{status}"
            );
        }
    }

    #[test]
    fn everything_final_excepts_four_statuses() {
        for (status, alone, remote) in table() {
            let excepted = matches!(status, 401 | 408 | 425 | 429);
            for (body, verdict) in [("", alone), (AUTHENTICATION, alone), (REMOTE, remote)] {
                let expected = if excepted { verdict } else { Final };
                assert_eq!(
                    everything_final(&answer(status, body)),
                    expected,
                    "{status} {body}"
                );
            }
        }
    }

    #[test]
    fn hostile_body_does_not_change_the_verdict() {
        let deep = r#"{"errors":["#.repeat(100_000);
        let huge = format!(r#"{{"details":[{}]}}"#, vec!["{}"; 500_000].join(","));
        for body in [
            &deep,
            &huge,
            &format!("{AUTHENTICATION}trailing"),
            &"\u{1}".repeat(1 << 20),
        ] {
            assert_eq!(genesys(&answer(429, body)), NotExecuted(Retry));
            assert_eq!(genesys(&answer(400, body)), Final);
            assert_eq!(genesys(&answer(403, body)), NotExecuted(PassThrough));
        }
    }
}
