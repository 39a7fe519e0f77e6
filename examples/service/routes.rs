//! What callers may ask for: an execution, and how the service is. It turns HTTP
//! into requests and replies into HTTP, and decides nothing about either.

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use genesys_once::{DataActionRequest, Engine, IdempotencyKey, Kept, Reply, Served};
use serde_json::{Value, json};

use crate::keys;
use crate::problem::{Problem, TABLE};
use crate::settings::Settings;

/// The key as the caller calls it (draft-ietf-httpapi-idempotency-key-header):
/// with it, the payload is no part of the key any more, and another payload
/// under it is a 422. Without it, equal payloads are one request.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Makes a deliberate repeat of the same request another one.
const IDEMPOTENCY_SCOPE: HeaderName = HeaderName::from_static("idempotency-scope");
/// `true` on every answer that another call got first.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Where the answer came from: `upstream`, `joined`, `memory`, `store`.
const SERVED: HeaderName = HeaderName::from_static("genesys-once-served");
/// The key's 64 hex digits, under which operators find its record.
const KEY: HeaderName = HeaderName::from_static("genesys-once-key");
/// `false` where the answer is not kept, so that asking again executes again.
const RECORDED: HeaderName = HeaderName::from_static("genesys-once-recorded");
/// `omitted` on a replay whose record holds the status only.
const BODY: HeaderName = HeaderName::from_static("genesys-once-body");
/// What the platform's support asks for.
const CORRELATION_ID: HeaderName = HeaderName::from_static("inin-correlation-id");

/// The whole service, with `more` routes besides.
pub fn service(engine: Engine, settings: &Settings, more: Router<Engine>) -> Router {
    let mut router = Router::new()
        .route("/actions/{id}/execute", post(execute))
        .route("/healthz", get(healthz))
        .route("/problems/{code}", get(explain))
        .merge(more);
    if let Some(token) = &settings.admin {
        router = router.merge(keys::routes(token.clone()));
    }
    router
        .fallback(async || Problem::new("not_found", "no such route"))
        .method_not_allowed_fallback(async || {
            Problem::new("method_not_allowed", "see the Allow header")
        })
        .layer(DefaultBodyLimit::max(settings.body_limit))
        .with_state(engine)
}

/// Executes the action `id` with the body as its payload, once per key. The
/// answer is the platform's own, whatever its status.
async fn execute(
    State(engine): State<Engine>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let Path(id) =
        id.map_err(|rejection| Problem::new("invalid_request", rejection.body_text()))?;
    let request = request(&id, &headers, body.map_err(unreadable)?)?;
    let key = IdempotencyKey::of(&request);
    match engine.execute(request).await {
        Ok(reply) => Ok(respond(&reply)),
        Err(error) => {
            tracing::warn!(%key, code = error.code(), "{}", crate::settings::line(&error));
            Err(error.into())
        }
    }
}

fn request(id: &str, headers: &HeaderMap, body: Bytes) -> Result<DataActionRequest, Problem> {
    if !is_json(headers) {
        // Browsers send any other type across sites without asking first.
        return Err(Problem::new(
            "unsupported_media_type",
            "send the payload with Content-Type: application/json",
        ));
    }
    let mut request = DataActionRequest::new(id, body)?;
    if let Some(key) = text(headers, &IDEMPOTENCY_KEY)? {
        request = request.key(unquoted(&IDEMPOTENCY_KEY, key)?)?;
    }
    if let Some(scope) = text(headers, &IDEMPOTENCY_SCOPE)? {
        request = request.scope(unquoted(&IDEMPOTENCY_SCOPE, scope)?)?;
    }
    Ok(request)
}

fn respond(reply: &Reply) -> Response {
    let mut response = (reply.status(), reply.body().clone()).into_response();
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_TYPE);
    for name in [header::CONTENT_TYPE, CORRELATION_ID] {
        if let Some(value) = reply.headers().get(&name) {
            headers.insert(name, value.clone());
        }
    }
    let served = HeaderValue::from_static(reply.served().as_str());
    headers.insert(SERVED, served);
    if let Ok(key) = HeaderValue::from_str(&reply.key().to_string()) {
        headers.insert(KEY, key);
    }
    if reply.served() != Served::Upstream {
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
    }
    if !reply.recorded() {
        headers.insert(RECORDED, HeaderValue::from_static("false"));
    }
    if reply.kept() != Kept::Whole {
        headers.insert(BODY, HeaderValue::from_static("omitted"));
    }
    response
}

/// How the service is: 200, or 503 while the store does not answer. It asks the
/// store, since an idle engine would not notice. No token is no illness: the
/// first execution fetches one.
async fn healthz(State(engine): State<Engine>) -> (StatusCode, Json<Value>) {
    let nobody = IdempotencyKey::from_bytes([0; 32]);
    let store_up = engine.inspect(&nobody).await.is_ok();
    let stats = engine.stats();
    let status = match store_up {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let state = |up| if up { "up" } else { "down" };
    let document = json!({
        "status": state(store_up),
        "store": state(store_up),
        "token": {
            "state": if stats.token_valid_for.is_some() { "valid" } else { "none" },
            "valid_for_seconds": stats.token_valid_for.map(|left| left.as_secs()),
            "fetches": stats.token_fetches,
        },
        "executions": stats.executions,
        "in_flight": stats.in_flight,
        "waiting": stats.waiting,
        "held_for_seconds": stats.held_for.as_secs_f64(),
    });
    (status, Json(document))
}

/// What stands behind a problem's `type`.
async fn explain(Path(code): Path<String>) -> Result<Json<Value>, Problem> {
    let row = TABLE.iter().find(|(known, ..)| *known == code);
    let (code, status, title) =
        row.ok_or_else(|| Problem::new("not_found", "no problem has this code"))?;
    Ok(Json(
        json!({ "code": code, "status": status, "title": title }),
    ))
}

/// A body that did not arrive whole.
pub fn unreadable(rejection: BytesRejection) -> Problem {
    let code = match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => "payload_too_large",
        _ => "invalid_request",
    };
    Problem::new(code, rejection.body_text())
}

/// `application/json`, or a type that says it is JSON underneath (RFC 6839).
fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return false;
    };
    let value = value.to_str().unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    let essence = essence.to_ascii_lowercase();
    essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// A header that is there once, as text.
fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(refused(name, "is there twice"));
    }
    let text = value
        .to_str()
        .map_err(|_| refused(name, "is not ASCII text"))?;
    Ok(Some(text.trim()))
}

/// The draft writes the key as a structured string, `"…"`; many clients leave
/// the quotation marks away. Both are the same key.
fn unquoted(name: &HeaderName, text: &str) -> Result<String, Problem> {
    let Some(quoted) = text.strip_prefix('"') else {
        return Ok(text.to_owned());
    };
    // RFC 8941, section 4.2.5.
    let mut plain = String::with_capacity(quoted.len());
    let mut rest = quoted.chars();
    loop {
        match (rest.next(), rest.as_str()) {
            (Some('"'), "") => return Ok(plain),
            (Some('\\'), after) if after.starts_with(['"', '\\']) => plain.extend(rest.next()),
            (Some('"' | '\\') | None, _) => {
                return Err(refused(name, "is no string in quotation marks"));
            }
            (Some(other), _) => plain.push(other),
        }
    }
}

fn refused(name: &HeaderName, what: &str) -> Problem {
    let detail = format!("the header {name} {what}");
    Problem::new("invalid_request", detail)
}
