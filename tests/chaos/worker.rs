//! The worker role: a process that embeds the engine as a service does, asks it
//! what it is told to, and prints every answer. It judges nothing, and it ends
//! when its standard input does.

use std::io::{BufRead as _, Write as _};
use std::time::Duration;

use genesys_once::{
    DataActionRequest, Engine, Environment, Error, GenesysCloud, RedisStore, RetryPolicy,
};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

/// Short, so that a run sees many leases lapse.
pub const LEASE: Duration = Duration::from_secs(1);
const STORE_TIMEOUT: Duration = Duration::from_millis(400);
/// How long a caller waits who is in no hurry.
pub const DEADLINE: Duration = Duration::from_secs(15);
/// A call at the platform takes no longer.
const ATTEMPT: Duration = Duration::from_secs(3);

pub const NAMESPACE: &str = "chaos";

/// The environment of a worker: its role, and whom it talks to.
pub const REDIS: &str = "CHAOS_WORKER_REDIS";
pub const PLATFORM: &str = "CHAOS_WORKER_PLATFORM";
pub const SECRET: &str = "CHAOS_WORKER_SECRET";

/// The request of a number; callers spell it differently.
pub fn request(number: u64, caller: usize) -> DataActionRequest {
    let payload = match caller % 3 {
        0 => format!(r#"{{"number":{number},"for":"chaos"}}"#),
        1 => format!(r#"{{ "for": "\u0063haos", "number": {number}.0 }}"#),
        _ => format!("{{\n\"number\":{number}e0,\"for\":\"chaos\"}}"),
    };
    DataActionRequest::new("custom_-_chaos", payload).unwrap()
}

/// What stands in histories for a body.
pub fn digest(body: &[u8]) -> String {
    let digest = Sha256::digest(body);
    digest[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

pub fn main(redis: String) {
    if std::env::var_os("CHAOS_LOG").is_some() {
        tracing_subscriber::fmt()
            .with_writer(std::io::stderr)
            .with_max_level(tracing::Level::DEBUG)
            .init();
    }
    let (lines, input) = mpsc::unbounded_channel();
    // A thread, so that the end is seen whatever the runtime is busy with.
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            let _ = lines.send(line);
        }
        std::process::exit(0);
    });
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(serve(redis, input));
}

async fn serve(redis: String, mut input: mpsc::UnboundedReceiver<String>) {
    let engine = engine(&redis).await;
    say("ready");
    while let Some(line) = input.recv().await {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |index: usize| words[index].parse::<u64>().unwrap();
        match words[0] {
            "ask" => {
                let (id, limit) = (number(1), Duration::from_millis(number(4)));
                for caller in 0..number(3) as usize {
                    let request = request(number(2), caller);
                    tokio::spawn(ask(engine.clone(), id, caller, request, limit));
                }
            }
            "stats" => {
                let stats = engine.stats();
                say(&format!("stats {} {}", stats.executions, stats.waiting));
            }
            other => panic!("a worker knows no {other:?}"),
        }
    }
}

async fn engine(redis: &str) -> Engine {
    let platform = std::env::var(PLATFORM).unwrap();
    let secret = std::env::var(SECRET).unwrap();
    let (id, secret) = secret.split_once(' ').unwrap();
    let upstream = GenesysCloud::new(
        Environment::from_base_url(&platform).unwrap(),
        genesys_once::Credentials::new(id, secret),
    )
    .attempt_timeout(ATTEMPT)
    .connect_timeout(Duration::from_secs(1));
    // A service that starts during an outage tries until it is over.
    let store = loop {
        match RedisStore::connect(redis).await {
            Ok(store) => break store,
            Err(Error::StoreUnavailable { .. }) => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            // A server that is just loading its file, say, or one that a reset
            // made look like something else: trying again is all the same here.
            Err(error) => {
                eprintln!("a worker could not connect: {error}");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    };
    let retry = RetryPolicy::default()
        .attempts(4)
        .backoff(Duration::from_millis(1_000))
        .max_wait(Duration::from_secs(3));
    Engine::builder(upstream)
        .store(store)
        .namespace(NAMESPACE.parse().unwrap())
        .lease(LEASE)
        .store_timeout(STORE_TIMEOUT)
        .unresolved_ttl(Duration::from_secs(24 * 3600))
        .deadline(DEADLINE)
        .retry(retry)
        // Short, so that most answers come from the store.
        .recent(1 << 20, Duration::from_millis(500))
        .start()
        .await
        .unwrap()
}

async fn ask(engine: Engine, id: u64, caller: usize, request: DataActionRequest, limit: Duration) {
    let line = match engine.execute_within(request, limit).await {
        Ok(reply) => format!(
            "answer {id} {caller} ok {} {} {} {}",
            reply.status().as_u16(),
            digest(reply.body()),
            reply.recorded(),
            reply.served(),
        ),
        Err(error) => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                text = format!("{text}: {cause}");
                source = cause.source();
            }
            let text = text.replace('\n', " ");
            format!("answer {id} {caller} {} 0 - false - {text}", error.code())
        }
    };
    say(&line);
}

/// One line in one write: those of several threads do not mix.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(format!("{line}\n").as_bytes());
    let _ = out.flush();
}
