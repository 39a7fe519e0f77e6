//! Genesys Cloud over reqwest: one call is at most one POST on the wire. Nothing here
//! retries, schedules or classifies.

mod clients;
mod credentials;
mod environment;
mod execute;
mod gated_body;
mod limiter;
mod reach;
mod region;
mod token;
mod transport;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use secrecy::SecretString;

use self::clients::Clients;
pub use self::credentials::{ClientAuth, Credentials};
pub use self::environment::Environment;
pub use self::execute::Route;
use self::execute::Urls;
use self::limiter::RateLimiter;
use self::token::TokenEndpoint;
use self::transport::Settings;
use crate::error::{Error, SendError};
use crate::genesys::correlation_id;
use crate::key::Namespace;
use crate::outcome::Outcome;
use crate::request::ActionId;
use crate::store::BoxFuture;
use crate::telemetry;
use crate::upstream::{AccessToken, Call, RatePermit, TokenSource, Upstream};

/// A Genesys Cloud organisation and one OAuth client.
///
/// | setting | default |
/// |---|---|
/// | [`route`](Self::route) | [`Route::DataActions`] |
/// | [`client_auth`](Self::client_auth) | [`ClientAuth::Basic`] |
/// | [`attempt_timeout`](Self::attempt_timeout) | 65 s: an action may run 60 s |
/// | [`connect_timeout`](Self::connect_timeout) | 5 s |
/// | [`idle_timeout`](Self::idle_timeout) | 15 s; zero is a connection for each call |
/// | [`proxy`](Self::proxy) | none |
/// | [`environment_proxy`](Self::environment_proxy) | `false`: `HTTPS_PROXY` and the like are not read |
/// | [`root_certificate`](Self::root_certificate) | the system's roots |
/// | [`allow_insecure`](Self::allow_insecure) | plain HTTP to loopback only, without a proxy |
/// | [`rate_limit`](Self::rate_limit) | none |
/// | [`user_agent`](Self::user_agent) | `genesys-once/VERSION` alone |
///
/// Setters never fail; `EngineBuilder::start` returns [`Error::InvalidConfig`] for an
/// impossible setting.
///
/// # One POST, and no more
///
/// Redirects are answers, since a followed 307 would be a second POST. The HTTP client's
/// retries are off. Connections use HTTP/1.1 only, since a refused HTTP/2 stream cannot be
/// distinguished from a lost one. Idle connections are dropped after `idle_timeout`, before
/// gateways drop them. A connection with unexpected bytes is not used again. An HTTP client
/// of the caller cannot be set, because it could repeat requests.
///
/// Several engines may share one `Arc<GenesysCloud>`, on one runtime or on several: a
/// connection is used only on the runtime that made it.
///
/// # Namespace
///
/// By default `go-` and 32 hex digits: a SHA-256 of the API's scheme, host and port and the
/// client id. Another client id is another namespace. So **set a namespace** on the engine's
/// builder before you rotate credentials, or if two clients share records.
///
/// # Crypto provider
///
/// TLS uses the process's default provider of rustls. If the process has none when the first
/// client is built, ring becomes the default.
///
/// ```
/// use genesys_once::genesys::Route;
/// use genesys_once::{Credentials, Environment, GenesysCloud};
///
/// let upstream = GenesysCloud::new(
///     Environment::from_domain("mypurecloud.ie")?,
///     Credentials::new("client-id", "client-secret"),
/// )
/// .route(Route::Actions { flatten: false })
/// .rate_limit(300);
/// # Ok::<(), genesys_once::Error>(())
/// ```
pub struct GenesysCloud {
    environment: Environment,
    credentials: Arc<Credentials>,
    namespace: Namespace,
    route: Route,
    /// The platform's name in fingerprints.
    platform: String,
    label: String,
    urls: Urls,
    auth: ClientAuth,
    settings: Settings,
    limiter: Option<Arc<RateLimiter>>,
    clients: OnceLock<Result<Arc<Clients>, Error>>,
    hinted: AtomicBool,
}

impl GenesysCloud {
    /// The organisation of `environment`, as the OAuth client `credentials`.
    ///
    /// The client needs a role with `integrations:action:execute` (or
    /// `bridge:actions:execute`); scopes do not apply to client credentials.
    pub fn new(environment: Environment, credentials: Credentials) -> Self {
        let platform = environment.origin();
        Self {
            namespace: environment.namespace(credentials.client_id()),
            label: label(&platform, Route::default()),
            platform,
            environment,
            credentials: Arc::new(credentials),
            route: Route::default(),
            urls: Urls::default(),
            auth: ClientAuth::default(),
            settings: Settings::default(),
            limiter: None,
            clients: OnceLock::new(),
            hinted: AtomicBool::new(false),
        }
    }

