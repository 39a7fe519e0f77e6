//! `Locked → Executed`: one attempt at the platform under a live lease. Every request of
//! the crate leaves from here, after the check of I1; no attempt is made without it.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, LazyLock};

use tokio::time::Instant;
use tracing::Instrument as _;

use super::{Commands, Executed, Execution, Hashed, Locked, QUICK, Resend};
use crate::ambient::in_runtime;
use crate::error::{Error, SendError, StoreError, chain};
use crate::outcome::{Outcome, Recovery};
use crate::record::{Answer, Attempts, Event, Phase};
use crate::store::Store;
use crate::telemetry::{self, ObservedCall};
use crate::upstream::{AccessToken, Call, Lease, Upstream, within};

/// The cause of an indeterminate key whose execution ended during its call.
static LOST: LazyLock<Arc<str>> =
    LazyLock::new(|| "the execution was lost with its request under way".into());

/// The result of one attempt.
#[derive(Debug)]
#[must_use]
#[non_exhaustive]
pub enum Attempt {
    /// The platform gave a final answer; `cache` it.
    Executed(Execution<Executed>),
    /// Proven to be not executed; the execution still has the lease.
    NotExecuted(Execution<Locked>, Recovery, Result<Outcome, SendError>),
    /// Under `OnUnknown::Retry`: it might have been executed, and the policy retries. The
    /// execution still has the lease, and can no longer release it.
    UnknownOutcome(Execution<Locked>, Error),
    /// It might have been executed: the key is indeterminate. The error is
    /// `Error::Indeterminate`.
    Indeterminate(Error),
    /// The lease was lost before anything was sent; `lock` again.
    Lost(Execution<Hashed>),
}

/// The result of the first half of an attempt.
pub(crate) enum Dispatch {
    Ready(Dispatched),
    /// No call follows.
    Ended(Attempt),
}

/// An acquired lease whose call may leave now, without a further wait.
pub(crate) struct Dispatched(Execution<Locked>);

impl Dispatched {
    /// The second half of an attempt: sends the request, and extends the lease every third
    /// of it until the answer.
    pub(crate) async fn call(
        self,
        store: &dyn Store,
        upstream: &dyn Upstream,
        token: Option<&AccessToken>,
    ) -> Attempt {
        let Self(mut locked) = self;
        let mut wire = None;
        let sent = locked.send(store, upstream, token, &mut wire).await;
        match locked.judge(sent, wire) {
            Ok(attempt) => attempt,
            Err((unknown, cause)) => {
                Attempt::Indeterminate(Box::pin(unknown.abandon(store, cause)).await)
            }
        }
    }

    /// Cancels the call; nothing was sent.
    pub(crate) fn back(self) -> Execution<Locked> {
        self.0
    }
}

impl Execution<Locked> {
    /// How many attempts were made under this lease.
    pub fn attempts(&self) -> u32 {
        self.state.lease.attempts
    }

    /// One attempt: ensures that the lease is live and `Dispatched`, sends the request, and
    /// extends the lease every third of it until the answer.
    ///
    /// # Errors
    ///
    /// [`Error::StoreUnavailable`] and [`Error::RecordUnreadable`] if the lease could not
    /// be verified: nothing was sent, and no earlier attempt has an unknown outcome. If the
    /// store did not record the release,
    /// [`Progress::finish`](super::Progress::finish) releases the key.
    /// [`Error::NoRuntime`] outside of a tokio runtime: nothing was sent, and the lease
    /// expires.
    ///
    /// # Cancel safety
    ///
    /// **Not** cancel safe: if the future is dropped, the request might have been executed.
    /// [`Progress::finish`](super::Progress::finish) then records that.
    pub async fn execute(
        self,
        store: &dyn Store,
        upstream: &dyn Upstream,
        token: Option<&AccessToken>,
    ) -> Result<Attempt, Error> {
        Ok(match self.dispatch(store).await? {
            Dispatch::Ready(dispatched) => dispatched.call(store, upstream, token).await,
            Dispatch::Ended(attempt) => attempt,
        })
    }

