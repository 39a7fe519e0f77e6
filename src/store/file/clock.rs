//! The two clocks of the file's records: they continue from one run to the next and never
//! go back. Neither follows a step of the machine's clock while the file is open.

use std::sync::atomic::{AtomicU64, Ordering};
#[cfg(feature = "testing")]
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::record::{Content, Record};

/// Where a timeline reads how much time has passed.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// The machine's monotonic clock, and its wall clock between runs.
    System(Instant),
    #[cfg(feature = "testing")]
    Manual(ManualClock),
}

impl Source {
    pub(super) fn system() -> Self {
        Self::System(Instant::now())
    }

    fn elapsed(&self) -> Duration {
        match self {
            Self::System(start) => start.elapsed(),
            #[cfg(feature = "testing")]
            Self::Manual(clock) => clock.lock().elapsed,
        }
    }

    pub(super) fn wall(&self) -> SystemTime {
        match self {
            Self::System(_) => SystemTime::now(),
            #[cfg(feature = "testing")]
            Self::Manual(clock) => clock.lock().wall,
        }
    }
}

/// Which of the store's two clocks a record expires by.
///
/// A record that prevents a second execution must not expire because a wall clock was
/// wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clock {
    /// Counts while the file is open, and between runs by the wall clock.
    Store = 0,
    /// Counts while the file is open: for `Locked` and `Indeterminate`.
    Open = 1,
}

impl Clock {
    pub(super) const ALL: [Self; 2] = [Self::Store, Self::Open];

    /// The clock of a record.
    pub(super) fn of(record: &Record) -> Self {
        if may_be_indeterminate(record) {
            Self::Open
        } else {
            Self::Store
        }
    }
}

/// One moment, by both clocks, in nanoseconds since the file was created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) store: u64,
    pub(super) open: u64,
}

impl Moment {
    pub(super) fn by(self, clock: Clock) -> u64 {
        match clock {
            Clock::Store => self.store,
            Clock::Open => self.open,
        }
    }
}

/// A moment, and the latest time that the wall clock has shown until then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) moment: Moment,
    pub(super) wall: u64,
}

/// If the wall clock is ahead of the last stamp by more than this when the file is opened,
/// the time between counts as zero.
pub(super) const MAX_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// The store's time. Both clocks go on from one run to the next and never back.
#[derive(Debug)]
pub(super) struct Timeline {
    source: Source,
    start: Moment,
    elapsed_at_start: Duration,
    /// The latest time of the wall clock in all runs: a clock that is set back and forward
    /// again counts no time twice.
    wall: AtomicU64,
}

impl Timeline {
    /// Continues from the last stamp of the run before. The store's clock gains the time
    /// since by the wall clock: zero where that was set back, or is ahead by more than
    /// [`MAX_AGE`].
    pub(super) fn resume(source: Source, last: Option<Stamp>) -> Self {
        let wall = since_epoch(source.wall());
        let mut start = Moment { store: 0, open: 0 };
        let mut latest = wall;
        if let Some(last) = last {
            let passed = wall.saturating_sub(last.wall);
            if passed > nanos(MAX_AGE) {
                tracing::warn!(
                    ahead = ?Duration::from_nanos(passed),
                    "the machine's clock is more than a week ahead of the last write to the store's file: no record ages by that time"
                );
            }
            let believed = if passed > nanos(MAX_AGE) { 0 } else { passed };
            start = Moment {
                store: last.moment.store.saturating_add(believed),
                open: last.moment.open,
            };
            latest = wall.max(last.wall);
        }
        let elapsed_at_start = source.elapsed();
        Self {
            source,
            start,
            elapsed_at_start,
            wall: AtomicU64::new(latest),
        }
    }

    pub(super) fn now(&self) -> Moment {
        let elapsed = self.source.elapsed().saturating_sub(self.elapsed_at_start);
        let elapsed = nanos(elapsed);
        Moment {
            store: self.start.store.saturating_add(elapsed),
            open: self.start.open.saturating_add(elapsed),
        }
    }

    pub(super) fn stamp(&self) -> Stamp {
        let wall = since_epoch(self.source.wall());
        let latest = self.wall.fetch_max(wall, Ordering::Relaxed).max(wall);
        Stamp {
            moment: self.now(),
            wall: latest,
        }
    }
}

/// A duration in nanoseconds; at most five centuries.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn since_epoch(time: SystemTime) -> u64 {
    nanos(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// A clock that a test moves (feature `testing`), for
/// [`FileStore::open_with_clock`](super::FileStore::open_with_clock). A clone is
/// the same clock.
///
/// ```
/// use std::time::Duration;
/// use genesys_once::testing::ManualClock;
///
/// let clock = ManualClock::new();
/// let before = clock.wall();
/// clock.advance(Duration::from_secs(60));
/// assert_eq!(clock.wall(), before + Duration::from_secs(60));
/// ```
#[cfg(feature = "testing")]
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<Mutex<Hands>>);

#[cfg(feature = "testing")]
#[derive(Debug)]
struct Hands {
    elapsed: Duration,
    wall: SystemTime,
}

#[cfg(feature = "testing")]
impl ManualClock {
    /// A clock that shows the machine's present time until a test moves it.
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Hands {
            elapsed: Duration::ZERO,
            wall: SystemTime::now(),
        })))
    }

    /// Advances the monotonic clock and the wall clock by the same time.
    ///
    /// # Panics
    ///
    /// Where the wall clock would leave the range of [`SystemTime`].
    pub fn advance(&self, by: Duration) {
        let mut hands = self.lock();
        hands.elapsed += by;
        hands.wall += by;
    }

    /// Sets the wall clock alone, as an operator or a time server does.
    pub fn set_wall(&self, to: SystemTime) {
        self.lock().wall = to;
    }

    /// What the wall clock shows.
    pub fn wall(&self) -> SystemTime {
        self.lock().wall
    }

    fn lock(&self) -> MutexGuard<'_, Hands> {
        // Two plain values: a panic leaves them consistent.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(feature = "testing")]
impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether a record might be indeterminate, now or once its lease has expired.
pub(super) fn may_be_indeterminate(record: &Record) -> bool {
    matches!(
        record.content,
        Content::Locked { .. } | Content::Indeterminate { .. }
    )
}
