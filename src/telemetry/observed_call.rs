//! One call at the platform, as three sinks see it: the metrics, its span, and the summary of
//! its execution. It decides nothing.

use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;
use tracing::Span;

use super::contained;
use super::metric::{CALL_TIME, CALLS, RESPONSES};
use super::series::Series;
use super::span_summary::{SpanSummary, label};
use super::spans::close_attempt_span;
use crate::error::SendError;
use crate::key::Namespace;
use crate::outcome::{Outcome, Verdict};
use crate::request::ActionId;

/// A call on the wire. Dropped without [`ended`](Self::ended), its outcome is unknown.
pub(crate) struct ObservedCall {
    namespace: Namespace,
    action: ActionId,
    span: Span,
    sent: Instant,
    /// Set by `ended`, before a subscriber's code runs.
    time: Option<Duration>,
    verdict: Verdict,
    status: &'static str,
}

impl ObservedCall {
    /// The call is sent now, under this span and by the execution of this summary.
    pub(crate) fn sent(
        namespace: &Namespace,
        action: &ActionId,
        span: Span,
        summary: &SpanSummary,
    ) -> Self {
        summary.sent();
        Self {
            namespace: namespace.clone(),
            action: action.clone(),
            span,
            sent: Instant::now(),
            time: None,
            verdict: Verdict::Unknown,
            status: "none",
        }
    }

    /// The call ended with this answer and its verdict.
    pub(crate) fn ended(
        mut self,
        verdict: Verdict,
        answer: &Result<Outcome, SendError>,
        summary: &SpanSummary,
    ) {
        self.time = Some(self.sent.elapsed());
        summary.judged(verdict);
        self.verdict = verdict;
        self.status = answer.as_ref().map_or("none", |o| class(o.status()));
        // The answer survives a panic of the subscriber, also at the end of the span.
        let span = std::mem::replace(&mut self.span, Span::none());
        contained(move || close_attempt_span(&span, verdict, answer));
    }
}

/// The class of a status, as the metrics count it.
fn class(status: StatusCode) -> &'static str {
    match status.as_u16() {
        429 => "429",
        ..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        500.. => "5xx",
    }
}

impl Drop for ObservedCall {
    fn drop(&mut self) {
        let time = self.time.unwrap_or_else(|| self.sent.elapsed());
        let verdict = label(self.verdict);
        Series::with(&CALLS, &self.namespace, verdict).count();
        Series::with(&CALL_TIME, &self.namespace, verdict).observe(time);
        Series::of_action(&RESPONSES, &self.namespace, &[self.status], &self.action).count();
    }
}
