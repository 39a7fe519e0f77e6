//! The routes of the simulated platform: the checks of a request in their order, and the
//! script's step. It owns no socket.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::header::ALLOW;
use http::{HeaderMap, HeaderValue, Method, Request};
use hyper::body::Incoming;
use serde::de::IgnoredAny;
use sha2::{Digest, Sha256};

use super::limits::Limits;
use super::oauth::Tokens;
use super::wire::{self, BodyError, WireAnswer};
use crate::key::IdempotencyKey;
use crate::outcome::Outcome;
use crate::request::{ActionId, DataActionRequest};
use crate::testing::answers::{self, platform_error};
use crate::testing::ledger::{Arrival, Ledger, lock};
use crate::testing::step::{Script, Step};
use crate::upstream::Call;

const TOKEN_PATH: &str = "/oauth/token";
const EXECUTE_PATHS: [&str; 2] = [
    "/api/v2/integrations/dataactions/",
    "/api/v2/integrations/actions/",
];

/// The platform behind the sockets.
pub(super) struct Platform {
    tokens: Tokens,
    limits: Limits,
    ledger: Ledger,
    script: Mutex<Script>,
    script_panic: Mutex<Option<String>>,
}

/// What a request asks for.
enum Route {
    Token,
    Execute(ActionId),
}

impl Platform {
    pub(super) fn new(client_id: &'static str, client_secret: &'static str) -> Self {
        let executions = AtomicU64::new(0);
        let script = move |call: &Call| {
            let number = executions.fetch_add(1, Ordering::Relaxed) + 1;
            Step::ok(refund(number, call))
        };
        Self {
            tokens: Tokens::new(client_id, client_secret),
            limits: Limits::default(),
            ledger: Ledger::new(),
            script: Mutex::new(Script::new(script)),
            script_panic: Mutex::default(),
        }
    }

    pub(super) fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(super) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    pub(super) fn set_script(&self, script: Script) {
        *lock(&self.script) = script;
    }

    /// The message of the script's first panic.
    pub(super) fn script_panic(&self) -> Option<String> {
        lock(&self.script_panic).clone()
    }

    /// The answer to a request; `None` to reset the connection.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Option<WireAnswer> {
        let (head, body) = request.into_parts();
        let Some(route) = route(head.uri.path()) else {
            return Some(wire::whole(platform_error(
                404,
                "not.found",
                "HTTP 404 Not Found",
            )));
        };
        if head.method != Method::POST {
            let mut outcome =
                platform_error(405, "method.not.allowed", "HTTP 405 Method Not Allowed");
            outcome
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("POST"));
            return Some(wire::whole(outcome));
        }
        let body = match wire::read(body).await {
            Err(BodyError::Broken) => return None,
            body => body.ok(),
        };
        match route {
            Route::Token => {
                let body = body.unwrap_or_default();
                Some(wire::whole(self.tokens.answer(&head.headers, &body)))
            }
            Route::Execute(action) => self.execute(&head.headers, &action, body).await,
        }
    }

    /// One execution; `body` is `None` where it was too large to be read.
    async fn execute(
        &self,
        headers: &HeaderMap,
        action: &ActionId,
        body: Option<Bytes>,
    ) -> Option<WireAnswer> {
        let request = read_request(action, body.clone().unwrap_or_default());
        let key = key_of(
            headers,
            action,
            request.as_ref(),
            body.as_deref().unwrap_or_default(),
        );
        let arrival = self.ledger.arrive(key);
        let refuse = |arrival, outcome| Some(answered(arrival, outcome));
        if body.is_none() {
            let outcome = platform_error(
                413,
                "request.entity.too.large",
                "The request is over the size limit.",
            );
            return refuse(arrival, outcome);
        }
        if !self.tokens.admits(headers) {
            return refuse(arrival, answers::unauthorized());
        }
        let running = match self.limits.admit() {
            Ok(running) => running,
            Err(outcome) => return refuse(arrival, *outcome),
        };
        let Some(request) = request else {
            let outcome = platform_error(400, "bad.request", "The request body is not valid JSON.");
            return refuse(arrival, outcome);
        };
        let step = self.ask_script(&Call::with_key(request, arrival.nth(), key));
        let (delay, step) = step.flatten();
        let delay = delay.saturating_add(self.limits.latency());
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let answer = follow(step, arrival).await;
        drop(running);
        answer
    }

    fn ask_script(&self, call: &Call) -> Step {
        let script = lock(&self.script).clone();
        catch_unwind(AssertUnwindSafe(|| script.step(call))).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            let message = text.unwrap_or("with something that is no text").to_owned();
            lock(&self.script_panic).get_or_insert(message);
            Step::Panic
        })
    }
}

/// Performs the step, after its delays.
async fn follow(step: Step, arrival: Arrival) -> Option<WireAnswer> {
    match step {
        Step::Answer(outcome) => Some(answered(arrival, outcome)),
        Step::RateLimited(wait) => Some(answered(arrival, answers::rate_limited(wait))),
        Step::Cut => {
            arrival.unanswered("answer cut short");
            Some(wire::cut())
        }
        Step::Silent => {
            // `arrival` is held here: the call is under way until the client
            // closes its connection.
            std::future::pending::<()>().await;
            drop(arrival);
            None
        }
        Step::Reset | Step::Refused | Step::Panic => {
            arrival.unanswered("connection reset");
            None
        }
        Step::After(..) => unreachable!("delays are flattened before"),
    }
}

fn answered(arrival: Arrival, outcome: Outcome) -> WireAnswer {
    arrival.answered(&outcome);
    wire::whole(outcome)
}

fn route(path: &str) -> Option<Route> {
    if path == TOKEN_PATH {
        return Some(Route::Token);
    }
    let rest = EXECUTE_PATHS
        .iter()
        .find_map(|prefix| path.strip_prefix(prefix))?;
    let segment = rest.strip_suffix("/execute")?;
    if segment.is_empty() || segment.contains('/') {
        return None;
    }
    wire::percent_decode(segment)?
        .parse()
        .ok()
        .map(Route::Execute)
}

/// The request that this body asks for; `None` where it is no JSON.
fn read_request(action: &ActionId, body: Bytes) -> Option<DataActionRequest> {
    // The platform's reading first, apart from the crate's own, stricter one.
    serde_json::from_slice::<IgnoredAny>(&body).ok()?;
    DataActionRequest::new(action.as_str(), body).ok()
}

/// The key for the ledger: the header's, else the request's own, else a digest of the bytes.
fn key_of(
    headers: &HeaderMap,
    action: &ActionId,
    request: Option<&DataActionRequest>,
    body: &[u8],
) -> IdempotencyKey {
    let header = headers
        .get("idempotency-key")
        .and_then(|value| value.to_str().ok());
    if let Some(key) = header.and_then(|text| text.parse().ok()) {
        return key;
    }
    request.map_or_else(
        || {
            let bytes = Sha256::new()
                .chain_update(action.as_str())
                .chain_update(":");
            IdempotencyKey::from_bytes(bytes.chain_update(body).finalize().into())
        },
        IdempotencyKey::of,
    )
}

/// The answer of a refund action: a new number for each execution, which distinguishes two
/// answers to one key, and the input.
fn refund(number: u64, call: &Call) -> Vec<u8> {
    let action = serde_json::Value::from(call.request().action_id().as_str());
    let mut body = format!(r#"{{"refund":"R-{number}","action":{action},"input":"#).into_bytes();
    // The bytes themselves: read and written again, numbers might change.
    body.extend_from_slice(call.request().payload());
    body.push(b'}');
    body
}
