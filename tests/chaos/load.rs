//! The requests of a run, from the first key to the last round, and the records after it.
//! It injects no fault and judges nothing.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fastrand::Rng;
use genesys_once::record::RecordState;
use genesys_once::testing::{ScriptedUpstream, Step};
use genesys_once::{Engine, RedisStore};
use tokio::time::sleep;

use super::judgement::{Judgement, LastWords};
use super::scene::Scene;
use super::worker::{DEADLINE, key, namespace};

/// From the last fault until all executions are finished: longer than the half a minute
/// that an engine waits between two renewals of tokens that are refused in a row.
const MAX_FINISH_TIME: Duration = Duration::from_secs(45);
/// Keys requested at once in the last round: too many would be another fault.
const AT_ONCE: usize = 200;

/// Asks for new keys and for the last `recent` keys until `is_over`.
pub async fn load(scene: &Scene, recent: u64, is_over: impl Fn() -> bool) {
    let mut rng = Rng::with_seed(scene.seed.rotate_left(32));
    let workers = scene.fleet.len();
    let mut numbers = 0;
    while !is_over() {
        let number = if numbers > 0 && rng.u32(..100) < 45 {
            // Requested recently: still locked, expired, or answered.
            numbers - 1 - rng.u64(..numbers.min(recent))
        } else {
            numbers += 1;
            scene.oracle.numbers.store(numbers, Ordering::Relaxed);
            numbers - 1
        };
        let first = rng.usize(..workers);
        for next in 0..rng.usize(1..=workers) {
            let callers = rng.usize(1..5);
            // Some callers do not wait for long.
            let limit = match rng.u32(..10) {
                0 => Duration::from_millis(rng.u64(20..600)),
                _ => DEADLINE,
            };
            let slot = &scene.fleet[(first + next) % workers];
            slot.ask(number, callers, limit).await;
        }
        sleep(Duration::from_millis(rng.u64(5..45))).await;
    }
}

/// After the last fault: heals, waits until all executions are finished, asks for every key
/// once more, and judges. `store` is the coordinator's own connection to the records.
pub async fn finish(scene: &Scene, store: RedisStore) -> Judgement {
    let numbers = scene.oracle.numbers.load(Ordering::Relaxed);
    scene.heal().await;
    let mut last = wait_until_finished(scene).await;
    last.before = look(&store, numbers).await;
    last.unfinished += last_round(scene, numbers).await;
    last.after = look(&store, numbers).await;
    scene.end().await;
    Judgement::of(&scene.oracle, &scene.faults, last)
}

/// Asks for every key once more, and asks again if a worker still counts the store as down
/// or has had no token since the last revocation. Only requests close its breaker and show
/// that the token is at fault, and a busy machine answers many of them late. Ends when no
/// key has finished for a while. Returns how much is unfinished.
async fn last_round(scene: &Scene, numbers: u64) -> usize {
    let mut deadline = Instant::now() + MAX_FINISH_TIME;
    let mut left: Vec<u64> = (0..numbers).collect();
    loop {
        let mut unfinished = 0;
        for some in left.chunks(AT_ONCE) {
            for number in some {
                let slot = &scene.fleet[*number as usize % scene.fleet.len()];
                slot.ask(*number, 1, DEADLINE).await;
            }
            unfinished = wait_until_finished(scene).await.unfinished;
        }
        let again = scene
            .history
            .last_result(&["store_unavailable", "unauthorized"]);
        let before = left.len();
        left.retain(|number| again.contains(number));
        if left.len() < before {
            deadline = Instant::now() + MAX_FINISH_TIME;
        }
        if left.is_empty() || unfinished > 0 || Instant::now() >= deadline {
            return unfinished;
        }
        sleep(Duration::from_millis(500)).await;
    }
}

/// Waits until all callers are answered and no worker has an execution left.
async fn wait_until_finished(scene: &Scene) -> LastWords {
    let deadline = Instant::now() + MAX_FINISH_TIME;
    let mut last = LastWords::default();
    loop {
        last.unfinished = 0;
        for slot in &scene.fleet {
            match slot.stats().await {
                Some((executions, waiting)) => last.unfinished += executions + waiting,
                None => last.unfinished += 1,
            }
        }
        let waiting = scene.history.waiting();
        if (last.unfinished, waiting) == (0, 0) || Instant::now() >= deadline {
            return last;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// The state of each number's record, in a word, as an engine of the coordinator's own sees
/// it. That engine only reads; a call to the platform would fail the run.
async fn look(store: &RedisStore, numbers: u64) -> Vec<&'static str> {
    let engine = Engine::builder(ScriptedUpstream::new(|_| Step::Panic))
        .store(store.clone())
        .namespace(namespace());
    let engine = engine.start().await.unwrap();
    let mut states = Vec::new();
    for number in 0..numbers {
        states.push(match engine.inspect(&key(number)).await.unwrap() {
            None => "absent",
            Some(RecordState::Locked { .. }) => "locked",
            Some(RecordState::Cached { .. }) => "cached",
            Some(RecordState::Indeterminate { .. }) => "indeterminate",
            Some(RecordState::Released { .. }) => "released",
            Some(_) => "in an unknown state",
        });
    }
    states
}
