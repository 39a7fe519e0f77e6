//! Tokens that end or are refused while executions wait, and actions whose 401 no token
//! cures.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use genesys_once::error::{SendError, TokenError};
use genesys_once::record::{Event, Namespace, Phase, RecordName, RecordState};
use genesys_once::store::BoxFuture;
use genesys_once::testing::{
    Fault, FaultyStore, ScriptedTokens, ScriptedUpstream, Step, TokenStep,
};
use genesys_once::upstream::{AccessToken, Call, TokenSource};
use genesys_once::{
    DataActionRequest, Engine, Error, IdempotencyKey, MemoryStore, Outcome, Reply, RetryHint,
    RetryPolicy, Store, Upstream,
};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use super::{SECOND, request};

const MILLI: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Answers an action `broken…` with 401 whatever the token, and others after `latency`.
fn platform(tokens: &ScriptedTokens, latency: Duration) -> ScriptedUpstream {
    ScriptedUpstream::new(move |call| {
        match call.request().action_id().as_str().starts_with("broken") {
            true => Step::status(401, "{}"),
            false => Step::ok("{}").after(latency),
        }
    })
    .with_tokens(tokens.clone())
}

pub(super) fn of(action: &str, n: usize) -> DataActionRequest {
    DataActionRequest::new(action, n.to_string()).unwrap()
}

fn crowd(
    engine: &Engine,
    action: &str,
    numbers: std::ops::Range<usize>,
) -> Vec<JoinHandle<Result<Reply, Error>>> {
    let ask = |n| {
        let (engine, request) = (engine.clone(), of(action, n));
        tokio::spawn(async move { engine.execute_within(request, 60 * MINUTE).await })
    };
    numbers.map(ask).collect()
}

/// Red if an execution sends the token that it read before it waited for a permit: 96 of
/// these 200 then fail as `Unauthorized`, without any revocation.
#[tokio::test(start_paused = true)]
async fn permit_waiter_sends_current_token() {
    let tokens = ScriptedTokens::lasting(3 * SECOND);
    let upstream = platform(&tokens, 100 * MILLI);
    let engine = Engine::builder(upstream.clone()).max_in_flight(2);
    let engine = engine.start().await.unwrap();
    for caller in crowd(&engine, "healthy", 0..200) {
        caller.await.unwrap().unwrap();
    }
    assert_eq!(upstream.ledger().total(), 200, "no call was wasted");
    // One token is renewed every 2.4 s, and the queue takes 10 s.
    assert!((4..=6).contains(&tokens.fetches()), "{}", tokens.fetches());
}

/// Red if waiters keep the token that was revoked: nearly every first call is then wasted.
#[tokio::test(start_paused = true)]
async fn one_revocation_costs_the_calls_under_way() {
    let tokens = ScriptedTokens::lasting(60 * MINUTE);
    let upstream = platform(&tokens, 10 * MILLI);
    let engine = Engine::builder(upstream.clone()).max_in_flight(10);
    let engine = engine.start().await.unwrap();
    let callers = crowd(&engine, "healthy", 0..500);
    sleep(105 * MILLI).await;
    tokens.revoke();
    for caller in callers {
        caller.await.unwrap().unwrap();
    }
    let wasted = upstream.ledger().total() - 500;
    assert!((1..=10).contains(&wasted), "{wasted}");
    assert_eq!(tokens.fetches(), 2);
}

/// Accepts or refuses a token when a call arrives, and answers a second later.
#[derive(Clone)]
pub(super) struct Late(pub ScriptedUpstream);

impl Upstream for Late {
    fn namespace(&self) -> Namespace {
        self.0.namespace()
    }

    fn send<'a>(
        &'a self,
        call: &'a Call,
        token: Option<&'a AccessToken>,
    ) -> BoxFuture<'a, Result<Outcome, SendError>> {
        Box::pin(async move {
            let answer = self.0.send(call, token).await;
            sleep(SECOND).await;
            answer
        })
    }

    fn token_source(&self) -> Option<Arc<dyn TokenSource>> {
        self.0.token_source()
    }
}

