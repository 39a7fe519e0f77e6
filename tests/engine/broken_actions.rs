//! Actions that cause refused tokens, or only seem to cause them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use genesys_once::testing::{ScriptedTokens, ScriptedUpstream, Step, TokenStep};
use genesys_once::{Engine, Error};
use tokio::time::{Instant, sleep};

use super::refused_tokens::{Late, of};
use super::{SECOND, child, request};

const MINUTE: Duration = Duration::from_secs(60);

/// Answers every action with 401 while `broken`, except the action `good`.
fn sometimes_broken(tokens: &ScriptedTokens) -> (ScriptedUpstream, Arc<AtomicBool>) {
    let broken = Arc::new(AtomicBool::new(true));
    let upstream = ScriptedUpstream::new({
        let broken = broken.clone();
        move |call| {
            let good = call.request().action_id().as_str() == "good";
            match broken.load(Ordering::SeqCst) && !good {
                true => Step::status(401, "{}"),
                false => Step::ok("{}"),
            }
        }
    });
    (upstream.with_tokens(tokens.clone()), broken)
}

/// Another action shows that the token is good. Ten minutes later the broken action fetches
/// one more token. After a success it counts as healthy again.
#[tokio::test(start_paused = true)]
async fn broken_action_recovers_after_ten_minutes() {
    let tokens = ScriptedTokens::lasting(24 * 60 * MINUTE);
    let (upstream, broken) = sometimes_broken(&tokens);
    let engine = Engine::builder(upstream.clone()).start().await.unwrap();
    engine.execute(request("0")).await.unwrap_err();
    engine.execute(of("good", 0)).await.unwrap();
    assert_eq!(tokens.fetches(), 2);
    sleep(599 * SECOND).await;
    engine.execute(of("good", 1)).await.unwrap();
    engine.execute(request("1")).await.unwrap_err();
    sleep(SECOND / 2).await;
    assert_eq!(tokens.fetches(), 2);
    sleep(2 * SECOND).await;
    engine.execute(request("2")).await.unwrap_err();
    assert_eq!(tokens.fetches(), 3);
    broken.store(false, Ordering::SeqCst);
    engine.execute(request("3")).await.unwrap();
    // The token is revoked: the engine renews it as before.
    tokens.revoke();
    engine.execute(request("4")).await.unwrap();
    assert_eq!(tokens.fetches(), 4);
}

/// Two tokens are revoked in a row, before any call succeeds with the second token. Red if
/// a broken action suspects no token: all calls then failed for ten minutes.
#[tokio::test(start_paused = true)]
async fn two_revocations_in_a_row_cost_seconds() {
    let tokens = ScriptedTokens::lasting(24 * 60 * MINUTE);
    let (upstream, broken) = sometimes_broken(&tokens);
    let engine = Engine::builder(upstream.clone()).start().await.unwrap();
    let error = engine.execute(request("0")).await.unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error:?}");
    tokens.revoke();
    broken.store(false, Ordering::SeqCst);
    engine.execute(request("1")).await.unwrap_err();
    sleep(SECOND).await;
    engine.execute(request("2")).await.unwrap();
    assert_eq!(tokens.fetches(), 3);
}

/// The same revocations, and the token actor dies before it renews the token. Red if its
/// successor wakes only for callers that wait.
#[tokio::test(start_paused = true)]
async fn suspicion_outlives_token_actor() {
    let tokens = ScriptedTokens::lasting(24 * 60 * MINUTE);
    let (upstream, broken) = sometimes_broken(&tokens);
    let engine = Engine::builder(upstream.clone()).start().await.unwrap();
    let actor = child(&engine, 1);
    engine.execute(request("0")).await.unwrap_err();
    tokens.revoke();
    broken.store(false, Ordering::SeqCst);
    engine.execute(request("1")).await.unwrap_err();
    actor.kill();
    sleep(SECOND).await;
    engine.execute(request("2")).await.unwrap();
    assert_eq!(tokens.fetches(), 3);
}

