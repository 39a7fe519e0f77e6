//! Attempts under one lease: attempt, wait, retry, until an end of the round. It never
//! acquires a key.

use std::ops::ControlFlow::{self, Break, Continue};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::super::backlog::WaitFor;
use super::super::cooldown::CooldownPass;
use super::super::shared::Shared;
use super::super::token::TokenRefusal;
use super::driver::{CallOrder, CallPermits, CallToken, Driver, FlightReply, Round, reply_of};
use crate::error::{Error, SendError, TokenError, chain};
use crate::execution::{Attempt, Dispatch, Executed, Execution, Locked};
use crate::genesys::{correlation_id, is_platform_limit, retry_after};
use crate::outcome::{Outcome, Recovery, Reply, Served};
use crate::policy::Next;
use crate::record::{Refusal, StoredOutcome};
use crate::store::BoxFuture;
use crate::telemetry;

/// How many calls of one execution may be refused with an outdated token without counting.
const MAX_STALE: u32 = 2;
/// How many tokens in a row may expire before a call of an execution leaves.
const MAX_ENDED: u32 = 3;

/// What follows an attempt: another one with `T`, or the end of the round.
type Step<T = Execution<Locked>> = ControlFlow<Result<Round, Error>, T>;

/// What attempts under one lease have used.
#[derive(Default)]
struct RetryBudget {
    /// The current token was refused, and renewed.
    renewed: bool,
    /// A token was refused while it was the current one.
    again: bool,
    /// Attempts with an outdated token.
    stale: u32,
    /// Attempts that do not count: with a refused token, or answered with `Retry-After`.
    free: u32,
    /// Tokens in a row that expired before a call left.
    ended: u32,
}

impl RetryBudget {
    /// Whether an execution whose token was refused makes another attempt.
    fn after(&mut self, refused: TokenRefusal) -> bool {
        use TokenRefusal::{Action, Current, Stale, Suspected};
        self.again |= matches!(refused, Current | Suspected);
        match refused {
            Stale | Suspected if self.stale < MAX_STALE => {
                self.stale += 1;
                true
            }
            Stale | Suspected | Current => !std::mem::replace(&mut self.renewed, true),
            Action => false,
        }
    }
}

