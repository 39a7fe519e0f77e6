//! Bounds, deadlines and settings.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use genesys_once::error::StoreError;
use genesys_once::outcome::StoredBody;
use genesys_once::record::{RecordName, RecordState};
use genesys_once::store::BoxFuture;
use genesys_once::testing::{ScriptedUpstream, Step};
use genesys_once::{
    DataActionRequest, Engine, EngineBuilder, Error, IdempotencyKey, MemoryStore, RetryPolicy,
    Served, Store,
};

use super::{SECOND, request, until};

fn slow() -> ScriptedUpstream {
    ScriptedUpstream::new(|_| Step::ok("{}").after(10 * SECOND))
}

#[tokio::test(start_paused = true)]
async fn caller_deadline_does_not_end_execution() {
    let upstream = slow();
    let engine = Engine::builder(upstream.clone()).start().await.unwrap();
    let error = engine
        .execute_within(request("{}"), SECOND)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::DeadlineExceeded { .. }), "{error}");
    let reply = engine.execute(request("{}")).await.unwrap();
    assert_eq!(reply.served(), Served::Joined);
    assert_eq!(upstream.ledger().total(), 1);
}

/// I2. Red if the execution runs in the caller's future instead of the actor.
#[tokio::test(start_paused = true)]
async fn dropped_caller_affects_no_execution() {
    let upstream = slow();
    let engine = Engine::builder(upstream.clone()).start().await.unwrap();
    let caller = tokio::spawn({
        let engine = engine.clone();
        async move { engine.execute(request("{}")).await }
    });
    upstream.ledger().wait_for(1).await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    let stats = engine.stats();
    assert_eq!(
        (stats.waiting, stats.executions),
        (0, 1),
        "the caller's place is free, the execution's place is not"
    );
    assert_eq!(
        engine.execute(request("{}")).await.unwrap().served(),
        Served::Joined
    );
    assert_eq!(
        engine.execute(request("{}")).await.unwrap().served(),
        Served::Memory
    );
    assert_eq!(upstream.ledger().total(), 1);
    assert_eq!(engine.stats().executions, 0);
}