    /// Sets the execute path that is called.
    ///
    /// A 404 under the default route can mean that the organisation has only the other
    /// route: the first 404 is logged as a warning.
    pub fn route(mut self, route: Route) -> Self {
        self.route = route;
        self.label = label(&self.platform, route);
        self
    }

    /// Sets the platform's name in fingerprints, instead of the API's scheme, host and
    /// port. It is for processes that share records and reach the organisation by
    /// different addresses, such as a gateway for each process. A request that was
    /// recorded under another name is
    /// [`Error::PayloadMismatch`](crate::Error::PayloadMismatch).
    pub fn platform(mut self, name: impl Into<String>) -> Self {
        self.platform = name.into();
        self.label = label(&self.platform, self.route);
        self
    }

    /// Sets how the client authenticates at the token endpoint.
    pub fn client_auth(mut self, auth: ClientAuth) -> Self {
        self.auth = auth;
        self
    }

    /// The longest time for one attempt, from connecting to the last byte of the answer:
    /// 65 s by default, since an action may run for 60 s; at most a day. The outcome of an
    /// attempt that exceeds it is unknown, unless the end of its body did not reach a
    /// connection.
    ///
    /// If the process did not run when that time ended, the client reads for one second
    /// more.
    pub fn attempt_timeout(self, limit: Duration) -> Self {
        self.with(|settings| settings.attempt_timeout = limit)
    }

    /// The longest time for name resolution, TCP and TLS together: 5 s by default, at most
    /// a day. A failure here proves that nothing was sent. If it is more than half of
    /// [`attempt_timeout`](Self::attempt_timeout), that half applies, so that the end of
    /// the attempt cannot hide the proof.
    pub fn connect_timeout(self, limit: Duration) -> Self {
        self.with(|settings| settings.connect_timeout = limit)
    }

    /// How long an idle connection is used again: 15 s by default, at most a day. **It must
    /// be shorter than the platform, or a gateway before it, keeps idle connections**: a
    /// request that is written while the peer closes the connection is lost, and its key
    /// indeterminate. Zero opens a connection for each call and each token request.
    pub fn idle_timeout(self, limit: Duration) -> Self {
        self.with(|settings| settings.idle_timeout = limit)
    }

    /// An `http://` or `https://` proxy for each request, also for tokens. It has priority
    /// over [`environment_proxy`](Self::environment_proxy). `user:password@` in it is sent
    /// to the proxy and never shown.
    ///
    /// An `https://` platform is reached through a tunnel: the proxy sees host and port
    /// only. A platform on plain `http://`, also on loopback, would show the proxy secret,
    /// tokens and payloads. It is `InvalidConfig` without
    /// [`allow_insecure`](Self::allow_insecure).
    pub fn proxy(self, url: impl Into<String>) -> Self {
        let url = SecretString::from(url.into());
        self.with(|settings| settings.proxy = Some(url))
    }

    /// Whether to use the proxy of the process's environment, for API and tokens; `false`
    /// by default, so that the environment cannot redirect calls.
    ///
    /// The variables are `HTTPS_PROXY`, `HTTP_PROXY` (not under CGI), `ALL_PROXY` and
    /// `NO_PROXY`, also in lower case. They are read when a runtime's HTTP client is built,
    /// usually at `start`. A value that is not a URL is ignored, and loopback needs no
    /// proxy.
    pub fn environment_proxy(self, honour: bool) -> Self {
        self.with(|settings| settings.environment_proxy = honour)
    }

    /// Trusts the certificates of this PEM text in addition to the system's roots. Each
    /// call adds to the previous ones.
    pub fn root_certificate(self, pem: impl AsRef<[u8]>) -> Self {
        let pem = pem.as_ref().to_vec();
        self.with(|settings| settings.roots.push(pem))
    }

    /// Allows plain HTTP to hosts that are not loopback, and through a proxy. Each machine
    /// on the way can then read credentials, tokens and payloads.
    pub fn allow_insecure(self) -> Self {
        self.with(|settings| settings.allow_insecure = true)
    }

