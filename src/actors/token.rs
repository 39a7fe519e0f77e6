//! The OAuth token: one fetch for all callers, renewed before it expires and when the
//! platform refuses it. Until its successor comes, it serves the actions for which it was
//! not refused. To read it takes no message.

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
/// How many fetches fail before the waiters get the error.
const TRIES: u32 = 3;

/// The token for executions. Clones share it.
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

    /// The current token for this action, without a fetch.
    pub(crate) fn current(&self, action: &ActionId) -> Option<Arc<CurrentToken>> {
        self.state.read().usable_for(action, Instant::now())
    }

    /// The current token, or the next one.
    ///
    /// # Errors
    ///
    /// Why no token could be obtained; at once while fetches back off.
    pub(crate) async fn get(&self, action: &ActionId) -> Result<Arc<CurrentToken>, TokenError> {
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

    /// The platform refused this token for this action. `again` says that the execution had
    /// a token refused while it was the current one. If the token might be at fault, its successor is
    /// fetched, and the token serves other actions meanwhile.
    pub(crate) fn refuse(
        &self,
        refused: &CurrentToken,
        action: &ActionId,
        again: bool,
    ) -> TokenRefusal {
        let now = Instant::now();
        let (what, is_new_suspect) = {
            let mut state = self.state.read();
            let current = state.current.as_ref().map(|current| current.id);
            match current == Some(refused.id) {
                true => {
                    let before = state.refusals.suspects(refused.id);
                    let token = (refused.id, refused.since);
                    let what = state.refusals.refuse(action, token, again, now);
                    (what, !before && state.refusals.suspects(refused.id))
                }
                false => (TokenRefusal::Stale, false),
            }
        };
        if is_new_suspect {
            self.wake();
        }
        what
    }

    /// A call of this action succeeded with this token.
    pub(crate) fn accept(&self, accepted: &CurrentToken, action: &ActionId) {
        let now = Instant::now();
        self.state.read().refusals.accept(action, accepted.id, now);
    }

    /// Ends the cooldown of the token endpoint: the next caller without a token asks it.
    pub(crate) fn end_cooldown(&self) {
        let before = self.state.post(|state| state.failure.take());
        if before.is_some() {
            self.notify(Message::Again);
        }
        // Dropped without the lock of the state.
        drop(before);
    }

    /// How long the current token may be used; `None` if there is none.
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

    /// Starts the actor, or restarts it after it died. Waiters get their token from the new
    /// actor.
    pub(crate) async fn spawn(&self, supervisor: ActorCell) -> Result<ActorCell, SpawnErr> {
        let (actor, _) = Actor::spawn_linked(None, TokenActor, self.clone(), supervisor).await?;
        let cell = actor.get_cell();
        *self.actor.lock().unwrap_or_else(PoisonError::into_inner) = Some(actor);
        // A broken action does not wait for the successor of the token that it suspects.
        let is_suspected = self.state.read().suspect(Instant::now()).is_some();
        if is_suspected || self.waiting.load(Ordering::SeqCst) > 0 {
            self.wake();
        }
        Ok(cell)
    }

    fn wake(&self) {
        self.notify(Message::Need);
    }

    fn notify(&self, message: Message) {
        let actor = self.actor.lock().unwrap_or_else(PoisonError::into_inner);
        // Sent without the lock: ractor might ask a subscriber for the span.
        let actor = actor.clone();
        if let Some(actor) = actor {
            // If the actor is dead, its successor serves the waiters.
            let _ = actor.send_message(message);
        }
    }
}

struct TokenActor;

/// The messages of the token actor.
#[derive(Debug)]
pub(crate) enum Message {
    /// A caller has no token, or a token is under suspicion.
    Need,
    /// It is time to renew this token.
    Renew(usize),
    /// An operator ended the cooldown of the endpoint.
    Again,
}

#[cfg(feature = "ractor-cluster")]
impl ractor::Message for Message {}

pub(crate) struct State {
    tokens: Tokens,
    /// Fetches that failed in a row.
    failures: u32,
    /// The suspected token whose renewal is scheduled, and the pace of such renewals.
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
        // The timer ended with the actor before.
        if let Some(current) = current
            && let Some(at) = current.renew
        {
            let left = at.saturating_duration_since(Instant::now());
            state.renew_after(&myself, current.id, left);
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
    /// Fetches until there is a token, or until the waiters must get the error.
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
                return; // an earlier message has fetched it
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
        // The lifetime counts from before the request.
        let asked = Instant::now();
        // A panic of the source counts as a failed fetch.
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
                return Err(TokenError::new(
                    "the access token expired before it arrived",
                ));
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
        let current = Arc::new(CurrentToken {
            token,
            id,
            since: Instant::now(),
            until,
            renew,
        });
        // The old values are dropped without the lock of the state.
        let before = self
            .tokens
            .state
            .post(|state| (state.current.replace(current), state.failure.take()));
        drop(before);
        telemetry::contained(|| tracing::debug!(?life, "obtained an access token"));
        Ok(())
    }

    /// Reports the failure to the waiters, then to the log.
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
        // Dropped without the lock of the state: a cause is foreign code.
        drop(before);
    }

    fn backoff(&self) -> Duration {
        jittered(backed_off(self.failures), self.tokens.ambient.fraction())
    }
}
