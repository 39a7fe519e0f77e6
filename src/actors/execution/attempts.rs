//! What happens under one lease: attempt, wait, attempt again, and one of the
//! defined ends. It decides nothing about who may take the key.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::super::backlog::WaitFor;
use super::super::hold::HoldPass;
use super::super::shared::Shared;
use super::super::token::Refused;
use super::run::{Access, Flight, Ready, Replay, Round, Turn, reply_of};
use crate::error::{Error, SendError, TokenError, chain};
use crate::execution::{Attempt, Dispatch, Executed, Execution, Locked};
use crate::outcome::{Outcome, Recovery, Reply, Served};
use crate::policy::{Next, is_platform_limit, retry_after};
use crate::record::Refusal;
use crate::telemetry;

/// How many calls of one execution may meet a token that is no longer current and
/// cost nothing.
const MAX_STALE: u32 = 2;
/// How many tokens in a row may end before a call of an execution leaves.
const MAX_ENDED: u32 = 3;

/// What attempts under one lease came to besides their answers.
#[derive(Default)]
struct Used {
    /// The current token was refused, and renewed.
    renewed: bool,
    /// Tokens were refused that were no longer current.
    stale: u32,
    /// Attempts whose token was refused.
    refused: u32,
    /// Attempts that do not count: these, and those after which the platform asked for
    /// a wait.
    free: u32,
    /// Tokens in a row that ended before a call left.
    ended: u32,
}

impl Used {
    /// Whether an execution whose token was refused sends once more.
    fn after(&mut self, refused: Refused) -> bool {
        match refused {
            Refused::Stale if self.stale < MAX_STALE => {
                self.stale += 1;
                true
            }
            Refused::Stale | Refused::Current => !std::mem::replace(&mut self.renewed, true),
            Refused::Action => false,
        }
    }
}

