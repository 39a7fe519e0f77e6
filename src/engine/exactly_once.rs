//! Each key is executed exactly once: random schedules of callers over several engines
//! that share a store, with a platform that delays, limits, refuses connections and
//! refuses tokens.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestCaseResult};
use tokio::time::{sleep, timeout};

use super::Engine;
use crate::key::IdempotencyKey;
use crate::outcome::{Reply, Served};
use crate::policy::RetryPolicy;
use crate::request::DataActionRequest;
use crate::store::{MemoryStore, Store};
use crate::testing::{ScriptedUpstream, Step};

const ENGINES: usize = 3;
const KEYS: usize = 4;
/// No caller asks later than this, so that memory (60 s) still has the first answer.
const HORIZON_MS: u64 = 50_000;

#[derive(Clone, Debug)]
struct Caller {
    at_ms: u64,
    engine: usize,
    key: usize,
    spelling: usize,
}

/// What the platform does with the calls of one key before it executes one.
#[derive(Clone, Debug)]
enum Trouble {
    RateLimited(u64),
    ConnectionRefused,
    TokenRefused,
}

#[derive(Clone, Debug)]
struct Plan {
    trouble: Vec<Trouble>,
    delay_ms: u64,
}

fn callers() -> impl Strategy<Value = Vec<Caller>> {
    // Half of them come at the same moments, so that they race.
    let at_ms = prop_oneof![
        0..HORIZON_MS,
        prop::sample::select(vec![0, 1, 1_000, 10_000])
    ];
    let caller =
        (at_ms, 0..ENGINES, 0..KEYS, 0..4usize).prop_map(|(at_ms, engine, key, spelling)| Caller {
            at_ms,
            engine,
            key,
            spelling,
        });
    prop::collection::vec(caller, 1..60)
}

/// Never more trouble than one execution can handle: two retries and one new token.
fn plans() -> impl Strategy<Value = Vec<Plan>> {
    let retried = prop_oneof![
        (0..120u64).prop_map(Trouble::RateLimited),
        Just(Trouble::ConnectionRefused),
    ];
    let plan = (
        prop::collection::vec(retried, 0..=2),
        any::<bool>(),
        0..55_000u64,
    )
        .prop_map(|(mut trouble, refuse_token, delay_ms)| {
            if refuse_token {
                trouble.insert(trouble.len() / 2, Trouble::TokenRefused);
            }
            Plan { trouble, delay_ms }
        });
    prop::collection::vec(plan, KEYS)
}

