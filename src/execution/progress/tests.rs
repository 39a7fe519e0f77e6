//! Printed as foreign code sees it.

use super::*;
use std::fmt::Write;

/// Asks while it is written to, as a subscriber may.
struct Asks<'a>(&'a Progress, usize);

impl Write for Asks<'_> {
    fn write_str(&mut self, _: &str) -> fmt::Result {
        self.1 += usize::from(self.0.is_settled());
        Ok(())
    }
}

/// Red where it is printed under its lock: the question then waits for ever.
#[test]
fn progress_is_printed_with_its_lock_free() {
    let request = DataActionRequest::new("refund", "{}").unwrap();
    let progress = Progress::new(&request);
    let mut asks = Asks(&progress, 0);
    write!(asks, "{progress:?}").unwrap();
    assert!(asks.1 > 0);
}
