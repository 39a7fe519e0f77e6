//! The paths over a real Redis, with and without HTTP: replays, fresh executions, and
//! how many commands they send.

use std::hint::black_box;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use genesys_once::{
    DataActionRequest, Engine, EngineBuilder, GenesysCloud, IdempotencyKey, Served,
};

use crate::baseline::{self, Baseline};
use crate::measure::{Measured, Side, TASKS, in_turns_with, throughput, throughput_of};
use crate::steps::{self, Steps};
use crate::world::{Answering, World, engine, payload, request, requests};

/// Recorded keys for each task: no task joins another task's replay.
pub const OWN_KEYS: usize = 16;

pub fn replay(world: &World) -> Measured {
    const REPLAYS: usize = 25_600;
    let own = crate::world::requests(TASKS * OWN_KEYS);
    let steps = world.block_on(async {
        let steps = Steps::new(world.redis_store().await, Answering::at_once()).await;
        for request in &*own {
            steps.take(request.clone()).await;
        }
        steps
    });
    let through_steps = |by| {
        let own = own.clone();
        world.block_on(steps.throughput(REPLAYS, by, move |n| {
            own[own_key(n, REPLAYS / TASKS)].clone()
        }))
    };
    let engine = Engine::builder(Answering::at_once()).max_in_flight(4 * TASKS);
    replay_by(
        world,
        TASKS,
        REPLAYS,
        engine,
        steps::as_others(through_steps),
    )
}

/// With more callers than the default number of permits.
pub fn replay_few_permits(world: &World) -> Measured {
    let engine = Engine::builder(Answering::at_once());
    replay_by(world, 256, 25_600, engine, Vec::new())
}

fn replay_by(
    world: &World,
    tasks: usize,
    count: usize,
    engine: EngineBuilder,
    others: Vec<Side<'_>>,
) -> Measured {
    let requests = requests(tasks * OWN_KEYS);
    let (engine, redis, names) = world.block_on(async {
        let store = world.redis_store().await;
        let engine = engine.store(store).recent(0, Duration::from_secs(60));
        let engine = engine.start().await.expect("possible settings");
        let mut redis = world.redis_connection().await;
        let mut names = Vec::new();
        for request in &*requests {
            engine.execute(request.clone()).await.expect("an answer");
            let name = format!("baseline:{}", IdempotencyKey::of(request));
            baseline::record(&mut redis, &name).await;
            names.push(name);
        }
        (engine, redis, Arc::<[String]>::from(names))
    });
    let through_get = || {
        throughput_of(tasks, count, |numbers| {
            let (mut redis, names) = (redis.clone(), names.clone());
            async move {
                for key in own_keys(numbers) {
                    black_box(baseline::replay(&mut redis, &names[key]).await);
                }
            }
        })
    };
    in_turns_with(
        11,
        "a second",
        || world.block_on(replays(tasks, count, &engine, &requests)),
        || world.block_on(through_get()),
        others,
    )
}

/// Replays from the engine's store per second.
pub async fn replays(
    tasks: usize,
    count: usize,
    engine: &Engine,
    requests: &Arc<[DataActionRequest]>,
) -> f64 {
    throughput_of(tasks, count, |numbers| {
        let (engine, requests) = (engine.clone(), requests.clone());
        async move {
            for key in own_keys(numbers) {
                let reply = engine.execute(requests[key].clone()).await;
                let reply = reply.expect("an answer");
                assert_eq!(reply.served(), Served::Store);
                black_box(reply);
            }
        }
    })
    .await
}

/// The keys of a task's calls, in turn.
pub fn own_keys(numbers: Range<usize>) -> impl Iterator<Item = usize> {
    let share = numbers.len();
    numbers.map(move |n| own_key(n, share))
}

/// The key of the call with this number, if each task makes `share` calls.
fn own_key(n: usize, share: usize) -> usize {
    n / share * OWN_KEYS + n % OWN_KEYS
}

