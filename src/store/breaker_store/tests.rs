//! What a store might do behind its breaker: hang, fail, panic, and work before its future
//! is polled.

mod least_writer;
mod waiters;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::{advance, timeout};

use super::*;
use crate::error::StoreError;
use crate::key::Fingerprint;
use crate::key::IdempotencyKey;
use crate::outcome::Outcome;
use crate::record::{Attempts, Claim, LeaseId, Revision};

fn forget() -> Event {
    Event::Forget {
        lease: LeaseId::from_bytes([0xf0; 16]),
    }
}

fn acquire() -> Event {
    Event::Acquire {
        claim: Claim {
            lease: LeaseId::from_bytes([1; 16]),
            fingerprint: Fingerprint::from_bytes([2; 32]),
            lease_ttl: 30 * SECOND,
            retention: 600 * SECOND,
            attempts: Attempts::default(),
            about: Default::default(),
        },
    }
}

const SECOND: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(2);

/// What a store does with a command.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Does {
    Answer,
    Fail,
    /// Writes alone fail.
    Full,
    /// Writes alone are refused.
    Refuse,
    Silence,
    #[cfg(feature = "redis")]
    Undurable,
    PanicAtOnce,
    PanicLater,
    PanicInPart,
}

/// Does its work when it is called, and not when its future is polled.
struct Eager {
    calls: AtomicUsize,
    does: Mutex<Does>,
    cached: Mutex<bool>,
}

impl Eager {
    fn new(does: Does) -> Arc<Self> {
        Arc::new(Self {
            calls: AtomicUsize::new(0),
            does: Mutex::new(does),
            cached: Mutex::new(false),
        })
    }

    fn set(&self, does: Does) {
        *self.does.lock().unwrap() = does;
    }

    fn does(&self) -> Does {
        *self.does.lock().unwrap()
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    fn call<'a, T: Send + 'a>(&self, answer: T) -> BoxFuture<'a, Result<T, StoreError>> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let does = self.does();
        if does == Does::PanicAtOnce {
            panic!("the store's own fault");
        }
        Box::pin(async move {
            match does {
                Does::Answer | Does::Full | Does::Refuse => Ok(answer),
                Does::Fail => Err(StoreError::unavailable("down")),
                #[cfg(feature = "redis")]
                Does::Undurable => Err(StoreError::undurable("1 of 2 replicas have it")),
                Does::PanicLater => panic!("the store's own fault"),
                _ => std::future::pending().await,
            }
        })
    }
}

impl Store for Eager {
    fn apply<'a>(
        &'a self,
        _: &'a RecordName,
        _: Event,
    ) -> BoxFuture<'a, Result<Answer, StoreError>> {
        match self.does() {
            Does::Full => Box::pin(async { Err(StoreError::unavailable("no space")) }),
            Does::Refuse => Box::pin(async { Err(StoreError::refused("no space")) }),
            _ => self.call(Answer::Done),
        }
    }

    fn look<'a>(
        &'a self,
        _: &'a RecordName,
    ) -> BoxFuture<'a, Result<Option<RecordState>, StoreError>> {
        let cached = *self.cached.lock().unwrap();
        self.call(cached.then(|| RecordState::Cached {
            origin: Default::default(),
            stored: Outcome::new(http::StatusCode::OK, http::HeaderMap::new(), "{}").into(),
            left: SECOND,
            revision: Revision {
                rev: 1,
                lease: LeaseId::from_bytes([1; 16]),
            },
            fingerprint: Fingerprint::from_bytes([2; 32]),
        }))
    }

    fn changed<'a>(&'a self, _: &'a RecordName) -> BoxFuture<'a, ()> {
        panic!("the store's own fault");
    }

    fn shard(&self, _: &RecordName) -> u64 {
        if self.does() == Does::PanicInPart {
            panic!("the store's own fault");
        }
        0
    }
}

fn breaker_store(does: Does) -> (Arc<Eager>, Arc<BreakerStore>) {
    let store = Eager::new(does);
    let namespace = "test".parse().unwrap();
    let breaker = BreakerStore::new(Arc::new(store.clone()), LIMIT, namespace);
    (store, Arc::new(breaker))
}

fn name() -> RecordName {
    let key = IdempotencyKey::from_bytes([1; 32]);
    RecordName::new("test".parse().unwrap(), key)
}

/// Opens the breakers of writes and of reads.
async fn open(breaker: &BreakerStore) {
    for _ in 0..3 {
        breaker.apply(&name(), forget()).await.unwrap_err();
        advance(Duration::from_millis(1)).await;
    }
    assert!(!breaker.is_up());
    for _ in 0..3 {
        let _ = breaker.look(&name()).await.unwrap_err();
        advance(Duration::from_millis(1)).await;
    }
}

/// Red when missing replicas open the breaker, so that no caller gets a replay.
#[cfg(feature = "redis")]
#[tokio::test(start_paused = true)]
async fn store_without_enough_replicas_is_up() {
    let (store, breaker) = breaker_store(Does::Undurable);
    for _ in 0..10 {
        let error = breaker.apply(&name(), forget()).await.unwrap_err();
        assert!(error.is_undurable(), "{error:?}");
        advance(SECOND).await;
    }
    assert!(breaker.is_up());
    store.set(Does::Answer);
    assert!(breaker.look(&name()).await.is_ok());
}

/// Seen red: the store's future was created before the breaker was asked.
#[tokio::test(start_paused = true)]
async fn open_breaker_stops_commands_to_an_eager_store() {
    let (store, breaker) = breaker_store(Does::Fail);
    open(&breaker).await;
    let before = store.calls();
    let error = breaker.apply(&name(), forget()).await.unwrap_err();
    assert!(error.is_unsent(), "{error:?}");
    assert!(breaker.look(&name()).await.unwrap_err().is_unsent());
    assert_eq!(store.calls(), before);
}

