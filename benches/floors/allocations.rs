//! An allocator that counts what one thread allocates while it is asked to, and
//! otherwise passes everything on to the system's: floors allocate more than the
//! engine, and must not be slowed down for it.

#![allow(
    unsafe_code,
    reason = "an allocator is an unsafe trait; this one only adds up numbers"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;

use futures_util::FutureExt as _;
use genesys_once::{IdempotencyKey, MemoryStore};

use crate::world::{ACTION, Answering, World, engine, payload, request};

/// What was allocated, less what was freed for `bytes`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub allocations: u64,
    pub bytes: i64,
}

thread_local! {
    static COUNTS: Cell<Option<Counts>> = const { Cell::new(None) };
}

fn count(allocations: u64, bytes: i64) {
    // While a thread ends there is nothing to count.
    let _ = COUNTS.try_with(|cell| {
        if let Some(counts) = cell.get() {
            cell.set(Some(Counts {
                allocations: counts.allocations + allocations,
                bytes: counts.bytes + bytes,
            }));
        }
    });
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes to the system's allocator as it came, and counting
// allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as i64);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, -(layout.size() as i64));
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as i64);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(1, size as i64 - layout.size() as i64);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Runs `work` and counts what this thread allocates meanwhile: all of it, on a
/// runtime of one thread.
pub async fn counted<T>(work: impl Future<Output = T>) -> (T, Counts) {
    COUNTS.set(Some(Counts::default()));
    let output = work.await;
    (output, COUNTS.take().unwrap_or_default())
}

/// Allocations per call of `work`, which never waits.
fn per_call(mut work: impl FnMut()) -> f64 {
    const CALLS: u64 = 10_000;
    let counting = counted(async {
        for _ in 0..CALLS {
            work();
        }
    });
    let ((), counts) = counting.now_or_never().expect("nothing in it waits");
    counts.allocations as f64 / CALLS as f64
}

/// Prints and gives the counts.
pub fn print(world: &World) -> Vec<(&'static str, f64)> {
    let payload = payload();
    let engine = world.block_on(engine(Answering::at_once(), MemoryStore::new(), |b| b));
    let reply = world
        .block_on(engine.execute(request(&payload)))
        .expect("an answer");
    let request_of = || request(&payload);
    // What a request is made of besides its key: its id and itself, behind an
    // `Arc` each.
    let counts = vec![
        (
            "a request of a small payload",
            per_call(|| drop(black_box(request_of()))),
        ),
        (
            "its action id and its shared parts alone",
            per_call(|| {
                let id: genesys_once::ActionId = ACTION.parse().expect("an id");
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
