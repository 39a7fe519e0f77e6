//! Waiters for a flight's answer, and followers that wait for its end. Dropping one
//! frees its capacity and never affects the flight (I2).

use std::sync::Arc;

use tracing::Span;
use tracing::span::Id;

use super::flight::Flight;
use super::{CapacityPermit, FlightAnswer};
use crate::error::Error;
use crate::execution::Progress;
use crate::key::Fingerprint;
use crate::outcome::Served;
use crate::telemetry::{self, GaugeGuard, Meters};

/// A caller that waits for the answer of a flight.
#[derive(Debug)]
pub(crate) struct Waiter {
    flight: Arc<Flight>,
    joined: bool,
    /// The span of the flight that was joined.
    leader: Option<Id>,
    _capacity: CapacityPermit,
    raised: Option<GaugeGuard>,
}

impl Waiter {
    /// The caller that begins a flight.
    pub(super) fn first(flight: Arc<Flight>, capacity: CapacityPermit) -> Self {
        Self {
            flight,
            joined: false,
            leader: None,
            _capacity: capacity,
            raised: None,
        }
    }

    /// A further caller.
    pub(super) fn joined(flight: Arc<Flight>, capacity: CapacityPermit) -> Self {
        Self {
            joined: true,
            leader: flight.span_id().get().cloned(),
            ..Self::first(flight, capacity)
        }
    }

    pub(super) fn raise(&mut self, meters: &Meters) {
        self.raised = telemetry::contained(|| meters.waiting());
    }

    /// The progress of the flight's execution.
    pub(crate) fn progress(&self) -> &Arc<Progress> {
        self.flight.progress()
    }

    /// The current span follows from the flight that was joined.
    pub(crate) fn link(&self) {
        if let Some(leader) = &self.leader {
            Span::current().follows_from(leader);
        }
    }

    /// The flight's answer.
    pub(crate) async fn answer(self) -> FlightAnswer {
        match self.flight.answered().await.clone() {
            Ok(reply) if self.joined => Ok(reply.with_served(Served::Joined)),
            answer => answer,
        }
    }
}

/// A caller to which the answer of its key's flight does not apply. It waits for the
/// end of that flight.
#[derive(Debug)]
pub(crate) struct Follower {
    flight: Arc<Flight>,
    fingerprint: Fingerprint,
    /// How often finishing the flight's record had failed before.
    failed: usize,
    _capacity: CapacityPermit,
    raised: Option<GaugeGuard>,
}

impl Follower {
    pub(super) fn new(
        flight: Arc<Flight>,
        fingerprint: Fingerprint,
        capacity: CapacityPermit,
    ) -> Self {
        Self {
            failed: flight.failures(),
            flight,
            fingerprint,
            _capacity: capacity,
            raised: None,
        }
    }

    pub(super) fn raise(&mut self, meters: &Meters) {
        self.raised = telemetry::contained(|| meters.waiting());
    }

    /// Waits until the request may be admitted again.
    ///
    /// # Errors
    ///
    /// [`Error::StoreUnavailable`] if the flight's record could not be finished.
    pub(crate) async fn passed(self) -> Result<(), Error> {
        self.flight.passed(self.fingerprint, self.failed).await
    }
}
