//! The alert rules and the dashboard that operators copy: every metric and label that they
//! name exists, and every metric is shown.

use std::collections::BTreeSet;

use genesys_once::telemetry::{Kind, METRICS, Metric};
use serde::Deserialize;
use serde_json::Value;

const ALERTS: &str = include_str!("../../examples/service/ops/alerts.yml");
const DASHBOARD: &str = include_str!("../../examples/service/ops/dashboard.json");
const OPERATING: &str = include_str!("../../src/guide/operating.md");

/// The rules as Prometheus reads them: an unknown field is an error.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    name: String,
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    alert: String,
    expr: String,
    #[serde(rename = "for")]
    pending: Option<String>,
    labels: std::collections::BTreeMap<String, String>,
    annotations: std::collections::BTreeMap<String, String>,
}

/// The metric that a name in an expression means; a histogram's name has a suffix there.
fn metric(name: &str) -> &'static Metric {
    let found = METRICS.iter().find(|metric| match metric.kind {
        Kind::Seconds => ["_bucket", "_sum", "_count"]
            .iter()
            .any(|suffix| name.strip_suffix(suffix) == Some(metric.name)),
        _ => name == metric.name,
    });
    found.unwrap_or_else(|| panic!("{name} is no metric of this crate"))
}

fn word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    &text[..end.unwrap_or(text.len())]
}

/// Checks the grammar of an expression and the names in it, and returns its metrics.
fn check(expr: &str) -> BTreeSet<&'static str> {
    // Grafana replaces this variable itself.
    let plain = expr.replace("$__rate_interval", "5m");
    if let Err(error) = promql_parser::parser::parse(&plain) {
        panic!("{error}: {expr}");
    }
    let mut metrics = BTreeSet::new();
    let mut labels: BTreeSet<_> = ["namespace", "le"].into();
    for (at, _) in expr.match_indices("genesys_once_") {
        let name = word(&expr[at..]);
        let metric = metric(name);
        metrics.insert(metric.name);
        labels.extend(metric.labels.iter().map(|label| label.name));
        let Some(selector) = expr[at + name.len()..].strip_prefix('{') else {
            continue;
        };
        let selector = selector.split('}').next().unwrap();
        for matcher in selector.split(',') {
            let label = word(matcher);
            let known = metric.labels.iter().find(|known| known.name == label);
            assert!(known.is_some() || label == "namespace", "{label}: {expr}");
            let value = matcher
                .split('"')
                .nth(1)
                .unwrap_or_else(|| panic!("{expr}"));
            for value in value.split('|').filter(|_| label != "namespace") {
                let values = known.unwrap().values;
                assert!(values.contains(&value), "{label}={value}: {expr}");
            }
        }
    }
    assert!(!metrics.is_empty(), "{expr} asks for nothing");
    for by in expr.split(" by (").skip(1) {
        for label in by.split(')').next().unwrap().split(',') {
            assert!(labels.contains(label.trim()), "{label}: {expr}");
        }
    }
    metrics
}

/// Red if a metric or a label is renamed, if a rule has a field too many, or if an
/// expression is no PromQL.
#[test]
fn alert_rules_name_metrics_that_exist() {
    let rules: Rules = serde_yaml_ng::from_str(ALERTS).unwrap();
    let mut alerts = BTreeSet::new();
    for rule in rules.groups.iter().flat_map(|group| &group.rules) {
        assert!(alerts.insert(&rule.alert), "{} twice", rule.alert);
        check(&rule.expr);
        if let Some(pending) = &rule.pending {
            assert!(pending.ends_with('m'), "{pending}");
        }
        let severity = rule.labels["severity"].as_str();
        assert!(["page", "ticket"].contains(&severity), "{severity}");
        assert!(!rule.annotations["summary"].is_empty());
        let runbook = rule.annotations["runbook"].strip_prefix("operating: ");
        assert!(runbook.is_some(), "{} names no runbook", rule.alert);
        assert!(
            OPERATING.contains(&format!("`{}`", rule.alert)),
            "the runbook does not know {}",
            rule.alert
        );
    }
    assert_eq!(rules.groups[0].name, "genesys-once");
    assert!(alerts.len() >= 10);
}

/// Red if a metric is on no panel, or if a panel shows a metric that does not exist.
#[test]
fn dashboard_shows_every_metric() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let mut shown = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{panel}");
        for target in targets {
            shown.extend(check(target["expr"].as_str().unwrap()));
        }
    }
    let all: BTreeSet<_> = METRICS.iter().map(|metric| metric.name).collect();
    assert_eq!(shown, all);
}
