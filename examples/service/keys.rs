//! What operators may do with the records of keys, behind a token: show a record, list the
//! indeterminate keys, resolve a key, and forget an outcome. It shows states and sizes, never
//! a body: answers contain customer records.

use std::time::UNIX_EPOCH;

use axum::body::Bytes;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use genesys_once::engine::Forgotten;
use genesys_once::outcome::StoredBody;
use genesys_once::record::{Phase, RecordState, Version};
use genesys_once::{Engine, IdempotencyKey, Outcome, Resolution};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::app::App;
use crate::bodies;
use crate::problem::Problem;
use crate::token::Token;

/// How many keys a list has by default, and at most.
const LIST: usize = 100;
const MAX_LIST: usize = 1_000;

/// The routes below `/keys`, and the route of the cooldown. Without a token the service
/// does not have them.
pub fn routes(token: Token, app: &App) -> Router<App> {
    let guard =
        from_fn(
            move |request: Request, next: Next| async move { admit(&token, request, next).await },
        );
    Router::new()
        .route("/keys", get(list))
        .route("/keys/{key}", get(show).delete(forget))
        .route("/keys/{key}/resolve", post(resolve))
        .route("/cooldown", delete(end_cooldown))
        .route_layer(from_fn_with_state(app.bodies.clone(), bodies::collect))
        .route_layer(guard)
}

async fn admit(token: &Token, request: Request, next: Next) -> Result<Response, Problem> {
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

/// The keys that an operator must resolve.
async fn list(
    State(engine): State<Engine>,
    query: Result<Query<ListOf>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Query(query) = query.map_err(|rejection| invalid(rejection.body_text()))?;
    if query.state.as_deref() != Some("indeterminate") {
        return Err(invalid("only ?state=indeterminate can be listed"));
    }
    let limit = query.limit.unwrap_or(LIST);
    if !(1..=MAX_LIST).contains(&limit) {
        return Err(invalid(format!("limit is 1 to {MAX_LIST}")));
    }
    // One key more than is shown, to know whether the list is complete.
    let mut found = engine.indeterminate(limit + 1).await?;
    let more = found.keys.len() > limit || found.next.is_some();
    found.keys.truncate(limit);
    let keys: Vec<_> = found
        .keys
        .iter()
        .map(|(key, state)| document(key, state))
        .collect();
    let unreadable: Vec<_> = found
        .unreadable
        .iter()
        .map(|record| json!({ "key": record.key(), "reason": record.reason() }))
        .collect();
    Ok(Json(json!({
        "keys": keys,
        "more": more,
        "unreadable": unreadable,
        // The time since the walk that found them.
        "age_seconds": found.age.as_secs_f64(),
    })))
}

async fn show(State(engine): State<Engine>, key: KeyPath) -> Result<impl IntoResponse, Problem> {
    let key = read(key)?;
    match engine.inspect(&key).await? {
        Some(state) => {
            let tag = format!("\"{}\"", state.version());
            Ok(([(header::ETAG, tag)], Json(document(&key, &state))))
        }
        None => Err(absent(key)),
    }
}

/// Removes a recorded outcome: the next request executes again. With `If-Match`, it removes
/// only that version, so that a repeat of this request removes no later outcome.
async fn forget(
    State(engine): State<Engine>,
    key: KeyPath,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let key = read(key)?;
    if headers.contains_key(header::IF_MATCH) {
        let version = seen_version(&headers).map_err(|problem| problem.of_key(key))?;
        let state = engine.inspect(&key).await?.ok_or_else(|| absent(key))?;
        if state.version() != version {
            let detail = "the record has changed since that version";
            return Err(Problem::new("changed", detail).of_key(key));
        }
    }
    match engine.forget(&key).await? {
        removed @ (Forgotten::Outcome | Forgotten::Unreadable) => {
            tracing::warn!(%key, ?removed, "an operator made it forgotten");
            Ok(StatusCode::NO_CONTENT)
        }
        _ => Err(absent(key)),
    }
}

/// Ends all cooldowns: for an operator with better information than the time that the platform
/// named.
async fn end_cooldown(State(engine): State<Engine>) -> StatusCode {
    engine.end_cooldown();
    StatusCode::NO_CONTENT
}

/// What an operator found out: `{"resolution": "not_applied"}`, or `{"resolution":
/// "applied", "status": 200, "body": "…"}` with the answer to replay, its body as text.
/// Both accept `"by"`, the source of the finding.
#[derive(Deserialize)]
#[serde(tag = "resolution", rename_all = "snake_case", deny_unknown_fields)]
pub enum Found {
    NotApplied {
        by: Option<String>,
    },
    Applied {
        status: u16,
        #[serde(default)]
        body: String,
        by: Option<String>,
    },
}

impl Found {
    fn into_resolution(self) -> Result<(Resolution, Option<String>), Problem> {
        let (status, body, by) = match self {
            Self::NotApplied { by } => return Ok((Resolution::not_applied(), by)),
            Self::Applied { status, body, by } => (status, body, by),
        };
        // A status that no answer can have is a mistake of the operator.
        let status = StatusCode::from_u16(status).ok();
        let status = status
            .filter(|status| (200..600).contains(&status.as_u16()))
            .ok_or_else(|| invalid("status is 200 to 599"))?;
        if !body.is_empty() && serde_json::from_str::<IgnoredAny>(&body).is_err() {
            return Err(invalid("body is not JSON"));
        }
        let mut headers = HeaderMap::new();
        let json = HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, json);
        let outcome = Outcome::new(status, headers, body);
        Ok((Resolution::applied(outcome), by))
    }
}