/// Red if every 401 costs the execution's one renewal: the second execution met the end of
/// two tokens through no fault of its own, and then fails.
#[tokio::test(start_paused = true)]
async fn outdated_token_costs_no_renewal() {
    let tokens = ScriptedTokens::lasting(60 * MINUTE);
    let upstream = platform(&tokens, Duration::ZERO);
    let engine = Engine::builder(Late(upstream.clone()));
    let engine = engine.retry(RetryPolicy::never()).start().await.unwrap();
    engine.execute(request("0")).await.unwrap();
    tokens.revoke();
    let begun = Instant::now();
    let first = crowd(&engine, "healthy", 1..2);
    sleep(SECOND / 2).await;
    // This call is refused when the first execution has already renewed the token.
    let second = crowd(&engine, "healthy", 2..3);
    sleep_until(begun + SECOND * 14 / 10).await;
    assert_eq!(tokens.fetches(), 2);
    tokens.revoke();
    for caller in first.into_iter().chain(second) {
        caller.await.unwrap().unwrap();
    }
    assert_eq!((tokens.fetches(), upstream.ledger().total()), (3, 6));
}

/// The two kinds of action take turns. Red if each 401 drops the token that all actions
/// use: every broken execution then fetches a token, and the endpoint throttles.
#[tokio::test(start_paused = true)]
async fn broken_action_never_affects_healthy_one() {
    // Like the platform: ten tokens, then none for a while.
    let tokens = ScriptedTokens::new(|fetch| match fetch {
        ..=10 => TokenStep::After(20 * MILLI, Box::new(TokenStep::Issue(24 * 60 * MINUTE))),
        _ => TokenStep::Fail(TokenError::rate_limited(MINUTE)),
    });
    let upstream = platform(&tokens, Duration::ZERO);
    let engine = Engine::builder(upstream.clone()).start().await.unwrap();
    engine.execute(of("healthy", 1_000)).await.unwrap();
    for n in 0..100 {
        let error = engine.execute(of("broken", n)).await.unwrap_err();
        assert!(matches!(error, Error::Unauthorized { .. }), "{error:?}");
        let begun = Instant::now();
        engine.execute(of("healthy", n)).await.unwrap();
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
    assert_eq!(tokens.fetches(), 2);
}

/// Red if each execution asks for a token of its own: 201 token requests for these 200
/// executions, one after the other or all at once.
#[tokio::test(start_paused = true)]
async fn broken_action_burst_fetches_one_token() {
    for in_flight in [1, 50] {
        let tokens = ScriptedTokens::lasting(24 * 60 * MINUTE);
        let upstream = platform(&tokens, Duration::ZERO);
        let engine = Engine::builder(upstream.clone()).max_in_flight(in_flight);
        let engine = engine.start().await.unwrap();
        for caller in crowd(&engine, "broken", 0..200) {
            let error = caller.await.unwrap().unwrap_err();
            assert!(matches!(error, Error::Unauthorized { .. }), "{error:?}");
        }
        assert_eq!(tokens.fetches(), 2);
        let posts = upstream.ledger().total();
        assert!(posts <= 200 + in_flight, "{posts}");
    }
}

/// Red if a token is dropped as soon as one call is refused: every action then waits for
/// the next token, for as long as the endpoint takes.
#[tokio::test(start_paused = true)]
async fn suspected_token_serves_other_actions() {
    let tokens = ScriptedTokens::new(|fetch| match fetch {
        1 => TokenStep::Issue(60 * MINUTE),
        _ => TokenStep::After(10 * SECOND, Box::new(TokenStep::Issue(60 * MINUTE))),
    });
    let upstream = platform(&tokens, Duration::ZERO);
    let engine = Engine::builder(upstream.clone()).start().await.unwrap();
    let begun = Instant::now();
    let broken = crowd(&engine, "broken", 0..1).pop().unwrap();
    tokens.wait_for(2).await;
    for n in 0..20 {
        engine.execute(of("healthy", n)).await.unwrap();
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
    broken.await.unwrap().unwrap_err();
    assert_eq!(begun.elapsed(), 10 * SECOND);
}

/// A hundred broken actions, one after the other. Red without the backoff: each fetches a
/// token at once, and the endpoint throttles.
#[tokio::test(start_paused = true)]
async fn fetches_after_refusals_back_off() {
    let tokens = ScriptedTokens::lasting(24 * 60 * MINUTE);
    let upstream = platform(&tokens, Duration::ZERO);
    let engine = Engine::builder(upstream.clone()).start().await.unwrap();
    engine.execute(of("healthy", 1_000)).await.unwrap();
    let broken = tokio::spawn({
        let engine = engine.clone();
        async move {
            for n in 0..100 {
                let action = format!("broken-{n}");
                let asked = engine.execute_within(of(&action, 0), 60 * MINUTE).await;
                let error = asked.unwrap_err();
                assert!(matches!(error, Error::Unauthorized { .. }), "{error:?}");
            }
        }
    });
    for minute in 1..=60 {
        let begun = Instant::now();
        engine.execute(of("healthy", minute)).await.unwrap();
        assert_eq!(begun.elapsed(), Duration::ZERO);
        sleep(MINUTE).await;
        // The platform lets a client ask ten times a minute.
        let fetches = tokens.fetches();
        assert!(fetches <= 8 + 4 * minute, "{minute}: {fetches}");
    }
    broken.await.unwrap();
    assert_eq!(tokens.fetches(), 101);
}

/// The successor of a refused token cannot be obtained: refused callers get the error, and
/// others go on. Red if the failure is not reported to the callers that wait for the
/// successor.
#[tokio::test(start_paused = true)]
async fn successor_failure_is_reported_to_waiters() {
    let tokens = ScriptedTokens::new(|fetch| match fetch {
        1 => TokenStep::Issue(60 * MINUTE),
        _ => TokenStep::Fail(TokenError::new("connection refused")),
    });
    let upstream = platform(&tokens, Duration::ZERO);
    let engine = Engine::builder(upstream.clone()).start().await.unwrap();
    let begun = Instant::now();
    let error = engine.execute(of("broken", 0)).await.unwrap_err();
    assert!(matches!(error, Error::Token { .. }), "{error:?}");
    assert!(begun.elapsed() < 10 * SECOND, "{:?}", begun.elapsed());
    engine.execute(of("healthy", 0)).await.unwrap();
}

/// An engine whose store takes 11 s to answer the events that `slow` selects, once armed.
async fn slowed(
    upstream: &ScriptedUpstream,
    slow: fn(&Event) -> bool,
) -> (Engine, MemoryStore, Arc<AtomicBool>) {
    let (records, armed) = (MemoryStore::new(), Arc::new(AtomicBool::new(false)));
    let store = FaultyStore::new(records.clone(), {
        let armed = armed.clone();
        move |operation| match operation.event {
            Some(event) if slow(event) && armed.load(Ordering::SeqCst) => Fault::Late(11 * SECOND),
            _ => Fault::Pass,
        }
    });
    let engine = Engine::builder(upstream.clone()).store(store);
    let engine = engine.store_timeout(20 * SECOND).lease(60 * SECOND);
    (engine.start().await.unwrap(), records, armed)
}

fn takes_the_key(event: &Event) -> bool {
    matches!(event, Event::Acquire { .. })
}

/// Red if the token is read before the lease is acquired: the token has ended by the time
/// the store answers, and the call is wasted.
#[tokio::test(start_paused = true)]
async fn token_expiring_during_acquire_is_unsent() {
    let tokens = ScriptedTokens::lasting(10 * SECOND);
    let upstream = platform(&tokens, Duration::ZERO);
    let (engine, _, slow) = slowed(&upstream, takes_the_key).await;
    engine.execute(request("0")).await.unwrap();
    slow.store(true, Ordering::SeqCst);
    engine.execute(request("1")).await.unwrap();
    assert_eq!(upstream.ledger().total(), 2, "no call was wasted");
}

/// The same for a later attempt, whose lease is verified by a command of its own. Red if
/// the token is read before that command.
#[tokio::test(start_paused = true)]
async fn token_expiring_before_retry_is_unsent() {
    let tokens = ScriptedTokens::new(|fetch| match fetch {
        1 => TokenStep::Issue(10 * SECOND),
        _ => TokenStep::Issue(MINUTE),
    });
    let upstream = ScriptedUpstream::new(|call| match call.attempt() {
        1 => Step::RateLimited(SECOND),
        _ => Step::ok("{}"),
    });
    let upstream = upstream.with_tokens(tokens);
    let dispatches =
        |event: &Event| matches!(event, Event::Enter { phase, .. } if *phase == Phase::Dispatched);
    let (engine, _, slow) = slowed(&upstream, dispatches).await;
    slow.store(true, Ordering::SeqCst);
    engine.execute(request("1")).await.unwrap();
    assert_eq!(upstream.ledger().total(), 2, "no call was wasted");
}

/// Red if the lease stays in `Dispatched` while there is no token: the death of the process
/// would leave the key indeterminate, although nothing was sent.
#[tokio::test(start_paused = true)]
async fn lease_without_token_returns_to_claimed() {
    let tokens = ScriptedTokens::new(|fetch| match fetch {
        1 => TokenStep::Issue(10 * SECOND),
        _ => TokenStep::After(20 * SECOND, Box::new(TokenStep::Issue(MINUTE))),
    });
    let upstream = platform(&tokens, Duration::ZERO);
    let (engine, store, slow) = slowed(&upstream, takes_the_key).await;
    engine.execute(request("0")).await.unwrap();
    slow.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    let waiting = tokio::spawn({
        let engine = engine.clone();
        async move { engine.execute(request("1")).await }
    });
    sleep(15 * SECOND).await;
    let backlog = engine.stats().backlog;
    assert_eq!((backlog.token.executions, engine.stats().in_flight), (1, 0));
    let key = IdempotencyKey::of(&request("1"));
    let name = RecordName::new(upstream.namespace(), key);
    let record = store.look(&name).await.unwrap();
    assert!(
        matches!(
            record,
            Some(RecordState::Locked {
                phase: Phase::Claimed,
                ..
            })
        ),
        "{record:?}"
    );
    waiting.await.unwrap().unwrap();
    assert!(begun.elapsed() < 40 * SECOND, "{:?}", begun.elapsed());
    assert_eq!(upstream.ledger().total(), 2, "no call was wasted");
}

/// Tokens that always end before the store has answered. Red without a bound: one token
/// after the other is fetched for one execution, until its caller leaves and after that.
#[tokio::test(start_paused = true)]
async fn early_expiring_tokens_end_execution() {
    // The source issues a token only after the last one has ended and the store has
    // answered.
    let last = Mutex::new(None);
    let tokens = ScriptedTokens::new(move |_| {
        let (now, mut last) = (Instant::now(), last.lock().unwrap());
        if last.is_some_and(|last| now < last + 11 * SECOND) {
            return TokenStep::Fail(TokenError::rate_limited(MINUTE));
        }
        *last = Some(now);
        TokenStep::Issue(10 * SECOND)
    });
    let upstream = platform(&tokens, Duration::ZERO);
    let dispatches = |event: &Event| !matches!(event, Event::Release { .. });
    let (engine, _, slow) = slowed(&upstream, dispatches).await;
    slow.store(true, Ordering::SeqCst);
    let asked = engine.execute_within(request("1"), 60 * MINUTE).await;
    let error = asked.unwrap_err();
    assert!(matches!(error, Error::Token { .. }), "{error:?}");
    assert!(matches!(error.hint(), RetryHint::After(_)));
    assert_eq!(upstream.ledger().total(), 0);
    slow.store(false, Ordering::SeqCst);
    engine.execute(request("1")).await.unwrap();
}
