//! The settings of an engine, their defaults and bounds. Nothing runs before `start`
//! has checked all of them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ractor::ActorCell;
use tokio::sync::watch;

use super::{Engine, Inner};
use crate::actors::cooldown::Cooldowns;
use crate::actors::permits::Permits;
use crate::actors::shared::{Reconcile, Shared};
use crate::actors::supervisor;
use crate::actors::token::Tokens;
use crate::actors::watcher::Watch;
use crate::ambient::{Ambient, in_runtime_with_timers};
use crate::error::Error;
use crate::execution::Terms;
use crate::flights::{Flights, Limits};
use crate::key::Namespace;
use crate::outcome::{Outcome, Verdict};
use crate::policy::{OnDuplicate, OnUnknown, RetryPolicy};
use crate::record::Resolution;
use crate::request::DataActionRequest;
use crate::store::{BreakerStore, MemoryStore, Store};
use crate::telemetry::{self, Meters};
use crate::upstream::{GRACE, Upstream};

mod check;
mod settings;

pub use self::settings::Settings;

/// The settings of an [`Engine`]. Each has a default, which its method documents.
///
/// Impossible settings are `Error::InvalidConfig` from [`start`](Self::start). A
/// clone starts another engine with the same settings, store and upstream.
#[derive(Clone)]
#[must_use]
pub struct EngineBuilder {
    upstream: Arc<dyn Upstream>,
    store: Arc<dyn Store>,
    namespace: Option<Namespace>,
    terms: Terms,
    retry: RetryPolicy,
    on_duplicate: OnDuplicate,
    reconcile: Option<Reconcile>,
    deadline: Duration,
    store_timeout: Duration,
    watch_indeterminate: Option<Duration>,
    max_in_flight: usize,
    max_in_flight_per_action: usize,
    max_payload_bytes: usize,
    limits: Limits,
    #[cfg(feature = "testing")]
    deterministic: Option<(u64, std::time::SystemTime)>,
}

impl EngineBuilder {
    pub(super) fn new(upstream: Arc<dyn Upstream>) -> Self {
        Self {
            upstream,
            store: Arc::new(MemoryStore::new()),
            namespace: None,
            terms: Terms::default(),
            retry: RetryPolicy::default(),
            on_duplicate: OnDuplicate::default(),
            reconcile: None,
            deadline: Duration::from_secs(5 * 60),
            store_timeout: Duration::from_secs(2),
            watch_indeterminate: None,
            max_in_flight: 50,
            max_in_flight_per_action: usize::MAX,
            max_payload_bytes: 1 << 20,
            limits: Limits {
                max_waiting: 100_000,
                recent_bytes: 64 << 20,
                recent_ttl: Duration::from_secs(60),
            },
            #[cfg(feature = "testing")]
            deterministic: None,
        }
    }

    /// The store of the records. By default a [`MemoryStore`]: **this process only**, and
    /// lost with it.
    pub fn store(mut self, store: impl Store) -> Self {
        self.store = Arc::new(store);
        self
    }

    /// The namespace of the records. By default the upstream's: a digest of platform host
    /// and OAuth client. Set it before you rotate or share credentials; otherwise the new
    /// client starts without records.
    pub fn namespace(mut self, namespace: Namespace) -> Self {
        self.namespace = Some(namespace);
        self
    }

    /// What a caller gets while its key is being executed, in this process or another. By
    /// default it waits for the answer.
    pub fn on_duplicate(mut self, policy: OnDuplicate) -> Self {
        self.on_duplicate = policy;
        self
    }

    /// What happens to a key whose request might have been executed. By default it stays
    /// indeterminate until it is resolved, or until [`indeterminate_ttl`](Self::indeterminate_ttl)
    /// ends.
    pub fn on_unknown(mut self, policy: OnUnknown) -> Self {
        self.terms.on_unknown = policy;
        self
    }

    /// How often and how long to retry a request that was not executed; by default 3
    /// attempts and waits up to 180 s.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// Classifies answers; by default [`classify::genesys`](crate::genesys::classify::genesys).
    /// Your own function can fall back on it.
    ///
    /// It is not called for a success that is larger than
    /// [`max_response_bytes`](Self::max_response_bytes): such an answer is final. If the
    /// body of an answer cannot be read, `NotExecuted` counts as `Unknown`: see
    /// [`classify`](crate::genesys::classify#bodies-that-cannot-be-read).
    pub fn classify(mut self, f: impl Fn(&Outcome) -> Verdict + Send + Sync + 'static) -> Self {
        self.terms.classify = Arc::new(f);
        self
    }

