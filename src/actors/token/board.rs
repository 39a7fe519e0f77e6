//! What readers see of the token: the one at hand, or why there is none. Plain
//! data; nothing here asks the endpoint or waits.

use std::sync::Arc;

use tokio::time::Instant;

use crate::error::TokenError;
use crate::upstream::AccessToken;

/// A token that may be used now.
#[derive(Clone, Debug)]
pub(crate) struct Current {
    pub token: Arc<AccessToken>,
    /// Which token it is, so that exactly this one can be refused.
    pub(super) id: usize,
    /// Until when it is used, a margin before the platform's own time.
    pub(super) until: Option<Instant>,
    /// When it is renewed.
    pub(super) renew: Option<Instant>,
}

/// What readers see.
#[derive(Debug, Default)]
pub(super) struct Board {
    pub(super) current: Option<Current>,
    pub(super) failure: Option<Failure>,
}

#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: TokenError,
    /// Until then the endpoint is not asked again.
    pub(super) until: Instant,
}

impl Board {
    pub(super) fn usable(&self, now: Instant) -> Option<Current> {
        self.current
            .clone()
            .filter(|current| current.until.is_none_or(|until| now < until))
    }

    pub(super) fn failing(&self, now: Instant) -> Option<TokenError> {
        let failure = self.failure.as_ref()?;
        let left = failure.until.checked_duration_since(now)?;
        (!left.is_zero()).then(|| failure.error.clone().with_left(left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_token_and_a_failure_each_have_their_end() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let mut board = Board::default();
        assert!(board.usable(now).is_none() && board.failing(now).is_none());
        board.current = Some(Current {
            token: Arc::new(AccessToken::new("t", None)),
            id: 1,
            until: Some(later),
            renew: None,
        });
        board.failure = Some(Failure {
            error: TokenError::new("down"),
            until: later,
        });
        assert!(board.usable(now).is_some() && board.failing(now).is_some());
        // A time that was asked for is told by what is left of it.
        board.failure = Some(Failure {
            error: TokenError::rate_limited(Duration::MAX),
            until: later,
        });
        let told = board.failing(now).unwrap().retry_after();
        assert_eq!(told, Some(Duration::from_secs(1)));
        assert!(board.usable(later).is_none() && board.failing(later).is_none());
    }
}
