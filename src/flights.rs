//! The in-process table: flights, their waiters, and recent outcomes. It knows no
//! store, no platform and no actor. It holds no table lock across an `.await`, and
//! none while a recorder or a subscriber runs.
//!
//! A **flight** is one execution and its waiters. It stays in the table until its
//! record is finished, so no second flight of its key can begin in this process.
//! After that, the table keeps its outcome for a while. The actor that runs a flight
//! owns its [`FlightGuard`], whose `Drop` answers all waiters (I3).

use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::task::coop::consume_budget;
use tokio::time::sleep;

use crate::error::Error;
use crate::key::{DigestHasher, Fingerprint, IdempotencyKey};
use crate::outcome::Reply;
use crate::policy::OnDuplicate;
use crate::request::DataActionRequest;
use crate::telemetry::Meters;

mod flight;
mod guard;
mod recent;
mod waiter;

use self::flight::{Flight, Relation};
pub(crate) use self::guard::FlightGuard;
use self::recent::{ExpiringOutcome, RecentOutcome, RecentOutcomes};
pub(crate) use self::waiter::{Follower, Waiter};

type FlightAnswer = Result<Reply, Error>;

/// The bounds of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Waiters plus flights whose record is not finished.
    pub max_waiting: usize,
    /// The weight of all recent outcomes, in bytes; 0 keeps none.
    pub recent_bytes: u64,
    /// How long a recent outcome is replayed from memory, at most.
    pub recent_ttl: Duration,
}

/// The in-process table.
#[derive(Debug)]
pub(crate) struct Flights {
    table: DashMap<IdempotencyKey, TableEntry, BuildHasherDefault<DigestHasher>>,
    recents: RecentOutcomes,
    /// Flights whose record is not finished.
    in_flight: AtomicUsize,
    limits: Limits,
    on_duplicate: OnDuplicate,
    /// Part of every fingerprint.
    route: Arc<str>,
    capacity_used: Arc<AtomicUsize>,
    closed: AtomicBool,
    /// Flights that had no answer of their own when they ended in the closed table.
    lost: AtomicUsize,
    meters: Arc<Meters>,
}

/// What the table has for a key.
#[derive(Debug)]
enum TableEntry {
    InFlight(Arc<Flight>),
    Recent(Arc<RecentOutcome>),
}

