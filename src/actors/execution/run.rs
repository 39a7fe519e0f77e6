//! The course of one flight: look or lock, attempt, wait, attempt again, cache.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{sleep, timeout};

use super::super::shared::Shared;
use super::super::token::Current;
use super::super::waits::WaitFor;
use super::elsewhere::{self, Elsewhere};
use crate::error::{Error, StoreError};
use crate::execution::{Cached, Execution, Hashed, Lock, Progress};
use crate::flights::Guard;
use crate::outcome::Reply;
use crate::policy::{OnDuplicate, OnStoreDown};
use crate::record::{Phase, RecordState};
use crate::store::Store;
use crate::telemetry::Raised;

/// Over what time those who were held back, and have made no attempt yet, come
/// after the hold.
const SPREAD: Duration = Duration::from_millis(500);

/// Whose turn it is to be ready.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    First,
    /// After an attempt that was not executed.
    Again,
}
/// How long the hook may take; a longer silence is no answer, and the callers
/// are told what is known.
const HOOK_LIMIT: Duration = Duration::from_secs(60);

/// Bytes of records that a process keeps of what it executed while the store was
/// down. None of them may be forgotten, so beyond it nothing more is executed.
const MOST_WITHOUT_STORE: u64 = 256 << 20;

/// What a call needs besides the key: a permit and a token.
pub(super) struct Ready {
    pub(super) permit: (OwnedSemaphorePermit, Raised),
    pub(super) token: Option<Current>,
}

/// Runs a flight until everybody is answered. What may be left to settle then
/// stands in the guard's progress.
pub(super) async fn fly(shared: &Arc<Shared>, guard: &Guard) {
    let _crash = Crash { shared, guard };
    let answer = match shared.on_store_down {
        OnStoreDown::FailClosed => with_store(shared, guard).await,
        OnStoreDown::FailOpen => Box::pin(with_or_without_store(shared, guard)).await,
    };
    match answer {
        Ok(Replay { reply, left }) => guard.answer(Ok(reply), left),
        Err(error) => guard.answer(Err(error), Duration::ZERO),
    }
}

/// Where a flight ends without an answer, before those who wait are told so: what
/// it may have sent is in doubt until the store says more.
struct Crash<'a> {
    shared: &'a Shared,
    guard: &'a Guard,
}

impl Drop for Crash<'_> {
    fn drop(&mut self) {
        let Self { shared, guard } = self;
        if shared.on_store_down == OnStoreDown::FailOpen
            && !guard.is_answered()
            && !guard.progress().is_unsent()
        {
            let cause = "the execution crashed with its request under way";
            let doubts = &shared.doubts;
            doubts.remember(guard.key(), shared.terms.ambient.wall_now(), cause.into());
        }
    }
}

async fn with_store(shared: &Arc<Shared>, guard: &Guard) -> Result<Replay, Error> {
    let progress = guard.progress();
    Flight {
        shared,
        guard,
        store: &*shared.store,
        progress,
    }
    .through()
    .await
}

/// `FailOpen`: what this process executed while the store was down stands in the
/// fallback, which is asked first; new requests go there when the store fails
/// before anything was sent, except those that it last said to be indeterminate.
async fn with_or_without_store(shared: &Arc<Shared>, guard: &Guard) -> Result<Replay, Error> {
    let known_here = shared.fallback.look(&shared.name(guard.key())).await;
    let executed_here = match known_here {
        // Nothing was executed: the store, if it is back, decides anew.
        Ok(None | Some(RecordState::Released { .. })) | Err(_) => false,
        Ok(Some(_)) => true,
    };
    if !executed_here {
        match with_store(shared, guard).await {
            Err(Error::StoreUnavailable { source }) if guard.progress().is_unsent() => {
                shared.doubts.check(guard.key())?;
                if shared.fallback.weight() >= MOST_WITHOUT_STORE {
                    let source = StoreError::unavailable(format!(
                        "{source}, and what this process executed without it has its limit"
                    ));
                    return Err(Error::StoreUnavailable { source });
                }
                tracing::warn!(
                    key = %guard.key(),
                    error = crate::error::chain(&source),
                    "the store is unavailable; executing with the guarantee of this process only"
                );
            }
            answer => {
                match &answer {
                    Err(Error::Indeterminate { since, cause, .. }) => {
                        let (key, cause) = (guard.key(), cause.clone());
                        shared.doubts.remember(key, *since, cause);
                    }
                    Ok(_) => shared.doubts.forget(&guard.key()),
                    Err(_) => {}
                }
                return answer;
            }
        }
    }
    // Its own progress: the store's may still hold a lease, which ends with it.
    let progress = &guard.progress().beside();
    let fallback = Flight {
        shared,
        guard,
        store: &shared.fallback,
        progress,
    };
    let Replay { reply, .. } = fallback.through().await?;
    if reply.recorded() {
        // Also where the hook found it out.
        let usual_ttl = shared.terms.result_ttl;
        guard
            .progress()
            .adopt(reply.outcome(), reply.kept(), usual_ttl);
    }
    Ok(Replay {
        reply: reply.with_recorded(false),
        left: Duration::ZERO,
    })
}

