//! Criterion's look at each path of the engine by itself: its time per call, and
//! whether that changed since the last run. What a path costs beside what nobody
//! can avoid is `floors`' question; it lends the worlds that both run in.
//!
//! ```text
//! cargo bench --bench paths              every path: a few minutes
//! cargo bench --bench paths -- replay    those whose name has the word
//! ```

// `floors` uses what this does not.
#![allow(dead_code)]

#[path = "floors/hand_written.rs"]
mod hand_written;
#[path = "floors/herd.rs"]
mod herd;
#[path = "floors/in_process.rs"]
mod in_process;
#[path = "floors/keys.rs"]
mod keys;
#[path = "floors/measure.rs"]
mod measure;
#[path = "floors/over_redis.rs"]
mod over_redis;
#[path = "../tests/support/redis.rs"]
mod redis_server;
#[path = "floors/steps.rs"]
mod steps;
#[path = "floors/world.rs"]
mod world;

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use genesys_once::{Engine, MemoryStore, Served};

use measure::{TASKS, throughput};
use over_redis::{OWN_KEYS, own_keys};
use world::{Answering, World, engine, payload_of, requests};

/// The time of so many calls at that rate, which is what criterion asks for.
fn time(calls: u64, per_second: f64) -> Duration {
    Duration::from_secs_f64(calls as f64 / per_second)
}

fn key_derivation(c: &mut Criterion) {
    for (name, payload) in [("small", payload_of(100_042)), ("large", keys::nested())] {
        let mut group = c.benchmark_group("key");
        group.throughput(Throughput::Bytes(payload.len() as u64));
        group.bench_function(name, |b| b.iter(|| keys::derive(black_box(&payload))));
        group.finish();
    }
}

/// Keys of each task, asked for in turn: nobody joins a replay.
async fn replays(engine: &Engine, served: Served, calls: u64) -> f64 {
    let own = requests(TASKS * OWN_KEYS);
    for request in &*own {
        engine.execute(request.clone()).await.expect("an answer");
    }
    throughput(calls as usize, |numbers| {
        let (engine, own) = (engine.clone(), own.clone());
        async move {
            for key in own_keys(numbers) {
                let reply = engine.execute(own[key].clone()).await;
                let reply = reply.expect("an answer");
                assert_eq!(reply.served(), served);
                black_box(reply);
            }
        }
    })
    .await
}

fn replay(c: &mut Criterion) {
    let world = World::new();
    let (in_memory, over_redis) = world.block_on(async {
        let in_memory = engine(Answering::at_once(), MemoryStore::new(), |b| b).await;
        let store = world.redis_store().await;
        let no_memory = |b: genesys_once::EngineBuilder| b.recent(0, Duration::from_secs(60));
        (
            in_memory,
            engine(Answering::at_once(), store, no_memory).await,
        )
    });
    let mut group = c.benchmark_group("replay");
    for (name, engine, served) in [
        ("memory", in_memory, Served::Memory),
        ("redis", over_redis, Served::Store),
    ] {
        group.bench_function(name, |b| {
            b.iter_custom(|calls| time(calls, world.block_on(replays(&engine, served, calls))));
        });
    }
    group.finish();
}

fn fresh(c: &mut Criterion) {
    let world = World::new();
    let over_http = over_redis::over_http(&world);
    let mut group = c.benchmark_group("fresh");
    group.bench_function("memory", |b| {
        b.iter_custom(|calls| {
            let engine = world.block_on(engine(Answering::at_once(), MemoryStore::new(), |b| b));
            time(
                calls,
                world.block_on(in_process::execute_new(&engine, calls as usize)),
            )
        });
    });
    group.bench_function("redis_http", |b| {
        b.iter_custom(|calls| {
            time(
                calls,
                world.block_on(in_process::execute_new(&over_http, calls as usize)),
            )
        });
    });
    group.finish();
}

fn herd_of_10_000(c: &mut Criterion) {
    let world = World::new();
    let store = MemoryStore::new();
    let engine = world.block_on(engine(Answering::after(herd::LATENCY), store, |b| b));
    let mut group = c.benchmark_group("herd");
    group.sample_size(20);
    group.bench_function("10000_callers_of_one_key", |b| {
        b.iter_custom(|rounds| {
            let ms: f64 = (0..rounds)
                .map(|_| world.block_on(herd::through(&engine)))
                .sum();
            Duration::from_secs_f64(ms / 1000.0)
        });
    });
    group.finish();
}

criterion_group!(paths, key_derivation, replay, fresh, herd_of_10_000);
criterion_main!(paths);