fn request(key: usize, spelling: usize) -> DataActionRequest {
    let key = key + 1; // `00e-1` is no number
    let payload = match spelling {
        0 => format!(r#"{{"order":{key},"note":"é"}}"#),
        1 => format!(r#"{{ "note" : "\u00e9", "order" : {key}.0 }}"#),
        2 => format!("{{\n\"\\u006frder\": {key}0e-1,\t\"note\":\"é\"}}"),
        _ => format!(r#"{{"note":"\u00E9","order":{key}.000}}"#),
    };
    DataActionRequest::new("custom_-_refund", payload).unwrap()
}

/// A platform that follows the plans, and answers every execution differently.
fn platform(plans: &[Plan]) -> ScriptedUpstream {
    let plans: HashMap<IdempotencyKey, Plan> = plans
        .iter()
        .enumerate()
        .map(|(key, plan)| (IdempotencyKey::of(&request(key, 0)), plan.clone()))
        .collect();
    let arrivals = Mutex::new(HashMap::<IdempotencyKey, usize>::new());
    let tokens = crate::testing::ScriptedTokens::lasting(Duration::from_secs(3600));
    let script = move |call: &crate::upstream::Call| {
        let plan = &plans[&call.key()];
        let mut arrivals = arrivals.lock().unwrap();
        let arrival = arrivals.entry(call.key()).or_default();
        *arrival += 1;
        match plan.trouble.get(*arrival - 1) {
            Some(Trouble::RateLimited(seconds)) => Step::RateLimited(Duration::from_secs(*seconds)),
            Some(Trouble::ConnectionRefused) => Step::Refused,
            Some(Trouble::TokenRefused) => Step::status(401, "{}"),
            None => Step::ok(format!(r#"{{"execution":{arrival}}}"#))
                .after(Duration::from_millis(plan.delay_ms)),
        }
    };
    ScriptedUpstream::new(script).with_tokens(tokens)
}

/// Runs a schedule and checks the property.
async fn exactly_once(
    store: impl Store + Clone,
    callers: Vec<Caller>,
    plans: Vec<Plan>,
) -> TestCaseResult {
    let upstream = platform(&plans);
    let mut engines = Vec::new();
    for _ in 0..ENGINES {
        let engine = Engine::builder(upstream.clone()).store(store.clone());
        // Callers wait for several cooldowns in a row.
        let retry = RetryPolicy::default().max_wait(Duration::from_secs(3600));
        engines.push(
            engine
                .retry(retry)
                .deadline(Duration::from_secs(3600))
                .start()
                .await
                .unwrap(),
        );
    }
    let answers = callers.iter().cloned().map(|caller| {
        let engine = engines[caller.engine].clone();
        tokio::spawn(async move {
            sleep(Duration::from_millis(caller.at_ms)).await;
            engine.execute(request(caller.key, caller.spelling)).await
        })
    });
    let answers: Vec<_> = answers.collect();
    let mut replies: BTreeMap<usize, Vec<(usize, Reply)>> = BTreeMap::new();
    for (caller, answer) in callers.iter().zip(answers) {
        let answer = timeout(Duration::from_secs(7200), answer).await;
        let answer = answer.map_err(|_| TestCaseError::fail("a caller was left unanswered"))?;
        let reply = answer.unwrap().map_err(|error| {
            TestCaseError::fail(format!("{caller:?}: {}", crate::error::chain(&error)))
        })?;
        replies
            .entry(caller.key)
            .or_default()
            .push((caller.engine, reply));
    }
    for (key, replies) in replies {
        let name = IdempotencyKey::of(&request(key, 0));
        let executed = upstream.ledger().executed(&name);
        prop_assert_eq!(executed, 1, "key {} was executed {} times", key, executed);
        let (_, first) = &replies[0];
        for engine in 0..ENGINES {
            let mut fetched = 0;
            for (_, reply) in replies.iter().filter(|(by, _)| *by == engine) {
                prop_assert_eq!(reply.body(), first.body(), "two answers for key {}", key);
                fetched += usize::from(matches!(reply.served(), Served::Upstream | Served::Store));
            }
            prop_assert!(
                fetched <= 1,
                "engine {} ran key {} {} times",
                engine,
                key,
                fetched
            );
        }
    }
    Ok(())
}

fn under_paused_time(run: impl Future<Output = TestCaseResult>) -> TestCaseResult {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(run)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Every key whose calls all succeed is executed exactly once. Every caller gets an
    /// answer, and all answers of a key are equal. In each engine one caller goes to the
    /// store or the platform; all others join it or get a replay from memory.
    ///
    /// Seen to turn red: without coalescing (every admission a flight of its
    /// own: "ran key 0 2 times"), and without the store's lock
    /// ([`property_fails_without_the_store_lock`] keeps proving it).
    #[test]
    fn each_key_is_executed_exactly_once(callers in callers(), plans in plans()) {
        under_paused_time(exactly_once(MemoryStore::new(), callers, plans))?;
    }
}

/// A store that gives every caller the lease: the property must fail with it.
#[derive(Clone)]
struct Unlocked(Arc<dyn Store>);

impl Store for Unlocked {
    fn apply<'a>(
        &'a self,
        name: &'a crate::record::RecordName,
        event: crate::record::Event,
    ) -> crate::store::BoxFuture<'a, Result<crate::record::Answer, crate::error::StoreError>> {
        use crate::record::{Answer, Event};
        Box::pin(async move {
            match (&event, self.0.apply(name, event.clone()).await?) {
                // Another caller has the lease: acquire it, too.
                (
                    Event::Acquire { .. },
                    Answer::Is(Some(crate::record::RecordState::Locked { .. })),
                )
                | (Event::Enter { .. } | Event::Extend { .. }, Answer::NotHolder) => {
                    Ok(Answer::Done)
                }
                (_, answer) => Ok(answer),
            }
        })
    }

    fn look<'a>(
        &'a self,
        name: &'a crate::record::RecordName,
    ) -> crate::store::BoxFuture<
        'a,
        Result<Option<crate::record::RecordState>, crate::error::StoreError>,
    > {
        Box::pin(async move {
            let state = self.0.look(name).await?;
            Ok(state.filter(|state| !matches!(state, crate::record::RecordState::Locked { .. })))
        })
    }
}

#[test]
fn property_fails_without_the_store_lock() {
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        failure_persistence: None,
        max_shrink_iters: 0,
        ..ProptestConfig::with_cases(256)
    });
    let failure = runner.run(&(callers(), plans()), |(callers, plans)| {
        let store = Unlocked(Arc::new(MemoryStore::new()));
        under_paused_time(exactly_once(store, callers, plans))
    });
    let failure = failure.expect_err("the property does not notice a store without a lock");
    assert!(failure.to_string().contains("was executed"), "{failure}");
}
