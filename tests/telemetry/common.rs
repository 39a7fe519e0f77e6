//! Shared by these tests: an exporter, and the series that Prometheus would read.

use std::collections::BTreeMap;
use std::time::Duration;

use genesys_once::telemetry::BUCKETS;
use genesys_once::testing::ScriptedUpstream;
use genesys_once::{DataActionRequest, Engine, EngineBuilder, Error, Reply};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};
use tokio::task::JoinHandle;

pub const SECOND: Duration = Duration::from_secs(1);
/// The namespace of these tests' engines.
pub const NAMESPACE: &str = "telemetry";

/// An exporter. Make it the recorder of the test's thread: `let _here =
/// metrics::set_default_local_recorder(&recorder)`.
pub fn exporter() -> PrometheusRecorder {
    let suffix = Matcher::Suffix("_duration_seconds".to_owned());
    PrometheusBuilder::new()
        .set_buckets_for_metric(suffix, BUCKETS)
        .unwrap()
        .build_recorder()
}

/// The values that Prometheus would read now, by series: `name{label="…"}` without the
/// label `namespace`, which must be present.
pub fn scrape(recorder: &PrometheusRecorder) -> BTreeMap<String, f64> {
    let text = recorder.handle().render();
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .filter(|line| !line.is_empty())
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let own = format!("namespace=\"{NAMESPACE}\"");
            assert!(series.contains(&own), "{series} has no namespace");
            let series = series.replace(&format!("{own},"), "");
            (
                series.replace(&format!("{{{own}}}"), ""),
                value.parse().unwrap(),
            )
        })
        .collect()
}

/// The value of one series; 0 if there is none.
pub fn value(recorder: &PrometheusRecorder, series: &str) -> f64 {
    let name = series.split('{').next().unwrap();
    let family = name.trim_end_matches("_sum").trim_end_matches("_count");
    let known = genesys_once::telemetry::METRICS
        .iter()
        .any(|metric| metric.name == name || metric.name == family);
    assert!(known, "{name} is no metric");
    scrape(recorder).get(series).copied().unwrap_or(0.0)
}

pub fn builder(upstream: &ScriptedUpstream) -> EngineBuilder {
    Engine::builder(upstream.clone()).namespace(NAMESPACE.parse().unwrap())
}

pub fn request(payload: &str) -> DataActionRequest {
    DataActionRequest::new("custom_-_refund", payload).unwrap()
}

pub fn ask(engine: &Engine, payload: &str) -> JoinHandle<Result<Reply, Error>> {
    let (engine, request) = (engine.clone(), request(payload));
    tokio::spawn(async move { engine.execute(request).await })
}

/// Yields until `condition` holds; no time passes meanwhile.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..1_000 {
        if condition() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("not reached: {what}");
}
