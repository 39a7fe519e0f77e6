//! Genesys Cloud over reqwest: one call is one POST on the wire, whatever
//! happens to it. Nothing here repeats, schedules or classifies.

mod clients;
mod credentials;
mod environment;
mod execute;
mod gate;
mod limiter;
mod reach;
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

/// A Genesys Cloud organisation, reached with one OAuth client.
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
/// Making one never fails; `EngineBuilder::start` reports an impossible setting
/// as [`Error::InvalidConfig`].
///
/// # One POST, and no more
///
/// Redirects are answers (a followed 307 would be a second POST), the HTTP
/// client's own retries are off, connections speak HTTP/1.1 only (a refused
/// HTTP/2 stream cannot be told from a lost one), and idle ones are dropped
/// after `idle_timeout`, before gateways drop them. A connection on which bytes
/// came that no request asked for is not used again. No HTTP client of the
/// caller's is taken, because it could repeat requests out of sight.
///
/// Several engines may share one `Arc<GenesysCloud>`, on one runtime or on several:
/// a connection is only ever used on the runtime that made it.
///
/// # Namespace
///
/// By default `go-` and 32 hex digits: a SHA-256 over the API's scheme, host and
/// port and the client id. Another client id is another namespace, so **set
/// one** on the engine's builder before credentials are rotated, or where two
/// clients are to share records.
///
/// # Crypto provider
///
/// TLS uses the process's default provider of rustls. Where the process has
/// none when the first client is built, ring becomes it.
///
/// ```
/// use genesys_once::{Credentials, Environment, GenesysCloud, Route};
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
    /// The platform as fingerprints name it.
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

    /// Which of the platform's two execute paths is called.
    ///
    /// A 404 under the default route may mean that the organisation has the
    /// other one only: the first is logged as a warning that says so.
    pub fn route(mut self, route: Route) -> Self {
        self.route = route;
        self.label = label(&self.platform, route);
        self
    }

    /// Names the platform in fingerprints, instead of the API's scheme, host and
    /// port: for an organisation that processes which share records reach by
    /// different addresses (a gateway of each process, say). Requests that were
    /// recorded under another name are
    /// [`Error::PayloadMismatch`](crate::Error::PayloadMismatch).
    pub fn platform(mut self, name: impl Into<String>) -> Self {
        self.platform = name.into();
        self.label = label(&self.platform, self.route);
        self
    }

    /// How the token endpoint is shown the client's credentials.
    pub fn client_auth(mut self, auth: ClientAuth) -> Self {
        self.auth = auth;
        self
    }

    /// The longest that one attempt may take, from connecting to the last byte
    /// of the answer: 65 s by default, since an action may run for 60; at most a day. An
    /// attempt cut off by it counts as possibly executed, unless the last of its body
    /// had not been handed to a connection yet.
    ///
    /// Where the process did not run when that time ended, an answer is looked for
    /// during one second more.
    pub fn attempt_timeout(self, limit: Duration) -> Self {
        self.with(|settings| settings.attempt_timeout = limit)
    }

    /// The longest that name resolution, TCP and TLS may take together, 5 s by
    /// default, at most a day; a failure here is proof that nothing was sent. Where it is
    /// more than half of [`attempt_timeout`](Self::attempt_timeout), that half counts, so
    /// that the attempt's end cannot hide the proof.
    pub fn connect_timeout(self, limit: Duration) -> Self {
        self.with(|settings| settings.connect_timeout = limit)
    }

    /// How long a connection may be idle and still be used, 15 s by default, at most
    /// a day. **Less than the platform, or a gateway before it, keeps idle
    /// connections**: a request that is written into a connection while the other
    /// end closes it is lost, and its key is indeterminate. Zero is a connection of
    /// its own for each call and each token request.
    pub fn idle_timeout(self, limit: Duration) -> Self {
        self.with(|settings| settings.idle_timeout = limit)
    }

    /// An `http://` or `https://` proxy for every request, tokens included;
    /// `user:password@` in it is sent to the proxy and never shown. It goes before
    /// [`environment_proxy`](Self::environment_proxy).
    ///
    /// An `https://` platform is reached through a tunnel, of which the proxy sees
    /// host and port only. A platform on plain `http://`, loopback included, would
    /// show it secret, tokens and payloads: `InvalidConfig`, without
    /// [`allow_insecure`](Self::allow_insecure).
    pub fn proxy(self, url: impl Into<String>) -> Self {
        let url = SecretString::from(url.into());
        self.with(|settings| settings.proxy = Some(url))
    }

    /// Whether the proxy is the one of the process's environment, for API and
    /// tokens alike; `false` by default: what a call may pass through is not left to
    /// the environment.
    ///
    /// The variables are `HTTPS_PROXY`, `HTTP_PROXY` (not under CGI), `ALL_PROXY`
    /// and `NO_PROXY`, in lower case too, read when the HTTP client of a runtime is built, mostly at `start`; a value that
    /// is no URL is ignored. A platform on loopback is reached without them.
    pub fn environment_proxy(self, honour: bool) -> Self {
        self.with(|settings| settings.environment_proxy = honour)
    }

    /// Trusts the certificates in this PEM text besides the system's roots.
    /// May be called repeatedly.
    pub fn root_certificate(self, pem: impl AsRef<[u8]>) -> Self {
        let pem = pem.as_ref().to_vec();
        self.with(|settings| settings.roots.push(pem))
    }

    /// Allows plain HTTP to hosts that are not loopback, and through a proxy.
    /// Credentials, tokens and payloads can then be read by everybody on the way.
    pub fn allow_insecure(self) -> Self {
        self.with(|settings| settings.allow_insecure = true)
    }

    /// Lets at most this many calls leave in any 60 s, in this process, later
    /// attempts included; by default there is no limit of one's own. The actions
    /// that wait for it go by turns, and within an action the first come is the
    /// first served.
    ///
    /// A twentieth of it (at most 50) may leave at once after a pause, the rest
    /// evenly spaced: 300 a minute is a burst of 15, then one every 210 ms.
    /// Being held back costs no attempt, and shows in `Engine::stats`.
    ///
    /// The platform's default is 300 a minute for each client-credentials token
    /// (the vendor's developer center blog). Processes that share a client share
    /// that: give each its part. What goes beyond it all the same gets a 429,
    /// which holds everybody back until the platform's time has come.
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
        // A client built by an earlier `check` does not know this setting.
        self.clients = OnceLock::new();
        self
    }

    /// The HTTP clients, the first of them built when first asked for. A setting that
    /// makes it impossible is found here, so nothing is sent with it, checked or not.
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
            // The answer outlives the panic of a subscriber.
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

/// What fingerprints say of platform and route. The route has no line feed.
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
