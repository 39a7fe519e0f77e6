//! The series without the feature `metrics`: the same functions, which do nothing, and
//! types of no size. It records nothing.

use std::time::Duration;

use super::metric::Metric;
use crate::key::Namespace;
use crate::request::ActionId;

#[derive(Clone, Debug)]
pub(super) struct Series;

impl Series {
    #[inline(always)]
    pub(super) fn plain(_: &Metric, _: &Namespace) -> Self {
        Self
    }

    #[inline(always)]
    pub(super) fn with(_: &Metric, _: &Namespace, _: &'static str) -> Self {
        Self
    }

    #[inline(always)]
    pub(super) fn of(_: &Metric, _: &Namespace, _: &[&'static str]) -> Self {
        Self
    }

    #[inline(always)]
    pub(super) fn of_action(_: &Metric, _: &Namespace, _: &[&'static str], _: &ActionId) -> Self {
        Self
    }

    #[inline(always)]
    pub(super) fn count(&self) {}

    #[inline(always)]
    pub(super) fn observe(&self, _: Duration) {}

    #[inline(always)]
    pub(super) fn raise(&self) -> GaugeGuard {
        GaugeGuard
    }

    #[inline(always)]
    pub(super) fn level(&self) -> GaugeGuard {
        GaugeGuard
    }
}

/// A gauge without a recorder.
#[derive(Debug)]
#[must_use = "the gauge falls when this is dropped"]
pub(crate) struct GaugeGuard;

impl GaugeGuard {
    #[inline(always)]
    pub(super) fn set(&mut self, _: f64) {}
}

#[inline(always)]
pub(super) fn introduce(_: &Metric, _: &Namespace) {}
