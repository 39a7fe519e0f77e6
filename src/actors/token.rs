//! The OAuth token: one fetch however many ask, renewed before it expires and when
//! the platform refuses it; until its successor is there it serves those whom it was
//! not refused. Reading it costs no mailbox hop.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::posted::Posted;
use crate::ambient::Ambient;
use crate::error::{TokenError, chain};
use crate::key::Namespace;
use crate::policy::{bounded_wait, jittered};
use crate::request::ActionId;
use crate::telemetry;
use crate::upstream::{AccessToken, TokenSource, within};

mod backoff;
mod life;
mod refusals;
mod renewal;
mod state;

pub(crate) use self::backoff::Restarts;
use self::backoff::backed_off;
use self::life::times;
pub(crate) use self::refusals::TokenRefusal;
pub(crate) use self::state::CurrentToken;
use self::state::{FetchFailure, TokenState, TokenWaiter};

/// How long one fetch may take, whatever the source itself allows.
const FETCH_LIMIT: Duration = Duration::from_secs(30);
/// How often a demand is tried before those who wait are told.
const TRIES: u32 = 3;
/// The token as executions see it; a clone is the same.
#[derive(Clone)]
pub(crate) struct Tokens {
    source: Arc<dyn TokenSource>,
    ambient: Ambient,
    namespace: Namespace,
    state: Arc<Posted<TokenState>>,
    actor: Arc<Mutex<Option<ActorRef<Message>>>>,
    waiting: Arc<AtomicUsize>,
    renewals: Arc<AtomicUsize>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens")
            .field("valid_for", &self.valid_for())
            .finish_non_exhaustive()
    }
}

impl Tokens {
    pub(crate) fn new(
        source: Arc<dyn TokenSource>,
        namespace: Namespace,
        ambient: Ambient,
    ) -> Self {
        Self {
            source,
            ambient,
            namespace,
            state: Arc::default(),
            actor: Arc::default(),
            waiting: Arc::default(),
            renewals: Arc::default(),
        }
    }

    /// The token at hand for this action, without asking anybody.
    pub(crate) fn current(&self, action: &ActionId) -> Option<CurrentToken> {
        self.state.read().usable_for(action, Instant::now())
    }

    /// A token: the one at hand, or the next one fetched.
    ///
    /// # Errors
    ///
    /// Why none could be had, at once while fetches back off.
    pub(crate) async fn get(&self, action: &ActionId) -> Result<CurrentToken, TokenError> {
        let _waiting = TokenWaiter::new(&self.waiting);
        let look = |state: &TokenState| {
            let now = Instant::now();
            let known = state.usable_for(action, now).map(Ok);
            let known = known.or_else(|| state.failing(now).map(Err));
            if known.is_none() {
                self.wake();
            }
            known
        };
        self.state.wait_for(look).await
    }

    /// The platform refused this token for this action, to an execution that was
    /// refused one before (`again`) or not. Where that may be the token's fault, its
    /// successor is fetched, and meanwhile it serves others.
    pub(crate) fn refuse(
        &self,
        refused: &CurrentToken,
        action: &ActionId,
        again: bool,
    ) -> TokenRefusal {
        let now = Instant::now();
        let what = {
            let mut state = self.state.read();
            let current = state.current.as_ref().map(|current| current.id);
            match current == Some(refused.id) {
                true => {
                    let token = (refused.id, refused.since);
                    state.refusals.refuse(action, token, again, now)
                }
                false => TokenRefusal::Stale,
            }
        };
        if what == TokenRefusal::Current {
            self.wake();
        }
        what
    }

    /// A call of this action succeeded with this token.
    pub(crate) fn accept(&self, accepted: &CurrentToken, action: &ActionId) {
        self.state.read().refusals.accept(action, accepted.id);
    }

    /// Forgets that the endpoint is to be left alone: the next demand asks it.
    pub(crate) fn end_cooldown(&self) {
        let before = self.state.post(|state| state.failure.take());
        if before.is_some() {
            self.tell(Message::Again);
        }
        // After the lock of the state is free.
        drop(before);
    }

    /// How long the token at hand may be used; `None` where there is none.
    pub(crate) fn valid_for(&self) -> Option<Duration> {
        let now = Instant::now();
        let current = self.state.read().usable(now)?;
        Some(
            current
                .until
                .map_or(Duration::MAX, |until| until.saturating_duration_since(now)),
        )
    }

    /// How often a token was fetched.
    pub(crate) fn renewals(&self) -> usize {
        self.renewals.load(Ordering::Relaxed)
    }

    /// Starts the actor, or starts it again after it died; those who were
    /// waiting meanwhile are served.
    pub(crate) async fn spawn(&self, supervisor: ActorCell) -> Result<ActorCell, SpawnErr> {
        let (actor, _) = Actor::spawn_linked(None, TokenActor, self.clone(), supervisor).await?;
        let cell = actor.get_cell();
        *self.actor.lock().unwrap_or_else(PoisonError::into_inner) = Some(actor);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.wake();
        }
        Ok(cell)
    }

    fn wake(&self) {
        self.tell(Message::Need);
    }

    fn tell(&self, message: Message) {
        let actor = self.actor.lock().unwrap_or_else(PoisonError::into_inner);
        // Sent after the lock is free: ractor may ask a subscriber for the span.
        let actor = actor.clone();
        if let Some(actor) = actor {
            // The successor of a dead actor serves the callers that wait.
            let _ = actor.send_message(message);
        }
    }
}

