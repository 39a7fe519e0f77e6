//! A service that embeds the engine, meant to be copied: execution over HTTP,
//! once per key, with replays marked and every error a problem document. What
//! callers may do is in `routes`, what operators may do in `keys`, how errors
//! look in `problem`; nothing here knows how an execution works.
//!
//! ```sh
//! cargo run --release --example service     # simulator and embedded store
//!
//! curl -i localhost:8080/actions/custom_-_refund/execute \
//!      -H 'Content-Type: application/json' -H 'Idempotency-Key: "order-42"' \
//!      -d '{"order": 42, "amount": 19.90}'   # twice: the second is a replay
//! ```
//!
//! | variable | default | what it sets |
//! |---|---|---|
//! | `GENESYS_CLOUD_DOMAIN` or `GENESYS_CLOUD_URL` | the crate's simulator | the platform: `mypurecloud.ie`, or one URL for API and tokens |
//! | `GENESYS_CLOUD_CLIENT_ID`, `GENESYS_CLOUD_CLIENT_SECRET` | | its OAuth client; set with the platform or not at all |
//! | `REDIS_URL` | a file in the target directory | where records are kept |
//! | `SERVICE_FILE` | `target/service/records.redb` | that file; not with `REDIS_URL` |
//! | `SERVICE_NAMESPACE` | a digest of platform and client | whose records; set it before credentials are rotated |
//! | `SERVICE_ADDRESS` | `127.0.0.1:8080` | where it listens; port 0 takes a free one |
//! | `SERVICE_ADMIN_TOKEN` | unset: `/keys` is not there | at least 16 characters |
//! | `SERVICE_BODY_LIMIT` | 1048576 | the largest payload, in bytes |
//! | `SERVICE_DEADLINE_SECONDS` | 300 | how long a caller waits |
//! | `SERVICE_GRACE_SECONDS` | 30 | how long executions may go on after SIGTERM |
//! | `SERVICE_ON_DUPLICATE` | `wait` | or `fail-fast`: 409 while the key is being executed |
//!
//! With the crate's feature `metrics` (`--features metrics`) Prometheus reads
//! `/metrics`.
//!
//! Who may execute is your own decision: put your authentication in front of
//! `routes::execute`, and keep `/metrics` and `/healthz` to yourself. Where callers do not trust each other, give each a scope
//! of its own, or one can ask for the answer of another's request.

mod keys;
#[cfg(feature = "metrics")]
mod metrics;
mod problem;
mod routes;
mod settings;

use std::future::IntoFuture as _;
use std::process::ExitCode;
use std::time::Duration;

use axum::serve::ListenerExt as _;
use genesys_once::Engine;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;

use self::settings::{Settings, line};

/// How long clients have to read their answers once all executions have ended.
const FLUSH: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> ExitCode {
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
    let settings = Settings::from_environment()?;
    #[cfg(feature = "metrics")]
    let recorder = metrics::install()?;
    let platform = settings::platform().await?;
    let mut builder = Engine::builder(platform.upstream())
        .store(settings::store().await?)
        .on_duplicate(settings.on_duplicate)
        .deadline(settings.deadline)
        // The body limit is the one that answers 413.
        .max_payload_bytes(settings.body_limit);
    if let Some(namespace) = platform.namespace()? {
        builder = builder.namespace(namespace);
    }
    let engine = builder.start().await.map_err(|e| line(&e))?;

    let address = settings.address;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|e| format!("SERVICE_ADDRESS: {address}: {e}"))?;
    let address = listener.local_addr().map_err(|e| e.to_string())?;
    let listener = listener.tap_io(|connection| {
        // Without it an answer may wait 40 ms for an acknowledgement.
        let _ = connection.set_nodelay(true);
    });
    let terminated = terminated()?;
    let (stop, mut stopping) = watch::channel(false);
    let more = axum::Router::new();
    #[cfg(feature = "metrics")]
    let more = more.merge(metrics::routes(recorder));
    let service = routes::service(engine.clone(), &settings, more);
    let server = axum::serve(listener, service).with_graceful_shutdown(async move {
        let _ = stopping.wait_for(|stop| *stop).await;
    });
    let server = tokio::spawn(server.into_future());
    println!("platform       {}", platform.place());
    println!("listening on http://{address}");

    terminated.await;
    tracing::info!("draining");
    // No new connection; then everybody in flight is answered, by the platform
    // or by what is known, and what is known is written.
    stop.send_replace(true);
    let drained = engine.shutdown(settings.grace).await;
    let answered = timeout(FLUSH, server).await.is_ok();
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
    Ok(())
}

/// Completes when the process is asked to end. Registered at once: a signal that
/// comes before the first poll is not lost.
fn terminated() -> Result<impl Future<Output = ()>, String> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate()).map_err(|e| e.to_string())?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| e.to_string())?;
        Ok(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        })
    }
    #[cfg(not(unix))]
    Ok(async {
        let _ = tokio::signal::ctrl_c().await;
    })
}
