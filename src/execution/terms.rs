//! The terms of an execution, and their check. It knows no state and no store.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::ambient::Ambient;
use crate::error::Error;
use crate::genesys::classify;
use crate::outcome::{Outcome, Verdict};
use crate::policy::OnUnknown;

/// The longest time of a setting: every clock can add it up.
pub(crate) const TEN_YEARS: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// The terms of an execution: times, limits and the classification of answers.
///
/// [`lock`](super::Execution::lock) refuses impossible ones with
/// [`Error::InvalidConfig`]: a lease of less than 100 ms or more than an hour,
/// other times of less than 1 ms or more than ten years, an `indeterminate_ttl`
/// shorter than lease and attempt time-out together, a `max_response_bytes` of 0.
#[derive(Clone)]
#[non_exhaustive]
pub struct Terms {
    /// How long a lease lives without an extension; 30 s by default. It is extended every
    /// third of that.
    pub lease: Duration,
    /// How long an outcome is replayed; 24 h by default. A request's own `ttl` overrides it.
    pub result_ttl: Duration,
    /// How long an indeterminate key is kept; 7 days by default.
    pub indeterminate_ttl: Duration,
    /// How long one attempt may take; 66 s by default. It is the upstream's
    /// `attempt_timeout` plus one second, in which a process that was stopped reads its
    /// answer. The record has it, so that no process takes a running attempt for one that
    /// has ended.
    pub attempt_timeout: Duration,
    /// What follows an attempt that might have been executed; `Hold` by default.
    pub on_unknown: OnUnknown,
    /// Reads an answer; [`classify::genesys`] by default.
    pub classify: Arc<dyn Fn(&Outcome) -> Verdict + Send + Sync>,
    /// The largest answer in bytes; 8 MiB by default. Of a larger 2xx answer only the
    /// status is recorded; any other larger answer is an unknown outcome.
    pub max_response_bytes: usize,
    /// The upstream's `route_label`, a part of the fingerprint; empty by default.
    pub route: Arc<str>,
    /// Wall clock and randomness; the system's by default.
    pub(crate) ambient: Ambient,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(30),
            result_ttl: Duration::from_secs(24 * 3600),
            indeterminate_ttl: Duration::from_secs(7 * 24 * 3600),
            attempt_timeout: Duration::from_secs(66),
            on_unknown: OnUnknown::default(),
            classify: Arc::new(classify::genesys),
            max_response_bytes: 8 << 20,
            route: Arc::from(""),
            ambient: Ambient::system(),
        }
    }
}

impl Terms {
    /// Checks that these terms are possible.
    ///
    /// # Errors
    ///
    /// `Error::InvalidConfig`, which names the setting.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let refuse = |setting, reason: &str| Err(Error::invalid_config(setting, reason));
        if self.lease < Duration::from_millis(100) {
            return refuse("lease", "it must be at least 100 ms");
        }
        if self.lease > Duration::from_secs(3600) {
            return refuse(
                "lease",
                "it must be at most an hour; a lease is extended while it is needed",
            );
        }
        for (setting, time) in [
            ("result_ttl", self.result_ttl),
            ("indeterminate_ttl", self.indeterminate_ttl),
        ] {
            if time < Duration::from_millis(1) {
                return refuse(setting, "it must be at least 1 ms");
            }
            if time > TEN_YEARS {
                return refuse(setting, "it must be at most ten years");
            }
        }
        if self.indeterminate_ttl < self.lease.saturating_add(self.attempt_timeout) {
            return refuse(
                "indeterminate_ttl",
                "it must be at least the lease and the attempt time-out together",
            );
        }
        if self.max_response_bytes == 0 {
            return refuse("max_response_bytes", "it must not be 0");
        }
        Ok(())
    }

    pub(super) fn response_rules(&self) -> ResponseRules {
        ResponseRules {
            result_ttl: self.result_ttl,
            on_unknown: self.on_unknown,
            classify: self.classify.clone(),
            max_response_bytes: self.max_response_bytes,
            ambient: self.ambient.clone(),
        }
    }
}

impl fmt::Debug for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terms")
            .field("lease", &self.lease)
            .field("result_ttl", &self.result_ttl)
            .field("indeterminate_ttl", &self.indeterminate_ttl)
            .field("attempt_timeout", &self.attempt_timeout)
            .field("on_unknown", &self.on_unknown)
            .field("max_response_bytes", &self.max_response_bytes)
            .field("route", &self.route)
            .finish_non_exhaustive()
    }
}

/// The terms that apply after the lease is acquired: how an answer is classified and kept.
pub(super) struct ResponseRules {
    pub(super) result_ttl: Duration,
    pub(super) on_unknown: OnUnknown,
    pub(super) classify: Arc<dyn Fn(&Outcome) -> Verdict + Send + Sync>,
    pub(super) max_response_bytes: usize,
    pub(super) ambient: Ambient,
}

impl fmt::Debug for ResponseRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseRules")
            .field("result_ttl", &self.result_ttl)
            .field("on_unknown", &self.on_unknown)
            .field("max_response_bytes", &self.max_response_bytes)
            .finish_non_exhaustive()
    }
}
