//! The worker role: a process that embeds engines like a service, sends them the requests
//! from its standard input, and prints every answer. It judges nothing, and ends when its
//! input ends.

use std::io::{BufRead as _, Write as _};
use std::time::{Duration, SystemTime};

use genesys_once::record::Namespace;
use genesys_once::{
    Credentials, DataActionRequest, Engine, EngineBuilder, Environment, Error, GenesysCloud,
    IdempotencyKey, OnUnknown, RedisStore, Resolution, RetryPolicy,
};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::oracle;
use super::roles::Policy;

/// Short, so that many leases expire in a run.
pub const LEASE: Duration = Duration::from_secs(1);
const STORE_TIMEOUT: Duration = Duration::from_millis(400);
/// How long a write waits for replicas.
const COPIED: Duration = Duration::from_millis(150);
/// How long a caller without a shorter limit waits.
pub const DEADLINE: Duration = Duration::from_secs(15);
/// A call at the platform takes no longer than this.
pub const ATTEMPT: Duration = Duration::from_secs(3);

/// The environment of a worker: its role, and its peers.
pub const REDIS: &str = "CHAOS_WORKER_REDIS";
pub const PLATFORM: &str = "CHAOS_WORKER_PLATFORM";
pub const SECRET: &str = "CHAOS_WORKER_SECRET";
pub const ORACLE: &str = "CHAOS_WORKER_ORACLE";
pub const POLICY: &str = "CHAOS_WORKER_POLICY";

/// The request of a number, which different callers spell differently. The caller's number
/// goes to the platform in a part of the payload that the key ignores.
pub fn request(number: u64, ask: u64, caller: usize) -> DataActionRequest {
    let by = format!("{ask}.{caller}");
    let payload = match caller % 3 {
        0 => format!(r#"{{"number":{number},"for":"chaos","by":"{by}"}}"#),
        1 => format!(r#"{{ "by": "{by}", "for": "\u0063haos", "number": {number}.0 }}"#),
        _ => format!("{{\n\"number\":{number}e0,\"by\":\"{by}\",\"for\":\"chaos\"}}"),
    };
    let request = DataActionRequest::new("custom_-_chaos", payload).unwrap();
    request.ignoring(["/by"]).unwrap()
}

/// The key of a number.
pub fn key(number: u64) -> IdempotencyKey {
    IdempotencyKey::of(&request(number, 0, 0))
}

/// The form in which histories show a body.
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
    // A thread of its own, so that a busy runtime does not delay the end.
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
    let store = connect(&redis).await;
    let policy = Policy::parse(&variable(POLICY));
    let engine = engine(policy).store(store).start().await.unwrap();
    say("ready");
    while let Some(line) = input.recv().await {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |index: usize| words[index].parse::<u64>().unwrap();
        match words[0] {
            "ask" => {
                let (id, limit) = (number(1), Duration::from_millis(number(4)));
                for caller in 0..number(3) as usize {
                    let request = request(number(2), id, caller);
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

/// A service that starts during an outage tries to connect until the outage is over.
///
/// `store` is a URL, or `cluster COPIES URL…`, or `sentinel COPIES NAME URL…`.
pub async fn connect(store: &str) -> RedisStore {
    loop {
        match try_connect(store).await {
            Ok(store) => return store,
            Err(Error::StoreUnavailable { .. }) => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            // The server might be loading its file, or a reset might have made it look like
            // another kind of server. Trying again is the right answer to both.
            Err(error) => {
                eprintln!("a worker could not connect: {error}");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

async fn try_connect(store: &str) -> Result<RedisStore, Error> {
    let words: Vec<&str> = store.split(' ').collect();
    let (store, copies) = match &words[..] {
        [url] => return RedisStore::connect(url).await,
        ["cluster", copies, urls @ ..] => (RedisStore::cluster(urls).await?, copies),
        ["sentinel", copies, name, urls @ ..] => (RedisStore::sentinel(urls, name).await?, copies),
        _ => panic!("no store: {store}"),
    };
    Ok(match copies.parse().unwrap() {
        0 => store,
        copies => store.replicas(copies, COPIED),
    })
}

fn engine(policy: Policy) -> EngineBuilder {
    let engine = builder(upstream()).recent(1 << 20, RECENT);
    match policy {
        Policy::Hold => engine,
        Policy::Retry => engine.on_unknown(OnUnknown::Retry),
        Policy::Reconcile => engine.reconcile(|request, error| async move {
            let asking = reconcile(request, error);
            let answer = tokio::time::timeout(Duration::from_secs(1), asking).await;
            answer.ok().flatten()
        }),
    }
}

/// Short, so that most answers come from the store.
const RECENT: Duration = Duration::from_millis(500);

/// The namespace of a run.
pub fn namespace() -> Namespace {
    "chaos".parse().unwrap()
}

/// The settings of all engines of a run, the operator's included.
pub fn builder(upstream: GenesysCloud) -> EngineBuilder {
    let retry = RetryPolicy::default()
        .attempts(4)
        .backoff(Duration::from_millis(500))
        // Room for all four attempts, and for a cooldown: this is the sum of all waits.
        .max_wait(Duration::from_secs(6));
    Engine::builder(upstream)
        .namespace(namespace())
        .lease(LEASE)
        .store_timeout(STORE_TIMEOUT)
        .indeterminate_ttl(Duration::from_secs(24 * 3600))
        .deadline(DEADLINE)
        .retry(retry)
}

fn upstream() -> GenesysCloud {
    platform_of(&variable(PLATFORM), &variable(SECRET))
}

/// The platform at a URL, for a client's id and secret.
pub fn platform_of(url: &str, secret: &str) -> GenesysCloud {
    let (id, secret) = secret.split_once(' ').unwrap();
    let environment = Environment::from_base_url(url).unwrap();
    GenesysCloud::new(environment, Credentials::new(id, secret))
        // Each worker has a separate proxy to the platform.
        .platform("chaos")
        .attempt_timeout(ATTEMPT)
        .connect_timeout(Duration::from_secs(1))
}

/// Asks the other system for the effect of a request, like a service.
async fn reconcile(request: DataActionRequest, error: Error) -> Option<Resolution> {
    let Error::Indeterminate { since, .. } = error else {
        return None;
    };
    let payload: serde_json::Value = serde_json::from_slice(request.payload()).unwrap();
    let number = payload["number"].as_f64().unwrap() as u64;
    let age = SystemTime::now().duration_since(since).unwrap_or_default();
    oracle::ask(&variable(ORACLE), number, age).await
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("a worker needs {name}"))
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

/// Prints each line in one write: the lines of several threads do not mix.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(format!("{line}\n").as_bytes());
    let _ = out.flush();
}
