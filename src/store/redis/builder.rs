//! The settings of a connection that a URL does not contain. It opens no connection by
//! itself.

use std::fmt;
use std::time::Duration;

use redis::{ClientTlsConfig, TlsCertificates};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use secrecy::SecretString;

use super::connection::login::{ConnectOptions, Login};
use super::{RedisStore, connect};
use crate::ambient::in_runtime;
use crate::error::{BoxError, Error};

/// The longest time that one attempt to connect may be given.
const MAX_CONNECT_TIMEOUT: Duration = Duration::from_secs(6);

impl RedisStore {
    /// A builder for a store whose login or certificates are not in its URLs. The URLs
    /// are those of one server, of a cluster's nodes, or of sentinels, as for
    /// [`connect`](Self::connect), [`cluster`](Self::cluster) and
    /// [`sentinel`](Self::sentinel).
    ///
    /// ```no_run
    /// # async fn iam_token() -> Result<String, genesys_once::error::BoxError> { Ok("t".into()) }
    /// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
    /// use genesys_once::RedisStore;
    ///
    /// // A token that is valid for some minutes: each new connection has a new one.
    /// let store = RedisStore::builder(["rediss://redis.internal:6379"])
    ///     .credentials(|| async { Ok(("orders".into(), iam_token().await?)) })
    ///     .tls_ca(std::fs::read("/etc/redis/ca.pem")?)
    ///     .connect()
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder<U: AsRef<str>>(urls: impl IntoIterator<Item = U>) -> RedisStoreBuilder {
        RedisStoreBuilder {
            urls: urls.into_iter().map(|url| url.as_ref().into()).collect(),
            username: None,
            password: None,
            provided: Login::Url,
            tls_ca: None,
            client_cert: None,
            connect_timeout: ConnectOptions::default().connect_timeout,
        }
    }
}

/// The settings of a [`RedisStore`], made by [`RedisStore::builder`]. `Debug` shows no
/// secret, and no URL, since it might contain one.
#[derive(Clone)]
#[must_use]
pub struct RedisStoreBuilder {
    urls: Vec<String>,
    username: Option<String>,
    password: Option<SecretString>,
    provided: Login,
    tls_ca: Option<Vec<u8>>,
    client_cert: Option<ClientTlsConfig>,
    connect_timeout: Duration,
}

impl RedisStoreBuilder {
    /// The user to log in as; by default Redis's default user. It needs a
    /// [`password`](Self::password).
    pub fn username(mut self, username: impl Into<String>) -> Self {
        self.username = Some(username.into());
        self
    }

