//! The platform's answers, and what callers and the record get of each.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use genesys_once::genesys::classify;
use genesys_once::outcome::Verdict;
use genesys_once::record::RecordState;
use genesys_once::testing::{ScriptedTokens, ScriptedUpstream, Step, answers};
use genesys_once::{
    Engine, Error, IdempotencyKey, MemoryStore, Outcome, RetryHint, RetryPolicy, Served,
};
use tokio::time::Instant;

use super::{SECOND, request, until};

/// A script of these steps in turn; the last step repeats without end.
fn in_turn(steps: impl IntoIterator<Item = Step>) -> ScriptedUpstream {
    let steps: Vec<Step> = steps.into_iter().collect();
    let calls = AtomicU32::new(0);
    ScriptedUpstream::new(move |_| {
        let call = calls.fetch_add(1, Ordering::SeqCst) as usize;
        steps[call.min(steps.len() - 1)].clone()
    })
}

async fn engine(upstream: &ScriptedUpstream) -> Engine {
    Engine::builder(upstream.clone()).start().await.unwrap()
}

async fn state(engine: &Engine) -> Option<RecordState> {
    engine
        .inspect(&IdempotencyKey::of(&request("{}")))
        .await
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn execution_waits_for_retry_after() {
    let upstream = in_turn([Step::RateLimited(42 * SECOND), Step::ok("{}")]);
    let engine = engine(&upstream).await;
    let start = Instant::now();
    let reply = engine.execute(request("{}")).await.unwrap();
    assert_eq!(
        (reply.status().as_u16(), reply.served()),
        (200, Served::Upstream)
    );
    assert!(start.elapsed() >= 42 * SECOND && start.elapsed() < 44 * SECOND);
    assert_eq!(upstream.ledger().total(), 2);
    assert_eq!(upstream.ledger().executed(&reply.key()), 1);
}

#[tokio::test(start_paused = true)]
async fn platform_429_delays_every_execution() {
    let upstream = in_turn([Step::RateLimited(30 * SECOND), Step::ok("{}")]);
    let engine = engine(&upstream).await;
    let first = tokio::spawn({
        let engine = engine.clone();
        async move { engine.execute(request("{}")).await }
    });
    upstream.ledger().wait_for(1).await;
    until("the cooldown has begun", || {
        !engine.stats().cooldown.is_zero()
    })
    .await;
    let start = Instant::now();
    engine.execute(request("[2]")).await.unwrap();
    assert!(start.elapsed() >= 29 * SECOND, "{:?}", start.elapsed());
    first.await.unwrap().unwrap();
    assert_eq!(upstream.ledger().total(), 3);
}

#[tokio::test(start_paused = true)]
async fn replays_work_during_a_cooldown() {
    let upstream = in_turn([
        Step::ok("{}"),
        Step::RateLimited(100 * SECOND),
        Step::ok("{}"),
    ]);
    let engine = Engine::builder(upstream.clone())
        .recent(0, SECOND)
        .start()
        .await
        .unwrap();
    engine.execute(request("{}")).await.unwrap();
    let held = tokio::spawn({
        let engine = engine.clone();
        async move { engine.execute(request("[2]")).await }
    });
    upstream.ledger().wait_for(2).await;
    until("the cooldown has begun", || {
        !engine.stats().cooldown.is_zero()
    })
    .await;
    let start = Instant::now();
    let reply = engine.execute(request("{}")).await.unwrap();
    assert_eq!(
        (reply.served(), start.elapsed()),
        (Served::Store, Duration::ZERO)
    );
    held.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn too_long_wait_fails_and_frees_key() {
    let upstream = in_turn([Step::RateLimited(181 * SECOND), Step::ok("{}")]);
    let engine = engine(&upstream).await;
    let start = Instant::now();
    let error = engine.execute(request("{}")).await.unwrap_err();
    assert_eq!(error.hint(), RetryHint::After(181 * SECOND));
    assert!(matches!(error, Error::RateLimited { .. }), "{error}");
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert!(matches!(
        state(&engine).await,
        Some(RecordState::Released { .. })
    ));
    // Nothing is cached. Until the platform allows a call, every caller gets the error at
    // once, …
    for payload in ["{}", "[2]"] {
        let error = engine.execute(request(payload)).await.unwrap_err();
        assert!(matches!(error, Error::RateLimited { .. }), "{error}");
    }
    assert_eq!(
        (upstream.ledger().total(), start.elapsed()),
        (1, Duration::ZERO)
    );
    // … and afterwards its request is executed.
    tokio::time::advance(182 * SECOND).await;
    assert!(engine.execute(request("{}")).await.is_ok());
    assert_eq!(upstream.ledger().total(), 2);
}

/// These 429s name no time, so each counts as an attempt; `cooldown.rs` tests those that
/// name a time.
#[tokio::test(start_paused = true)]
async fn attempts_are_bounded() {
    let upstream = in_turn([Step::status(429, "{}")]);
    let engine = engine(&upstream).await;
    let error = engine.execute(request("{}")).await.unwrap_err();
    assert!(matches!(error, Error::RateLimited { .. }), "{error}");
    assert_eq!(upstream.ledger().total(), 3);

    let once = Engine::builder(upstream.clone())
        .retry(RetryPolicy::never())
        .start()
        .await
        .unwrap();
    assert!(once.execute(request("{}")).await.is_err());
    assert_eq!(upstream.ledger().total(), 4);
}

#[tokio::test(start_paused = true)]
async fn unsent_request_is_retried() {
    let upstream = in_turn([Step::Refused, Step::Refused, Step::ok("{}")]);
    assert!(engine(&upstream).await.execute(request("{}")).await.is_ok());

    let upstream = in_turn([Step::Refused]);
    let engine = engine(&upstream).await;
    let error = engine.execute(request("{}")).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    // The key is released, without a refusal.
    assert_eq!(state(&engine).await, None);
}

#[tokio::test(start_paused = true)]
async fn refusal_reaches_all_waiters_unrecorded() {
    let forbidden = answers::platform_error(403, "missing.permissions", "no");
    let upstream = in_turn([Step::Answer(forbidden).after(SECOND), Step::ok("{}")]);
    let builder = Engine::builder(upstream.clone()).store(MemoryStore::new());
    let (one, two) = (
        builder.clone().start().await.unwrap(),
        builder.start().await.unwrap(),
    );
    let (first, joined, elsewhere) = tokio::join!(
        one.execute(request("{}")),
        one.execute(request("{}")),
        two.execute(request("{}"))
    );
    for reply in [first, joined, elsewhere] {
        let reply = reply.unwrap();
        assert_eq!((reply.status().as_u16(), reply.recorded()), (403, false));
    }
    assert_eq!(upstream.ledger().total(), 1);
    // Only a caller that comes after the refusal starts a new execution.
    assert_eq!(
        two.execute(request("{}")).await.unwrap().status().as_u16(),
        200
    );
}

/// Red for memory and for the store if either keeps an outcome with all its headers, and
/// for the waiter if the refusal is stored reduced.
#[tokio::test(start_paused = true)]
async fn cookies_reach_only_callers_of_holder() {
    for status in [200, 403] {
        let step = Step::status(status, "{}").header("x-a", "1");
        let step = step.header("set-cookie", "a=1").header("set-cookie", "b=2");
        let upstream = in_turn([step.header("connection", "close").after(SECOND)]);
        let builder = Engine::builder(upstream.clone()).store(MemoryStore::new());
        let (one, two) = (
            builder.clone().start().await.unwrap(),
            builder.start().await.unwrap(),
        );
        let first = one.execute(request("{}"));
        let (first, elsewhere) = tokio::join!(first, two.execute(request("{}")));
        let first = first.unwrap();
        assert_eq!(first.served(), Served::Upstream);
        assert_eq!(first.headers().get_all("set-cookie").iter().count(), 2);
        assert_eq!(first.header("connection"), Some("close"));
        let mut replays = vec![(Served::Store, elsewhere.unwrap())];
        if status == 200 {
            replays.push((Served::Memory, one.execute(request("{}")).await.unwrap()));
        }
        for (served, reply) in replays {
            assert_eq!((reply.served(), reply.status().as_u16()), (served, status));
            assert_eq!(reply.header("x-a"), Some("1"));
            for name in ["set-cookie", "connection"] {
                assert_eq!(reply.header(name), None, "{served}, {status}");
            }
        }
        assert_eq!(upstream.ledger().total(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn client_error_is_final_and_replayed() {
    let upstream = in_turn([Step::status(400, r#"{"message":"bad input"}"#)]);
    let engine = engine(&upstream).await;
    for served in [Served::Upstream, Served::Memory] {
        let reply = engine.execute(request("{}")).await.unwrap();
        assert_eq!((reply.status().as_u16(), reply.served()), (400, served));
        assert!(reply.recorded() && !reply.is_success());
    }
    assert_eq!(upstream.ledger().total(), 1);
}

#[tokio::test(start_paused = true)]
async fn only_the_refused_token_is_renewed() {
    let tokens = ScriptedTokens::lasting(3600 * SECOND);
    let upstream = in_turn([Step::ok("{}")]).with_tokens(tokens.clone());
    let engine = engine(&upstream).await;
    let many: Vec<_> = (0..100)
        .map(|n| {
            let engine = engine.clone();
            tokio::spawn(async move { engine.execute(request(&n.to_string())).await })
        })
        .collect();
    for one in many {
        one.await.unwrap().unwrap();
    }
    assert_eq!((tokens.fetches(), engine.stats().token_fetches), (1, 1));

    tokens.revoke();
    let reply = engine.execute(request("{}")).await.unwrap();
    assert_eq!(reply.status().as_u16(), 200);
    assert_eq!(tokens.fetches(), 2);
    // One of the calls was refused: proven not executed.
    assert_eq!(upstream.ledger().total(), 102);
    assert_eq!(upstream.ledger().executed(&reply.key()), 1);
}

#[tokio::test(start_paused = true)]
async fn refused_fresh_token_is_unauthorized() {
    let upstream = in_turn([Step::status(401, "{}").header("inin-correlation-id", "c-1")])
        .with_tokens(ScriptedTokens::lasting(3600 * SECOND));
    let engine = engine(&upstream).await;
    let error = engine.execute(request("{}")).await.unwrap_err();
    let Error::Unauthorized { correlation_id, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(correlation_id.as_deref(), Some("c-1"));
    assert_eq!(upstream.ledger().total(), 2);
    // The key is released, without a refusal.
    assert_eq!(state(&engine).await, None);
}

#[tokio::test(start_paused = true)]
async fn custom_classify_can_fall_back() {
    let upstream = in_turn([Step::status(503, "{}")]);
    let engine = Engine::builder(upstream.clone())
        .classify(|outcome: &Outcome| match outcome.status().as_u16() {
            503 => Verdict::Final,
            _ => classify::genesys(outcome),
        })
        .start()
        .await
        .unwrap();
    assert_eq!(
        engine
            .execute(request("{}"))
            .await
            .unwrap()
            .status()
            .as_u16(),
        503
    );
    assert_eq!(
        engine.execute(request("{}")).await.unwrap().served(),
        Served::Memory
    );
    assert_eq!(upstream.ledger().total(), 1);
}

#[tokio::test(start_paused = true)]
async fn key_goes_with_every_attempt() {
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let upstream = ScriptedUpstream::new({
        let seen = seen.clone();
        move |call| {
            seen.lock().unwrap().push((call.key(), call.attempt()));
            if call.attempt() < 3 {
                Step::RateLimited(SECOND)
            } else {
                Step::ok("{}")
            }
        }
    });
    let reply = engine(&upstream)
        .await
        .execute(request("{}"))
        .await
        .unwrap();
    let key = reply.key();
    assert_eq!(*seen.lock().unwrap(), [(key, 1), (key, 2), (key, 3)]);
}

/// Red if a compressed body that does not declare its compression counts as searched: the
/// remote endpoint's code inside is not seen, and the request is sent again.
#[tokio::test(start_paused = true)]
async fn compressed_refusal_proves_nothing() {
    // zlib and raw deflate of {"details":[{"errorCode":"ACTION.REMOTE_ENDPOINT"}]}
    let body: &[u8] = include_bytes!("remote_error.zlib");
    for body in [body, &body[2..body.len() - 4]] {
        let body = body.to_vec();
        let upstream = ScriptedUpstream::new(move |call| match call.attempt() {
            1 => Step::status(429, body.clone()),
            _ => Step::ok("{}"),
        });
        let engine = Engine::builder(upstream.clone()).start().await.unwrap();
        let answer = engine.execute(request("{}")).await;
        assert!(
            matches!(answer, Err(Error::Indeterminate { .. })),
            "{answer:?}"
        );
        assert_eq!(upstream.ledger().total(), 1);
    }
}
