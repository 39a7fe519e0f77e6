//! The paths whose instructions are counted. Each is a function that is never inlined and
//! makes a fixed number of calls on one thread. This program measures nothing itself; `sh
//! benches/instructions` runs it under callgrind.
//!
//! A counted function has no closure: the closure's name would match as well, and switch the
//! counting off.

// `floors` uses parts that this program does not use.
#[path = "floors/baseline.rs"]
#[allow(dead_code)]
mod baseline;
#[path = "floors/keys.rs"]
#[allow(dead_code)]
mod keys;
#[path = "floors/measure.rs"]
#[allow(dead_code)]
mod measure;
#[path = "../tests/support/redis.rs"]
#[allow(dead_code)]
mod redis_server;
#[path = "floors/steps.rs"]
#[allow(dead_code)]
mod steps;
#[path = "floors/world.rs"]
#[allow(dead_code)]
mod world;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use genesys_once::{
    DataActionRequest, Engine, GenesysCloud, IdempotencyKey, MemoryStore, RedisStore,
};
use redis::Script;
use redis::aio::MultiplexedConnection;
use tokio::runtime::Runtime;

use baseline::Baseline;
use measure::{TASKS, throughput};
use redis_server::RedisServer;
use steps::{Driver, Steps};
use world::{Answering, World, payload, request};

/// Calls of a path: enough that rare work is part of the mean, and the same number for each
/// task.
const CALLS: usize = 156 * TASKS;

/// Calls of `key_large`.
const LARGE: usize = 100;

fn main() {
    let path = std::env::args().nth(1).unwrap_or_default();
    match path.as_str() {
        "key_derivation" => counted_key_derivation(&small()),
        "key_large" => counted_key_large(&keys::nested()),
        "replay_memory" => {
            let runtime = runtime();
            let request = request(&small());
            let engine = runtime.block_on(async {
                let engine = engine().await;
                engine.execute(request.clone()).await.expect("an answer");
                engine
            });
            let _inside = runtime.enter();
            counted_replay_memory(&engine, &request);
        }
        "fresh_memory" => {
            let runtime = runtime();
            let engine = runtime.block_on(async {
                let engine = engine().await;
                // Parts that are made lazily exist before the count.
                execute(&engine, requests()).await;
                engine
            });
            counted_fresh_memory(&runtime, &engine, requests());
        }
        "replay_redis" => {
            let (runtime, server) = (runtime(), RedisServer::start());
            let requests: Arc<[DataActionRequest]> = requests().into();
            let engine = runtime.block_on(async {
                let engine = over_redis(&server).await;
                // Recorded, then replayed until the engine expects replays.
                for _ in 0..2 {
                    at_once(&engine, &requests).await;
                }
                engine
            });
            counted_replay_redis(&runtime, &engine, &requests);
        }
        "get_redis" => {
            let (runtime, server) = (runtime(), RedisServer::start());
            let (connection, names) = runtime.block_on(baseline_records(&server));
            counted_get_redis(&runtime, &connection, &names);
        }
        "fresh_redis" => {
            let (runtime, server) = (runtime(), RedisServer::start());
            let engine = runtime.block_on(async {
                let engine = over_redis(&server).await;
                at_once(&engine, &requests().into()).await;
                engine
            });
            counted_fresh_redis(&runtime, &engine, &requests().into());
        }
        "locked_redis" => {
            let (runtime, world) = (runtime(), World::new());
            world.redis();
            let connection = runtime.block_on(world.redis_connection());
            let script = Arc::new(baseline::script());
            counted_locked_redis(&runtime, &connection, &script, &requests().into());
        }
        "fresh_http" => {
            let (runtime, world) = (runtime(), over_http());
            let platform = world.platform();
            let upstream = GenesysCloud::new(platform.environment(), platform.credentials());
            let engine = runtime.block_on(async {
                let engine = world::engine(upstream, world.redis_store().await, |b| b).await;
                at_once(&engine, &requests().into()).await;
                engine
            });
            counted_fresh_http(&runtime, &engine, &requests().into());
        }
        "locked_http" => {
            let (runtime, world) = (runtime(), over_http());
            let baseline = runtime.block_on(Baseline::new(&world));
            let script = Arc::new(baseline::script());
            counted_locked_http(&runtime, &baseline, &script, &requests().into());
        }
        "steps" => {
            let (runtime, steps) = steps();
            counted_steps(&runtime, &steps, requests());
        }
        "steps_in_actors" => {
            let (runtime, steps) = steps();
            counted_steps_in_actors(&runtime, &steps, requests());
        }
        "steps_supervised" => {
            let (runtime, steps) = steps();
            counted_steps_supervised(&runtime, &steps, requests());
        }
        "calls" => match std::env::args().nth(2).as_deref() {
            Some("key_large") => println!("{LARGE}"),
            _ => println!("{CALLS}"),
        },
        // `cargo bench` runs this program as well, with arguments of its own.
        _ => println!("run by: sh benches/instructions"),
    }
}

