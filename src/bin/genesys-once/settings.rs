//! What command line and environment say of store, namespace, keys and platform.
//! It refuses what it does not understand, and no message has a secret in it.

use std::sync::Arc;
use std::time::Duration;

use genesys_once::record::Namespace;
use genesys_once::store::BoxFuture;
use genesys_once::upstream::Call;
use genesys_once::{
    Credentials, Encrypted, EncryptionKeys, Engine, Environment, FileStore, GenesysCloud, Outcome,
    RedisStore, Store, Upstream,
};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};

use super::args::{KeyName, Place};
use super::exit::{Exit, Failure};

/// The store that a command works on.
pub struct Opened {
    pub store: Arc<dyn Store>,
    /// The same one, where it is a Redis.
    pub redis: Option<RedisStore>,
    /// What to call it.
    pub called: String,
    /// The ids of the encryption keys, where there are any.
    pub keys: Option<String>,
}

/// A platform and its OAuth client.
pub struct Platform {
    pub environment: Environment,
    pub client: String,
}

/// Opens the one store that is named.
///
/// # Errors
///
/// [`Exit::Usage`] where none is named or more than one; [`Exit::Unavailable`] where
/// it does not answer.
pub async fn open(place: &Place) -> Result<Opened, Failure> {
    let keys = keys()?;
    if place.also_reads_plain && keys.is_none() {
        return Err(Failure::usage(
            "--also-reads-plain goes with ENCRYPTION_KEYS",
        ));
    }
    let mut redis = None;
    let (store, called): (Arc<dyn Store>, _) = match chosen(place)? {
        Chosen::Redis(setting, urls) => {
            let connected = connect(setting, &urls).await?;
            redis = Some(connected.clone());
            (Arc::new(connected), format!("Redis of {setting}"))
        }
        Chosen::File(path) => {
            if !path.is_file() {
                // Opening would make a new one.
                let path = path.display();
                return Err(Failure::usage(format!("{path}: there is no such file")));
            }
            let opened = FileStore::open(&path).map_err(|error| {
                let text = super::exit::chain(&error);
                Failure::new(Exit::Unavailable, text).of(&path.display().to_string())
            })?;
            (Arc::new(opened), format!("file {}", path.display()))
        }
    };
    let Some(keys) = keys else {
        return Ok(Opened {
            store,
            redis,
            called,
            keys: None,
        });
    };
    let ids = format!("{keys:?}");
    let mut store = Encrypted::new(store, keys);
    if place.also_reads_plain {
        store = store.also_reads_plain();
    }
    Ok(Opened {
        store: Arc::new(store),
        redis,
        called,
        keys: Some(ids),
    })
}

/// An engine over a store, which executes nothing.
pub async fn engine(
    store: Arc<dyn Store>,
    namespace: Namespace,
    ttl: Option<Duration>,
) -> Result<Engine, Failure> {
    let mut builder = Engine::builder(SendsNothing(namespace)).store(store);
    if let Some(ttl) = ttl {
        builder = builder.result_ttl(ttl);
    }
    Ok(builder.start().await?)
}

/// Whose records: that of the command line, of the record's name, of the environment,
/// or the digest of platform and client.
pub fn namespace(place: &Place, key: Option<&KeyName>) -> Result<Namespace, Failure> {
    let of_key = key.and_then(|key| key.namespace.clone());
    match (&place.namespace, of_key) {
        (Some(one), Some(other)) if *one != other => Err(Failure::usage(format!(
            "--namespace is {one}, and the record is one of {other}"
        ))),
        (Some(namespace), _) => Ok(namespace.clone()),
        (None, Some(namespace)) => Ok(namespace),
        (None, None) => match variable("SERVICE_NAMESPACE")? {
            Some(name) => name
                .parse()
                .map_err(|e| Failure::usage(format!("SERVICE_NAMESPACE: {e}"))),
            None => match platform()? {
                Some(platform) => Ok(platform.upstream("").namespace()),
                None => Err(Failure::usage(
                    "no namespace: pass --namespace, or set SERVICE_NAMESPACE, or \
                     GENESYS_CLOUD_DOMAIN and GENESYS_CLOUD_CLIENT_ID as your service has them",
                )),
            },
        },
    }
}

/// The platform that the environment names, if it names one.
pub fn platform() -> Result<Option<Platform>, Failure> {
    let domain = variable("GENESYS_CLOUD_DOMAIN")?;
    let url = variable("GENESYS_CLOUD_URL")?;
    let client = variable("GENESYS_CLOUD_CLIENT_ID")?;
    let (setting, environment) = match (domain, url) {
        (None, None) => return Ok(None),
        (Some(domain), None) => ("GENESYS_CLOUD_DOMAIN", Environment::from_domain(&domain)),
        (None, Some(url)) => ("GENESYS_CLOUD_URL", Environment::from_base_url(&url)),
        (Some(_), Some(_)) => {
            let both = "GENESYS_CLOUD_DOMAIN and GENESYS_CLOUD_URL are both set";
            return Err(Failure::usage(both));
        }
    };
    let environment = environment.map_err(|error| Failure::from(error).of(setting))?;
    let client = client.ok_or_else(|| {
        Failure::usage("GENESYS_CLOUD_CLIENT_ID is not set, and goes with the platform")
    })?;
    Ok(Some(Platform {
        environment,
        client,
    }))
}

impl Platform {
    pub fn upstream(&self, secret: &str) -> GenesysCloud {
        let credentials = Credentials::new(self.client.clone(), secret.to_owned());
        GenesysCloud::new(self.environment.clone(), credentials)
    }
}

