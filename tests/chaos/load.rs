//! Who asks for what, from the first key to the last round, and what the records
//! are then. It injects no fault, and leaves the judgement to `judgement`.

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

/// From the last fault until everything is settled.
const SETTLE: Duration = Duration::from_secs(30);
/// Keys asked for at once in the last round: a crowd would be a fault of its own.
const AT_ONCE: usize = 200;

/// Asks for new keys and for the last `recent` ones until `is_over`.
pub async fn load(scene: &Scene, recent: u64, is_over: impl Fn() -> bool) {
    let mut rng = Rng::with_seed(scene.seed.rotate_left(32));
    let workers = scene.fleet.len();
    let mut numbers = 0;
    while !is_over() {
        let number = if numbers > 0 && rng.u32(..100) < 45 {
            // Lately asked for: still held, lapsed, or answered.
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

/// After the last fault: heals, waits until all is settled, asks for every key
/// once more, and judges. `store` is the coordinator's own way to the records.
pub async fn finish(scene: &Scene, store: RedisStore) -> Judgement {
    let numbers = scene.oracle.numbers.load(Ordering::Relaxed);
    scene.heal().await;
    let mut last = settle(scene).await;
    last.before = look(&store, numbers).await;
    last.unsettled += last_round(scene, numbers).await;
    last.after = look(&store, numbers).await;
    scene.end().await;
    Judgement::of(&scene.oracle, &scene.faults, last)
}

/// Asks for every key once more, and again where a worker still took the store
/// for down: its breaker is closed by those who ask, and a busy machine answers a
/// crowd late. It ends when no key has found its end for a while. How much it left
/// unsettled.
async fn last_round(scene: &Scene, numbers: u64) -> usize {
    let mut deadline = Instant::now() + SETTLE;
    let mut left: Vec<u64> = (0..numbers).collect();
    loop {
        let mut unsettled = 0;
        for some in left.chunks(AT_ONCE) {
            for number in some {
                let slot = &scene.fleet[*number as usize % scene.fleet.len()];
                slot.ask(*number, 1, DEADLINE).await;
            }
            unsettled = settle(scene).await.unsettled;
        }
        let down = scene.history.last_told("store_unavailable");
        let before = left.len();
        left.retain(|number| down.contains(number));
        if left.len() < before {
            deadline = Instant::now() + SETTLE;
        }
        if left.is_empty() || unsettled > 0 || Instant::now() >= deadline {
            return unsettled;
        }
        sleep(Duration::from_millis(500)).await;
    }
}

/// Waits until everybody is answered and no worker has an execution left.
async fn settle(scene: &Scene) -> LastWords {
    let deadline = Instant::now() + SETTLE;
    let mut last = LastWords::default();
    loop {
        last.unsettled = 0;
        for slot in &scene.fleet {
            match slot.stats().await {
                Some((executions, waiting)) => last.unsettled += executions + waiting,
                None => last.unsettled += 1,
            }
        }
        let waiting = scene.history.waiting();
        if (last.unsettled, waiting) == (0, 0) || Instant::now() >= deadline {
            return last;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// The state of each number's record, in a word, as an engine of the coordinator's
/// own sees it. It only looks, and would fail the run if it called anybody.
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
