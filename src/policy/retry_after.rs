//! placeholder
use std::time::{Duration, SystemTime};
use crate::outcome::Outcome;
/// placeholder
pub fn retry_after(_outcome: &Outcome, _now: SystemTime) -> Option<Duration> { None }
