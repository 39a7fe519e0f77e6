//! The token endpoint: client credentials by HTTP Basic or in the body, tokens
//! that expire or are revoked, and throttling in the platform's own way.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CACHE_CONTROL, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::json;
use tokio::sync::watch;

use super::limits::Window;
use super::wire;
use crate::outcome::Outcome;
use crate::testing::answers;
use crate::testing::ledger::lock;

/// The platform's default lifetime of a token.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// The largest number of live tokens; beyond it the oldest is removed.
const MAX_TOKENS: usize = 1024;

pub(super) struct Tokens {
    client_id: &'static str,
    client_secret: &'static str,
    requests: watch::Sender<usize>,
    state: Mutex<State>,
}

struct State {
    lifetime: Duration,
    limit: Window,
    failing: usize,
    failure: StatusCode,
    /// Newest first: nearly every check asks for the newest.
    live: VecDeque<(String, Instant)>,
}

impl Tokens {
    pub(super) fn new(client_id: &'static str, client_secret: &'static str) -> Self {
        let state = State {
            lifetime: DAY,
            limit: Window::default(),
            failing: 0,
            failure: StatusCode::SERVICE_UNAVAILABLE,
            live: VecDeque::new(),
        };
        Self {
            client_id,
            client_secret,
            requests: watch::Sender::new(0),
            state: Mutex::new(state),
        }
    }

    pub(super) fn set_lifetime(&self, lifetime: Duration) {
        lock(&self.state).lifetime = lifetime;
    }

    pub(super) fn set_limit(&self, per_minute: u32) {
        lock(&self.state).limit = Window::of(per_minute);
    }

    pub(super) fn fail(&self, requests: usize, status: StatusCode) {
        let mut state = lock(&self.state);
        (state.failing, state.failure) = (requests, status);
    }

    pub(super) fn revoke(&self) {
        lock(&self.state).live.clear();
    }

    pub(super) fn requests(&self) -> usize {
        *self.requests.borrow()
    }

    pub(super) async fn wait_for(&self, requests: usize) {
        let mut arrived = self.requests.subscribe();
        // The sender lives in `self`, so the channel cannot be closed.
        let _ = arrived.wait_for(|count| *count >= requests).await;
    }

    /// Whether these headers carry a token that is valid now.
    pub(super) fn admits(&self, headers: &HeaderMap) -> bool {
        let Some(token) = credentials(headers, "bearer") else {
            return false;
        };
        let now = Instant::now();
        let state = lock(&self.state);
        state
            .live
            .iter()
            .any(|(live, end)| live == token && *end > now)
    }

    /// Answers one token request.
    pub(super) fn answer(&self, headers: &HeaderMap, body: &[u8]) -> Outcome {
        self.requests.send_modify(|count| *count += 1);
        let mut state = lock(&self.state);
        if state.failing > 0 {
            state.failing -= 1;
            return failure(
                state.failure.as_u16(),
                "server_error",
                "the simulator is set to fail",
            );
        }
        if let Err(wait) = state.limit.admit(Instant::now()) {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            let words = format!("rate limit exceeded; retry the request in [{seconds}] seconds");
            return failure(400, "invalid_request", &words);
        }
        let Some(form) = wire::form(body) else {
            return failure(400, "invalid_request", "the body is not a form");
        };
        let field = |name: &str| {
            form.iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| &**value)
        };
        let basic = credentials(headers, "basic");
        let known = match basic {
            Some(encoded) => self.knows_basic(encoded),
            None => {
                field("client_id") == Some(self.client_id)
                    && field("client_secret") == Some(self.client_secret)
            }
        };
        if !known {
            // RFC 6749, section 5.2: 401 and a challenge for credentials in the header.
            let status = if basic.is_some() { 401 } else { 400 };
            let mut outcome = failure(status, "invalid_client", "client not found or secret wrong");
            if status == 401 {
                let challenge = HeaderValue::from_static("Basic realm=\"oauth\"");
                outcome.headers_mut().insert(WWW_AUTHENTICATE, challenge);
            }
            return outcome;
        }
        match field("grant_type") {
            Some("client_credentials") => state.issue(),
            Some(_) => failure(
                400,
                "unsupported_grant_type",
                "only client_credentials is known",
            ),
            None => failure(400, "invalid_request", "grant_type is missing"),
        }
    }

    /// RFC 6749, section 2.3.1 requires id and secret to be form-encoded before they are
    /// joined; many clients do not encode them. Both are accepted.
    fn knows_basic(&self, encoded: &str) -> bool {
        let decoded = STANDARD
            .decode(encoded)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok());
        let Some((id, secret)) = decoded.as_deref().and_then(|pair| pair.split_once(':')) else {
            return false;
        };
        let is = |text: &str, known: &str| {
            text == known || wire::form_decode(text).as_deref() == Some(known)
        };
        is(id, self.client_id) && is(secret, self.client_secret)
    }
}

impl State {
    fn issue(&mut self) -> Outcome {
        let token = format!("simulated-token-{:032x}", fastrand::u128(..));
        let now = Instant::now();
        self.live.retain(|(_, end)| *end > now);
        self.live.truncate(MAX_TOKENS - 1);
        self.live.push_front((token.clone(), now + self.lifetime));
        let body = json!({
            "access_token": token,
            "token_type": "bearer",
            "expires_in": self.lifetime.as_secs(),
        });
        let mut outcome = answers::json(200, body.to_string());
        outcome
            .headers_mut()
            .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        outcome
    }
}

/// The value after `scheme` in the `Authorization` header.
fn credentials<'a>(headers: &'a HeaderMap, scheme: &str) -> Option<&'a str> {
    let (found, rest) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    found.eq_ignore_ascii_case(scheme).then(|| rest.trim())
}

/// An OAuth error, with the description under both of the platform's names.
fn failure(status: u16, error: &str, description: &str) -> Outcome {
    let body =
        json!({ "error": error, "description": description, "error_description": description });
    let mut outcome = answers::json(status, body.to_string());
    if status == 429 || status == 503 {
        outcome
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    outcome
}
