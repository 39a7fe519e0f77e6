//! The course of one flight: look or lock, attempt, wait, attempt again, cache.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt as _;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::sleep;

use super::super::shared::Shared;
use super::super::token::Current;
use super::elsewhere::{self, Elsewhere};
use crate::error::{Error, SendError};
use crate::execution::{Attempt, Cached, Executed, Execution, Hashed, Lock, Locked, Progress};
use crate::flights::Guard;
use crate::outcome::{Outcome, Reply, Served, Then};
use crate::policy::{Next, OnDuplicate, OnStoreDown, is_platform_limit, retry_after};
use crate::record::{Phase, RecordState, Refusal};
use crate::store::Store;

/// What a call needs besides the key: a permit and a token.
struct Ready {
    _permit: OwnedSemaphorePermit,
    token: Option<Current>,
}

/// Runs a flight until everybody is answered. What may be left to settle then
/// stands in the guard's progress.
pub(super) async fn fly(shared: &Arc<Shared>, guard: &Guard) {
    let answer = match shared.on_store_down {
        OnStoreDown::FailClosed => with_store(shared, guard).await,
        OnStoreDown::FailOpen => with_or_without_store(shared, guard).await,
    };
    match answer {
        Ok(Replay { reply, left }) => guard.answer(Ok(reply), left),
        Err(error) => guard.answer(Err(error), Duration::ZERO),
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
/// before anything was sent.
async fn with_or_without_store(shared: &Arc<Shared>, guard: &Guard) -> Result<Replay, Error> {
    let known_here = shared.fallback.look(&shared.name(guard.key())).await;
    if !matches!(known_here, Ok(Some(_))) {
        match with_store(shared, guard).await {
            Err(Error::StoreUnavailable { source }) if guard.progress().is_unsent() => {
                tracing::warn!(
                    key = %guard.key(),
                    error = crate::error::chain(&source),
                    "the store is unavailable; executing with the guarantee of this process only"
                );
            }
            answer => return answer,
        }
    }
    // Its own progress: the store's may still hold a lease to give back.
    let progress = &Progress::new(guard.request());
    let fallback = Flight {
        shared,
        guard,
        store: &shared.fallback,
        progress,
    };
    let Replay { reply, .. } = fallback.through().await?;
    // A lease that the store may hold of this flight gets the outcome, too.
    guard
        .progress()
        .adopt(reply.outcome(), shared.terms.result_ttl);
    Ok(Replay {
        reply: reply.with_recorded(false),
        left: Duration::ZERO,
    })
}

struct Flight<'a> {
    shared: &'a Arc<Shared>,
    guard: &'a Guard,
    store: &'a dyn Store,
    progress: &'a Arc<Progress>,
}

/// A reply, and for how long the store replays it.
struct Replay {
    reply: Reply,
    left: Duration,
}

impl Flight<'_> {
    /// From the key to the reply, however many rounds it takes.
    async fn through(&self) -> Result<Replay, Error> {
        let Shared {
            terms,
            on_duplicate,
            ..
        } = &**self.shared;
        let mut hashed = self.again();
        let mut reconciled = false;
        loop {
            let (lock, ready) = match self.ready_now() {
                // Permit and token are at hand: one round trip takes the key.
                Some(ready) => (hashed.lock(self.store, terms).await?, Some(ready)),
                None => self.look_then_lock(hashed).await?,
            };
            let (next, state) = match lock {
                Lock::Cached(cached) => return Ok(reply_of(cached)),
                Lock::Locked(locked) => match self.attempts(locked, ready).await? {
                    Ended::Reply(replay) => return Ok(replay),
                    Ended::Lost(next) => {
                        hashed = next;
                        continue;
                    }
                    Ended::Unknown(next, error) => {
                        self.reconcile(&mut reconciled, error).await?;
                        hashed = next;
                        continue;
                    }
                },
                // The permit is given back while somebody else holds the key.
                Lock::Taken(next, state) => {
                    drop(ready);
                    (next, state)
                }
            };
            hashed = next;
            if let RecordState::Locked { .. } = &state
                && *on_duplicate == OnDuplicate::FailFast
            {
                return Err(Error::InProgress {
                    key: self.guard.key(),
                });
            }
            match elsewhere::wait(self.store, self.shared, hashed, state).await? {
                Elsewhere::Free(next) => hashed = next,
                Elsewhere::Reply(reply, left) => return Ok(Replay { reply, left }),
                Elsewhere::Unknown(next, error) => {
                    self.reconcile(&mut reconciled, error).await?;
                    hashed = next;
                }
            }
        }
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
        Some(Ready {
            _permit: permit,
            token,
        })
    }

    /// Waits until permit and token are at hand and nothing holds back.
    async fn ready(&self) -> Result<Ready, Error> {
        let shared = self.shared;
        let action = self.guard.request().action_id();
        loop {
            shared.hold.free(action).await;
            let token = match &shared.tokens {
                Some(tokens) => Some(
                    tokens
                        .get()
                        .await
                        .map_err(|source| Error::Token { source })?,
                ),
                None => None,
            };
            shared.upstream.admit().await;
            let permit = shared
                .permits
                .clone()
                .acquire_owned()
                .await
                .map_err(|_| Error::Stopped)?;
            // Either may have changed while the other was waited for.
            let stale = match (&shared.tokens, &token) {
                (Some(tokens), Some(_)) => tokens.current().is_none(),
                _ => false,
            };
            if shared.hold.is_free(action) && !stale {
                return Ok(Ready {
                    _permit: permit,
                    token,
                });
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
            // Locking it is what makes it indeterminate; nothing will be sent.
            Some(RecordState::Locked {
                phase: Phase::Dispatched,
                lease_left,
                ..
            }) if lease_left.is_zero() => {
                return Ok((hashed.lock(self.store, terms).await?, None));
            }
            Some(RecordState::Locked {
                phase: Phase::Claimed,
                lease_left,
                ..
            }) if lease_left.is_zero() => hashed,
            Some(state) => return Ok((hashed.seen(state, terms)?, None)),
        };
        let ready = self.ready().await?;
        Ok((hashed.lock(self.store, terms).await?, Some(ready)))
    }

    /// Attempts under one lease until one is final, or no more are due.
    async fn attempts(
        &self,
        mut locked: Execution<Locked>,
        mut ready: Option<Ready>,
    ) -> Result<Ended, Error> {
        let shared = self.shared;
        let counts = &shared.counts;
        let mut renewed = false;
        let mut refused_tokens = 0;
        loop {
            let Ready {
                _permit: permit,
                token,
            } = match ready.take() {
                Some(ready) => ready,
                None => {
                    let (next, readied) = locked.pause(self.store, self.ready()).await;
                    locked = next;
                    match readied {
                        Ok(ready) => ready,
                        Err(error) => return self.give_back(locked, None, error).await,
                    }
                }
            };
            let access = token.as_ref().map(|current| &*current.token);
            let attempt = locked
                .execute(self.store, &*shared.upstream, access)
                .await?;
            drop(permit);
            match attempt {
                Attempt::Executed(executed) => {
                    counts.calls_final.fetch_add(1, Ordering::Relaxed);
                    return Ok(self.cache(executed).await);
                }
                Attempt::Lost(hashed) => return Ok(Ended::Lost(hashed)),
                Attempt::Unknown(error) => {
                    counts.calls_unknown.fetch_add(1, Ordering::Relaxed);
                    return Ok(Ended::Unknown(self.again(), error));
                }
                Attempt::Unproven(next, error) => {
                    counts.calls_unknown.fetch_add(1, Ordering::Relaxed);
                    let made = next.attempts() - refused_tokens;
                    match shared.retry.after(made, None, fastrand::f64()) {
                        Next::Wait(wait) => locked = next.pause(self.store, sleep(wait)).await.0,
                        Next::GiveUp { .. } => {
                            let cause = cause_of(&error);
                            let error = next.abandon(self.store, cause).await;
                            return Ok(Ended::Unknown(self.again(), error));
                        }
                    }
                }
                Attempt::NotExecuted(next, then, answer) => {
                    counts.calls_not_executed.fetch_add(1, Ordering::Relaxed);
                    match (then, answer) {
                        (Then::RenewToken, answer) => {
                            let (Some(tokens), Some(token), false) =
                                (&shared.tokens, &token, renewed)
                            else {
                                let error = unauthorized(answer);
                                return self.give_back(next, None, error).await;
                            };
                            // Exactly the token that was refused.
                            tokens.refuse(token);
                            renewed = true;
                            refused_tokens += 1;
                            locked = next;
                        }
                        (Then::Retry, answer) => {
                            let made = next.attempts() - refused_tokens;
                            match self.wait_or_give_up(next, made, answer).await {
                                Ok(next) => locked = next,
                                Err(ended) => return ended,
                            }
                        }
                        (Then::HandOver, Ok(outcome)) => {
                            return self.hand_over(next, outcome).await;
                        }
                        (Then::HandOver, Err(error)) => {
                            // No answer to hand over: a custom reading cannot ask
                            // for this, since it reads answers only.
                            let error = Error::Unreachable { source: error };
                            return self.give_back(next, None, error).await;
                        }
                    }
                }
            }
        }
    }

    /// After a proof that nothing was executed: waits as long as it takes, or
    /// gives the key back.
    async fn wait_or_give_up(
        &self,
        locked: Execution<Locked>,
        made: u32,
        answer: Result<Outcome, SendError>,
    ) -> Result<Execution<Locked>, Result<Ended, Error>> {
        let shared = self.shared;
        let asked = answer
            .as_ref()
            .ok()
            .and_then(|o| retry_after(o, SystemTime::now()));
        let next = shared.retry.after(made, asked, fastrand::f64());
        let wait = match next {
            Next::Wait(wait) | Next::GiveUp { retry_after: wait } => wait,
        };
        if let Ok(outcome) = &answer
            && outcome.status_code == http::StatusCode::TOO_MANY_REQUESTS
        {
            if is_platform_limit(outcome) {
                shared.hold.everybody(wait);
            } else {
                shared.hold.action(self.guard.request().action_id(), wait);
            }
        }
        match (next, answer) {
            (Next::Wait(wait), _) => Ok(locked.pause(self.store, sleep(wait)).await.0),
            (Next::GiveUp { retry_after }, Ok(_)) => {
                let verdict = Some(Refusal::RateLimited { retry_after });
                Err(self
                    .give_back(locked, verdict, Error::RateLimited { retry_after })
                    .await)
            }
            (Next::GiveUp { .. }, Err(source)) => Err(self
                .give_back(locked, None, Error::Unreachable { source })
                .await),
        }
    }

    /// Gives the key back and tells the callers why. An unproven attempt
    /// outweighs the reason for giving up; a store that did not take note of it
    /// does not.
    async fn give_back(
        &self,
        locked: Execution<Locked>,
        verdict: Option<Refusal>,
        why: Error,
    ) -> Result<Ended, Error> {
        match locked.release_with(self.store, verdict).await {
            Err(unproven @ Error::Indeterminate { .. }) => {
                Ok(Ended::Unknown(self.again(), unproven))
            }
            _ => Err(why),
        }
    }

    /// The platform refused: everybody gets its answer, nothing is recorded.
    async fn hand_over(&self, locked: Execution<Locked>, outcome: Outcome) -> Result<Ended, Error> {
        let outcome = Arc::new(outcome);
        let key = self.guard.key();
        let reply = Reply::new(key, outcome.clone(), Served::Upstream).with_recorded(false);
        match locked
            .release_with(self.store, Some(Refusal::Refused(outcome)))
            .await
        {
            Err(error @ Error::Indeterminate { .. }) => Ok(Ended::Unknown(self.again(), error)),
            // The refusal is known, whether or not the store took note of it.
            _ => Ok(Ended::Reply(Replay {
                reply,
                left: Duration::ZERO,
            })),
        }
    }

    /// Records the outcome. Where the store does not take it, everybody gets it
    /// all the same, at once, and it is recorded when the store is back.
    async fn cache(&self, executed: Execution<Executed>) -> Ended {
        match executed.cache(self.store).await {
            Ok(cached) => Ended::Reply(reply_of(cached)),
            Err((executed, error)) => {
                tracing::warn!(
                    key = %self.guard.key(),
                    error = crate::error::chain(&error),
                    "the outcome is known and not recorded yet"
                );
                Ended::Reply(Replay {
                    reply: executed.unrecorded_reply(),
                    left: Duration::ZERO,
                })
            }
        }
    }

    /// Asks the hook, once a flight, what became of an indeterminate key.
    async fn reconcile(&self, asked: &mut bool, error: Error) -> Result<(), Error> {
        let Some(hook) = self.shared.reconcile.as_ref().filter(|_| !*asked) else {
            return Err(error);
        };
        *asked = true;
        let Some(resolution) = hook(self.guard.request().clone(), error.clone()).await else {
            return Err(error);
        };
        match elsewhere::resolve(self.shared, self.guard.key(), resolution).await {
            // Settled: the next round finds the outcome, or executes.
            Ok(()) => Ok(()),
            // Already settled by somebody else, or too early: look, or hold.
            Err(Error::NotIndeterminate { .. }) => Err(error),
            Err(other) => Err(other),
        }
    }

    /// The same flight, to be locked anew.
    fn again(&self) -> Execution<Hashed> {
        Execution::with_progress(
            self.guard.request().clone(),
            self.shared.namespace.clone(),
            self.progress.clone(),
        )
    }
}

/// How a lease ended.
enum Ended {
    Reply(Replay),
    /// Before anything was sent.
    Lost(Execution<Hashed>),
    /// The key is indeterminate.
    Unknown(Execution<Hashed>, Error),
}

fn reply_of(cached: Execution<Cached>) -> Replay {
    let left = cached.left();
    Replay {
        reply: cached.into_reply(),
        left,
    }
}

fn unauthorized(answer: Result<Outcome, SendError>) -> Error {
    let correlation_id = answer
        .ok()
        .and_then(|outcome| outcome.correlation_id().map(Arc::from));
    Error::Unauthorized { correlation_id }
}

fn cause_of(error: &Error) -> Arc<str> {
    match error {
        Error::Indeterminate { cause, .. } => cause.clone(),
        error => error.to_string().into(),
    }
}
