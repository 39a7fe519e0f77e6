//! `examples/service` as a process: thousands of callers over HTTP, every route, every
//! problem document, and its end while requests are in flight. The platform is a simulator
//! that the test owns, so that it counts what the service really did.

mod support;

#[path = "service/bounds.rs"]
mod bounds;
#[path = "service/browser.rs"]
mod browser;
#[path = "service/callers.rs"]
mod callers;
#[path = "service/devtools.rs"]
mod devtools;
#[path = "service/http.rs"]
mod http_client;
#[path = "service/operators.rs"]
mod operators;
#[path = "service/ops.rs"]
mod ops;
#[path = "service/page.rs"]
mod page;
/// The example's own table, compared with every error of the engine.
#[path = "../examples/service/problem.rs"]
#[allow(dead_code)]
mod problem;
#[path = "service/problems.rs"]
mod problems;
#[path = "service/process.rs"]
mod process;
#[path = "service/readme.rs"]
mod readme;
#[path = "../examples/service/session.rs"]
#[allow(dead_code)]
mod session;
#[path = "service/settings.rs"]
mod settings;
#[path = "service/shutdown.rs"]
mod shutdown;
#[path = "service/tenants.rs"]
mod tenants;
#[path = "../examples/service/token.rs"]
#[allow(dead_code)]
mod token;

use genesys_once::{DataActionRequest, IdempotencyKey};

/// The key of an order's refund.
fn key(order: usize) -> IdempotencyKey {
    let request = DataActionRequest::new("refund", format!(r#"{{"order":{order}}}"#));
    IdempotencyKey::of(&request.unwrap())
}
