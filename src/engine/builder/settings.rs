//! The settings of an engine as members of JSON, or of any other format of serde. It reads
//! no file. Bounds are checked by `start`, those of a retry policy by the policy.

use std::time::Duration;

use serde::Deserialize;

use super::EngineBuilder;
use crate::policy::{OnDuplicate, OnUnknown, RetryPolicy};

/// The settings of an [`EngineBuilder`] that a settings file can hold.
///
/// Each member has the name of a method of the builder, and `_ms` behind it if it is a
/// duration, in milliseconds. [`recent`](EngineBuilder::recent) is two members,
/// `recent_bytes` and `recent_ms`. All are optional: an absent one changes nothing, but an
/// absent member of `retry` is the default of [`RetryPolicy`]. Another member is an error,
/// and so is a retry policy out of bounds. [`start`](EngineBuilder::start) checks the other
/// bounds.
///
/// ```
/// # #[cfg(feature = "testing")] {
/// # use genesys_once::testing::{ScriptedUpstream, Step};
/// use genesys_once::Engine;
/// use genesys_once::engine::Settings;
///
/// let text = r#"{
///     "on_duplicate": "fail_fast",
///     "retry": {"attempts": 5, "backoff_ms": 500},
///     "deadline_ms": 60000,
///     "max_in_flight": 20
/// }"#;
/// let settings: Settings = serde_json::from_str(text)?;
/// # let upstream = ScriptedUpstream::new(|_| Step::ok("{}"));
/// let builder = Engine::builder(upstream).settings(settings);
/// # }
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    on_duplicate: Option<OnDuplicate>,
    on_unknown: Option<OnUnknown>,
    retry: Option<RetryPolicy>,
    result_ttl_ms: Option<u64>,
    indeterminate_ttl_ms: Option<u64>,
    watch_indeterminate_ms: Option<u64>,
    lease_ms: Option<u64>,
    deadline_ms: Option<u64>,
    store_timeout_ms: Option<u64>,
    max_in_flight: Option<usize>,
    max_in_flight_per_action: Option<usize>,
    max_waiting: Option<usize>,
    max_payload_bytes: Option<usize>,
    max_response_bytes: Option<usize>,
    recent_bytes: Option<u64>,
    recent_ms: Option<u64>,
}

impl EngineBuilder {
    /// Sets each setting that is present; another keeps its value.
    pub fn settings(mut self, settings: Settings) -> Self {
        let (terms, limits) = (&mut self.terms, &mut self.limits);
        set(&mut self.on_duplicate, settings.on_duplicate);
        set(&mut terms.on_unknown, settings.on_unknown);
        set(&mut self.retry, settings.retry);
        set_ms(&mut terms.result_ttl, settings.result_ttl_ms);
        set_ms(&mut terms.indeterminate_ttl, settings.indeterminate_ttl_ms);
        if let Some(every) = settings.watch_indeterminate_ms {
            self.watch_indeterminate = Some(Duration::from_millis(every));
        }
        set_ms(&mut terms.lease, settings.lease_ms);
        set_ms(&mut self.deadline, settings.deadline_ms);
        set_ms(&mut self.store_timeout, settings.store_timeout_ms);
        set(&mut self.max_in_flight, settings.max_in_flight);
        set(
            &mut self.max_in_flight_per_action,
            settings.max_in_flight_per_action,
        );
        set(&mut limits.max_waiting, settings.max_waiting);
        set(&mut self.max_payload_bytes, settings.max_payload_bytes);
        set(&mut terms.max_response_bytes, settings.max_response_bytes);
        set(&mut limits.recent_bytes, settings.recent_bytes);
        set_ms(&mut limits.recent_ttl, settings.recent_ms);
        self
    }
}

fn set<T>(setting: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *setting = value;
    }
}

fn set_ms(setting: &mut Duration, value: Option<u64>) {
    set(setting, value.map(Duration::from_millis));
}

#[cfg(all(test, feature = "testing"))]
mod tests;