#[tokio::test(start_paused = true)]
async fn caller_beyond_max_waiting_is_overloaded() {
    let upstream = slow();
    let engine = Engine::builder(upstream.clone())
        .max_waiting(3)
        .start()
        .await
        .unwrap();
    let (one, two) = (engine.clone(), engine.clone());
    let first = tokio::spawn(async move { one.execute(request("{}")).await });
    upstream.ledger().wait_for(1).await;
    let second = tokio::spawn(async move { two.execute(request("{}")).await });
    until("two callers wait", || engine.stats().waiting == 2).await;
    let error = engine.execute(request("{}")).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::Overloaded {
                limit: "max_waiting",
                ..
            }
        ),
        "{error}"
    );
    // A caller that gives up frees its place.
    second.abort();
    assert!(second.await.is_err());
    assert!(engine.execute(request("{}")).await.is_ok());
    assert!(first.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn no_more_calls_than_max_in_flight() {
    let upstream = slow();
    let engine = Engine::builder(upstream.clone())
        .max_in_flight(3)
        .start()
        .await
        .unwrap();
    let callers: Vec<_> = (0..20)
        .map(|n| {
            let engine = engine.clone();
            tokio::spawn(async move { engine.execute(request(&n.to_string())).await })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap().unwrap();
    }
    assert_eq!(
        (
            upstream.ledger().total(),
            upstream.ledger().max_concurrent()
        ),
        (20, 3)
    );
}

#[tokio::test(start_paused = true)]
async fn payloads_and_answers_are_bounded() {
    let upstream = ScriptedUpstream::new(|call| match call.request().payload().as_ref() {
        b"1111111111" => Step::status(409, "x".repeat(101)),
        _ => Step::ok("x".repeat(101)),
    });
    let engine = Engine::builder(upstream.clone())
        .max_payload_bytes(10)
        .max_response_bytes(100)
        .start()
        .await
        .unwrap();
    let error = engine.execute(request(&"1".repeat(11))).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::InvalidRequest {
                field: "payload",
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(upstream.ledger().total(), 0);
    // The bound itself is allowed.
    let error = engine.execute(request(&"1".repeat(10))).await.unwrap_err();
    assert!(matches!(error, Error::Indeterminate { .. }), "{error}");
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("larger than 100 bytes"), "{cause}");
    // The status alone decides success, wherever the reply comes from.
    for served in [Served::Upstream, Served::Store] {
        let reply = engine.execute(request("[]")).await.unwrap();
        let found = (reply.served(), reply.stored_body(), reply.body().len());
        assert_eq!(found, (served, StoredBody::OmittedTooLarge, 0));
        assert!(reply.recorded());
    }
}

#[tokio::test(start_paused = true)]
async fn recent_outcomes_are_bounded_in_bytes() {
    let upstream = ScriptedUpstream::new(|_| Step::ok(format!("\"{}\"", "x".repeat(10_000))));
    let engine = Engine::builder(upstream.clone())
        .recent(50_000, 60 * SECOND)
        .start()
        .await
        .unwrap();
    for n in 0..300 {
        engine.execute(request(&n.to_string())).await.unwrap();
    }
    let mut from_memory = 0;
    // The latest outcomes first: memory keeps those. A request for an outcome makes it one
    // of the latest.
    for n in (0..300).rev() {
        let reply = engine.execute(request(&n.to_string())).await.unwrap();
        from_memory += usize::from(reply.served() == Served::Memory);
    }
    assert!((1..=8).contains(&from_memory), "{from_memory}");
    assert_eq!(upstream.ledger().total(), 300);
}

#[tokio::test(start_paused = true)]
async fn impossible_settings_are_named() {
    type Change = fn(EngineBuilder) -> EngineBuilder;
    let cases: [(&str, Change); 15] = [
        ("lease", |b| b.lease(SECOND / 100)),
        ("lease", |b| b.lease(7200 * SECOND)),
        ("result_ttl", |b| b.result_ttl(Duration::ZERO)),
        ("indeterminate_ttl", |b| b.indeterminate_ttl(SECOND)),
        ("deadline", |b| b.deadline(Duration::ZERO)),
        ("store_timeout", |b| b.store_timeout(31 * SECOND)),
        ("max_in_flight", |b| b.max_in_flight(0)),
        ("max_in_flight_per_action", |b| {
            b.max_in_flight_per_action(0)
        }),
        ("max_waiting", |b| b.max_waiting(1)),
        ("max_payload_bytes", |b| b.max_payload_bytes(0)),
        ("max_response_bytes", |b| b.max_response_bytes(0)),
        ("recent", |b| b.recent(1, Duration::MAX)),
        ("retry", |b| b.retry(RetryPolicy::default().attempts(0))),
        ("retry", |b| {
            b.retry(RetryPolicy::default().backoff(Duration::MAX))
        }),
        ("retry", |b| {
            b.retry(RetryPolicy::default().max_wait(Duration::MAX))
        }),
    ];
    for (name, change) in cases {
        let error = change(Engine::builder(slow())).start().await.unwrap_err();
        let Error::InvalidConfig {
            setting, reason, ..
        } = &error
        else {
            panic!("{error}")
        };
        assert_eq!(*setting, name);
        assert!(!reason.is_empty());
    }
}

/// Red if `ttl` does not clamp.
#[tokio::test(start_paused = true)]
async fn largest_allowed_settings_work() {
    let month = 30 * 24 * 3600 * SECOND;
    let upstream = ScriptedUpstream::new(|call| match call.attempt() {
        1 => Step::status(429, ""),
        _ => Step::ok("{}"),
    });
    let patient = RetryPolicy::default().backoff(month).max_wait(month);
    let engine = Engine::builder(upstream)
        .result_ttl(3650 * 24 * 3600 * SECOND)
        .recent(u64::MAX, 3650 * 24 * 3600 * SECOND)
        .deadline(Duration::MAX)
        .lease(3600 * SECOND)
        .retry(patient)
        .max_in_flight(usize::MAX)
        .max_in_flight_per_action(usize::MAX)
        .max_waiting(usize::MAX)
        .max_payload_bytes(usize::MAX)
        .max_response_bytes(usize::MAX);
    let engine = engine.start().await.unwrap();
    for (ttl, served) in [
        (3650 * 24 * 3600 * SECOND, Served::Upstream),
        (SECOND / 1000, Served::Memory),
    ] {
        let request = request("{}").with_ttl(ttl).unwrap();
        let reply = engine.execute_within(request, Duration::MAX).await.unwrap();
        assert_eq!(reply.served(), served);
    }
    let key = IdempotencyKey::of(&request("{}"));
    let Ok(Some(RecordState::Cached { left, .. })) = engine.inspect(&key).await else {
        panic!("nothing was recorded");
    };
    assert!(left <= 3650 * 24 * 3600 * SECOND, "{left:?}");
    // The shortest time to live is over at once.
    let short = DataActionRequest::new("custom_-_short", "{}").unwrap();
    let short = short.with_ttl(SECOND / 1000).unwrap();
    engine.execute(short).await.unwrap();
    assert!(engine.shutdown(Duration::MAX).await.is_clean());
}

#[tokio::test(start_paused = true)]
async fn invalid_request_is_refused_first() {
    for (id, payload, field) in [
        ("", "{}", "action_id"),
        ("a:b", "{}", "action_id"),
        ("a", "{", "payload"),
    ] {
        let error = DataActionRequest::new(id, payload).unwrap_err();
        let Error::InvalidRequest { field: named, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(*named, field);
    }
    assert_eq!(
        IdempotencyKey::of(&request("{}")),
        IdempotencyKey::of(&request(" { } "))
    );
}

/// A store that notifies without end: each record always "may have changed".
struct Restless {
    store: MemoryStore,
    looks: Arc<AtomicUsize>,
}

impl Store for Restless {
    delegate!(store: apply);

    fn look<'a>(
        &'a self,
        name: &'a RecordName,
    ) -> BoxFuture<'a, Result<Option<RecordState>, StoreError>> {
        self.looks.fetch_add(1, Ordering::SeqCst);
        self.store.look(name)
    }

    fn changed<'a>(&'a self, _: &'a RecordName) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }
}

/// Red without the pause after a notification: a waiter for another process never yields,
/// and the test does not end.
#[tokio::test(start_paused = true)]
async fn endless_notifications_cause_no_busy_loop() {
    let upstream = slow();
    let (store, looks) = (MemoryStore::new(), Arc::default());
    let restless = Restless {
        store: store.clone(),
        looks: Arc::clone(&looks),
    };
    let builder = Engine::builder(upstream.clone());
    let holder = builder.clone().store(store).start().await.unwrap();
    let other = builder.store(restless).start().await.unwrap();
    let first = tokio::spawn(async move { holder.execute(request("{}")).await });
    upstream.ledger().wait_for(1).await;
    let reply = other.execute(request("{}")).await.unwrap();
    assert_eq!(reply.served(), Served::Store);
    assert!(first.await.unwrap().is_ok());
    // One look in 5 ms.
    assert!(looks.load(Ordering::SeqCst) <= 2_001, "{looks:?}");
}
