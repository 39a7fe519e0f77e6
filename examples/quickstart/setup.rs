//! The platform and the store that the environment names, and the engine over both.

use std::error::Error as StdError;
use std::fmt;
use std::path::PathBuf;
use std::time::SystemTime;

use genesys_once::record::Namespace;
use genesys_once::testing::GenesysSimulator;
use genesys_once::{
    Credentials, DataActionRequest, Engine, EngineBuilder, Environment, Error, FileStore,
    GenesysCloud,
};

pub type Failure = Box<dyn StdError + Send + Sync>;

/// What `--help` prints.
pub const HELP: &str = include_str!("help.txt");

#[derive(Default)]
pub struct Arguments {
    pub help: bool,
    fresh: bool,
    /// The namespace in which another process recorded the outcome.
    pub replay: Option<Namespace>,
}

impl Arguments {
    pub fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let mut parsed = Self::default();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--help" | "-h" => parsed.help = true,
                "--fresh" => parsed.fresh = true,
                "--replay" => {
                    let namespace = arguments.next().ok_or("--replay needs a namespace")?;
                    parsed.replay = Some(namespace.parse()?);
                }
                other => return Err(format!("unknown argument {other:?}; see --help").into()),
            }
        }
        Ok(parsed)
    }
}

pub enum Platform {
    Simulated(GenesysSimulator),
    Real {
        domain: String,
        environment: Environment,
        credentials: Credentials,
        request: DataActionRequest,
    },
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Simulated(simulator) => write!(f, "simulator at {}", simulator.base_url()),
            Self::Real { domain, .. } => write!(f, "Genesys Cloud at {domain}"),
        }
    }
}

impl Platform {
    async fn from_environment() -> Result<Self, Failure> {
        const NAMES: [&str; 5] = [
            "GENESYS_CLOUD_DOMAIN",
            "GENESYS_CLOUD_CLIENT_ID",
            "GENESYS_CLOUD_CLIENT_SECRET",
            "GENESYS_CLOUD_ACTION_ID",
            "GENESYS_CLOUD_PAYLOAD",
        ];
        let mut set = Vec::new();
        let mut missing = Vec::new();
        for name in NAMES {
            match variable(name)? {
                Some(value) => set.push(value),
                None => missing.push(name),
            }
        }
        let [domain, id, secret, action, payload] = &set[..] else {
            if !set.is_empty() {
                let missing = missing.join(", ");
                return Err(format!(
                    "not set: {missing}; a real platform needs all five, the simulator none"
                )
                .into());
            }
            let simulator = GenesysSimulator::start().await;
            // As long as a short action takes, so that callers join.
            simulator.latency(std::time::Duration::from_millis(200));
            return Ok(Self::Simulated(simulator));
        };
        let environment = Environment::from_domain(domain).map_err(at("GENESYS_CLOUD_DOMAIN"))?;
        let request =
            DataActionRequest::new(action, payload.as_str()).map_err(|error| match error {
                Error::InvalidRequest {
                    field: "action_id", ..
                } => at("GENESYS_CLOUD_ACTION_ID")(error),
                _ => at("GENESYS_CLOUD_PAYLOAD")(error),
            })?;
        let credentials = Credentials::new(id.clone(), secret.clone());
        Ok(Self::Real {
            domain: domain.clone(),
            environment,
            credentials,
            request,
        })
    }

    fn upstream(&self) -> GenesysCloud {
        match self {
            Self::Simulated(simulator) => {
                // The simulator's port differs from run to run.
                GenesysCloud::new(simulator.environment(), simulator.credentials())
                    .platform("simulator")
            }
            Self::Real {
                environment,
                credentials,
                ..
            } => GenesysCloud::new(environment.clone(), credentials.clone()),
        }
    }
}

pub struct Setup {
    pub platform: Platform,
    namespace: Option<Namespace>,
    redis: Option<String>,
}

impl Setup {
    pub async fn from_environment(arguments: &Arguments) -> Result<Self, Failure> {
        let platform = Platform::from_environment().await?;
        let namespace = match (&arguments.replay, &platform, arguments.fresh) {
            (Some(namespace), ..) => Some(namespace.clone()),
            // The engine's default: a digest of platform and client.
            (None, Platform::Real { .. }, false) => None,
            (None, Platform::Real { .. }, true) => Some(unused("quickstart").parse()?),
            (None, Platform::Simulated(_), false) => Some("simulated-quickstart".parse()?),
            (None, Platform::Simulated(_), true) => Some(unused("simulated-quickstart").parse()?),
        };
        Ok(Self {
            platform,
            namespace,
            redis: variable("REDIS_URL")?,
        })
    }

    /// Opens the store and starts an engine over it.
    pub async fn start(&self) -> Result<Engine, Failure> {
        let mut builder = Engine::builder(self.platform.upstream());
        if let Some(namespace) = &self.namespace {
            builder = builder.namespace(namespace.clone());
        }
        builder = match &self.redis {
            Some(url) => with_redis(builder, url).await?,
            None => builder.store(FileStore::open(file()?)?),
        };
        Ok(builder.start().await?)
    }

    /// A URL might hold a password.
    pub fn store_place(&self) -> Result<String, Failure> {
        match self.redis {
            Some(_) => Ok("the Redis of REDIS_URL".to_owned()),
            None => Ok(file()?.display().to_string()),
        }
    }
}

#[cfg(feature = "redis")]
async fn with_redis(builder: EngineBuilder, url: &str) -> Result<EngineBuilder, Failure> {
    let store = genesys_once::RedisStore::connect(url).await;
    Ok(builder.store(store.map_err(at("REDIS_URL"))?))
}

#[cfg(not(feature = "redis"))]
async fn with_redis(_: EngineBuilder, _: &str) -> Result<EngineBuilder, Failure> {
    Err("REDIS_URL is set: run it with `cargo run -p quickstart --features redis`".into())
}

/// A namespace that no other run uses.
fn unused(name: &str) -> String {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    format!("{name}-{:x}-{:x}", now.as_nanos(), std::process::id())
}

/// `target/quickstart/records.redb`: cargo puts this program at
/// `target/PROFILE/quickstart`.
fn file() -> Result<PathBuf, Failure> {
    let program = std::env::current_exe()?;
    let target = program.ancestors().nth(2);
    let target = target.ok_or("this program is in no target directory")?;
    Ok(target.join("quickstart").join("records.redb"))
}

fn variable(name: &str) -> Result<Option<String>, Failure> {
    match std::env::var(name) {
        Ok(value) if value.trim().is_empty() => Err(format!("{name} is set but empty").into()),
        Ok(value) => Ok(Some(value)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(format!("{name} is not UTF-8").into()),
    }
}

/// Adds the variable that an error comes from.
fn at(name: &str) -> impl Fn(Error) -> Failure {
    move |error| format!("{name}: {}", line(&error)).into()
}

/// An error and its causes in one line.
pub fn line(error: &dyn StdError) -> String {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    let causes: Vec<_> = causes.map(ToString::to_string).collect();
    causes.join(": ").replace('\n', " ")
}