pub(super) struct Flight<'a> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) guard: &'a Guard,
    pub(super) store: &'a dyn Store,
    progress: &'a Arc<Progress>,
}

/// How a round of a flight ended.
pub(super) enum Round {
    Reply(Replay),
    /// Before anything was sent, or with whoever had the key gone.
    Again(Execution<Hashed>),
    /// The key is indeterminate.
    Unknown(Execution<Hashed>, Error),
}

/// A reply, and for how long the store replays it.
pub(super) struct Replay {
    pub(super) reply: Reply,
    pub(super) left: Duration,
}

impl Flight<'_> {
    /// From the key to the reply, however many rounds it takes.
    async fn through(&self) -> Result<Replay, Error> {
        let mut hashed = self.again();
        let mut reconciled = false;
        loop {
            match self.round(hashed).await? {
                Round::Reply(replay) => return Ok(replay),
                Round::Again(next) => hashed = next,
                Round::Unknown(next, error) => {
                    Box::pin(self.reconcile(&mut reconciled, error)).await?;
                    hashed = next;
                }
            }
        }
    }

    /// Takes the key and makes the attempts, or waits for whoever has it.
    ///
    /// Each step is boxed: a future has room for its largest one, and most of a
    /// flight's time passes in one only.
    async fn round(&self, hashed: Execution<Hashed>) -> Result<Round, Error> {
        let terms = &self.shared.terms;
        let (lock, mut ready) = match self.ready_now() {
            // Permit and token are at hand: one round trip takes the key.
            Some(ready) => {
                let lock = Box::pin(hashed.lock(self.store, terms));
                (lock.await?, Some(ready))
            }
            None => Box::pin(self.look_then_lock(hashed)).await?,
        };
        match lock {
            Lock::Cached(cached) => Ok(Round::Reply(reply_of(cached))),
            Lock::Locked(locked) => Box::pin(self.attempts(locked, &mut ready)).await,
            Lock::Taken(next, state) => {
                // The permit is given back while somebody else holds the key.
                drop(ready.take());
                Box::pin(self.elsewhere(next, state)).await
            }
        }
    }

    /// Waits for whoever has the key, where that is wanted.
    async fn elsewhere(
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
            match elsewhere::wait(self.store, self.shared, hashed, state).await? {
                Elsewhere::Free(next) => Round::Again(next),
                Elsewhere::Reply(reply, left) => Round::Reply(Replay { reply, left }),
                Elsewhere::Unknown(next, error) => Round::Unknown(next, error),
            },
        )
    }

    /// Permit and token, where both can be had without waiting and nothing
    /// holds this action back.
    fn ready_now(&self) -> Option<Ready> {
        let shared = self.shared;
        if !shared.hold.is_free(self.guard.request().action_id()) {
            return None;
        }
        let permit = shared.permits.clone().try_acquire_owned().ok()?;
        let token = match &shared.tokens {
            Some(tokens) => Some(tokens.current()?),
            None => None,
        };
        shared.upstream.admit().now_or_never()?;
        let permit = (permit, shared.meters.in_flight());
        Some(Ready { permit, token })
    }

    /// Waits until permit and token are at hand and nothing holds back.
    pub(super) async fn ready(&self, turn: Turn) -> Result<Ready, Error> {
        let shared = self.shared;
        let action = self.guard.request().action_id();
        let mut waiting = shared.waits.wait(WaitFor::Hold);
        loop {
            // A hold longer than any wait would be is told at once.
            let held = shared.hold.left_for(action);
            if shared.retry.is_too_long(held) {
                return Err(Error::RateLimited { retry_after: held });
            }
            waiting.goes_on(WaitFor::Hold);
            shared.held("platform", shared.hold.free(action)).await;
            // What was refused goes first when the platform takes calls again,
            // so that a crowd behind it does not use its attempts up. And a
            // crowd had better not come all at once.
            if turn == Turn::First && !held.is_zero() {
                sleep(SPREAD.mul_f64(0.1 + 0.9 * shared.terms.ambient.fraction())).await;
            }
            waiting.goes_on(WaitFor::Token);
            let token = match &shared.tokens {
                Some(tokens) => Some(
                    shared
                        .held("token", tokens.get())
                        .await
                        .map_err(|source| Error::Token { source })?,
                ),
                None => None,
            };
            waiting.goes_on(WaitFor::Permit);
            let permit = shared
                .held("permit", shared.permits.clone().acquire_owned())
                .await
                .map_err(|_| Error::Stopped)?;
            // Last, so that what is admitted is sent: a wait for a permit behind
            // it would let the admissions of two minutes pile up into one.
            waiting.goes_on(WaitFor::Limiter);
            shared.held("limiter", shared.upstream.admit()).await;
            // Either may have changed while the other was waited for.
            let stale = match (&shared.tokens, &token) {
                (Some(tokens), Some(_)) => tokens.current().is_none(),
                _ => false,
            };
            if shared.hold.is_free(action) && !stale {
                let permit = (permit, shared.meters.in_flight());
                return Ok(Ready { permit, token });
            }
        }
    }

    /// Replays need no permit, no token and no end of a hold: look first, and
    /// wait for those only where something is to be sent.
    async fn look_then_lock(
        &self,
        hashed: Execution<Hashed>,
    ) -> Result<(Lock, Option<Ready>), Error> {
        let terms = &self.shared.terms;
        let name = self.shared.name(self.guard.key());
        let seen = match self.store.look(&name).await {
            Err(source) => return Err(Error::of_store(name.key, source)),
            Ok(seen) => seen,
        };
        let hashed = match seen {
            None | Some(RecordState::Released { .. }) => hashed,
            Some(state) => match hashed.seen(state, terms)? {
                // Locking it is what makes it indeterminate; nothing will be sent.
                Lock::Taken(
                    hashed,
                    RecordState::Locked {
                        phase: Phase::Dispatched,
                        lease_left: Duration::ZERO,
                        ..
                    },
                ) => return Ok((hashed.lock(self.store, terms).await?, None)),
                Lock::Taken(
                    hashed,
                    RecordState::Locked {
                        phase: Phase::Claimed,
                        lease_left: Duration::ZERO,
                        ..
                    },
                ) => hashed,
                known => return Ok((known, None)),
            },
        };
        let ready = self.ready(Turn::First).await?;
        Ok((hashed.lock(self.store, terms).await?, Some(ready)))
    }

    /// Asks the hook, once a flight, what became of an indeterminate key.
    async fn reconcile(&self, asked: &mut bool, error: Error) -> Result<(), Error> {
        let Some(hook) = self.shared.reconcile.as_ref().filter(|_| !*asked) else {
            return Err(error);
        };
        *asked = true;
        // Until this flight has its answer: a store that goes down meanwhile must
        // not have the request sent again.
        if self.shared.on_store_down == OnStoreDown::FailOpen
            && let Error::Indeterminate { since, cause, .. } = &error
        {
            let doubts = &self.shared.doubts;
            doubts.remember(self.guard.key(), *since, cause.clone());
        }
        let asked = hook(self.guard.request().clone(), error.clone());
        let Ok(Some(resolution)) = timeout(HOOK_LIMIT, asked).await else {
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
        match elsewhere::resolve(self.shared, self.store, key, resolution, ttl).await {
            // Settled: the next round finds the outcome, or executes.
            Ok(()) => Ok(()),
            // Already settled by somebody else, too early, or a store that does
            // not answer: what is known is that it may have been executed.
            Err(_) => Err(error),
        }
    }

    /// The same flight, to be locked anew.
    pub(super) fn again(&self) -> Execution<Hashed> {
        Execution::with_progress(
            self.guard.request().clone(),
            self.shared.namespace.clone(),
            self.progress.clone(),
        )
    }
}

pub(super) fn reply_of(cached: Execution<Cached>) -> Replay {
    let left = cached.left();
    Replay {
        reply: cached.into_reply(),
        left,
    }
}
