//! Tests of an embedding service: three services with common mistakes, and for each a
//! property of about ten lines that finds the mistake. The faulty service fails the property
//! with the counterexample asserted here, and the corrected service passes.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use futures_util::future::join_all;
use genesys_once::testing::strategies::spelled_twice;
use genesys_once::testing::{ScriptedUpstream, Step};
use genesys_once::{DataActionRequest, Engine, Error, Reply};
use proptest::prelude::*;
use proptest::test_runner::{
    FileFailurePersistence, TestCaseError, TestCaseResult, TestError, TestRunner,
};
use serde_json::Value;
use tokio::time::{Instant, sleep};

/// Runs a case under paused time, where minutes pass at once.
fn paused(case: impl Future<Output = TestCaseResult>) -> TestCaseResult {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(case)
}

/// A counterexample to a corrected service is saved, and runs first the next time.
fn config() -> ProptestConfig {
    let kept = FileFailurePersistence::Direct("proptest-regressions/tests/embedder.txt");
    ProptestConfig {
        failure_persistence: Some(Box::new(kept)),
        ..ProptestConfig::default()
    }
}

/// The smallest counterexample of the property; panics without one.
fn counterexample<S: Strategy>(
    cases: &S,
    property: impl Fn(S::Value) -> TestCaseResult,
) -> S::Value {
    let config = ProptestConfig {
        // Each run finds the counterexample again.
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    match TestRunner::new(config).run(cases, property) {
        Err(TestError::Fail(_, smallest)) => smallest,
        other => panic!("the property does not find the mistake: {other:?}"),
    }
}

async fn engine(platform: &ScriptedUpstream) -> Engine {
    let builder = Engine::builder(platform.clone());
    builder.start().await.unwrap()
}

/// Refunds orders, with the time of the request in the payload.
struct Refunds {
    engine: Engine,
    began: Instant,
    corrected: bool,
}

impl Refunds {
    async fn refund(&self, order: u8) -> Result<Reply, Error> {
        let asked_at = self.began.elapsed().as_millis();
        let payload = format!(r#"{{"order": {order}, "asked_at": {asked_at}}}"#);
        let request = DataActionRequest::new("refund", payload)?;
        let request = match self.corrected {
            true => request.ignoring(["/asked_at"])?,
            // The mistake: every millisecond makes a different request.
            false => request,
        };
        self.engine.execute(request).await
    }
}

/// Callers arrive at different times; each order is refunded once.
fn each_order_is_refunded_once(callers: Vec<(u8, u64)>, corrected: bool) -> TestCaseResult {
    paused(async {
        let platform = ScriptedUpstream::new(|_| Step::ok("{}"));
        let (engine, began) = (engine(&platform).await, Instant::now());
        let service = Refunds {
            engine,
            began,
            corrected,
        };
        let calls = callers.iter().map(async |(order, at)| {
            sleep(Duration::from_millis(*at)).await;
            service.refund(*order).await.map(drop)
        });
        let answers: Result<Vec<()>, Error> = join_all(calls).await.into_iter().collect();
        answers.map_err(|error| TestCaseError::fail(error.to_string()))?;
        let orders: BTreeSet<u8> = callers.iter().map(|(order, _)| *order).collect();
        prop_assert_eq!(platform.ledger().total(), orders.len());
        Ok(())
    })
}

fn callers() -> impl Strategy<Value = Vec<(u8, u64)>> {
    prop::collection::vec((0..5u8, 0..50_000u64), 1..20)
}

#[test]
fn property_finds_a_timestamp_in_the_payload() {
    let smallest = counterexample(&callers(), |callers| {
        each_order_is_refunded_once(callers, false)
    });
    // One order, requested at the beginning and a millisecond later.
    let [(order, one), (other_order, other)] = smallest[..] else {
        panic!("{smallest:?}");
    };
    assert_eq!(order, other_order);
    assert_eq!((one.min(other), one.max(other)), (0, 1));
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn corrected_service_refunds_each_order_once(callers in callers()) {
        each_order_is_refunded_once(callers, true)?;
    }
}

/// Forwards its callers' payloads, under a key made of the payload.
async fn pass_on(
    engine: &Engine,
    request: &DataActionRequest,
    corrected: bool,
) -> Result<Reply, Error> {
    let request = match corrected {
        // The key comes from the payload's meaning: nothing more is needed.
        true => request.clone(),
        // The mistake: a key made of the text, and texts of the same request differ.
        false => request.clone().with_key(text_digest(request.payload()))?,
    };
    engine.execute(request).await
}

/// FNV-1a, as an example of any digest.
fn text_digest(text: &[u8]) -> String {
    let digest = text.iter().fold(0xcbf2_9ce4_8422_2325_u64, |digest, byte| {
        (digest ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    format!("{digest:016x}")
}

/// The same request in two spellings is one call.
fn spellings_are_one_call(
    (request, respelled): (DataActionRequest, DataActionRequest),
    corrected: bool,
) -> TestCaseResult {
    paused(async {
        let platform = ScriptedUpstream::new(|_| Step::ok("{}"));
        let engine = engine(&platform).await;
        for request in [&request, &respelled] {
            let reply = pass_on(&engine, request, corrected).await;
            prop_assert!(reply.is_ok(), "{:?}", reply);
        }
        prop_assert_eq!(platform.ledger().total(), 1);
        Ok(())
    })
}

#[test]
fn property_finds_a_key_of_the_text() {
    let (request, respelled) =
        counterexample(&spelled_twice(), |pair| spellings_are_one_call(pair, false));
    let (text, other) = (request.payload(), respelled.payload());
    assert_ne!(text, other);
    // Shrunk to very short texts: for example `null`, once with white space.
    assert!(text.len() + other.len() <= 24, "{text:?} {other:?}");
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn corrected_service_sends_one_call_per_request(pair in spelled_twice()) {
        spellings_are_one_call(pair, true)?;
    }
}

/// Books an order; the faulty service retries after an unknown outcome.
async fn book(engine: &Engine, order: usize, corrected: bool) -> Result<Reply, Error> {
    let request = || DataActionRequest::new("book", format!(r#"{{"order": {order}}}"#));
    match engine.execute(request()?).await {
        // The mistake: "it failed, so once more, under another scope".
        Err(Error::Indeterminate { .. }) if !corrected => {
            engine.execute(request()?.with_scope("second try")?).await
        }
        answer => answer,
    }
}

/// Each order is booked once, whatever the platform does with its first call.
fn no_order_is_booked_twice(first_calls: Vec<Step>, corrected: bool) -> TestCaseResult {
    paused(async {
        let orders = first_calls.len();
        let first_calls = Mutex::new(first_calls.into_iter().map(Some).collect::<Vec<_>>());
        let platform = ScriptedUpstream::new(move |call| {
            let payload: Value = serde_json::from_slice(call.request().payload()).unwrap();
            let order = payload["order"].as_u64().unwrap() as usize;
            let step = first_calls.lock().unwrap()[order].take();
            step.unwrap_or(Step::ok("{}"))
        });
        let engine = engine(&platform).await;
        for order in 0..orders {
            // An error is an answer, too; only a second booking is wrong.
            let _ = book(&engine, order, corrected).await;
        }
        let ledger = platform.ledger();
        let booked: usize = ledger.keys().iter().map(|key| ledger.executed(key)).sum();
        prop_assert_eq!(booked, orders);
        Ok(())
    })
}

fn first_calls() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        Just(Step::ok("{}")),
        (0..100u64).prop_map(|wait| Step::RateLimited(Duration::from_secs(wait))),
        Just(Step::Refused),
        Just(Step::status(503, "{}")),
        Just(Step::Cut),
        Just(Step::Reset),
    ];
    prop::collection::vec(step, 1..10)
}

#[test]
fn property_finds_a_retry_by_the_caller() {
    let smallest = counterexample(&first_calls(), |calls| {
        no_order_is_booked_twice(calls, false)
    });
    // One order whose call might have been executed, and nothing else.
    match &smallest[..] {
        [Step::Answer(outcome)] => assert_eq!(outcome.status(), 503),
        [Step::Cut | Step::Reset] => {}
        other => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn corrected_service_books_each_order_once(calls in first_calls()) {
        no_order_is_booked_twice(calls, true)?;
    }
}
