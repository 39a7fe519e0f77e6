//! The docs table, the list in the code and the descriptions in an exporter agree.

use std::collections::BTreeSet;

use genesys_once::telemetry::{Kind, MAX_ACTIONS, METRICS, Metric};
use genesys_once::testing::{ScriptedUpstream, Step};

use super::{builder, exporter, scrape};

/// The rows of the docs table of metrics.
fn rows() -> Vec<&'static str> {
    let docs = include_str!("../../src/telemetry.rs");
    let lines = docs.lines().filter_map(|line| line.strip_prefix("//! "));
    let after = lines.skip_while(|line| *line != "# Metrics");
    after
        .filter(|line| line.starts_with("| `genesys_once_"))
        .collect()
}

fn row(metric: &Metric) -> String {
    let (kind, unit) = match metric.kind {
        Kind::Counter => ("counter", "count"),
        Kind::Gauge => ("gauge", "count"),
        Kind::Seconds => ("histogram", "seconds"),
        Kind::Age => ("gauge", "seconds"),
        kind => panic!("{kind:?} has no name in the table"),
    };
    let labels = metric.labels.iter().map(|label| match label.name {
        "code" => "`code`: any [`Error::code`](crate::Error::code)".to_owned(),
        "action" => format!("`action`: the first {MAX_ACTIONS} of a process, then `other`"),
        name => {
            let values = label.values.iter().map(|value| format!("`{value}`"));
            format!("`{name}`: {}", values.collect::<Vec<_>>().join(", "))
        }
    });
    let label = match labels.collect::<Vec<_>>().join("; ") {
        none if none.is_empty() => "| |".to_owned(),
        labels => format!("| {labels} |"),
    };
    let Metric { name, meaning, .. } = metric;
    format!("| `{name}` | {kind} | {unit} {label} {meaning} |")
}

/// Red if the code has a value that the docs lack.
#[test]
fn docs_table_matches_the_code() {
    assert_eq!(rows(), METRICS.iter().map(row).collect::<Vec<_>>());
}

#[test]
fn names_follow_the_conventions() {
    let names: BTreeSet<_> = METRICS.iter().map(|metric| metric.name).collect();
    assert_eq!(names.len(), METRICS.len());
    for Metric {
        name, kind, labels, ..
    } in METRICS
    {
        let rest = name.strip_prefix("genesys_once_").unwrap();
        assert!(
            rest.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
            "{name}"
        );
        assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
        assert_eq!(
            name.ends_with("_duration_seconds"),
            *kind == Kind::Seconds,
            "{name}"
        );
        for label in *labels {
            assert_eq!(label.name == "action", label.values.is_empty(), "{name}");
        }
    }
}

/// Red without `telemetry::start` in `EngineBuilder::spawn`, and without either half of
/// `introduce`.
#[tokio::test(start_paused = true)]
async fn start_introduces_every_metric() {
    let recorder = exporter();
    let _here = metrics::set_default_local_recorder(&recorder);
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}"));
    let _engine = builder(&upstream).start().await.unwrap();
    let text = recorder.handle().render();
    let series = scrape(&recorder);
    for Metric {
        name,
        kind,
        labels,
        meaning,
        ..
    } in METRICS
    {
        let (word, suffix) = match kind {
            Kind::Counter => ("counter", ""),
            Kind::Gauge | Kind::Age => ("gauge", ""),
            _ => ("histogram", "_count"),
        };
        if labels.iter().any(|label| label.values.is_empty()) {
            // The first call of an action registers this series.
            continue;
        }
        assert!(
            text.contains(&format!("# TYPE {name} {word}\n")),
            "{name}:\n{text}"
        );
        assert!(
            text.contains(&format!("# HELP {name} {meaning}\n")),
            "{name}:\n{text}"
        );
        let mut all = vec![String::new()];
        for label in *labels {
            let one = |rest: String| {
                let values = label.values.iter();
                values.map(move |value| format!("{rest},{}=\"{value}\"", label.name))
            };
            all = all.into_iter().flat_map(one).collect();
        }
        for labels in all {
            let one = match labels.strip_prefix(',') {
                Some(labels) => format!("{name}{suffix}{{{labels}}}"),
                None => format!("{name}{suffix}"),
            };
            assert_eq!(series.get(&one), Some(&0.0), "{one}:\n{text}");
        }
    }
}

/// Two engines in one process have different series.
#[tokio::test(start_paused = true)]
async fn each_namespace_has_series_of_its_own() {
    let recorder = exporter();
    let _here = metrics::set_default_local_recorder(&recorder);
    let upstream = ScriptedUpstream::new(|_| Step::ok("{}"));
    for namespace in ["one", "two"] {
        let engine = builder(&upstream).namespace(namespace.parse().unwrap());
        let engine = engine.start().await.unwrap();
        engine.execute(super::request("1")).await.unwrap();
    }
    let text = recorder.handle().render();
    for namespace in ["one", "two"] {
        let labels = format!("namespace=\"{namespace}\",served=\"upstream\",recorded=\"true\"");
        let sample = format!("genesys_once_requests_total{{{labels}}} 1\n");
        assert!(text.contains(&sample), "{text}");
    }
}
