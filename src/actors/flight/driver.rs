//! Drives one flight: peek or lock, attempt, wait, retry, cache. It sends nothing itself;
//! every call and every store command goes through the typestates.

use std::future::pending;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::{Instant, sleep_until};

use super::super::backlog::WaitFor;
use super::super::cooldown::{CooldownPass, Rank};
use super::super::permits::Permit;
use super::super::resolution::resolve;
use super::super::shared::Shared;
use super::super::token::CurrentToken;
use super::remote_holder::{self, RemoteEnd};
use crate::error::Error;
use crate::execution::{Cached, Execution, Hashed, Lock, QUICK};
use crate::flights::FlightGuard;
use crate::outcome::Reply;
use crate::policy::OnDuplicate;
use crate::record::{Phase, RecordState};
use crate::store::{BoxFuture, Store as _};
use crate::telemetry::GaugeGuard;
use crate::upstream::{AccessToken, RatePermit, within};

/// Which call of a flight needs its permits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum CallOrder {
    First,
    /// After an attempt that was not executed.
    Retry,
}

/// How long the `reconcile` hook may take. A later result does not count.
const HOOK_LIMIT: Duration = Duration::from_secs(60);

/// What a call needs in addition to the key and the token. A drop gives it back. The
/// token is not part of it, since it is read when the call leaves.
pub(super) struct CallPermits {
    /// The turn of the slow start after a cooldown, if there is one.
    pub(super) pass: CooldownPass,
    /// One of `max_in_flight`, for the duration of the call.
    _permit: (Permit, GaugeGuard),
    /// One of the upstream's rate limit, until the call leaves.
    pub(super) rate: RatePermit,
}

/// The token of a call.
pub(super) enum CallToken {
    With(Arc<CurrentToken>),
    /// The upstream asks for no token.
    NotNeeded,
}

impl CallToken {
    pub(super) fn bearer(&self) -> Option<&AccessToken> {
        match self {
            Self::With(current) => Some(&current.token),
            Self::NotNeeded => None,
        }
    }
}

/// Runs a flight until its waiters have an answer. If the record is not finished then,
/// the guard's progress says so.
pub(super) async fn drive(shared: &Arc<Shared>, guard: &FlightGuard) {
    let waited = AtomicU64::new(0);
    let flight = Driver {
        shared,
        guard,
        waited,
    };
    match flight.run().await {
        Ok(FlightReply { reply, left }) => guard.answer(Ok(reply), left),
        Err(error) => guard.answer(Err(error), Duration::ZERO),
    }
}

pub(super) struct Driver<'a> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) guard: &'a FlightGuard,
    /// Milliseconds that it waited before its attempts, which `max_wait` limits.
    waited: AtomicU64,
}

/// How a round of a flight ended.
pub(super) enum Round {
    Reply(FlightReply),
    /// The lease was lost before a call, or another holder has released the key.
    LockAgain(Execution<Hashed>),
    /// The key is indeterminate.
    Indeterminate(Execution<Hashed>, Error),
}

/// A reply, and for how long the store replays it.
pub(super) struct FlightReply {
    pub(super) reply: Reply,
    pub(super) left: Duration,
}

