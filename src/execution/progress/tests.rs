//! The progress in `Debug` form, and the smaller form of its events.

use super::*;
use crate::key::{Fingerprint, LeaseId};
use crate::record::Attempts;
use std::fmt::Write;

/// Reads the progress while it is written to, as a subscriber might.
struct Asks<'a>(&'a Progress, usize);

impl Write for Asks<'_> {
    fn write_str(&mut self, _: &str) -> fmt::Result {
        self.1 += usize::from(self.0.is_finished());
        Ok(())
    }
}

/// The cause of a failure can be long, and a full store accepts little.
///
/// Red if an abandon has no smaller form: only the expiry of its lease then says
/// that the request might have been executed.
#[test]
fn long_cause_has_a_smaller_form() {
    let abandon = |cause: &str| Event::Abandon {
        claim: Claim {
            lease: LeaseId::from_bytes([1; 16]),
            fingerprint: Fingerprint::from_bytes([2; 32]),
            lease_ttl: Duration::from_secs(1),
            retention: Duration::from_secs(2),
            attempts: Attempts::default(),
            about: Default::default(),
        },
        step: 1,
        cause: cause.into(),
    };
    // A character ends beyond the limit.
    let long = format!("x{}", "é".repeat(900));
    let smaller = reduced(abandon(&long)).unwrap();
    assert_eq!(smaller, abandon(&long[..199]));
    assert_eq!(reduced(smaller), None);
}

/// Red if it is printed under its lock: the reader then blocks without end.
#[test]
fn progress_is_printed_without_its_lock() {
    let request = DataActionRequest::new("refund", "{}").unwrap();
    let progress = Progress::new(&request);
    let mut asks = Asks(&progress, 0);
    write!(asks, "{progress:?}").unwrap();
    assert!(asks.1 > 0);
}
