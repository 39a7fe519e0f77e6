//! The limit of outcomes that wait for the store.

use super::*;

/// Red if room is never freed: after enough outages every outcome that the store does not
/// record at once would be given up.
#[test]
fn room_for_outcomes_is_bounded_and_freed() {
    let all = Unfinished::default();
    let half = (MAX_UNFINISHED_BYTES / 2 - ENTRY_BYTES) as usize;
    for _ in 0..3 {
        let kept = [all.keep(half), all.keep(half)];
        assert!(kept.iter().all(Option::is_some));
        assert!(all.keep(0).is_none(), "an entry counts by itself");
    }
    assert!(all.keep(2 * half).is_some());
    assert!(all.keep(MAX_UNFINISHED_BYTES as usize).is_none());
}
