//! The engine's memory: per key in flight, after a burst, with a million records, and
//! after two million executions. Linux only: resident memory is read from
//! `/proc/self/status`.

use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use genesys_once::{Engine, MemoryStore, RedisStore};
use ractor::{Actor, ActorProcessingErr, ActorRef, ActorStatus};
use tokio::task::unconstrained;

use crate::allocations::counted;
use crate::in_process::execute_new;
use crate::measure::{Measured, in_turns};
use crate::redis_server::RedisServer;
use crate::world::{Answering, World, engine, payload, request};

pub fn in_flight(_: &World) -> Measured {
    const KEYS: usize = 100_000;
    // A server for this row only: its keys stay locked.
    let server = RedisServer::start();
    let url = server.url();
    let engine = on_one_thread(move || executions(&url, KEYS));
    let baseline = on_one_thread(|| actors(KEYS));
    Measured::once(engine / KEYS as f64, baseline / KEYS as f64, "bytes")
}

/// Allocations are counted per thread, so each side runs on one thread.
fn on_one_thread(work: impl FnOnce() -> f64 + Send + 'static) -> f64 {
    std::thread::spawn(work)
        .join()
        .expect("a side of the row panicked")
}

/// The heap of `keys` executions that wait for the upstream. Their callers have left: a
/// caller's own task does not belong to the engine's memory. The records are in Redis.
fn executions(url: &str, keys: usize) -> f64 {
    let runtime = one_thread();
    let engine = runtime.block_on(async {
        let store = RedisStore::connect(url).await.expect("a server");
        let slow = Answering::after(Duration::from_secs(3600));
        engine(slow, store, |builder| {
            builder
                .max_in_flight(keys)
                .max_waiting(2 * keys)
                .lease(Duration::from_secs(600))
        })
        .await
    });
    let all = keys.div_ceil(BATCH) * BATCH;
    let ((), heap) = counted(|| {
        runtime.block_on(async {
            for batch in 0..all / BATCH {
                for _ in 0..BATCH {
                    begin(&engine);
                }
                until_in_flight(&engine, (batch + 1) * BATCH).await;
            }
        });
    });
    assert_eq!(engine.stats().in_flight, all);
    heap.bytes_current as f64 * keys as f64 / all as f64
}

/// Starts an execution of a new key, whose caller leaves. Unconstrained: tokio's budget
/// would stop this task from starting more than 128 of them in one turn.
fn begin(engine: &Engine) {
    let asked = unconstrained(engine.execute(request(&payload())));
    assert!(asked.now_or_never().is_none(), "the upstream is slow");
}

/// Keys that are started at once.
const BATCH: usize = 1000;

async fn until_in_flight(engine: &Engine, keys: usize) {
    while engine.stats().in_flight < keys {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // In flight counts from the permit on, so wait until the call is made.
    tokio::time::sleep(Duration::from_millis(50)).await;
}

/// The heap of `keys` actors that hold a payload and wait for a message.
fn actors(keys: usize) -> f64 {
    let runtime = one_thread();
    let (actors, heap) = counted(|| {
        runtime.block_on(async {
            let mut actors = Vec::with_capacity(keys);
            for _ in 0..keys {
                let (actor, _) = Actor::spawn(None, Idle, payload()).await.expect("an actor");
                actors.push(actor);
            }
            // An actor has its full size once its task has run and waits for a message.
            let is_idle = |actor: &ActorRef<_>| actor.get_status() == ActorStatus::Running;
            while !actors.iter().all(is_idle) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            actors
        })
    });
    for actor in actors {
        actor.stop(None);
    }
    heap.bytes_current as f64
}

fn one_thread() -> tokio::runtime::Runtime {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime")
}

struct Idle;

#[derive(Debug)]
struct Nothing;

#[cfg(feature = "ractor-cluster")]
impl ractor::Message for Nothing {}

#[cfg_attr(feature = "ractor-async-trait", ractor::async_trait)]
impl Actor for Idle {
    type Msg = Nothing;
    type State = Bytes;
    type Arguments = Bytes;

    async fn pre_start(
        &self,
        _: ActorRef<Nothing>,
        payload: Bytes,
    ) -> Result<Bytes, ActorProcessingErr> {
        Ok(payload)
    }
}

/// Grows the engine's own tables and `MemoryStore`.
pub fn growth(world: &World) -> Measured {
    const KEYS: usize = 20_000;
    let engine_with = |records: usize| {
        world.block_on(async {
            let engine = engine(Answering::at_once(), MemoryStore::new(), |b| b).await;
            // Requests are made in portions, so that their own memory does not grow.
            for _ in 0..records / 10_000 {
                execute_new(&engine, 10_000).await;
            }
            engine
        })
    };
    let grown = engine_with(scaled(1_000_000));
    in_turns(
        11,
        "a second",
        || world.block_on(execute_new(&grown, KEYS)),
        || {
            let small = engine_with(10_000);
            world.block_on(execute_new(&small, KEYS))
        },
    )
}

/// Runs in a separate process, which does nothing but these executions.
pub fn soak(_: &World) -> Measured {
    // A new server: the child begins with the same keys as this process did.
    let server = RedisServer::start();
    let (few, many) = (scaled(200_000), scaled(2_000_000));
    let (few_of, many_of) = (few.to_string(), many.to_string());
    let this = std::env::current_exe().expect("this binary");
    let args = ["--child", "soak", &server.url(), &few_of, &many_of];
    let [after_few, after_many] = printed(Command::new(this).args(args));
    Measured::once(after_many / 1024.0, after_few / 1024.0, "MiB").with_note(format!(
        "{few} and {many} executions of distinct keys over Redis"
    ))
}

/// The numbers that a program prints.
fn printed<const N: usize>(program: &mut Command) -> [f64; N] {
    let output = program.output().expect("the program starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let stdout = String::from_utf8(output.stdout).expect("numbers");
    let mut numbers = stdout
        .split_whitespace()
        .map(|n| n.parse::<f64>().expect("a number"));
    std::array::from_fn(|_| numbers.next().expect("another number"))
}

/// The heap in use of `burst.rs`, before and after.
pub fn after_burst(_: &World) -> Measured {
    let server = RedisServer::start();
    let keys = scaled(100_000);
    let [before, resident, after, kept] =
        printed(Command::new(env!("CARGO_BIN_EXE_burst")).args([server.url(), keys.to_string()]))
            .map(|kib| kib / 1024.0);
    Measured::once(after, before, "MiB").with_note(format!(
        "{keys} keys; resident {resident:.0} and {kept:.0} MiB"
    ))
}

pub fn soak_child(args: &[&str]) {
    let [url, few, many] = args else {
        panic!("three arguments");
    };
    let [few, many] = [few, many].map(|n| n.parse::<usize>().expect("a number"));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let store = RedisStore::connect(url).await.expect("a server");
        // Short-lived records, to keep Redis small.
        let engine = engine(Answering::at_once(), store, |builder| {
            builder.result_ttl(Duration::from_secs(120))
        })
        .await;
        let mut done = 0;
        for goal in [few, many] {
            while done < goal {
                execute_new(&engine, 10_000).await;
                done += 10_000;
            }
            println!("{}", resident_kib());
        }
        assert_eq!(engine.stats().executions, 0);
    });
}

/// `FLOORS_PERCENT` of a number of executions; by default all of them.
fn scaled(executions: usize) -> usize {
    let percent = std::env::var("FLOORS_PERCENT").ok();
    let percent: usize = percent.map_or(100, |p| p.parse().expect("a number of percent"));
    (executions * percent / 100).max(10_000)
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux's /proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.parse().ok()).expect("VmRSS in kB")
}
