//! Who is in flight in this process, who waits for it, and what was answered
//! lately. It admits and coalesces; it knows no store, no platform and no actor,
//! and holds no guard of its tables across an `.await`.
//!
//! A **flight** is one execution and everybody who waits for it. Its entry stays
//! until the execution is settled, so that no second one of its key can begin in
//! this process before. Whoever runs the flight owns its [`Guard`], whose `Drop`
//! answers everybody (I3).

use std::hash::BuildHasherDefault;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::Span;
use tracing::span::Id;

use crate::error::Error;
use crate::execution::Progress;
use crate::key::{DigestHasher, Fingerprint, IdempotencyKey, Namespace};
use crate::outcome::{Kept, Reply, Served};
use crate::policy::OnDuplicate;
use crate::request::DataActionRequest;
use crate::telemetry::{self, Meters, Raised, Trail};

mod recent;

use self::recent::{Recent, Recents, weight};

type Answer = Result<Reply, Error>;

/// The bounds of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Callers waiting plus executions not settled.
    pub max_waiting: usize,
    /// The weight of all recent outcomes, in bytes; 0 keeps none.
    pub recent_bytes: u64,
    /// How long a recent outcome is answered from memory, at most.
    pub recent_ttl: Duration,
}

/// The in-process table.
#[derive(Debug)]
pub(crate) struct Flights {
    under_way: DashMap<IdempotencyKey, Arc<Flight>, BuildHasherDefault<DigestHasher>>,
    recent: Recents,
    limits: Limits,
    on_duplicate: OnDuplicate,
    /// Part of every fingerprint.
    route: Arc<str>,
    places: Arc<AtomicUsize>,
    closed: AtomicBool,
    meters: Arc<Meters>,
}

/// How a request is admitted.
#[derive(Debug)]
pub(crate) enum Admission {
    /// It was answered lately.
    Recent(Reply),
    /// It is in flight: wait.
    Joined(Waiter),
    /// It is the first: run the flight, and wait.
    First(Waiter, Guard),
}

/// One execution and everybody who waits for it.
#[derive(Debug)]
struct Flight {
    fingerprint: Fingerprint,
    progress: Arc<Progress>,
    answer: OnceLock<Answer>,
    /// Wakes those who wait, once the answer is there.
    answered: Notify,
    /// Of its span; set once the first caller has left the table. A link that
    /// misses it is no loss.
    id: OnceLock<Id>,
}

impl Flight {
    async fn answer(&self) -> &Answer {
        loop {
            // Before the look: an answer that comes in between wakes it, too.
            let answered = self.answered.notified();
            match self.answer.get() {
                Some(answer) => return answer,
                None => answered.await,
            }
        }
    }
}

impl Flights {
    pub(crate) fn new(
        limits: Limits,
        on_duplicate: OnDuplicate,
        route: Arc<str>,
        meters: Arc<Meters>,
    ) -> Arc<Self> {
        Arc::new(Self {
            under_way: DashMap::default(),
            recent: recent::cache(limits.recent_bytes, limits.recent_ttl),
            limits,
            on_duplicate,
            route,
            places: Arc::default(),
            closed: AtomicBool::new(false),
            meters,
        })
    }

    /// Admits a request: answers it from memory, lets it join its key's flight,
    /// or makes it the first of a new one.
    pub(crate) fn admit(self: &Arc<Self>, request: &DataActionRequest) -> Result<Admission, Error> {
        if self.is_closed() {
            return Err(Error::Stopped);
        }
        let key = IdempotencyKey::of(request);
        let fingerprint = request.fingerprint(&self.route);
        if let Some(reply) = self.recent(&key, fingerprint)? {
            return Ok(Admission::Recent(reply));
        }
        match self.under_way.entry(key) {
            Entry::Occupied(entry) => self.join(key, entry.get(), fingerprint, request),
            // Its flight may have ended since memory was looked at; then the
            // store has the outcome, and a second look is not worth its price.
            Entry::Vacant(entry) => {
                let place = self.place()?;
                let flight = Arc::new(Flight {
                    fingerprint,
                    progress: Progress::new(request),
                    answer: OnceLock::new(),
                    answered: Notify::new(),
                    id: OnceLock::new(),
                });
                let waiter = Waiter {
                    flight: flight.clone(),
                    joined: false,
                    leader: None,
                    _place: self.place()?,
                    _raised: self.meters.waiting(),
                };
                // A recorder is foreign code: nothing is in the table yet.
                let raised = self.meters.execution();
                entry.insert(flight.clone());
                // Built while the table's guard is still held: from here on
                // nothing can fail before the guard of the flight exists.
                let guard = Guard {
                    flights: self.clone(),
                    flight,
                    request: request.clone(),
                    key,
                    span: Mutex::new(Span::none()),
                    _place: place,
                    _raised: raised,
                };
                Ok(Admission::First(waiter, guard))
            }
        }
    }

