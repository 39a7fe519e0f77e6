//! What callers may request: an execution. It turns HTTP into requests and replies into HTTP,
//! and decides nothing about either.

use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use genesys_once::outcome::StoredBody;
use genesys_once::{DataActionRequest, IdempotencyKey, Reply, Served};
use serde_json::{Value, json};
use sfv::{BareItem, Item, Parser};

use crate::app::App;
use crate::callers::{Caller, authenticate};
use crate::problem::{Problem, TITLES};
use crate::{bodies, health, keys, operators};

/// The caller's own name for the request (draft-ietf-httpapi-idempotency-key-header). With
/// it, the payload is no part of the key, and another payload under the same key is a 422.
/// Without it, equal payloads are one request.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Makes a deliberate repeat another request, within the caller's name.
const IDEMPOTENCY_SCOPE: HeaderName = HeaderName::from_static("idempotency-scope");
/// A description of the request for operators, such as `refund order 42`.
const LABEL: HeaderName = HeaderName::from_static("genesys-once-label");
/// `true` on every answer that another request got first.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Where the answer came from: `upstream`, `joined`, `memory`, `store`.
const SERVED: HeaderName = HeaderName::from_static("genesys-once-served");
/// The key's 64 hex digits, under which operators find its record.
const KEY: HeaderName = HeaderName::from_static("genesys-once-key");
/// `false` if the store does not have the answer: a refused request executes again, another
/// answer is recorded later, or its key becomes indeterminate.
const RECORDED: HeaderName = HeaderName::from_static("genesys-once-recorded");
/// `omitted` on a replay whose record holds only the status.
const BODY: HeaderName = HeaderName::from_static("genesys-once-body");
/// The platform's headers that are passed on: the type of its body, the meaning of its
/// status, and the id that the platform's support asks for.
const HANDED_OVER: [HeaderName; 5] = [
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::ALLOW,
    header::LOCATION,
    HeaderName::from_static("inin-correlation-id"),
];

/// The whole service, with `more` routes.
pub fn service(app: App, more: Router<App>) -> Router {
    let callers = Router::new()
        .route("/actions/{id}/execute", post(execute))
        .route_layer(from_fn_with_state(app.bodies.clone(), bodies::collect))
        .route_layer(from_fn_with_state(app.clone(), authenticate));
    let mut router = Router::new()
        .route("/problems/{code}", get(explain))
        .merge(callers);
    if let Some(token) = app.settings.admin {
        router = router
            .merge(keys::routes(token, &app))
            .merge(operators::routes(&app));
    }
    let router = router.route_layer(from_fn_with_state(app.clone(), health::check_host));
    finish(router.merge(health::routes()).merge(more), app)
}

/// Adds the answers for unknown routes and methods, and the headers of all answers.
pub fn finish(router: Router<App>, app: App) -> Router {
    router
        .fallback(async || Problem::new("not_found", "no such route"))
        .method_not_allowed_fallback(async || {
            Problem::new("method_not_allowed", "see the Allow header")
        })
        // `bodies` has the limit.
        .layer(DefaultBodyLimit::disable())
        .layer(map_response(harmless))
        .with_state(app)
}

/// Lets a browser only show an answer. The platform's answers come from the same origin as
/// the page for operators.
async fn harmless(mut response: Response) -> Response {
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; sandbox",
        ),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        let value = HeaderValue::from_static(value);
        response.headers_mut().entry(name).or_insert(value);
    }
    response
}

/// Executes the action `id` with the body as its payload, once per key. The
/// answer is the platform's own, whatever its status.
async fn execute(
    State(app): State<App>,
    id: Result<Path<String>, PathRejection>,
    caller: Option<Extension<Caller>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let Path(id) =
        id.map_err(|rejection| Problem::new("invalid_request", rejection.body_text()))?;
    let request = request(&app, &id, &headers, body)?;
    let (key, answer) = match caller {
        Some(Extension(Caller(name))) => {
            let engine = app.engine.scoped(&name);
            (engine.key_of(&request), engine.execute(request).await)
        }
        None => (
            IdempotencyKey::of(&request),
            app.engine.execute(request).await,
        ),
    };
    match answer {
        Ok(reply) => Ok(respond(&reply)),
        Err(error) => {
            tracing::warn!(%key, code = error.code(), "{}", crate::settings::line(&error));
            Err(error.into())
        }
    }
}

fn request(
    app: &App,
    id: &str,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<DataActionRequest, Problem> {
    if !is_json(headers) {
        // Browsers send some other types across sites without asking first.
        return Err(Problem::new(
            "unsupported_media_type",
            "send the payload with Content-Type: application/json",
        ));
    }
    // No caller waits longer.
    let mut request = DataActionRequest::new(id, body)?.start_within(app.settings.deadline)?;
    match text(headers, &IDEMPOTENCY_KEY)? {
        Some(key) => request = request.with_key(string(&IDEMPOTENCY_KEY, key)?)?,
        None if app.settings.require_key => {
            let detail = "send a key of your own as Idempotency-Key";
            return Err(Problem::new("key_required", detail));
        }
        None => {}
    }
    if let Some(label) = text(headers, &LABEL)? {
        request = request.with_label(label)?;
    }
    if let Some(scope) = text(headers, &IDEMPOTENCY_SCOPE)? {
        request = request.with_scope(string(&IDEMPOTENCY_SCOPE, scope)?)?;
    }
    Ok(request)
}

fn respond(reply: &Reply) -> Response {
    let mut response = (reply.status(), reply.body().clone()).into_response();
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_TYPE);
    for name in HANDED_OVER {
        for value in reply.headers().get_all(&name) {
            headers.append(name.clone(), value.clone());
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
    if reply.stored_body() != StoredBody::Full {
        headers.insert(BODY, HeaderValue::from_static("omitted"));
    }
    response
}

/// Explains a problem's `type`.
async fn explain(Path(code): Path<String>) -> Result<Json<Value>, Problem> {
    let row = TITLES.iter().find(|(known, _)| *known == code);
    let (code, title) = row.ok_or_else(|| Problem::new("not_found", "no problem has this code"))?;
    Ok(Json(json!({ "code": code, "title": title })))
}

/// `application/json`, or a type that is JSON underneath (RFC 6839).
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

/// A header that occurs at most once, as text.
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

/// The draft writes the key as a structured string, `"…"` (RFC 9651, section 3.3.3), and
/// names no parameter. Many clients omit the quotation marks; both spellings are the same
/// key.
fn string(name: &HeaderName, text: &str) -> Result<String, Problem> {
    let bare = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-./:=@^_`|~".contains(c);
    if !text.is_empty() && text.chars().all(bare) {
        return Ok(text.to_owned());
    }
    match Parser::new(text).parse::<Item>() {
        Ok(Item {
            bare_item: BareItem::String(string),
            params,
        }) if params.is_empty() => Ok(string.into()),
        _ => Err(refused(name, "is no string in quotation marks")),
    }
}

fn refused(name: &HeaderName, what: &str) -> Problem {
    let detail = format!("the header {name} {what}");
    Problem::new("invalid_request", detail)
}