    /// Lets at most this many calls leave in any 60 s, in this process, retries included.
    /// There is no limit by default; 0 is [`Error::InvalidConfig`]. Waiting actions take
    /// turns, and the callers of one action go in the order of their arrival.
    ///
    /// A twentieth of the limit (at most 50) may leave at once after a pause, the rest
    /// evenly spaced: 300 a minute is a burst of 15, then one call each 210 ms. The wait
    /// counts as no attempt, and `Engine::stats` shows it.
    ///
    /// The platform's default is 300 a minute for each client-credentials token (the
    /// vendor's developer center blog). Processes that share a client share that limit:
    /// give each a part of it. A call beyond the platform's limit gets a 429, which begins
    /// a cooldown for all executions.
    pub fn rate_limit(mut self, per_minute: u32) -> Self {
        self.limiter = Some(Arc::new(RateLimiter::new(per_minute)));
        self
    }

    /// Adds the embedding service's name to the `User-Agent`, which begins with
    /// `genesys-once/VERSION`.
    pub fn user_agent(self, suffix: impl Into<String>) -> Self {
        let suffix = suffix.into();
        self.with(|settings| settings.user_agent = Some(suffix))
    }

    fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        // A client that an earlier `check` built does not have this setting.
        self.clients = OnceLock::new();
        self
    }

    /// The HTTP clients; the first call builds the first of them. An impossible setting
    /// fails here, so that nothing is sent with it.
    fn clients(&self) -> Result<&Arc<Clients>, Error> {
        self.clients
            .get_or_init(|| {
                self.credentials.check(self.auth)?;
                if self
                    .limiter
                    .as_ref()
                    .is_some_and(|limiter| limiter.is_closed())
                {
                    return Err(Error::invalid_config("rate_limit", "must not be zero"));
                }
                Clients::new(self.settings.clone(), self.environment.clone())
            })
            .as_ref()
            .map_err(Error::clone)
    }

    async fn send_once(
        &self,
        call: &Call,
        token: Option<&AccessToken>,
    ) -> Result<Outcome, SendError> {
        let client = self
            .clients()
            .and_then(|clients| clients.of_this_runtime())
            .map_err(SendError::before_sending)?;
        let api = self.environment.api();
        let request = execute::request(&self.urls, api, self.route, call, token)?;
        let outcome = execute::send(&client, request, self.settings.attempt_timeout).await?;
        self.hint_at_the_other_route(&outcome);
        Ok(outcome)
    }

    fn hint_at_the_other_route(&self, outcome: &Outcome) {
        let not_found = outcome.status() == http::StatusCode::NOT_FOUND;
        if not_found
            && self.route == Route::DataActions
            && !self.hinted.swap(true, Ordering::Relaxed)
        {
            // A subscriber's panic must not lose the answer.
            telemetry::contained(|| {
                tracing::warn!(
                    correlation_id = correlation_id(outcome),
                    "the platform does not know this action under Route::DataActions; if the \
                     action exists, try Route::Actions, the path that the platform's SDKs call"
                );
            });
        }
    }
}

/// The platform and the route in fingerprints. The route has no line feed.
fn label(platform: &str, route: Route) -> String {
    format!("{platform}\n{}", route.label())
}

impl Upstream for GenesysCloud {
    fn namespace(&self) -> Namespace {
        self.namespace.clone()
    }

    fn send<'a>(
        &'a self,
        call: &'a Call,
        token: Option<&'a AccessToken>,
    ) -> BoxFuture<'a, Result<Outcome, SendError>> {
        Box::pin(self.send_once(call, token))
    }

    fn token_source(&self) -> Option<Arc<dyn TokenSource>> {
        Some(Arc::new(TokenEndpoint::new(
            self.clients().cloned(),
            self.environment.login(),
            Arc::clone(&self.credentials),
            self.auth,
        )))
    }

    fn check(&self) -> Result<(), Error> {
        self.clients().map(drop)
    }

    fn route_label(&self) -> &str {
        &self.label
    }

    fn url(&self, action: &ActionId) -> Option<String> {
        let url = self.urls.of(self.environment.api(), self.route, action);
        Some(url.into())
    }

    fn attempt_timeout(&self) -> Duration {
        self.settings.attempt_timeout
    }

    fn acquire_rate_permit<'a>(&'a self) -> BoxFuture<'a, RatePermit> {
        match &self.limiter {
            Some(limiter) => Box::pin(limiter.acquire()),
            None => Box::pin(async { RatePermit::default() }),
        }
    }
}

impl fmt::Debug for GenesysCloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GenesysCloud")
            .field("environment", &self.environment)
            .field("credentials", &self.credentials)
            .field("namespace", &self.namespace)
            .field("route", &self.route)
            .field("client_auth", &self.auth)
            .field("settings", &self.settings)
            .field("rate_limit", &self.limiter)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
