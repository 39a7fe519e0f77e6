//! The platform and the store that the environment names. The service simulates a platform
//! only if `GENESYS_SIMULATE` asks for it, and the simulator's records have a fixed
//! namespace: no simulated answer is ever replayed as a real one.

use std::path::PathBuf;
use std::sync::Arc;

use genesys_once::record::Namespace;
use genesys_once::store::{Durability, Persistence};
use genesys_once::testing::GenesysSimulator;
use genesys_once::{Credentials, Environment, Error, FileStore, GenesysCloud, RedisStore, Store};

use crate::app::Places;
use crate::settings::{line, refused, switch, variable};

/// The namespace of simulated records. No real platform gets a namespace with this
/// beginning.
const SIMULATED: &str = "simulated-service";
const SIMULATORS: &str = "simulated";

const DOMAIN: &str = "GENESYS_CLOUD_DOMAIN";
const URL: &str = "GENESYS_CLOUD_URL";
const CLIENT_ID: &str = "GENESYS_CLOUD_CLIENT_ID";
const CLIENT_SECRET: &str = "GENESYS_CLOUD_CLIENT_SECRET";
const SIMULATE: &str = "GENESYS_SIMULATE";
const NAMESPACE: &str = "SERVICE_NAMESPACE";

pub enum Platform {
    Simulated(GenesysSimulator),
    Real {
        environment: Environment,
        /// The variable that names the environment.
        name: &'static str,
        place: String,
        credentials: Credentials,
    },
}

impl Platform {
    pub async fn from_environment() -> Result<Self, String> {
        let (domain, url) = (variable(DOMAIN)?, variable(URL)?);
        let (id, secret) = (variable(CLIENT_ID)?, variable(CLIENT_SECRET)?);
        if switch(SIMULATE)? {
            let all = [
                (DOMAIN, &domain),
                (URL, &url),
                (CLIENT_ID, &id),
                (CLIENT_SECRET, &secret),
            ];
            return match all.into_iter().find(|(_, value)| value.is_some()) {
                Some((name, _)) => Err(format!("{SIMULATE} is 1 and {name} is set: unset one")),
                None => Ok(Self::Simulated(GenesysSimulator::start().await)),
            };
        }
        let mut missing = Vec::new();
        let (name, place) = match (domain, url) {
            (Some(_), Some(_)) => {
                return Err(format!(
                    "{DOMAIN} and {URL} are both set: name one platform"
                ));
            }
            (Some(domain), None) => (DOMAIN, domain),
            (None, Some(url)) => (URL, url),
            (None, None) => {
                missing.push(format!("{DOMAIN} (or {URL})"));
                Default::default()
            }
        };
        let mut needed = |name: &str, value: Option<String>| {
            value.unwrap_or_else(|| {
                missing.push(name.to_owned());
                String::new()
            })
        };
        let (id, secret) = (needed(CLIENT_ID, id), needed(CLIENT_SECRET, secret));
        if !missing.is_empty() {
            return Err(format!(
                "not set: {}; {SIMULATE}=1 tries the service without a platform",
                missing.join(", ")
            ));
        }
        let environment = match name {
            DOMAIN => Environment::from_domain(&place),
            _ => Environment::from_base_url(&place),
        };
        Ok(Self::Real {
            environment: environment.map_err(|e| format!("{name} is {place:?}: {}", line(&e)))?,
            name,
            place,
            credentials: Credentials::new(id, secret),
        })
    }

    pub fn upstream(&self) -> GenesysCloud {
        match self {
            // The simulator's port differs from run to run.
            Self::Simulated(simulator) => {
                GenesysCloud::new(simulator.environment(), simulator.credentials())
                    .platform("simulator")
            }
            Self::Real {
                environment,
                credentials,
                ..
            } => GenesysCloud::new(environment.clone(), credentials.clone())
                .user_agent(concat!("service-example/", env!("CARGO_PKG_VERSION"))),
        }
    }

