//! What Prometheus reads (feature `metrics`): the engine's own series, all named in
//! `genesys_once::telemetry`. It counts nothing itself.

use std::time::Duration;

use axum::Router;
use axum::http::header;
use axum::routing::get;
use genesys_once::telemetry::BUCKETS;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::app::App;

/// How often measurements are put into their buckets, even without a scrape: until then
/// they use memory.
const UPKEEP: Duration = Duration::from_secs(10);

/// Installs the recorder of this process. Must run before the engine starts: earlier events
/// are not counted.
pub fn install() -> Result<PrometheusHandle, String> {
    let durations = Matcher::Suffix("_duration_seconds".into());
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(durations, BUCKETS)
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(|e| e.to_string())?;
    let upkeep = recorder.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP).await;
            upkeep.run_upkeep();
        }
    });
    Ok(recorder)
}

/// `GET /metrics`, in Prometheus's text format.
pub fn routes(recorder: PrometheusHandle) -> Router<App> {
    let text = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    Router::new().route(
        "/metrics",
        get(move || {
            let rendered = (text, recorder.render());
            async { rendered }
        }),
    )
}
