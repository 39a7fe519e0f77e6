//! What stands for the series without the feature `metrics`: the same functions,
//! which do nothing and take no room. Nothing is ever recorded from here.

use std::time::Duration;

use super::metric::Metric;
use crate::key::Namespace;
use crate::request::ActionId;

#[derive(Clone, Debug)]
pub(super) struct Series;

impl Series {
    pub(super) fn plain(_: &Metric, _: &Namespace) -> Self {
        Self
    }

    pub(super) fn with(_: &Metric, _: &Namespace, _: &'static str) -> Self {
        Self
    }

    pub(super) fn of(_: &Metric, _: &Namespace, _: &[&'static str]) -> Self {
        Self
    }

    pub(super) fn of_action(_: &Metric, _: &Namespace, _: &[&'static str], _: &ActionId) -> Self {
        Self
    }

    pub(super) fn count(&self) {}

    pub(super) fn observe(&self, _: Duration) {}
    pub(super) fn raise(&self) -> GaugeGuard {
        GaugeGuard
    }
    pub(super) fn level(&self) -> GaugeGuard {
        GaugeGuard
    }
}

/// A gauge that nobody reads.
#[derive(Debug)]
#[must_use = "the gauge falls when this is dropped"]
pub(crate) struct GaugeGuard;

impl GaugeGuard {
    pub(super) fn set(&mut self, _: f64) {}
}

pub(super) fn introduce(_: &Metric, _: &Namespace) {}