/// Without another action no token is known to be good. Each token is renewed, with growing
/// pauses of at most half a minute. Red without the pauses.
#[tokio::test(start_paused = true)]
async fn only_broken_action_renews_at_growing_pace() {
    let tokens = ScriptedTokens::lasting(24 * 60 * MINUTE);
    let (upstream, _broken) = sometimes_broken(&tokens);
    let engine = Engine::builder(upstream.clone()).start().await.unwrap();
    for second in 0..600 {
        let error = engine
            .execute(request(&second.to_string()))
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Unauthorized { .. }), "{error:?}");
        sleep(SECOND).await;
    }
    let fetches = tokens.fetches();
    assert!((20..=40).contains(&fetches), "{fetches}");
}

/// Two healthy actions. The token is revoked while a call of each is under way: the first
/// renews it, the second finds that its token was replaced, and its successor is revoked, too.
/// Red if a token that was replaced counts as one that was refused: the second action was at
/// fault for ten minutes.
#[tokio::test(start_paused = true)]
async fn replaced_token_is_not_counted_against_action() {
    let tokens = ScriptedTokens::lasting(24 * 60 * MINUTE);
    // Judges a call when it arrives, and answers a second later.
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}")).with_tokens(tokens.clone());
    let engine = Engine::builder(Late(upstream)).start().await.unwrap();
    for action in ["a", "b"] {
        engine.execute(of(action, 0)).await.unwrap();
    }
    tokens.revoke();
    let ask = |action: &'static str| {
        let engine = engine.clone();
        tokio::spawn(async move { engine.execute(of(action, 1)).await })
    };
    let first = ask("b");
    sleep(SECOND / 2).await;
    let second = ask("a");
    sleep(SECOND * 9 / 10).await;
    tokens.revoke();
    second.await.unwrap().unwrap();
    first.await.unwrap().unwrap();
    engine.execute(of("a", 2)).await.unwrap();
}

/// An action is cured, and its token is revoked while no other action is asked. Red if a
/// success counts as a proof for longer than a minute.
#[tokio::test(start_paused = true)]
async fn cured_action_recovers_from_a_revocation() {
    let tokens = ScriptedTokens::lasting(24 * 60 * MINUTE);
    let (upstream, broken) = sometimes_broken(&tokens);
    let engine = Engine::builder(upstream.clone()).start().await.unwrap();
    engine.execute(request("0")).await.unwrap_err();
    engine.execute(of("good", 0)).await.unwrap();
    broken.store(false, Ordering::SeqCst);
    tokens.revoke();
    sleep(MINUTE).await;
    engine.execute(request("1")).await.unwrap_err();
    sleep(SECOND).await;
    engine.execute(request("2")).await.unwrap();
}

/// A broken and a healthy action are asked every second, and the refusal comes before the
/// success. Red if a success does not clear a suspicion for which no action waits: a token
/// every half a minute, and a revocation waited for that pace.
#[tokio::test(start_paused = true)]
async fn success_clears_suspicion_of_broken_action() {
    let fetch = || TokenStep::After(SECOND / 5, Box::new(TokenStep::Issue(24 * 60 * MINUTE)));
    let tokens = ScriptedTokens::new(move |_| fetch());
    let upstream = ScriptedUpstream::new(|call| match call.request().action_id().as_str() {
        "bad" => Step::status(401, "{}").after(SECOND / 50),
        _ => Step::ok("{}").after(SECOND / 10),
    });
    let upstream = upstream.with_tokens(tokens.clone());
    let engine = Engine::builder(upstream.clone()).start().await.unwrap();
    let mut slowest = Duration::ZERO;
    for second in 0..900 {
        if second == 575 {
            tokens.revoke();
        }
        let begun = Instant::now();
        let bad = engine.execute(of("bad", second));
        let good = async {
            let answer = engine.execute(of("good", second)).await;
            (answer, begun.elapsed())
        };
        let (bad, (good, took)) = tokio::join!(bad, good);
        bad.unwrap_err();
        good.unwrap();
        slowest = slowest.max(took);
        sleep(SECOND).await;
    }
    assert!(slowest < 2 * SECOND, "{slowest:?}");
    assert!(tokens.fetches() <= 8, "{}", tokens.fetches());
}
