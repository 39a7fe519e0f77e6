//! One execution as the table sees it: whose it is, what was answered, and what a
//! further caller of its key has to do with it. It decides nothing about the
//! record; whoever runs the flight says what the store said.

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

/// One execution and everybody who waits for it.
#[derive(Debug)]
pub(super) struct Flight {
    fingerprint: Fingerprint,
    progress: Arc<Progress>,
    answer: OnceLock<Answered>,
    /// Wakes those who wait for the answer, once it is there.
    answered: Notify,
    state: Mutex<FlightState>,
    /// Wakes those who wait for the flight to get out of their way.
    moved: Notify,
    /// Of its span; set once the first caller has left the table. A link that
    /// misses it is no loss.
    id: OnceLock<Id>,
}

#[derive(Debug)]
struct Answered {
    answer: FlightAnswer,
    /// Whether it holds for whoever asks now: an outcome, or that the key is
    /// indeterminate. Anything else says only how this execution went.
    holds: bool,
}

/// What is known of a flight besides its answer.
#[derive(Debug, Default)]
struct FlightState {
    /// The store said that the key is this request's; until then the flight's
    /// fingerprint is a claim, which decides nothing for others.
    confirmed: bool,
    /// Its outcome was forgotten while it was under way.
    forgotten: bool,
    /// What memory has of the key: of this flight, once it is answered, and of an
    /// earlier one until then.
    recent: Option<Arc<RecentOutcome>>,
    /// How often finishing its record failed, and how the last time.
    failures: usize,
    failure: Option<StoreError>,
    /// It has left the table.
    finished: bool,
}

/// What a caller has to do with a flight of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relation {
    /// The flight's answer is the caller's, too.
    Joins,
    /// The answer is not for this caller, or not yet known to be: the flight has
    /// to end first.
    Follows,
    /// The key is a different request's.
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

    /// What a request with this fingerprint has to do with it.
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

    /// Whether the store has said that the key is this request's.
    pub(super) fn confirm(&self, confirmed: bool) {
        self.state().confirmed = confirmed;
        if confirmed {
            self.moved.notify_waiters();
        }
    }

    /// Gives the answer; only the first counts.
    pub(super) fn set_answer(&self, answer: FlightAnswer) {
        let holds = match &answer {
            // An outcome that is known and not recorded yet will be.
            Ok(reply) => reply.recorded() || self.progress.is_executed(),
            Err(error) => matches!(error, Error::Indeterminate { .. }),
        };
        if self.answer.set(Answered { answer, holds }).is_ok() {
            self.answered.notify_waiters();
            self.moved.notify_waiters();
        }
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
            // Before the look: an answer that comes in between wakes it, too.
            let answered = self.answered.notified();
            match self.answer() {
                Some(answer) => return answer,
                None => answered.await,
            }
        }
    }

    /// The reply from memory, where there is one.
    pub(super) fn recent(&self, fingerprint: Fingerprint) -> Option<Reply> {
        self.state().recent.as_ref()?.reply(fingerprint)
    }

    /// Keeps this of the answer in memory.
    pub(super) fn remember(&self, recent: Arc<RecentOutcome>) {
        let mut state = self.state();
        if !state.forgotten {
            state.recent = Some(recent);
        }
    }

    pub(super) fn take_recent(&self) -> Option<Arc<RecentOutcome>> {
        self.state().recent.take()
    }

    /// Its outcome may have been forgotten: it is not remembered.
    pub(super) fn forget(&self) {
        let mut state = self.state();
        state.forgotten = true;
        state.recent = None;
    }

    /// How often finishing the record has failed so far.
    pub(super) fn failures(&self) -> usize {
        self.state().failures
    }

    /// Finishing the record failed once more.
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

    /// Waits until the flight is no longer in the way of a request with this
    /// fingerprint.
    ///
    /// # Errors
    ///
    /// [`Error::StoreUnavailable`] where finishing the record fails once more
    /// than it had `failed`.
    pub(super) async fn passed(
        &self,
        fingerprint: Fingerprint,
        failed: usize,
    ) -> Result<(), Error> {
        loop {
            // Before the look, as above.
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
        // Its parts change by themselves, so a panic leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
