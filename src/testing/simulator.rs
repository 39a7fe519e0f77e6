//! Genesys Cloud on loopback: a real HTTP/1.1 server with the platform's token endpoint,
//! execute routes, limits and failures. It counts and answers. It knows nothing of the
//! engine, and must never share code with the client.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use self::routes::Platform;
use self::server::Server;
use super::ledger::Ledger;
use super::step::{Script, Step};
#[cfg(feature = "genesys")]
use crate::genesys::{Credentials, Environment};
use crate::upstream::Call;

mod limits;
mod oauth;
mod routes;
mod server;
mod socket;
mod wire;

/// The id of the only client.
const CLIENT_ID: &str = "simulated-client";
/// Its secret, a text that is easily found in a log.
const CLIENT_SECRET: &str = "simulated-client-secret";

/// A simulated Genesys Cloud on `127.0.0.1`. After a drop, port and connections close as
/// soon as the runtime has ended its tasks; [`stop`](Self::stop) waits for that.
///
/// - `POST /oauth/token` knows one client ([`client_id`](Self::client_id),
///   [`client_secret`](Self::client_secret)), by HTTP Basic or in the body.
/// - `POST /api/v2/integrations/dataactions/{id}/execute` and
///   `…/integrations/actions/{id}/execute` follow the script. Without a script, each answers
///   200 with a new refund number and the input.
/// - Any other path is 404, in the platform's error shape. Each answer has its own
///   `ININ-Correlation-Id`.
///
/// The [`Step`]s on a real socket:
///
/// | step | the client sees |
/// |---|---|
/// | `Answer` | status, headers and body as given |
/// | `RateLimited` | the platform's 429 |
/// | `Reset`, `Refused`, `Panic` | the connection reset (RST) after its whole request was read |
/// | `Cut` | 200 with a `Content-Length` that the body does not reach |
/// | `Silent` | an open connection, and nothing on it |
/// | `After` | the step, later |
///
/// A server cannot refuse one call after it has accepted the connection. So `Refused` is no
/// proof here and counts as executed, as each reset does. To refuse connections, see
/// [`refuse_connections`](Self::refuse_connections).
///
/// The script sees each request as the platform does. [`Call::key`] is the
/// `Idempotency-Key` header, or without one the request's own key, since the platform
/// ignores that header. [`Call::attempt`] counts the arrivals of that key, from 1. Bodies
/// are read up to 16 MiB. Up to 1,024 connections are served at a time; further ones wait.
///
/// Do not use it under tokio's paused time: [`testing`](crate::testing) says why.
///
/// ```
/// use genesys_once::testing::{GenesysSimulator, Step};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let platform = GenesysSimulator::start().await;
/// platform.script(|call| match call.attempt() {
///     1 => Step::RateLimited(std::time::Duration::from_secs(1)),
///     _ => Step::ok(r#"{"refund":"R-1"}"#),
/// });
/// assert!(platform.base_url().starts_with("http://127.0.0.1:"));
/// assert_eq!(platform.ledger().total(), 0);
/// # });
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct GenesysSimulator {
    platform: Arc<Platform>,
    server: Server,
    base_url: String,
}

