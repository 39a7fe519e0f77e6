//! Bursts against a platform with limits, and what the engine shows of the waiters.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use genesys_once::engine::Backlog;
use genesys_once::error::SendError;
use genesys_once::execution::{Execution, Lock, Terms};
use genesys_once::record::Namespace;
use genesys_once::store::BoxFuture;
use genesys_once::testing::{ScriptedTokens, ScriptedUpstream, Step, TokenStep};
use genesys_once::upstream::{AccessToken, Call, RatePermit, TokenSource};
use genesys_once::{
    Credentials, DataActionRequest, Engine, Environment, Error, GenesysCloud, IdempotencyKey,
    MemoryStore, Outcome, RetryPolicy, Served, Upstream,
};
use tokio::time::{Instant, sleep, sleep_until};

use super::{SECOND, request, until};

const KEYS: usize = 2_000;
const MINUTE: Duration = Duration::from_secs(60);

/// A platform that allows this many calls in any minute. Each answer takes `latency()`.
fn platform(
    per_minute: usize,
    latency: impl Fn() -> Duration + Send + Sync + 'static,
) -> ScriptedUpstream {
    let admitted = Mutex::new(VecDeque::<Instant>::new());
    ScriptedUpstream::new(move |_| {
        let mut admitted = admitted.lock().unwrap();
        let now = Instant::now();
        while admitted.front().is_some_and(|first| now - *first >= MINUTE) {
            admitted.pop_front();
        }
        if admitted.len() >= per_minute {
            // In whole seconds, as in the platform's answers.
            let wait = (MINUTE - (now - admitted[0])).as_millis().div_ceil(1000);
            return Step::RateLimited(SECOND * wait as u32).after(latency());
        }
        admitted.push_back(now);
        Step::ok("{}").after(latency())
    })
}

/// A scripted platform behind the client's own rate limit.
struct Limited {
    platform: ScriptedUpstream,
    limiter: GenesysCloud,
}

impl Limited {
    fn new(platform: &ScriptedUpstream, per_minute: u32) -> Self {
        let nowhere = Environment::from_base_url("http://127.0.0.1:1").unwrap();
        let client = GenesysCloud::new(nowhere, Credentials::new("id", "secret"));
        Self {
            platform: platform.clone(),
            limiter: client.rate_limit(per_minute),
        }
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

    fn token_source(&self) -> Option<Arc<dyn TokenSource>> {
        self.platform.token_source()
    }

    fn acquire_rate_permit<'a>(&'a self) -> BoxFuture<'a, RatePermit> {
        self.limiter.acquire_rate_permit()
    }
}

fn requests() -> Vec<DataActionRequest> {
    (0..KEYS).map(|n| request(&n.to_string())).collect()
}

/// Executes all requests at once; every one must succeed. Returns how long the burst took.
async fn burst(engine: &Engine, requests: &[DataActionRequest]) -> Duration {
    let start = Instant::now();
    let callers: Vec<_> = requests
        .iter()
        .cloned()
        .map(|request| {
            let engine = engine.clone();
            tokio::spawn(async move { engine.execute_within(request, 60 * MINUTE).await })
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap().status().as_u16(), 200);
    }
    start.elapsed()
}

