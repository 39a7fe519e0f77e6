//! How long a token is used and when it is renewed, by the life that the endpoint
//! names. Plain numbers; nothing here waits.

use std::time::Duration;

/// Ten days: beyond any lifetime that the platform grants (48 h).
const MAX_LIFE: Duration = Duration::from_secs(10 * 24 * 3600);
/// A token that lives less long is renewed when one is needed, not in the background:
/// a peer may name any life, and nobody may be there to use it.
const MIN_RENEWED_LIFE: Duration = Duration::from_secs(60);

/// For how long a token is used, and after how long it is renewed in the background.
pub(super) fn times(life: Option<Duration>) -> (Option<Duration>, Option<Duration>) {
    // Less than a second is no lifetime: such a token is used until it is
    // refused, rather than fetched in a circle.
    let life = life.filter(|life| *life >= Duration::from_secs(1));
    // A day is the platform's default; what is longer needs no timer either.
    let until = life.map(|life| (life - margin(life)).min(MAX_LIFE));
    let early = |life: Duration| life.saturating_sub(2 * margin(life)).min(MAX_LIFE / 2);
    let renewed = life.filter(|life| *life >= MIN_RENEWED_LIFE);
    (until, renewed.map(early))
}

/// A token is used until this long before its end: enough for a request to
/// arrive, and for the renewal that begins twice as early.
fn margin(life: Duration) -> Duration {
    (life / 10).min(Duration::from_secs(60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_lives_have_no_renewal_and_long_ones_an_end() {
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
