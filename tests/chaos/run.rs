//! One run, from the first process to the verdict: load and faults, then
//! healing, a last round, and the judgement. Whether a run passes is decided in
//! `judgement`, never here.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fastrand::Rng;
use genesys_once::RedisStore;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::judgement::{Judgement, LastWords};
use super::records;
use super::schedule;
use super::worker::DEADLINE;
use super::world::World;

/// From the last fault until everything is settled.
const SETTLE: Duration = Duration::from_secs(30);

/// Runs the chaos of one seed and says what came of it.
pub async fn run(seed: u64, length: Duration) -> Judgement {
    let world = Arc::new(World::start(seed).await);
    let mut injected = JoinSet::new();
    let load = tokio::spawn(load(world.clone(), length));
    let operator = tokio::spawn(world.oracle.clone().operate(world.operator().await));
    let workers = world.fleet.len();
    for (at, fault) in schedule::draw(seed, length, workers) {
        sleep(at.saturating_sub(world.history.now())).await;
        let world = world.clone();
        injected.spawn(async move { world.inject(fault).await });
    }
    // Each ends with its own healing; a panic in one is the run's.
    while let Some(done) = injected.join_next().await {
        done.unwrap();
    }
    let numbers = load.await.unwrap();
    assert!(!operator.is_finished(), "the operator panicked");
    operator.abort();
    world.heal().await;
    let mut last = settle(&world).await;
    last.before = look(&world, numbers).await;
    last.unsettled += last_round(&world, numbers).await;
    last.after = look(&world, numbers).await;
    world.end().await;
    Judgement::of(&world.oracle, &world.faults, last)
}

/// Asks for new keys and for old ones until the time is over; how many keys
/// there were.
async fn load(world: Arc<World>, length: Duration) -> u64 {
    let mut rng = Rng::with_seed(world.seed.rotate_left(32));
    let workers = world.fleet.len();
    let mut numbers = 0;
    while world.history.now() < length {
        let number = if numbers > 0 && rng.u32(..100) < 45 {
            // Lately asked for: still held, lapsed, or answered.
            numbers - 1 - rng.u64(..numbers.min(60))
        } else {
            numbers += 1;
            world.oracle.numbers.store(numbers, Ordering::Relaxed);
            numbers - 1
        };
        let realm = world.oracle.roles.realm(number);
        let first = rng.usize(..workers);
        for next in 0..rng.usize(1..=workers) {
            let callers = rng.usize(1..5);
            // Some callers do not wait for long.
            let limit = match rng.u32(..10) {
                0 => Duration::from_millis(rng.u64(20..600)),
                _ => DEADLINE,
            };
            let slot = &world.fleet[(first + next) % workers];
            slot.ask(number, realm, callers, limit).await;
        }
        sleep(Duration::from_millis(rng.u64(5..45))).await;
    }
    numbers
}

/// Asks for every key once more, and again where a worker still took the store
/// for down: its breaker is closed by those who ask. How much it left unsettled.
async fn last_round(world: &World, numbers: u64) -> usize {
    let deadline = Instant::now() + SETTLE;
    let mut left: Vec<u64> = (0..numbers).collect();
    loop {
        for number in &left {
            let slot = &world.fleet[*number as usize % world.fleet.len()];
            let realm = world.oracle.roles.realm(*number);
            slot.ask(*number, realm, 1, DEADLINE).await;
        }
        let unsettled = settle(world).await.unsettled;
        let down = world.history.last_told("store_unavailable");
        left.retain(|number| down.contains(number));
        if left.is_empty() || unsettled > 0 || Instant::now() >= deadline {
            return unsettled;
        }
        sleep(Duration::from_millis(500)).await;
    }
}

async fn look(world: &World, numbers: u64) -> Vec<&'static str> {
    let store = RedisStore::connect(&world.redis_url).await.unwrap();
    records::look(store, world.oracle.roles, numbers).await
}

/// Waits until everybody is answered and no worker has an execution left.
async fn settle(world: &World) -> LastWords {
    let deadline = Instant::now() + SETTLE;
    let mut last = LastWords::default();
    loop {
        last.unsettled = 0;
        for slot in &world.fleet {
            match slot.stats().await {
                Some((executions, waiting)) => last.unsettled += executions + waiting,
                None => last.unsettled += 1,
            }
        }
        let waiting = world.history.waiting();
        if (last.unsettled, waiting) == (0, 0) || Instant::now() >= deadline {
            return last;
        }
        sleep(Duration::from_millis(100)).await;
    }
}
