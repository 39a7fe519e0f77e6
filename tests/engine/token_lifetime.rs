//! For how long a token is used, when the next one is fetched, and how the engine backs off
//! after failures.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use genesys_once::error::TokenError;
use genesys_once::testing::{ScriptedTokens, ScriptedUpstream, Step, TokenStep};
use genesys_once::{Engine, Error, OnUnknown, RetryPolicy};
use tokio::time::{Instant, sleep};

use super::{SECOND, request};

const DAY: Duration = Duration::from_secs(24 * 3600);

async fn engine(tokens: &ScriptedTokens, seed: u64) -> Engine {
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}")).with_tokens(tokens.clone());
    let engine = Engine::builder(upstream)
        .recent(0, SECOND)
        .deterministic(seed, SystemTime::UNIX_EPOCH + 365 * DAY);
    engine.start().await.unwrap()
}

/// Red if the token is used beyond the margin before its end, and if it is given up
/// earlier.
#[tokio::test(start_paused = true)]
async fn token_is_used_until_its_margin() {
    let tokens = ScriptedTokens::new(|fetch| match fetch {
        1 => TokenStep::Issue(100 * SECOND),
        _ => TokenStep::Fail(TokenError::new("down")),
    });
    let engine = engine(&tokens, 1).await;
    sleep(SECOND).await;
    assert_eq!(tokens.fetches(), 0, "no caller has needed a token");
    engine.execute(request("[0]")).await.unwrap();
    sleep(89 * SECOND).await;
    engine.execute(request("[1]")).await.unwrap();
    sleep(2 * SECOND).await;
    let error = engine.execute(request("[2]")).await.unwrap_err();
    assert!(matches!(error, Error::Token { .. }), "{error}");
}

/// Red if only the caller that finds a token expired renews it, when the token says that it
/// lasts for a month.
#[tokio::test(start_paused = true)]
async fn token_of_any_lifetime_is_renewed() {
    let tokens = ScriptedTokens::lasting(30 * DAY);
    let engine = engine(&tokens, 1).await;
    engine.execute(request("[0]")).await.unwrap();
    sleep(6 * DAY).await;
    assert_eq!(tokens.fetches(), 2);
    assert_eq!(engine.stats().token_fetches, 2);
}

/// The pause after each further failure is twice the pause before, plus up to half of it at
/// random. It is at most half a minute.
#[tokio::test(start_paused = true)]
async fn failed_fetches_back_off() {
    let often = SECOND / 10;
    for seed in 0..8 {
        let fetched: Arc<Mutex<Vec<Instant>>> = Arc::default();
        let times = fetched.clone();
        let tokens = ScriptedTokens::new(move |_| {
            times.lock().unwrap().push(Instant::now());
            TokenStep::Fail(TokenError::new("down"))
        });
        let engine = engine(&tokens, seed).await;
        while tokens.fetches() < 9 {
            engine.execute(request("{}")).await.unwrap_err();
            sleep(often).await;
        }
        let fetched = fetched.lock().unwrap();
        for (n, pair) in fetched.windows(2).enumerate() {
            let full = (SECOND / 2 * (1 << n)).min(30 * SECOND);
            let wait = pair[1] - pair[0];
            assert!(
                wait >= full && wait <= full * 3 / 2 + 2 * often,
                "{wait:?} of {full:?}"
            );
        }
    }
}

/// Under `OnUnknown::Retry`, too, an attempt that the platform refused because of its token
/// does not count for the policy.
#[tokio::test(start_paused = true)]
async fn refused_token_costs_no_attempt() {
    let tokens = ScriptedTokens::lasting(3600 * SECOND);
    let upstream = ScriptedUpstream::new(|call| match call.attempt() {
        1 => Step::status(401, "{}"),
        2 => Step::Reset,
        _ => Step::ok("{}"),
    });
    let engine = Engine::builder(upstream.clone().with_tokens(tokens))
        .on_unknown(OnUnknown::Retry)
        .retry(RetryPolicy::default().attempts(2));
    let engine = engine.start().await.unwrap();
    let reply = engine.execute(request("{}")).await.unwrap();
    assert!(reply.is_success());
    assert_eq!(upstream.ledger().total(), 3);
}

/// A wait for a permit might last longer than the token that was fetched before it, while
/// no new token can be fetched. Red if the expired token is sent all the same.
#[tokio::test(start_paused = true)]
async fn token_expiring_during_permit_wait_is_unsent() {
    let start = Instant::now();
    let tokens = ScriptedTokens::new(move |_| match start.elapsed().as_secs() {
        1..55 => TokenStep::Fail(TokenError::new("down")),
        _ => TokenStep::Issue(50 * SECOND),
    });
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}").after(60 * SECOND));
    let engine = Engine::builder(upstream.clone().with_tokens(tokens)).max_in_flight(1);
    let engine = engine.start().await.unwrap();
    let first = tokio::spawn({
        let engine = engine.clone();
        async move { engine.execute(request("[1]")).await }
    });
    upstream.ledger().wait_for(1).await;
    let second = engine.execute_within(request("[2]"), 3600 * SECOND).await;
    assert!(first.await.unwrap().unwrap().is_success());
    // The second call had the next token.
    assert!(second.unwrap().is_success());
    assert_eq!(upstream.ledger().total(), 2);
}
