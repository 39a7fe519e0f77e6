//! What happens under one lease: attempt, wait, attempt again, and one of the
//! defined ends. It decides nothing about who may take the key.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use tokio::time::sleep;

use super::super::waits::WaitFor;
use super::run::{Flight, Ready, Replay, Turn, reply_of};
use crate::error::{Error, SendError};
use crate::execution::{Attempt, Executed, Execution, Hashed, Locked};
use crate::outcome::{Outcome, Reply, Served, Then};
use crate::policy::{Next, is_platform_limit, retry_after};
use crate::record::Refusal;

/// How a lease ended.
pub(super) enum Ended {
    Reply(Replay),
    /// Before anything was sent.
    Lost(Execution<Hashed>),
    /// The key is indeterminate.
    Unknown(Execution<Hashed>, Error),
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
        mut ready: Option<Ready>,
    ) -> Result<Ended, Error> {
        let shared = self.shared;
        let counts = &shared.counts;
        let mut renewed = false;
        let mut refused_tokens = 0;
        loop {
            let Ready { permit, token } = match ready.take() {
                Some(ready) => ready,
                None => {
                    let pause = Box::pin(locked.pause(self.store, self.ready(Turn::Again)));
                    let (next, readied) = pause.await;
                    locked = next;
                    match readied {
                        Ok(ready) => ready,
                        Err(error) => {
                            return Box::pin(self.give_back(locked, None, error)).await;
                        }
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
                    return Ok(Box::pin(self.cache(executed)).await);
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
                        Next::Wait(wait) => locked = Box::pin(self.wait(next, wait)).await,
                        Next::GiveUp { .. } => {
                            let cause = cause_of(&error);
                            let error = Box::pin(next.abandon(self.store, cause)).await;
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
                                return Box::pin(self.give_back(next, None, error)).await;
                            };
                            // Exactly the token that was refused.
                            tokens.refuse(token);
                            renewed = true;
                            refused_tokens += 1;
                            locked = next;
                        }
                        (Then::Retry, answer) => {
                            let made = next.attempts() - refused_tokens;
                            let waited = Box::pin(self.wait_or_give_up(next, made, answer));
                            match waited.await {
                                Ok(next) => locked = next,
                                Err(ended) => return ended,
                            }
                        }
                        (Then::HandOver, Ok(outcome)) => {
                            return Box::pin(self.hand_over(next, outcome)).await;
                        }
                        (Then::HandOver, Err(error)) => {
                            // No answer to hand over: a custom reading cannot ask
                            // for this, since it reads answers only.
                            let error = Error::Unreachable { source: error };
                            return Box::pin(self.give_back(next, None, error)).await;
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
            tracing::info!(
                key = %self.guard.key(),
                wait_s = wait.as_secs_f64(),
                "rate limited; nothing was executed"
            );
            if is_platform_limit(outcome) {
                shared.hold.everybody(wait);
            } else {
                shared.hold.action(self.guard.request().action_id(), wait);
            }
        }
        match (next, answer) {
            (Next::Wait(wait), _) => Ok(self.wait(locked, wait).await),
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

    /// Waits between two attempts, with the lease kept.
    async fn wait(&self, locked: Execution<Locked>, wait: Duration) -> Execution<Locked> {
        let _waiting = self.shared.waits.wait(WaitFor::Retry);
        let waited = self.shared.held("retry", sleep(wait));
        locked.pause(self.store, waited).await.0
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
