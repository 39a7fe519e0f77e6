//! The spans and their fields. No payload, secret or token ever becomes a field; a key only
//! by its first digits.

use std::fmt;
use std::time::Duration;

use http::Uri;
use tracing::field::Empty;
use tracing::{Metadata, Span};

use super::contained;
use super::span_summary::{SpanSummary, label};
use crate::error::{Error, SendError};
use crate::genesys::correlation_id;
use crate::key::{IdempotencyKey, Namespace};
use crate::outcome::{Outcome, Reply, Verdict};
use crate::request::DataActionRequest;

/// Digits of a key in a span.
const PREFIX: usize = 12;
/// Ids are short: a longer value is not recorded.
const MAX_ID_BYTES: usize = 128;

/// The first digits of a key.
struct Prefix(IdempotencyKey);

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.PREFIX$}", self.0.to_string())
    }
}

macro_rules! execute {
    ($namespace:expr, $request:expr $(, $parent:expr)?) => {
        begun(|| {
            tracing::info_span!(
                target: "genesys_once",
                $(parent: $parent,)?
                "genesys_once.execute",
                namespace = $namespace.as_str(),
                key = %Prefix(IdempotencyKey::of($request)),
                action_id = $request.action_id().as_str(),
                served = Empty,
                attempts = Empty,
                verdict = Empty,
                correlation_id = Empty,
                "error.type" = Empty,
                "otel.status_code" = Empty,
            )
        })
    };
}

/// A span; none where the subscriber panics.
fn begun(span: impl FnOnce() -> Span) -> Span {
    contained(span).unwrap_or_else(Span::none)
}

/// The span of one caller, a child of the current one.
pub(crate) fn execute(namespace: &Namespace, request: &DataActionRequest) -> Span {
    execute!(namespace, request)
}

/// The span of a caller by message, a child of the `sender`'s.
pub(crate) fn execute_message(
    namespace: &Namespace,
    request: &DataActionRequest,
    sender: &Span,
) -> Span {
    execute!(namespace, request, sender)
}

/// In the handler of a message: the sender's span, where the message carries it. Never the
/// root actor's span, which lasts as long as the engine.
pub(crate) fn sender() -> Span {
    let current = Span::current();
    let of_actor = |metadata: &Metadata<'_>| metadata.target().starts_with("ractor");
    match current.metadata().is_some_and(of_actor) {
        true => Span::none(),
        false => current,
    }
}

/// The caller received its answer; `summary` is that of the execution for which it waited.
pub(crate) fn close_caller_span(
    span: &Span,
    summary: Option<&SpanSummary>,
    answer: &Result<Reply, Error>,
) {
    if span.is_disabled() {
        return;
    }
    span.record("attempts", summary.map_or(0, SpanSummary::attempts));
    if let Some(verdict) = summary.and_then(SpanSummary::verdict) {
        span.record("verdict", verdict);
    }
    match answer {
        Ok(reply) => {
            span.record("served", reply.served().as_str());
            correlate(span, reply.outcome());
        }
        Err(error) => {
            if let Error::Unauthorized {
                correlation_id: Some(id),
            } = error
                && id.len() <= MAX_ID_BYTES
            {
                span.record("correlation_id", &**id);
            }
            fail(span, error);
        }
    }
}

/// The span of one execution, a child of the current one.
pub(crate) fn flight(namespace: &Namespace, request: &DataActionRequest) -> Span {
    begun(|| {
        tracing::info_span!(
            target: "genesys_once",
            "genesys_once.flight",
            namespace = namespace.as_str(),
            key = %Prefix(IdempotencyKey::of(request)),
            action_id = request.action_id().as_str(),
            attempts = Empty,
            verdict = Empty,
            "error.type" = Empty,
            "otel.status_code" = Empty,
        )
    })
}

/// The execution has its answer.
pub(crate) fn close_flight_span(span: &Span, summary: &SpanSummary, answer: &Result<Reply, Error>) {
    if span.is_disabled() {
        return;
    }
    span.record("attempts", summary.attempts());
    if let Some(verdict) = summary.verdict() {
        span.record("verdict", verdict);
    }
    if let Err(error) = answer {
        fail(span, error);
    }
}

/// The span of one call at the platform, at `url` where the upstream says so.
pub(crate) fn attempt(number: u32, url: impl FnOnce() -> Option<String>) -> Span {
    begun(|| {
        let span = tracing::info_span!(
            target: "genesys_once",
            "genesys_once.attempt",
            "otel.kind" = "client",
            attempt = number,
            verdict = Empty,
            correlation_id = Empty,
            "http.request.method" = "POST",
            "http.request.resend_count" = Empty,
            "url.full" = Empty,
            "server.address" = Empty,
            "server.port" = Empty,
            "http.response.status_code" = Empty,
            "error.type" = Empty,
            "otel.status_code" = Empty,
        );
        if span.is_disabled() {
            return span;
        }
        if number > 1 {
            span.record("http.request.resend_count", number - 1);
        }
        if let Some(url) = url() {
            span.record("url.full", &*url);
            if let Ok(url) = url.parse::<Uri>() {
                span.record("server.address", url.host());
                let usual = if url.scheme_str() == Some("http") {
                    80
                } else {
                    443
                };
                span.record("server.port", url.port_u16().unwrap_or(usual));
            }
        }
        span
    })
}

/// The call ended.
pub(super) fn close_attempt_span(
    span: &Span,
    verdict: Verdict,
    answer: &Result<Outcome, SendError>,
) {
    if span.is_disabled() {
        return;
    }
    span.record("verdict", label(verdict));
    match answer {
        Ok(outcome) => {
            let status = outcome.status();
            span.record("http.response.status_code", status.as_u16());
            correlate(span, outcome);
            // By the conventions for HTTP clients.
            if status.is_client_error() || status.is_server_error() {
                span.record("error.type", status.as_str());
                span.record("otel.status_code", "ERROR");
            }
        }
        Err(error) => {
            let sent = if error.may_have_left() {
                "no_answer"
            } else {
                "not_sent"
            };
            span.record("error.type", sent);
            span.record("otel.status_code", "ERROR");
        }
    }
}

/// The execution of `request` has this answer, `time` after its first caller's request. A
/// sensitive request's label is not logged.
pub(crate) fn audit(
    request: &DataActionRequest,
    is_sensitive: bool,
    summary: &SpanSummary,
    answer: &Result<Reply, Error>,
    time: Duration,
) {
    contained(|| {
        let [_, _, label] = request.called();
        tracing::info!(
            target: "genesys_once::audit",
            key = %IdempotencyKey::of(request),
            action_id = request.action_id().as_str(),
            label = label.as_deref().filter(|_| !is_sensitive),
            served = answer.as_ref().ok().map(|reply| reply.served().as_str()),
            status = answer.as_ref().ok().map(|reply| reply.status().as_u16()),
            code = answer.as_ref().err().map(Error::code),
            attempts = summary.attempts(),
            duration_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
            "answered"
        );
    });
}

fn correlate(span: &Span, outcome: &Outcome) {
    if let Some(id) = correlation_id(outcome).filter(|id| id.len() <= MAX_ID_BYTES) {
        span.record("correlation_id", id);
    }
}

fn fail(span: &Span, error: &Error) {
    span.record("error.type", error.code());
    span.record("otel.status_code", "ERROR");
}
