//! The clock of the file's records: one line of time that goes on from one run
//! to the next. It never follows a step of the machine's clock while it runs.

#[cfg(feature = "testing")]
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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

/// Two readings at one moment, in nanoseconds: the store's and the wall's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) store: u64,
    pub(super) wall: u64,
}

/// The store's time, in nanoseconds. It begins at the wall clock's when the file
/// is created; from then on it counts what passes.
#[derive(Debug)]
pub(super) struct Timeline {
    source: Source,
    start: u64,
    elapsed_at_start: Duration,
}

impl Timeline {
    /// Goes on from the last stamp of the run before, by what the wall clock
    /// says has passed since; a wall clock set back counts as no time.
    pub(super) fn resume(source: Source, last: Option<Stamp>) -> Self {
        let wall = since_epoch(source.wall());
        let start = match last {
            Some(last) => last.store.saturating_add(wall.saturating_sub(last.wall)),
            None => wall,
        };
        let elapsed_at_start = source.elapsed();
        Self {
            source,
            start,
            elapsed_at_start,
        }
    }

    pub(super) fn now(&self) -> u64 {
        let elapsed = self.source.elapsed().saturating_sub(self.elapsed_at_start);
        self.start.saturating_add(nanos(elapsed))
    }

    pub(super) fn wall(&self) -> SystemTime {
        self.source.wall()
    }

    pub(super) fn stamp(&self) -> Stamp {
        Stamp {
            store: self.now(),
            wall: since_epoch(self.wall()),
        }
    }
}

/// A duration in nanoseconds; five centuries and more are for ever, in practice.
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
    /// A clock that stands still, at the machine's present time.
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Hands {
            elapsed: Duration::ZERO,
            wall: SystemTime::now(),
        })))
    }

    /// Lets time pass: the monotonic clock and the wall clock go on together.
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
        // Two plain values: no panic can leave them half set.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(feature = "testing")]
impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}
