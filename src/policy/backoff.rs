//! How long to wait before another attempt: an own backoff, its jitter, and the bounds
//! of a time that a peer asks for. Pure: the random number is a parameter.

use std::time::Duration;

/// The longest wait that a peer may ask for. After it, one request finds out whether
/// the peer still asks for it.
pub(crate) const MAX_ASKED: Duration = Duration::from_secs(60 * 60);

/// The shortest wait after a peer asked for one, however short the backoff is.
const MIN_ASKED: Duration = Duration::from_millis(10);

/// How long to wait: at least `own` (the backoff with its jitter), and longer where a
/// peer `asked` for more, up to an hour. Every time that a peer names passes here.
pub(crate) fn bounded_wait(asked: Option<Duration>, own: Duration) -> Duration {
    match asked {
        Some(asked) => asked.clamp(MIN_ASKED, MAX_ASKED).max(own),
        None => own,
    }
}

/// A backoff with its jitter: up to half of it longer, never shorter. `random` is
/// from 0 to 1.
pub(crate) fn jittered(backoff: Duration, random: f64) -> Duration {
    backoff.mul_f64(1.0 + random.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asked_wait_is_bounded_from_both_sides() {
        let second = Duration::from_secs(1);
        for (asked, own, wait) in [
            (None, 0, Duration::ZERO),
            (None, 9, 9 * second),
            (Some(Duration::ZERO), 0, MIN_ASKED),
            (Some(Duration::ZERO), 2, 2 * second),
            (Some(second), 2, 2 * second),
            (Some(3 * second), 2, 3 * second),
            (Some(Duration::MAX), 2, MAX_ASKED),
            (Some(Duration::MAX), 7200, 7200 * second),
        ] {
            assert_eq!(bounded_wait(asked, Duration::from_secs(own)), wait);
        }
        for (random, wait) in [(0.0, 2.0), (0.5, 2.5), (1.0, 3.0), (9.0, 3.0), (-1.0, 2.0)] {
            let wait = Duration::from_secs_f64(wait);
            assert_eq!(jittered(2 * second, random), wait);
        }
    }
}
