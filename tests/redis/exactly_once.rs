//! The property of `src/engine/exactly_once.rs` with fewer cases and real parts: a
//! `redis-server`, an HTTP server, several engines in one process, real time. Only the
//! platform's behaviour is simulated.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::time::Duration;

use genesys_once::testing::{GenesysSimulator, Step, strategies};
use genesys_once::{
    DataActionRequest, Engine, GenesysCloud, IdempotencyKey, RedisStore, Reply, RetryPolicy, Served,
};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{FileFailurePersistence, TestCaseError, TestCaseResult, TestRunner};
use tokio::time::{sleep, timeout};

use crate::support::redis::RedisServer;

const ENGINES: usize = 3;
const KEYS: usize = 3;

#[derive(Clone, Debug)]
struct Caller {
    at_ms: u64,
    engine: usize,
    key: usize,
}

#[derive(Clone, Debug)]
enum Trouble {
    RateLimited,
    TokenRefused,
}

#[derive(Clone, Debug)]
struct Plan {
    trouble: Vec<Trouble>,
    delay_ms: u64,
}

fn callers() -> impl Strategy<Value = Vec<Caller>> {
    let at_ms = prop_oneof![Just(0), 0..150u64];
    let caller = (at_ms, 0..ENGINES, 0..KEYS);
    let caller = caller.prop_map(|(at_ms, engine, key)| Caller { at_ms, engine, key });
    prop::collection::vec(caller, 1..80)
}

fn plans() -> impl Strategy<Value = Vec<Plan>> {
    let plan = (0..=2usize, any::<bool>(), 0..60u64).prop_map(|(limited, refused, delay_ms)| {
        let mut trouble = vec![Trouble::RateLimited; limited];
        if refused {
            trouble.push(Trouble::TokenRefused);
        }
        Plan { trouble, delay_ms }
    });
    prop::collection::vec(plan, KEYS)
}

fn request(case: u32, key: usize) -> DataActionRequest {
    let payload = format!(r#"{{"case":{case},"key":{key},"note":"é"}}"#);
    DataActionRequest::new("custom_-_refund", payload).unwrap()
}

/// The simulator's script for these plans; every execution answers differently.
fn follow(simulator: &GenesysSimulator, case: u32, plans: &[Plan]) {
    let plans: HashMap<IdempotencyKey, Plan> = plans
        .iter()
        .enumerate()
        .map(|(key, plan)| (IdempotencyKey::of(&request(case, key)), plan.clone()))
        .collect();
    let executions = Mutex::new(0);
    simulator.script(move |call| {
        let plan = &plans[&call.key()];
        match plan.trouble.get(call.attempt() as usize - 1) {
            Some(Trouble::RateLimited) => Step::RateLimited(Duration::ZERO),
            Some(Trouble::TokenRefused) => Step::status(401, "{}"),
            None => {
                let mut executions = executions.lock().unwrap();
                *executions += 1;
                Step::ok(format!(r#"{{"execution":{executions}}}"#))
                    .after(Duration::from_millis(plan.delay_ms))
            }
        }
    });
}

async fn exactly_once(
    simulator: &GenesysSimulator,
    redis: &RedisServer,
    case: u32,
    callers: Vec<Caller>,
    plans: Vec<Plan>,
) -> TestCaseResult {
    follow(simulator, case, &plans);
    let mut engines = Vec::new();
    for _ in 0..ENGINES {
        // Each engine has a connection of its own, as a process has.
        let store = RedisStore::connect(&redis.url()).await.unwrap();
        let upstream = GenesysCloud::new(simulator.environment(), simulator.credentials());
        let builder = Engine::builder(upstream).store(store);
        let retry = RetryPolicy::default().backoff(Duration::from_millis(10));
        engines.push(builder.retry(retry).start().await.unwrap());
    }
    let mut runner = TestRunner::deterministic();
    let mut answers = Vec::new();
    for caller in &callers {
        let spelling = strategies::respellings(&request(case, caller.key));
        let spelling = spelling.new_tree(&mut runner).unwrap().current();
        let (engine, wait) = (engines[caller.engine].clone(), caller.at_ms);
        answers.push(tokio::spawn(async move {
            sleep(Duration::from_millis(wait)).await;
            engine.execute(spelling).await
        }));
    }
    let mut replies: BTreeMap<usize, Vec<(usize, Reply)>> = BTreeMap::new();
    for (caller, answer) in callers.iter().zip(answers) {
        let answer = timeout(Duration::from_secs(60), answer).await;
        let answer = answer.map_err(|_| TestCaseError::fail("a caller was left unanswered"))?;
        let reply = answer
            .unwrap()
            .map_err(|e| TestCaseError::fail(format!("{caller:?}: {e:?}")))?;
        replies
            .entry(caller.key)
            .or_default()
            .push((caller.engine, reply));
    }
    let keys: Vec<_> = replies
        .keys()
        .map(|key| IdempotencyKey::of(&request(case, *key)))
        .collect();
    simulator.ledger().assert_exactly_once(&keys);
    for (key, replies) in replies {
        for (_, reply) in &replies {
            prop_assert_eq!(
                reply.body(),
                replies[0].1.body(),
                "two answers for key {}",
                key
            );
            prop_assert!(reply.recorded());
        }
        let own = replies
            .iter()
            .filter(|(_, reply)| reply.served() == Served::Upstream);
        prop_assert!(own.count() <= 1, "two callers got `Served::Upstream`");
    }
    for engine in engines {
        engine.shutdown(Duration::from_secs(5)).await;
    }
    Ok(())
}

#[test]
fn several_engines_execute_each_key_once() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let redis = RedisServer::start();
    let simulator = runtime.block_on(GenesysSimulator::start());
    let case = std::cell::Cell::new(0);
    let mut runner = TestRunner::new(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            "proptest-regressions/tests/exactly_once.txt",
        ))),
        max_shrink_iters: 20,
        ..ProptestConfig::with_cases(24)
    });
    let outcome = runner.run(&(callers(), plans()), |(callers, plans)| {
        // Every case, and every step of shrinking one, has keys of its own.
        case.set(case.get() + 1);
        runtime.block_on(exactly_once(&simulator, &redis, case.get(), callers, plans))
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}
