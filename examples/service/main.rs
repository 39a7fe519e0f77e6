//! A service that embeds the engine, to copy: execution over HTTP, once per key, with replays
//! marked and every error a problem document. `README.md` beside this file is its manual, and
//! `--help` lists the variables that configure it.
//!
//! ```sh
//! GENESYS_SIMULATE=1 cargo run -p service
//!
//! curl -i localhost:8080/actions/custom_-_refund/execute \
//!      -H 'Content-Type: application/json' -H 'Idempotency-Key: "order-42"' \
//!      -d '{"order": 42, "amount": 19.90}'   # twice: the second is a replay
//! ```
//!
//! | what | where |
//! |---|---|
//! | callers, and what they may do | `callers`, `routes` |
//! | operators: over HTTP, and on the page | `keys`; `operators`, `page`, `session` |
//! | probes and metrics | `health`, `metrics` |
//! | connections and bodies, with their bounds | `server`, `bodies` |
//! | errors | `problem` |
//! | settings | `settings`, `platform`, `token` |
//!
//! No code here knows how an execution works.

mod app;
mod bodies;
mod callers;
mod health;
mod keys;
#[cfg(feature = "metrics")]
mod metrics;
mod operators;
mod page;
mod platform;
mod problem;
mod routes;
mod server;
mod session;
mod settings;
mod signals;
mod token;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use genesys_once::Engine;
use tokio::sync::watch;
use tokio::time::sleep;

use self::app::App;
use self::bodies::Bodies;
use self::platform::Platform;
use self::server::Server;
use self::session::Sessions;
use self::settings::{HELP, Settings};
use self::signals::{Signal, Signals};

/// How long clients have to read their answers once all executions have ended.
const FLUSH: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        None => {}
        Some("--help" | "-h") => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Some(other) => {
            eprintln!("service: unknown argument {other:?}; see --help");
            return ExitCode::FAILURE;
        }
    }
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing::Level::INFO)
        .init();
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(line) => {
            eprintln!("service: {line}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), String> {
    let mut signals = Signals::listen()?;
    let settings = Arc::new(Settings::from_environment()?);
    #[cfg(feature = "metrics")]
    let recorder = metrics::install()?;
    let platform = Platform::from_environment().await?;
    let namespace = platform.namespace()?;
    let (store, places) = platform.with_store().await?;
    let mut builder = Engine::builder(platform.upstream())
        .store(store)
        .on_duplicate(settings.on_duplicate)
        .deadline(settings.deadline)
        // `bodies` enforces the limit of a body, and answers 413.
        .max_payload_bytes(settings.body_limit);
    if let Some(namespace) = namespace {
        builder = builder.namespace(namespace);
    }
    if let Some(every) = settings.watch {
        builder = builder.watch_indeterminate(every);
    }
    let engine = builder.start().await;
    let engine = engine.map_err(|error| platform.explain(&error))?;

    let (drain, draining) = watch::channel(false);
    let app = App {
        engine: engine.clone(),
        bodies: Bodies::new(&settings),
        forms: Bodies::of_forms(&settings),
        sessions: settings.admin.map(Sessions::new),
        places: Arc::new(places),
        draining,
        settings: settings.clone(),
    };
    if settings.callers.is_empty() && !settings.address.ip().is_loopback() {
        tracing::warn!(
            "SERVICE_CALLERS is not set: every client that reaches this address executes"
        );
    }
    #[cfg(feature = "metrics")]
    let metrics = metrics::routes(recorder);
    #[cfg(not(feature = "metrics"))]
    let metrics = Router::new();
    println!("platform       {}", app.places.platform);
    println!("store          {}", app.places.store);
    println!("namespace      {}", engine.namespace());
    let mut servers = Vec::new();
    let more = match settings.metrics_address {
        None => metrics,
        Some(address) => {
            let router = routes::finish(health::routes().merge(metrics), app.clone());
            let (server, address) =
                listen("SERVICE_METRICS_ADDRESS", address, router, &settings).await?;
            if cfg!(not(feature = "metrics")) {
                tracing::warn!("there is no /metrics: it needs --features metrics");
            }
            println!(
                "{} on     http://{address}",
                if cfg!(feature = "metrics") {
                    "metrics"
                } else {
                    "probes "
                }
            );
            servers.push(server);
            Router::new()
        }
    };
    let router = routes::service(app, more);
    let (server, address) = listen("SERVICE_ADDRESS", settings.address, router, &settings).await?;
    servers.push(server);
    println!("listening on http://{address}");

    let first = signals.next().await;
    tokio::select! {
        () = end(first, &settings, &drain, &engine, servers) => Ok(()),
        second = signals.next() => {
            // Executions under way become indeterminate when their leases expire.
            eprintln!("service: ended at once by a second signal");
            std::process::exit(second.exit_code())
        }
    }
}

async fn listen(
    name: &str,
    address: SocketAddr,
    router: Router,
    settings: &Settings,
) -> Result<(Server, SocketAddr), String> {
    let failed = |e| format!("{name} is {address}: {e}");
    let listener = server::bind(address).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((Server::start(listener, router, settings.limits), address))
}

/// Ends the service. First load balancers learn that it is not ready, while it still
/// serves. Then it accepts no connection, and every caller in flight gets an answer: the
/// platform's, or what is known. What is known is recorded.
async fn end(
    signal: Signal,
    settings: &Settings,
    drain: &watch::Sender<bool>,
    engine: &Engine,
    servers: Vec<Server>,
) {
    tracing::info!("draining");
    drain.send_replace(true);
    if signal == Signal::Terminate {
        sleep(settings.ready_delay).await;
    }
    for server in &servers {
        server.stop();
    }
    let drained = engine.shutdown(settings.grace).await;
    let ends = servers.into_iter().map(|server| server.ended(FLUSH));
    let answered = futures_util::future::join_all(ends)
        .await
        .into_iter()
        .all(|answered| answered);
    println!(
        "drained        {} finished, {} cut off{}",
        drained.finished,
        drained.cut_off,
        if answered {
            ""
        } else {
            "; some client did not read its answer"
        },
    );
}
