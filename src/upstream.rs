//! The seam to the platform: what sends a call and what fetches a token. What
//! an answer means is `policy`'s business, when to send is `execution`'s.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;

use crate::error::{Error, SendError, TokenError};
use crate::key::{IdempotencyKey, Namespace};
use crate::outcome::Outcome;
use crate::request::{ActionId, DataActionRequest};
use crate::store::BoxFuture;

mod gate;
mod rate_permit;
mod time_limit;

pub(crate) use self::gate::Gate;
pub(crate) use self::time_limit::{GRACE, within};

pub use self::rate_permit::RatePermit;

/// The platform as the engine sees it.
///
/// Object safe, and implemented for `Arc<U>`.
///
#[doc = include_str!("upstream/own.md")]
pub trait Upstream: Send + Sync + 'static {
    /// Which records are this upstream's: one platform host and OAuth client.
    fn namespace(&self) -> Namespace;

    /// Sends one call, **once**: an implementation repeats nothing by itself,
    /// follows no redirects, and says of every failure whether the whole
    /// request may have left. A body that broke off is a failure; one that only the
    /// end of its connection ended is marked so
    /// ([`Outcome::with_body_end`]).
    ///
    /// # Errors
    ///
    /// [`SendError::before_sending`] only with proof; in doubt
    /// [`SendError::after_sending`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future may or may not stop the call; the engine then takes
    /// its fate as unknown.
    fn send<'a>(
        &'a self,
        call: &'a Call,
        token: Option<&'a AccessToken>,
    ) -> BoxFuture<'a, Result<Outcome, SendError>>;

    /// Where tokens come from; `None` where `send` needs none.
    fn token_source(&self) -> Option<Arc<dyn TokenSource>> {
        None
    }

    /// Checks the settings; called by `EngineBuilder::start`.
    ///
    /// # Errors
    ///
    /// `Error::InvalidConfig` where this upstream cannot work as it is set.
    fn check(&self) -> Result<(), Error> {
        Ok(())
    }

    /// What besides action and payload decides what a call does: which platform
    /// it goes to, and by which route. A part of every record's fingerprint, so
    /// that two organisations behind one namespace never share an answer.
    fn route_label(&self) -> &str {
        ""
    }

    /// The URL that a call of this action goes to, for its span; `None` by default. It
    /// has no secret in it.
    fn url(&self, action: &ActionId) -> Option<String> {
        let _ = action;
        None
    }

    /// The longest that one `send` may take, 65 s by default. The engine gives
    /// up on the attempt after it, and a lost attempt may be running for as
    /// long.
    ///
    /// Where the engine's timer fires late, because the process did not run, the
    /// future is polled for up to a second more: the answer may be there already.
    /// The record counts that second. [`Call::may_leave`] is false in it.
    fn attempt_timeout(&self) -> Duration {
        Duration::from_secs(65)
    }

    /// Completes when the upstream's own rate limit allows one more send. At once
    /// by default. The engine calls it before each attempt: before the first one,
    /// the key is not locked; before a later one, the engine extends the lease
    /// while it waits. Being held back costs no attempt.
    ///
    /// The engine [spends](RatePermit::spend) the permit when it sends, and drops
    /// it where nothing is to be sent after all (a replay): a limit that hears of
    /// that lets somebody else through instead. An engine waits for one permit
    /// at a time, and the actions that wait for theirs go by turns. It also tries
    /// without waiting, and drops the future.
    ///
    /// # Cancel safety
    ///
    /// A future dropped before it completed has taken nothing.
    fn acquire_rate_permit<'a>(&'a self) -> BoxFuture<'a, RatePermit> {
        Box::pin(async { RatePermit::default() })
    }
}

/// Where access tokens come from.
pub trait TokenSource: Send + Sync + 'static {
    /// Fetches one new token. Scheduling, sharing and backing off is the
    /// engine's part.
    ///
    /// # Errors
    ///
    /// A [`TokenError`] that never contains the secret.
    ///
    /// # Cancel safety
    ///
    /// Dropped, the token that was under way is lost; the engine does so after
    /// 30 s and when it ends.
    fn fetch(&self) -> BoxFuture<'_, Result<AccessToken, TokenError>>;
}