impl Flight<'_> {
    /// Attempts under one lease until one is final, or no more are due.
    ///
    /// All but the attempt itself is boxed: a future is as large as its largest
    /// branch, and every flight would hold room for all of them while its call
    /// is under way.
    pub(super) async fn attempts(
        &self,
        mut locked: Execution<Locked>,
        ready: &mut Option<Ready>,
    ) -> Result<Round, Error> {
        let shared = self.shared;
        let mut used = Used::default();
        loop {
            if ready.is_none() {
                match Box::pin(self.ready_again(locked)).await {
                    Ok((next, again)) => (locked, *ready) = (next, Some(again)),
                    Err(ended) => return ended,
                }
            }
            let (attempt, access) = match locked.dispatch(&*shared.store).await? {
                Dispatch::Ended(attempt) => (attempt, Access::Open),
                Dispatch::Ready(dispatched) if self.is_expired() => {
                    ready.take();
                    let late = self.give_back(dispatched.back(), self.too_late());
                    return Box::pin(late).await;
                }
                Dispatch::Ready(dispatched) if !self.is_accepted(ready) => {
                    // A cooldown has begun while the lease was made sure of.
                    ready.take();
                    locked = dispatched.back();
                    continue;
                }
                Dispatch::Ready(dispatched) => match self.token() {
                    Some(access) => {
                        if let Some(ready) = ready.as_mut() {
                            std::mem::take(&mut ready.rate).spend();
                            ready.pass.sent();
                        }
                        used.ended = 0;
                        let called =
                            dispatched.call(&*shared.store, &*shared.upstream, access.token());
                        (called.await, access)
                    }
                    None => {
                        ready.take();
                        match Box::pin(self.token_ended(dispatched.back(), &mut used)).await {
                            Ok(next) => locked = next,
                            Err(ended) => return ended,
                        }
                        continue;
                    }
                },
            };
            let action = self.guard.request().action_id();
            shared.access_log.log(action, &attempt);
            // The rest goes back here.
            let mut pass = ready.take().map(|ready| ready.pass);
            if is_taken(&attempt)
                && let Some(pass) = pass.take()
            {
                pass.succeeded();
            }
            if let Attempt::Executed(executed) = attempt {
                if let (Some(tokens), Access::With(token)) = (&shared.tokens, &access) {
                    tokens.accept(token, self.guard.request().action_id());
                }
                return Ok(Box::pin(self.cache(executed)).await);
            }
            let after = self.after(attempt, access, pass, &mut used);
            match Box::pin(after).await {
                Ok(next) => locked = next,
                Err(ended) => return ended,
            }
        }
    }

    /// Whether no cooldown has begun since the turn to call was given out.
    fn is_accepted(&self, ready: &Option<Ready>) -> bool {
        let action = self.guard.request().action_id();
        let accepts = |ready: &Ready| self.shared.hold.accepts(&ready.pass, action);
        ready.as_ref().is_none_or(accepts)
    }

    /// There is no token any more, now that the lease is made sure of: the next one is
    /// waited for, unless tokens end faster than that.
    async fn token_ended(
        &self,
        locked: Execution<Locked>,
        used: &mut Used,
    ) -> Result<Execution<Locked>, Result<Round, Error>> {
        used.ended += 1;
        if used.ended < MAX_ENDED {
            return Ok(locked);
        }
        let source = TokenError::new("tokens end before a call can leave with them");
        Err(self.give_back(locked, Error::Token { source }).await)
    }

    /// Waits under the lease until the next attempt may be made.
    async fn ready_again(
        &self,
        locked: Execution<Locked>,
    ) -> Result<(Execution<Locked>, Ready), Result<Round, Error>> {
        let pause = locked.pause(&*self.shared.store, self.ready(Turn::Again));
        match pause.await {
            (locked, Ok(ready)) => Ok((locked, ready)),
            (locked, Err(error)) => Err(self.give_back(locked, error).await),
        }
    }

    /// What follows an attempt that gave no final answer: another one, now or
    /// after a wait, or one of the ends.
    async fn after(
        &self,
        attempt: Attempt,
        access: Access,
        pass: Option<HoldPass>,
        used: &mut Used,
    ) -> Result<Execution<Locked>, Result<Round, Error>> {
        let shared = self.shared;
        let counts = &shared.counts;
        match attempt {
            Attempt::Executed(executed) => Err(Ok(self.cache(executed).await)),
            Attempt::Lost(hashed) => Err(Ok(Round::Again(hashed))),
            Attempt::Unknown(error) => {
                counts.calls_unknown.fetch_add(1, Ordering::Relaxed);
                Err(Ok(Round::Unknown(self.again(), error)))
            }
            Attempt::Unproven(next, error) => {
                counts.calls_unknown.fetch_add(1, Ordering::Relaxed);
                let made = next.attempts() - used.free;
                match self.next(made, None) {
                    Next::Wait(wait) => Ok(self.wait(next, wait).await),
                    Next::GiveUp { .. } => {
                        let error = next.abandon(&*self.shared.store, cause_of(&error)).await;
                        Err(Ok(Round::Unknown(self.again(), error)))
                    }
                }
            }
            Attempt::NotExecuted(next, then, answer) => {
                counts.calls_not_executed.fetch_add(1, Ordering::Relaxed);
                match (then, answer) {
                    (Recovery::RenewToken, answer) => {
                        let again = match (&shared.tokens, &access) {
                            // Exactly the token that was refused.
                            (Some(tokens), Access::With(token)) => {
                                let action = self.guard.request().action_id();
                                let again = used.refused > 0;
                                used.after(tokens.refuse(token, action, again))
                            }
                            _ => false,
                        };
                        if !again {
                            let error = unauthorized(answer);
                            return Err(self.give_back(next, error).await);
                        }
                        used.refused += 1;
                        used.free += 1;
                        Ok(next)
                    }
                    // It was too late when the call was about to leave.
                    (Recovery::Retry, Err(_)) if self.is_expired() => {
                        Err(self.give_back(next, self.too_late()).await)
                    }
                    (Recovery::Retry, answer) => {
                        self.wait_or_give_up(next, answer, pass, used).await
                    }
                    (Recovery::PassThrough, Ok(outcome)) => {
                        Err(self.hand_over(next, outcome).await)
                    }
                    (Recovery::PassThrough, Err(error)) => {
                        // No answer to hand over: a custom reading cannot ask for
                        // this, since it reads answers only.
                        let error = Error::Unreachable { source: error };
                        Err(self.give_back(next, error).await)
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
        answer: Result<Outcome, SendError>,
        pass: Option<HoldPass>,
        used: &mut Used,
    ) -> Result<Execution<Locked>, Result<Round, Error>> {
        let shared = self.shared;
        let asked = answer
            .as_ref()
            .ok()
            .and_then(|o| retry_after(o, shared.terms.ambient.wall_now()));
        used.free += u32::from(asked.is_some());
        let next = self.next(locked.attempts() - used.free, asked);
        let (Next::Wait(wait) | Next::GiveUp { retry_after: wait }) = next;
        let limited = answer.as_ref().is_ok_and(is_limit);
        if let Ok(outcome) = &answer
            && limited
        {
            let action = self.guard.request().action_id();
            let whose = (!is_platform_limit(outcome)).then_some(action);
            shared.hold.close(whose, wait);
            telemetry::contained(|| {
                tracing::info!(
                    key = %self.guard.key(),
                    wait_s = wait.as_secs_f64(),
                    "rate limited; nothing was executed"
                );
            });
        }
        // Behind the cooldown, so that its turn goes to no execution.
        drop(pass);
        match (next, answer) {
            // Its cooldown is waited out where everybody's is.
            (Next::Wait(_), _) if limited => Ok(locked),
            (Next::Wait(wait), _) => Ok(self.wait(locked, wait).await),
            (Next::GiveUp { retry_after }, Ok(_)) => Err(self
                .give_back(locked, Error::RateLimited { retry_after })
                .await),
            (Next::GiveUp { .. }, Err(source)) => {
                Err(self.give_back(locked, Error::Unreachable { source }).await)
            }
        }
    }

    /// What follows after so many attempts that count.
    fn next(&self, made: u32, asked: Option<Duration>) -> Next {
        let Shared { retry, terms, .. } = &**self.shared;
        retry.after(made, self.waited(), asked, terms.ambient.fraction())
    }

    /// Waits between two attempts, with the lease kept.
    async fn wait(&self, locked: Execution<Locked>, wait: Duration) -> Execution<Locked> {
        let _waiting = self.shared.backlog.wait(WaitFor::Retry);
        let waited = async {
            tokio::select! {
                () = sleep(wait) => {}
                () = self.expired() => {}
            }
        };
        let waited = self.shared.held("retry", waited);
        let locked = locked.pause(&*self.shared.store, waited).await.0;
        self.has_waited(wait);
        locked
    }

    /// Gives the key back and tells the callers why. An unproven attempt
    /// outweighs the reason for giving up; a store that did not take note of it
    /// does not.
    async fn give_back(&self, locked: Execution<Locked>, why: Error) -> Result<Round, Error> {
        let verdict = match why {
            Error::RateLimited { retry_after } => Some(Refusal::RateLimited { retry_after }),
            _ => None,
        };
        match locked.release_with(&*self.shared.store, verdict).await {
            Err(unproven @ Error::Indeterminate { .. }) => {
                Ok(Round::Unknown(self.again(), unproven))
            }
            _ => Err(why),
        }
    }

    /// The platform refused: everybody gets its answer, nothing is recorded.
    async fn hand_over(&self, locked: Execution<Locked>, outcome: Outcome) -> Result<Round, Error> {
        let outcome = Arc::new(outcome);
        let action = self.guard.request().action_id();
        telemetry::contained(|| telemetry::refusal(&self.shared.namespace, action));
        let key = self.guard.key();
        let reply = Reply::new(key, outcome.clone(), Served::Upstream).with_recorded(false);
        match locked
            .release_with(&*self.shared.store, Some(Refusal::Refused(outcome)))
            .await
        {
            Err(error @ Error::Indeterminate { .. }) => Ok(Round::Unknown(self.again(), error)),
            // The refusal is known, whether or not the store took note of it.
            _ => Ok(Round::Reply(Replay {
                reply,
                left: Duration::ZERO,
            })),
        }
    }

    /// Records the outcome. Where the store does not take it within its time-out,
    /// everybody gets it all the same, and it is recorded behind them.
    async fn cache(&self, executed: Execution<Executed>) -> Round {
        // After the last command's own time-out, which the breaker counts.
        const AFTER: Duration = Duration::from_millis(5);
        let Shared { counts, store, .. } = &**self.shared;
        counts.calls_final.fetch_add(1, Ordering::Relaxed);
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
        Round::Reply(Replay {
            reply,
            left: Duration::ZERO,
        })
    }
}

/// Whether the platform took the call of this attempt, as far as a limit goes: it
/// gave any answer but 429, or may have executed it.
fn is_taken(attempt: &Attempt) -> bool {
    match attempt {
        Attempt::Executed(_) | Attempt::Unknown(_) | Attempt::Unproven(..) => true,
        Attempt::NotExecuted(_, _, answer) => answer.as_ref().is_ok_and(|o| !is_limit(o)),
        Attempt::Lost(_) => false,
    }
}

fn is_limit(outcome: &Outcome) -> bool {
    outcome.status() == http::StatusCode::TOO_MANY_REQUESTS
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
