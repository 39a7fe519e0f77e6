//! One action does not starve the others: permits and the rate limit alternate between
//! actions, and each action can have a cap.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use genesys_once::error::SendError;
use genesys_once::record::Namespace;
use genesys_once::store::BoxFuture;
use genesys_once::testing::{ScriptedUpstream, Step};
use genesys_once::upstream::{AccessToken, Call, RatePermit};
use genesys_once::{DataActionRequest, Engine, Outcome, Upstream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::{SECOND, until};

/// The platform answers the action `slow` after a minute and the others at once.
fn platform() -> ScriptedUpstream {
    ScriptedUpstream::new(|call| match call.request().action_id().as_str() {
        "slow" => Step::ok("{}").after(60 * SECOND),
        _ => Step::ok("{}"),
    })
}

/// Callers of an action, each with a request of its own; how long each waited.
fn callers(engine: &Engine, action: &str, count: usize) -> Vec<JoinHandle<Duration>> {
    let start = Instant::now();
    (0..count)
        .map(|n| {
            let request = DataActionRequest::new(action, n.to_string()).unwrap();
            let engine = engine.clone();
            tokio::spawn(async move {
                let limit = 3600 * SECOND;
                engine.execute_within(request, limit).await.unwrap();
                start.elapsed()
            })
        })
        .collect()
}

/// Red with one queue for all actions: the fast action waits for 450 slow calls, ten
/// minutes.
#[tokio::test(start_paused = true)]
async fn fast_action_waits_for_one_slow_call() {
    let upstream = platform();
    let engine = Engine::builder(upstream.clone()).start().await.unwrap();
    let slow = callers(&engine, "slow", 500);
    until("the crowd waits", || {
        engine.stats().backlog.permit.executions == 450
    })
    .await;
    for caller in callers(&engine, "fast", 5) {
        assert_eq!(caller.await.unwrap(), 60 * SECOND);
    }
    // The slow action uses the capacity that the others leave, and loses nothing.
    let mut last = Duration::ZERO;
    for caller in slow {
        last = last.max(caller.await.unwrap());
    }
    assert_eq!(last, 600 * SECOND);
    assert_eq!(upstream.ledger().max_concurrent(), 50);
    assert_eq!(
        (engine.stats().in_flight, engine.stats().executions),
        (0, 0)
    );
}

/// Red without the cap: the fast action waits for a slow call to end.
#[tokio::test(start_paused = true)]
async fn capped_action_leaves_permits_to_others() {
    let upstream = platform();
    let engine = Engine::builder(upstream.clone()).max_in_flight_per_action(40);
    let engine = engine.start().await.unwrap();
    let slow = callers(&engine, "slow", 100);
    until("the crowd waits", || {
        engine.stats().backlog.permit.executions == 60
    })
    .await;
    assert_eq!(engine.stats().in_flight, 40);
    for caller in callers(&engine, "fast", 20) {
        assert_eq!(caller.await.unwrap(), Duration::ZERO);
    }
    let mut last = Duration::ZERO;
    for caller in slow {
        last = last.max(caller.await.unwrap());
    }
    assert_eq!(last, 180 * SECOND, "100 calls, 40 at a time");
}

/// An execution returns its permit if it is killed while it waits, or while its request is
/// at the platform.
#[tokio::test(start_paused = true)]
async fn killed_execution_returns_its_permit() {
    let upstream = platform();
    let engine = Engine::builder(upstream.clone()).max_in_flight(2);
    let engine = engine.start().await.unwrap();
    let slow = callers(&engine, "slow", 6);
    until("all callers wait", || {
        engine.stats().backlog.permit.executions == 4
    })
    .await;
    for child in engine.actor().get_cell().get_children() {
        child.kill();
    }
    until("no execution is left", || engine.stats().executions == 0).await;
    for caller in slow {
        assert!(caller.await.is_err(), "its execution crashed");
    }
    let served = callers(&engine, "fast", 50);
    for caller in served {
        assert_eq!(caller.await.unwrap(), Duration::ZERO);
    }
    assert_eq!(engine.stats().in_flight, 0);
}

/// A platform with a rate limit of one call a second, first come, first served. It counts
/// how many executions ask at the same time.
#[derive(Clone)]
struct Limited {
    platform: ScriptedUpstream,
    next: Arc<tokio::sync::Mutex<Instant>>,
    asking: Arc<AtomicUsize>,
}

/// One execution that asks, until this guard is dropped.
struct Asking(Arc<AtomicUsize>);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Upstream for Limited {
    fn namespace(&self) -> Namespace {
        self.platform.namespace()
    }

    fn send<'a>(
        &'a self,
        call: &'a Call,
        token: Option<&'a AccessToken>,
    ) -> BoxFuture<'a, Result<Outcome, SendError>> {
        self.platform.send(call, token)
    }

    fn acquire_rate_permit<'a>(&'a self) -> BoxFuture<'a, RatePermit> {
        Box::pin(async move {
            let asking = self.asking.fetch_add(1, Ordering::SeqCst);
            let _asking = Asking(self.asking.clone());
            assert_eq!(asking, 0, "one at a time");
            let mut next = self.next.lock().await;
            tokio::time::sleep_until(*next).await;
            *next = Instant::now() + SECOND;
            RatePermit::default()
        })
    }
}