    /// `None` means the engine's default: a digest of platform and client.
    pub fn namespace(&self) -> Result<Option<Namespace>, String> {
        let set = variable(NAMESPACE)?;
        let parse = |name: &str| name.parse::<Namespace>();
        match (self, set) {
            (Self::Simulated(_), set) => {
                if let Some(set) = set {
                    tracing::warn!("{NAMESPACE} is {set:?} and has no effect: {SIMULATE} is 1");
                }
                parse(SIMULATED).map(Some).map_err(|e| e.to_string())
            }
            (Self::Real { .. }, None) => Ok(None),
            (Self::Real { .. }, Some(name)) if name.starts_with(SIMULATORS) => {
                let expected = "another name: simulators keep their records under such names";
                Err(refused(NAMESPACE, &name, expected))
            }
            (Self::Real { .. }, Some(name)) => {
                let parsed = parse(&name).map_err(|e| format!("{NAMESPACE} is {name:?}: {e}"));
                parsed.map(Some)
            }
        }
    }

    /// Why the engine did not start, with the variable that caused it.
    pub fn explain(&self, error: &Error) -> String {
        match (self, error) {
            (
                Self::Real { name, place, .. },
                Error::InvalidConfig {
                    setting: "environment",
                    ..
                },
            ) => format!("{name} is {place:?}: {}", line(error)),
            _ => line(error),
        }
    }

    fn place(&self) -> String {
        match self {
            Self::Simulated(simulator) => format!("simulator at {}", simulator.base_url()),
            Self::Real { place, .. } => format!("Genesys Cloud at {place}"),
        }
    }

    /// Opens the store. The description in `Places` is for operators to read.
    pub async fn with_store(&self) -> Result<(Arc<dyn Store>, Places), String> {
        const REDIS: &str = "REDIS_URL";
        const FILE: &str = "SERVICE_FILE";
        let platform = self.place();
        match (variable(REDIS)?, variable(FILE)?) {
            (Some(_), Some(_)) => Err(format!("{REDIS} and {FILE} are both set: unset one")),
            // The variable's value might contain a password.
            (Some(url), None) => {
                let store = RedisStore::connect(&url).await;
                let store = store.map_err(|e| format!("{REDIS}: {}", line(&e)))?;
                let asked = store.clone();
                let places = Places {
                    platform,
                    store: "Redis".into(),
                    durability: Box::new(move || durability(&asked.durability())),
                };
                Ok((Arc::new(store), places))
            }
            (None, None) if !matches!(self, Self::Simulated(_)) => Err(format!(
                "not set: {REDIS} or {FILE}, where the records are kept"
            )),
            (None, file) => {
                let path = file.map_or_else(default_file, |path| Ok(PathBuf::from(path)))?;
                let place = path.display().to_string();
                let store = FileStore::open(path);
                let store = store.map_err(|e| format!("{FILE} is {place:?}: {}", line(&e)))?;
                let places = Places {
                    platform,
                    store: format!("file {place}"),
                    durability: Box::new(|| "on disk before each call".into()),
                };
                Ok((Arc::new(store), places))
            }
        }
    }
}

/// `service/records.redb` in the target directory, where cargo puts this program at
/// `target/PROFILE/service`.
fn default_file() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|e| format!("where this program is: {e}"))?;
    let target = own.ancestors().nth(2);
    let target = target.ok_or("this program is in no target directory: set SERVICE_FILE")?;
    Ok(target.join("service").join("records.redb"))
}

/// What a Redis may lose, in one line.
fn durability(durability: &Durability) -> String {
    let persistence = match durability.persistence {
        Some(Persistence::AppendOnly) => "append-only file",
        Some(Persistence::Snapshots) => {
            "snapshots only: a restart forgets what came after the last"
        }
        Some(Persistence::None) => "nothing survives a restart",
        _ => "the server does not say what survives a restart",
    };
    let evicts = match durability.evicts {
        Some(true) => "records may be evicted",
        Some(false) => "no record is evicted",
        None => "the server does not say whether records are evicted",
    };
    let replicas = match durability.replicas {
        Some(1) => "1 replica".into(),
        Some(count) => format!("{count} replicas"),
        None => "replicas unknown".into(),
    };
    format!("{persistence}; {evicts}; {replicas}")
}