#[inline(never)]
fn counted_key_derivation(payload: &Bytes) {
    for _ in 0..CALLS {
        black_box(IdempotencyKey::of(&request(black_box(payload))));
    }
}

#[inline(never)]
fn counted_key_large(payload: &Bytes) {
    for _ in 0..LARGE {
        black_box(IdempotencyKey::of(&request(black_box(payload))));
    }
}

#[inline(never)]
fn counted_replay_memory(engine: &Engine, request: &DataActionRequest) {
    for _ in 0..CALLS {
        let reply = engine.execute(request.clone()).now_or_never();
        black_box(reply.expect("memory answers at once").expect("an answer"));
    }
}

/// New keys, one after the other.
#[inline(never)]
fn counted_fresh_memory(runtime: &Runtime, engine: &Engine, requests: Vec<DataActionRequest>) {
    runtime.block_on(execute(engine, requests));
}

/// By many tasks on one thread; the baseline is a `GET` and parsing its result.
#[inline(never)]
fn counted_replay_redis(runtime: &Runtime, engine: &Engine, requests: &Arc<[DataActionRequest]>) {
    runtime.block_on(at_once(engine, requests));
}

#[inline(never)]
fn counted_get_redis(runtime: &Runtime, connection: &MultiplexedConnection, names: &Arc<[String]>) {
    runtime.block_on(get(connection, names));
}

async fn get(connection: &MultiplexedConnection, names: &Arc<[String]>) {
    throughput(CALLS, |numbers| {
        let (mut connection, names) = (connection.clone(), names.clone());
        async move {
            for n in numbers {
                black_box(baseline::replay(&mut connection, &names[n]).await);
            }
        }
    })
    .await;
}

#[inline(never)]
fn counted_fresh_redis(runtime: &Runtime, engine: &Engine, requests: &Arc<[DataActionRequest]>) {
    runtime.block_on(at_once(engine, requests));
}

/// `SET NX GET` and the script, without a call.
#[inline(never)]
fn counted_locked_redis(
    runtime: &Runtime,
    connection: &MultiplexedConnection,
    script: &Arc<Script>,
    requests: &Arc<[DataActionRequest]>,
) {
    runtime.block_on(lock(connection, script, requests));
}

async fn lock(
    connection: &MultiplexedConnection,
    script: &Arc<Script>,
    requests: &Arc<[DataActionRequest]>,
) {
    throughput(CALLS, |numbers| {
        let (mut connection, script) = (connection.clone(), script.clone());
        let requests = requests.clone();
        async move {
            for n in numbers {
                baseline::locked_without_call(&mut connection, &requests[n], &script).await;
            }
        }
    })
    .await;
}

/// The platform has a thread of its own, whose instructions do not count.
#[inline(never)]
fn counted_fresh_http(runtime: &Runtime, engine: &Engine, requests: &Arc<[DataActionRequest]>) {
    runtime.block_on(at_once(engine, requests));
}

#[inline(never)]
fn counted_locked_http(
    runtime: &Runtime,
    baseline: &Baseline,
    script: &Arc<Script>,
    requests: &Arc<[DataActionRequest]>,
) {
    runtime.block_on(lock_and_call(baseline, script, requests));
}

