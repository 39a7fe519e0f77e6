//! I6: each answer belongs to one request and one lease. Answers of lost holders, refusals of
//! other requests, forgotten outcomes, and what is recorded before each attempt.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use genesys_once::error::StoreError;
use genesys_once::record::{Answer, Event, RecordName, RecordState, Version};
use genesys_once::store::BoxFuture;
use genesys_once::testing::{Fault, FaultyStore, ScriptedUpstream, Step};
use genesys_once::{
    DataActionRequest, Engine, Error, IdempotencyKey, MemoryStore, OnUnknown, Outcome, Reply,
    Resolution, RetryPolicy, Store,
};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::{SECOND, request};

pub(super) const FIRST: &str = r#"{"customer":"first"}"#;
pub(super) const SECOND_ONE: &str = r#"{"customer":"second"}"#;

pub(super) fn order(payload: &str) -> DataActionRequest {
    request(payload).with_key("order-42").unwrap()
}

pub(super) fn key() -> IdempotencyKey {
    IdempotencyKey::of(&order("0"))
}

pub(super) fn answer(body: &str) -> Outcome {
    Outcome::new(
        http::StatusCode::OK,
        http::HeaderMap::new(),
        body.to_owned(),
    )
}

pub(super) fn ask(engine: &Engine, request: DataActionRequest) -> JoinHandle<Result<Reply, Error>> {
    let engine = engine.clone();
    tokio::spawn(async move { engine.execute(request).await })
}

/// A store without notifications, in which the function alters each state that a look
/// returns.
#[derive(Clone)]
pub(super) struct AlteredStore(pub(super) MemoryStore, pub(super) fn(&mut RecordState));

impl Store for AlteredStore {
    delegate!(0: apply);

    fn look<'a>(
        &'a self,
        name: &'a RecordName,
    ) -> BoxFuture<'a, Result<Option<RecordState>, StoreError>> {
        Box::pin(async move {
            let mut state = self.0.look(name).await?;
            state.iter_mut().for_each(self.1);
            Ok(state)
        })
    }
}

/// A store without notifications: waiters poll.
pub(super) fn silent(store: &MemoryStore) -> AlteredStore {
    AlteredStore(store.clone(), |_| ())
}

/// Red without the comparison of a released record's fingerprint in
/// `Execution::read`: the waiter was given the second request's 403.
#[tokio::test(start_paused = true)]
async fn remote_waiter_gets_no_foreign_refusal() {
    let upstream =
        ScriptedUpstream::new(
            |call| match call.request().payload().as_ref() == FIRST.as_bytes() {
                true if call.attempt() == 1 => Step::Refused.after(5 * SECOND),
                true => Step::ok("\"first\""),
                false => Step::status(403, "second").after(SECOND / 10),
            },
        );
    let store = MemoryStore::new();
    let one = Engine::builder(upstream.clone())
        .store(store.clone())
        .retry(RetryPolicy::never());
    let one = one.start().await.unwrap();
    let other = Engine::builder(upstream.clone()).store(silent(&store));
    let other = other.start().await.unwrap();
    let first = ask(&one, order(FIRST));
    sleep(SECOND / 1000).await;
    let waiter = ask(&other, order(FIRST));
    assert_eq!(first.await.unwrap().unwrap_err().code(), "unreachable");
    let second = one.execute(order(SECOND_ONE)).await.unwrap();
    assert_eq!(second.body(), "second");
    match waiter.await.unwrap() {
        Ok(reply) => assert_eq!(reply.body(), "\"first\""),
        Err(error) => assert!(matches!(error, Error::Unreachable { .. }), "{error}"),
    }
}

/// A holder whose commands do not reach the store during its call of one minute, and
/// another engine that meanwhile finds the key indeterminate.
struct CutOff {
    upstream: ScriptedUpstream,
    holder: Engine,
    other: Engine,
    asked: JoinHandle<Result<Reply, Error>>,
    version: Version,
}

