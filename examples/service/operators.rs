//! The page for operators at `/`: log in, look, resolve a key, end a cooldown. It works
//! without scripts; `page` has its content.

use std::time::SystemTime;

use axum::Router;
use axum::extract::rejection::{FormRejection, QueryRejection};
use axum::extract::{Form, FromRequest, FromRequestParts, Query, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use genesys_once::IdempotencyKey;
use maud::Markup;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::app::App;
use crate::bodies;
use crate::keys::{Found, invalid, resolve_key};
use crate::page::{self, Message, View};
use crate::problem::Problem;
use crate::session::Session;

/// How many keys the page shows.
const MAX_KEYS: usize = 100;
/// What the page may load: only its own style sheet.
const POLICY: &str = "default-src 'none'; style-src 'self'; form-action 'self'; \
                      frame-ancestors 'none'; base-uri 'none'";

/// The page's routes, for a service with an admin token.
pub fn routes(app: &App) -> Router<App> {
    // An answer may be large, so only an operator with a session may send one.
    let resolving = Router::new()
        .route("/resolve", post(resolve))
        .route_layer(from_fn_with_state(app.bodies.clone(), bodies::collect))
        .route_layer(from_fn_with_state(app.clone(), logged_in));
    Router::new()
        .route("/", get(show))
        .route("/login", get(ask).post(log_in))
        .route("/logout", post(log_out))
        .route("/end-cooldown", post(end_cooldown))
        .route("/page.css", get(style))
        .route_layer(from_fn_with_state(app.forms.clone(), bodies::collect))
        .merge(resolving)
        .route_layer(map_response(guarded))
}

async fn logged_in(_: Session, request: Request, next: Next) -> Response {
    next.run(request).await
}

async fn guarded(mut response: Response) -> Response {
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}

async fn style() -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "text/css; charset=utf-8")],
        page::STYLE,
    )
}

/// A request without a valid session is redirected to the login.
impl FromRequestParts<App> for Session {
    type Rejection = Redirect;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Redirect> {
        let sessions = app.sessions.as_ref();
        let session = sessions.and_then(|s| s.of(&parts.headers, SystemTime::now()));
        session.ok_or_else(|| Redirect::to("/login"))
    }
}

async fn ask() -> Markup {
    page::login(false)
}

#[derive(Deserialize)]
struct LogIn {
    token: String,
}

async fn log_in(
    State(app): State<App>,
    headers: HeaderMap,
    form: Result<Form<LogIn>, FormRejection>,
) -> Result<Response, Problem> {
    let Form(form) = form.map_err(|rejection| invalid(rejection.body_text()))?;
    let sessions = app.sessions.filter(|sessions| sessions.admits(&form.token));
    let Some(sessions) = sessions else {
        tracing::warn!("a login with a wrong token was refused");
        return Ok((StatusCode::UNAUTHORIZED, page::login(true)).into_response());
    };
    let session = sessions.open(SystemTime::now());
    let session = session.map_err(|error| Problem::new("internal", error.to_string()))?;
    let cookie = [(header::SET_COOKIE, session.cookie(over_tls(&headers)))];
    Ok((cookie, Redirect::to("/")).into_response())
}

/// A form of the page, with the session that it was made for. Another site can make the
/// browser send a form, but does not know its `form_token`.
struct PageForm<T> {
    session: Session,
    fields: T,
}

#[derive(Deserialize)]
struct Fields<T> {
    form_token: String,
    #[serde(flatten)]
    others: T,
}

impl<T: DeserializeOwned> FromRequest<App> for PageForm<T> {
    type Rejection = Response;

