//! What operators may do with the records of keys, behind a token: look, list
//! what is indeterminate, resolve it, and forget an outcome. It shows states and
//! sizes, never a body: answers hold customer records.

use std::time::UNIX_EPOCH;

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use genesys_once::record::{Phase, Version};
use genesys_once::{Engine, Forgotten, IdempotencyKey, Kept, Outcome, RecordState, Resolution};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::problem::Problem;
use crate::routes::unreadable;

/// How many keys a list has where nobody says otherwise, and at most.
const LIST: usize = 100;
const LONGEST_LIST: usize = 1_000;

/// What an operator shows. Only its digest is kept, so that comparing takes the
/// same time whatever was shown, of whatever length.
#[derive(Clone)]
pub struct AdminToken([u8; 32]);

impl AdminToken {
    pub fn new(token: &str) -> Self {
        Self(Sha256::digest(token).into())
    }

    fn admits(&self, headers: &HeaderMap) -> bool {
        let shown = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map_or("", |(_, token)| token.trim());
        let shown: [u8; 32] = Sha256::digest(shown).into();
        bool::from(self.0.ct_eq(&shown))
    }
}

/// The routes below `/keys`; without a token there are none.
pub fn routes(token: AdminToken) -> Router<Engine> {
    let guard = from_fn(move |request: Request, next: Next| {
        let token = token.clone();
        async move { admit(&token, request, next).await }
    });
    Router::new()
        .route("/keys", get(list))
        .route("/keys/{key}", get(show).delete(forget))
        .route("/keys/{key}/resolve", post(resolve))
        .route_layer(guard)
}

async fn admit(token: &AdminToken, request: Request, next: Next) -> Result<Response, Problem> {
    if token.admits(request.headers()) {
        Ok(next.run(request).await)
    } else {
        let detail = "send the admin token as Authorization: Bearer";
        Err(Problem::new("unauthenticated", detail))
    }
}

#[derive(Deserialize)]
struct ListOf {
    state: Option<String>,
    limit: Option<usize>,
}

/// The keys that wait for somebody to find out what became of them.
async fn list(
    State(engine): State<Engine>,
    query: Result<Query<ListOf>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Query(query) = query.map_err(|rejection| invalid(rejection.body_text()))?;
    if query.state.as_deref() != Some("indeterminate") {
        return Err(invalid("only ?state=indeterminate can be listed"));
    }
    let limit = query.limit.unwrap_or(LIST);
    if !(1..=LONGEST_LIST).contains(&limit) {
        return Err(invalid(format!("limit is 1 to {LONGEST_LIST}")));
    }
    // One more than is shown, to say whether that is all.
    let mut found = engine.indeterminate(limit + 1).await?;
    let more = found.keys.len() > limit || found.next.is_some();
    found.keys.truncate(limit);
    let keys: Vec<_> = found
        .keys
        .iter()
        .map(|(key, state)| told(key, state))
        .collect();
    Ok(Json(json!({ "keys": keys, "more": more })))
}

async fn show(State(engine): State<Engine>, key: KeyPath) -> Result<impl IntoResponse, Problem> {
    let key = read(key)?;
    match engine.inspect(&key).await? {
        Some(state) => {
            let tag = format!("\"{}\"", state.version());
            Ok(([(header::ETAG, tag)], Json(told(&key, &state))))
        }
        None => Err(absent(key)),
    }
}

/// Removes a recorded outcome: the next request executes it again.
async fn forget(State(engine): State<Engine>, key: KeyPath) -> Result<StatusCode, Problem> {
    let key = read(key)?;
    match engine.forget(&key).await? {
        removed @ (Forgotten::Outcome | Forgotten::Unreadable) => {
            tracing::warn!(%key, ?removed, "an operator made it forgotten");
            Ok(StatusCode::NO_CONTENT)
        }
        _ => Err(absent(key)),
    }
}

