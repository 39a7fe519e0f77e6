//! Many callers of one key at once: the time until the last caller has its answer, in one
//! process and in four that share a Redis.

use std::time::{Duration, Instant};

use bytes::Bytes;
use genesys_once::{
    Credentials, Engine, Environment, GenesysCloud, MemoryStore, RedisStore, Served,
};
use tokio::sync::watch;

use crate::measure::{Measured, in_turns, of_pairs};
use crate::process::{Process, now_us, serve};
use crate::world::{Answering, World, engine, payload, payload_of, request};

/// How long the upstream takes.
const LATENCY: Duration = Duration::from_millis(50);

const CALLERS: usize = 10_000;

pub fn in_one_process(world: &World) -> Measured {
    let store = MemoryStore::new();
    let engine = world.block_on(engine(Answering::after(LATENCY), store, |b| b));
    let through_engine = || world.block_on(through(&engine));
    let through_watch = || {
        world.block_on(async {
            let (sender, receiver) = watch::channel(false);
            tokio::spawn(async move {
                tokio::time::sleep(LATENCY).await;
                sender.send_replace(true);
            });
            last_answer(CALLERS, || {
                let mut receiver = receiver.clone();
                // The sender is dropped after it has sent; its value remains.
                async move { drop(receiver.wait_for(|answered| *answered).await) }
            })
            .await
        })
    };
    in_turns(15, "ms", through_engine, through_watch)
}

/// Milliseconds until the last caller of one new key has its answer. Each caller makes
/// its own request.
async fn through(engine: &Engine) -> f64 {
    let payload = payload();
    last_answer(CALLERS, || {
        let (engine, payload) = (engine.clone(), payload.clone());
        async move { drop(engine.execute(request(&payload)).await.expect("an answer")) }
    })
    .await
}

/// Milliseconds until the last of `callers` tasks is done.
async fn last_answer<Fut>(callers: usize, caller: impl Fn() -> Fut) -> f64
where
    Fut: Future<Output = ()> + Send + 'static,
{
    let start = Instant::now();
    let callers: Vec<_> = (0..callers).map(|_| tokio::spawn(caller())).collect();
    for caller in callers {
        caller.await.expect("a caller panicked");
    }
    start.elapsed().as_secs_f64() * 1000.0
}

const PROCESSES: usize = 4;

pub fn in_four_processes(world: &World) -> Measured {
    const ROUNDS: u64 = 9;
    let platform = world.platform();
    platform.latency(LATENCY);
    let url = world.redis().url();
    let mut processes: Vec<Process> = (0..PROCESSES)
        .map(|_| {
            Process::start(&[
                "herd",
                &url,
                platform.base_url(),
                platform.client_id(),
                platform.client_secret(),
            ])
        })
        .collect();
    let mut pairs = Vec::new();
    // The first round only warms up: connections, token, scripts.
    for round in 0..=ROUNDS {
        let key = u64::from(std::process::id()) << 16 | round;
        let go = now_us();
        for process in &mut processes {
            process.start_round(key);
        }
        // How many requests each process sent, and when its last caller got its answer.
        let results: Vec<[u64; 2]> = processes.iter_mut().map(Process::result).collect();
        let sent: u64 = results.iter().map(|[sent, _]| sent).sum();
        assert_eq!(sent, 1, "one call for four processes");
        let after_go = |[_, last]: &[u64; 2]| (last - go) as f64 / 1000.0;
        let first = results.iter().find(|[sent, _]| *sent > 0).map(after_go);
        let last = results.iter().map(after_go).fold(0.0, f64::max);
        if round > 0 {
            pairs.push((last, first.expect("one of them sent it")));
        }
    }
    platform.latency(Duration::ZERO);
    of_pairs(&pairs, "ms")
}

/// One of the four processes: each line that it reads is a key.
pub fn child(args: &[&str]) {
    const CALLERS_EACH: usize = 500;
    let [redis, platform, client_id, client_secret] = args else {
        panic!("four arguments");
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let engine = runtime.block_on(async {
        let environment = Environment::from_base_url(platform).expect("a URL");
        let upstream = GenesysCloud::new(environment, Credentials::new(*client_id, *client_secret));
        engine(
            upstream,
            RedisStore::connect(redis).await.expect("a server"),
            |b| b,
        )
        .await
    });
    serve(|key| runtime.block_on(round(&engine, &payload_of(key), CALLERS_EACH)));
}

async fn round(engine: &Engine, payload: &Bytes, callers: usize) -> [u64; 2] {
    let callers: Vec<_> = (0..callers)
        .map(|_| {
            let (engine, payload) = (engine.clone(), payload.clone());
            tokio::spawn(async move {
                let reply = engine.execute(request(&payload)).await.expect("an answer");
                reply.served() == Served::Upstream
            })
        })
        .collect();
    let mut sent = 0;
    for caller in callers {
        sent += u64::from(caller.await.expect("a caller panicked"));
    }
    [sent, now_us()]
}