async fn lock_and_call(
    baseline: &Baseline,
    script: &Arc<Script>,
    requests: &Arc<[DataActionRequest]>,
) {
    throughput(CALLS, |numbers| {
        let (mut baseline, script) = (baseline.clone(), script.clone());
        let requests = requests.clone();
        async move {
            for n in numbers {
                baseline.locked(&requests[n], &script).await;
            }
        }
    })
    .await;
}

/// A Redis and a platform that have been used once, so that the engine's client has chosen
/// the TLS provider for all clients of the process.
fn over_http() -> World {
    let world = World::new();
    let platform = world.platform();
    let upstream = GenesysCloud::new(platform.environment(), platform.credentials());
    world.block_on(async {
        let engine = world::engine(upstream, world.redis_store().await, |b| b).await;
        engine
            .execute(request(&payload()))
            .await
            .expect("an answer");
    });
    world
}

async fn at_once(engine: &Engine, requests: &Arc<[DataActionRequest]>) {
    throughput(CALLS, |numbers| {
        let (engine, requests) = (engine.clone(), requests.clone());
        async move {
            for n in numbers {
                black_box(
                    engine
                        .execute(requests[n].clone())
                        .await
                        .expect("an answer"),
                );
            }
        }
    })
    .await;
}

async fn over_redis(server: &RedisServer) -> Engine {
    let store = RedisStore::connect(&server.url()).await.expect("a server");
    let engine = Engine::builder(Answering::at_once()).store(store);
    let engine = engine.max_in_flight(4 * TASKS);
    let engine = engine.recent(0, Duration::from_secs(60)).start().await;
    engine.expect("possible settings")
}

/// Records of the baseline, and the connection that reads them.
async fn baseline_records(server: &RedisServer) -> (MultiplexedConnection, Arc<[String]>) {
    let client = redis::Client::open(server.url()).expect("a URL of ours");
    let connection = client.get_multiplexed_async_connection().await;
    let mut connection = connection.expect("a server that was just started");
    let names: Arc<[String]> = (0..CALLS).map(|n| format!("baseline:{n:064}")).collect();
    for name in &*names {
        baseline::record(&mut connection, name).await;
    }
    (connection, names)
}

#[inline(never)]
fn counted_steps(runtime: &Runtime, steps: &Steps, requests: Vec<DataActionRequest>) {
    runtime.block_on(take(steps, Driver::Caller, requests));
}

#[inline(never)]
fn counted_steps_in_actors(runtime: &Runtime, steps: &Steps, requests: Vec<DataActionRequest>) {
    runtime.block_on(take(steps, Driver::ActorPerKey, requests));
}

#[inline(never)]
fn counted_steps_supervised(runtime: &Runtime, steps: &Steps, requests: Vec<DataActionRequest>) {
    runtime.block_on(take(steps, Driver::SupervisedActorPerKey, requests));
}

async fn execute(engine: &Engine, requests: Vec<DataActionRequest>) {
    for request in requests {
        black_box(engine.execute(request).await.expect("an answer"));
    }
}

async fn take(steps: &Steps, driver: Driver, requests: Vec<DataActionRequest>) {
    for request in requests {
        black_box(steps.take_by(driver, request).await);
    }
}

fn runtime() -> Runtime {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime")
}

async fn engine() -> Engine {
    let engine = Engine::builder(Answering::at_once())
        .store(MemoryStore::new())
        .start()
        .await;
    engine.expect("the defaults are possible")
}

/// Steps whose drivers have all been used before.
fn steps() -> (Runtime, Steps) {
    let runtime = runtime();
    let steps = runtime.block_on(async {
        let steps = Steps::new(MemoryStore::new(), Answering::at_once()).await;
        for driver in [
            Driver::Caller,
            Driver::ActorPerKey,
            Driver::LinkedActorPerKey,
            Driver::SupervisedActorPerKey,
        ] {
            take(&steps, driver, requests()).await;
        }
        steps
    });
    (runtime, steps)
}

fn requests() -> Vec<DataActionRequest> {
    (0..CALLS).map(|_| request(&payload())).collect()
}

fn small() -> Bytes {
    Bytes::from_static(br#"{"order":"R-00000100042","customer":"C-1001","amount":19.90}"#)
}
