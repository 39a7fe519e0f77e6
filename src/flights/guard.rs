//! The right to run a flight, and the duty to answer everybody who waits for it
//! (I3). The table hears from it once: that its flight is settled.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::Span;

use super::{Answer, Flight, Flights, Place};
use crate::error::Error;
use crate::execution::Progress;
use crate::key::{IdempotencyKey, Namespace};
use crate::outcome::Reply;
use crate::request::DataActionRequest;
use crate::telemetry::{self, Raised};

/// The right to run a flight, and the duty to answer it.
#[derive(Debug)]
pub(crate) struct Guard {
    flights: Arc<Flights>,
    flight: Arc<Flight>,
    request: DataActionRequest,
    /// Until the answer: a span that stays open keeps those above it open.
    span: Mutex<Span>,
    _place: Place,
    _raised: Raised,
}

impl Guard {
    /// Of a flight that has just come into the table.
    pub(super) fn new(
        flights: &Arc<Flights>,
        flight: Arc<Flight>,
        request: &DataActionRequest,
        place: Place,
        raised: Raised,
    ) -> Self {
        flights.under_way.fetch_add(1, Ordering::Relaxed);
        Self {
            flights: flights.clone(),
            flight,
            request: request.clone(),
            span: Mutex::new(Span::none()),
            _place: place,
            _raised: raised,
        }
    }

    /// Begins the flight's span, a child of the current one.
    pub(crate) fn begin(&self, namespace: &Namespace) {
        let span = telemetry::flight(namespace, &self.request);
        if let Some(id) = span.id() {
            // The guard is new: nobody has set it before.
            let _ = self.flight.id.set(id);
        }
        *self.lock() = span;
    }

    /// The flight's span, for what runs it.
    pub(crate) fn span(&self) -> Span {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Span> {
        // Replaced as a whole, so a panic leaves it whole.
        self.span.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn key(&self) -> IdempotencyKey {
        IdempotencyKey::of(&self.request)
    }

    pub(crate) fn request(&self) -> &DataActionRequest {
        &self.request
    }

    pub(crate) fn progress(&self) -> &Arc<Progress> {
        &self.flight.progress
    }

    /// Answers everybody who waits, and those who join until the flight is
    /// settled; only the first answer counts. `left` is for how long the store
    /// replays it, zero where that is not known.
    pub(crate) fn answer(&self, answer: Answer, left: Duration) {
        if let Ok(reply) = &answer {
            self.remember(reply, left);
        }
        if self.flight.answer.set(answer.clone()).is_ok() {
            self.flight.answered.notify_waiters();
        }
        // Afterwards: what a subscriber does keeps nobody waiting. Only the first
        // answer finds a span.
        let span = std::mem::replace(&mut *self.lock(), Span::none());
        telemetry::flown(&span, self.progress().trail(), &answer);
    }

    fn is_answered(&self) -> bool {
        self.flight.answer.get().is_some()
    }

    /// The outcome that was answered before the store had it is there by now, and
    /// replayed for `left`.
    pub(crate) fn recorded(&self, left: Duration) {
        if let Some(Ok(reply)) = self.flight.answer.get() {
            self.remember(&reply.clone().with_recorded(true), left);
        }
    }

    fn remember(&self, reply: &Reply, left: Duration) {
        if self.flight.progress.is_sensitive() {
            return;
        }
        let Flight { fingerprint, .. } = *self.flight;
        if let Some(recent) = self.flights.recents.take(reply, fingerprint, left) {
            *self.flight.recent() = Some(Arc::new(recent));
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.is_answered() {
            let error = if self.flights.is_closed() {
                Error::Stopped
            } else {
                Error::Crashed { key: self.key() }
            };
            self.answer(Err(error), Duration::ZERO);
        }
        self.flights.settled(self.key());
    }
}
