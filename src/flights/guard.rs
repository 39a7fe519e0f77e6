//! The right to run a flight, and the duty to answer its waiters (I3). It decides no
//! answer; dropping it takes the flight out of the table.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::Span;

use super::flight::Flight;
use super::{CapacityPermit, FlightAnswer, Flights};
use crate::error::{Error, StoreError};
use crate::execution::Progress;
use crate::key::{Fingerprint, IdempotencyKey, Namespace};
use crate::outcome::Reply;
use crate::request::DataActionRequest;
use crate::telemetry::{self, GaugeGuard, Meters};

/// The right to run a flight, and the duty to answer it.
#[derive(Debug)]
pub(crate) struct FlightGuard {
    flights: Arc<Flights>,
    flight: Arc<Flight>,
    request: DataActionRequest,
    /// Removed with the answer: an open span keeps its parents open.
    span: Mutex<Span>,
    /// When its first caller came; removed with the answer.
    begun: Mutex<Option<Instant>>,
    capacity: Option<CapacityPermit>,
    raised: Option<GaugeGuard>,
}

impl FlightGuard {
    /// The guard of a flight that was just put into the table.
    pub(super) fn new(
        flights: &Arc<Flights>,
        flight: Arc<Flight>,
        request: &DataActionRequest,
        capacity: CapacityPermit,
    ) -> Self {
        flights.in_flight.fetch_add(1, Ordering::Relaxed);
        Self {
            flights: flights.clone(),
            flight,
            request: request.clone(),
            span: Mutex::new(Span::none()),
            begun: Mutex::new(Some(Instant::now())),
            capacity: Some(capacity),
            raised: None,
        }
    }

    pub(super) fn raise(&mut self, meters: &Meters) {
        self.raised = telemetry::contained(|| meters.execution());
    }

    /// Begins the flight's span, a child of the current one.
    pub(crate) fn begin(&self, namespace: &Namespace) {
        let span = telemetry::flight(namespace, &self.request);
        if let Some(id) = span.id() {
            // The guard is new, so the id is not set yet.
            let _ = self.flight.span_id().set(id);
        }
        *self.lock() = span;
    }

    /// The flight's span, for the actor that runs it.
    pub(crate) fn span(&self) -> Span {
        // Cloned without the lock: a clone calls the subscriber.
        let span = std::mem::replace(&mut *self.lock(), Span::none());
        let clone = span.clone();
        *self.lock() = span;
        clone
    }

    fn lock(&self) -> MutexGuard<'_, Span> {
        // Changed by one assignment, so a panic leaves no half-made change.
        self.span.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn key(&self) -> IdempotencyKey {
        IdempotencyKey::of(&self.request)
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.flight.fingerprint()
    }

    pub(crate) fn request(&self) -> &DataActionRequest {
        &self.request
    }

    pub(crate) fn progress(&self) -> &Arc<Progress> {
        self.flight.progress()
    }

    /// Reports whether the store confirmed that the key belongs to this request: by a
    /// lease, or by a record with its fingerprint. While it is not confirmed, another
    /// request of the key is not a mismatch.
    pub(crate) fn confirm(&self, confirmed: bool) {
        self.flight.confirm(confirmed);
    }

    /// Answers all waiters. Callers that come before the record is finished get the
    /// answer as well, if it applies to them. Only the first answer counts. `left` is
    /// for how long the store replays it; zero if that is not known.
    pub(crate) fn answer(&self, answer: FlightAnswer, left: Duration) {
        self.publish(&answer, left);
        self.end_span(&answer);
    }

    /// Whether it is the first answer.
    fn publish(&self, answer: &FlightAnswer, left: Duration) -> bool {
        if let Ok(reply) = answer {
            self.remember(reply, left);
        }
        self.flight.set_answer(answer.clone())
    }

    /// Runs after the answer, so that no waiter waits for a subscriber. Only the first
    /// answer finds a span.
    fn end_span(&self, answer: &FlightAnswer) {
        let span = std::mem::replace(&mut *self.lock(), Span::none());
        let begun = self
            .begun
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let progress = self.progress();
        if let Some(begun) = begun {
            let (is_sensitive, summary) = (progress.is_sensitive(), progress.span_summary());
            telemetry::audit(
                &self.request,
                is_sensitive,
                summary,
                answer,
                begun.elapsed(),
            );
        }
        telemetry::contained(move || {
            telemetry::close_flight_span(&span, self.progress().span_summary(), answer);
            drop(span);
        });
    }

    /// Whether no answer of this guard has ended the span: the guard was dropped, or the
    /// table has ended.
    fn is_span_open(&self) -> bool {
        let begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        begun.is_some()
    }

    /// The store recorded an outcome that was answered before, and replays it for
    /// `left`.
    pub(crate) fn recorded(&self, left: Duration) {
        if let Some(Ok(reply)) = self.flight.answer() {
            self.remember(&reply.clone().with_recorded(true), left);
        }
    }

    /// An attempt to finish the record failed: reports it to the followers.
    pub(crate) fn not_finished(&self, error: &StoreError) {
        self.flight.failed(error);
    }

    fn remember(&self, reply: &Reply, left: Duration) {
        if self.progress().is_sensitive() {
            return;
        }
        let fingerprint = self.flight.fingerprint();
        if let Some(recent) = self.flights.recents.take(reply, fingerprint, left) {
            self.flight.remember(Arc::new(recent));
        }
    }
}

impl Drop for FlightGuard {
    fn drop(&mut self) {
        let crashed = (!self.flight.is_answered()).then(|| {
            Err(if self.flights.is_closed() {
                Error::Stopped
            } else {
                Error::Crashed { key: self.key() }
            })
        });
        if let Some(answer) = &crashed
            && self.publish(answer, Duration::ZERO)
            && self.flights.is_closed()
        {
            self.flights.lost.fetch_add(1, Ordering::Relaxed);
        }
        self.flights.finished(self.key());
        // Before the followers wake, since one of them begins the next flight.
        drop(self.capacity.take());
        self.flight.finish();
        // Last, so that a panic of the subscriber leaves nothing undone.
        if self.is_span_open()
            && let Some(answer) = self.flight.answer()
        {
            self.end_span(answer);
        }
    }
}
