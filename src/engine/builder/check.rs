//! Checks the settings, each alone and together. It starts nothing.

use std::time::Duration;

use super::EngineBuilder;
use crate::error::Error;
use crate::execution::TEN_YEARS;

/// The shortest time between two walks through the indeterminate keys.
const MIN_WATCH_PERIOD: Duration = Duration::from_secs(1);

impl EngineBuilder {
    pub(super) fn check(&self) -> Result<(), Error> {
        let refuse = |setting, reason: &str| Err(Error::invalid_config(setting, reason));
        let Self { terms, limits, .. } = self;
        terms.check()?;
        for (setting, time) in [
            ("deadline", self.deadline),
            ("store_timeout", self.store_timeout),
        ] {
            if time < Duration::from_millis(1) {
                return refuse(setting, "it must be at least 1 ms");
            }
        }
        let every = self.watch_indeterminate;
        if every.is_some_and(|every| !(MIN_WATCH_PERIOD..=TEN_YEARS).contains(&every)) {
            return refuse("watch_indeterminate", "it must be 1 s to ten years");
        }
        if limits.recent_ttl > TEN_YEARS {
            return refuse("recent", "its time must be at most ten years");
        }
        if self.store_timeout > terms.lease {
            return refuse(
                "store_timeout",
                "it must not exceed the lease: a slow answer would leave nothing of it",
            );
        }
        for (setting, number) in [
            ("max_in_flight", self.max_in_flight),
            ("max_in_flight_per_action", self.max_in_flight_per_action),
            ("max_payload_bytes", self.max_payload_bytes),
        ] {
            if number == 0 {
                return refuse(setting, "it must not be 0");
            }
        }
        if limits.max_waiting < 2 {
            return refuse(
                "max_waiting",
                "it must be at least 2: one caller and one execution",
            );
        }
        if let Some(fault) = self.retry.fault() {
            return refuse("retry", fault);
        }
        self.upstream.check()
    }
}
