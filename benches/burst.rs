//! The process of the row `memory_after_burst`. It prints its heap in use and its resident
//! memory, in KiB, before and after many keys were in flight at once. Linux only.
//!
//! ```text
//! burst REDIS_URL KEYS
//! ```
//!
//! A separate program, because its allocator counts the bytes in use of all threads. Resident
//! memory also shows what an allocator keeps, and glibc's allocator keeps nearly all.

use std::alloc::System;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use genesys_once::error::SendError;
use genesys_once::record::Namespace;
use genesys_once::store::BoxFuture;
use genesys_once::upstream::{AccessToken, Call};
use genesys_once::{DataActionRequest, Engine, Outcome, RedisStore, Upstream};
use http::{HeaderMap, StatusCode};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::sync::Semaphore;
use tokio::task::unconstrained;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Executions before the burst.
const WARM: usize = 10_000;

/// Keys that are started at once.
const BATCH: usize = 1000;

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [url, keys] = args.as_slice() else {
        panic!("two arguments: the URL of a Redis, and the number of keys");
    };
    let keys: usize = keys.parse().expect("a number");
    let keys = keys.next_multiple_of(BATCH);
    let gate = Arc::new(Semaphore::new(WARM));
    let store = RedisStore::connect(url).await.expect("a server");
    let engine = Engine::builder(Gated(gate.clone()))
        .store(store)
        .max_in_flight(keys)
        .max_waiting(2 * keys)
        .lease(Duration::from_secs(600))
        .recent(0, Duration::from_secs(60));
    let engine = engine.start().await.expect("possible settings");
    // Measures an engine that has been in use.
    for key in 0..WARM {
        begin(&engine, key);
        if key % 50 == 0 {
            while engine.stats().executions > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
    quiet(&engine).await;
    println!("{} {}", used_kib(), resident_kib());
    for batch in 1..=keys / BATCH {
        for key in 0..BATCH {
            begin(&engine, WARM + batch * BATCH + key);
        }
        while engine.stats().in_flight < batch * BATCH {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    for _ in 0..keys / BATCH {
        gate.add_permits(BATCH);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    quiet(&engine).await;
    println!("{} {}", used_kib(), resident_kib());
}

/// Starts an execution of a new key, whose caller leaves. Unconstrained: tokio's budget
/// would stop this task from starting more than 128 of them in one turn.
fn begin(engine: &Engine, key: usize) {
    let payload = format!(r#"{{"order":"R-{key:011}","customer":"C-1001","amount":19.90}}"#);
    let request = DataActionRequest::new("custom_-_refund", payload).expect("a payload of ours");
    // One poll starts the execution.
    let _ = unconstrained(engine.execute(request)).now_or_never();
}

/// Waits until nothing is in flight, and for 30 s more.
async fn quiet(engine: &Engine) {
    while engine.stats().executions > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_secs(30)).await;
}

/// An upstream that answers once for each permit of its gate.
struct Gated(Arc<Semaphore>);

impl Upstream for Gated {
    fn namespace(&self) -> Namespace {
        "burst".parse().expect("a namespace by its alphabet")
    }

    fn send<'a>(
        &'a self,
        _: &'a Call,
        _: Option<&'a AccessToken>,
    ) -> BoxFuture<'a, Result<Outcome, SendError>> {
        Box::pin(async move {
            self.0.acquire().await.expect("it stays open").forget();
            let body = r#"{"refund":"R-100042","status":"booked"}"#;
            Ok(Outcome::new(StatusCode::OK, HeaderMap::new(), body))
        })
    }
}

fn used_kib() -> usize {
    let stats = ALLOCATOR.stats();
    (stats.bytes_allocated - stats.bytes_deallocated) / 1024
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux's /proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.parse().ok()).expect("VmRSS in kB")
}
