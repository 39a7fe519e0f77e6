//! The waits after failed fetches and after deaths of the token actor. Plain numbers; it
//! never waits itself.

use std::time::Duration;

use tokio::time::Instant;

/// The wait after the first failure; doubled with each further failure.
const BACKOFF: Duration = Duration::from_millis(500);
/// The longest wait between two fetches while they fail.
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// The wait after this many failures in a row, from 1.
pub(super) fn backed_off(failures: u32) -> Duration {
    let exponent = failures.saturating_sub(1).min(16);
    (BACKOFF * (1 << exponent)).min(MAX_BACKOFF)
}

/// How long a successor waits before it starts: of a dead token actor, or of a refused
/// token. The first does not wait. The wait grows while they fail early. Restarts never
/// stop.
#[derive(Debug, Default)]
pub(crate) struct Restarts {
    last: Option<Instant>,
    row: u32,
}

impl Restarts {
    /// The predecessor failed now.
    pub(crate) fn wait(&mut self) -> Duration {
        let now = Instant::now();
        let young = |last| now.saturating_duration_since(last) < 2 * MAX_BACKOFF;
        self.row = match self.last.is_some_and(young) {
            true => self.row + 1,
            false => 0,
        };
        let wait = match self.row {
            0 => Duration::ZERO,
            row => backed_off(row),
        };
        self.last = Some(now + wait);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn restarts_back_off_and_never_stop() {
        let mut restarts = Restarts::default();
        assert_eq!(restarts.wait(), Duration::ZERO);
        let waits: Vec<_> = (0..1_000).map(|_| restarts.wait()).collect();
        assert_eq!(waits[..3], [SECOND / 2, SECOND, 2 * SECOND]);
        assert!(waits.is_sorted() && waits[999] == MAX_BACKOFF);
        // An actor that lived for a minute gets a successor at once.
        tokio::time::advance(MAX_BACKOFF + 60 * SECOND).await;
        assert_eq!(restarts.wait(), Duration::ZERO);
    }
}