impl<U: Upstream + ?Sized> Upstream for Arc<U> {
    fn namespace(&self) -> Namespace {
        (**self).namespace()
    }

    fn send<'a>(
        &'a self,
        call: &'a Call,
        token: Option<&'a AccessToken>,
    ) -> BoxFuture<'a, Result<Outcome, SendError>> {
        (**self).send(call, token)
    }

    fn token_source(&self) -> Option<Arc<dyn TokenSource>> {
        (**self).token_source()
    }

    fn check(&self) -> Result<(), Error> {
        (**self).check()
    }

    fn route_label(&self) -> &str {
        (**self).route_label()
    }

    fn url(&self, action: &ActionId) -> Option<String> {
        (**self).url(action)
    }

    fn attempt_timeout(&self) -> Duration {
        (**self).attempt_timeout()
    }

    fn acquire_rate_permit<'a>(&'a self) -> BoxFuture<'a, RatePermit> {
        (**self).acquire_rate_permit()
    }
}

/// One attempt to execute a request.
#[derive(Clone, Debug)]
pub struct Call {
    request: DataActionRequest,
    attempt: u32,
    /// Where it is not the request's own.
    key: Option<Box<IdempotencyKey>>,
    lease: Option<Lease>,
    start_limit: Option<Instant>,
    max_response_bytes: usize,
}

impl Call {
    /// The `attempt`th attempt, from 1, to execute `request`.
    pub fn new(request: DataActionRequest, attempt: u32) -> Self {
        Self {
            request,
            attempt,
            key: None,
            lease: None,
            start_limit: None,
            max_response_bytes: 8 << 20,
        }
    }

    /// A call as the platform sees it: its key is the one in the header, which
    /// the payload alone does not give away (a scope, a key of the caller's).
    #[cfg(feature = "simulator")]
    pub(crate) fn with_key(request: DataActionRequest, attempt: u32, key: IdempotencyKey) -> Self {
        Self {
            key: Some(Box::new(key)),
            ..Self::new(request, attempt)
        }
    }

    /// The same call with another bound for its answer. A call that an engine
    /// makes has the engine's own.
    #[must_use]
    pub fn with_max_response_bytes(mut self, bytes: usize) -> Self {
        self.max_response_bytes = bytes;
        self
    }

    /// The same call, which may leave only while this lease lives.
    pub(crate) fn under(mut self, lease: &Lease) -> Self {
        self.lease = Some(lease.clone());
        self
    }

    /// The same call, which may leave only before this moment.
    pub(crate) fn before(mut self, limit: Option<Instant>) -> Self {
        self.start_limit = limit;
        self
    }

    /// Whether the request may leave now: the engine's lease on the key lives
    /// (I1), the attempt is not over, and so is not the request's
    /// [`start_within`](DataActionRequest::start_within); always for a call made by
    /// hand.
    ///
    /// The engine has made sure of it before it calls [`Upstream::send`]. An
    /// implementation that first does something that takes time (resolves a
    /// name, connects) asks again right before the first byte, and where it may
    /// not leave any more sends nothing and says
    /// [`SendError::before_sending`]: the process may have been stopped in
    /// between, or the store out of reach, for longer than the lease, or the
    /// store may have said that the lease is somebody else's by now.
    pub fn may_leave(&self) -> bool {
        self.lease.as_ref().is_none_or(Lease::is_live)
            && self.start_limit.is_none_or(|limit| Instant::now() < limit)
    }

    /// The gate of a send that begins: until something has passed it, the end of
    /// the attempt proves that nothing was executed.
    #[cfg(feature = "genesys")]
    pub(crate) fn gate(&self) -> Arc<Gate> {
        let gate = Arc::<Gate>::default();
        if let Some(Lease(attempted)) = &self.lease {
            let mut current = lock(&attempted.gate);
            // What has left by an earlier send of this call has left.
            if current.as_ref().is_none_or(|earlier| earlier.close()) {
                *current = Some(gate.clone());
            }
        }
        gate
    }