/// A variable, or what stands in the file that its `_FILE` names.
pub fn secret(name: &str) -> Result<Option<SecretString>, Failure> {
    let in_file = format!("{name}_FILE");
    let value = match (variable(name)?, variable(&in_file)?) {
        (Some(_), Some(_)) => {
            return Err(Failure::usage(format!("{name} and {in_file} are both set")));
        }
        (Some(value), None) => value,
        (None, None) => return Ok(None),
        (None, Some(path)) => {
            let text = std::fs::read_to_string(&path)
                .map_err(|error| Failure::usage(format!("{in_file}: {path}: {error}")))?;
            let text = Zeroizing::new(text);
            if text.trim().is_empty() {
                return Err(Failure::usage(format!("{in_file}: {path} is empty")));
            }
            text.trim_end_matches(['\r', '\n']).to_owned()
        }
    };
    Ok(Some(value.into()))
}

/// A variable that is set to something, or not set.
fn variable(name: &str) -> Result<Option<String>, Failure> {
    match std::env::var(name) {
        Ok(value) if value.trim().is_empty() => {
            Err(Failure::usage(format!("{name} is set, and empty")))
        }
        Ok(value) => Ok(Some(value)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => {
            Err(Failure::usage(format!("{name} is not text")))
        }
    }
}

enum Chosen {
    Redis(&'static str, SecretString),
    File(std::path::PathBuf),
}

fn chosen(place: &Place) -> Result<Chosen, Failure> {
    if let Some(url) = &place.redis_url {
        // Of `redis://user:password@host`; a user without a password is refused anyway.
        if url.contains('@') {
            return Err(Failure::usage(
                "--redis-url has a password in it, which every user of this machine can read: \
                 set REDIS_URL or REDIS_URL_FILE instead",
            ));
        }
        return Ok(Chosen::Redis("--redis-url", url.clone().into()));
    }
    if let Some(path) = &place.file {
        return Ok(Chosen::File(path.clone()));
    }
    let mut named = Vec::new();
    for setting in [REDIS, CLUSTER, SENTINELS] {
        let urls = secret(setting)?;
        named.extend(urls.map(|urls| (setting, Chosen::Redis(setting, urls))));
    }
    let file = variable("SERVICE_FILE")?;
    named.extend(file.map(|path| ("SERVICE_FILE", Chosen::File(path.into()))));
    let names: Vec<_> = named.iter().map(|(name, _)| *name).collect();
    match names.as_slice() {
        [] => Err(Failure::usage(
            "no store: set REDIS_URL (or REDIS_URL_FILE, REDIS_CLUSTER_URLS, \
             REDIS_SENTINEL_URLS, SERVICE_FILE)",
        )),
        [_] => Ok(named.remove(0).1),
        names => Err(Failure::usage(format!(
            "{} are all set: name one store",
            names.join(", ")
        ))),
    }
}

const REDIS: &str = "REDIS_URL";
const CLUSTER: &str = "REDIS_CLUSTER_URLS";
const SENTINELS: &str = "REDIS_SENTINEL_URLS";

async fn connect(setting: &'static str, urls: &SecretString) -> Result<RedisStore, Failure> {
    let urls = urls.expose_secret();
    let connected = match setting {
        CLUSTER => RedisStore::cluster(urls.split_whitespace()).await,
        SENTINELS => {
            let primary = secret("REDIS_PRIMARY")?;
            let primary = primary.ok_or_else(|| {
                Failure::usage("REDIS_PRIMARY is not set, and goes with REDIS_SENTINEL_URLS")
            })?;
            RedisStore::sentinel(urls.split_whitespace(), primary.expose_secret()).await
        }
        _ => RedisStore::connect(urls.trim()).await,
    };
    connected.map_err(|error| Failure::from(error).of(setting))
}

/// The encryption keys: one a line, an id and 64 hex digits.
fn keys() -> Result<Option<EncryptionKeys>, Failure> {
    const NAME: &str = "ENCRYPTION_KEYS";
    let Some(text) = secret(NAME)? else {
        return Ok(None);
    };
    let mut keys: Option<EncryptionKeys> = None;
    for (number, line) in (1..).zip(text.expose_secret().lines()) {
        let mut words = line.split_whitespace();
        let (id, digits) = match (words.next(), words.next(), words.next()) {
            (None, ..) => continue,
            (Some(id), Some(digits), None) => (id, digits),
            _ => return Err(malformed(number)),
        };
        let key = Zeroizing::new(bytes(digits).ok_or_else(|| malformed(number))?);
        let more = match keys {
            None => EncryptionKeys::new(id, &*key),
            Some(keys) => keys.also_reads(id, &*key),
        };
        keys = Some(more.map_err(|error| Failure::from(error).of(NAME))?);
    }
    Ok(keys)
}

fn malformed(number: usize) -> Failure {
    // Not repeated: it might be a key.
    Failure::usage(format!(
        "ENCRYPTION_KEYS: line {number} is not an id and 64 hex digits"
    ))
}

fn bytes(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    match digits.len() == 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        true => pairs.map(byte).collect(),
        false => None,
    }
}

/// The platform of an engine that executes nothing.
struct SendsNothing(Namespace);

impl Upstream for SendsNothing {
    fn namespace(&self) -> Namespace {
        self.0.clone()
    }

    fn send<'a>(
        &'a self,
        _: &'a Call,
        _: Option<&'a genesys_once::upstream::AccessToken>,
    ) -> BoxFuture<'a, Result<Outcome, genesys_once::error::SendError>> {
        Box::pin(async {
            let reason = "the command line executes no action";
            Err(genesys_once::error::SendError::before_sending(reason))
        })
    }
}