    /// The password to log in with, instead of one in the URLs. It is zeroised when
    /// the builder is dropped; the client keeps a copy.
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(SecretString::from(password.into()));
        self
    }

    /// Asks `provider` for user and password at **each** new connection, instead of
    /// taking them from the URLs: for tokens that expire, and passwords that are
    /// rotated. An empty user is Redis's default user. A login that the server refuses
    /// fails that connection; the next one asks again.
    ///
    /// It runs on the runtime of the store, and its time is part of
    /// [`connect_timeout`](Self::connect_timeout). Its error is shown, so it must contain
    /// no secret. If it panics, connecting fails.
    pub fn credentials<F, Fut>(mut self, provider: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(String, String), BoxError>> + Send + 'static,
    {
        self.provided = Login::Provided(std::sync::Arc::new(move || {
            let asked = provider();
            Box::pin(async move {
                let (user, password) = asked.await?;
                Ok((user, SecretString::from(password)))
            })
        }));
        self
    }

    /// The roots that servers' certificates are verified against, as PEM, instead of
    /// the system's. For URLs with `rediss://`.
    pub fn tls_ca(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.tls_ca = Some(pem.into());
        self
    }

    /// The certificate chain and the private key, both as PEM, that this client shows
    /// to servers (mutual TLS). For URLs with `rediss://`.
    pub fn client_cert(mut self, chain: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.client_cert = Some(ClientTlsConfig {
            client_cert: chain.into(),
            client_key: key.into(),
        });
        self
    }

    /// How long one attempt to connect may take: credentials, name, TCP, TLS and
    /// login; 4 s by default, at most 6 s. A command waits at most 2 s for it; a later
    /// command uses the connection that was made in the meantime.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// Connects to one server, as [`RedisStore::connect`].
    ///
    /// # Errors
    ///
    /// Those of [`RedisStore::connect`]; [`Error::InvalidConfig`] also for settings
    /// that contradict each other or that nothing uses, for more than one URL, and for
    /// certificates that cannot be read. [`Error::StoreUnavailable`] where the
    /// credentials provider fails, or the server refuses what it gave.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the connection that it was making.
    pub async fn connect(self) -> Result<RedisStore, Error> {
        in_runtime()?;
        let options = self.options(&[])?;
        let [url] = self.urls.as_slice() else {
            return Err(refused(
                "exactly one url is needed to connect to one server",
            ));
        };
        connect::to_server(url, &options).await.map(RedisStore::new)
    }

    /// Connects to a cluster, as [`RedisStore::cluster`], with the same login for every
    /// node.
    ///
    /// # Errors
    ///
    /// Those of [`RedisStore::cluster`] and of [`connect`](Self::connect).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the connections that it was making.
    pub async fn cluster(self) -> Result<RedisStore, Error> {
        in_runtime()?;
        let options = self.options(&[])?;
        let connected = connect::to_cluster(&self.urls, &options).await;
        connected.map(RedisStore::new)
    }

    /// Connects to the primary that sentinels watch, as [`RedisStore::sentinel`].
    ///
    /// Where `primary` is a plain name, these settings are for sentinels and data servers.
    /// Where it is a URL, they are for the data servers only, and the sentinels' logins
    /// are in their URLs.
    ///
    /// # Errors
    ///
    /// Those of [`RedisStore::sentinel`] and of [`connect`](Self::connect).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the connections that it was making.
    pub async fn sentinel(self, primary: &str) -> Result<RedisStore, Error> {
        in_runtime()?;
        let options = self.options(&[primary])?;
        let connected = connect::to_primary(&self.urls, primary, &options).await;
        connected.map(RedisStore::new)
    }

    fn options(&self, others: &[&str]) -> Result<ConnectOptions, Error> {
        let login = match (&self.username, &self.password, &self.provided) {
            (None, None, provided) => provided.clone(),
            (_, _, Login::Provided(_)) => {
                return Err(refused("there are a password and a credentials provider"));
            }
            (_, None, _) => return Err(refused("there is a username without a password")),
            (user, Some(password), _) => {
                Login::Fixed((user.clone().unwrap_or_default(), password.clone()))
            }
        };
        if !(Duration::from_millis(1)..=MAX_CONNECT_TIMEOUT).contains(&self.connect_timeout) {
            let reason = "it must be between 1 ms and 6 s";
            return Err(Error::invalid_config("connect_timeout", reason));
        }
        Ok(ConnectOptions {
            login,
            tls: self.certificates(others)?,
            connect_timeout: self.connect_timeout,
        })
    }

    fn certificates(&self, others: &[&str]) -> Result<Option<TlsCertificates>, Error> {
        if self.tls_ca.is_none() && self.client_cert.is_none() {
            return Ok(None);
        }
        let mut urls = self
            .urls
            .iter()
            .map(String::as_str)
            .chain(others.iter().copied());
        if !urls.any(|url| url.starts_with("rediss://") || url.starts_with("valkeys://")) {
            return Err(refused("there are certificates, and no url has rediss://"));
        }
        let is_chain = |pem: &[u8]| {
            let mut certificates = CertificateDer::pem_slice_iter(pem).peekable();
            certificates.peek().is_some() && certificates.all(|certificate| certificate.is_ok())
        };
        let chain = self.client_cert.as_ref().map(|client| &client.client_cert);
        for (setting, pem) in [("tls_ca", self.tls_ca.as_ref()), ("client_cert", chain)] {
            if pem.is_some_and(|pem| !is_chain(pem)) {
                return Err(Error::invalid_config(
                    setting,
                    "it has no certificate in PEM",
                ));
            }
        }
        Ok(Some(TlsCertificates {
            client_tls: self.client_cert.clone(),
            root_cert: self.tls_ca.clone(),
        }))
    }
}

fn refused(reason: &'static str) -> Error {
    Error::invalid_config("redis store", reason)
}

impl fmt::Debug for RedisStoreBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStoreBuilder")
            .field("urls", &self.urls.len())
            .field("username", &self.username)
            .field("connect_timeout", &self.connect_timeout)
            .finish_non_exhaustive()
    }
}
