//! What the environment says: addresses, limits, the platform and the store. It
//! refuses what it does not understand and never falls back on a guess.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use genesys_once::testing::GenesysSimulator;
use genesys_once::{
    Credentials, Environment, Error, FileStore, GenesysCloud, Namespace, OnDuplicate, RedisStore,
    Store,
};

use crate::keys::AdminToken;

/// Short tokens can be guessed.
const TOKEN_LENGTH: usize = 16;

pub struct Settings {
    pub address: SocketAddr,
    pub admin: Option<AdminToken>,
    /// In bytes.
    pub body_limit: usize,
    pub deadline: Duration,
    pub grace: Duration,
    pub on_duplicate: OnDuplicate,
}

impl Settings {
    pub fn from_environment() -> Result<Self, String> {
        let admin = match variable("SERVICE_ADMIN_TOKEN")? {
            Some(token) if token.len() < TOKEN_LENGTH => {
                return Err(format!(
                    "SERVICE_ADMIN_TOKEN has fewer than {TOKEN_LENGTH} characters"
                ));
            }
            token => token.as_deref().map(AdminToken::new),
        };
        let on_duplicate = match variable("SERVICE_ON_DUPLICATE")?.as_deref() {
            None | Some("wait") => OnDuplicate::Wait,
            Some("fail-fast") => OnDuplicate::FailFast,
            Some(other) => {
                return Err(format!(
                    "SERVICE_ON_DUPLICATE is {other:?}, neither wait nor fail-fast"
                ));
            }
        };
        Ok(Self {
            address: number("SERVICE_ADDRESS", SocketAddr::from(([127, 0, 0, 1], 8080)))?,
            admin,
            body_limit: number("SERVICE_BODY_LIMIT", 1 << 20)?,
            deadline: Duration::from_secs(number("SERVICE_DEADLINE_SECONDS", 300)?),
            grace: Duration::from_secs(number("SERVICE_GRACE_SECONDS", 30)?),
            on_duplicate,
        })
    }
}

/// The platform: Genesys Cloud, or the simulator where none is named.
pub enum Platform {
    Simulated(GenesysSimulator),
    Real {
        environment: Environment,
        place: String,
        id: String,
        secret: String,
    },
}

pub async fn platform() -> Result<Platform, String> {
    let domain = variable("GENESYS_CLOUD_DOMAIN")?;
    let url = variable("GENESYS_CLOUD_URL")?;
    let id = variable("GENESYS_CLOUD_CLIENT_ID")?;
    let secret = variable("GENESYS_CLOUD_CLIENT_SECRET")?;
    let (environment, place) = match (&domain, &url) {
        (None, None) if id.is_none() && secret.is_none() => {
            return Ok(Platform::Simulated(GenesysSimulator::start().await));
        }
        (Some(domain), None) => (Environment::from_domain(domain), domain),
        (None, Some(url)) => (Environment::from_base_url(url), url),
        _ => {
            return Err("name one platform, by GENESYS_CLOUD_DOMAIN or by \
                        GENESYS_CLOUD_URL, or set none of its variables for the simulator"
                .into());
        }
    };
    let (Some(id), Some(secret)) = (id, secret) else {
        return Err(
            "GENESYS_CLOUD_CLIENT_ID and GENESYS_CLOUD_CLIENT_SECRET go with the platform".into(),
        );
    };
    Ok(Platform::Real {
        environment: environment.map_err(|e| format!("the platform: {}", line(&e)))?,
        place: place.clone(),
        id,
        secret,
    })
}

impl Platform {
    pub fn upstream(&self) -> GenesysCloud {
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
                    .user_agent(concat!("service-example/", env!("CARGO_PKG_VERSION")))
            }
        }
    }

    /// The simulator has another port in every run, so its records have a name
    /// of their own.
    pub fn namespace(&self) -> Result<Option<Namespace>, String> {
        let name = variable("SERVICE_NAMESPACE")?;
        let name = match (self, &name) {
            (_, Some(name)) => name,
            (Self::Simulated(_), None) => "service-example",
            (Self::Real { .. }, None) => return Ok(None),
        };
        let name = name
            .parse()
            .map_err(|e| format!("SERVICE_NAMESPACE: {e}"))?;
        Ok(Some(name))
    }

    pub fn place(&self) -> String {
        match self {
            Self::Simulated(simulator) => format!("simulator at {}", simulator.base_url()),
            Self::Real { place, .. } => format!("Genesys Cloud at {place}"),
        }
    }
}

pub async fn store() -> Result<Arc<dyn Store>, String> {
    match (variable("REDIS_URL")?, variable("SERVICE_FILE")?) {
        (Some(_), Some(_)) => Err("REDIS_URL and SERVICE_FILE are both set".into()),
        (Some(url), None) => match RedisStore::connect(&url).await {
            Ok(store) => Ok(Arc::new(store)),
            Err(error) => Err(format!("REDIS_URL: {}", line(&error))),
        },
        (None, file) => {
            let path = file.map_or_else(default_file, |path| Ok(PathBuf::from(path)))?;
            let store = FileStore::open(path).map_err(|e| line(&e))?;
            Ok(Arc::new(store))
        }
    }
}

/// `service/records.redb` in the target directory, where cargo puts this
/// example at `target/PROFILE/examples/service`.
fn default_file() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|e| format!("where this program is: {e}"))?;
    let target = own
        .ancestors()
        .nth(3)
        .ok_or("this program is in no target directory: set SERVICE_FILE")?;
    Ok(target.join("service").join("records.redb"))
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

fn number<T: FromStr>(name: &str, default: T) -> Result<T, String>
where
    T::Err: std::fmt::Display,
{
    match variable(name)? {
        None => Ok(default),
        Some(text) => text.trim().parse().map_err(|e| format!("{name}: {e}")),
    }
}

/// An error and its causes in one line.
pub fn line(error: &Error) -> String {
    let mut line = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line.replace('\n', " ")
}
