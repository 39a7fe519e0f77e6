//! Genesys Cloud on loopback: a real HTTP/1.1 server with the platform's token
//! endpoint, execute routes, limits and ways to fail. It counts and answers; it
//! knows nothing of the engine, and must never share code with its client.

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

/// The id of the one client that the simulator knows.
const CLIENT_ID: &str = "simulated-client";
/// Its secret; spelled so that a leak into a log is easily found.
const CLIENT_SECRET: &str = "simulated-client-secret";

/// A Genesys Cloud of one's own on `127.0.0.1`. Dropped, it is gone, port and
/// connections, as soon as the runtime has ended its tasks; [`stop`](Self::stop)
/// waits for that.
///
/// - `POST /oauth/token` knows one client ([`client_id`](Self::client_id),
///   [`client_secret`](Self::client_secret)), by HTTP Basic or in the body.
/// - `POST /api/v2/integrations/dataactions/{id}/execute` and
///   `…/integrations/actions/{id}/execute` do what the script says. Without a
///   script each answers 200 with a refund number of its own and the input.
/// - Everything else is 404, in the platform's error shape. Every answer
///   carries its own `ININ-Correlation-Id`.
///
/// What the [`Step`]s mean on a real socket:
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
/// A server cannot refuse one call after it took the connection, so `Refused`
/// is no proof here and counts as executed, as every reset does; for refused
/// connections see [`refuse_connections`](Self::refuse_connections).
///
/// The script sees each request as the platform does: [`Call::key`] is the
/// `Idempotency-Key` header (the request's own key where there is none, since
/// the platform ignores that header), [`Call::attempt`] counts the arrivals of
/// that key, from 1. Bodies are read up to 16 MiB, connections served up to
/// 1,024 at a time; the others wait.
///
/// It must not be used under tokio's paused time; [`testing`](crate::testing)
/// tells why.
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
    /// Outside a tokio runtime with I/O and time, and where the machine lets no
    /// port be opened on loopback.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it never waits.
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

    /// Replaces what happens to executions from now on.
    ///
    /// A panic in `script` resets the connection, and the simulator repeats it
    /// when it is dropped, so that a failed assertion in a script fails its
    /// test.
    pub fn script(&self, script: impl Fn(&Call) -> Step + Send + Sync + 'static) {
        self.platform.set_script(Script::new(script));
    }

    /// What reached the execute routes.
    pub fn ledger(&self) -> &Ledger {
        self.platform.ledger()
    }

    /// The largest number of executions that were here at one time, those that
    /// were then refused included.
    pub fn max_concurrent(&self) -> usize {
        self.ledger().max_concurrent()
    }

    /// Lets every execution take this much longer; none by default.
    pub fn latency(&self, latency: Duration) {
        self.platform.limits().set_latency(latency);
    }

    /// Answers 429, as the platform does, to what goes beyond `per_minute`
    /// executions within a minute, counted from now on, over all tokens. There
    /// is no limit by default.
    pub fn rate_limit(&self, per_minute: u32) {
        self.rate_limit_within(per_minute, Duration::from_secs(60));
    }

    /// The same within another time than a minute, so that a test need not wait
    /// for one.
    pub fn rate_limit_within(&self, executions: u32, time: Duration) {
        self.platform.limits().set_rate(executions, time);
    }

    /// Answers 429 to what goes beyond `at_once` executions at one time. There
    /// is no limit by default.
    pub fn concurrency_limit(&self, at_once: usize) {
        self.platform.limits().set_concurrency(at_once);
    }

    /// How long tokens issued from now on are valid, 24 h by default; their
    /// `expires_in` says it in whole seconds, rounded down.
    pub fn token_lifetime(&self, lifetime: Duration) {
        self.platform.tokens().set_lifetime(lifetime);
    }

    /// Throttles the token endpoint beyond `per_minute` requests within a
    /// minute, counted from now on, as the platform does it: with a 400
    /// `invalid_request` that speaks of a rate limit. There is no limit by
    /// default.
    pub fn token_limit(&self, per_minute: u32) {
        self.platform.tokens().set_limit(per_minute);
    }

    /// Answers the next `requests` token requests with `status`.
    ///
    /// # Panics
    ///
    /// Where `status` is not 100–999.
    #[track_caller]
    pub fn fail_tokens(&self, requests: usize, status: u16) {
        let status = http::StatusCode::from_u16(status).expect("a status from 100 to 999");
        self.platform.tokens().fail(requests, status);
    }

    /// How many token requests arrived, whatever came of them.
    pub fn token_requests(&self) -> usize {
        self.platform.tokens().requests()
    }

    /// Waits until `requests` token requests in all have arrived.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when this is dropped.
    pub async fn wait_for_token_requests(&self, requests: usize) {
        self.platform.tokens().wait_for(requests).await;
    }

    /// Ends every token issued so far: they get 401 from now on.
    pub fn revoke_tokens(&self) {
        self.platform.tokens().revoke();
    }

    /// Refuses connections from now on, or takes them again, on the same port.
    ///
    /// When this returns, no connection is left on which a request could still
    /// be sent: idle ones are closed, those with a request under way as soon as
    /// it is answered.
    ///
    /// # Panics
    ///
    /// Where another process took the port in the moment between closing and
    /// reserving it.
    ///
    /// # Cancel safety
    ///
    /// Dropped halfway, it may leave the port closed: call it again.
    pub async fn refuse_connections(&self, refuse: bool) {
        self.server
            .refuse(refuse)
            .await
            .expect("the port that was ours a moment ago");
    }

    /// Stops, and returns when every connection is closed. Dropping the
    /// simulator does the same without waiting.
    ///
    /// # Panics
    ///
    /// Where the script panicked, as on drop.
    ///
    /// # Cancel safety
    ///
    /// Dropped halfway, the simulator stops all the same; nobody waits for it.
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
