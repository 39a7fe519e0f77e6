//! Series of the `metrics` facade, with the feature of that name. Each use looks its series
//! up and stores none: a recorder might drop idle series, or be local to a thread. A
//! recorder is foreign code: its panics end here.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use metrics::{
    Gauge, Key, KeyName, Label, Level, Metadata, Recorder, SharedString, Unit, with_recorder,
};

use super::contained;
use super::metric::{Kind, MAX_ACTIONS, Metric, MetricLabel};
use crate::key::Namespace;
use crate::request::ActionId;

const METADATA: Metadata<'static> = Metadata::new("genesys_once", Level::INFO, None);

/// One metric of one namespace, with one value of its label.
#[derive(Clone, Debug)]
pub(super) struct Series(Key);

impl Series {
    /// The series of a metric without a label of its own.
    pub(super) fn plain(metric: &Metric, namespace: &Namespace) -> Self {
        Self::of(metric, namespace, &[])
    }

    /// The series of a metric with this value of its label.
    pub(super) fn with(metric: &Metric, namespace: &Namespace, value: &'static str) -> Self {
        Self::of(metric, namespace, &[value])
    }

    /// The series of a metric with these values of its labels, in their order.
    pub(super) fn of(metric: &Metric, namespace: &Namespace, values: &[&'static str]) -> Self {
        debug_assert_eq!(metric.labels.len(), values.len(), "{}", metric.name);
        Self(Key::from_parts(
            metric.name,
            labels(metric, namespace, values),
        ))
    }

    /// The same with the label `action`, which is the last one.
    pub(super) fn of_action(
        metric: &Metric,
        namespace: &Namespace,
        values: &[&'static str],
        action: &ActionId,
    ) -> Self {
        debug_assert_eq!(metric.labels.len(), values.len() + 1, "{}", metric.name);
        let mut labels = labels(metric, namespace, values);
        labels.push(Label::new("action", SharedString::from(bounded(action))));
        Self(Key::from_parts(metric.name, labels))
    }

    pub(super) fn count(&self) {
        recorded(|recorder| recorder.register_counter(&self.0, &METADATA).increment(1));
    }

    pub(super) fn observe(&self, time: Duration) {
        recorded(|recorder| {
            let histogram = recorder.register_histogram(&self.0, &METADATA);
            histogram.record(time.as_secs_f64());
        });
    }

    /// Raises a gauge by one until the result is dropped.
    pub(super) fn raise(&self) -> GaugeGuard {
        let mut raised = self.level();
        raised.set(1.0);
        raised
    }

    /// A gauge that the result raises by the value it is set to, until it is dropped.
    pub(super) fn level(&self) -> GaugeGuard {
        GaugeGuard {
            gauge: recorded(|recorder| recorder.register_gauge(&self.0, &METADATA)),
            by: 0.0,
        }
    }

    /// Registers the series at zero: a rate needs a value before the first event.
    fn touch(&self, kind: Kind) {
        recorded(|recorder| match kind {
            Kind::Counter => recorder.register_counter(&self.0, &METADATA).increment(0),
            Kind::Gauge | Kind::Age => recorder.register_gauge(&self.0, &METADATA).increment(0.0),
            Kind::Seconds => drop(recorder.register_histogram(&self.0, &METADATA)),
        });
    }
}

fn labels(metric: &Metric, namespace: &Namespace, values: &[&'static str]) -> Vec<Label> {
    let mut all = vec![of(namespace)];
    for (label, value) in metric.labels.iter().zip(values) {
        debug_assert!(
            label.values.contains(value),
            "{value} is not listed for {}",
            metric.name
        );
        all.push(Label::from_static_parts(label.name, value));
    }
    all
}

/// An action as a label: the first of a process as they are, all later ones as one,
/// since a caller chooses what they are.
fn bounded(action: &ActionId) -> Arc<str> {
    static KNOWN: LazyLock<Mutex<HashSet<Arc<str>>>> = LazyLock::new(Mutex::default);
    // A set of names: an insertion leaves it whole.
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(action) = known.get(action.as_str()) {
        return action.clone();
    }
    if known.len() >= MAX_ACTIONS {
        return "other".into();
    }
    let action: Arc<str> = action.as_str().into();
    known.insert(action.clone());
    action
}

fn recorded<T>(foreign: impl FnOnce(&dyn Recorder) -> T) -> Option<T> {
    contained(|| with_recorder(foreign))
}

fn of(namespace: &Namespace) -> Label {
    let shared: Arc<str> = namespace.shared();
    Label::new("namespace", SharedString::from(shared))
}

/// Raises a gauge while it lives. It holds that gauge, so that the same one falls.
#[must_use = "the gauge falls when this is dropped"]
pub(crate) struct GaugeGuard {
    gauge: Option<Gauge>,
    by: f64,
}

impl GaugeGuard {
    /// Raises the gauge by this instead.
    pub(super) fn set(&mut self, by: f64) {
        let change = by - std::mem::replace(&mut self.by, by);
        if let Some(gauge) = &self.gauge
            && change != 0.0
        {
            contained(|| gauge.increment(change));
        }
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.set(0.0);
        let gauge = self.gauge.take();
        contained(move || drop(gauge));
    }
}

impl std::fmt::Debug for GaugeGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GaugeGuard")
    }
}

/// Describes a metric to the recorder, and registers its series.
pub(super) fn introduce(metric: &Metric, namespace: &Namespace) {
    let (name, meaning) = (KeyName::from_const_str(metric.name), metric.meaning.into());
    recorded(|recorder| match metric.kind {
        Kind::Counter => recorder.describe_counter(name, Some(Unit::Count), meaning),
        Kind::Gauge => recorder.describe_gauge(name, Some(Unit::Count), meaning),
        Kind::Age => recorder.describe_gauge(name, Some(Unit::Seconds), meaning),
        Kind::Seconds => recorder.describe_histogram(name, Some(Unit::Seconds), meaning),
    });
    for values in combinations(metric.labels) {
        Series::of(metric, namespace, &values).touch(metric.kind);
    }
}

/// All combinations of the labels' values; none where a label has unlisted ones.
fn combinations(labels: &[MetricLabel]) -> Vec<Vec<&'static str>> {
    let mut all = vec![Vec::new()];
    for label in labels {
        let with = |one: Vec<&'static str>| {
            label.values.iter().map(move |value| {
                let mut longer = one.clone();
                longer.push(*value);
                longer
            })
        };
        all = all.into_iter().flat_map(with).collect();
    }
    all
}
