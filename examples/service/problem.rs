//! Errors as problem documents (RFC 9457), with a title for each code. Nothing here shows a
//! cause: causes are for the log.

use std::time::{Duration, UNIX_EPOCH};

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use genesys_once::{Error, IdempotencyKey, RetryHint};
use serde_json::{Value, json};

/// Every code with its title. The engine's codes are those of [`Error::code`]; the others
/// are the service's own.
#[rustfmt::skip]
pub const TITLES: [(&str, &str); 31] = [
    ("changed", "The record has changed since that version"),
    ("crashed", "The execution crashed"),
    ("deadline_exceeded", "It is still being executed"),
    ("expired", "It was not sent in time, and not executed"),
    ("forbidden", "The form is of another session"),
    ("in_progress", "The key is being executed"),
    ("indeterminate", "It might have been executed, and is not repeated"),
    ("internal", "Something is wrong with the service"),
    ("invalid_request", "The request cannot be read"),
    ("key_required", "The header Idempotency-Key is missing"),
    ("method_not_allowed", "This route has other methods"),
    ("not_found", "There is nothing here"),
    ("not_indeterminate", "The key is not indeterminate in that version"),
    ("overloaded", "The service is overloaded"),
    ("payload_mismatch", "The key belongs to another payload"),
    ("payload_too_large", "The body is too large"),
    ("rate_limited", "The platform asks to wait"),
    ("record_unreadable", "The key's record cannot be read"),
    ("request_timeout", "The body did not arrive in time"),
    ("resolution_unknown", "The resolution might have been applied"),
    ("stopped", "This instance is shutting down"),
    ("store_unavailable", "The store is unavailable"),
    ("token", "Could not obtain an access token"),
    ("too_early", "The lost attempt might still be running"),
    ("unauthenticated", "A token is needed"),
    ("unauthorized", "The platform refuses the service's token"),
    ("unknown_host", "This service does not answer for that host"),
    ("unknown_key", "Nothing is recorded of the key"),
    ("unreachable", "The platform cannot be reached"),
    ("unsupported_media_type", "The body must be JSON"),
    ("version_required", "If-Match must name the version that was seen"),
];

/// The status of a problem that the service itself detects.
fn own_status(code: &str) -> StatusCode {
    match code {
        // draft-ietf-httpapi-idempotency-key-header, section 2.7.
        "key_required" => StatusCode::BAD_REQUEST,
        "invalid_request" => StatusCode::BAD_REQUEST,
        "unauthenticated" => StatusCode::UNAUTHORIZED,
        "forbidden" => StatusCode::FORBIDDEN,
        "not_found" => StatusCode::NOT_FOUND,
        "method_not_allowed" => StatusCode::METHOD_NOT_ALLOWED,
        "request_timeout" => StatusCode::REQUEST_TIMEOUT,
        "changed" => StatusCode::PRECONDITION_FAILED,
        "payload_too_large" => StatusCode::PAYLOAD_TOO_LARGE,
        "unsupported_media_type" => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unknown_host" => StatusCode::MISDIRECTED_REQUEST,
        "version_required" => StatusCode::PRECONDITION_REQUIRED,
        "overloaded" => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Why a request has no answer, as the client sees it.
///
/// `type` is `/problems/CODE`, which the service itself explains.
#[derive(Clone, Debug)]
pub struct Problem {
    code: &'static str,
    status: StatusCode,
    detail: String,
    key: Option<IdempotencyKey>,
    /// When the **same** request, with the same key, may be sent again. That is safe: the
    /// record decides whether anything is executed.
    retry_after: Option<Duration>,
    /// Members that only one code has.
    more: Vec<(&'static str, Value)>,
}

impl Problem {
    /// A problem that the service itself detects.
    pub fn new(code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            code,
            status: own_status(code),
            detail: detail.into(),
            key: None,
            retry_after: None,
            more: Vec::new(),
        }
    }

    pub fn of_key(mut self, key: IdempotencyKey) -> Self {
        self.key = Some(key);
        self
    }

    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// What happened, as text for people.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The title; a code that only a later release has gets a general title.
    fn title(&self) -> &'static str {
        let row = TITLES.iter().find(|(code, _)| *code == self.code);
        row.map_or("No answer", |(_, title)| title)
    }

    /// The document: RFC 9457's members, then the service's own.
    pub fn document(&self) -> Value {
        let mut document = json!({
            "type": format!("/problems/{}", self.code),
            "title": self.title(),
            "status": self.status.as_u16(),
            "detail": self.detail,
            "code": self.code,
            "retryable": self.retry_after.is_some(),
        });
        if let Some(key) = self.key {
            document["key"] = json!(key);
        }
        if let Some(seconds) = self.retry_after_seconds() {
            document["retry_after"] = json!(seconds);
        }
        for (name, value) in &self.more {
            document[name] = value.clone();
        }
        document
    }

    /// Whole seconds, rounded up: a client that retries then is not too early.
    fn retry_after_seconds(&self) -> Option<u64> {
        let wait = self.retry_after?;
        Some((wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1))
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let mut problem = Self::new(error.code(), error.to_string());
        problem.status = error.status();
        problem.key = error.key();
        problem.retry_after = match (error.hint(), &error) {
            (RetryHint::After(wait), _) => Some(wait),
            // Another instance, or this one after its restart, might answer.
            (_, Error::Stopped) => Some(Duration::from_secs(1)),
            _ => None,
        };
        match &error {
            Error::InvalidRequest { field, .. } => {
                problem.more.push(("field", json!(field)));
            }
            Error::Indeterminate {
                key,
                version,
                since,
                ..
            } => {
                // The cause might name hosts: it is in the record and the log.
                problem.detail = format!("key {key} might have been executed");
                problem.more.push(("version", json!(version)));
                let since = since.duration_since(UNIX_EPOCH).unwrap_or_default();
                problem.more.push(("since_unix", json!(since.as_secs())));
            }
            Error::Unauthorized {
                correlation_id: Some(id),
                ..
            } => problem.more.push(("correlation_id", json!(**id))),
            _ => {}
        }
        problem
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status;
        let mut response = (status, Json(self.document())).into_response();
        let headers = response.headers_mut();
        let problem = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, problem);
        if let Some(seconds) = self.retry_after_seconds() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
