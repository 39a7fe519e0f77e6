//! The time limit of a store's command: it ends once nothing has moved for the limit. A
//! store that transfers large bodies reports each movement; for every other store the limit
//! is that of the whole command.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

tokio::task_local! {
    /// The command that this task waits for.
    static COMMAND: Command;
}

struct Command {
    /// When bytes last moved for the command.
    moved: Cell<Instant>,
    silence: Duration,
}

impl Command {
    /// When the command ends if nothing moves.
    fn end(&self) -> Instant {
        self.moved.get() + self.silence
    }
}

/// Longer than any store time-out, and within the range of every clock.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Returns the result of the command that was sent at `begun`; `None` once nothing has
/// moved for `silence`.
pub(super) async fn within<T>(
    begun: Instant,
    silence: Duration,
    command: impl Future<Output = T>,
) -> Option<T> {
    let silence = silence.min(DAY);
    let waiting = async {
        let mut command = pin!(command);
        loop {
            let until = COMMAND.with(Command::end);
            if let Ok(answer) = timeout_at(until, command.as_mut()).await {
                return Some(answer);
            }
            if COMMAND.with(Command::end) == until {
                return None;
            }
        }
    };
    let moved = Cell::new(begun);
    COMMAND.scope(Command { moved, silence }, waiting).await
}

/// What `answer` completes with by `end`, if it does. It needs no timer of its own if
/// the command that this task waits for ends no later.
#[cfg(any(feature = "redis", test))]
pub(super) async fn by<T>(end: Instant, answer: impl Future<Output = T>) -> Option<T> {
    match COMMAND.try_with(|command| command.end() <= end) {
        Ok(true) => Some(answer.await),
        _ => timeout_at(end, answer).await.ok(),
    }
}

/// Reports that bytes moved at this time for the command that this task waits for.
#[cfg(any(feature = "redis", test))]
pub(super) fn moved(at: Instant) {
    // Outside of a command there is no limit to extend.
    let _ = COMMAND.try_with(|command| command.moved.set(command.moved.get().max(at)));
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
        // A movement before the command does not count; outside of a command it is ignored.
        moved(begun);
        let silent = async {
            moved(begun);
            sleep(3 * SECOND).await;
        };
        assert_eq!(within(Instant::now(), 2 * SECOND, silent).await, None);
    }

    /// Red when the limit of a part is dropped that is over before the command's.
    #[tokio::test(start_paused = true)]
    async fn part_ends_with_the_earlier_of_both_limits() {
        let begun = Instant::now();
        let part = |seconds| by(begun + seconds * SECOND, std::future::pending::<()>());
        assert_eq!(within(begun, 5 * SECOND, part(3)).await, Some(None));
        assert_eq!(begun.elapsed(), 3 * SECOND);
        assert_eq!(within(begun, 5 * SECOND, part(6)).await, None);
        assert_eq!(begun.elapsed(), 5 * SECOND);
        assert_eq!(part(6).await, None);
        assert_eq!(begun.elapsed(), 6 * SECOND);
    }
}