    /// Calls `f` once per execution if its outcome is unknown, so that `f` can resolve the
    /// key. `None`, or no result within a minute, leaves the key indeterminate. By default
    /// there is no such hook.
    pub fn reconcile<F, Fut>(mut self, f: F) -> Self
    where
        F: Fn(DataActionRequest, Error) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Option<Resolution>> + Send + 'static,
    {
        self.reconcile = Some(Arc::new(move |request, error| Box::pin(f(request, error))));
        self
    }

    /// How long outcomes are replayed; 24 h by default. A request's own `ttl`
    /// overrides it.
    pub fn result_ttl(mut self, ttl: Duration) -> Self {
        self.terms.result_ttl = ttl;
        self
    }

    /// How long indeterminate keys are kept; 7 days by default.
    pub fn indeterminate_ttl(mut self, ttl: Duration) -> Self {
        self.terms.indeterminate_ttl = ttl;
        self
    }

    /// Walks through the indeterminate keys of the namespace at the start and then once
    /// per period, at least 1 s; by default never.
    ///
    /// In each period one process of the namespace walks. A walk counts at most 10,000
    /// keys and takes at most an hour. It pauses for 100 ms after each page of at most
    /// 10,000 records. The walk:
    ///
    /// - recovers the records of lost holders;
    /// - sets the gauges `genesys_once_indeterminate_keys` and
    ///   `genesys_once_indeterminate_oldest_seconds`;
    /// - logs each key once at `WARN`, with the action, the caller's own key, scope and
    ///   label, cause, time of sending, correlation id, version and the next step. If
    ///   another process makes the next walk, it logs the key once more.
    ///
    /// [`Engine::indeterminate`] then answers from the last walk.
    ///
    /// No log has what a request marks as
    /// [`sensitive`](crate::DataActionRequest::sensitive). What
    /// [`Encrypted`](crate::Encrypted) seals is logged if the engine can decrypt it.
    pub fn watch_indeterminate(mut self, every: Duration) -> Self {
        self.watch_indeterminate = Some(every);
        self
    }