    /// A send ended with the proof that nothing left. What an upstream does next
    /// with the call is its own affair, and proves nothing.
    #[cfg(feature = "genesys")]
    pub(crate) fn forget(&self, gate: &Arc<Gate>) {
        if let Some(Lease(attempted)) = &self.lease {
            lock(&attempted.gate).take_if(|current| Arc::ptr_eq(current, gate));
        }
    }

    /// What is to be executed.
    pub fn request(&self) -> &DataActionRequest {
        &self.request
    }

    /// The request's key: the `Idempotency-Key` header's value.
    pub fn key(&self) -> IdempotencyKey {
        match &self.key {
            Some(key) => **key,
            None => IdempotencyKey::of(&self.request),
        }
    }

    /// The largest answer that is accepted, in bytes: the `max_response_bytes` of
    /// the engine that makes the call, 8 MiB for a call made by hand. An
    /// implementation that reads bodies stops reading there, and returns what is
    /// larger without its body ([`BodyEnd::Unread`](crate::BodyEnd::Unread)) where it
    /// is a 2xx, and as [`SendError::after_sending`] otherwise.
    pub fn max_response_bytes(&self) -> usize {
        self.max_response_bytes
    }

    /// Which attempt of its execution this is, from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The bytes to send: the caller's own payload, with the key in it where
    /// the request forwards it.
    pub fn body(&self) -> Bytes {
        self.request.wire_body()
    }
}

/// Until when a lease lives by this process's clock, and what has left under it;
/// a clone is the same. One attempt has one.
#[derive(Clone)]
pub(crate) struct Lease(Arc<Attempted>);

struct Attempted {
    until: Mutex<Instant>,
    /// Whether the attempt has ended, although its upstream may go on.
    over: AtomicBool,
    /// Of the send under way, where the upstream has one.
    gate: Mutex<Option<Arc<Gate>>>,
}

/// Read first, printed with the lock free: an upstream prints its `Call`.
impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lease").field(&self.end()).finish()
    }
}

impl Lease {
    pub(crate) fn until(until: Instant) -> Self {
        Self(Arc::new(Attempted {
            until: Mutex::new(until),
            over: AtomicBool::new(false),
            gate: Mutex::default(),
        }))
    }

    pub(crate) fn extend(&self, until: Instant) {
        *lock(&self.0.until) = until;
    }

    pub(crate) fn end(&self) -> Instant {
        *lock(&self.0.until)
    }

    /// Ends the attempt, whatever ended it: whether the whole request has not
    /// left, and from now on will not.
    pub(crate) fn is_unsent(&self) -> bool {
        self.0.over.store(true, Ordering::SeqCst);
        let gate = lock(&self.0.gate);
        gate.as_ref().is_some_and(|gate| gate.close())
    }

    fn is_live(&self) -> bool {
        !self.0.over.load(Ordering::SeqCst) && Instant::now() < self.end()
    }
}

/// Single values, written whole: no panic leaves one half done.
fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An OAuth access token. Zeroised when dropped; `Debug` shows none of it.
#[derive(Clone, Debug)]
pub struct AccessToken {
    secret: SecretString,
    expires_in: Option<Duration>,
}

impl AccessToken {
    /// A token, and how long it lives from now; `None` where it is not known.
    pub fn new(secret: impl Into<String>, expires_in: Option<Duration>) -> Self {
        Self {
            secret: SecretString::from(secret.into()),
            expires_in,
        }
    }

    /// The token itself, for the `Authorization` header.
    pub fn expose(&self) -> &str {
        self.secret.expose_secret()
    }

    /// How long it lives from when it was fetched.
    pub fn expires_in(&self) -> Option<Duration> {
        self.expires_in
    }
}
