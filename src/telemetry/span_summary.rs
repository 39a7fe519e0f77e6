//! What an execution reports to its spans: how many calls it made, and the verdict of the
//! last one. It decides nothing; the execution's `Progress` knows what the record holds.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

use crate::outcome::Verdict;

/// The summary of one execution, across all leases that it took.
#[derive(Debug, Default)]
pub(crate) struct SpanSummary {
    attempts: AtomicU32,
    /// The index of the last verdict's label, from 1; 0 for none.
    verdict: AtomicU8,
    leased: AtomicBool,
}

const LABELS: [&str; 3] = ["final", "not_executed", "unknown"];

/// A verdict's label in metrics and spans.
pub(super) fn label(verdict: Verdict) -> &'static str {
    LABELS[usize::from(index(verdict))]
}

fn index(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Final => 0,
        Verdict::NotExecuted(_) => 1,
        Verdict::Unknown => 2,
    }
}

impl SpanSummary {
    /// A call is about to leave; until its verdict, its outcome is unknown.
    pub(crate) fn sent(&self) {
        self.attempts.fetch_add(1, Ordering::Relaxed);
        self.judged(Verdict::Unknown);
    }

    /// The verdict of the last call.
    pub(crate) fn judged(&self, verdict: Verdict) {
        self.verdict.store(index(verdict) + 1, Ordering::Relaxed);
    }

    /// How many calls were put on the wire.
    pub(crate) fn attempts(&self) -> u32 {
        self.attempts.load(Ordering::Relaxed)
    }

    /// The label of the last call's verdict, where a call was made.
    pub(crate) fn verdict(&self) -> Option<&'static str> {
        let verdict = usize::from(self.verdict.load(Ordering::Relaxed));
        LABELS.get(verdict.checked_sub(1)?).copied()
    }

    /// The store granted a lease.
    pub(crate) fn lease_taken(&self) {
        self.leased.store(true, Ordering::Relaxed);
    }

    /// The lease was released or completed, or was lost before.
    pub(crate) fn lease_ended(&self) {
        self.leased.store(false, Ordering::Relaxed);
    }

    /// The lease is lost; returns whether there was one that had not ended.
    pub(super) fn lose_lease(&self) -> bool {
        self.leased.swap(false, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Recovery;

    #[test]
    fn the_last_verdict_counts_and_a_call_under_way_is_unknown() {
        let summary = SpanSummary::default();
        assert_eq!((summary.attempts(), summary.verdict()), (0, None));
        summary.sent();
        assert_eq!(summary.verdict(), Some("unknown"));
        summary.judged(Verdict::NotExecuted(Recovery::Retry));
        assert_eq!(summary.verdict(), Some("not_executed"));
        summary.sent();
        summary.judged(Verdict::Final);
        assert_eq!((summary.attempts(), summary.verdict()), (2, Some("final")));
    }

    #[test]
    fn a_lease_is_lost_once() {
        let summary = SpanSummary::default();
        assert!(!summary.lose_lease());
        summary.lease_taken();
        assert!(summary.lose_lease() && !summary.lose_lease());
        summary.lease_taken();
        summary.lease_ended();
        assert!(!summary.lose_lease());
    }
}
