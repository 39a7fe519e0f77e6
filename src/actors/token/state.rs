//! The token state that readers see: the current token, or why there is none. Plain data; it
//! never asks the endpoint and never waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::refusals::Refusals;
use crate::error::TokenError;
use crate::request::ActionId;
use crate::upstream::AccessToken;

/// A token that may be used now.
#[derive(Debug)]
pub(crate) struct CurrentToken {
    pub token: AccessToken,
    /// The number of the token, so that a refusal names it.
    pub(super) id: usize,
    /// When it arrived.
    pub(super) since: Instant,
    /// Until when it is used: a margin before the platform's own expiry.
    pub(super) until: Option<Instant>,
    /// When it is renewed.
    pub(super) renew: Option<Instant>,
}

/// The state that readers see.
#[derive(Debug, Default)]
pub(super) struct TokenState {
    pub(super) current: Option<Arc<CurrentToken>>,
    pub(super) failure: Option<FetchFailure>,
    pub(super) refusals: Refusals,
}

#[derive(Debug)]
pub(super) struct FetchFailure {
    pub(super) error: TokenError,
    /// The endpoint is not asked again before this time.
    pub(super) until: Instant,
}

impl TokenState {
    pub(super) fn usable(&self, now: Instant) -> Option<Arc<CurrentToken>> {
        self.current
            .clone()
            .filter(|current| current.until.is_none_or(|until| now < until))
    }

    /// The token for an action: the current one, unless the platform refused it for that
    /// action and its successor is awaited.
    pub(super) fn usable_for(&self, action: &ActionId, now: Instant) -> Option<Arc<CurrentToken>> {
        self.usable(now)
            .filter(|current| !self.refusals.is_refused(action, current.id, now))
    }

    /// The current token, if it is under suspicion.
    pub(super) fn suspect(&self, now: Instant) -> Option<usize> {
        let id = self.usable(now)?.id;
        self.refusals.suspects(id).then_some(id)
    }

    /// How long the endpoint is not asked again.
    pub(super) fn failing_for(&self, now: Instant) -> Duration {
        let until = self.failure.as_ref().map(|failure| failure.until);
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    pub(super) fn failing(&self, now: Instant) -> Option<TokenError> {
        let failure = self.failure.as_ref()?;
        let left = failure.until.checked_duration_since(now)?;
        (!left.is_zero()).then(|| failure.error.clone().with_left(left))
    }
}

/// Counts a caller that waits for a token, so that a restarted actor knows of it.
pub(super) struct TokenWaiter<'a>(&'a AtomicUsize);

impl<'a> TokenWaiter<'a> {
    pub(super) fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for TokenWaiter<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_and_failure_each_expire() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let mut state = TokenState::default();
        assert!(state.usable(now).is_none() && state.failing(now).is_none());
        state.current = Some(Arc::new(CurrentToken {
            token: AccessToken::new("t", None),
            id: 1,
            since: now,
            until: Some(later),
            renew: None,
        }));
        state.failure = Some(FetchFailure {
            error: TokenError::new("down"),
            until: later,
        });
        assert!(state.usable(now).is_some() && state.failing(now).is_some());
        // A requested time is reported by what is left of it.
        state.failure = Some(FetchFailure {
            error: TokenError::rate_limited(Duration::MAX),
            until: later,
        });
        let retry_after = state.failing(now).unwrap().retry_after();
        assert_eq!(retry_after, Some(Duration::from_secs(1)));
        assert!(state.usable(later).is_none() && state.failing(later).is_none());
    }
}
