//! A wrong machine clock over many openings of one file: it loses no record that prevents a
//! second execution.

use std::time::UNIX_EPOCH;

use genesys_once::testing::ManualClock;

use super::*;

pub const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
pub const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

/// A clock right after a boot.
pub fn boot(wall: SystemTime) -> ManualClock {
    let clock = ManualClock::new();
    clock.set_wall(wall);
    clock
}

/// One outcome and one indeterminate key.
async fn write_both(store: &FileStore) {
    done(store, 1, acquire(1)).await;
    done(store, 1, complete(1)).await;
    done(store, 2, acquire(2)).await;
    done(store, 2, abandon(2)).await;
}

async fn assert_both(store: &FileStore, when: &str) {
    assert_cached(1, store.look(&name(1)).await.unwrap());
    let state = store.look(&name(2)).await.unwrap();
    let held = matches!(state, Some(RecordState::Indeterminate { .. }));
    assert!(held, "{when}: {state:?}");
}

/// Seen red if a wall time below the last was stamped: 30 of 30 recorded keys were executed
/// again, and 10 of 10 indeterminate keys were lost.
#[tokio::test]
async fn boot_at_1970_and_a_correction_forget_nothing() {
    let decade = 3650 * DAY;
    for (what, first) in [
        ("1970", UNIX_EPOCH),
        ("ten years ahead", SystemTime::now() + decade),
    ] {
        let folder = Folder::new("boot-1970");
        let right = SystemTime::now();
        let store = FileStore::open_with_clock(folder.file(), boot(right)).unwrap();
        write_both(&store).await;
        drop(store);

        let clock = boot(first);
        let store = FileStore::open_with_clock(folder.file(), clock.clone()).unwrap();
        assert_both(&store, what).await;
        clock.advance(MINUTE);
        clock.set_wall(right + 2 * MINUTE);
        // The power fails before the next write.
        let copy = folder.path().join("power-fails.redb");
        std::fs::copy(folder.file(), &copy).unwrap();
        drop(store);

        let clock = boot(right + 3 * MINUTE);
        let store = FileStore::open_with_clock(&copy, clock.clone()).unwrap();
        assert_both(&store, what).await;
        // Expired records stay expired.
        clock.advance(TTL);
        assert_eq!(store.look(&name(1)).await.unwrap(), None, "{what}");
    }
}

/// Seen red: each pair of boots aged the records by an hour, and after 47 boots all records
/// were lost.
#[tokio::test]
async fn clock_that_is_wrong_at_every_other_boot_counts_once() {
    let folder = Folder::new("every-other");
    let right = SystemTime::now();
    for number in 0..60_u32 {
        let wrong = if number % 2 == 1 {
            HOUR
        } else {
            Duration::ZERO
        };
        let clock = boot(right + number * MINUTE + wrong);
        let store = FileStore::open_with_clock(folder.file(), clock).unwrap();
        if number == 0 {
            write_both(&store).await;
        }
        assert_both(&store, &format!("boot {number}")).await;
        let Some(RecordState::Cached { left, .. }) = store.look(&name(1)).await.unwrap() else {
            unreachable!("seen above")
        };
        assert!(TTL - left <= HOUR + number * MINUTE, "boot {number}");
    }
}

/// Seen red if a step ahead of any length counts. Within the week, an outcome expires and
/// an indeterminate key does not.
#[tokio::test]
async fn step_of_more_than_a_week_ages_nothing() {
    for (ahead, is_believed) in [(WEEK, true), (WEEK + MINUTE, false), (500 * DAY, false)] {
        let folder = Folder::new("ahead");
        let right = SystemTime::now();
        let store = FileStore::open_with_clock(folder.file(), boot(right)).unwrap();
        write_both(&store).await;
        drop(store);
        let store = FileStore::open_with_clock(folder.file(), boot(right + ahead)).unwrap();
        let cached = store.look(&name(1)).await.unwrap();
        assert_eq!(cached.is_none(), is_believed, "{ahead:?}: {cached:?}");
        let held = store.look(&name(2)).await.unwrap();
        assert!(
            matches!(held, Some(RecordState::Indeterminate { .. })),
            "{ahead:?}: {held:?}"
        );
    }
}

/// Seen red if `Indeterminate` ages while no process has the file open.
#[tokio::test]
async fn indeterminate_key_ages_by_the_time_the_file_was_open() {
    let folder = Folder::new("open-time");
    let mut wall = SystemTime::now();
    // The machine is off for six days, then on for one.
    for day in 0..8 {
        let clock = boot(wall);
        let store = FileStore::open_with_clock(folder.file(), clock.clone()).unwrap();
        if day == 0 {
            done(&store, 2, acquire(2)).await;
            done(&store, 2, abandon(2)).await;
        }
        let held = store.look(&name(2)).await.unwrap();
        assert_eq!(held.is_some(), day < 7, "day {day}: {held:?}");
        clock.advance(DAY);
        drop(store);
        wall += WEEK;
    }
}
