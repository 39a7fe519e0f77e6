//! The state of the service, for supervisors and load balancers, and the hosts for which it
//! answers.

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use genesys_once::IdempotencyKey;
use genesys_once::engine::Stats;
use serde_json::{Value, json};

use crate::app::App;
use crate::problem::Problem;

pub fn routes() -> Router<App> {
    Router::new()
        .route("/livez", get(async || Json(json!({ "status": "up" }))))
        .route("/readyz", get(ready))
        // The name that many probes have by default.
        .route("/healthz", get(ready))
}

/// Whether requests should come here: 200; 503 while the store does not answer, and once
/// the service is asked to end. The handler asks the store, since an idle engine would not
/// notice an outage. A missing token is no failure: the first execution fetches one.
///
/// It does not say whether the process should be restarted, which would cut off the
/// executions under way: that is `/livez`.
async fn ready(State(app): State<App>) -> (StatusCode, Json<Value>) {
    let unused = IdempotencyKey::from_bytes([0; 32]);
    let store_up = app.engine.inspect(&unused).await.is_ok();
    let draining = *app.draining.borrow();
    let status = match (draining, store_up) {
        (true, _) => "draining",
        (false, true) => "up",
        (false, false) => "down",
    };
    let code = match status {
        "up" => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    (code, Json(document(status, store_up, &app.engine.stats())))
}

fn document(status: &str, store_up: bool, stats: &Stats) -> Value {
    json!({
        "status": status,
        "store": if store_up { "up" } else { "down" },
        "token": {
            "state": if stats.token_valid_for.is_some() { "valid" } else { "none" },
            "valid_for_seconds": stats.token_valid_for.map(|left| left.as_secs()),
            "fetches": stats.token_fetches,
        },
        "executions": stats.executions,
        "in_flight": stats.in_flight,
        "waiting": stats.waiting,
        "cooldown_seconds": stats.cooldown.as_secs_f64(),
    })
}

/// Refuses a request for a host that is not in the list, if there is a list. A name without
/// a port stands for all ports.
pub async fn check_host(
    State(app): State<App>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let hosts = &app.settings.hosts;
    if hosts.is_empty() || host(&request).is_some_and(|host| knows(hosts, &host)) {
        return Ok(next.run(request).await);
    }
    let detail = "the Host header names none of this service's hosts";
    Err(Problem::new("unknown_host", detail))
}

/// The host that a request is for (RFC 9112, section 3.2.2).
fn host(request: &Request) -> Option<Authority> {
    let mut values = request.headers().get_all(header::HOST).iter();
    let authority = match (request.uri().authority(), values.next(), values.next()) {
        (Some(authority), ..) => authority.clone(),
        (None, Some(value), None) => value.to_str().ok()?.parse().ok()?,
        _ => return None,
    };
    // A host with a user name is invalid.
    (!authority.as_str().contains('@')).then_some(authority)
}

fn knows(hosts: &[String], host: &Authority) -> bool {
    let (whole, name) = (host.as_str().to_lowercase(), host.host().to_lowercase());
    hosts.iter().any(|known| *known == whole || *known == name)
}
