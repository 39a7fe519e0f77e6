//! The interface to a platform: what sends a call, and what fetches a token. It decides
//! neither what an answer proves nor when to send.

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

pub(crate) use self::gate::SendGate;
pub(crate) use self::time_limit::{GRACE, within};

pub use self::rate_permit::RatePermit;

/// The platform as the engine sees it.
///
/// Object safe, and implemented for `Arc<U>`.
///
#[doc = include_str!("upstream/own.md")]
pub trait Upstream: Send + Sync + 'static {
    /// The namespace of this upstream's records: one platform host and OAuth client.
    fn namespace(&self) -> Namespace;

    /// Sends one call **once**. An implementation repeats nothing by itself, follows no
    /// redirects, and says of each failure whether the whole request might have left. A
    /// body that is cut is a failure. A body that only the end of its connection ended
    /// is marked so ([`Outcome::with_body_end`]).
    ///
    /// # Errors
    ///
    /// [`SendError::before_sending`] only with proof; otherwise
    /// [`SendError::after_sending`].
    ///
    /// # Cancel safety
    ///
    /// A dropped future might not stop the call. The engine treats its outcome as
    /// unknown.
    fn send<'a>(
        &'a self,
        call: &'a Call,
        token: Option<&'a AccessToken>,
    ) -> BoxFuture<'a, Result<Outcome, SendError>>;

    /// The source of access tokens; `None` if `send` needs none.
    fn token_source(&self) -> Option<Arc<dyn TokenSource>> {
        None
    }

    /// Checks the settings; called by `EngineBuilder::start`.
    ///
    /// # Errors
    ///
    /// `Error::InvalidConfig` if this upstream cannot work with its settings.
    fn check(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Names the platform and the route of calls. Together with action and payload, they
    /// decide what a call does. It is a part of each record's fingerprint, so that two
    /// organisations in one namespace never share an answer.
    fn route_label(&self) -> &str {
        ""
    }

    /// The URL of a call of this action, for its span; `None` by default. It must contain
    /// no secret.
    fn url(&self, action: &ActionId) -> Option<String> {
        let _ = action;
        None
    }

    /// The longest time for one `send`, 65 s by default. The engine drops the attempt
    /// after it, and a lost attempt might run for as long.
    ///
    /// If the engine's timer fires late, because the process did not run, the engine
    /// polls the future for up to a second more: the answer might have arrived. The
    /// record counts that second. [`Call::may_leave`] is false in it.
    fn attempt_timeout(&self) -> Duration {
        Duration::from_secs(65)
    }

    /// Completes when the upstream's rate limit permits one more send; at once by
    /// default. The engine calls it before each attempt. Before the first attempt the
    /// key is not locked; before a later one, the engine extends the lease while it
    /// waits. The wait does not count as an attempt.
    ///
    /// The engine [spends](RatePermit::spend) the permit when it sends. It drops the
    /// permit if no request is sent, as for a replay, and the limit can then let another
    /// caller through. An engine waits for one permit at a time, and waiting actions take
    /// turns. The engine also polls the future once and drops it.
    ///
    /// # Cancel safety
    ///
    /// A future that is dropped before it completes has acquired nothing.
    fn acquire_rate_permit<'a>(&'a self) -> BoxFuture<'a, RatePermit> {
        Box::pin(async { RatePermit::default() })
    }
}

