//! placeholder
use crate::outcome::Outcome;
use std::time::{Duration, SystemTime};
/// placeholder
pub fn retry_after(_outcome: &Outcome, _now: SystemTime) -> Option<Duration> {
    None
}