    /// How long a lease lives without an extension; 30 s by default, at least 100 ms.
    /// Other processes wait this long for a holder that died before it sent anything.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.terms.lease = lease;
        self
    }

    /// How long a caller waits; 5 minutes by default.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// How long one store command may take; 2 s by default. After three failures in a row
    /// commands fail at once. One command at a time then probes the store: first after
    /// half a second, later at most every `store_timeout`. For a large body to or from a
    /// `RedisStore`, it is the longest time without progress.
    pub fn store_timeout(mut self, limit: Duration) -> Self {
        self.store_timeout = limit;
        self
    }

    /// Calls at the platform at the same time; 50 by default, the platform's own
    /// limit for an organisation.
    ///
    /// Waiting actions get one call each in turn. Within an action the first waiter is
    /// served first. So behind many slow calls of one action, another action waits for one
    /// call to end. With [`max_in_flight_per_action`](Self::max_in_flight_per_action) it
    /// does not wait for that call either.
    pub fn max_in_flight(mut self, calls: usize) -> Self {
        self.max_in_flight = calls;
        self
    }

    /// Calls of one action at the platform at the same time; by default as many as
    /// [`max_in_flight`](Self::max_in_flight) allows. With a smaller number, one slow
    /// action leaves room for others.
    pub fn max_in_flight_per_action(mut self, calls: usize) -> Self {
        self.max_in_flight_per_action = calls;
        self
    }

    /// Waiting callers plus executions whose record is not finished; 100,000 by default.
    /// A request beyond it gets `Error::Overloaded` at once.
    pub fn max_waiting(mut self, places: usize) -> Self {
        self.limits.max_waiting = places;
        self
    }

    /// The largest payload in bytes; 1 MiB by default.
    pub fn max_payload_bytes(mut self, bytes: usize) -> Self {
        self.max_payload_bytes = bytes;
        self
    }

    /// The largest answer in bytes; 8 MiB by default. A larger 2xx answer is final, and
    /// recorded without its body
    /// ([`StoredBody::OmittedTooLarge`](crate::outcome::StoredBody::OmittedTooLarge)). Any other
    /// larger answer is an unknown outcome.
    pub fn max_response_bytes(mut self, bytes: usize) -> Self {
        self.terms.max_response_bytes = bytes;
        self
    }

    /// How many bytes of recent outcomes memory keeps, and for how long each; 64 MiB and
    /// 60 s by default, at most ten years. Memory never keeps an outcome longer than the
    /// store. If the outcomes exceed the bytes, those that expire first are evicted. An
    /// expired outcome leaves memory within about a second. 0 bytes keeps none.
    pub fn recent(mut self, bytes: u64, ttl: Duration) -> Self {
        self.limits.recent_bytes = bytes;
        self.limits.recent_ttl = ttl;
        self
    }

    /// Decides what an engine otherwise takes from the operating system (feature
    /// `testing`): jitter and lease ids come from `seed`, and the engine's wall
    /// clock shows `wall_clock` when the engine starts. By default both are the
    /// system's.
    ///
    /// The wall clock then follows tokio's clock. With a current-thread runtime, paused
    /// time, `MemoryStore` and `ScriptedUpstream`, a test repeats exactly. Engines over one
    /// store need different seeds; otherwise they generate the same lease ids.
    #[cfg(feature = "testing")]
    pub fn deterministic(mut self, seed: u64, wall_clock: std::time::SystemTime) -> Self {
        self.deterministic = Some((seed, wall_clock));
        self
    }

    /// Checks the settings and starts the engine. It does not ask the store or the
    /// platform.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] naming the setting; [`Error::NoRuntime`] outside of
    /// a tokio runtime with timers.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves no engine.
    pub async fn start(self) -> Result<Engine, Error> {
        self.spawn(None).await
    }

    /// [`start`](Self::start) under the embedder's supervisor. The engine lives as long as
    /// that supervisor, and dropping its handles does not stop it.
    ///
    /// # Errors
    ///
    /// Those of [`start`](Self::start); [`Error::Stopped`] if that supervisor is stopping.
    ///
    /// # Cancel safety
    ///
    /// That of [`start`](Self::start).
    pub async fn start_linked(self, supervisor: ActorCell) -> Result<Engine, Error> {
        self.spawn(Some(supervisor)).await
    }

    async fn spawn(mut self, above: Option<ActorCell>) -> Result<Engine, Error> {
        in_runtime_with_timers()?;
        self.terms.attempt_timeout = self.upstream.attempt_timeout().saturating_add(GRACE);
        self.check()?;
        self.terms.route = Arc::from(self.upstream.route_label());
        self.terms.ambient = self.ambient();
        let linked = above.is_some();
        let (deadline, drained) = (self.deadline, watch::Sender::new(None));
        let shared = Arc::new(self.into_shared());
        telemetry::start(&shared.namespace);
        let receiver = drained.subscribe();
        let args = supervisor::Args {
            shared: shared.clone(),
            drained,
            deadline,
        };
        let root = supervisor::spawn(args, above).await.map_err(|error| {
            telemetry::contained(|| tracing::error!(%error, "could not start the engine's root"));
            Error::Stopped
        })?;
        Ok(Engine {
            inner: Arc::new(Inner {
                shared,
                root,
                drained: receiver,
                deadline,
                linked,
            }),
        })
    }

    /// The clock starts with the engine, not with its settings.
    fn ambient(&self) -> Ambient {
        #[cfg(feature = "testing")]
        if let Some((seed, wall_clock)) = self.deterministic {
            return Ambient::seeded(seed, wall_clock);
        }
        Ambient::system()
    }

    fn into_shared(self) -> Shared {
        let route = self.terms.route.clone();
        let namespace = self.namespace.unwrap_or_else(|| self.upstream.namespace());
        let meters = Arc::new(Meters::new(&namespace));
        let tokens = self.upstream.token_source();
        let ambient = self.terms.ambient.clone();
        Shared {
            store: Arc::new(BreakerStore::new(
                self.store,
                self.store_timeout,
                namespace.clone(),
            )),
            retry: self.retry,
            on_duplicate: self.on_duplicate,
            reconcile: self.reconcile,
            flights: Flights::new(self.limits, self.on_duplicate, route, meters.clone()),
            idle: Default::default(),
            tokens: tokens.map(|source| Tokens::new(source, namespace.clone(), ambient)),
            permits: Permits::new(self.max_in_flight, self.max_in_flight_per_action),
            turns: Permits::new(1, 1),
            max_payload_bytes: self.max_payload_bytes,
            replays: Default::default(),
            cooldowns: Cooldowns::new(self.max_in_flight),
            backlog: Default::default(),
            unmatched: Default::default(),
            access_log: Default::default(),
            sightings: Default::default(),
            watch: self.watch_indeterminate.map(Watch::new),
            cut: Default::default(),
            unfinished: Default::default(),
            counts: Default::default(),
            meters,
            namespace,
            terms: self.terms,
            upstream: self.upstream,
        }
    }
}

impl fmt::Debug for EngineBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineBuilder")
            .field("namespace", &self.namespace)
            .field("terms", &self.terms)
            .field("retry", &self.retry)
            .field("on_duplicate", &self.on_duplicate)
            .field("reconcile", &self.reconcile.is_some())
            .field("deadline", &self.deadline)
            .field("store_timeout", &self.store_timeout)
            .field("watch_indeterminate", &self.watch_indeterminate)
            .field("max_in_flight", &self.max_in_flight)
            .field("max_in_flight_per_action", &self.max_in_flight_per_action)
            .field("max_payload_bytes", &self.max_payload_bytes)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
