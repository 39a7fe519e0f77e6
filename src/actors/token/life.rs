//! How long a token is used and when it is renewed, by the lifetime that the endpoint
//! names. Plain numbers; it never waits.

use std::time::Duration;

/// Ten days: beyond any lifetime that the platform grants (48 h).
const MAX_LIFE: Duration = Duration::from_secs(10 * 24 * 3600);
/// A token with a shorter lifetime is renewed on demand, not in the background: an endpoint
/// can name any lifetime, and there might be no caller.
const MIN_RENEWED_LIFE: Duration = Duration::from_secs(60);

/// For how long a token is used, and when it is renewed in the background.
pub(super) fn times(life: Option<Duration>) -> (Option<Duration>, Option<Duration>) {
    // Less than a second counts as no lifetime: such a token is used until it is refused,
    // instead of being fetched in a loop.
    let life = life.filter(|life| *life >= Duration::from_secs(1));
    // The platform's default is a day; a longer lifetime is cut.
    let until = life.map(|life| (life - margin(life)).min(MAX_LIFE));
    let early = |life: Duration| life.saturating_sub(2 * margin(life)).min(MAX_LIFE / 2);
    let renewed = life.filter(|life| *life >= MIN_RENEWED_LIFE);
    (until, renewed.map(early))
}

/// A token is used until this long before its expiry. That leaves time for a request to
/// arrive, and for the renewal, which begins twice as early.
fn margin(life: Duration) -> Duration {
    (life / 10).min(Duration::from_secs(60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_lifetimes_have_no_background_renewal() {
        let seconds = |life| {
            let (until, renew) = times(life);
            (until.map(|t| t.as_secs()), renew.map(|t| t.as_secs()))
        };
        let life = |s| Some(Duration::from_secs(s));
        assert_eq!(seconds(None), (None, None));
        assert_eq!(seconds(Some(Duration::from_millis(999))), (None, None));
        assert_eq!(seconds(life(10)), (Some(9), None));
        assert_eq!(seconds(life(59)), (Some(53), None));
        assert_eq!(seconds(life(60)), (Some(54), Some(48)));
        assert_eq!(seconds(life(86_400)), (Some(86_340), Some(86_280)));
        let (until, renew) = times(Some(Duration::MAX));
        assert_eq!((until, renew), (Some(MAX_LIFE), Some(MAX_LIFE / 2)));
    }
}