    async fn from_request(request: Request, app: &App) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let session = Session::from_request_parts(&mut parts, app).await;
        let session = session.map_err(IntoResponse::into_response)?;
        let request = Request::from_parts(parts, body);
        let form = Form::<Fields<T>>::from_request(request, app).await;
        let Form(form) = form.map_err(|e| invalid(e.body_text()).into_response())?;
        let sessions = app.sessions.as_ref();
        if sessions.is_some_and(|sessions| sessions.is_form_of(&session, &form.form_token)) {
            let fields = form.others;
            return Ok(Self { session, fields });
        }
        let detail = "the form was not made for this session: load the page again";
        Err(Problem::new("forbidden", detail).into_response())
    }
}

#[derive(Deserialize)]
struct Nothing {}

async fn log_out(headers: HeaderMap, _: PageForm<Nothing>) -> impl IntoResponse {
    let cookie = [(header::SET_COOKIE, Session::end(over_tls(&headers)))];
    (cookie, Redirect::to("/login"))
}

async fn end_cooldown(State(app): State<App>, _: PageForm<Nothing>) -> Redirect {
    app.engine.end_cooldown();
    Redirect::to("/")
}

#[derive(Deserialize)]
struct Resolve {
    key: String,
    version: String,
    resolution: String,
    status: String,
    body: String,
    by: String,
}

/// Resolves a key, in the version that the page showed.
async fn resolve(State(app): State<App>, form: PageForm<Resolve>) -> Response {
    match resolved(&app, form.fields).await {
        Ok(key) => Redirect::to(&format!("/?resolved={key}")).into_response(),
        Err(problem) => {
            let message = Message::Refused(format!("Not resolved: {}.", problem.detail()));
            let page = whole(&app, &form.session, Some(message)).await;
            (problem.status(), page).into_response()
        }
    }
}

async fn resolved(app: &App, form: Resolve) -> Result<IdempotencyKey, Problem> {
    let unreadable = |error: genesys_once::record::ParseKeyError| invalid(error.to_string());
    let key = form.key.parse().map_err(unreadable)?;
    let version = form.version.parse().map_err(unreadable)?;
    let by = match form.by.trim() {
        "" => return Err(invalid("it has to name its source")),
        by => Some(by.to_owned()),
    };
    let found = match form.resolution.as_str() {
        "not_applied" => Found::NotApplied { by },
        "applied" => Found::Applied {
            status: form.status.trim().parse().unwrap_or_default(),
            body: form.body.trim().to_owned(),
            by,
        },
        _ => return Err(invalid("it has to say whether the request was executed")),
    };
    resolve_key(&app.engine, key, version, found).await?;
    Ok(key)
}

#[derive(Deserialize)]
struct Shown {
    resolved: Option<IdempotencyKey>,
}

async fn show(
    State(app): State<App>,
    session: Session,
    query: Result<Query<Shown>, QueryRejection>,
) -> Markup {
    let resolved = query.ok().and_then(|query| query.0.resolved);
    let message = match resolved {
        Some(key) => resolution_of(&app, key).await,
        None => None,
    };
    whole(&app, &session, message).await
}

/// The message about a key that was resolved, if the key is still resolved.
async fn resolution_of(app: &App, key: IdempotencyKey) -> Option<Message> {
    let state = app.engine.inspect(&key).await.ok()?;
    match state {
        Some(state) if state.is_indeterminate() => None,
        _ => Some(Message::Done(format!("Key {key} is resolved."))),
    }
}

/// The page with its current content.
async fn whole(app: &App, session: &Session, message: Option<Message>) -> Markup {
    let sessions = app.sessions.as_ref();
    let form_token = sessions.map(|sessions| sessions.form_token(session));
    let listed = app.engine.indeterminate(MAX_KEYS).await;
    page::operators(&View {
        app,
        form_token: &form_token.unwrap_or_default(),
        listed,
        message,
    })
}

/// Whether the browser uses TLS, which a proxy in front of the service ends. A client that
/// sends a false value only hides its own cookie from plain HTTP.
fn over_tls(headers: &HeaderMap) -> bool {
    const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
    headers
        .get(FORWARDED_PROTO)
        .is_some_and(|value| value == "https")
}