/// Red if the limiter is asked before there is a permit: the calls that it let through then
/// come in a crowd once permits are free.
#[tokio::test(start_paused = true)]
async fn burst_within_limit_gets_no_429() {
    for slow in [Duration::ZERO, MINUTE] {
        let begin = Instant::now();
        // At first, calls take nearly as long as an action may.
        let platform = platform(300, move || match begin.elapsed() < slow {
            true => 50 * SECOND,
            false => SECOND / 3,
        });
        let engine = Engine::builder(Limited::new(&platform, 300));
        let engine = engine.start().await.unwrap();
        let requests = requests();
        let took = burst(&engine, &requests).await;
        let keys: Vec<_> = requests.iter().map(IdempotencyKey::of).collect();
        platform.ledger().assert_exactly_once(&keys);
        assert_eq!(platform.ledger().total(), KEYS, "no call was refused");
        assert!(platform.ledger().max_concurrent() <= 50);
        assert!(took < slow + 8 * MINUTE, "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn burst_beyond_limit_succeeds_after_cooldown() {
    let platform = platform(300, || SECOND / 3);
    // The last requests wait for seven minutes in all.
    let patient = RetryPolicy::default().max_wait(60 * MINUTE);
    let engine = Engine::builder(platform.clone()).retry(patient);
    let engine = engine.start().await.unwrap();
    let requests = requests();
    let took = burst(&engine, &requests).await;
    let keys: Vec<_> = requests.iter().map(IdempotencyKey::of).collect();
    platform.ledger().assert_exactly_once(&keys);
    // A wait for the cooldown costs no attempt: only the calls at the platform when its
    // limit was reached got a 429.
    let refused = platform.ledger().total() - KEYS;
    assert!((6..=6 * 50).contains(&refused), "{refused}");
    assert!(platform.ledger().max_concurrent() <= 50);
    assert!(took < 8 * MINUTE, "{took:?}");
}

/// Red if refused executions come at the very end of the cooldown: in
/// `tests/genesys/burst.rs` one of 2,000 keys then needed its third and last attempt.
#[tokio::test(start_paused = true)]
async fn refused_executions_go_first_after_cooldown() {
    let calls = Arc::new(Mutex::new(Vec::new()));
    let platform = ScriptedUpstream::new({
        let calls = calls.clone();
        move |call| {
            calls.lock().unwrap().push((Instant::now(), call.attempt()));
            match call.body().as_ref() {
                b"1" if call.attempt() == 1 => Step::RateLimited(10 * SECOND).after(SECOND),
                b"2" if call.attempt() == 1 => Step::RateLimited(12 * SECOND).after(SECOND),
                _ => Step::ok("{}"),
            }
        }
    });
    let engine = Engine::builder(platform.clone()).start().await.unwrap();
    let start = Instant::now();
    spawn(&engine, "1");
    spawn(&engine, "2");
    platform.ledger().wait_for(2).await;
    sleep(2 * SECOND).await;
    assert_eq!(engine.stats().backlog.retry.executions, 2);
    for number in 3..100 {
        spawn(&engine, &number.to_string());
    }
    platform.ledger().wait_for(2 + 2 + 97).await;
    let calls: Vec<_> = std::mem::take(&mut *calls.lock().unwrap());
    let attempts: Vec<_> = calls.iter().map(|(_, attempt)| *attempt).collect();
    assert_eq!(attempts[..4], [1, 1, 2, 2]);
    for (when, _) in &calls[2..] {
        let after = when.duration_since(start);
        assert!((13 * SECOND..14 * SECOND).contains(&after), "{after:?}");
    }
}

fn spawn(engine: &Engine, payload: &str) {
    let (engine, request) = (engine.clone(), request(payload));
    tokio::spawn(async move { engine.execute(request).await });
}

/// How many executions wait for each of cooldown, token, permit, limiter, retry and remote
/// holder, and how long the longest has waited.
fn seen(engine: &Engine) -> ([usize; 6], Duration) {
    let backlog: Backlog = engine.stats().backlog;
    let all = [
        backlog.cooldown,
        backlog.token,
        backlog.permit,
        backlog.limiter,
        backlog.retry,
        backlog.remote_holder,
    ];
    let counts = all.map(|wait| wait.executions);
    assert_eq!(backlog.executions(), counts.iter().sum::<usize>());
    (counts, backlog.oldest())
}

/// Each wait in its turn. Each assertion is red if its wait does not count.
#[tokio::test(start_paused = true)]
async fn backlog_shows_waits_and_durations() {
    let limits = |call: &Call| match call.body().as_ref() {
        b"2" if call.attempt() == 1 => Step::RateLimited(100 * SECOND),
        _ => Step::ok("{}").after(5 * SECOND),
    };
    let tokens = ScriptedTokens::new(|_| {
        TokenStep::After(3 * SECOND, Box::new(TokenStep::Issue(60 * MINUTE)))
    });
    let upstream = ScriptedUpstream::new(limits).with_tokens(tokens);
    let store = MemoryStore::new();
    // Two permits; two calls a minute, which is one every 30 s.
    let engine = Engine::builder(Limited::new(&upstream, 2))
        .store(store.clone())
        .max_in_flight(2)
        .start()
        .await
        .unwrap();
    let start = Instant::now();
    let at = |seconds: u32| sleep_until(start + seconds * SECOND);
    assert_eq!(seen(&engine), ([0; 6], Duration::ZERO));

    spawn(&engine, "1");
    at(2).await;
    assert_eq!(seen(&engine), ([0, 1, 0, 0, 0, 0], 2 * SECOND));
    at(4).await;
    assert_eq!(seen(&engine), ([0; 6], Duration::ZERO), "at the platform");
    assert_eq!(engine.stats().in_flight, 1);
    // The second execution has the other permit and waits for the limiter, …
    spawn(&engine, "2");
    until("an execution waits", || seen(&engine).0[3] == 1).await;
    // … the third one waits for a permit, …
    spawn(&engine, "3");
    until("an execution waits", || seen(&engine).0[2] == 1).await;
    at(6).await;
    assert_eq!(seen(&engine), ([0, 0, 1, 1, 0, 0], 2 * SECOND));
    assert_eq!(engine.stats().in_flight, 1, "a waiter is not in flight");
    // … until the first one is back.
    at(9).await;
    assert_eq!(seen(&engine), ([0, 0, 0, 2, 0, 0], 5 * SECOND));
    assert_eq!(engine.stats().in_flight, 0);

    // Another process executes the fourth one.
    let held = Execution::new(request("4"), upstream.namespace());
    let held = held.lock(&store, &Terms::default()).await.unwrap();
    assert!(matches!(held, Lock::Locked(_)));
    spawn(&engine, "4");
    at(10).await;
    assert_eq!(seen(&engine), ([0, 0, 0, 2, 0, 1], 6 * SECOND));
    // The second execution meets a 429, and the fifth waits for that cooldown.
    at(34).await;
    spawn(&engine, "5");
    until("the fifth execution waits", || seen(&engine).0[0] == 1).await;
    assert_eq!(seen(&engine).0[3..5], [1, 1]);
    assert!(!engine.stats().cooldown.is_zero());
    // The third execution waits for the cooldown, too, and counts since it began.
    at(70).await;
    let backlog = engine.stats().backlog;
    assert_eq!(
        (backlog.cooldown.executions, backlog.limiter.executions),
        (2, 0)
    );
    assert_eq!(backlog.cooldown.oldest, 66 * SECOND);
    while engine.stats().executions > 0 {
        sleep(SECOND).await;
    }
    assert_eq!(seen(&engine), ([0; 6], Duration::ZERO));
}

/// Red if a flight keeps its permit while another engine has its key.
#[tokio::test(start_paused = true)]
async fn remote_wait_uses_no_permit() {
    let store = MemoryStore::new();
    let slow = ScriptedUpstream::new(|_| Step::ok("{}").after(20 * SECOND));
    let other = Engine::builder(slow.clone()).store(store.clone());
    let other = other.start().await.unwrap();
    let executed = tokio::spawn(async move { other.execute(request("1")).await });
    until("the other engine calls", || slow.ledger().total() == 1).await;

    let upstream = ScriptedUpstream::new(|_| Step::ok("{}"));
    let engine = Engine::builder(upstream.clone()).store(store.clone());
    let engine = engine.max_in_flight(1).start().await.unwrap();
    let waiting = tokio::spawn({
        let engine = engine.clone();
        async move { engine.execute(request("1")).await }
    });
    until("an execution waits", || {
        engine.stats().backlog.remote_holder.executions == 1
    })
    .await;
    let begun = Instant::now();
    engine.execute(request("2")).await.unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO);
    waiting.await.unwrap().unwrap();
    executed.await.unwrap().unwrap();
    assert_eq!(upstream.ledger().total(), 1);
}

/// Found by `tests/protocol/simulation.rs`. Red if a cooldown is waited out however long it
/// has grown meanwhile: the second caller then waits for thirty days.
#[tokio::test(start_paused = true)]
async fn growing_cooldown_beyond_max_wait_fails() {
    let upstream = ScriptedUpstream::new(|call| match call.attempt() {
        1 => Step::RateLimited(SECOND),
        _ => Step::RateLimited(10 * 24 * 3600 * SECOND),
    });
    let engine = Engine::builder(upstream).start().await.unwrap();
    let later = async {
        sleep(SECOND / 2).await;
        engine.execute(request(r#"{"n":2}"#)).await
    };
    let (first, second) = tokio::join!(engine.execute(request(r#"{"n":1}"#)), later);
    for answer in [first, second] {
        let error = answer.unwrap_err();
        assert!(matches!(error, Error::RateLimited { .. }), "{error:?}");
    }
    assert_eq!(engine.stats().backlog.executions(), 0);
}

/// Replays that find everything free acquire the key in one command, and give back the rate
/// permit that they did not use. Red if they keep it: 40 replays then delay fresh requests
/// by the limiter's pace, 15 of them by 5 s.
#[tokio::test(start_paused = true)]
async fn replay_returns_its_rate_permit() {
    let store = MemoryStore::new();
    let platform = ScriptedUpstream::new(|_| Step::ok("{}"));
    let before = Engine::builder(platform.clone()).store(store.clone());
    let before = before.start().await.unwrap();
    for n in 0..40 {
        before.execute(request(&n.to_string())).await.unwrap();
    }
    let engine = Engine::builder(Limited::new(&platform, 300)).store(store);
    let engine = engine.recent(0, SECOND).start().await.unwrap();
    let begun = Instant::now();
    for n in 0..40 {
        let replay = engine.execute(request(&n.to_string())).await.unwrap();
        assert_eq!(replay.served(), Served::Store);
    }
    for n in 40..55 {
        engine.execute(request(&n.to_string())).await.unwrap();
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
    // The burst is used up: a replay looks first, and waits for nothing.
    let fresh = tokio::spawn({
        let engine = engine.clone();
        async move { engine.execute(request("55")).await }
    });
    until("an execution waits", || {
        engine.stats().backlog.limiter.executions == 1
    })
    .await;
    for n in 0..40 {
        engine.execute(request(&n.to_string())).await.unwrap();
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
    fresh.await.unwrap().unwrap();
    assert_eq!(begun.elapsed().as_millis(), 210);
    assert_eq!(platform.ledger().total(), 40 + 16);
}

/// All permits are taken, there is no token, and no token comes: replays wait for neither.
/// Red if the engine waits for either before it looks at the record.
#[tokio::test(start_paused = true)]
async fn replay_waits_for_no_call_permit() {
    let store = MemoryStore::new();
    let tokens = ScriptedTokens::new(|fetch| match fetch {
        1 => TokenStep::Issue(60 * SECOND),
        _ => TokenStep::Silent,
    });
    let platform = ScriptedUpstream::new(|call| match call.body().as_ref() {
        b"1" => Step::ok("{}"),
        _ => Step::Silent,
    });
    let platform = platform.with_tokens(tokens.clone());
    let engine = Engine::builder(platform.clone()).store(store);
    let engine = engine.recent(0, SECOND).max_in_flight(1);
    let engine = engine.start().await.unwrap();
    engine.execute(request("1")).await.unwrap();
    spawn(&engine, "2");
    platform.ledger().wait_for(2).await;
    sleep(60 * SECOND).await;
    assert_eq!(engine.stats().token_valid_for, None);
    spawn(&engine, "3");
    until("a call waits", || {
        engine.stats().backlog.token.executions == 1
    })
    .await;
    assert_eq!(engine.stats().in_flight, 1);
    let begun = Instant::now();
    let replay = engine.execute(request("1")).await.unwrap();
    assert_eq!(replay.served(), Served::Store);
    assert_eq!(begun.elapsed(), Duration::ZERO);
}