async fn resolve(
    State(engine): State<Engine>,
    key: KeyPath,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, Problem> {
    let key = read(key)?;
    let version = seen_version(&headers).map_err(|problem| problem.of_key(key))?;
    let found = serde_json::from_slice(&body).map_err(|error| invalid(error.to_string()))?;
    resolve_key(&engine, key, version, found).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Resolves a key by what an operator found out, and logs the resolution.
pub async fn resolve_key(
    engine: &Engine,
    key: IdempotencyKey,
    version: Version,
    found: Found,
) -> Result<(), Problem> {
    let (mut resolution, by) = found.into_resolution()?;
    if let Some(by) = &by {
        resolution = resolution.by(by);
    }
    let what = match resolution.outcome() {
        Some(_) => "applied",
        None => "not applied",
    };
    engine.resolve(&key, version, resolution).await?;
    tracing::warn!(%key, what, by, "an operator resolved it");
    Ok(())
}

/// The version that the operator saw, from `If-Match`: a quoted entity tag (RFC 9110,
/// section 13.1.1), which is the `ETag` and the `version` of a shown key.
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

fn document(key: &IdempotencyKey, state: &RecordState) -> Value {
    let mut document = match state {
        RecordState::Locked {
            phase,
            lease_left,
            about,
            ..
        } => json!({
            "state": "locked",
            "phase": if *phase == Phase::Claimed { "claimed" } else { "dispatched" },
            "lease_left_seconds": lease_left.as_secs_f64(),
            "request": **about,
        }),
        RecordState::Cached { stored, left, .. } => json!({
            "state": "cached",
            "status": stored.outcome.status().as_u16(),
            "body_bytes": stored.outcome.body().len(),
            "whole": stored.body == StoredBody::Full,
            "left_seconds": left.as_secs(),
        }),
        RecordState::Indeterminate {
            since,
            cause,
            age,
            attempts,
            correlation_id,
            about,
            ..
        } => json!({
            "state": "indeterminate",
            "since_unix": since.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            "age_seconds": age.map(|age| age.as_secs()),
            "cause": **cause,
            "attempts": attempts.count,
            "correlation_id": correlation_id.as_deref(),
            "request": **about,
        }),
        RecordState::Released { .. } => json!({ "state": "released" }),
        _ => json!({ "state": "unknown" }),
    };
    document["key"] = json!(key);
    document["version"] = json!(state.version());
    document
}

type KeyPath = Result<Path<String>, PathRejection>;

fn read(path: KeyPath) -> Result<IdempotencyKey, Problem> {
    let Path(text) = path.map_err(|rejection| invalid(rejection.body_text()))?;
    text.parse()
        .map_err(|error: genesys_once::record::ParseKeyError| invalid(error.to_string()))
}

pub fn invalid(detail: impl Into<String>) -> Problem {
    Problem::new("invalid_request", detail)
}

fn absent(key: IdempotencyKey) -> Problem {
    Problem::new("not_found", "the store has no such record").of_key(key)
}
