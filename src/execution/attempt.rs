//! `Locked → Executed`: one attempt at the platform under a live lease. The one
//! place in the crate from which a request leaves; what I1 says is checked here
//! and nowhere else.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, LazyLock};

use tokio::time::Instant;
use tracing::{Instrument as _, Span};

use super::{Commands, Executed, Execution, Hashed, Locked, QUICK, Resend};
use crate::ambient::in_runtime;
use crate::error::{Error, SendError, StoreError, chain};
use crate::outcome::{Outcome, Recovery};
use crate::record::{Answer, Attempts, Event, Phase};
use crate::store::Store;
use crate::telemetry::{self, UpstreamCall};
use crate::upstream::{AccessToken, Call, Lease, Upstream, within};

/// What is to be told of a call, where one was put on the wire.
type Wire = Option<(UpstreamCall, Span)>;

/// What is said of an execution that ends while its request is under way.
static LOST: LazyLock<Arc<str>> =
    LazyLock::new(|| "the execution was lost with its request under way".into());

/// What became of one attempt.
#[derive(Debug)]
#[must_use]
#[non_exhaustive]
pub enum Attempt {
    /// The platform gave a final answer; `cache` it.
    Executed(Execution<Executed>),
    /// Proven not executed; the key is still acquired.
    NotExecuted(Execution<Locked>, Recovery, Result<Outcome, SendError>),
    /// Under `OnUnknown::Retry`: it may have been executed, and the policy is to
    /// try again. The key is still held, and can no longer be released.
    UnknownOutcome(Execution<Locked>, Error),
    /// It may have been executed: the key is indeterminate. The error is
    /// `Error::Indeterminate`.
    Indeterminate(Error),
    /// The lease was lost before anything was sent; `lock` again.
    Lost(Execution<Hashed>),
}

/// What became of the first half of an attempt.
pub(crate) enum Dispatch {
    Ready(Dispatched),
    /// Nothing is to be sent.
    Ended(Attempt),
}

/// A held key whose call may leave now, and so without waiting for anything.
pub(crate) struct Dispatched(Execution<Locked>);

impl Dispatched {
    /// The second half of an attempt: sends, and extends the lease every third of
    /// it for as long as the answer takes.
    pub(crate) async fn call(
        self,
        store: &dyn Store,
        upstream: &dyn Upstream,
        token: Option<&AccessToken>,
    ) -> Attempt {
        let Self(mut locked) = self;
        let mut wire = Wire::default();
        let sent = locked.send(store, upstream, token, &mut wire).await;
        match locked.judge(sent, wire) {
            Ok(attempt) => attempt,
            Err((unknown, cause)) => {
                Attempt::Indeterminate(Box::pin(unknown.abandon(store, cause)).await)
            }
        }
    }

    /// Nothing is sent after all.
    pub(crate) fn back(self) -> Execution<Locked> {
        self.0
    }
}

impl Execution<Locked> {
    /// How many attempts were made under this lease.
    pub fn attempts(&self) -> u32 {
        self.state.lease.attempts
    }

    /// One attempt: makes sure that the lease is live and `Dispatched`, sends,
    /// and extends the lease every third of it for as long as the answer takes.
    ///
    /// # Errors
    ///
    /// [`Error::StoreUnavailable`] and [`Error::RecordUnreadable`] where the
    /// lease could not be made sure of: nothing was sent, and no attempt before
    /// is unproven; [`Progress::finish`](super::Progress::finish) gives the key
    /// back, where a silent store has not taken that. [`Error::NoRuntime`] outside of a tokio runtime: nothing was sent,
    /// and the lease lapses.
    ///
    /// # Cancel safety
    ///
    /// **Not** cancel safe: dropped in mid-way the request may have been
    /// executed. [`Progress::finish`](super::Progress::finish) then records just
    /// that.
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

    /// The first half of an attempt: makes sure that the lease is live and
    /// `Dispatched`. What the call leaves with is read after it, since it may take
    /// its time.
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
                "its record was taken away between attempts".into()
            }
            Ok(false) => {
                let lost = Box::pin(self.give_up(store)).await;
                return Ok(Dispatch::Ended(Attempt::Lost(lost)));
            }
            // An earlier attempt may have been executed: that outweighs the store.
            Err(source) if self.state.lease.outcome_unknown => format!(
                "an attempt is outcome_unknown, and the lease for another could not be made sure of: {}",
                chain(&source)
            )
            .into(),
            Err(source) => {
                let answered = source.is_definite();
                let error = self.core.of_store(source);
                // Callers who wait since an attempt was answered wait for one silence
                // of the store only.
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

    /// Waits for `until` under the lease: in `Claimed`, so that another process
    /// takes over if this one dies, unless an attempt is unproven. A store that
    /// does not answer makes the wait no longer.
    ///
    /// # Cancel safety
    ///
    /// As safe as dropping the execution: nothing is on the wire.
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
            // Also where its fate is unknown: the next attempt enters anew, and
            // finds out.
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

    /// Makes sure that the lease is live, in `Dispatched`, and that the record says
    /// when this attempt is sent; `false` where it is no longer this execution's.
    ///
    /// The first attempt of a key that was free needs no command: its acquire has
    /// written all that.
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
            "the lease lapses faster than it is extended",
        ))
    }

    /// Whether the record says that this attempt is under way, of lately enough,
    /// under a lease of which enough is left to begin with: a stop of this
    /// process, or a slow answer of the store, may have eaten it up.
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

    /// Sends an event that renews the lease; `false` where it is lost. After an
    /// attempt was answered, a silence is not followed up.
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

    /// Puts the request on the wire and sees to the lease until the answer.
    async fn send(
        &mut self,
        store: &dyn Store,
        upstream: &dyn Upstream,
        token: Option<&AccessToken>,
        wire: &mut Wire,
    ) -> Result<Outcome, SendError> {
        let claim = self.state.lease.claim.clone();
        self.state.lease.attempts += 1;
        let lease = Lease::until(self.state.lease.live_until);
        let call = Call::new(self.core.request.clone(), self.state.lease.attempts)
            .with_max_response_bytes(self.state.lease.rules.max_response_bytes)
            .under(&lease)
            .before(self.core.progress.start_limit());
        let limit = upstream.attempt_timeout().min(claim.attempts.timeout);
        // Before the clock is looked at: a subscriber may take its time.
        let url = || upstream.url(self.core.request.action_id());
        let span = telemetry::attempt(self.state.lease.attempts, url);
        // I1: live and dispatched, by our own clock, from when the last
        // successful command was sent. A process that was stopped until here
        // wakes up past its lease and sends nothing; the upstream asks the same
        // again between connecting and its first byte.
        if self.state.lease.phase != Phase::Dispatched || !call.may_leave() {
            return Err(SendError::before_sending(
                "the time in which the request may be sent was over",
            ));
        }
        // Before `send` is first polled: from here on only the lease may know that
        // nothing has left, and it knows nothing of earlier attempts.
        let evidence = (!self.state.lease.outcome_unknown).then(|| lease.clone());
        let (step, progress) = (self.state.lease.step, &self.core.progress);
        progress.sending(claim, step, LOST.clone().into(), evidence);
        progress.span_summary().sent();
        let action = call.request().action_id();
        let counted = UpstreamCall::sent(&self.core.name.namespace, action);
        *wire = Some((counted, span.clone()));
        // From the end of its time on nothing leaves, also where an answer is
        // waited for a little longer.
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
