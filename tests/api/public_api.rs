//! Programs that embed the crate: a service with two organisations, an actor application that
//! supervises the engine, and a test suite with the feature `testing`. Above all they must
//! compile; some of their behaviour is asserted.

mod own_implementations;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use genesys_once::engine::{Drained, Stats};
use genesys_once::error::{StoreError, TokenError};
use genesys_once::genesys::{ClientAuth, Route, classify};
use genesys_once::outcome::{Recovery, Verdict};
use genesys_once::record::{
    self, Answer, Attempts, Claim, Event, LeaseId, Phase, RecordName, RecordState,
};
use genesys_once::testing::{
    GenesysSimulator, Ledger, ScriptedUpstream, Step, every_error, store_conformance, strategies,
};
use genesys_once::upstream::Call;
use genesys_once::{
    Credentials, DataActionRequest, Engine, EngineBuilder, EngineMessage, Environment, Error,
    GenesysCloud, IdempotencyKey, MemoryStore, OnDuplicate, OnUnknown, Outcome, Reply, Resolution,
    RetryHint, RetryPolicy, Served, Store, Upstream, canonical,
};
use http::{HeaderMap, StatusCode};
use own_implementations::{Counting, Own, OwnTokens};
use proptest::prelude::*;
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent, call_t};
use serde_json::{Value, json};

/// Each setting, with its type.
fn tuned(upstream: impl Upstream, store: impl Store) -> EngineBuilder {
    Engine::builder(upstream)
        .store(store)
        .namespace("two.organisations_1".parse().unwrap())
        .on_duplicate(OnDuplicate::Wait)
        .on_unknown(OnUnknown::Hold)
        .retry(RetryPolicy::default())
        .classify(|outcome| match outcome.status().as_u16() {
            418 => Verdict::NotExecuted(Recovery::PassThrough),
            _ => classify::genesys(outcome),
        })
        .reconcile(|request: DataActionRequest, error: Error| async move {
            let _ = (request, error);
            None::<Resolution>
        })
        .result_ttl(Duration::from_secs(3600))
        .indeterminate_ttl(Duration::from_secs(7200))
        .lease(Duration::from_secs(10))
        .deadline(Duration::from_secs(60))
        .store_timeout(Duration::from_secs(1))
        .max_in_flight(10)
        .max_waiting(1_000)
        .max_payload_bytes(1 << 16)
        .max_response_bytes(1 << 16)
        .recent(1 << 20, Duration::from_secs(10))
}