async fn cut_off() -> CutOff {
    let upstream = ScriptedUpstream::new(|_| Step::ok("7").after(60 * SECOND));
    let store = MemoryStore::new();
    let start = Instant::now();
    let cut_off = FaultyStore::new(store.clone(), move |_| {
        let cut = start.elapsed() > SECOND && start.elapsed() < 45 * SECOND;
        if cut { Fault::Fail } else { Fault::Pass }
    });
    let holder = Engine::builder(upstream.clone()).store(cut_off);
    let holder = holder.start().await.unwrap();
    let other = Engine::builder(upstream.clone()).store(store);
    let other = other.start().await.unwrap();
    let asked = ask(&holder, order(FIRST));
    upstream.ledger().wait_for(1).await;
    sleep(35 * SECOND).await;
    let error = other.execute(order(FIRST)).await.unwrap_err();
    let Error::Indeterminate { version, .. } = error else {
        panic!("{error}");
    };
    CutOff {
        upstream,
        holder,
        other,
        asked,
        version,
    }
}

/// Red if a record that was resolved as applied keeps the lost holder's lease: both answers
/// said that they were recorded.
#[tokio::test(start_paused = true)]
async fn late_answer_never_overwrites_operators_outcome() {
    let CutOff {
        upstream,
        holder,
        other,
        asked,
        version,
    } = cut_off().await;
    let resolution = Resolution::applied(answer("X"));
    other.resolve(&key(), version, resolution).await.unwrap();
    let reply = asked.await.unwrap().unwrap();
    assert_eq!(
        (reply.body().as_ref(), reply.recorded()),
        (&b"7"[..], false)
    );
    for engine in [&holder, &other] {
        let reply = engine.execute(order(FIRST)).await.unwrap();
        assert_eq!((reply.body().as_ref(), reply.recorded()), (&b"X"[..], true));
    }
    assert_eq!(upstream.ledger().total(), 1);
}

/// After `not_applied` the lost holder's lease stays in the record, so that its late answer
/// is accepted.
#[tokio::test(start_paused = true)]
async fn late_answer_heals_not_applied_key() {
    let CutOff {
        other,
        asked,
        version,
        ..
    } = cut_off().await;
    let resolution = Resolution::not_applied();
    let early = other.resolve(&key(), version, resolution.clone()).await;
    assert!(matches!(early, Err(Error::TooEarly { .. })), "{early:?}");
    // The operator overrides the clocks, and is wrong.
    let resolution = resolution.despite_clocks();
    other.resolve(&key(), version, resolution).await.unwrap();
    let reply = asked.await.unwrap().unwrap();
    assert_eq!((reply.body().as_ref(), reply.recorded()), (&b"7"[..], true));
    let reply = other.execute(order(FIRST)).await.unwrap();
    assert_eq!((reply.body().as_ref(), reply.recorded()), (&b"7"[..], true));
}

/// Red if the record that `forget` leaves keeps the holder's lease: the holder's second try
/// wrote the forgotten outcome again.
#[tokio::test(start_paused = true)]
async fn holder_never_restores_forgotten_outcome() {
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}"));
    let store = MemoryStore::new();
    let completes = Arc::new(AtomicUsize::new(0));
    let faulty = FaultyStore::new(store.clone(), {
        let completes = completes.clone();
        move |operation| match operation.event {
            Some(Event::Complete { .. }) => match completes.fetch_add(1, Ordering::SeqCst) {
                0 => Fault::LoseReply,
                _ => Fault::After(SECOND, Box::new(Fault::Pass)),
            },
            _ => Fault::Pass,
        }
    });
    let holder = Engine::builder(upstream.clone()).store(faulty);
    let holder = holder.start().await.unwrap();
    let other = Engine::builder(upstream.clone()).store(store.clone());
    let other = other.start().await.unwrap();
    let asked = ask(&holder, order(FIRST));
    while completes.load(Ordering::SeqCst) == 0 {
        sleep(SECOND / 100).await;
    }
    assert_eq!(
        other.forget(&key()).await.unwrap(),
        genesys_once::engine::Forgotten::Outcome
    );
    assert_eq!(other.inspect(&key()).await.unwrap(), None);
    assert_eq!(other.indeterminate(10).await.unwrap().keys, []);
    assert_eq!(
        other.forget(&key()).await.unwrap(),
        genesys_once::engine::Forgotten::Nothing
    );
    assert!(!asked.await.unwrap().unwrap().recorded());
    sleep(5 * SECOND).await;
    other.execute(order(FIRST)).await.unwrap();
    assert_eq!(upstream.ledger().total(), 2);
}