/// A source of access tokens.
pub trait TokenSource: Send + Sync + 'static {
    /// Fetches one new token. The engine schedules and shares tokens, and backs off.
    ///
    /// # Errors
    ///
    /// A [`TokenError`] that never contains the secret.
    ///
    /// # Cancel safety
    ///
    /// A token under way is lost if the future is dropped. The engine drops it after 30 s
    /// and when it stops.
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
    /// A key other than the request's.
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

    /// A call as the platform sees it, with the key of its header: a scope or an own key
    /// cannot be derived from the payload.
    #[cfg(feature = "simulator")]
    pub(crate) fn with_key(request: DataActionRequest, attempt: u32, key: IdempotencyKey) -> Self {
        Self {
            key: Some(Box::new(key)),
            ..Self::new(request, attempt)
        }
    }

    /// This call with another limit for its answer. A call that an engine makes has the
    /// engine's limit.
    #[must_use]
    pub fn with_max_response_bytes(mut self, bytes: usize) -> Self {
        self.max_response_bytes = bytes;
        self
    }

    /// This call, which may leave only while this lease is live.
    pub(crate) fn under(mut self, lease: &Lease) -> Self {
        self.lease = Some(lease.clone());
        self
    }

    /// This call, which may leave only before this moment.
    pub(crate) fn before(mut self, limit: Option<Instant>) -> Self {
        self.start_limit = limit;
        self
    }

    /// Whether the request may leave now: the engine's lease on the key is live (I1), the
    /// attempt has not ended, and the time of
    /// [`start_within`](DataActionRequest::start_within) has not passed. Always true for a
    /// call made by hand.
    ///
    /// The engine checks this before it calls [`Upstream::send`]. An implementation that
    /// needs time before the first byte, to resolve a name or to connect, checks it again
    /// right before that byte. If the request may not leave, it sends nothing and returns
    /// [`SendError::before_sending`]. Meanwhile the process might have been stopped, or
    /// the store unreachable, for longer than the lease, or another holder might have
    /// taken the lease.
    pub fn may_leave(&self) -> bool {
        self.lease.as_ref().is_none_or(Lease::is_live)
            && self.start_limit.is_none_or(|limit| Instant::now() < limit)
    }

    /// The gate of a new send. Until the end of the body passes it, the end of the attempt
    /// proves that nothing was executed.
    #[cfg(feature = "genesys")]
    pub(crate) fn gate(&self) -> Arc<SendGate> {
        let gate = Arc::<SendGate>::default();
        if let Some(Lease(attempted)) = &self.lease {
            let mut current = lock(&attempted.gate);
            // An earlier send of this call might have left.
            if current.as_ref().is_none_or(|earlier| earlier.close()) {
                *current = Some(gate.clone());
            }
        }
        gate
    }

    /// A send ended with the proof that nothing left. That proves nothing about further
    /// sends of the call.
    #[cfg(feature = "genesys")]
    pub(crate) fn forget(&self, gate: &Arc<SendGate>) {
        if let Some(Lease(attempted)) = &self.lease {
            lock(&attempted.gate).take_if(|current| Arc::ptr_eq(current, gate));
        }
    }

    /// The request to execute.
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

    /// The largest answer that is accepted, in bytes: the `max_response_bytes` of the
    /// engine that makes the call, 8 MiB for a call made by hand. An implementation stops
    /// reading a body there. It returns a larger 2xx without its body
    /// ([`BodyEnd::Unread`](crate::outcome::BodyEnd::Unread)), and
    /// [`SendError::after_sending`] for another status.
    pub fn max_response_bytes(&self) -> usize {
        self.max_response_bytes
    }

    /// The number of this attempt within its execution, from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The bytes to send: the caller's payload, with the key if the request forwards it.
    pub fn body(&self) -> Bytes {
        self.request.wire_body()
    }
}

/// The end of a lease by this process's clock, and the gate of the send under it. Each
/// attempt has one; a clone shares it.
#[derive(Clone)]
pub(crate) struct Lease(Arc<Attempted>);

struct Attempted {
    until: Mutex<Instant>,
    /// Whether the attempt has ended, although its upstream might go on.
    over: AtomicBool,
    /// The gate of the send under way, if the upstream uses one.
    gate: Mutex<Option<Arc<SendGate>>>,
}

/// It reads under the lock and prints without it: an upstream may print its `Call`.
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

    /// Ends the attempt. Returns whether it is proven that the whole request has not left
    /// and never will.
    pub(crate) fn is_unsent(&self) -> bool {
        self.0.over.store(true, Ordering::SeqCst);
        let gate = lock(&self.0.gate);
        gate.as_ref().is_some_and(|gate| gate.close())
    }

    fn is_live(&self) -> bool {
        !self.0.over.load(Ordering::SeqCst) && Instant::now() < self.end()
    }
}

/// The lock of a single value, which a panic cannot leave half written.
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
    /// A token, and how long it lives from now; `None` if that is not known.
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

    /// How long the token lives, from when it was fetched.
    pub fn expires_in(&self) -> Option<Duration> {
        self.expires_in
    }
}