/// A service's HTTP status and body for an answer.
fn respond(answer: Result<Reply, Error>) -> (u16, String) {
    match answer {
        Ok(reply) => {
            let _: (&HeaderMap, &Bytes, &Arc<Outcome>, bool, bool) = (
                reply.headers(),
                reply.body(),
                reply.outcome(),
                reply.recorded(),
                reply.is_success(),
            );
            let _: Option<&str> = reply.header("inin-correlation-id");
            let replayed = matches!(
                reply.served(),
                Served::Memory | Served::Store | Served::Joined
            );
            (reply.status().as_u16(), format!("replayed: {replayed}"))
        }
        Err(error) => {
            let status = match &error {
                Error::InvalidRequest { field, reason, .. } => {
                    let _: (&&'static str, &Arc<str>) = (field, reason);
                    400
                }
                Error::PayloadMismatch { key, .. } | Error::InProgress { key, .. } => {
                    let _: &IdempotencyKey = key;
                    409
                }
                Error::Indeterminate {
                    key, since, cause, ..
                } => {
                    let _: (&IdempotencyKey, &SystemTime, &str) = (key, since, cause);
                    502
                }
                Error::RateLimited { retry_after, .. } => {
                    let _: &Duration = retry_after;
                    429
                }
                Error::Unauthorized { correlation_id, .. } => {
                    let _: &Option<Arc<str>> = correlation_id;
                    502
                }
                Error::Unreachable { source, .. } => 502 + u16::from(source.may_have_left()),
                Error::Token { source, .. } => source.to_string().len() as u16,
                Error::StoreUnavailable { source, .. } => source.to_string().len() as u16,
                Error::RecordUnreadable { .. } | Error::Crashed { .. } => 500,
                Error::Overloaded { limit, .. } => limit.len() as u16,
                Error::DeadlineExceeded { .. } => 504,
                Error::NotIndeterminate { .. } => 409,
                Error::Stopped => 503,
                Error::InvalidConfig { setting, .. } => setting.len() as u16,
                _ => 500,
            };
            let hint = match error.hint() {
                RetryHint::Never => 0,
                RetryHint::After(wait) => wait.as_secs(),
                RetryHint::Resolve => 1,
                _ => 2,
            };
            (status, format!("{} {hint} {:?}", error.code(), error.key()))
        }
    }
}

#[tokio::test]
async fn service_with_two_organisations_works() {
    let store = Counting(MemoryStore::new());
    let one = tuned(Own(Arc::new(OwnTokens)), store.clone())
        .start()
        .await
        .unwrap();
    let two = tuned(ScriptedUpstream::new(|_| Step::Refused), store)
        .namespace("other".parse().unwrap())
        .retry(RetryPolicy::never())
        .start()
        .await
        .unwrap();
    let request = |payload: Value| {
        DataActionRequest::new("custom_-_1", &payload)
            .unwrap()
            .with_ttl(Duration::from_secs(30))
            .unwrap()
            .with_scope("monday")
            .and_then(|request| request.ignoring(["/timestamp"]))
            .unwrap()
    };
    let reply = one.execute(request(json!({"a": 1, "timestamp": 5}))).await;
    assert_eq!(respond(reply), (200, "replayed: false".into()));
    let reply = one.execute_within(
        request(json!({"a": 1, "timestamp": 6})),
        Duration::from_secs(5),
    );
    assert_eq!(respond(reply.await), (200, "replayed: true".into()));
    // Another organisation shares no record (I8). Red with one namespace for all.
    let key = IdempotencyKey::of(&request(json!({"a": 1})));
    assert!(two.inspect(&key).await.unwrap().is_none());
    assert_eq!(
        two.execute(request(json!({"a": 1})))
            .await
            .unwrap_err()
            .code(),
        "unreachable"
    );

    match one.inspect(&key).await.unwrap() {
        Some(RecordState::Cached { stored, left, .. }) => {
            assert_eq!(stored.outcome.status(), 200);
            assert!(left <= Duration::from_secs(30));
        }
        other => panic!("{other:?}"),
    }
    let state = one.inspect(&key).await.unwrap().unwrap();
    let resolved = one.resolve(&key, &state, Resolution::not_applied()).await;
    assert!(matches!(resolved, Err(Error::NotIndeterminate { .. })));
    assert_eq!(
        one.forget(&key).await.unwrap(),
        genesys_once::engine::Forgotten::Outcome
    );
    let indeterminate: Vec<(IdempotencyKey, RecordState)> = match two.indeterminate(10).await {
        Ok(listed) => listed.keys,
        // This store cannot list its records, and reports that.
        Err(Error::StoreUnavailable { .. }) => Vec::new(),
        Err(error) => panic!("{error}"),
    };
    assert!(indeterminate.is_empty());
    let stats: Stats = one.stats();
    assert_eq!((stats.served_upstream, stats.served_memory), (1, 1));
    let drained: Drained = one.shutdown(Duration::from_secs(1)).await;
    assert!(drained.is_clean());
    for error in every_error() {
        respond(Err(error));
    }
}

/// An application whose supervisor is the engine's parent.
struct Application;

enum Ask {
    Refund(u32, ractor::RpcReplyPort<String>),
}

#[cfg(feature = "ractor-cluster")]
impl ractor::Message for Ask {}

#[cfg_attr(feature = "ractor-async-trait", ractor::async_trait)]
impl Actor for Application {
    type Msg = Ask;
    type State = Engine;
    type Arguments = EngineBuilder;

    async fn pre_start(
        &self,
        myself: ActorRef<Ask>,
        builder: EngineBuilder,
    ) -> Result<Engine, ActorProcessingErr> {
        Ok(builder.start_linked(myself.get_cell()).await?)
    }

    async fn handle(
        &self,
        _: ActorRef<Ask>,
        Ask::Refund(order, port): Ask,
        engine: &mut Engine,
    ) -> Result<(), ActorProcessingErr> {
        let request = DataActionRequest::from_serialize("custom_-_1", &json!({"order": order}))?;
        let actor: &ActorRef<EngineMessage> = engine.actor();
        let answer = call_t!(actor, EngineMessage::Execute, 10_000, request)?;
        port.send(respond(answer).1)?;
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<Ask>,
        _: SupervisionEvent,
        _: &mut Engine,
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

#[tokio::test]
async fn application_supervises_the_engine() {
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}"));
    let builder = Engine::builder(upstream.clone());
    let (application, ended) = Actor::spawn(None, Application, builder).await.unwrap();
    for replayed in [false, true] {
        let answer = call_t!(application, Ask::Refund, 10_000, 7).unwrap();
        assert_eq!(answer, format!("replayed: {replayed}"));
    }
    assert_eq!(upstream.ledger().total(), 1);
    application.stop(None);
    ended.await.unwrap();
}

#[tokio::test]
async fn service_test_runs_on_the_simulator() {
    let simulator = GenesysSimulator::start().await;
    let environment: Environment = simulator.environment();
    let credentials: Credentials = simulator.credentials();
    let upstream = GenesysCloud::new(environment, credentials)
        .route(Route::Actions { flatten: true })
        .client_auth(ClientAuth::RequestBody)
        .attempt_timeout(Duration::from_secs(30));
    simulator.script(|call: &Call| match call.attempt() {
        1 => Step::RateLimited(Duration::ZERO),
        _ => Step::After(
            Duration::from_millis(1),
            Box::new(Step::Answer(Outcome::new(
                StatusCode::OK,
                HeaderMap::new(),
                "{\"n\":7}",
            ))),
        ),
    });
    let engine = Engine::builder(upstream).start().await.unwrap();
    let request = DataActionRequest::new("custom_-_1", "{}").unwrap();
    let key = IdempotencyKey::of(&request);
    let reply = engine.execute(request).await.unwrap();
    assert_eq!(reply.json::<Value>().unwrap(), json!({"n": 7}));
    assert_eq!(reply.key(), key);
    let ledger: &Ledger = simulator.ledger();
    assert_eq!((ledger.total(), ledger.calls(&key)), (2, 2));
    ledger.assert_exactly_once([&key]);
    for step in [
        Step::Refused,
        Step::Reset,
        Step::Cut,
        Step::Silent,
        Step::Panic,
    ] {
        let _ = step.clone();
    }
}

#[tokio::test(start_paused = true)]
async fn custom_store_passes_the_conformance_suite() {
    let advance = async |time: Duration| tokio::time::advance(time).await;
    store_conformance(Counting(MemoryStore::new()), advance).await;
}

proptest! {
    #[test]
    fn respellings_keep_the_key(
        (request, respelling) in strategies::requests()
            .prop_flat_map(|r| (Just(r.clone()), strategies::respellings(&r)))
    ) {
        prop_assert_eq!(IdempotencyKey::of(&request), IdempotencyKey::of(&respelling));
    }
}

/// A store applies the protocol inside its own transaction.
#[test]
fn protocol_is_a_pure_function() {
    let key: IdempotencyKey = "ab".repeat(32).parse().unwrap();
    let name = RecordName {
        namespace: "n".parse().unwrap(),
        key,
    };
    assert_eq!(name.key, IdempotencyKey::from_bytes(*key.as_bytes()));
    let request = DataActionRequest::new("a", "1").unwrap();
    let claim = Claim {
        lease: LeaseId::random(),
        fingerprint: request.fingerprint(""),
        lease_ttl: Duration::from_secs(30),
        retention: Duration::from_secs(60),
        attempts: Attempts::default(),
        about: Default::default(),
    };
    let (next, answer) = record::apply(None, &Event::Acquire { claim });
    assert_eq!(answer, Answer::Done);
    let (stored, left) = next.unwrap();
    let state = stored.state(left);
    assert!(
        matches!(
            state,
            RecordState::Locked {
                phase: Phase::Dispatched,
                ..
            }
        ),
        "{state:?}"
    );
    let (_, answer) = record::apply(
        Some((&stored, left)),
        &Event::Forget {
            lease: LeaseId::from_bytes([0xf0; 16]),
        },
    );
    assert_eq!(answer, Answer::Is(Some(state)));
    assert_eq!(
        canonical::canonicalize(b"{ \"b\": 1.0, \"a\": [] }").unwrap(),
        br#"{"a":[],"b":1}"#
    );
    let error = canonical::canonicalize(b"{").unwrap_err();
    assert_eq!(error.offset, 1);
    let _ = (
        StoreError::unavailable("x"),
        StoreError::unreadable(String::from("x")),
    );
    let _ = (
        TokenError::new("x"),
        TokenError::rate_limited(Duration::ZERO),
    );
}
