//! Counts the allocations of one thread, and only on request: baselines allocate more than
//! the engine, and counting would slow them down.

use std::hint::black_box;

use allocation_counter::{AllocationInfo, measure};
use futures_util::FutureExt as _;
use genesys_once::{IdempotencyKey, MemoryStore};

use crate::world::{ACTION, Answering, World, engine, payload, request};

/// Runs `work` and counts what this thread allocates meanwhile. `bytes_current` is the
/// memory that is allocated and not freed.
pub fn counted<T>(work: impl FnOnce() -> T) -> (T, AllocationInfo) {
    let mut output = None;
    let counts = measure(|| output = Some(work()));
    (output.expect("the work was done"), counts)
}

/// Allocations per call of `work`, which never waits.
fn per_call(mut work: impl FnMut()) -> f64 {
    const CALLS: u64 = 10_000;
    let ((), counts) = counted(|| {
        for _ in 0..CALLS {
            work();
        }
    });
    counts.count_total as f64 / CALLS as f64
}

/// Prints and returns the counts.
pub fn print(world: &World) -> Vec<(&'static str, f64)> {
    let payload = payload();
    let engine = world.block_on(engine(Answering::at_once(), MemoryStore::new(), |b| b));
    let reply = world
        .block_on(engine.execute(request(&payload)))
        .expect("an answer");
    // A replay needs a runtime, too.
    let _inside = world.runtime.enter();
    let request_of = || request(&payload);
    let counts = vec![
        (
            "a request of a small payload",
            per_call(|| drop(black_box(request_of()))),
        ),
        (
            "its action id and its shared parts alone",
            per_call(|| {
                let id: genesys_once::request::ActionId = ACTION.parse().expect("an id");
                drop(black_box((id, std::sync::Arc::new(payload.clone()))));
            }),
        ),
        ("a replay from memory", {
            let request = request_of();
            per_call(|| {
                let replay = engine.execute(request.clone()).now_or_never();
                let replay = black_box(replay.expect("memory answers at once"));
                assert_eq!(replay.expect("an answer").key(), reply.key());
            })
        }),
        ("the key of a request", {
            let request = request_of();
            per_call(|| {
                black_box(IdempotencyKey::of(black_box(&request)));
            })
        }),
    ];
    for (what, count) in &counts {
        println!("allocations {count} {what}");
    }
    counts
}