impl Driver<'_> {
    /// Runs rounds until there is a reply or an error.
    async fn run(&self) -> Result<FlightReply, Error> {
        let mut hashed = self.new_execution();
        let mut reconciled = false;
        loop {
            match self.round(hashed).await? {
                Round::Reply(replay) => return Ok(replay),
                Round::LockAgain(next) => hashed = next,
                Round::Indeterminate(next, error) => {
                    Box::pin(self.reconcile(&mut reconciled, error)).await?;
                    hashed = next;
                }
            }
        }
    }

    /// Acquires the key and makes the attempts, or waits for its holder.
    ///
    /// Each step is boxed, and none keeps the lock beside its successor: a future has the
    /// size of its largest step, and a flight spends most of its time in one step.
    async fn round(&self, hashed: Execution<Hashed>) -> Result<Round, Error> {
        let terms = &self.shared.terms;
        self.guard.confirm(false);
        let available = match self.shared.replays.are_usual() {
            true => None,
            false => self.try_acquire_permits(),
        };
        let (lock, permits) = match available {
            // With all permits, one round trip acquires the key or finds the outcome.
            Some(permits) => {
                let lock = Box::pin(hashed.lock(&*self.shared.store, terms));
                (lock.await?, Some(permits))
            }
            None => Box::pin(self.look_then_lock(hashed)).await?,
        };
        // A record that is not free has this request's fingerprint: `lock` compares it.
        let free = matches!(&lock, Lock::Taken(_, RecordState::Released { .. }));
        self.guard.confirm(!free);
        let next: BoxFuture<'_, _> = match lock {
            Lock::Cached(cached) => {
                self.shared.replays.count(true);
                return Ok(Round::Reply(reply_of(cached)));
            }
            Lock::Locked(locked) => {
                self.shared.replays.count(false);
                self.attempts(locked, permits)
            }
            Lock::Taken(next, state) => {
                // The permits go back while another process has the lease.
                drop(permits);
                Box::pin(self.wait_for_remote_holder(next, state))
            }
        };
        next.await
    }

    /// Waits for the holder of the key, unless duplicates fail fast.
    async fn wait_for_remote_holder(
        &self,
        hashed: Execution<Hashed>,
        state: RecordState,
    ) -> Result<Round, Error> {
        if let RecordState::Locked { .. } = &state
            && self.shared.on_duplicate == OnDuplicate::FailFast
        {
            let key = self.guard.key();
            return Err(Error::InProgress { key });
        }
        Ok(
            match remote_holder::wait(self.shared, hashed, state).await? {
                RemoteEnd::Free(next) => Round::LockAgain(next),
                RemoteEnd::Reply(reply, left) => Round::Reply(FlightReply { reply, left }),
                RemoteEnd::Indeterminate(next, error) => Round::Indeterminate(next, error),
            },
        )
    }

    /// Whether the `start_within` limits of all callers have passed.
    pub(super) fn is_expired(&self) -> bool {
        let limit = self.guard.progress().start_limit();
        limit.is_some_and(|limit| limit <= Instant::now())
    }

    /// Waits until the start limit has passed. A caller that joins meanwhile can extend it.
    pub(super) async fn expired(&self) {
        while !self.is_expired() {
            match self.guard.progress().start_limit() {
                Some(limit) => sleep_until(limit).await,
                None => pending().await,
            }
        }
    }

    pub(super) fn too_late(&self) -> Error {
        let key = self.guard.key();
        Error::Expired { key }
    }

    /// The permits of a call, if all are available now and the action has no cooldown.
    fn try_acquire_permits(&self) -> Option<CallPermits> {
        if self.is_expired() {
            return None;
        }
        let shared = self.shared;
        let action = self.guard.request().action_id();
        let pass = shared.cooldowns.try_pass(action)?;
        self.token()?;
        let permit = shared.permits.try_acquire(action)?;
        if shared.turns.in_use() > 0 {
            return None;
        }
        let rate = shared.upstream.acquire_rate_permit().now_or_never()?;
        Some(self.all(pass, permit, rate))
    }

    fn all(&self, pass: CooldownPass, permit: Permit, rate: RatePermit) -> CallPermits {
        let _permit = (permit, self.shared.meters.in_flight());
        CallPermits {
            pass,
            _permit,
            rate,
        }
    }

    /// The token for a call that leaves now; `None` if the call has to wait for one.
    pub(super) fn token(&self) -> Option<CallToken> {
        match &self.shared.tokens {
            Some(tokens) => {
                let token = tokens.current(self.guard.request().action_id())?;
                Some(CallToken::With(token))
            }
            None => Some(CallToken::NotNeeded),
        }
    }

    /// Waits for the permits of a call, until the start limit.
    pub(super) async fn acquire_permits(&self, turn: CallOrder) -> Result<CallPermits, Error> {
        tokio::select! {
            biased;
            () = self.expired() => Err(self.too_late()),
            permits = self.wait_for_permits(turn) => permits,
        }
    }

    /// Waits for the end of the cooldown, a token, a permit and the upstream's rate limit,
    /// in this order. The key is free or in `Claimed` meanwhile.
    async fn wait_for_permits(&self, turn: CallOrder) -> Result<CallPermits, Error> {
        let shared = self.shared;
        let action = self.guard.request().action_id();
        // Refused executions go first when the platform accepts calls again.
        let (rank, what, by) = match turn {
            CallOrder::First => (Rank::New, WaitFor::Cooldown, "platform"),
            CallOrder::Retry => (Rank::Refused, WaitFor::Retry, "retry"),
        };
        let mut waiting = shared.backlog.wait(what);
        loop {
            waiting.goes_on(what);
            let left = shared.retry.left(self.waited());
            let pass = shared.cooldowns.pass(action, rank, left);
            let (cooled, pass) = shared.timed_wait(by, pass).await;
            self.has_waited(cooled);
            let pass = pass.map_err(|retry_after| Error::RateLimited { retry_after })?;
            waiting.goes_on(WaitFor::Token);
            if let Some(tokens) = &shared.tokens {
                let token = shared.timed_wait("token", tokens.get(action)).await;
                token.map_err(|source| Error::Token { source })?;
            }
            waiting.goes_on(WaitFor::Permit);
            let permit = shared
                .timed_wait("permit", shared.permits.acquire(action))
                .await;
            // Last, so that a rate permit is used at once. A wait for another permit after
            // it could move the calls of two minutes into one.
            waiting.goes_on(WaitFor::Limiter);
            let admitted = async {
                let _turn = shared.turns.acquire(action).await;
                shared.upstream.acquire_rate_permit().await
            };
            let rate = shared.timed_wait("limiter", admitted).await;
            // Cooldown and token might have changed during the other waits.
            if shared.cooldowns.accepts(&pass, action) && self.token().is_some() {
                return Ok(self.all(pass, permit, rate));
            }
        }
    }

    /// How long this flight has waited, which `max_wait` limits.
    pub(super) fn waited(&self) -> Duration {
        Duration::from_millis(self.waited.load(Ordering::Relaxed))
    }

    pub(super) fn has_waited(&self, wait: Duration) {
        let ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self.waited.fetch_add(ms, Ordering::Relaxed);
    }

    /// Peeks at the record first: a replay needs no cooldown pass, no token and no
    /// permits. Acquires them only if a call follows.
    async fn look_then_lock(
        &self,
        hashed: Execution<Hashed>,
    ) -> Result<(Lock, Option<CallPermits>), Error> {
        let terms = &self.shared.terms;
        let name = self.shared.name(self.guard.key());
        let begun = Instant::now();
        let mut seen = self.shared.store.peek(&name).await;
        // A broken connection: peek again, as other commands are sent again.
        if seen.as_ref().is_err_and(|error| !error.is_definite()) && begun.elapsed() < QUICK {
            seen = self.shared.store.peek(&name).await;
        }
        let seen = seen.map_err(|source| Error::of_store(name.key, source))?;
        let hashed = match seen {
            None | Some(RecordState::Released { .. }) => hashed,
            Some(state) => match hashed.seen(state, terms)? {
                Lock::Taken(
                    hashed,
                    RecordState::Locked {
                        phase,
                        lease_left: Duration::ZERO,
                        ..
                    },
                ) => {
                    if phase == Phase::Dispatched {
                        // To lock it is what makes it indeterminate; no call follows.
                        let lock = Box::pin(hashed.lock(&*self.shared.store, terms));
                        return Ok((lock.await?, None));
                    }
                    hashed
                }
                known => return Ok((known, None)),
            },
        };
        let permits = match self.try_acquire_permits() {
            Some(permits) => permits,
            None => Box::pin(self.acquire_permits(CallOrder::First)).await?,
        };
        let lock = Box::pin(hashed.lock(&*self.shared.store, terms));
        Ok((lock.await?, Some(permits)))
    }

    /// Calls the `reconcile` hook, once per flight, for an indeterminate key.
    async fn reconcile(&self, asked: &mut bool, error: Error) -> Result<(), Error> {
        let (Some(hook), Error::Indeterminate { version, .. }) =
            (self.shared.reconcile.as_ref().filter(|_| !*asked), &error)
        else {
            return Err(error);
        };
        let version = *version;
        *asked = true;
        let (request, known) = (self.guard.request().clone(), error.clone());
        // A panic of the hook, or of its future's drop, is no result.
        let asked = async move { within(HOOK_LIMIT, hook(request, known), || false).await };
        let Ok(Some(Some(resolution))) = AssertUnwindSafe(asked).catch_unwind().await else {
            return Err(error);
        };
        let progress = self.guard.progress();
        let resolution = if progress.is_sensitive() {
            resolution.sensitive()
        } else {
            resolution
        };
        let key = self.guard.key();
        let ttl = progress.ttl(self.shared.terms.result_ttl);
        // The store might not have recorded the unknown outcome yet.
        let (store, name) = (&*self.shared.store, self.shared.name(key));
        let _ = progress.finish(store, &name).await;
        // Only the execution that the hook was asked about.
        match resolve(self.shared, key, version, resolution, ttl).await {
            // Resolved: the next round finds the outcome, or executes.
            Ok(()) => Ok(()),
            // Resolved in another way, too early, or no answer of the store: the request
            // might have been executed.
            Err(_) => Err(error),
        }
    }

    /// A new execution of the same flight.
    pub(super) fn new_execution(&self) -> Execution<Hashed> {
        Execution::with_progress(
            self.guard.request().clone(),
            self.shared.namespace.clone(),
            self.guard.progress().clone(),
            Some(self.guard.fingerprint()),
        )
    }
}

pub(super) fn reply_of(cached: Execution<Cached>) -> FlightReply {
    let left = cached.left();
    FlightReply {
        reply: cached.into_reply(),
        left,
    }
}
