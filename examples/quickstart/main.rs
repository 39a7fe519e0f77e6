//! The main job, end to end: one Data Action executed once, however many ask.
//!
//! ```sh
//! cargo run -p quickstart            # nothing else installed
//! cargo run -p quickstart            # again: served from the store
//! cargo run -p quickstart -- --fresh # with an empty store
//! ```
//!
//! With nothing in the environment the platform is the crate's own simulator, and
//! the records are in a file in the target directory. A simulator's records are in a
//! namespace of their own, whatever is set: no real platform ever replays them.
//! `REDIS_URL` names a Redis to
//! keep them in instead. `GENESYS_CLOUD_DOMAIN`,
//! `_CLIENT_ID`, `_CLIENT_SECRET`, `_ACTION_ID` and `_PAYLOAD`, all five, name a
//! real platform and what to execute there; no sample payload ever goes to a
//! real action.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

use genesys_once::testing::{GenesysSimulator, strategies};
use genesys_once::{
    Credentials, DataActionRequest, Engine, Environment, Error, FileStore, GenesysCloud,
    IdempotencyKey, Namespace, RedisStore, Reply, Served, Store,
};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

const CALLERS: usize = 1_000;
const USAGE: &str = "usage: quickstart [--fresh]";

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(line) => {
            eprintln!("quickstart: {line}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), String> {
    let fresh = fresh(std::env::args().skip(1))?;
    let platform = Platform::from_environment().await?;
    let (store, place) = store_from_environment().await?;
    println!("platform       {}", platform.place());
    println!("store          {place}");

    // Two engines over one store stand for two processes.
    let mut builder = Engine::builder(platform.upstream()).store(store);
    if let Some(namespace) = platform.namespace(fresh) {
        builder = builder.namespace(namespace);
    }
    let engine = builder.clone().start().await.map_err(|e| line(&e))?;
    let another = builder.start().await.map_err(|e| line(&e))?;

    let request = platform.request()?;
    println!("namespace      {}", engine.namespace());
    println!("key            {}", IdempotencyKey::of(&request));

    let first = engine
        .execute(request.clone())
        .await
        .map_err(|e| line(&e))?;
    println!("first          {}", told(&first));
    if first.served() == Served::Store {
        println!("               an earlier run executed it; --fresh starts with an empty store");
    }
    if !first.recorded() {
        return Err(format!(
            "the platform refused with {}: nothing was executed, so there is nothing to replay",
            first.status()
        ));
    }

    let served = many(&engine, &request).await?;
    println!("{CALLERS} callers   {served}, with members reordered and re-spaced");

    let replay = another.execute(request).await.map_err(|e| line(&e))?;
    println!("next process   {}", told(&replay));

    println!("upstream calls: {}", platform.calls(&[engine, another]));
    Ok(())
}

/// A thousand callers at once, each with a spelling of its own.
async fn many(engine: &Engine, request: &DataActionRequest) -> Result<String, String> {
    let spellings = strategies::respellings(request);
    let mut runner = TestRunner::default();
    let mut callers = Vec::with_capacity(CALLERS);
    for _ in 0..CALLERS {
        let spelling = spellings
            .new_tree(&mut runner)
            .map_err(|e| e.to_string())?
            .current();
        let engine = engine.clone();
        callers.push(tokio::spawn(async move { engine.execute(spelling).await }));
    }
    let mut served = BTreeMap::<_, usize>::new();
    for caller in callers {
        let reply = caller
            .await
            .map_err(|e| e.to_string())?
            .map_err(|e| line(&e))?;
        *served.entry(reply.served()).or_default() += 1;
    }
    let counts: Vec<_> = served
        .iter()
        .map(|(kind, n)| format!("{n} from {kind}"))
        .collect();
    Ok(counts.join(", "))
}

enum Platform {
    Simulated(GenesysSimulator),
    Real {
        environment: Environment,
        domain: String,
        id: String,
        secret: String,
        action: String,
        payload: String,
    },
}

impl Platform {
    async fn from_environment() -> Result<Self, String> {
        const NAMES: [&str; 5] = [
            "GENESYS_CLOUD_DOMAIN",
            "GENESYS_CLOUD_CLIENT_ID",
            "GENESYS_CLOUD_CLIENT_SECRET",
            "GENESYS_CLOUD_ACTION_ID",
            "GENESYS_CLOUD_PAYLOAD",
        ];
        let mut values = Vec::new();
        for name in NAMES {
            values.push(variable(name)?);
        }
        let missing: Vec<_> = NAMES
            .iter()
            .zip(&values)
            .filter(|(_, v)| v.is_none())
            .map(|(n, _)| *n)
            .collect();
        if missing.len() == NAMES.len() {
            return Ok(Self::Simulated(GenesysSimulator::start().await));
        }
        if !missing.is_empty() {
            return Err(format!(
                "{} not set: a real platform takes all five, the simulator none of them",
                missing.join(", ")
            ));
        }
        let mut values = values.into_iter().flatten();
        let mut next = || values.next().unwrap_or_default();
        let (domain, id, secret, action, payload) = (next(), next(), next(), next(), next());
        let environment = Environment::from_domain(&domain)
            .map_err(|e| format!("GENESYS_CLOUD_DOMAIN: {}", line(&e)))?;
        Ok(Self::Real {
            environment,
            domain,
            id,
            secret,
            action,
            payload,
        })
    }

    fn place(&self) -> String {
        match self {
            Self::Simulated(simulator) => format!("simulator at {}", simulator.base_url()),
            Self::Real { domain, .. } => format!("Genesys Cloud at {domain}"),
        }
    }

    fn upstream(&self) -> GenesysCloud {
        match self {
            Self::Simulated(simulator) => {
                // Its port is another one in every run.
                GenesysCloud::new(simulator.environment(), simulator.credentials())
                    .platform("simulator")
            }
            Self::Real {
                environment,
                id,
                secret,
                ..
            } => {
                let credentials = Credentials::new(id.clone(), secret.clone());
                GenesysCloud::new(environment.clone(), credentials)
            }
        }
    }

    /// A simulator's records never stand where those of a real platform do. An empty
    /// store is a namespace that was never used.
    fn namespace(&self, fresh: bool) -> Option<Namespace> {
        let name = match self {
            Self::Real { .. } if !fresh => return None,
            Self::Real { .. } => "quickstart",
            Self::Simulated(_) => "simulated-quickstart",
        };
        let suffix = match fresh {
            true => {
                let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
                format!("-{:x}-{:x}", now.as_nanos(), std::process::id())
            }
            false => String::new(),
        };
        format!("{name}{suffix}").parse().ok()
    }

    fn request(&self) -> Result<DataActionRequest, String> {
        match self {
            Self::Simulated(_) => {
                let payload = r#"{"order": 42, "amount": 19.90, "reason": "damaged"}"#;
                DataActionRequest::new("custom_-_2f1c9f0a-refund", payload).map_err(|e| line(&e))
            }
            Self::Real {
                action, payload, ..
            } => DataActionRequest::new(action, payload.as_str()).map_err(|e| match &e {
                Error::InvalidRequest {
                    field: "action_id", ..
                } => {
                    format!("GENESYS_CLOUD_ACTION_ID: {}", line(&e))
                }
                _ => format!("GENESYS_CLOUD_PAYLOAD: {}", line(&e)),
            }),
        }
    }

    /// The simulator's own count; at a real platform that of the engines.
    fn calls(&self, engines: &[Engine]) -> u64 {
        match self {
            Self::Simulated(simulator) => simulator.ledger().total() as u64,
            Self::Real { .. } => engines
                .iter()
                .map(Engine::stats)
                .map(|s| s.calls_final + s.calls_not_executed + s.calls_unknown)
                .sum(),
        }
    }
}

async fn store_from_environment() -> Result<(Arc<dyn Store>, String), String> {
    match variable("REDIS_URL")? {
        None => {
            let path = file()?;
            let store = FileStore::open(&path).map_err(|e| line(&e))?;
            Ok((Arc::new(store), path.display().to_string()))
        }
        Some(url) => {
            let store = RedisStore::connect(&url)
                .await
                .map_err(|e| format!("REDIS_URL: {}", line(&e)))?;
            Ok((Arc::new(store), "the Redis of REDIS_URL".to_owned()))
        }
    }
}

/// `quickstart/records.redb` in the target directory, where cargo puts this
/// program at `target/PROFILE/quickstart`.
fn file() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|e| format!("where this program is: {e}"))?;
    let target = own
        .ancestors()
        .nth(2)
        .ok_or("this program is in no target directory")?;
    Ok(target.join("quickstart").join("records.redb"))
}

/// A variable that is set to something, or not set.
fn variable(name: &str) -> Result<Option<String>, String> {
    match std::env::var(name) {
        Ok(value) if value.trim().is_empty() => Err(format!("{name} is set, and empty")),
        Ok(value) => Ok(Some(value)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(format!("{name} is not text")),
    }
}

fn fresh(arguments: impl Iterator<Item = String>) -> Result<bool, String> {
    let mut fresh = false;
    for argument in arguments {
        match argument.as_str() {
            "--fresh" => fresh = true,
            other => return Err(format!("unknown argument {other:?}; {USAGE}")),
        }
    }
    Ok(fresh)
}

fn told(reply: &Reply) -> String {
    let body = String::from_utf8_lossy(reply.body());
    format!("{} from {}: {body}", reply.status(), reply.served())
}

/// An error and its causes in one line.
fn line(error: &Error) -> String {
    let mut line = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line.replace('\n', " ")
}
