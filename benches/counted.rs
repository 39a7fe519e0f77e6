//! The paths whose instructions are counted: each a function that is never
//! inlined, called a fixed number of times on one thread. It measures nothing
//! itself; `sh benches/instructions` runs it under callgrind.

use std::hint::black_box;

use bytes::Bytes;
use futures_util::FutureExt as _;
use genesys_once::testing::{ScriptedUpstream, Step};
use genesys_once::{DataActionRequest, Engine, IdempotencyKey, MemoryStore};

const ACTION: &str = "custom_-_0f6e7a1c-1c7d-4d0e-9a52-2f1f0a4a0b0c";

/// Calls of the path: enough that what moka does now and then is in the mean.
const CALLS: usize = 10_000;

fn main() {
    let path = std::env::args().nth(1).unwrap_or_default();
    match path.as_str() {
        "key_derivation" => counted_key_derivation(&small()),
        "replay_memory" => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let runtime = runtime.expect("a runtime");
            let request = request(&small());
            let engine = runtime.block_on(async {
                let upstream = ScriptedUpstream::new(|_| Step::ok(r#"{"refund":"R-1"}"#));
                let engine = Engine::builder(upstream)
                    .store(MemoryStore::new())
                    .start()
                    .await;
                let engine = engine.expect("the defaults are possible");
                engine.execute(request.clone()).await.expect("an answer");
                engine
            });
            counted_replay_memory(&engine, &request);
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

fn small() -> Bytes {
    Bytes::from_static(br#"{"order":"R-00000100042","customer":"C-1001","amount":19.90}"#)
}

fn request(payload: &Bytes) -> DataActionRequest {
    DataActionRequest::new(ACTION, payload.clone()).expect("a payload of ours")
}
