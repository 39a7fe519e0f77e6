//! The access token: one fetch for any number of callers, a renewal before it expires, and a
//! backoff while it cannot be obtained.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use genesys_once::error::{SendError, TokenError};
use genesys_once::record::Namespace;
use genesys_once::store::BoxFuture;
use genesys_once::testing::{ScriptedTokens, ScriptedUpstream, Step, TokenStep};
use genesys_once::upstream::{AccessToken, Call, TokenSource};
use genesys_once::{Engine, Error, Outcome, RetryHint, Served, Upstream};
use tokio::time::{Instant, sleep};

use super::{SECOND, child, request};

async fn engine(tokens: &ScriptedTokens) -> (Engine, ScriptedUpstream) {
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}")).with_tokens(tokens.clone());
    let builder = Engine::builder(upstream.clone()).recent(0, SECOND);
    (builder.start().await.unwrap(), upstream)
}

fn failing(until: usize, error: fn() -> TokenError) -> ScriptedTokens {
    ScriptedTokens::new(move |fetch| {
        if fetch <= until {
            TokenStep::Fail(error())
        } else {
            TokenStep::Issue(3600 * SECOND)
        }
    })
}

/// Red without the timer of the renewal.
#[tokio::test(start_paused = true)]
async fn token_is_renewed_before_it_expires() {
    let tokens = ScriptedTokens::lasting(600 * SECOND);
    let (engine, upstream) = engine(&tokens).await;
    assert_eq!(
        tokens.fetches(),
        0,
        "nothing is fetched before a caller needs a token"
    );
    engine.execute(request("[0]")).await.unwrap();
    for n in 1..=20 {
        sleep(599 * SECOND).await;
        assert!(tokens.fetches() > n, "{n}: {}", tokens.fetches());
        let start = Instant::now();
        engine.execute(request(&n.to_string())).await.unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
    // No call was sent with a refused token.
    assert_eq!(upstream.ledger().total(), 21);
    let valid = engine.stats().token_valid_for.unwrap();
    assert!(valid > Duration::ZERO && valid <= 540 * SECOND, "{valid:?}");
}

#[tokio::test(start_paused = true)]
async fn passing_token_failure_is_retried() {
    let tokens = failing(2, || TokenError::new("connection refused"));
    let (engine, _) = engine(&tokens).await;
    engine.execute(request("{}")).await.unwrap();
    assert_eq!(tokens.fetches(), 3);
}

/// Red if a failure is not remembered: every caller then asks the endpoint.
#[tokio::test(start_paused = true)]
async fn lasting_token_failure_backs_off_and_heals() {
    let tokens = failing(9, || TokenError::new("connection refused"));
    let (engine, upstream) = engine(&tokens).await;
    for n in 0..50 {
        let error = engine.execute(request(&n.to_string())).await.unwrap_err();
        assert!(matches!(error, Error::Token { .. }), "{error}");
        assert!(matches!(error.hint(), RetryHint::After(_)));
    }
    assert_eq!((tokens.fetches(), upstream.ledger().total()), (3, 0));
    let start = Instant::now();
    while engine.execute(request("{}")).await.is_err() {
        sleep(SECOND).await;
        assert!(start.elapsed() < 300 * SECOND, "every call still fails");
    }
    assert_eq!(tokens.fetches(), 10);
}

#[tokio::test(start_paused = true)]
async fn refused_client_fails_at_once() {
    let tokens = failing(1000, || TokenError::rejected("invalid_client"));
    let (engine, upstream) = engine(&tokens).await;
    let start = Instant::now();
    let error = engine.execute(request("{}")).await.unwrap_err();
    assert_eq!(
        (error.hint(), start.elapsed()),
        (RetryHint::Never, Duration::ZERO)
    );
    assert_eq!((tokens.fetches(), upstream.ledger().total()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn limited_token_endpoint_is_left_alone() {
    let tokens = failing(1, || TokenError::rate_limited(60 * SECOND));
    let (engine, _) = engine(&tokens).await;
    for _ in 0..3 {
        let error = engine.execute(request("{}")).await.unwrap_err();
        assert_eq!(error.hint(), RetryHint::After(60 * SECOND));
    }
    assert_eq!(tokens.fetches(), 1);
    sleep(60 * SECOND).await;
    assert!(engine.execute(request("{}")).await.is_ok());
}

/// Red if the time that a source names is added to a clock unchecked: the actor then panics
/// again and again, and no token is ever fetched again.
#[tokio::test(start_paused = true)]
async fn endless_retry_after_is_a_long_wait() {
    let tokens = failing(1, || TokenError::rate_limited(Duration::MAX));
    let (engine, _) = engine(&tokens).await;
    for _ in 0..10 {
        let error = engine.execute(request("{}")).await.unwrap_err();
        assert_eq!(error.hint(), RetryHint::After(3600 * SECOND));
    }
    assert_eq!(tokens.fetches(), 1);
    // A peer gets an hour at most.
    sleep(3000 * SECOND).await;
    let error = engine.execute(request("{}")).await.unwrap_err();
    assert_eq!(error.hint(), RetryHint::After(600 * SECOND));
    sleep(600 * SECOND).await;
    assert!(engine.execute(request("{}")).await.is_ok());
}

/// Seen red: an operator could do nothing about the endpoint's cooldown.
#[tokio::test(start_paused = true)]
async fn operator_ends_the_endpoints_cooldown() {
    let tokens = failing(1, || TokenError::rate_limited(3600 * SECOND));
    let (engine, _) = engine(&tokens).await;
    assert!(engine.execute(request("{}")).await.is_err());
    engine.end_cooldown();
    assert!(engine.execute(request("{}")).await.is_ok());
    assert_eq!(tokens.fetches(), 2);
}

/// Seen red: one execution asked the endpoint as fast as it answered, 21,202 times in 3 s
/// over HTTP, and went on after its caller had left.
#[tokio::test(start_paused = true)]
async fn zero_retry_after_still_backs_off() {
    let instant = |n: usize| Duration::from_millis(n as u64 % 2);
    let tokens = ScriptedTokens::new(move |fetch| {
        let refuse = TokenStep::Fail(TokenError::rate_limited(instant(fetch)));
        // Each answer takes a moment; otherwise paused time does not move.
        TokenStep::After(SECOND / 1000, Box::new(refuse))
    });
    let (engine, upstream) = engine(&tokens).await;
    let limit = 3 * SECOND;
    let error = engine
        .execute_within(request("{}"), limit)
        .await
        .unwrap_err();
    let RetryHint::After(wait) = error.hint() else {
        panic!("{error}")
    };
    assert!(wait >= SECOND / 2, "{error:?}");
    sleep(SECOND * 60).await;
    assert_eq!(tokens.fetches(), 1, "no waiter, no fetch");
    // Callers that ask again at once cause no further fetch.
    let start = Instant::now();
    while start.elapsed() < 60 * SECOND {
        assert!(engine.execute(request("{}")).await.is_err());
        sleep(SECOND / 100).await;
    }
    let fetches = tokens.fetches();
    assert!(fetches <= 8, "{fetches}");
    assert_eq!(upstream.ledger().total(), 0);
}

/// Seen red: the background renewal asked as fast as the endpoint refused, and at the
/// token's end the time that the endpoint had asked for was forgotten.
#[tokio::test(start_paused = true)]
async fn limited_renewal_leaves_endpoint_alone() {
    for (asked, most) in [(0, 5), (1, 5), (300, 2)] {
        let tokens = ScriptedTokens::new(move |fetch| match fetch {
            1 => TokenStep::Issue(100 * SECOND),
            _ => TokenStep::After(
                SECOND / 1000,
                Box::new(TokenStep::Fail(TokenError::rate_limited(asked * SECOND))),
            ),
        });
        let (engine, _) = engine(&tokens).await;
        engine.execute(request("0")).await.unwrap();
        // The renewal is due after 80 s; the token is good for 90 s.
        sleep(89 * SECOND).await;
        engine.execute(request("1")).await.unwrap();
        assert!(
            tokens.fetches() <= most + 1,
            "{asked}: {}",
            tokens.fetches()
        );
        sleep(2 * SECOND).await;
        let before = tokens.fetches();
        let error = engine.execute(request("2")).await.unwrap_err();
        assert!(matches!(error, Error::Token { .. }), "{error}");
        if asked == 300 {
            assert_eq!(tokens.fetches(), before, "the endpoint's time is not over");
            let left = error.hint();
            assert!(
                matches!(left, RetryHint::After(wait) if wait > 280 * SECOND),
                "{left:?}"
            );
        }
    }
}

/// Seen red: a token of 1 s was renewed every 0.8 s without end.
#[tokio::test(start_paused = true)]
async fn short_lived_token_is_renewed_on_demand() {
    for life in [1, 10, 59] {
        let tokens = ScriptedTokens::lasting(life * SECOND);
        let (engine, upstream) = engine(&tokens).await;
        engine.execute(request("0")).await.unwrap();
        sleep(600 * SECOND).await;
        assert_eq!(tokens.fetches(), 1, "no caller needs a token");
        engine.execute(request("1")).await.unwrap();
        engine.execute(request("2")).await.unwrap();
        assert_eq!((tokens.fetches(), upstream.ledger().total()), (2, 3));
    }
    let tokens = ScriptedTokens::lasting(60 * SECOND);
    let (engine, _) = engine(&tokens).await;
    engine.execute(request("0")).await.unwrap();
    sleep(600 * SECOND).await;
    assert!(tokens.fetches() > 10);
}

#[tokio::test(start_paused = true)]
async fn token_survives_failed_renewals() {
    let tokens = ScriptedTokens::new(|fetch| match fetch {
        1 => TokenStep::Issue(600 * SECOND),
        2..=4 => TokenStep::Fail(TokenError::new("down")),
        _ => TokenStep::Issue(600 * SECOND),
    });
    let (engine, upstream) = engine(&tokens).await;
    for n in 0..100 {
        engine.execute(request(&n.to_string())).await.unwrap();
        sleep(10 * SECOND).await;
    }
    assert_eq!(upstream.ledger().total(), 100);
    assert!(tokens.fetches() >= 5);
}

/// Red if the engine waits for the token before it looks at the record.
#[tokio::test(start_paused = true)]
async fn replays_need_no_token() {
    let tokens = ScriptedTokens::new(|fetch| match fetch {
        1 => TokenStep::Issue(600 * SECOND),
        _ => TokenStep::Silent,
    });
    let (engine, upstream) = engine(&tokens).await;
    engine.execute(request("{}")).await.unwrap();
    sleep(1000 * SECOND).await;
    assert_eq!(engine.stats().token_valid_for, None);
    let start = Instant::now();
    let replay = engine.execute(request("{}")).await.unwrap();
    assert_eq!(
        (replay.served(), start.elapsed()),
        (Served::Store, Duration::ZERO)
    );
    // An endpoint that never answers causes an error in the end, not a hang.
    let error = engine.execute(request("[1]")).await.unwrap_err();
    assert!(matches!(error, Error::Token { .. }), "{error}");
    assert_eq!(upstream.ledger().total(), 1);
}

/// Red if a restarted actor does not set its timer again: the token then expires unnoticed,
/// and the next caller waits for a fetch.
#[tokio::test(start_paused = true)]
async fn restarted_token_actor_renews_in_background() {
    let tokens = ScriptedTokens::lasting(600 * SECOND);
    let (engine, upstream) = engine(&tokens).await;
    let actor = child(&engine, 1);
    engine.execute(request("[0]")).await.unwrap();
    actor.kill();
    sleep(599 * SECOND).await;
    assert!(tokens.fetches() > 1);
    assert_ne!(child(&engine, 1).get_id(), actor.get_id());
    let start = Instant::now();
    engine.execute(request("[1]")).await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(upstream.ledger().total(), 2);
}

/// A panic counts as a failed fetch, however often it happens. Red if it kills the actor:
/// after six panics no token was ever fetched again.
#[tokio::test(start_paused = true)]
async fn panicking_source_is_asked_again() {
    let tokens = ScriptedTokens::new(|fetch| match fetch {
        1..=20 => TokenStep::Panic,
        _ => TokenStep::Issue(3600 * SECOND),
    });
    let (engine, upstream) = engine(&tokens).await;
    let actor = child(&engine, 1).get_id();
    let error = engine.execute(request("{}")).await.unwrap_err();
    assert!(matches!(error, Error::Token { .. }), "{error}");
    assert!(matches!(error.hint(), RetryHint::After(_)));
    let start = Instant::now();
    while engine.execute(request("{}")).await.is_err() {
        sleep(SECOND).await;
        assert!(start.elapsed() < 600 * SECOND, "every call still fails");
    }
    assert_eq!((tokens.fetches(), upstream.ledger().total()), (21, 1));
    // The flight actors have stopped by then.
    sleep(60 * SECOND).await;
    assert_eq!(
        child(&engine, 1).get_id(),
        actor,
        "the token actor never died"
    );
}

/// Panics before it returns a future; later calls go to the scripted source.
struct EagerPanic(AtomicUsize, ScriptedTokens);

impl TokenSource for EagerPanic {
    fn fetch(&self) -> BoxFuture<'_, Result<AccessToken, TokenError>> {
        assert!(self.0.fetch_add(1, Ordering::SeqCst) >= 10, "no future");
        self.1.fetch()
    }
}

#[derive(Clone)]
struct WithSource(ScriptedUpstream, Arc<EagerPanic>);

impl Upstream for WithSource {
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

    fn token_source(&self) -> Option<Arc<dyn TokenSource>> {
        Some(self.1.clone())
    }
}

/// Red if only the future of the source is guarded.
#[tokio::test(start_paused = true)]
async fn panicking_token_source_is_asked_again() {
    let tokens = ScriptedTokens::lasting(3600 * SECOND);
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}")).with_tokens(tokens.clone());
    let source = EagerPanic(AtomicUsize::new(0), tokens);
    let upstream = WithSource(upstream, Arc::new(source));
    let engine = Engine::builder(upstream).start().await.unwrap();
    let actor = child(&engine, 1).get_id();
    let start = Instant::now();
    while engine.execute(request("{}")).await.is_err() {
        sleep(SECOND).await;
        assert!(start.elapsed() < 600 * SECOND, "every call still fails");
    }
    sleep(60 * SECOND).await;
    assert_eq!(
        child(&engine, 1).get_id(),
        actor,
        "the token actor never died"
    );
}
