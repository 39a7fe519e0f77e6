//! How long a command of a store may take: as long as something moves. A store that
//! transfers much says when it last did; of any other, the limit is that of the whole
//! command.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

tokio::task_local! {
    /// When something last moved for the command that this task waits for.
    static MOVED: Cell<Instant>;
}

/// Longer than anybody waits, and within every clock.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What the command returns that was sent at `begun`; `None` once nothing has moved for
/// so long.
pub(super) async fn within<T>(
    begun: Instant,
    silence: Duration,
    command: impl Future<Output = T>,
) -> Option<T> {
    let silence = silence.min(DAY);
    let waiting = async {
        let mut command = pin!(command);
        loop {
            let until = MOVED.with(Cell::get) + silence;
            if let Ok(answer) = timeout_at(until, command.as_mut()).await {
                return Some(answer);
            }
            if MOVED.with(Cell::get) + silence == until {
                return None;
            }
        }
    };
    MOVED.scope(Cell::new(begun), waiting).await
}

/// Says that something moved at that time for the command that this task waits for, if
/// it does.
#[cfg(any(feature = "redis", test))]
pub(super) fn moved(at: Instant) {
    // Outside of a command nobody waits.
    let _ = MOVED.try_with(|last| last.set(last.get().max(at)));
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Red when the limit is that of the whole command, or when silence is none.
    #[tokio::test(start_paused = true)]
    async fn command_goes_on_while_something_moves() {
        let begun = Instant::now();
        let slow = async {
            for _ in 0..20 {
                sleep(SECOND).await;
                moved(Instant::now());
            }
            "done"
        };
        assert_eq!(within(begun, 2 * SECOND, slow).await, Some("done"));
        assert_eq!(begun.elapsed(), 20 * SECOND);

        let stuck = async {
            sleep(SECOND).await;
            moved(Instant::now());
            sleep(3 * SECOND).await;
        };
        assert_eq!(within(Instant::now(), 2 * SECOND, stuck).await, None);
        assert_eq!(begun.elapsed(), 23 * SECOND);
        // What moved before counts for nothing, and nobody need wait.
        moved(begun);
        let silent = async {
            moved(begun);
            sleep(3 * SECOND).await;
        };
        assert_eq!(within(Instant::now(), 2 * SECOND, silent).await, None);
    }
}
