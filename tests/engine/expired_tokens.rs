//! Tokens that expire before any call can use them, and renewals without end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use genesys_once::error::TokenError;
use genesys_once::testing::{ScriptedTokens, ScriptedUpstream, Step, TokenStep};
use genesys_once::{Engine, Error};
use tokio::time::{Instant, sleep};

use super::{SECOND, request};

const HOUR: Duration = Duration::from_secs(3600);

/// Red if such a token counts as obtained: tokens are fetched without end, and no caller
/// gets an error.
#[tokio::test(start_paused = true)]
async fn token_expired_on_arrival_is_a_failure() {
    let step = || TokenStep::After(2 * SECOND, Box::new(TokenStep::Issue(2 * SECOND)));
    let tokens = ScriptedTokens::new(move |_| step());
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}"));
    let engine = Engine::builder(upstream.clone().with_tokens(tokens.clone()));
    let engine = engine.start().await.unwrap();
    let answer = engine.execute_within(request("{}"), 60 * SECOND).await;
    assert!(matches!(answer, Err(Error::Token { .. })), "{answer:?}");
    assert_eq!(engine.stats().executions, 0);
    let fetches = tokens.fetches();
    sleep(HOUR).await;
    assert_eq!(tokens.fetches(), fetches, "no caller needs a token");
    assert_eq!(upstream.ledger().total(), 0);
}

/// Red if the renewal of a refused token waits as long as the endpoint asked, after an
/// operator ended that cooldown: the action's executions then wait with it.
#[tokio::test(start_paused = true)]
async fn ended_cooldown_renews_refused_token() {
    let limited = Arc::new(AtomicBool::new(true));
    let still = limited.clone();
    let tokens = ScriptedTokens::new(move |n| match n > 1 && still.load(Ordering::SeqCst) {
        true => TokenStep::Fail(TokenError::rate_limited(HOUR)),
        false => TokenStep::Issue(24 * HOUR),
    });
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}"));
    let engine = Engine::builder(upstream.clone().with_tokens(tokens.clone()));
    let engine = engine.start().await.unwrap();
    engine.execute(request("[0]")).await.unwrap();
    tokens.revoke();
    let answer = engine.execute(request("[1]")).await;
    assert!(matches!(answer, Err(Error::Token { .. })), "{answer:?}");
    limited.store(false, Ordering::SeqCst);
    engine.end_cooldown();
    let begun = Instant::now();
    engine.execute(request("[1]")).await.unwrap();
    assert!(begun.elapsed() < SECOND, "{:?}", begun.elapsed());
}

/// Red if an expired token is renewed in the background by an endpoint that will issue no
/// other token: without end, and without a caller.
#[tokio::test(start_paused = true)]
async fn expired_token_is_renewed_only_on_demand() {
    let tokens = ScriptedTokens::new(|n| match n {
        1 => TokenStep::Issue(HOUR),
        _ => TokenStep::Fail(TokenError::rejected("revoked")),
    });
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}"));
    let engine = Engine::builder(upstream.clone().with_tokens(tokens.clone()));
    let engine = engine.start().await.unwrap();
    engine.execute(request("[0]")).await.unwrap();
    sleep(HOUR).await;
    let fetches = tokens.fetches();
    sleep(24 * HOUR).await;
    assert_eq!(tokens.fetches(), fetches);
    // A caller that needs a token gets the error.
    let answer = engine.execute(request("[1]")).await;
    assert!(matches!(answer, Err(Error::Token { .. })), "{answer:?}");
}