    fn join(
        &self,
        key: IdempotencyKey,
        flight: &Arc<Flight>,
        fingerprint: Fingerprint,
        request: &DataActionRequest,
    ) -> Result<Admission, Error> {
        if flight.fingerprint != fingerprint {
            return Err(Error::PayloadMismatch { key });
        }
        let answered = flight.answer.get().is_some();
        if self.on_duplicate == OnDuplicate::FailFast && !answered {
            return Err(Error::InProgress { key });
        }
        let place = self.place()?;
        flight.progress.join(request);
        Ok(Admission::Joined(Waiter {
            flight: flight.clone(),
            joined: true,
            leader: flight.id.get().cloned(),
            _place: place,
            _raised: self.meters.waiting(),
        }))
    }

    fn recent(
        &self,
        key: &IdempotencyKey,
        fingerprint: Fingerprint,
    ) -> Result<Option<Reply>, Error> {
        match self.recent.get(key) {
            Some(recent) if Instant::now() < recent.until => {
                if recent.fingerprint != fingerprint {
                    return Err(Error::PayloadMismatch { key: *key });
                }
                Ok(Some(recent.reply.with_served(Served::Memory)))
            }
            _ => Ok(None),
        }
    }

    /// Forgets a recent outcome.
    pub(crate) fn forget(&self, key: &IdempotencyKey) {
        self.recent.invalidate(key);
    }

    /// Admits nobody from now on.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// How many flights are not settled.
    pub(crate) fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// Callers waiting plus executions not settled.
    pub(crate) fn places_taken(&self) -> usize {
        self.places.load(Ordering::Relaxed)
    }

    fn place(&self) -> Result<Place, Error> {
        let limit = self.limits.max_waiting;
        self.places
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
                (taken < limit).then_some(taken + 1)
            })
            .map(|_| Place(self.places.clone()))
            .map_err(|_| Error::Overloaded {
                limit: "max_waiting",
            })
    }
}

/// A place in `max_waiting`, free again when dropped.
#[derive(Debug)]
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A caller who waits for a flight. Dropping it frees its place and does
/// nothing to the flight (I2).
#[derive(Debug)]
pub(crate) struct Waiter {
    flight: Arc<Flight>,
    joined: bool,
    /// The span of the flight that was joined.
    leader: Option<Id>,
    _place: Place,
    _raised: Raised,
}

impl Waiter {
    /// What the flight leaves for its callers' spans.
    pub(crate) fn trail(&self) -> &Arc<Trail> {
        self.flight.progress.trail()
    }

    /// The current span follows from the flight that was joined.
    pub(crate) fn link(&self) {
        if let Some(leader) = &self.leader {
            Span::current().follows_from(leader);
        }
    }

    /// The flight's answer.
    pub(crate) async fn answer(self) -> Answer {
        match self.flight.answer().await.clone() {
            Ok(reply) if self.joined => Ok(reply.with_served(Served::Joined)),
            answer => answer,
        }
    }
}

/// The right to run a flight, and the duty to answer it.
#[derive(Debug)]
pub(crate) struct Guard {
    flights: Arc<Flights>,
    flight: Arc<Flight>,
    request: DataActionRequest,
    key: IdempotencyKey,
    /// Until the answer: a span that stays open keeps those above it open.
    span: Mutex<Span>,
    _place: Place,
    _raised: Raised,
}

impl Guard {
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
        self.key
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

    pub(crate) fn is_answered(&self) -> bool {
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
        let Flights { limits, recent, .. } = &*self.flights;
        let ttl = limits.recent_ttl.min(left);
        let whole = reply.kept() == Kept::Whole && !self.flight.progress.is_sensitive();
        if !ttl.is_zero() && limits.recent_bytes > 0 && reply.recorded() && whole {
            let recent_outcome = Recent {
                reply: reply.clone(),
                fingerprint: self.flight.fingerprint,
                until: Instant::now() + ttl,
            };
            let weight = u64::from(weight(reply));
            recent.insert(self.key, recent_outcome);
            // moka puts up to 64 insertions off before it evicts for them: what
            // may then stand above the bound is an eighth of it at most.
            if weight * 64 > limits.recent_bytes / 8 {
                recent.run_pending_tasks();
            }
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.is_answered() {
            let error = if self.flights.is_closed() {
                Error::Stopped
            } else {
                Error::Crashed { key: self.key }
            };
            self.answer(Err(error), Duration::ZERO);
        }
        self.flights.under_way.remove(&self.key);
    }
}
