//! One run, from the first process to the verdict: load and faults, then
//! healing, a last round, and the judgement. Whether a run passes is decided in
//! `judgement`, never here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::judgement::{Judgement, LastWords};
use super::schedule;
use super::worker::DEADLINE;
use super::world::{WORKERS, World};

/// From the last fault until everything is settled.
const SETTLE: Duration = Duration::from_secs(30);

/// Runs the chaos of one seed and says what came of it.
pub async fn run(seed: u64, length: Duration) -> Judgement {
    let world = Arc::new(World::start(seed).await);
    let mut injected = JoinSet::new();
    let load = tokio::spawn(load(world.clone(), length));
    for (at, fault) in schedule::draw(seed, length, WORKERS) {
        sleep(at.saturating_sub(world.history.now())).await;
        let world = world.clone();
        injected.spawn(async move { world.inject(fault).await });
    }
    // Each ends with its own healing; a panic in one is the run's.
    while let Some(done) = injected.join_next().await {
        done.unwrap();
    }
    let numbers = load.await.unwrap();
    world.heal().await;
    let mut last = settle(&world).await;
    last.before = super::judgement::look(&world, numbers).await;
    for number in 0..numbers {
        let slot = &world.fleet[number as usize % WORKERS];
        slot.ask(number, 1, DEADLINE).await;
    }
    let again = settle(&world).await;
    last.unsettled += again.unsettled;
    last.after = super::judgement::look(&world, numbers).await;
    world.end().await;
    Judgement::of(&world, last)
}

/// Asks for new keys and for old ones until the time is over; how many keys
/// there were.
async fn load(world: Arc<World>, length: Duration) -> u64 {
    let mut rng = Rng::with_seed(world.seed.rotate_left(32));
    let mut numbers = 0;
    while world.history.now() < length {
        let number = if numbers > 0 && rng.u32(..100) < 45 {
            // Lately asked for: still held, lapsed, or answered.
            numbers - 1 - rng.u64(..numbers.min(60))
        } else {
            numbers += 1;
            numbers - 1
        };
        let first = rng.usize(..WORKERS);
        for next in 0..rng.usize(1..=WORKERS) {
            let callers = rng.usize(1..5);
            // Some callers do not wait for long.
            let limit = match rng.u32(..10) {
                0 => Duration::from_millis(rng.u64(20..600)),
                _ => DEADLINE,
            };
            let slot = &world.fleet[(first + next) % WORKERS];
            slot.ask(number, callers, limit).await;
        }
        sleep(Duration::from_millis(rng.u64(5..45))).await;
    }
    numbers
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