pub fn fresh_against_locked(world: &World) -> Measured {
    let script = Arc::new(baseline::script());
    fresh(world, move |mut baseline, payloads| {
        let script = script.clone();
        async move {
            for _ in 0..payloads {
                baseline.locked(&request(&payload()), &script).await;
            }
        }
    })
}

pub fn fresh_against_naive(world: &World) -> Measured {
    fresh(world, |mut baseline, payloads| async move {
        for _ in 0..payloads {
            baseline.naive(&request(&payload())).await;
        }
    })
}

/// The engine beside a baseline: both make each request and post it to the same platform.
fn fresh<F, Fut>(world: &World, work: F) -> Measured
where
    F: Fn(Baseline, usize) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    const KEYS: usize = 6_400;
    let (engine, baseline) = (over_http(world), world.block_on(Baseline::new(world)));
    let through_engine = || {
        throughput(KEYS, |numbers| {
            let engine = engine.clone();
            async move {
                for _ in numbers {
                    let reply = engine.execute(request(&payload())).await;
                    let reply = reply.expect("an answer");
                    assert_eq!(reply.served(), Served::Upstream);
                    black_box(reply);
                }
            }
        })
    };
    let platform = world.platform();
    let upstream = GenesysCloud::new(platform.environment(), platform.credentials());
    let steps = world.block_on(async { Steps::new(world.redis_store().await, upstream).await });
    let through_steps = |by| world.block_on(steps.throughput(KEYS, by, |_| request(&payload())));
    let through_baseline = || throughput(KEYS, |numbers| work(baseline.clone(), numbers.len()));
    in_turns_with(
        11,
        "a second",
        || world.block_on(through_engine()),
        || world.block_on(through_baseline()),
        steps::as_others(through_steps),
    )
}

/// An engine over Redis and HTTP that already has its token.
pub fn over_http(world: &World) -> Engine {
    let platform = world.platform();
    let upstream = GenesysCloud::new(platform.environment(), platform.credentials());
    world.block_on(async {
        let engine = engine(upstream, world.redis_store().await, |b| b).await;
        let first = engine.execute(request(&payload())).await;
        first.expect("an answer");
        engine
    })
}

pub fn round_trips(world: &World) -> Measured {
    const KEYS: usize = 256;
    let requests = requests(KEYS);
    let engine = world.block_on(async {
        let store = world.redis_store().await;
        engine(Answering::at_once(), store, |b| {
            b.recent(0, Duration::from_secs(60))
        })
        .await
    });
    let per_key = |requests: Arc<[DataActionRequest]>, served| {
        let () = world.redis().command(&["CONFIG", "RESETSTAT"]);
        world.block_on(async {
            for request in &*requests {
                let reply = engine.execute(request.clone()).await.expect("an answer");
                assert_eq!(reply.served(), served);
            }
        });
        sent(&world.redis().calls()) as f64 / KEYS as f64
    };
    // The server has the scripts before anything is counted.
    per_key(crate::world::requests(TASKS), Served::Upstream);
    let fresh = per_key(requests.clone(), Served::Upstream);
    let replay = per_key(requests, Served::Store);
    // The worse of the two ratios.
    let value = f64::max(fresh / 2.0, replay);
    let measured = Measured::once(value, 1.0, "of the promised commands");
    measured.with_note(format!("{fresh} per fresh execution, {replay} per replay"))
}

/// The commands that clients sent. The server also counts the commands of scripts: each
/// script that writes calls `GETRANGE`, `SET` and `PUBLISH` once, and nothing else calls
/// `PUBLISH`.
fn sent(calls: &[(String, u64)]) -> u64 {
    let published = calls
        .iter()
        .find(|(name, _)| name == "publish")
        .map_or(0, |(_, n)| *n);
    calls.iter().map(|(_, n)| n).sum::<u64>() - 3 * published
}
