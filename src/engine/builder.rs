//! The settings of an engine, their defaults and their bounds; `start` checks
//! them all before anything runs.

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

/// The settings of an [`Engine`]; each has a default, named at its function.
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

    /// Where records are kept. By default a [`MemoryStore`]: **this process
    /// only**, gone with it.
    pub fn store(mut self, store: impl Store) -> Self {
        self.store = Arc::new(store);
        self
    }

    /// Whose records these are. By default the upstream's: a digest of platform
    /// host and OAuth client. Set it before credentials are rotated or shared,
    /// or the new client begins with no records.
    pub fn namespace(mut self, namespace: Namespace) -> Self {
        self.namespace = Some(namespace);
        self
    }

    /// What a caller gets whose key is being executed, here or elsewhere; by
    /// default its answer.
    pub fn on_duplicate(mut self, policy: OnDuplicate) -> Self {
        self.on_duplicate = policy;
        self
    }

    /// What happens to a request that may have been executed; by default it is
    /// held.
    pub fn on_unknown(mut self, policy: OnUnknown) -> Self {
        self.terms.on_unknown = policy;
        self
    }

    /// How often and how long to try again what was not executed; by default 3
    /// attempts and waits up to 180 s.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// Reads answers; by default [`classify::genesys`](crate::classify::genesys),
    /// which a reading of your own may fall back on.
    ///
    /// Not asked about a success that is larger than
    /// [`max_response_bytes`](Self::max_response_bytes), which is final. Its
    /// `NotExecuted` is taken as `Unknown` where the answer's body cannot be read: see
    /// [`classify`](crate::classify#bodies-that-cannot-be-read).
    pub fn classify(mut self, f: impl Fn(&Outcome) -> Verdict + Send + Sync + 'static) -> Self {
        self.terms.classify = Arc::new(f);
        self
    }

    /// Asks `f`, once per execution, what became of a request whose fate is
    /// unknown; `None`, and no answer within a minute, leaves it indeterminate.
    /// By default nobody is asked.
    pub fn reconcile<F, Fut>(mut self, f: F) -> Self
    where
        F: Fn(DataActionRequest, Error) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Option<Resolution>> + Send + 'static,
    {
        self.reconcile = Some(Arc::new(move |request, error| Box::pin(f(request, error))));
        self
    }

    /// How long outcomes are replayed; 24 h by default. A request's own `ttl`
    /// goes first.
    pub fn result_ttl(mut self, ttl: Duration) -> Self {
        self.terms.result_ttl = ttl;
        self
    }

    /// How long indeterminate keys are held; 7 days by default.
    pub fn indeterminate_ttl(mut self, ttl: Duration) -> Self {
        self.terms.indeterminate_ttl = ttl;
        self
    }

    /// Walks through the indeterminate keys of the namespace at the start and then
    /// every so often, at least 1 s apart; by default never.
    ///
    /// One process of a namespace walks in each period, slowly, and in one walk counts
    /// at most 10,000 keys, for an hour at most, with a pause of a tenth of a second after
    /// each ten thousand records or fewer. The walk recovers the records of holders that are gone,
    /// sets the gauges `genesys_once_indeterminate_keys` and
    /// `genesys_once_indeterminate_oldest_seconds`, and logs each key once at `WARN`:
    /// with the action, the caller's own key, scope and label, cause, time of sending,
    /// correlation id, version and the next step. (After a change of turns, another
    /// process logs the key once more.)
    /// [`Engine::indeterminate`] then answers from the last walk.
    ///
    /// What a request calls [`sensitive`](crate::DataActionRequest::sensitive) is in no
    /// log. What [`Encrypted`](crate::Encrypted) seals is, where the engine can open it.
    pub fn watch_indeterminate(mut self, every: Duration) -> Self {
        self.watch_indeterminate = Some(every);
        self
    }

    /// How long a lease lives without being extended; 30 s by default, at least
    /// 100 ms. It is how long others wait for a process that died before it
    /// sent anything.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.terms.lease = lease;
        self
    }

    /// How long a caller waits; 5 minutes by default.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// How long one store command may take; 2 s by default. After three failures
    /// in a row commands fail at once, and one at a time probes whether the store
    /// is back, after half a second first and every `store_timeout` at the longest.
    /// Of a large body on its way to or from a `RedisStore`, it is the time in which
    /// nothing moves.
    pub fn store_timeout(mut self, limit: Duration) -> Self {
        self.store_timeout = limit;
        self
    }

    /// Calls at the platform at the same time; 50 by default, the platform's own
    /// limit for an organisation.
    ///
    /// The actions that wait for a call get one each in turn, and within an action
    /// the first come is the first served: behind a crowd of slow calls, another
    /// action waits for one of them to end, not for the crowd.
    /// [`max_in_flight_per_action`](Self::max_in_flight_per_action) spares it that
    /// wait, too.
    pub fn max_in_flight(mut self, calls: usize) -> Self {
        self.max_in_flight = calls;
        self
    }

    /// Calls of one action at the platform at the same time; by default as many as
    /// [`max_in_flight`](Self::max_in_flight) allows. Below that, one slow action
    /// leaves the others room.
    pub fn max_in_flight_per_action(mut self, calls: usize) -> Self {
        self.max_in_flight_per_action = calls;
        self
    }

    /// Callers waiting plus executions not settled; 100,000 by default. Beyond
    /// it `Error::Overloaded`, at once.
    pub fn max_waiting(mut self, places: usize) -> Self {
        self.limits.max_waiting = places;
        self
    }

    /// The largest payload in bytes; 1 MiB by default.
    pub fn max_payload_bytes(mut self, bytes: usize) -> Self {
        self.max_payload_bytes = bytes;
        self
    }

    /// The largest answer in bytes; 8 MiB by default. A 2xx that is larger is final,
    /// and recorded without its body ([`StoredBody::OmittedTooLarge`](crate::StoredBody::OmittedTooLarge)); any
    /// other is an unknown outcome.
    pub fn max_response_bytes(mut self, bytes: usize) -> Self {
        self.terms.max_response_bytes = bytes;
        self
    }

    /// How many bytes of recent outcomes are kept in memory, and for how long
    /// each; 64 MiB and 60 s by default, at most ten years, and never longer than
    /// the store keeps them. Where they need more room, those go first whose time
    /// is over first. What is over leaves memory within a second or so. 0 bytes
    /// keeps none.
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
    /// From then on the wall clock moves with tokio's clock. Together with a
    /// current-thread runtime, paused time, `MemoryStore` and `ScriptedUpstream`
    /// a test repeats exactly. Engines over one store need different seeds, or
    /// they draw the same lease ids.
    #[cfg(feature = "testing")]
    pub fn deterministic(mut self, seed: u64, wall_clock: std::time::SystemTime) -> Self {
        self.deterministic = Some((seed, wall_clock));
        self
    }

    /// Checks the settings and starts the engine. Nothing is asked of store or
    /// platform yet.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] naming the setting; [`Error::NoRuntime`] outside of
    /// a tokio runtime with timers.
    ///
    /// # Cancel safety
    ///
    /// Dropped in mid-way, no engine is left behind.
    pub async fn start(self) -> Result<Engine, Error> {
        self.spawn(None).await
    }

    /// The same under a supervisor of the embedder's: the engine then lives as
    /// long as that supervisor, and dropping its handles does not stop it.
    ///
    /// # Errors
    ///
    /// Those of [`start`](Self::start); [`Error::Stopped`] where that supervisor
    /// is stopping.
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