/// How a request is admitted.
#[derive(Debug)]
pub(crate) enum Admission {
    /// Memory has its outcome.
    Recent(Reply),
    /// It waits for the flight of its key.
    Joined(Waiter),
    /// The answer of its key's flight is not for it. It waits for the end of that
    /// flight, then asks for admission again.
    Follows(Follower),
    /// It is the first request of its key: the caller starts the flight, and waits.
    ///
    /// Boxed: the guard goes from hand to hand until its flight runs.
    First(Waiter, Box<FlightGuard>),
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
            recents: RecentOutcomes::new(limits.recent_bytes, limits.recent_ttl),
            in_flight: AtomicUsize::new(0),
            limits,
            on_duplicate,
            route,
            capacity_used: Arc::default(),
            closed: AtomicBool::new(false),
            lost: AtomicUsize::new(0),
            meters,
        })
    }

    /// Answers a request from memory, lets it join its key's flight or wait for the
    /// end of that flight, or begins a new flight.
    pub(crate) fn join_or_begin(
        self: &Arc<Self>,
        request: &DataActionRequest,
    ) -> Result<Admission, Error> {
        let mut admission = self.find_or_begin(request)?;
        // Outside of the table's locks: a recorder is foreign code.
        match &mut admission {
            Admission::Recent(_) => {}
            Admission::Joined(waiter) => waiter.raise(&self.meters),
            Admission::Follows(follower) => follower.raise(&self.meters),
            Admission::First(waiter, guard) => {
                guard.raise(&self.meters);
                waiter.raise(&self.meters);
            }
        }
        Ok(admission)
    }

    fn find_or_begin(self: &Arc<Self>, request: &DataActionRequest) -> Result<Admission, Error> {
        if self.is_closed() {
            return Err(Error::Stopped);
        }
        let key = IdempotencyKey::of(request);
        let fingerprint = request.fingerprint(&self.route);
        // A read lock first: a replay from memory then blocks no other request.
        if let Some(slot) = self.table.get(&key)
            && let Some(admission) = self.known(&slot, key, fingerprint, request)
        {
            return admission;
        }
        let entry = self.table.entry(key);
        // Again, under the lock that `close` takes: no flight begins after it.
        if self.is_closed() {
            return Err(Error::Stopped);
        }
        if let Entry::Occupied(entry) = &entry
            && let Some(admission) = self.known(entry.get(), key, fingerprint, request)
        {
            return admission;
        }
        let (capacity, own) = (self.acquire_capacity()?, self.acquire_capacity()?);
        let flight = Arc::new(Flight::new(fingerprint, request));
        if let Entry::Occupied(entry) = &entry
            && let TableEntry::Recent(recent) = entry.get()
            && !recent.is_over()
        {
            // The outcome might belong to another request with this key.
            flight.remember(recent.clone());
        }
        let waiter = Waiter::first(flight.clone(), own);
        // The table stays locked until the flight guard exists, so that no flight
        // is in the table without one.
        let _slot = entry.insert(TableEntry::InFlight(flight.clone()));
        let guard = FlightGuard::new(self, flight, request, capacity);
        Ok(Admission::First(waiter, Box::new(guard)))
    }

    /// What a request gets from an entry of its key: an answer, or a wait. `None` if
    /// the entry has expired, or has nothing for this request.
    fn known(
        &self,
        slot: &TableEntry,
        key: IdempotencyKey,
        fingerprint: Fingerprint,
        request: &DataActionRequest,
    ) -> Option<Result<Admission, Error>> {
        match slot {
            TableEntry::Recent(recent) => recent.reply(fingerprint).map(Admission::Recent).map(Ok),
            TableEntry::InFlight(flight) => Some(match flight.recent(fingerprint) {
                Some(reply) => Ok(Admission::Recent(reply)),
                None => self.wait_for(flight, key, fingerprint, request),
            }),
        }
    }

    fn wait_for(
        &self,
        flight: &Arc<Flight>,
        key: IdempotencyKey,
        fingerprint: Fingerprint,
        request: &DataActionRequest,
    ) -> Result<Admission, Error> {
        let relation = flight.relation(fingerprint);
        let at_once = match relation {
            Relation::Mismatch => return Err(Error::PayloadMismatch { key }),
            Relation::Joins => flight.is_answered(),
            Relation::Follows => false,
        };
        if self.on_duplicate == OnDuplicate::FailFast && !at_once {
            return Err(Error::InProgress { key });
        }
        let capacity = self.acquire_capacity()?;
        if relation == Relation::Follows {
            let follower = Follower::new(flight.clone(), fingerprint, capacity);
            return Ok(Admission::Follows(follower));
        }
        flight.progress().join(request);
        Ok(Admission::Joined(Waiter::joined(flight.clone(), capacity)))
    }

    /// Replaces a flight whose record is finished by its outcome, if memory keeps one.
    fn finished(&self, key: IdempotencyKey) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        let Entry::Occupied(mut entry) = self.table.entry(key) else {
            return;
        };
        let TableEntry::InFlight(flight) = entry.get() else {
            return;
        };
        let Some(recent) = flight.take_recent().filter(|_| !self.is_closed()) else {
            entry.remove();
            return;
        };
        let _flight = entry.insert(TableEntry::Recent(recent.clone()));
        drop(entry);
        self.recents.push(key, &recent);
        while let Some(excess) = self.recents.pop_excess() {
            self.remove_recent(excess);
        }
    }

    /// Forgets a recent outcome. A flight in progress does not keep its answer, and no
    /// request joins it: its answer might be the outcome that was forgotten.
    pub(crate) fn forget(&self, key: &IdempotencyKey) {
        if let Entry::Occupied(entry) = self.table.entry(*key) {
            match entry.get() {
                TableEntry::InFlight(flight) => flight.forget(),
                TableEntry::Recent(recent) => {
                    self.recents.remove(recent);
                    drop(entry.remove());
                }
            }
        }
    }

    /// Evicts expired outcomes for as long as it runs. The engine's root owns it.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn expire(self: Arc<Self>) {
        loop {
            self.recents.expired().await;
            while let Some(expired) = self.recents.pop_expired() {
                self.remove_recent(expired);
                consume_budget().await;
            }
            self.shrink();
            // Outcomes that expire within a second are evicted in one round.
            sleep(Duration::from_secs(1)).await;
        }
    }

    /// Frees the memory that a burst made the table reserve.
    pub(crate) fn shrink(&self) {
        if self.table.capacity() / 8 > self.table.len() + 128 {
            self.table.shrink_to_fit();
        }
    }

    fn remove_recent(&self, queued: ExpiringOutcome) {
        let is_it =
            |slot: &TableEntry| matches!(slot, TableEntry::Recent(recent) if queued.is_of(recent));
        self.table.remove_if(&queued.key, |_, slot| is_it(slot));
    }

    /// Admits no further request, and clears memory.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.recents.clear();
        self.table
            .retain(|_, slot| matches!(slot, TableEntry::InFlight(_)));
    }

    /// Closes the table for good, and answers every flight that is left.
    ///
    /// A flight whose guard was sent to the root is dropped with the mailbox. A message that
    /// arrives just as the mailbox is dropped might be kept there for as long as a
    /// handle of the root lives.
    pub(crate) fn end(&self) {
        self.close();
        let left = self.table.iter().filter_map(|slot| match slot.value() {
            TableEntry::InFlight(flight) => Some(flight.clone()),
            TableEntry::Recent(_) => None,
        });
        let left: Vec<_> = left.collect();
        for flight in left {
            if flight.set_answer(Err(Error::Stopped)) {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
            // For followers, which then find the table closed.
            flight.finish();
        }
    }

    /// How many flights ended in the closed table without an answer of their own.
    pub(crate) fn lost(&self) -> usize {
        self.lost.load(Ordering::Relaxed)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// How many flights have a record that is not finished.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Waiters plus flights whose record is not finished.
    pub(crate) fn capacity_used(&self) -> usize {
        self.capacity_used.load(Ordering::Relaxed)
    }

    /// The limit of [`capacity_used`](Self::capacity_used).
    pub(crate) fn max_waiting(&self) -> usize {
        self.limits.max_waiting
    }

    fn acquire_capacity(&self) -> Result<CapacityPermit, Error> {
        let limit = self.limits.max_waiting;
        self.capacity_used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
                (taken < limit).then_some(taken + 1)
            })
            .map(|_| CapacityPermit(self.capacity_used.clone()))
            .map_err(|_| Error::Overloaded {
                limit: "max_waiting",
            })
    }
}

/// One of `max_waiting`; free again when dropped.
#[derive(Debug)]
struct CapacityPermit(Arc<AtomicUsize>);

impl Drop for CapacityPermit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
