//! Errors as problem documents (RFC 9457): one table from codes to HTTP
//! statuses. Nothing here shows a cause: causes are for the log.

use std::time::{Duration, UNIX_EPOCH};

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use genesys_once::{Error, IdempotencyKey, RetryHint};
use serde_json::{Value, json};

/// Every code with its status and title. The engine's codes are those of
/// [`Error::code`]; the others are the service's own.
#[rustfmt::skip]
pub const TABLE: [(&str, u16, &str); 31] = [
    ("invalid_request", 400, "The request cannot be read"),
    // draft-ietf-httpapi-idempotency-key-header, section 2.7.
    ("key_required", 400, "The header Idempotency-Key is missing"),
    ("unauthenticated", 401, "A token is needed"),
    ("forbidden", 403, "The form is of another session"),
    ("not_found", 404, "There is nothing here"),
    ("unknown_key", 404, "Nothing is recorded of the key"),
    ("method_not_allowed", 405, "This route has other methods"),
    ("request_timeout", 408, "The body did not arrive in time"),
    ("in_progress", 409, "The key is being executed"),
    ("not_indeterminate", 409, "The key is not indeterminate in that version"),
    ("resolution_unknown", 409, "The resolution might have been applied"),
    ("too_early", 409, "The lost attempt might still be running"),
    ("payload_too_large", 413, "The body is too large"),
    ("unsupported_media_type", 415, "The body must be JSON"),
    ("unknown_host", 421, "This service does not answer for that host"),
    // draft-ietf-httpapi-idempotency-key-header, section 2.7.
    ("payload_mismatch", 422, "The key belongs to another payload"),
    ("changed", 412, "The record has changed since that version"),
    ("version_required", 428, "If-Match must name the version that was seen"),
    ("rate_limited", 429, "The platform asks to wait"),
    ("internal", 500, "Something is wrong with the service"),
    ("record_unreadable", 500, "The key's record cannot be read"),
    ("indeterminate", 502, "It might have been executed, and is not repeated"),
    ("unauthorized", 502, "The platform refuses the service's token"),
    ("crashed", 503, "The execution crashed"),
    ("overloaded", 503, "The service is overloaded"),
    ("stopped", 503, "This instance is shutting down"),
    ("store_unavailable", 503, "The store is unavailable"),
    ("token", 503, "Could not obtain an access token"),
    ("unreachable", 503, "The platform cannot be reached"),
    ("deadline_exceeded", 504, "It is still being executed"),
    ("expired", 504, "It was not sent in time, and not executed"),
];

/// Why a request has no answer, as the client sees it.
///
/// `type` is `/problems/CODE`, which the service itself explains.
#[derive(Clone, Debug)]
pub struct Problem {
    code: &'static str,
    detail: String,
    key: Option<IdempotencyKey>,
    /// When the **same** request, with the same key, may be sent again. It is
    /// safe: the record decides whether anything is executed.
    retry_after: Option<Duration>,
    /// Members of one code only.
    more: Vec<(&'static str, Value)>,
}

impl Problem {
    /// A problem with a code of the table.
    pub fn new(code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            code,
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

    /// What happened, for people.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    pub fn status(&self) -> StatusCode {
        self.row().0
    }

    /// The status, and a title; 500 for a code that a later release adds.
    fn row(&self) -> (StatusCode, &'static str) {
        let row = TABLE.iter().find(|(code, ..)| *code == self.code);
        let (status, title) = row.map_or((500, "No answer"), |(_, status, title)| (*status, title));
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, title)
    }

    /// The document: RFC 9457's members, then the service's own.
    pub fn document(&self) -> Value {
        let (status, title) = self.row();
        let mut document = json!({
            "type": format!("/problems/{}", self.code),
            "title": title,
            "status": status.as_u16(),
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

    /// Whole seconds, rounded up: a client that returns then is not too early.
    fn retry_after_seconds(&self) -> Option<u64> {
        let wait = self.retry_after?;
        Some((wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1))
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let mut problem = Self::new(error.code(), error.to_string());
        problem.key = error.key();
        problem.retry_after = match (error.hint(), &error) {
            (RetryHint::After(wait), _) => Some(wait),
            // Another instance, or this one after its restart, may answer.
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
                // The cause may name hosts: it is in the record and the log.
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
        let (status, _) = self.row();
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
