//! The login of a store where its URLs have none: a user and a password, or a provider
//! that is asked at each connect; and the certificates for TLS. No message shows any of
//! it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use redis::{Client, ConnectionAddr, ConnectionInfo, TlsCertificates};
use secrecy::{ExposeSecret as _, SecretString};

use super::connect_error::{ConnectError, invalid};
use super::open::client;
use crate::error::{BoxError, Error};
use crate::store::BoxFuture;

/// How long one attempt to connect may take: name, TCP, TLS and handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);

/// A user and a password.
pub(crate) type Credentials = (String, SecretString);

/// Returns them at each connect.
pub(crate) type CredentialsProvider =
    Arc<dyn Fn() -> BoxFuture<'static, Result<Credentials, BoxError>> + Send + Sync>;

/// How to log in.
#[derive(Clone, Default)]
pub(crate) enum Login {
    /// The login of the URL.
    #[default]
    Url,
    /// With these; without a user name where it is empty.
    Fixed(Credentials),
    Provided(CredentialsProvider),
}

/// The builder's settings for all servers.
#[derive(Clone)]
pub(crate) struct ConnectOptions {
    pub(crate) login: Login,
    /// For servers that speak TLS.
    pub(crate) tls: Option<TlsCertificates>,
    pub(crate) connect_timeout: Duration,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            login: Login::Url,
            tls: None,
            connect_timeout: CONNECT_TIMEOUT,
        }
    }
}

impl ConnectOptions {
    /// The same for servers with a login in their URLs.
    pub(crate) fn without_login(&self) -> Self {
        Self {
            login: Login::Url,
            ..self.clone()
        }
    }

    /// The login and TLS settings of a URL, completed by those of the builder.
    pub(crate) fn applied_to(
        &self,
        info: ConnectionInfo,
    ) -> Result<(ConnectionInfo, Option<CredentialsProvider>), Error> {
        let has_login = info.redis_settings().password().is_some();
        let (info, provider) = match &self.login {
            Login::Url => (info, None),
            Login::Fixed(_) | Login::Provided(_) if has_login => {
                return Err(invalid(
                    "it has a password, and the builder has another login",
                ));
            }
            Login::Fixed(credentials) => (with_login(info, credentials), None),
            Login::Provided(provider) => (info, Some(provider.clone())),
        };
        let info = match (&self.tls, info.addr()) {
            (Some(certificates), ConnectionAddr::TcpTls { .. }) => {
                let built = Client::build_with_tls(info, certificates.clone());
                // Without the original text, which might be a part of a key.
                let built = built.map_err(|_| {
                    Error::invalid_config(
                        "redis tls",
                        "certificate or key is no PEM that can be read",
                    )
                })?;
                built.get_connection_info().clone()
            }
            _ => info,
        };
        Ok((info, provider))
    }
}

/// A client with the credentials that the provider returns now.
pub(crate) async fn with_credentials(
    plain: &Client,
    provider: &CredentialsProvider,
) -> Result<Client, ConnectError> {
    // Foreign code: if it panics, only this attempt fails.
    let asked = AssertUnwindSafe(async { provider().await })
        .catch_unwind()
        .await;
    let failed = |reason: String| ConnectError::NoCredentials(reason);
    let credentials = asked
        .map_err(|_| failed("the credentials provider panicked".into()))?
        .map_err(|cause| failed(format!("the credentials provider failed: {cause}")))?;
    let info = with_login(plain.get_connection_info().clone(), &credentials);
    client(info).map_err(|_| failed("the provided credentials cannot be used".into()))
}

fn with_login(info: ConnectionInfo, (user, password): &Credentials) -> ConnectionInfo {
    let mut redis = info.redis_settings().clone();
    if !user.is_empty() {
        redis = redis.set_username(user);
    }
    let redis = redis.set_password(password.expose_secret());
    info.set_redis_settings(redis)
}