    /// The first half of an attempt: ensures that the lease is live and `Dispatched`. It can
    /// take long, so the token is read after it.
    ///
    /// # Errors
    ///
    /// Those of [`execute`](Self::execute).
    pub(crate) async fn dispatch(mut self, store: &dyn Store) -> Result<Dispatch, Error> {
        in_runtime()?;
        let begun = Instant::now();
        let cause: Arc<str> = match self.enter(store).await {
            Ok(true) => return Ok(Dispatch::Ready(Dispatched(self))),
            Ok(false) if self.state.lease.outcome_unknown => {
                "the lease was lost between attempts".into()
            }
            Ok(false) => {
                let lost = Box::pin(self.give_up(store)).await;
                return Ok(Dispatch::Ended(Attempt::Lost(lost)));
            }
            // An earlier attempt might have been executed, which outweighs the store's error.
            Err(source) if self.state.lease.outcome_unknown => format!(
                "an attempt has an unknown outcome, and the lease for the next could not be verified: {}",
                chain(&source)
            )
            .into(),
            Err(source) => {
                let answered = source.is_definite();
                let error = self.core.of_store(source);
                // After an answered attempt, callers wait for only one time-out of the
                // store.
                if answered || self.state.lease.attempts == 0 || begun.elapsed() < QUICK {
                    let progress = self.core.progress.clone();
                    let _ = Box::pin(progress.finish(store, &self.core.name)).await;
                }
                return Err(error);
            }
        };
        let unknown = Box::pin(self.abandon(store, cause)).await;
        Ok(Dispatch::Ended(Attempt::Indeterminate(unknown)))
    }

    /// Waits for `until` under the lease. The record is in `Claimed` meanwhile, so that
    /// another process takes over if this one dies, unless an attempt has an unknown
    /// outcome. A store that does not answer does not prolong the wait.
    ///
    /// # Cancel safety
    ///
    /// As safe as dropping the execution: no call is in progress.
    pub async fn pause<F: Future>(mut self, store: &dyn Store, until: F) -> (Self, F::Output) {
        let mut claimed = None;
        if !self.state.lease.outcome_unknown && self.state.lease.phase == Phase::Dispatched {
            self.state.lease.step += 1;
            let (claim, step) = (self.state.lease.claim.clone(), self.state.lease.step);
            self.core.progress.acquired(claim.clone(), step);
            claimed = Some(Event::Enter {
                claim,
                step,
                phase: Phase::Claimed,
            });
            // Also if its reply is lost: the next attempt enters again, and gets the
            // answer.
            self.state.lease.phase = Phase::Claimed;
        }
        let lease = Lease::until(self.state.lease.live_until);
        let keep = async {
            if let Some(enter) = claimed {
                let mut commands = Commands::new(store, &self.core.name, Resend::IfQuick);
                if let Ok((Answer::Done, sent)) = Box::pin(commands.send(&enter)).await {
                    lease.extend(sent + self.state.lease.claim.lease_ttl);
                }
            }
            self.heartbeat(store, &lease).await
        };
        let output = tokio::select! {
            biased;
            never = keep => match never {},
            output = until => output,
        };
        self.state.lease.live_until = lease.end();
        (self, output)
    }

    /// Ensures that the lease is live and `Dispatched`, and that the record has the time of
    /// this attempt; `false` if the lease is lost.
    ///
    /// The first attempt of a free key needs no command: its acquire has written all that.
    async fn enter(&mut self, store: &dyn Store) -> Result<bool, StoreError> {
        for _ in 0..4 {
            if self.is_dispatched() {
                return Ok(true);
            }
            let sent = Some(self.wall_now());
            let acquired = &mut *self.state.lease;
            acquired.step += 1;
            acquired.claim.attempts = Attempts {
                sent,
                count: acquired.attempts + 1,
                ..acquired.claim.attempts
            };
            acquired.claim.about = self.core.about(acquired.claim.about.clone());
            let (claim, step) = (acquired.claim.clone(), acquired.step);
            self.core.progress.advanced(claim.clone(), step);
            let enter = Event::Enter {
                claim,
                step,
                phase: Phase::Dispatched,
            };
            if !Box::pin(self.renew(store, enter)).await? {
                return Ok(false);
            }
            self.state.lease.phase = Phase::Dispatched;
        }
        Err(StoreError::unavailable(
            "the lease expires faster than it is extended",
        ))
    }

