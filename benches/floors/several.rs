//! Several servers behind one engine, and several engines over one server.

use std::time::Duration;

use genesys_once::{Engine, RedisStore};
use redis::aio::MultiplexedConnection;
use tokio::runtime::Runtime;

use crate::baseline;
use crate::in_process::execute_new;
use crate::measure::{Measured, TASKS, in_turns, throughput};
use crate::process::{Process, now_us, serve};
use crate::redis_server::{Options, RedisServer};
use crate::world::{Answering, World, engine, payload_of, redis_connection, request};

/// Three primaries, compared with one server.
pub fn cluster(world: &World) -> Measured {
    const KEYS: usize = 6_400;
    let nodes = cluster_of_three();
    let (cluster, one) = world.block_on(async {
        let urls = nodes.iter().map(RedisServer::url);
        let store = RedisStore::cluster(urls).await.expect("a cluster");
        let cluster = engine(Answering::at_once(), store, |b| b).await;
        let store = world.redis_store().await;
        (cluster, engine(Answering::at_once(), store, |b| b).await)
    });
    in_turns(
        11,
        "a second",
        || world.block_on(execute_new(&cluster, KEYS)),
        || world.block_on(execute_new(&one, KEYS)),
    )
}

/// A cluster of three primaries without replicas.
fn cluster_of_three() -> [RedisServer; 3] {
    let nodes = [(); 3].map(|()| Options::default().cluster_node().start());
    for (shard, node) in nodes.iter().enumerate() {
        let epoch = (shard + 1).to_string();
        // A node accepts its epoch only before it knows another node.
        node.command::<()>(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch]);
    }
    for (shard, node) in nodes.iter().enumerate() {
        let [from, to] = [shard, shard + 1].map(|shard| 16_384 * shard / 3);
        let [from, to] = [from, to - 1].map(|slot| slot.to_string());
        node.command::<()>(&["CLUSTER", "ADDSLOTSRANGE", &from, &to]);
        for other in &nodes {
            let [port, bus] = [other.port, other.bus_port].map(|port| port.to_string());
            node.command::<()>(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
        }
    }
    let is_whole = |node: &RedisServer| {
        let info: String = node.command(&["CLUSTER", "INFO"]);
        info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
    };
    while !nodes.iter().all(is_whole) {
        std::thread::sleep(Duration::from_millis(50));
    }
    nodes
}

/// Processes over one server.
const PROCESSES: usize = 8;

/// Keys of a round, for all its processes together.
const KEYS: usize = 12_800;

/// The throughput of eight engines divided by the throughput of one engine, beside the same
/// ratio of the baseline: if the server is the limit, neither grows by eight.
pub fn scale(world: &World) -> Measured {
    let url = world.redis().url();
    let start = |side| {
        let start = |n: usize| Process::start(&["scale", side, &url, &n.to_string()]);
        (0..PROCESSES).map(start).collect::<Vec<Process>>()
    };
    let (mut engines, mut clients) = (start("engine"), start("baseline"));
    let growth = |processes: &mut [Process]| round(processes) / round(&mut processes[..1]);
    let measured = in_turns(
        9,
        "times one process",
        || growth(&mut engines),
        || growth(&mut clients),
    );
    measured.with_note(format!("{PROCESSES} processes"))
}

/// Keys per second of all these processes together.
fn round(processes: &mut [Process]) -> f64 {
    let keys = KEYS / processes.len();
    let start = now_us();
    for process in &mut *processes {
        process.start_round(keys as u64);
    }
    let ends = processes.iter_mut().map(|process| {
        let [end] = process.result();
        end
    });
    let last = ends.max().expect("at least one process");
    KEYS as f64 * 1e6 / (last - start) as f64
}

/// One of the processes: executes as many new keys as each line says.
pub fn scale_child(args: &[&str]) {
    let [side, url, number] = args else {
        panic!("three arguments");
    };
    let number: u64 = number.parse().expect("a number");
    let runtime = Runtime::new().expect("a runtime");
    let client = runtime.block_on(async {
        match *side {
            "engine" => {
                let store = RedisStore::connect(url).await.expect("a server");
                Client::Engine(engine(Answering::at_once(), store, |b| b).await)
            }
            _ => Client::Baseline(redis_connection(url).await),
        }
    });
    // Other keys than those of the other processes and of the parent.
    let mut next = (number + 1) * 1_000_000_000;
    serve(|keys| {
        runtime.block_on(client.execute(next, keys as usize));
        next += keys;
        [now_us()]
    });
}

enum Client {
    Engine(Engine),
    Baseline(MultiplexedConnection),
}

impl Client {
    async fn execute(&self, first: u64, keys: usize) {
        assert_eq!(keys % TASKS, 0);
        let requests = move |numbers: std::ops::Range<usize>| {
            numbers.map(move |n| request(&payload_of(first + n as u64)))
        };
        match self {
            Self::Engine(engine) => {
                throughput(keys, |numbers| {
                    let engine = engine.clone();
                    async move {
                        for request in requests(numbers) {
                            engine.execute(request).await.expect("an answer");
                        }
                    }
                })
                .await;
            }
            Self::Baseline(redis) => {
                throughput(keys, |numbers| {
                    let (mut redis, script) = (redis.clone(), baseline::script());
                    async move {
                        for request in requests(numbers) {
                            baseline::locked_without_call(&mut redis, &request, &script).await;
                        }
                    }
                })
                .await;
            }
        }
    }
}