impl Driver<'_> {
    /// Attempts under one lease until one is final, or no more are due.
    ///
    /// All except the attempt itself is boxed, no value of the dispatch is kept during the
    /// call, and a block has no copy of its arguments: a future has the size of its largest
    /// branch, and a flight spends most of its time in its call (`memory_in_flight`).
    pub(super) fn attempts(
        &self,
        mut locked: Execution<Locked>,
        mut permits: Option<CallPermits>,
    ) -> BoxFuture<'_, Result<Round, Error>> {
        Box::pin(async move {
            let shared = self.shared;
            let mut budget = RetryBudget::default();
            loop {
                if permits.is_none() {
                    match Box::pin(self.reacquire_permits(locked)).await {
                        Continue((next, again)) => (locked, permits) = (next, Some(again)),
                        Break(ended) => return ended,
                    }
                }
                let dispatched = match locked.dispatch(&*shared.store).await? {
                    Dispatch::Ready(dispatched) => dispatched,
                    Dispatch::Ended(attempt) => {
                        let token = CallToken::NotNeeded;
                        let after = self.after(attempt, token, permits.take(), &mut budget);
                        match Box::pin(after).await {
                            Continue(next) => locked = next,
                            Break(ended) => return ended,
                        }
                        continue;
                    }
                };
                if self.is_expired() {
                    drop(permits);
                    return Box::pin(self.release(dispatched.back(), self.too_late())).await;
                }
                if !self.is_accepted(&permits) {
                    // A cooldown began during `dispatch`.
                    permits = None;
                    locked = dispatched.back();
                    continue;
                }
                let Some(token) = self.token() else {
                    permits = None;
                    match Box::pin(self.token_ended(dispatched.back(), &mut budget)).await {
                        Continue(next) => locked = next,
                        Break(ended) => return ended,
                    }
                    continue;
                };
                if let Some(permits) = permits.as_mut() {
                    std::mem::take(&mut permits.rate).spend();
                    permits.pass.sent();
                }
                budget.ended = 0;
                let called = dispatched.call(&*shared.store, &*shared.upstream, token.bearer());
                let attempt = called.await;
                let after = self.after(attempt, token, permits.take(), &mut budget);
                match Box::pin(after).await {
                    Continue(next) => locked = next,
                    Break(ended) => return ended,
                }
            }
        })
    }

    /// Whether no cooldown has begun since the pass was given out.
    fn is_accepted(&self, permits: &Option<CallPermits>) -> bool {
        let action = self.guard.request().action_id();
        let accepts = |permits: &CallPermits| self.shared.cooldowns.accepts(&permits.pass, action);
        permits.as_ref().is_none_or(accepts)
    }

    /// The token expired during `dispatch`: continues with the next, up to `MAX_ENDED`.
    async fn token_ended(&self, locked: Execution<Locked>, budget: &mut RetryBudget) -> Step {
        budget.ended += 1;
        if budget.ended < MAX_ENDED {
            return Continue(locked);
        }
        let source = TokenError::new("access tokens expire before a call can leave");
        Break(self.release(locked, Error::Token { source }).await)
    }

    /// Waits under the lease for the permits of the next attempt.
    async fn reacquire_permits(
        &self,
        locked: Execution<Locked>,
    ) -> Step<(Execution<Locked>, CallPermits)> {
        let pause = locked.pause(&*self.shared.store, self.acquire_permits(CallOrder::Retry));
        match pause.await {
            (locked, Ok(permits)) => Continue((locked, permits)),
            (locked, Err(error)) => Break(self.release(locked, error).await),
        }
    }

    /// Decides what follows an attempt: another one, or the end of the round.
    async fn after(
        &self,
        attempt: Attempt,
        token: CallToken,
        permits: Option<CallPermits>,
        budget: &mut RetryBudget,
    ) -> Step {
        let (shared, action) = (self.shared, self.guard.request().action_id());
        shared.attempted(action, &attempt);
        // The other permits go back here.
        let mut pass = permits.map(|permits| permits.pass);
        if is_taken(&attempt)
            && let Some(pass) = pass.take()
        {
            pass.succeeded();
        }
        match attempt {
            Attempt::Executed(executed) => {
                if let (Some(tokens), CallToken::With(token)) = (&shared.tokens, &token) {
                    tokens.accept(token, action);
                }
                Break(Ok(self.cache(executed).await))
            }
            Attempt::Lost(hashed) => Break(Ok(Round::LockAgain(hashed))),
            Attempt::Indeterminate(error) => {
                Break(Ok(Round::Indeterminate(self.new_execution(), error)))
            }
            Attempt::UnknownOutcome(next, error) => {
                let made = next.attempts() - budget.free;
                match self.next(made, None) {
                    Next::Wait(wait) => Continue(self.wait(next, wait).await),
                    Next::GiveUp { .. } => {
                        let error = next.abandon(&*self.shared.store, cause_of(&error)).await;
                        Break(Ok(Round::Indeterminate(self.new_execution(), error)))
                    }
                }
            }
            Attempt::NotExecuted(next, then, answer) => {
                match (then, answer) {
                    (Recovery::RenewToken, answer) => {
                        let again = match (&shared.tokens, &token) {
                            (Some(tokens), CallToken::With(token)) => {
                                budget.after(tokens.refuse(token, action, budget.again))
                            }
                            _ => false,
                        };
                        if !again {
                            let error = unauthorized(answer);
                            return Break(self.release(next, error).await);
                        }
                        budget.free += 1;
                        Continue(next)
                    }
                    // The start limit passed just before the call.
                    (Recovery::Retry, Err(_)) if self.is_expired() => {
                        Break(self.release(next, self.too_late()).await)
                    }
                    (Recovery::Retry, answer) => {
                        self.wait_or_give_up(next, answer, pass, budget).await
                    }
                    (Recovery::PassThrough, Ok(outcome)) => {
                        Break(self.pass_through(next, outcome).await)
                    }
                    (Recovery::PassThrough, Err(error)) => {
                        // `classify` sees answers only, so it cannot ask for this.
                        let error = Error::Unreachable { source: error };
                        Break(self.release(next, error).await)
                    }
                }
            }
        }
    }

    /// After a proof that nothing was executed: waits for a retry, or releases the key.
    async fn wait_or_give_up(
        &self,
        locked: Execution<Locked>,
        answer: Result<Outcome, SendError>,
        pass: Option<CooldownPass>,
        budget: &mut RetryBudget,
    ) -> Step {
        let shared = self.shared;
        let asked = answer
            .as_ref()
            .ok()
            .and_then(|o| retry_after(o, shared.terms.ambient.wall_now()));
        budget.free += u32::from(asked.is_some());
        let next = self.next(locked.attempts() - budget.free, asked);
        let (Next::Wait(wait) | Next::GiveUp { retry_after: wait }) = next;
        let limited = answer.as_ref().is_ok_and(is_limit);
        if let Ok(outcome) = &answer
            && limited
        {
            let action = self.guard.request().action_id();
            let whose = (!is_platform_limit(outcome)).then_some(action);
            shared.cooldowns.close(whose, wait);
            telemetry::contained(|| {
                tracing::info!(
                    key = %self.guard.key(),
                    wait_s = wait.as_secs_f64(),
                    "rate limited; nothing was executed"
                );
            });
        }
        // After `close`, so that its turn goes to no other execution.
        drop(pass);
        match (next, answer) {
            // The next permits wait for the cooldown.
            (Next::Wait(_), _) if limited => Continue(locked),
            (Next::Wait(wait), _) => Continue(self.wait(locked, wait).await),
            (Next::GiveUp { retry_after }, Ok(_)) => Break(
                self.release(locked, Error::RateLimited { retry_after })
                    .await,
            ),
            (Next::GiveUp { .. }, Err(source)) => {
                Break(self.release(locked, Error::Unreachable { source }).await)
            }
        }
    }

    /// What the retry policy says after `made` attempts that count.
    fn next(&self, made: u32, asked: Option<Duration>) -> Next {
        let Shared { retry, terms, .. } = &**self.shared;
        retry.after(made, self.waited(), asked, terms.ambient.fraction())
    }

    /// Waits between two attempts, and keeps the lease.
    async fn wait(&self, locked: Execution<Locked>, wait: Duration) -> Execution<Locked> {
        let _waiting = self.shared.backlog.wait(WaitFor::Retry);
        let waited = async {
            tokio::select! {
                () = sleep(wait) => {}
                () = self.expired() => {}
            }
        };
        let waited = self.shared.timed_wait("retry", waited);
        let locked = locked.pause(&*self.shared.store, waited).await.0;
        self.has_waited(wait);
        locked
    }

    /// Releases the key and returns the reason, or the error of an unknown outcome.
    async fn release(&self, locked: Execution<Locked>, why: Error) -> Result<Round, Error> {
        let refusal = match why {
            Error::RateLimited { retry_after } => Some(Refusal::RateLimited { retry_after }),
            _ => None,
        };
        match locked.release_with(&*self.shared.store, refusal).await {
            Err(error @ Error::Indeterminate { .. }) => {
                Ok(Round::Indeterminate(self.new_execution(), error))
            }
            _ => Err(why),
        }
    }

    /// The platform refused: all callers get its answer, and no outcome is recorded.
    async fn pass_through(
        &self,
        locked: Execution<Locked>,
        outcome: Outcome,
    ) -> Result<Round, Error> {
        let outcome = Arc::new(outcome);
        let action = self.guard.request().action_id();
        telemetry::contained(|| telemetry::refusal(&self.shared.namespace, action));
        let key = self.guard.key();
        let reply = Reply::new(key, outcome.clone(), Served::Upstream).with_recorded(false);
        let refusal = Refusal::Refused(StoredOutcome::full(outcome));
        match locked
            .release_with(&*self.shared.store, Some(refusal))
            .await
        {
            Err(error @ Error::Indeterminate { .. }) => {
                Ok(Round::Indeterminate(self.new_execution(), error))
            }
            // The refusal is known, whether or not the store recorded it.
            _ => Ok(Round::Reply(FlightReply {
                reply,
                left: Duration::ZERO,
            })),
        }
    }

    /// Records the outcome. After the store's time-out the callers get it unrecorded.
    async fn cache(&self, executed: Execution<Executed>) -> Round {
        // Later than the last command's own time-out, which the breaker counts.
        const AFTER: Duration = Duration::from_millis(5);
        let store = &self.shared.store;
        let reply = executed.unrecorded_reply();
        let cached = pin!(executed.cache(&**store));
        let error = match timeout(store.limit() + AFTER, cached).await {
            Ok(Ok(cached)) => return Round::Reply(reply_of(cached)),
            Ok(Err((_, error))) => Some(chain(&error)),
            Err(_) => None,
        };
        telemetry::contained(|| {
            tracing::warn!(
                key = %self.guard.key(),
                error,
                "the outcome is known and not recorded yet"
            );
        });
        Round::Reply(FlightReply {
            reply,
            left: Duration::ZERO,
        })
    }
}

/// Whether the platform's rate limit accepted the call of this attempt: it got any answer
/// but 429, or might have been executed.
fn is_taken(attempt: &Attempt) -> bool {
    match attempt {
        Attempt::Executed(_) | Attempt::Indeterminate(_) | Attempt::UnknownOutcome(..) => true,
        Attempt::NotExecuted(_, _, answer) => answer.as_ref().is_ok_and(|o| !is_limit(o)),
        Attempt::Lost(_) => false,
    }
}

fn is_limit(outcome: &Outcome) -> bool {
    outcome.status() == http::StatusCode::TOO_MANY_REQUESTS
}

fn unauthorized(answer: Result<Outcome, SendError>) -> Error {
    let correlation_id = answer
        .as_ref()
        .ok()
        .and_then(|outcome| correlation_id(outcome).map(Arc::from));
    Error::Unauthorized { correlation_id }
}

fn cause_of(error: &Error) -> Arc<str> {
    match error {
        Error::Indeterminate { cause, .. } => cause.text(),
        error => error.to_string().into(),
    }
}