/// Red where reads and writes share a breaker, and where a stopped acquire does not look:
/// with a full disk, none of 124 outcomes was replayed.
#[tokio::test(start_paused = true)]
async fn full_store_replays_recorded_outcomes() {
    for does in [Does::Full, Does::Refuse] {
        let (store, breaker) = breaker_store(Does::Answer);
        *store.cached.lock().unwrap() = true;
        store.set(does);
        for _ in 0..10 {
            let error = breaker.apply(&name(), forget()).await.unwrap_err();
            assert_eq!(error.is_refused(), does == Does::Refuse);
            advance(Duration::from_millis(1)).await;
        }
        assert_eq!(breaker.is_up(), does == Does::Refuse);
        for _ in 0..10 {
            let answer = breaker.apply(&name(), acquire()).await.unwrap();
            let is_cached = matches!(answer, Answer::Is(Some(RecordState::Cached { .. })));
            assert!(is_cached, "{answer:?}");
            assert!(breaker.look(&name()).await.unwrap().is_some());
        }
        // What is not known is not made up.
        *store.cached.lock().unwrap() = false;
        assert!(breaker.apply(&name(), acquire()).await.is_err());
        // The next write that is due finds out that there is room again.
        store.set(Does::Answer);
        breaker.again(&name(), SECOND).await;
        assert_eq!(
            breaker.apply(&name(), acquire()).await.unwrap(),
            Answer::Done
        );
        assert!(breaker.is_up());
    }
}

/// Red when the error says that the breaker is open, without the cause.
#[tokio::test(start_paused = true)]
async fn open_breaker_names_what_opened_it() {
    let (_, breaker) = breaker_store(Does::Fail);
    let cause = breaker.apply(&name(), forget()).await.unwrap_err();
    open(&breaker).await;
    let error = breaker.apply(&name(), forget()).await.unwrap_err();
    assert!(error.is_unsent(), "{error:?}");
    let (reported, cause) = (crate::error::chain(&error), crate::error::chain(&cause));
    assert!(reported.contains(&cause), "{reported}: {cause}");
}

/// Seen red where a panic of the store is not caught. After a probe that panics, the next
/// command probes.
#[tokio::test(start_paused = true)]
async fn panic_of_a_store_fails_one_command() {
    for does in [Does::PanicAtOnce, Does::PanicLater, Does::PanicInPart] {
        let (store, breaker) = breaker_store(does);
        if does == Does::PanicInPart {
            // All records are then of one part.
            assert_eq!(breaker.shard(&name()), 0);
            continue;
        }
        open(&breaker).await;
        for _ in 0..3 {
            advance(5 * SECOND).await;
            let error = breaker.look(&name()).await.unwrap_err();
            assert!(!error.is_unsent(), "{does:?}: {error:?}");
            assert!(!breaker.is_up(), "{does:?}");
        }
        store.set(Does::Answer);
        advance(5 * SECOND).await;
        assert!(breaker.look(&name()).await.is_ok(), "{does:?}");
        assert!(breaker.is_up(), "{does:?}");
        // A notice that panics is one that does not come.
        let notice = timeout(SECOND, breaker.changed(&name())).await;
        assert!(notice.is_err());
        let listed = breaker.list(&breaker.namespace, &ListQuery::all()).await;
        assert!(listed.is_err());
    }
}

/// A subscriber and a recorder that ask for the state of the store, as
/// `Engine::stats` does.
struct Curious(Arc<OnceLock<Arc<BreakerStore>>>, AtomicUsize);

impl Curious {
    fn ask(&self) {
        if let Some(breaker) = self.0.get() {
            let _ = breaker.is_up();
            self.1.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl tracing::Subscriber for Curious {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {
        self.ask();
    }
}

#[cfg(feature = "metrics")]
mod recorder {
    use metrics::{
        Counter, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    };

    use super::*;

    pub(super) struct Asks(pub(super) Arc<Curious>);

    impl GaugeFn for Curious {
        fn increment(&self, _: f64) {
            self.ask();
        }
        fn decrement(&self, _: f64) {
            self.ask();
        }
        fn set(&self, _: f64) {
            self.ask();
        }
    }

    impl Recorder for Asks {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
            self.0.ask();
            Counter::noop()
        }
        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::from_arc(self.0.clone())
        }
        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            self.0.ask();
            Histogram::noop()
        }
    }
}

/// Seen red: events and gauges were reported under the lock of the breakers, and the thread
/// deadlocked.
#[test]
fn subscriber_may_read_the_breaker_state() {
    let (sender, done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let asked = Arc::new(OnceLock::new());
        let subscriber = Curious(asked.clone(), AtomicUsize::new(0));
        let subscriber = Arc::new(subscriber);
        let run = || {
            let runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = { runtime }.enable_time().start_paused(true).build();
            runtime.unwrap().block_on(async {
                let (store, breaker) = breaker_store(Does::Fail);
                assert!(asked.set(breaker.clone()).is_ok());
                open(&breaker).await;
                store.set(Does::Answer);
                advance(5 * SECOND).await;
                breaker.look(&name()).await.unwrap();
                assert!(breaker.is_up());
            });
        };
        crate::telemetry::with_default(subscriber.clone(), || {
            #[cfg(feature = "metrics")]
            metrics::with_local_recorder(&recorder::Asks(subscriber.clone()), run);
            #[cfg(not(feature = "metrics"))]
            run();
        });
        let _ = sender.send(subscriber.1.load(Ordering::SeqCst));
    });
    let asked = done.recv_timeout(Duration::from_secs(60));
    let asked = asked.expect("a deadlock, or a panic above");
    assert!(asked >= 2, "reports of the outage and of its end: {asked}");
}
