//! Attempts whose timer fires late, as after a stop of the process: the engine waits for the
//! answer a little longer, and no request leaves meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use genesys_once::error::SendError;
use genesys_once::record::Namespace;
use genesys_once::store::BoxFuture;
use genesys_once::testing::{ScriptedTokens, ScriptedUpstream, Step, TokenStep};
use genesys_once::upstream::{AccessToken, Call};
use genesys_once::{
    Engine, Error, IdempotencyKey, Outcome, Reply, Resolution, RetryPolicy, Upstream,
};
use http::{HeaderMap, StatusCode};
use tokio::sync::Notify;
use tokio::time::{Instant, advance, sleep};

use super::{SECOND, request};

const LIMIT: Duration = Duration::from_secs(5);

/// A platform that takes `connects` to connect a call, and `answers` more to answer it. It
/// does not use the gate: it asks the call whether it may leave.
#[derive(Clone)]
struct Slow {
    connects: Duration,
    answers: Duration,
    begun: Arc<Notify>,
    sent: Arc<AtomicUsize>,
}

impl Slow {
    fn new(connects: Duration, answers: Duration) -> Self {
        Self {
            connects,
            answers,
            begun: Arc::default(),
            sent: Arc::default(),
        }
    }
}

impl Upstream for Slow {
    fn namespace(&self) -> Namespace {
        "slow".parse().unwrap()
    }

    fn send<'a>(
        &'a self,
        call: &'a Call,
        _: Option<&'a AccessToken>,
    ) -> BoxFuture<'a, Result<Outcome, SendError>> {
        Box::pin(async {
            self.begun.notify_one();
            sleep(self.connects).await;
            if !call.may_leave() {
                return Err(SendError::before_sending("it must not leave"));
            }
            self.sent.fetch_add(1, Ordering::SeqCst);
            sleep(self.answers).await;
            Ok(Outcome::new(StatusCode::OK, HeaderMap::new(), "{}"))
        })
    }

    fn attempt_timeout(&self) -> Duration {
        LIMIT
    }
}

/// Executes, and stops the process for `stop` once the attempt has begun. Returns the
/// answer, and how long after the stop the caller got it.
async fn stopped(upstream: &Slow, stop: Duration) -> (Result<Reply, Error>, Duration) {
    let engine = Engine::builder(upstream.clone()).retry(RetryPolicy::never());
    let engine = engine.start().await.unwrap();
    let caller = tokio::spawn(async move { engine.execute(request("{}")).await });
    upstream.begun.notified().await;
    advance(stop).await;
    let woken = Instant::now();
    (caller.await.unwrap(), woken.elapsed())
}

/// Red if a timer that fires late ends the attempt at once.
#[tokio::test(start_paused = true)]
async fn late_timer_allows_one_more_second() {
    let soon = Slow::new(Duration::ZERO, LIMIT + SECOND);
    let (reply, _) = stopped(&soon, LIMIT + SECOND / 2).await;
    assert_eq!(reply.unwrap().body(), "{}");

    let never = Slow::new(Duration::ZERO, 100 * LIMIT);
    let (reply, waited) = stopped(&never, LIMIT + SECOND / 2).await;
    let error = reply.unwrap_err();
    assert!(matches!(error, Error::Indeterminate { .. }), "{error}");
    assert_eq!(waited, SECOND);
}

/// Red if only the lease decides whether a request may leave: the lease is alive, and the
/// request leaves after the end of its attempt.
#[tokio::test(start_paused = true)]
async fn late_timer_sends_nothing() {
    let slow = Slow::new(LIMIT + SECOND, Duration::ZERO);
    let (reply, _) = stopped(&slow, LIMIT + SECOND / 2).await;
    let error = reply.unwrap_err();
    assert_eq!(slow.sent.load(Ordering::SeqCst), 0);
    assert_eq!(error.code(), "unreachable", "{error}");
}

/// Other engines must not treat a lost attempt as ended too early.
///
/// Red if the record has only the attempt's own time-out.
#[tokio::test(start_paused = true)]
async fn record_includes_the_late_timer_second() {
    let silent = Slow::new(Duration::ZERO, 100 * LIMIT);
    let lease = 10 * SECOND;
    let engine = Engine::builder(silent).lease(lease).start().await.unwrap();
    engine.execute(request("{}")).await.unwrap_err();
    let key = IdempotencyKey::of(&request("{}"));
    let state = engine.inspect(&key).await.unwrap().unwrap();
    let not_applied = Resolution::not_applied();
    let early = engine.resolve(&key, &state, not_applied).await;
    let Err(Error::TooEarly { wait, .. }) = early else {
        panic!("{early:?}");
    };
    // Counted from when the record became indeterminate.
    assert_eq!(wait, LIMIT + SECOND + lease);
}

/// The `reconcile` hook's answer might have arrived, too.
///
/// Red if a timer that fires late ends the wait for the hook at once.
#[tokio::test(start_paused = true)]
async fn late_timer_waits_for_the_hook() {
    let asked = Arc::<Notify>::default();
    let begun = asked.clone();
    let upstream = ScriptedUpstream::new(|_| Step::Reset);
    let engine = Engine::builder(upstream).reconcile(move |_, _| {
        begun.notify_one();
        async {
            sleep(61 * SECOND).await;
            let found = Outcome::new(StatusCode::OK, HeaderMap::new(), "found");
            Some(Resolution::applied(found))
        }
    });
    let engine = engine.start().await.unwrap();
    let caller = tokio::spawn(async move { engine.execute(request("{}")).await });
    asked.notified().await;
    advance(60 * SECOND + SECOND / 2).await;
    assert_eq!(caller.await.unwrap().unwrap().body(), "found");
}

/// A token might have arrived, too.
///
/// Red if a timer that fires late ends the fetch at once: a second fetch begins.
#[tokio::test(start_paused = true)]
async fn late_timer_waits_for_the_token() {
    let asked = Arc::<Notify>::default();
    let (begun, fetches) = (asked.clone(), Arc::<AtomicUsize>::default());
    let count = fetches.clone();
    let tokens = ScriptedTokens::new(move |_| {
        begun.notify_one();
        count.fetch_add(1, Ordering::SeqCst);
        let token = TokenStep::Issue(3600 * SECOND);
        TokenStep::After(31 * SECOND, Box::new(token))
    });
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}")).with_tokens(tokens);
    let engine = Engine::builder(upstream).start().await.unwrap();
    let caller = tokio::spawn(async move { engine.execute(request("{}")).await });
    asked.notified().await;
    advance(30 * SECOND + SECOND / 2).await;
    assert_eq!(caller.await.unwrap().unwrap().body(), "{}");
    assert_eq!(fetches.load(Ordering::SeqCst), 1);
}