    /// Whether the record says that this attempt is sent, with a recent time, and whether
    /// enough of the lease is left. A stopped process or a slow store might have used it
    /// up.
    fn is_dispatched(&self) -> bool {
        let acquired = &*self.state.lease;
        let third = acquired.claim.lease_ttl / 3;
        let Attempts { sent, count, .. } = acquired.claim.attempts;
        let age = sent.map(|sent| self.wall_now().duration_since(sent).unwrap_or_default());
        acquired.phase == Phase::Dispatched
            && count == acquired.attempts + 1
            && age.is_some_and(|age| age <= third)
            && acquired
                .live_until
                .saturating_duration_since(Instant::now())
                >= third
    }

    /// Sends an event that extends the lease; `false` if the lease is lost. After an
    /// answered attempt, a time-out of the store is not retried.
    async fn renew(&mut self, store: &dyn Store, event: Event) -> Result<bool, StoreError> {
        let resend = match self.state.lease.attempts {
            0 => Resend::Once,
            _ => Resend::IfQuick,
        };
        let mut commands = Commands::new(store, &self.core.name, resend);
        match commands.send(&event).await? {
            (Answer::Done, sent) => {
                self.state.lease.live_until = sent + self.state.lease.claim.lease_ttl;
                Ok(true)
            }
            _ => {
                telemetry::lease_lost(&self.core.name, self.core.progress.span_summary());
                Ok(false)
            }
        }
    }

    /// Sends the request, and extends the lease until the answer.
    async fn send(
        &mut self,
        store: &dyn Store,
        upstream: &dyn Upstream,
        token: Option<&AccessToken>,
        wire: &mut Option<ObservedCall>,
    ) -> Result<Outcome, SendError> {
        let claim = self.state.lease.claim.clone();
        self.state.lease.attempts += 1;
        let lease = Lease::until(self.state.lease.live_until);
        let call = Call::new(self.core.request.clone(), self.state.lease.attempts)
            .with_max_response_bytes(self.state.lease.rules.max_response_bytes)
            .under(&lease)
            .before(self.core.progress.start_limit());
        let limit = upstream.attempt_timeout().min(claim.attempts.timeout);
        // Before the clock is read: a subscriber can take long.
        let url = || upstream.url(self.core.request.action_id());
        let span = telemetry::attempt(self.state.lease.attempts, url);
        // I1: the lease is live and dispatched by this process's clock, counted from when
        // the last successful command was sent. A process that was stopped until here finds
        // its lease over, and sends nothing. The upstream checks this again between
        // connecting and its first byte.
        if self.state.lease.phase != Phase::Dispatched || !call.may_leave() {
            return Err(SendError::before_sending(
                "the time in which the request may be sent was over",
            ));
        }
        // Before `send` is first polled. After this only the lease can prove that no byte
        // has left, and it does not know earlier attempts.
        let evidence = (!self.state.lease.outcome_unknown).then(|| lease.clone());
        let (step, progress) = (self.state.lease.step, &self.core.progress);
        progress.sending(claim, step, LOST.clone().into(), evidence);
        let action = call.request().action_id();
        let (namespace, summary) = (&self.core.name.namespace, progress.span_summary());
        *wire = Some(ObservedCall::sent(namespace, action, span.clone(), summary));
        // After the time-out no byte leaves, even while the answer is awaited a little
        // longer.
        let sent = within(limit, upstream.send(&call, token), || lease.is_unsent());
        let answer = {
            // Pinned here: the macro would move both.
            let (answer, heartbeat) = (pin!(sent), pin!(self.heartbeat(store, &lease)));
            tokio::select! {
                biased;
                answer = answer.instrument(span) => answer,
                never = heartbeat => match never {},
            }
        };
        self.state.lease.live_until = lease.end();
        answer.unwrap_or_else(|| {
            let cause = format!("no answer within {} s", limit.as_secs_f64());
            Err(SendError::by(lease.is_unsent(), cause))
        })
    }
}

mod judged;