/// Red if each execution asks the rate limit by itself: the other action then waits behind
/// the whole crowd.
#[tokio::test(start_paused = true)]
async fn rate_limit_alternates_between_actions() {
    let upstream = Limited {
        platform: ScriptedUpstream::new(|_| Step::ok("{}")),
        next: Arc::new(tokio::sync::Mutex::new(Instant::now())),
        asking: Arc::default(),
    };
    let engine = Engine::builder(upstream.clone()).start().await.unwrap();
    let crowd = callers(&engine, "crowd", 200);
    until("the crowd waits", || {
        let backlog = engine.stats().backlog;
        backlog.limiter.executions == 50 && backlog.permit.executions == 149
    })
    .await;
    sleep(5 * SECOND).await;
    let mut waited: Vec<_> = Vec::new();
    for caller in callers(&engine, "other", 10) {
        waited.push(caller.await.unwrap());
    }
    // The first execution waits for a permit and a turn, the others for every second turn.
    for (n, waited) in waited.iter().enumerate() {
        assert!(*waited <= (2 * n as u32 + 4) * SECOND, "{n}: {waited:?}");
    }
    let mut last = Duration::ZERO;
    for caller in crowd {
        last = last.max(caller.await.unwrap());
    }
    assert_eq!(last, 209 * SECOND, "no turn of the limit is lost");
}

/// A panic inside the rate limit passes the turn on. Red if the turn is kept.
#[tokio::test(start_paused = true)]
async fn panicking_rate_limit_keeps_no_turn() {
    #[derive(Clone)]
    struct Panics(ScriptedUpstream, Arc<AtomicUsize>);
    impl Upstream for Panics {
        fn namespace(&self) -> Namespace {
            self.0.namespace()
        }
        fn send<'a>(
            &'a self,
            call: &'a Call,
            token: Option<&'a AccessToken>,
        ) -> BoxFuture<'a, Result<Outcome, SendError>> {
            self.0.send(call, token)
        }
        fn acquire_rate_permit<'a>(&'a self) -> BoxFuture<'a, RatePermit> {
            Box::pin(async move {
                sleep(SECOND).await;
                assert!(self.1.fetch_add(1, Ordering::SeqCst) > 2, "the limit");
                RatePermit::default()
            })
        }
    }
    let platform = ScriptedUpstream::new(|_| Step::ok("{}"));
    let upstream = Panics(platform.clone(), Arc::default());
    let engine = Engine::builder(upstream).max_in_flight(2);
    let engine = engine.start().await.unwrap();
    let callers = callers(&engine, "action", 8);
    let mut crashed = 0;
    for caller in callers {
        let answer = timeout(600 * SECOND, caller)
            .await
            .expect("no caller hangs");
        crashed += usize::from(answer.is_err());
    }
    assert_eq!((crashed, platform.ledger().total()), (3, 5));
}