struct TokenActor;

/// What the token actor is told.
#[derive(Debug)]
pub(crate) enum Message {
    /// Somebody has no token.
    Need,
    /// It is time to renew this token.
    Renew(usize),
    /// The endpoint may be asked again, whatever it asked for.
    Again,
}

#[cfg(feature = "ractor-cluster")]
impl ractor::Message for Message {}

pub(crate) struct State {
    tokens: Tokens,
    /// Fetches that failed in a row.
    failures: u32,
    /// The suspected token whose renewal is scheduled, and the pace of those.
    suspected: usize,
    pace: Restarts,
    /// The next renewal. It ends with the actor: ractor's own timers would
    /// outlive the engine by hours.
    timer: JoinSet<()>,
}

#[cfg_attr(feature = "ractor-async-trait", ractor::async_trait)]
impl Actor for TokenActor {
    type Msg = Message;
    type State = State;
    type Arguments = Tokens;

    async fn pre_start(
        &self,
        myself: ActorRef<Message>,
        tokens: Tokens,
    ) -> Result<State, ActorProcessingErr> {
        let current = tokens.state.read().current.clone();
        let mut state = State {
            tokens,
            failures: 0,
            suspected: 0,
            pace: Restarts::default(),
            timer: JoinSet::new(),
        };
        // The timer died with the actor before.
        if let Some(CurrentToken {
            id,
            renew: Some(at),
            ..
        }) = current
        {
            let left = at.saturating_duration_since(Instant::now());
            state.renew_after(&myself, id, left);
        }
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Need => state.need(&myself).await,
            Message::Renew(id) => state.renew(&myself, id).await,
            Message::Again => state.again(&myself),
        }
        Ok(())
    }
}

impl State {
    /// Fetches until there is a token, or until those who wait must be told.
    async fn need(&mut self, myself: &ActorRef<Message>) {
        for attempt in 1..=TRIES {
            let now = Instant::now();
            let (suspect, known) = {
                let state = self.tokens.state.read();
                let known = state.usable(now).is_some() || state.failing(now).is_some();
                (state.suspect(now), known)
            };
            if let Some(id) = suspect {
                return self.suspect(myself, id);
            }
            if known {
                return; // an earlier message has seen to it
            }
            match self.fetch(myself).await {
                Ok(()) => return,
                Err(error) => {
                    let asked = error.retry_after();
                    let last = attempt == TRIES || error.is_rejected() || asked.is_some();
                    let wait = bounded_wait(asked, self.backoff());
                    if last {
                        return self.fail(error, wait);
                    }
                    sleep(wait).await;
                }
            }
        }
    }

    async fn fetch(&mut self, myself: &ActorRef<Message>) -> Result<(), TokenError> {
        // Its life counts from before it was asked for.
        let asked = Instant::now();
        // A panic of the source is a fetch that failed, wherever in it that is.
        let fetch = async { within(FETCH_LIMIT, self.tokens.source.fetch(), || false).await };
        let answer = match AssertUnwindSafe(fetch).catch_unwind().await {
            Ok(Some(answer)) => answer,
            Ok(None) => Err(TokenError::new("no answer within 30 s")),
            Err(_) => Err(TokenError::new("the token source panicked")),
        };
        telemetry::token_renewal(&self.tokens.namespace, answer.is_ok());
        let ended = |token: &AccessToken| {
            let (until, _) = times(token.expires_in());
            until.is_some_and(|until| asked.elapsed() >= until)
        };
        let token = match answer {
            Ok(token) if ended(&token) => {
                self.failures += 1;
                return Err(TokenError::new("the token ended before it came"));
            }
            Ok(token) => token,
            Err(error) => {
                self.failures += 1;
                return Err(error);
            }
        };
        self.failures = 0;
        let life = token.expires_in();
        let (until, renew) = times(life);
        let (until, renew) = (until.map(|t| asked + t), renew.map(|t| asked + t));
        let id = 1 + self.tokens.renewals.fetch_add(1, Ordering::Relaxed);
        self.timer.abort_all();
        if let Some(at) = renew {
            let left = at.saturating_duration_since(Instant::now());
            self.renew_after(myself, id, left);
        }
        let current = CurrentToken {
            token: Arc::new(token),
            id,
            since: Instant::now(),
            until,
            renew,
        };
        // What was there before goes after the lock of the state is free.
        let before = self
            .tokens
            .state
            .post(|state| (state.current.replace(current), state.failure.take()));
        drop(before);
        telemetry::contained(|| tracing::debug!(?life, "an access token came"));
        Ok(())
    }

    /// Tells the callers that wait, then the log.
    fn fail(&self, error: TokenError, wait: Duration) {
        self.post_failure(error.clone(), wait);
        telemetry::contained(|| {
            tracing::warn!(error = chain(&error), "could not obtain an access token");
        });
    }

    fn post_failure(&self, error: TokenError, wait: Duration) {
        let until = Instant::now() + wait;
        let failure = Some(FetchFailure { error, until });
        let before = self
            .tokens
            .state
            .post(|state| std::mem::replace(&mut state.failure, failure));
        // The lock of the state is free: a cause is foreign.
        drop(before);
    }

    fn backoff(&self) -> Duration {
        jittered(backed_off(self.failures), self.tokens.ambient.fraction())
    }
}
