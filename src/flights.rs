//! Who is in flight in this process, who waits for it, and what was answered
//! lately. It admits and coalesces; it knows no store, no platform and no actor,
//! and holds no guard of its tables across an `.await`.
//!
//! A **flight** is one execution and everybody who waits for it. It stays in the
//! table until the execution is settled, so that no second one of its key can
//! begin in this process before; then its outcome takes its place for a while.
//! Whoever runs the flight owns its [`Guard`], whose `Drop` answers everybody
//! (I3).

use std::hash::BuildHasherDefault;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::Notify;
use tracing::Span;
use tracing::span::Id;

use crate::error::Error;
use crate::execution::Progress;
use crate::key::{DigestHasher, Fingerprint, IdempotencyKey};
use crate::outcome::{Reply, Served};
use crate::policy::OnDuplicate;
use crate::request::DataActionRequest;
use crate::telemetry::{Meters, Raised};

mod guard;
mod recent;

pub(crate) use self::guard::Guard;
use self::recent::{Recent, Recents};

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
    table: DashMap<IdempotencyKey, Slot, BuildHasherDefault<DigestHasher>>,
    recents: Recents,
    /// Flights that are not settled.
    under_way: AtomicUsize,
    limits: Limits,
    on_duplicate: OnDuplicate,
    /// Part of every fingerprint.
    route: Arc<str>,
    places: Arc<AtomicUsize>,
    closed: AtomicBool,
    meters: Arc<Meters>,
}

/// What the table holds of a key.
#[derive(Debug)]
enum Slot {
    UnderWay(Arc<Flight>),
    Recent(Arc<Recent>),
}

/// How a request is admitted.
#[derive(Debug)]
pub(crate) enum Admission {
    /// It was answered lately.
    Recent(Reply),
    /// It is in flight: wait.
    Joined(Waiter),
    /// It is the first: run the flight, and wait.
    ///
    /// Boxed: the guard goes from hand to hand until its flight runs.
    First(Waiter, Box<Guard>),
}

/// One execution and everybody who waits for it.
#[derive(Debug)]
struct Flight {
    fingerprint: Fingerprint,
    progress: Arc<Progress>,
    answer: OnceLock<Answer>,
    /// Wakes those who wait, once the answer is there.
    answered: Notify,
    /// What stays of it in memory, once it is answered.
    recent: Mutex<Option<Arc<Recent>>>,
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

    fn recent(&self) -> MutexGuard<'_, Option<Arc<Recent>>> {
        // Replaced as a whole, so a panic leaves it whole.
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
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
            table: DashMap::default(),
            recents: Recents::new(limits.recent_bytes, limits.recent_ttl),
            under_way: AtomicUsize::new(0),
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
        // For reading first: who only wants an answer keeps nobody waiting.
        if let Some(slot) = self.table.get(&key)
            && let Some(admission) = self.known(&slot, key, fingerprint, request)
        {
            return admission;
        }
        let entry = self.table.entry(key);
        if let Entry::Occupied(entry) = &entry
            && let Some(admission) = self.known(entry.get(), key, fingerprint, request)
        {
            return admission;
        }
        let place = self.place()?;
        let flight = Arc::new(Flight {
            fingerprint,
            progress: Progress::new(request),
            answer: OnceLock::new(),
            answered: Notify::new(),
            recent: Mutex::default(),
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
        // The table's guard is held until the guard of the flight exists: nothing
        // in between can fail.
        let _slot = entry.insert(Slot::UnderWay(flight.clone()));
        let guard = Guard::new(self, flight, request, place, raised);
        Ok(Admission::First(waiter, Box::new(guard)))
    }

    /// What a request gets for which the table has something: its answer, or a
    /// place among those who wait. `None` where it is the first.
    fn known(
        &self,
        slot: &Slot,
        key: IdempotencyKey,
        fingerprint: Fingerprint,
        request: &DataActionRequest,
    ) -> Option<Result<Admission, Error>> {
        let recent = match slot {
            Slot::Recent(recent) => recent.reply(fingerprint),
            Slot::UnderWay(flight) => {
                let recent = flight.recent();
                recent.as_ref().and_then(|r| r.reply(fingerprint))
            }
        };
        match (recent, slot) {
            (Some(reply), _) => Some(reply.map(Admission::Recent)),
            (None, Slot::UnderWay(flight)) => Some(self.join(key, flight, fingerprint, request)),
            (None, Slot::Recent(_)) => None,
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

    /// A flight is settled: its outcome takes its place, where one is to be kept.
    fn settled(&self, key: IdempotencyKey) {
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        let Entry::Occupied(mut entry) = self.table.entry(key) else {
            return;
        };
        let Slot::UnderWay(flight) = entry.get() else {
            return;
        };
        let recent = flight.recent().take();
        let Some(recent) = recent else {
            entry.remove();
            return;
        };
        let _flight = entry.insert(Slot::Recent(recent.clone()));
        drop(entry);
        self.recents.push(key, &recent);
        // Of those whose time is over a few at once: more than come.
        let mut looked = 0;
        while let Some(queued) = self.recents.pop(looked < 4) {
            looked += 1;
            self.table.remove_if(
                &queued.key,
                |_, slot| matches!(slot, Slot::Recent(recent) if queued.is_of(recent)),
            );
        }
    }

    /// Forgets a recent outcome.
    pub(crate) fn forget(&self, key: &IdempotencyKey) {
        if let Entry::Occupied(entry) = self.table.entry(*key) {
            match entry.get() {
                Slot::UnderWay(flight) => *flight.recent() = None,
                Slot::Recent(_) => drop(entry.remove()),
            }
        }
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
        self.under_way.load(Ordering::Relaxed)
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
    /// The execution that is waited for; outlives this.
    pub(crate) fn progress(&self) -> &Arc<Progress> {
        &self.flight.progress
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

#[cfg(test)]
mod tests;
