//! What an answer proves about the execution of its request. Pure: nothing
//! here waits, counts attempts or looks at a clock.
//!
//! A data action calls somebody else's system, and that system's status may
//! come back as the action's own. So a status alone proves little, and the
//! platform's error details can take the proof away again.
//!
//! | answer | [`genesys`] | with `ACTION.REMOTE_ENDPOINT` or `ACTION.PROCESSING` |
//! |---|---|---|
//! | 2xx, 400, 409 and every 4xx not listed below | `Final` | the same |
//! | 401 | `NotExecuted(RenewToken)` | `Unknown` |
//! | 408, 425, 429 | `NotExecuted(Retry)` | `Unknown` |
//! | 3xx, 403, 404, 405, 406, 411, 413, 414, 415, 417, 421, 426, 431 | `NotExecuted(HandOver)` | `Final` |
//! | 400 with `ACTION.AUTHENTICATION` | `NotExecuted(HandOver)` | `Final` |
//! | 5xx, 1xx, 600 and above | `Unknown` | the same |
//!
//! The error codes are those in the body's `details[].errorCode`: see the
//! vendor's help pages on data action errors.

use super::error_body::ErrorBody;
use crate::outcome::{Outcome, Then, Verdict};

/// The verdict that the engine uses by default: the table of this module.
///
/// A closure given to `EngineBuilder::classify` may decide some answers and
/// fall back on this one. The body is read only for the statuses in which it
/// can change the verdict.
///
/// ```
/// use genesys_once::{Outcome, Then, Verdict, classify};
/// use http::{HeaderMap, StatusCode};
///
/// let refused = Outcome::new(StatusCode::FORBIDDEN, HeaderMap::new(), "");
/// assert_eq!(classify::genesys(&refused), Verdict::NotExecuted(Then::HandOver));
///
/// let remote = r#"{"details":[{"errorCode":"ACTION.REMOTE_ENDPOINT"}]}"#;
/// let relayed = Outcome::new(StatusCode::FORBIDDEN, HeaderMap::new(), remote);
/// assert_eq!(classify::genesys(&relayed), Verdict::Final);
/// ```
pub fn genesys(outcome: &Outcome) -> Verdict {
    match outcome.status_code.as_u16() {
        401 | 408 | 425 | 429 => refused_for_now(outcome),
        300..=399 | 403..=406 | 411 | 413..=415 | 417 | 421 | 426 | 431 => {
            if ErrorBody::read(&outcome.body).remote {
                Verdict::Final
            } else {
                Verdict::NotExecuted(Then::HandOver)
            }
        }
        400 => {
            let body = ErrorBody::read(&outcome.body);
            if body.authentication && !body.remote {
                Verdict::NotExecuted(Then::HandOver)
            } else {
                Verdict::Final
            }
        }
        200..=299 | 402..=499 => Verdict::Final,
        _ => Verdict::Unknown,
    }
}

/// Stores all responses, success or failure: every answer is `Final`, a 500
/// and a redirect too. Only 401, 408, 425 and 429 are as in [`genesys`], since
/// they ask for another attempt.
///
/// For actions whose failures may be replayed for the whole of `result_ttl`.
/// Requests without an answer (time-outs, resets) stay unknown.
pub fn everything_final(outcome: &Outcome) -> Verdict {
    match outcome.status_code.as_u16() {
        401 | 408 | 425 | 429 => refused_for_now(outcome),
        _ => Verdict::Final,
    }
}

/// 401, 408, 425, 429: the platform's own refusal, unless a remote end that was
/// reached says so.
fn refused_for_now(outcome: &Outcome) -> Verdict {
    if ErrorBody::read(&outcome.body).remote {
        Verdict::Unknown
    } else if outcome.status_code == http::StatusCode::UNAUTHORIZED {
        Verdict::NotExecuted(Then::RenewToken)
    } else {
        Verdict::NotExecuted(Then::Retry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Then::{HandOver, RenewToken, Retry};
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

    /// The table of the module's docs, written out status by status: (status,
    /// verdict by status alone, verdict where the remote end has answered).
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
            NotExecuted(HandOver),
            Final,
        );
        add(
            &[400, 402, 407, 409, 410, 412, 416, 418, 422, 423, 424],
            Final,
            Final,
        );
        add(&[427, 428, 430, 451, 499], Final, Final);
        add(&[401], NotExecuted(RenewToken), Unknown);
        add(&[408, 425, 429], NotExecuted(Retry), Unknown);
        add(
            &[403, 404, 405, 406, 411, 413, 414, 415],
            NotExecuted(HandOver),
            Final,
        );
        add(&[417, 421, 426, 431], NotExecuted(HandOver), Final);
        add(&[500, 501, 502, 503, 504, 505, 511, 599], Unknown, Unknown);
        add(&[600, 999], Unknown, Unknown);
        rows
    }

    #[test]
    fn every_line_of_the_table() {
        for (status, alone, remote) in table() {
            for body in [
                "",
                "{}",
                "<html>",
                r#"{"message":"ACTION.PROCESSING"}"#,
                r#"{"details":[]}"#,
            ] {
                assert_eq!(genesys(&answer(status, body)), alone, "{status} {body}");
            }
            for body in [REMOTE, PROCESSING, BOTH] {
                assert_eq!(genesys(&answer(status, body)), remote, "{status} {body}");
            }
        }
    }

    #[test]
    fn the_remotes_failed_login_counts_for_400_alone() {
        for (status, alone, _) in table() {
            let expected = if status == 400 {
                NotExecuted(HandOver)
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
    fn a_hostile_body_leaves_the_status_as_it_is() {
        let deep = r#"{"errors":["#.repeat(100_000);
        let huge = format!(r#"{{"details":[{}]}}"#, vec!["{}"; 500_000].join(","));
        for body in [
            &deep,
            &huge,
            &format!("{AUTHENTICATION}trailing"),
            &"\u{0}".repeat(1 << 20),
        ] {
            assert_eq!(genesys(&answer(429, body)), NotExecuted(Retry));
            assert_eq!(genesys(&answer(400, body)), Final);
            assert_eq!(genesys(&answer(403, body)), NotExecuted(HandOver));
        }
    }
}