/// Red if only the caller's own `ttl` counts: the other process found nothing and executed
/// again.
#[tokio::test(start_paused = true)]
async fn short_ttl_still_reaches_remote_waiter() {
    for ttl in [1, 400, 900] {
        let upstream =
            ScriptedUpstream::new(|_| Step::ok("{}").after(Duration::from_millis(4_600)));
        let store = MemoryStore::new();
        let one = Engine::builder(upstream.clone()).store(store.clone());
        let one = one.start().await.unwrap();
        let other = Engine::builder(upstream.clone()).store(silent(&store));
        let other = other.start().await.unwrap();
        let short = order(FIRST).with_ttl(Duration::from_millis(ttl)).unwrap();
        let first = ask(&one, short.clone());
        upstream.ledger().wait_for(1).await;
        other.execute(short).await.unwrap();
        first.await.unwrap().unwrap();
        assert_eq!(upstream.ledger().total(), 1, "{ttl} ms");
    }
}

/// This holds under `OnUnknown::Retry`, too. Red if a further attempt of an execution with
/// an unknown outcome writes nothing.
#[tokio::test(start_paused = true)]
async fn attempt_is_recorded_before_its_call() {
    let store = MemoryStore::new();
    let wall = SystemTime::UNIX_EPOCH + 1_000_000 * SECOND;
    let upstream = ScriptedUpstream::new(|call| match call.attempt() {
        1 => Step::Reset,
        2 => Step::RateLimited(7 * SECOND),
        _ => Step::ok("{}").after(SECOND),
    });
    let engine = Engine::builder(upstream.clone())
        .store(store.clone())
        .on_unknown(OnUnknown::Retry)
        .deterministic(3, wall);
    let engine = engine.start().await.unwrap();
    let began = Instant::now();
    let asked = ask(&engine, order(FIRST));
    let mut written = Vec::new();
    for attempt in 1..=3 {
        upstream.ledger().wait_for(attempt).await;
        let state = engine.inspect(&key()).await.unwrap();
        let Some(RecordState::Locked {
            attempts, revision, ..
        }) = state
        else {
            panic!("{attempt}: {state:?}");
        };
        assert_eq!(attempts.count as usize, attempt);
        assert_eq!(attempts.sent, Some(wall + began.elapsed()), "{attempt}");
        written.push(revision.rev);
    }
    assert!(written.is_sorted_by(|one, next| one < next), "{written:?}");
    asked.await.unwrap().unwrap();
}

/// Red if a record that changes with each look is an error: an outage was reported with the
/// store up.
#[tokio::test(start_paused = true)]
async fn contended_key_is_no_outage() {
    /// Releases the key in another holder's name before each take-over.
    struct Busy(MemoryStore, AtomicUsize);
    impl Store for Busy {
        delegate!(0: look);

        fn apply<'a>(
            &'a self,
            name: &'a RecordName,
            event: Event,
        ) -> BoxFuture<'a, Result<Answer, StoreError>> {
            Box::pin(async move {
                if let Event::TakeOver { claim, .. } = &event
                    && self.1.fetch_add(1, Ordering::SeqCst) < 20
                {
                    let claim = genesys_once::record::Claim {
                        lease: genesys_once::record::LeaseId::random(),
                        ..claim.clone()
                    };
                    let other = Event::Release {
                        claim,
                        step: 9,
                        refusal: None,
                    };
                    self.0.apply(name, other).await?;
                }
                self.0.apply(name, event).await
            })
        }
    }
    let refuses = ScriptedUpstream::new(|_| Step::status(403, "{}"));
    let store = MemoryStore::new();
    let engine = Engine::builder(refuses).store(store.clone());
    engine
        .start()
        .await
        .unwrap()
        .execute(order(FIRST))
        .await
        .unwrap();
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}"));
    let busy = Busy(store, AtomicUsize::new(0));
    let engine = Engine::builder(upstream.clone()).store(busy);
    let engine = engine.start().await.unwrap();
    let reply = engine.execute(order(FIRST)).await.unwrap();
    assert!(reply.is_success() && reply.recorded());
    assert_eq!(upstream.ledger().total(), 1);
}
