//! The time limit of a store's command: it ends once nothing has moved for the limit. A
//! store that transfers large bodies reports each movement; for every other store the limit
//! is that of the whole command.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

tokio::task_local! {
    /// When bytes last moved for the command that this task waits for.
    static MOVED: Cell<Instant>;
}

/// Longer than any store time-out, and within the range of every clock.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Returns the command's result; `None` once nothing has moved for `silence`.
pub(super) async fn within<T>(silence: Duration, command: impl Future<Output = T>) -> Option<T> {
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
    MOVED.scope(Cell::new(Instant::now()), waiting).await
}

/// Reports that bytes moved at this time for the command that this task waits for.
#[cfg(any(feature = "redis", test))]
pub(super) fn moved(at: Instant) {
    // Outside of a command there is no limit to extend.
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
        assert_eq!(within(2 * SECOND, slow).await, Some("done"));
        assert_eq!(begun.elapsed(), 20 * SECOND);

        let stuck = async {
            sleep(SECOND).await;
            moved(Instant::now());
            sleep(3 * SECOND).await;
        };
        assert_eq!(within(2 * SECOND, stuck).await, None);
        assert_eq!(begun.elapsed(), 23 * SECOND);
        // A movement before the command does not count; outside of a command it is ignored.
        moved(begun);
        let silent = async {
            moved(begun);
            sleep(3 * SECOND).await;
        };
        assert_eq!(within(2 * SECOND, silent).await, None);
    }
}
