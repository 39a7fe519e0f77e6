//! The paths whose instructions are counted: each a function that is never
//! inlined, called a fixed number of times on one thread. It measures nothing
//! itself; `sh benches/instructions` runs it under callgrind.

// `floors` uses what this does not.
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

use bytes::Bytes;
use futures_util::FutureExt as _;
use genesys_once::{DataActionRequest, Engine, IdempotencyKey, MemoryStore};
use tokio::runtime::Runtime;

use steps::{Driver, Steps};
use world::{Answering, payload, request};

/// Calls of the path: enough that what happens now and then is in the mean.
const CALLS: usize = 10_000;

fn main() {
    let path = std::env::args().nth(1).unwrap_or_default();
    match path.as_str() {
        "key_derivation" => counted_key_derivation(&small()),
        "replay_memory" => {
            let runtime = runtime();
            let request = request(&small());
            let engine = runtime.block_on(async {
                let engine = engine().await;
                engine.execute(request.clone()).await.expect("an answer");
                engine
            });
            counted_replay_memory(&engine, &request);
        }
        "fresh_memory" => {
            let runtime = runtime();
            let engine = runtime.block_on(async {
                let engine = engine().await;
                // What is made once is made before.
                execute(&engine, requests()).await;
                engine
            });
            counted_fresh_memory(&runtime, &engine, requests());
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
        "calls" => println!("{CALLS}"),
        // `cargo bench` runs it as well, with words of its own.
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

/// What the steps are taken with, each driver used before.
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