impl GenesysSimulator {
    /// Starts a platform on a free port of `127.0.0.1`.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O and time, and if no port of loopback can be opened.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn start() -> Self {
        let platform = Arc::new(Platform::new(CLIENT_ID, CLIENT_SECRET));
        let server = Server::start(platform.clone()).expect("a free port on 127.0.0.1");
        let base_url = format!("http://{}", server.address());
        Self {
            platform,
            server,
            base_url,
        }
    }

    /// `http://127.0.0.1:PORT`, the one host for both API and token endpoint.
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// The id of the OAuth client that this platform knows.
    pub fn client_id(&self) -> &str {
        CLIENT_ID
    }

    /// That client's secret.
    pub fn client_secret(&self) -> &str {
        CLIENT_SECRET
    }

    /// This platform, for `GenesysCloud::new`.
    #[cfg(feature = "genesys")]
    pub fn environment(&self) -> Environment {
        Environment::from_base_url(&self.base_url).expect("http:// with an address and a port")
    }

    /// The credentials of the client that this platform knows.
    #[cfg(feature = "genesys")]
    pub fn credentials(&self) -> Credentials {
        Credentials::new(CLIENT_ID, CLIENT_SECRET)
    }

    /// Replaces the script of executions from now on.
    ///
    /// A panic in `script` resets the connection. The simulator panics again when it is
    /// dropped, so that a failed assertion in a script fails the test.
    pub fn script(&self, script: impl Fn(&Call) -> Step + Send + Sync + 'static) {
        self.platform.set_script(Script::new(script));
    }

    /// What reached the execute routes.
    pub fn ledger(&self) -> &Ledger {
        self.platform.ledger()
    }

    /// The largest number of executions at one time, including refused ones.
    pub fn max_concurrent(&self) -> usize {
        self.ledger().max_concurrent()
    }

    /// Delays each execution by this much; zero by default.
    pub fn latency(&self, latency: Duration) {
        self.platform.limits().set_latency(latency);
    }

    /// Answers 429, as the platform does, beyond `per_minute` executions within a minute,
    /// counted from now on, over all tokens. There is no limit by default.
    pub fn rate_limit(&self, per_minute: u32) {
        self.rate_limit_within(per_minute, Duration::from_secs(60));
    }

    /// As [`rate_limit`](Self::rate_limit) within another time than a minute, for faster
    /// tests.
    pub fn rate_limit_within(&self, executions: u32, time: Duration) {
        self.platform.limits().set_rate(executions, time);
    }

    /// Answers 429 beyond `at_once` executions at one time. There is no limit by default.
    pub fn concurrency_limit(&self, at_once: usize) {
        self.platform.limits().set_concurrency(at_once);
    }

    /// Sets the lifetime of new tokens, 24 h by default. `expires_in` has it in whole
    /// seconds, rounded down.
    pub fn token_lifetime(&self, lifetime: Duration) {
        self.platform.tokens().set_lifetime(lifetime);
    }

    /// Throttles the token endpoint beyond `per_minute` requests within a minute, counted
    /// from now on. As the platform does, it answers a 400 `invalid_request` whose text names
    /// a rate limit. There is no limit by default.
    pub fn token_limit(&self, per_minute: u32) {
        self.platform.tokens().set_limit(per_minute);
    }

    /// Answers the next `requests` token requests with `status`.
    ///
    /// # Panics
    ///
    /// If `status` is not 100–999.
    #[track_caller]
    pub fn fail_tokens(&self, requests: usize, status: u16) {
        let status = http::StatusCode::from_u16(status).expect("a status from 100 to 999");
        self.platform.tokens().fail(requests, status);
    }

    /// The number of token requests, with any result.
    pub fn token_requests(&self) -> usize {
        self.platform.tokens().requests()
    }

    /// Waits until `requests` token requests in all have arrived.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn wait_for_token_requests(&self, requests: usize) {
        self.platform.tokens().wait_for(requests).await;
    }

    /// Revokes all tokens issued so far: they get 401 from now on.
    pub fn revoke_tokens(&self) {
        self.platform.tokens().revoke();
    }

    /// Refuses connections from now on, or accepts them again, on the same port.
    ///
    /// When this returns, no request can be sent on an old connection: idle connections are
    /// closed, and a connection with a request closes after its answer.
    ///
    /// # Panics
    ///
    /// If another process took the port between closing and reserving it.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped, the port might stay closed: call it again.
    pub async fn refuse_connections(&self, refuse: bool) {
        self.server
            .refuse(refuse)
            .await
            .expect("the port that was ours a moment ago");
    }

    /// Stops, and returns when all connections are closed. A drop of the simulator does the
    /// same without waiting.
    ///
    /// # Panics
    ///
    /// If the script panicked, as on drop.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped, the simulator stops without a wait.
    pub async fn stop(self) {
        self.server.stop().await;
    }
}

impl Drop for GenesysSimulator {
    fn drop(&mut self) {
        if let Some(message) = self.platform.script_panic() {
            // A second panic would abort the test run and hide the first.
            if !std::thread::panicking() {
                panic!("the simulator's script panicked: {message}");
            }
        }
    }
}

impl fmt::Debug for GenesysSimulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GenesysSimulator")
            .field("base_url", &self.base_url)
            .field("ledger", self.ledger())
            .finish_non_exhaustive()
    }
}
