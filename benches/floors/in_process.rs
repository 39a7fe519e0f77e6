//! The paths within the process: a replay of a recent outcome from memory, and
//! fresh executions over `MemoryStore`.

use std::hash::{BuildHasherDefault, Hasher};
use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use genesys_once::{Engine, IdempotencyKey, MemoryStore, Outcome, Served};
use http::{HeaderMap, StatusCode};
use moka::sync::Cache;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};

use crate::measure::{Measured, TASKS, in_turns, in_turns_with, throughput};
use crate::steps::{self, Steps};
use crate::world::{ANSWER, Answering, World, engine, payload, request, requests};

/// Keys with a recent outcome.
const RECENT: usize = 1024;

pub fn replay(world: &World) -> Measured {
    let payloads: Arc<[Bytes]> = (0..RECENT).map(|_| payload()).collect();
    let engine = world.block_on(engine(Answering::at_once(), MemoryStore::new(), |b| b));
    world.block_on(async {
        for payload in &*payloads {
            engine.execute(request(payload)).await.expect("an answer");
        }
    });
    // The cheapest moka cache: no time to live, no weights, no hashing.
    let cache = Cache::builder().max_capacity(RECENT as u64 * 2);
    let cache = cache.build_with_hasher(BuildHasherDefault::<FirstBytes>::default());
    for payload in &*payloads {
        let body = Bytes::from_static(ANSWER.as_bytes());
        let outcome = Outcome::new(StatusCode::OK, HeaderMap::new(), body);
        cache.insert(IdempotencyKey::of(&request(payload)), Arc::new(outcome));
    }
    let through_engine = || {
        throughput(400_000, |numbers| {
            let (engine, payloads) = (engine.clone(), payloads.clone());
            async move {
                for n in numbers {
                    let reply = engine.execute(request(&payloads[n % RECENT])).await;
                    let reply = reply.expect("an answer");
                    assert_eq!(reply.served(), Served::Memory);
                    black_box(reply);
                }
            }
        })
    };
    let through_cache = || {
        throughput(400_000, |numbers| {
            let (cache, payloads) = (cache.clone(), payloads.clone());
            async move {
                for n in numbers {
                    let request = request(&payloads[n % RECENT]);
                    let outcome = cache.get(&IdempotencyKey::of(&request));
                    black_box(outcome.expect("an outcome"));
                }
            }
        })
    };
    in_turns(
        15,
        "a second",
        || world.block_on(through_engine()),
        || world.block_on(through_cache()),
    )
}

pub fn fresh(world: &World) -> Measured {
    const KEYS: usize = 30_000;
    let through_engine = || {
        // Each round has a new store, as each round of the baseline has new actors.
        let engine = world.block_on(engine(Answering::at_once(), MemoryStore::new(), |b| b));
        world.block_on(execute_new(&engine, KEYS))
    };
    let through_actors = || {
        let bodies: Arc<[Bytes]> = (0..KEYS + TASKS).map(|_| payload()).collect();
        world.block_on(throughput(KEYS, |numbers| {
            let bodies = bodies.clone();
            async move {
                for n in numbers {
                    let spawned = Actor::spawn(None, AskedOnce, bodies[n].clone()).await;
                    let (actor, _) = spawned.expect("an actor");
                    let answer = actor.call(Ask, None).await.expect("a message");
                    black_box(answer.unwrap());
                }
            }
        }))
    };
    let through_steps = |by| {
        world.block_on(async {
            let steps = Steps::new(MemoryStore::new(), Answering::at_once()).await;
            let requests = requests(KEYS.next_multiple_of(TASKS));
            steps
                .throughput(KEYS, by, move |n| requests[n].clone())
                .await
        })
    };
    let others = steps::as_others(through_steps);
    in_turns_with(11, "a second", through_engine, through_actors, others)
}

/// Executes `keys` new keys, whose requests are made before the clock starts.
pub async fn execute_new(engine: &Engine, keys: usize) -> f64 {
    let requests = requests(keys.next_multiple_of(TASKS));
    throughput(keys, |numbers| {
        let (engine, requests) = (engine.clone(), requests.clone());
        async move {
            for n in numbers {
                let reply = engine.execute(requests[n].clone()).await;
                let reply = reply.expect("an answer");
                assert_eq!(reply.served(), Served::Upstream);
                black_box(reply);
            }
        }
    })
    .await
}

/// A key is a digest, so its first bytes are enough as a hash.
#[derive(Default)]
struct FirstBytes(u64);

impl Hasher for FirstBytes {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 ^= u64::from_ne_bytes(*first);
        }
    }

    fn write_usize(&mut self, _: usize) {}
}

/// The least possible actor per key: it has a payload, answers once and stops.
struct AskedOnce;

struct Ask(RpcReplyPort<Bytes>);

#[cfg(feature = "ractor-cluster")]
impl ractor::Message for Ask {}

#[cfg_attr(feature = "ractor-async-trait", ractor::async_trait)]
impl Actor for AskedOnce {
    type Msg = Ask;
    type State = Bytes;
    type Arguments = Bytes;

    async fn pre_start(&self, _: ActorRef<Ask>, body: Bytes) -> Result<Bytes, ActorProcessingErr> {
        Ok(body)
    }

    async fn handle(
        &self,
        myself: ActorRef<Ask>,
        Ask(port): Ask,
        body: &mut Bytes,
    ) -> Result<(), ActorProcessingErr> {
        // The caller might have left.
        let _ = port.send(body.clone());
        myself.stop(None);
        Ok(())
    }
}
