//! The wall clock and the randomness of an engine. All code of the engine takes both from
//! here, so that a test can set them; tokio's clock is used directly.

use std::fmt;
use std::panic::catch_unwind;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use fastrand::Rng;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use crate::error::Error;
use crate::record::{Holder, LeaseId};

/// Checks that this is called within a tokio runtime; elsewhere the first timer panics.
pub(crate) fn in_runtime() -> Result<(), Error> {
    Handle::try_current()
        .map(drop)
        .map_err(|_| Error::NoRuntime)
}

/// Checks that this is called within a tokio runtime with timers.
pub(crate) fn in_runtime_with_timers() -> Result<(), Error> {
    in_runtime()?;
    // Tokio reports it only by a panic.
    catch_unwind(|| drop(sleep(Duration::ZERO))).map_err(|_| Error::NoRuntime)
}

/// The longest host name in a record, in characters: the limit of DNS.
const MAX_HOST: usize = 253;

/// The wall clock and the randomness of one engine. A clone draws from the same
/// sources.
///
/// The wall clock is the system's at the start plus tokio's time since then. It ignores
/// later steps of the system's clock, and paused time moves it.
#[derive(Clone)]
pub(crate) struct Ambient(Arc<Sources>);

struct Sources {
    wall_start: SystemTime,
    origin: Instant,
    /// This engine's host and process, for operators.
    holder: Arc<Holder>,
    /// `None` draws from the operating system and from fastrand's own generator.
    seeded: Option<Mutex<Rng>>,
}

impl Ambient {
    /// The system's clock, starting now, and unpredictable randomness.
    pub(crate) fn system() -> Self {
        let host = gethostname::gethostname();
        let host = host
            .to_string_lossy()
            .chars()
            .take(MAX_HOST)
            .collect::<String>();
        Self::new(SystemTime::now(), &host, None)
    }

    /// A clock that starts at `wall_start` now, and randomness that repeats with
    /// its seed.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn seeded(seed: u64, wall_start: SystemTime) -> Self {
        let rng = Some(Mutex::new(Rng::with_seed(seed)));
        Self::new(wall_start, "seeded", rng)
    }

    fn new(wall_start: SystemTime, host: &str, seeded: Option<Mutex<Rng>>) -> Self {
        let holder = Holder {
            host: host.into(),
            process: std::process::id(),
            started: wall_start,
        };
        Self(Arc::new(Sources {
            wall_start,
            origin: Instant::now(),
            holder: Arc::new(holder),
            seeded,
        }))
    }

    /// The time by the wall clock.
    pub(crate) fn wall_now(&self) -> SystemTime {
        let Sources {
            wall_start, origin, ..
        } = &*self.0;
        // Only a test starts a clock so late that it overflows.
        wall_start
            .checked_add(origin.elapsed())
            .unwrap_or(*wall_start)
    }

    /// This engine's host, process and start time.
    pub(crate) fn holder(&self) -> Arc<Holder> {
        self.0.holder.clone()
    }

    /// A number from 0 to 1, for jitter.
    pub(crate) fn fraction(&self) -> f64 {
        self.draw(Rng::f64).unwrap_or_else(fastrand::f64)
    }

    /// A lease id that no other execution has.
    pub(crate) fn lease_id(&self) -> LeaseId {
        self.draw(|rng| LeaseId::from_bytes(rng.u128(..).to_be_bytes()))
            .unwrap_or_else(LeaseId::random)
    }

    fn draw<T>(&self, from: impl FnOnce(&mut Rng) -> T) -> Option<T> {
        let rng = self.0.seeded.as_ref()?;
        // A generator is plain numbers: a panic leaves it usable.
        Some(from(
            &mut rng.lock().unwrap_or_else(PoisonError::into_inner),
        ))
    }
}

impl fmt::Debug for Ambient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ambient")
            .field("wall_now", &self.wall_now())
            .field("seeded", &self.0.seeded.is_some())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

    #[tokio::test(start_paused = true)]
    async fn wall_clock_moves_with_tokio_time_alone() {
        let start = SystemTime::UNIX_EPOCH + 30 * YEAR;
        let ambient = Ambient::seeded(1, start);
        tokio::time::advance(YEAR).await;
        assert_eq!(ambient.wall_now(), start + YEAR);
        assert_eq!(ambient.clone().wall_now(), start + YEAR);
    }

    #[test]
    fn seed_repeats_and_system_does_not() {
        let draws = |ambient: Ambient| (ambient.lease_id(), ambient.lease_id());
        let seeded = |seed| draws(Ambient::seeded(seed, SystemTime::UNIX_EPOCH));
        assert_eq!(seeded(7), seeded(7));
        assert_ne!(seeded(7), seeded(8));
        assert_ne!(seeded(7).0, seeded(7).1);
        assert_ne!(draws(Ambient::system()), draws(Ambient::system()));
        let fraction = Ambient::system().fraction();
        assert!((0.0..1.0).contains(&fraction), "{fraction}");
    }
}
