//! The wait that an answer asks for, and whether a rate limit is the platform's. Pure: the
//! clock is a parameter; `policy` bounds the wait.

use std::time::{Duration, SystemTime};

use http::header::{DATE, RETRY_AFTER};

use super::error_body::{ErrorBody, is_digits};
use crate::outcome::Outcome;
use crate::policy::MAX_ASKED;

/// How long the answer asks to wait before the next attempt; `None` if it does not.
///
/// First `Retry-After` counts, as whole seconds or as an HTTP date (RFC 9110 section
/// 10.2.3; a date that has passed is zero), and the longest if it is repeated. Else the
/// text "Retry the request in \[42\] seconds" in the JSON body's message counts, which the
/// platform sometimes sends without the header. More than an hour is an hour.
///
/// A date is compared with the answer's own `Date` header, so that the two clocks need not
/// agree, and without one with `now`, the time of the wall clock.
///
/// The engine waits at least for its own backoff.
pub fn retry_after(outcome: &Outcome, now: SystemTime) -> Option<Duration> {
    let dates = outcome.headers().get_all(DATE).iter();
    let mut dates = dates.filter_map(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
    let now = dates.next().unwrap_or(now);
    let by_header = outcome
        .headers()
        .get_all(RETRY_AFTER)
        .iter()
        .filter_map(|value| read_header(value.to_str().ok()?.trim(), now))
        .max();
    by_header
        .or_else(|| {
            ErrorBody::read(outcome.body())
                .retry_seconds
                .map(Duration::from_secs)
        })
        .map(|wait| wait.min(MAX_ASKED))
}

/// Whether a 429 is the platform's own limit, which begins a cooldown for each execution
/// of its upstream. A 429 that an action relays from its remote end (a detail says
/// `ACTION.REMOTE_ENDPOINT` or `ACTION.PROCESSING`) concerns that action only. `false`
/// for every other status.
pub fn is_platform_limit(outcome: &Outcome) -> bool {
    outcome.status() == http::StatusCode::TOO_MANY_REQUESTS
        && !ErrorBody::read(outcome.body()).remote
}

fn read_header(value: &str, now: SystemTime) -> Option<Duration> {
    if is_digits(value) {
        // More digits than a number holds are the longest wait.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, HeaderValue, StatusCode};

    const WORDS: &str = r#"{"code":"too.many.requests.retry.after","message":"Rate limit exceeded the maximum. Retry the request in [42] seconds"}"#;

    /// Sun, 06 Nov 1994 08:49:37 GMT, RFC 9110's example.
    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777)
    }

    fn wait(headers: &[&[u8]], body: &str) -> Option<Duration> {
        wait_at(&[], headers, body)
    }

    fn wait_at(dates: &[&str], headers: &[&[u8]], body: &str) -> Option<Duration> {
        let mut map = HeaderMap::new();
        for value in headers {
            map.append(RETRY_AFTER, HeaderValue::from_bytes(value).unwrap());
        }
        for date in dates {
            map.append(DATE, HeaderValue::from_str(date).unwrap());
        }
        retry_after(
            &Outcome::new(StatusCode::TOO_MANY_REQUESTS, map, body.to_owned()),
            now(),
        )
    }

    #[test]
    fn each_form_of_retry_after_is_read() {
        let seconds = |s| Some(Duration::from_secs(s));
        for (value, expected) in [
            ("0", seconds(0)),
            ("42", seconds(42)),
            (" 007 ", seconds(7)),
            ("3600", seconds(3600)),
            ("3601", seconds(3600)),
            ("1764200000", seconds(3600)),
            ("99999999999999999999999", Some(MAX_ASKED)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", seconds(60)),
            ("Sunday, 06-Nov-94 08:50:37 GMT", seconds(60)),
            ("Sun Nov  6 08:50:37 1994", seconds(60)),
            ("Sun, 06 Nov 1994 08:49:36 GMT", seconds(0)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(MAX_ASKED)),
        ] {
            assert_eq!(wait(&[value.as_bytes()], ""), expected, "{value}");
        }
        assert_eq!(wait(&[], WORDS), seconds(42));
    }

    #[test]
    fn malformed_retry_after_is_ignored() {
        for value in [
            "",
            "-5",
            "+5",
            "1.5",
            "5s",
            "0x10",
            "soon",
            "Sun, 99 Nov 1994 08:49:37 GMT",
        ] {
            assert_eq!(wait(&[value.as_bytes()], ""), None, "{value}");
            // The message still counts.
            assert_eq!(
                wait(&[value.as_bytes()], WORDS),
                Some(Duration::from_secs(42)),
                "{value}"
            );
        }
        assert_eq!(wait(&["\u{0664}\u{0662}".as_bytes()], ""), None);
        assert_eq!(wait(&[b"\xff"], ""), None);
        assert_eq!(wait(&[], "Retry the request in [42] seconds"), None);
        assert_eq!(wait(&[], ""), None);
    }

    #[test]
    fn longest_header_counts_before_the_message() {
        assert_eq!(wait(&[b"7"], WORDS), Some(Duration::from_secs(7)));
        assert_eq!(
            wait(&[b"7", b"-1", b"9", b"8"], ""),
            Some(Duration::from_secs(9))
        );
    }

    /// Red if a date is compared with this process's clock: each date then asks for no
    /// wait, or for the longest.
    #[test]
    fn date_is_compared_with_the_date_header() {
        let asked = |dates: &[&str], date: &str| wait_at(dates, &[date.as_bytes()], "");
        let behind = "Wed, 21 Oct 2015 07:28:10 GMT";
        let minute = Some(Duration::from_secs(60));
        assert_eq!(asked(&[behind], "Wed, 21 Oct 2015 07:29:10 GMT"), minute);
        assert_eq!(asked(&[behind], behind), Some(Duration::ZERO));
        // An unreadable `Date` is ignored, and seconds need none.
        assert_eq!(asked(&["soon"], "Sun, 06 Nov 1994 08:50:37 GMT"), minute);
        assert_eq!(
            asked(&["soon", behind], "Wed, 21 Oct 2015 07:29:10 GMT"),
            minute
        );
        assert_eq!(asked(&[behind], "60"), minute);
    }

    #[test]
    fn huge_number_in_the_message_is_the_longest_wait() {
        let body = r#"{"message":"Retry the request in [18446744073709551616] seconds"}"#;
        assert_eq!(wait(&[], body), Some(MAX_ASKED));
    }

    #[test]
    fn relayed_limit_is_not_the_platforms() {
        let answer = |status, body: &str| Outcome::new(status, HeaderMap::new(), body.to_owned());
        let limited = StatusCode::TOO_MANY_REQUESTS;
        assert!(is_platform_limit(&answer(limited, WORDS)));
        assert!(is_platform_limit(&answer(limited, "")));
        for code in ["ACTION.REMOTE_ENDPOINT", "ACTION.PROCESSING"] {
            let body = format!(r#"{{"details":[{{"errorCode":"{code}"}}]}}"#);
            assert!(!is_platform_limit(&answer(limited, &body)), "{code}");
        }
        assert!(!is_platform_limit(&answer(
            StatusCode::SERVICE_UNAVAILABLE,
            WORDS
        )));
    }
}
