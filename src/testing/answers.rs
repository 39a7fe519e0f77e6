//! Answers in the platform's shape: error bodies, rate limits, and the errors of a remote
//! end's failure. For tests and simulators; the engine never uses them.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value, json};

use crate::outcome::Outcome;

/// The platform's header for the id that its support asks for.
pub(super) const CORRELATION_ID: &str = "inin-correlation-id";

/// An answer with a JSON body, and nothing else that a platform would add.
///
/// # Panics
///
/// Where `status` is not 100–999.
#[track_caller]
pub fn json(status: u16, body: impl Into<Bytes>) -> Outcome {
    let status = StatusCode::from_u16(status).expect("an HTTP status is a number from 100 to 999");
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Outcome::new(status, headers, body)
}

/// The body of the platform's errors, with a fresh `contextId`: its
/// `ErrorBody` schema, where `details` and `errors` are lists and `limit` is
/// present only if a limit was hit.
pub fn error_body(status: u16, code: &str, message: &str) -> Value {
    json!({
        "message": message,
        "code": code,
        "status": status,
        "entityId": null,
        "messageWithParams": message,
        "messageParams": {},
        "contextId": fresh_id(),
        "details": [],
        "errors": [],
    })
}

/// An error of the platform itself: a 403 with code `not.authorized`, say. The
/// correlation id in its header is the body's `contextId`.
///
/// # Panics
///
/// Where `status` is not 100–999.
#[track_caller]
pub fn platform_error(status: u16, code: &str, message: &str) -> Outcome {
    error_answer(status, &error_body(status, code, message))
}

/// The platform's answer to a missing, unknown or expired token.
pub(super) fn unauthorized() -> Outcome {
    platform_error(401, "bad.credentials", "Invalid login credentials.")
}

/// The platform's error for a failure at or before the remote end: an error whose
/// `details[].errorCode` is `error_code`, such as `ACTION.REMOTE_ENDPOINT`,
/// `ACTION.PROCESSING` or `ACTION.AUTHENTICATION`.
///
/// # Panics
///
/// Where `status` is not 100–999.
#[track_caller]
pub fn remote_error(status: u16, error_code: &str, message: &str) -> Outcome {
    let mut body = error_body(status, "bad.request", message);
    body["details"] = json!([{ "errorCode": error_code, "fieldName": null, "entityId": null }]);
    error_answer(status, &body)
}

/// The platform's 429: code `too.many.requests.retry.after`, `Retry-After` in
/// whole seconds, rounded up so that the wait is long enough, and the same number in the
/// message.
pub fn rate_limited(retry_after: Duration) -> Outcome {
    too_many_a_minute(retry_after, 300)
}

/// The platform's 429 to more than `limit` requests a minute.
pub(super) fn too_many_a_minute(retry_after: Duration, limit: u32) -> Outcome {
    let code = "too.many.requests.retry.after";
    throttled(retry_after, code, "token.rate.per.minute", limit.into())
}

/// A 429 to more than `limit` executions at one time. The platform documents
/// the limit and no code of its own for it.
pub(super) fn too_many_at_once(limit: usize) -> Outcome {
    let code = "too.many.requests";
    throttled(
        Duration::from_secs(1),
        code,
        "actions.concurrent.executions.max",
        limit as u64,
    )
}

fn throttled(retry_after: Duration, code: &str, limit: &str, value: u64) -> Outcome {
    let seconds = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
    let message =
        format!("Rate limit exceeded the maximum. Retry the request in [{seconds}] seconds");
    let mut body = error_body(429, code, &message);
    body["limit"] = json!({ "key": limit, "namespace": "platform.api", "value": value });
    let mut outcome = error_answer(429, &body);
    outcome
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from(seconds));
    outcome
}

/// An id as the platform writes them, a UUID.
pub(super) fn fresh_id() -> String {
    let hex = format!("{:032x}", fastrand::u128(..));
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

#[track_caller]
fn error_answer(status: u16, body: &Value) -> Outcome {
    let mut outcome = json(status, body.to_string());
    let id = body["contextId"]
        .as_str()
        .and_then(|id| HeaderValue::from_str(id).ok());
    outcome
        .headers_mut()
        .extend(id.map(|id| (http::HeaderName::from_static(CORRELATION_ID), id)));
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_limit_has_its_seconds_three_times() {
        let outcome = rate_limited(Duration::from_millis(41_001));
        assert_eq!(outcome.status(), 429);
        assert_eq!(outcome.header("retry-after"), Some("42"));
        let body: Value = serde_json::from_slice(outcome.body()).unwrap();
        assert_eq!(body["code"], "too.many.requests.retry.after");
        assert_eq!(
            body["message"],
            "Rate limit exceeded the maximum. Retry the request in [42] seconds"
        );
        assert_eq!(body["limit"]["namespace"], "platform.api");
        let zero = rate_limited(Duration::ZERO);
        assert_eq!(zero.header("retry-after"), Some("0"));
    }

    #[test]
    fn error_has_the_platforms_shape() {
        let outcome = remote_error(400, "ACTION.REMOTE_ENDPOINT", "it said no");
        let body: Value = serde_json::from_slice(outcome.body()).unwrap();
        for member in [
            "message",
            "code",
            "status",
            "contextId",
            "details",
            "errors",
        ] {
            assert!(!body[member].is_null(), "{member}");
        }
        assert_eq!(body["details"][0]["errorCode"], "ACTION.REMOTE_ENDPOINT");
        assert_eq!(
            crate::genesys::correlation_id(&outcome),
            body["contextId"].as_str()
        );
        assert_eq!(fresh_id().len(), 36);
    }
}
