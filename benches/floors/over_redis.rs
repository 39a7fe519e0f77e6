//! The paths over a real Redis, and those over HTTP besides: replays, fresh
//! executions, and how many commands they cost.

use std::hint::black_box;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use genesys_once::{
    DataActionRequest, Engine, EngineBuilder, GenesysCloud, IdempotencyKey, Served,
};
use redis::aio::MultiplexedConnection;
use redis::cmd;

use crate::hand_written::{self, ByHand, StoredBody};
use crate::measure::{Measured, Side, TASKS, in_turns_with, throughput, throughput_of};
use crate::steps::{self, Steps};
use crate::world::{ANSWER, Answering, World, engine, payload, request, requests};

/// Keys that are recorded for each task: nobody joins another task's replay, or
/// its own last one before that is settled.
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

/// With more callers than permits, as an engine has them by default.
pub fn replay_few_permits(world: &World) -> Measured {
    let engine = Engine::builder(Answering::at_once());
    replay_by(world, 256, 25_600, engine, Vec::new())
}

fn replay_by(
    world: &World,
    tasks: usize,
    replays: usize,
    engine: EngineBuilder,
    others: Vec<Side<'_>>,
) -> Measured {
    let requests = requests(tasks * OWN_KEYS);
    let (engine, floor, names) = world.block_on(async {
        let store = world.redis_store().await;
        let engine = engine.store(store).recent(0, Duration::from_secs(60));
        let engine = engine.start().await.expect("possible settings");
        let mut floor = world.redis_connection().await;
        let mut names = Vec::new();
        for request in &*requests {
            engine.execute(request.clone()).await.expect("an answer");
            let name = format!("by-hand:{}", IdempotencyKey::of(request));
            hand_written::record(&mut floor, &name, ANSWER).await;
            names.push(name);
        }
        (engine, floor, Arc::<[String]>::from(names))
    });
    let through_engine = || {
        throughput_of(tasks, replays, |numbers| {
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
    };
    let through_get = || {
        throughput_of(tasks, replays, |numbers| {
            let (mut floor, names) = (floor.clone(), names.clone());
            async move {
                for key in own_keys(numbers) {
                    black_box(get(&mut floor, &names[key]).await);
                }
            }
        })
    };
    in_turns_with(
        11,
        "a second",
        || world.block_on(through_engine()),
        || world.block_on(through_get()),
        others,
    )
}

/// The least that a replay can be.
pub async fn get(connection: &mut MultiplexedConnection, name: &str) -> StoredBody {
    let mut get = cmd("GET");
    get.arg(name);
    let json: Vec<u8> = get.query_async(connection).await.expect("a record");
    StoredBody::read(&json)
}

/// The keys of a task's calls, in turn.
pub fn own_keys(numbers: Range<usize>) -> impl Iterator<Item = usize> {
    let share = numbers.len();
    numbers.map(move |n| own_key(n, share))
}

/// The key of the call with this number, where each task makes `share` calls.
fn own_key(n: usize, share: usize) -> usize {
    n / share * OWN_KEYS + n % OWN_KEYS
}

pub fn fresh_against_locked(world: &World) -> Measured {
    let script = Arc::new(hand_written::script());
    fresh(world, move |mut by_hand, payloads| {
        let script = script.clone();
        async move {
            for _ in 0..payloads {
                by_hand.locked(&request(&payload()), &script).await;
            }
        }
    })
}

pub fn fresh_against_naive(world: &World) -> Measured {
    fresh(world, |mut by_hand, payloads| async move {
        for _ in 0..payloads {
            by_hand.naive(&request(&payload())).await;
        }
    })
}

/// The engine beside something written by hand: both make each request anew and
/// post it to the same platform.
fn fresh<F, Fut>(world: &World, work: F) -> Measured
where
    F: Fn(ByHand, usize) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    const KEYS: usize = 6_400;
    let (engine, by_hand) = (over_http(world), world.block_on(ByHand::new(world)));
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
    let through_hand = || throughput(KEYS, |numbers| work(by_hand.clone(), numbers.len()));
    in_turns_with(
        11,
        "a second",
        || world.block_on(through_engine()),
        || world.block_on(through_hand()),
        steps::as_others(through_steps),
    )
}

/// An engine over Redis and HTTP whose token is at hand.
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
    // The scripts are known to the server before anything is counted.
    per_key(crate::world::requests(TASKS), Served::Upstream);
    let fresh = per_key(requests.clone(), Served::Upstream);
    let replay = per_key(requests, Served::Store);
    // The worse of the two: 1 where both are what they should be.
    let value = f64::max(fresh / 2.0, replay);
    let measured = Measured::once(value, 1.0, "of the commands promised");
    measured.with_note(format!("{fresh} per fresh execution, {replay} per replay"))
}

/// Commands that came from clients. The server counts those within scripts as
/// well: each script that writes does so with one `GETRANGE`, one `SET` and one
/// `PUBLISH`, and `PUBLISH` is sent by nobody else.
fn sent(calls: &[(String, u64)]) -> u64 {
    let published = calls
        .iter()
        .find(|(name, _)| name == "publish")
        .map_or(0, |(_, n)| *n);
    calls.iter().map(|(_, n)| n).sum::<u64>() - 3 * published
}