/// What an operator found out: `{"resolution": "not_applied"}`, or
/// `{"resolution": "applied", "status": 200, "body": "…"}` with the answer to
/// replay, its body as text.
#[derive(Deserialize)]
#[serde(tag = "resolution", rename_all = "snake_case", deny_unknown_fields)]
enum Found {
    /// With braces: of a variant without any, serde ignores all other members.
    NotApplied {},
    Applied {
        status: u16,
        #[serde(default)]
        body: String,
    },
}

async fn resolve(
    State(engine): State<Engine>,
    key: KeyPath,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<StatusCode, Problem> {
    let key = read(key)?;
    let version = seen_version(&headers).map_err(|problem| problem.of_key(key))?;
    let body = body.map_err(unreadable)?;
    let found = serde_json::from_slice(&body).map_err(|error| invalid(error.to_string()))?;
    let resolution = match found {
        Found::NotApplied {} => Resolution::not_applied(),
        Found::Applied { status, body } => {
            // A status that no answer can have is a slip of the operator's.
            let status = StatusCode::from_u16(status).ok();
            let status = status
                .filter(|status| (200..600).contains(&status.as_u16()))
                .ok_or_else(|| invalid("status is 200 to 599"))?;
            let mut headers = HeaderMap::new();
            let json = HeaderValue::from_static("application/json");
            headers.insert(header::CONTENT_TYPE, json);
            Resolution::applied(Outcome::new(status, headers, body))
        }
    };
    let what = match resolution.outcome() {
        Some(_) => "applied",
        None => "not applied",
    };
    engine.resolve(&key, version, resolution).await?;
    tracing::warn!(%key, what, "an operator resolved it");
    Ok(StatusCode::NO_CONTENT)
}

/// The version that the operator saw, from `If-Match`: a quoted entity tag (RFC
/// 9110, section 13.1.1), which is the `ETag` and the `version` of a shown key.
fn seen_version(headers: &HeaderMap) -> Result<Version, Problem> {
    let missing = || {
        let detail = "send the version of the key that was shown as If-Match: \"VERSION\"";
        Problem::new("version_required", detail)
    };
    let tag = headers.get(header::IF_MATCH).ok_or_else(missing)?;
    let tag = tag.to_str().ok().map(str::trim).ok_or_else(missing)?;
    let tag = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
    tag.and_then(|tag| tag.parse().ok()).ok_or_else(missing)
}

fn told(key: &IdempotencyKey, state: &RecordState) -> Value {
    let mut told = match state {
        RecordState::Locked {
            phase, lease_left, ..
        } => json!({
            "state": "locked",
            "phase": if *phase == Phase::Claimed { "claimed" } else { "dispatched" },
            "lease_left_seconds": lease_left.as_secs_f64(),
        }),
        RecordState::Cached {
            outcome,
            left,
            kept,
            ..
        } => json!({
            "state": "cached",
            "status": outcome.status_code.as_u16(),
            "body_bytes": outcome.body.len(),
            "whole": *kept == Kept::Whole,
            "left_seconds": left.as_secs(),
        }),
        RecordState::Indeterminate {
            since, cause, age, ..
        } => json!({
            "state": "indeterminate",
            "since_unix": since.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            "age_seconds": age.map(|age| age.as_secs()),
            "cause": **cause,
        }),
        RecordState::Released { .. } => json!({ "state": "released" }),
        _ => json!({ "state": "unknown" }),
    };
    told["key"] = json!(key);
    told["version"] = json!(state.version());
    told
}

type KeyPath = Result<Path<String>, PathRejection>;

fn read(path: KeyPath) -> Result<IdempotencyKey, Problem> {
    let Path(text) = path.map_err(|rejection| invalid(rejection.body_text()))?;
    text.parse()
        .map_err(|error: genesys_once::ParseKeyError| invalid(error.to_string()))
}

fn invalid(detail: impl Into<String>) -> Problem {
    Problem::new("invalid_request", detail)
}

fn absent(key: IdempotencyKey) -> Problem {
    Problem::new("not_found", "the store has no such record").of_key(key)
}
