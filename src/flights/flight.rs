//! One flight in the table: its fingerprint, its answer, and its relation to further
//! requests of its key. It decides nothing about the record; the actor that runs the
//! flight reports what the store answered.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::Notify;
use tracing::span::Id;

use super::FlightAnswer;
use super::recent::RecentOutcome;
use crate::error::{Error, StoreError};
use crate::execution::Progress;
use crate::key::Fingerprint;
use crate::outcome::Reply;
use crate::request::DataActionRequest;

/// One execution and its waiters.
#[derive(Debug)]
pub(super) struct Flight {
    fingerprint: Fingerprint,
    progress: Arc<Progress>,
    answer: OnceLock<Answered>,
    /// Wakes the waiters when the answer is set.
    answered: Notify,
    state: Mutex<FlightState>,
    /// Wakes the followers when the flight's relation to them might have changed.
    moved: Notify,
    /// The id of its span. It is set after the flight enters the table, so a caller
    /// that joins before has no link.
    id: OnceLock<Id>,
}

#[derive(Debug)]
struct Answered {
    answer: FlightAnswer,
    /// Whether the answer applies to later callers as well: an outcome, or that the key
    /// is indeterminate. Any other error applies to this execution only.
    holds: bool,
}

/// What is known of a flight, except its answer.
#[derive(Debug, Default)]
struct FlightState {
    /// The store confirmed that the key belongs to this fingerprint. Until then
    /// another fingerprint is not a mismatch.
    confirmed: bool,
    /// An operator forgot the key's outcome during the flight.
    forgotten: bool,
    /// The outcome in memory: of this flight, once it is answered; of an earlier flight
    /// until then.
    recent: Option<Arc<RecentOutcome>>,
    /// How often finishing its record failed, and the last error.
    failures: usize,
    failure: Option<StoreError>,
    /// It has left the table.
    finished: bool,
}

/// The relation of a request to a flight of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relation {
    /// The flight's answer is the request's answer, too.
    Joins,
    /// The answer does not apply to this request, or might not: the flight has to end
    /// first.
    Follows,
    /// The key belongs to a different request.
    Mismatch,
}

impl Flight {
    pub(super) fn new(fingerprint: Fingerprint, request: &DataActionRequest) -> Self {
        Self {
            fingerprint,
            progress: Progress::new(request),
            answer: OnceLock::new(),
            answered: Notify::new(),
            state: Mutex::default(),
            moved: Notify::new(),
            id: OnceLock::new(),
        }
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    pub(super) fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    pub(super) fn span_id(&self) -> &OnceLock<Id> {
        &self.id
    }

    /// The relation of a request with this fingerprint.
    pub(super) fn relation(&self, fingerprint: Fingerprint) -> Relation {
        self.relation_in(&self.state(), fingerprint)
    }

    fn relation_in(&self, state: &FlightState, fingerprint: Fingerprint) -> Relation {
        let holds = self.answer.get().is_none_or(|answered| answered.holds);
        match (self.fingerprint == fingerprint, holds && !state.forgotten) {
            (_, false) => Relation::Follows,
            (true, true) => Relation::Joins,
            (false, true) if state.confirmed => Relation::Mismatch,
            (false, true) => Relation::Follows,
        }
    }

    /// Sets whether the store confirmed that the key belongs to this request.
    pub(super) fn confirm(&self, confirmed: bool) {
        self.state().confirmed = confirmed;
        if confirmed {
            self.moved.notify_waiters();
        }
    }

    /// Sets the answer; only the first call counts, and returns true.
    pub(super) fn set_answer(&self, answer: FlightAnswer) -> bool {
        let holds = match &answer {
            // A known outcome that is not recorded yet will be recorded.
            Ok(reply) => reply.recorded() || self.progress.is_executed(),
            Err(error) => matches!(error, Error::Indeterminate { .. }),
        };
        let is_first = self.answer.set(Answered { answer, holds }).is_ok();
        if is_first {
            self.answered.notify_waiters();
            self.moved.notify_waiters();
        }
        is_first
    }

    pub(super) fn answer(&self) -> Option<&FlightAnswer> {
        self.answer.get().map(|answered| &answered.answer)
    }

    pub(super) fn is_answered(&self) -> bool {
        self.answer.get().is_some()
    }

    /// Waits for the answer.
    pub(super) async fn answered(&self) -> &FlightAnswer {
        loop {
            // Subscribed before the look, so that no answer is missed between the two.
            let answered = self.answered.notified();
            match self.answer() {
                Some(answer) => return answer,
                None => answered.await,
            }
        }
    }

    /// The reply from memory, if there is one.
    pub(super) fn recent(&self, fingerprint: Fingerprint) -> Option<Reply> {
        self.state().recent.as_ref()?.reply(fingerprint)
    }

    /// Keeps this outcome in memory, unless the key was forgotten.
    pub(super) fn remember(&self, recent: Arc<RecentOutcome>) {
        let mut state = self.state();
        if !state.forgotten {
            state.recent = Some(recent);
        }
    }

    pub(super) fn take_recent(&self) -> Option<Arc<RecentOutcome>> {
        self.state().recent.take()
    }

    /// Clears its outcome from memory, and keeps none later.
    pub(super) fn forget(&self) {
        let mut state = self.state();
        state.forgotten = true;
        state.recent = None;
    }

    /// How often finishing the record has failed.
    pub(super) fn failures(&self) -> usize {
        self.state().failures
    }

    /// Finishing the record failed.
    pub(super) fn failed(&self, error: &StoreError) {
        let mut state = self.state();
        state.failures += 1;
        state.failure = Some(error.clone());
        drop(state);
        self.moved.notify_waiters();
    }

    /// It has left the table.
    pub(super) fn finish(&self) {
        self.state().finished = true;
        self.moved.notify_waiters();
    }

    /// Waits until a request with this fingerprint no longer has to follow the flight.
    ///
    /// # Errors
    ///
    /// [`Error::StoreUnavailable`] if finishing the record fails more often than
    /// `failed`.
    pub(super) async fn passed(
        &self,
        fingerprint: Fingerprint,
        failed: usize,
    ) -> Result<(), Error> {
        loop {
            // Subscribed before the look, as in `answered`.
            let moved = self.moved.notified();
            match self.has_passed(fingerprint, failed) {
                Some(passed) => return passed,
                None => moved.await,
            }
        }
    }

    fn has_passed(&self, fingerprint: Fingerprint, failed: usize) -> Option<Result<(), Error>> {
        let state = self.state();
        if state.finished || self.relation_in(&state, fingerprint) != Relation::Follows {
            return Some(Ok(()));
        }
        let source = state.failure.clone().filter(|_| state.failures > failed)?;
        Some(Err(Error::StoreUnavailable { source }))
    }

    fn state(&self) -> MutexGuard<'_, FlightState> {
        // Each field changes by one assignment, so a panic leaves no half-made change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
