//! Which tokens the platform refused for which actions, and whether the token or the action
//! is at fault. Plain data; it never waits.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::request::ActionId;

/// How many actions are known at a time. One more clears all of them; each broken action
/// then asks for one more token, at the common pace.
const MAX_ACTIONS: usize = 1_000;

/// For how long an action is at fault after a fresh token was refused for it.
const BROKEN_FOR: Duration = Duration::from_secs(600);

/// How long a token is fresh: a token that is revoked was in use before.
const FRESH_FOR: Duration = Duration::from_secs(60);

/// What a refusal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenRefusal {
    /// The token was outdated: there is a newer one.
    Stale,
    /// The token was refused for this action before, and its successor is being fetched.
    Suspected,
    /// The token was current, and its successor is fetched now.
    Current,
    /// The action is at fault, as far as is known: its executions wait for no other token.
    /// A further refusal fetches the successor, unless a recent success shows that this token
    /// is good.
    Action,
}

/// What is known of actions and tokens.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    actions: HashMap<ActionId, Known>,
    /// The token under suspicion; 0 if there is none.
    suspect: usize,
    /// An action waits for the successor of the suspect: not only broken actions suspect it.
    is_awaited: bool,
    /// The newest token with which a call of any action succeeded, and when.
    accepted: Option<(usize, Instant)>,
}

/// Tokens by their numbers, from 1; 0 is none.
#[derive(Debug, Default)]
struct Known {
    /// The newest token with which a call of this action succeeded.
    accepted: usize,
    /// The newest token that was refused.
    refused: usize,
    /// Until when the action is at fault for refusals.
    broken: Option<Instant>,
}

impl Known {
    fn is_broken(&self, now: Instant) -> bool {
        self.broken.is_some_and(|until| now < until)
    }
}

impl Refusals {
    /// Whether this token is under suspicion.
    pub(super) fn suspects(&self, token: usize) -> bool {
        self.suspect == token
    }

    /// Whether an action should wait for this token's successor. A broken action does not
    /// wait.
    pub(super) fn is_refused(&self, action: &ActionId, token: usize, now: Instant) -> bool {
        let known = self.actions.get(action).filter(|_| self.suspects(token));
        self.is_awaited
            && known.is_some_and(|known| known.refused == token && !known.is_broken(now))
    }

    /// The platform refused the current token, which arrived at `since`, for an action.
    /// `again` says that the execution had another token refused before.
    pub(super) fn refuse(
        &mut self,
        action: &ActionId,
        (token, since): (usize, Instant),
        again: bool,
        now: Instant,
    ) -> TokenRefusal {
        let suspected = self.suspects(token);
        let is_good = self
            .accepted
            .is_some_and(|(good, at)| token <= good && now < at + FRESH_FOR);
        let known = self.known(action);
        if known.is_broken(now) {
            // Two tokens revoked in a row look the same, so that only a recent success with
            // this token shows that the action is at fault, and not the token.
            if !is_good && !suspected {
                (self.suspect, self.is_awaited) = (token, false);
            }
            return TokenRefusal::Action;
        }
        let before = std::mem::replace(&mut known.refused, token) == token;
        if again && now < since + FRESH_FOR && known.accepted != token {
            known.broken = Some(now + BROKEN_FOR);
            return TokenRefusal::Action;
        }
        (self.suspect, self.is_awaited) = (token, true);
        if before && suspected {
            return TokenRefusal::Suspected;
        }
        TokenRefusal::Current
    }

    /// A call of this action succeeded with this token.
    pub(super) fn accept(&mut self, action: &ActionId, token: usize, now: Instant) {
        if self.accepted.is_none_or(|(newest, _)| newest <= token) {
            self.accepted = Some((token, now));
        }
        if self.suspects(token) && !self.is_awaited {
            self.suspect = 0;
        }
        let known = self.known(action);
        known.accepted = known.accepted.max(token);
        if known.refused <= token {
            known.broken = None;
        }
    }

    fn known(&mut self, action: &ActionId) -> &mut Known {
        if self.actions.len() >= MAX_ACTIONS && !self.actions.contains_key(action) {
            self.actions.clear();
        }
        self.actions.entry(action.clone()).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn action(id: &str) -> ActionId {
        id.parse().unwrap()
    }

    /// If one execution has a token refused and then a fresh token, the action is at fault
    /// for ten minutes, or until it succeeds.
    #[test]
    fn refused_fresh_token_is_fault_of_action() {
        let (mut refusals, start) = (Refusals::default(), Instant::now());
        let (broken, other) = (action("broken"), action("other"));
        let mut refuse = |action: &ActionId, token, again, after| {
            let now = start + after;
            refusals.refuse(action, (token, now), again, now)
        };
        assert_eq!(refuse(&broken, 1, false, MINUTE), TokenRefusal::Current);
        assert_eq!(refuse(&broken, 1, false, MINUTE), TokenRefusal::Suspected);
        assert_eq!(refuse(&broken, 2, true, MINUTE), TokenRefusal::Action);
        assert_eq!(refuse(&broken, 2, false, MINUTE), TokenRefusal::Action);
        assert_eq!(refuse(&other, 2, false, MINUTE), TokenRefusal::Current);
        // Also if a later execution had the fresh token refused first.
        let late = action("late");
        assert_eq!(refuse(&late, 1, false, MINUTE), TokenRefusal::Current);
        assert_eq!(refuse(&late, 2, false, MINUTE), TokenRefusal::Current);
        assert_eq!(refuse(&late, 2, true, MINUTE), TokenRefusal::Action);
        // For ten minutes, …
        assert_eq!(refuse(&broken, 3, false, 10 * MINUTE), TokenRefusal::Action);
        assert_eq!(
            refuse(&broken, 4, false, 11 * MINUTE),
            TokenRefusal::Current
        );
        assert_eq!(refuse(&broken, 5, true, 11 * MINUTE), TokenRefusal::Action);
        // … or until it succeeds.
        refusals.accept(&broken, 5, start + 12 * MINUTE);
        let now = start + 12 * MINUTE;
        let refused = refusals.refuse(&broken, (6, now), false, now);
        assert_eq!(refused, TokenRefusal::Current);
    }

    /// Only actions for which the token was refused wait for its successor, and only while
    /// it is being fetched.
    #[test]
    fn token_is_refused_per_action() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        let (broken, other) = (action("broken"), action("other"));
        refusals.refuse(&broken, (1, now), false, now);
        assert!(refusals.suspects(1) && refusals.is_refused(&broken, 1, now));
        assert!(!refusals.is_refused(&other, 1, now));
        assert!(!refusals.is_refused(&broken, 2, now));
        refusals.refuse(&broken, (2, now), true, now);
        assert!(!refusals.suspects(2) && !refusals.is_refused(&broken, 2, now));
        refusals.accept(&other, 2, now);
        refusals.refuse(&broken, (2, now), false, now);
        assert!(!refusals.suspects(2), "the token is good");
        let later = now + 10 * MINUTE;
        assert!(
            !refusals.is_refused(&broken, 2, later),
            "no successor is being fetched"
        );
    }

    /// Found by `tests/protocol/simulation.rs`. Red if any two refused tokens in a row are
    /// the action's fault: both were revoked before any action could succeed.
    #[test]
    fn revoked_token_is_not_fault_of_action() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        let healthy = action("healthy");
        for token in 1..100 {
            // By an execution that comes later; …
            let refused = refusals.refuse(&healthy, (token, now), false, now);
            assert_eq!(refused, TokenRefusal::Current);
        }
        // … after a long wait; …
        let later = now + MINUTE;
        let refused = refusals.refuse(&healthy, (100, now), true, later);
        assert_eq!(refused, TokenRefusal::Current);
        // … or after others succeeded with it.
        refusals.accept(&healthy, 101, later);
        let refused = refusals.refuse(&healthy, (101, later), true, later);
        assert_eq!(refused, TokenRefusal::Current);
    }

    /// Found by `tests/chaos`: two tokens were revoked in a row before any call succeeded with
    /// the second one, and all calls failed for ten minutes. Red if a broken action never
    /// suspects a token.
    #[test]
    fn broken_action_suspects_token_without_success() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        let action = action("healthy");
        refusals.refuse(&action, (1, now), false, now);
        let refused = refusals.refuse(&action, (2, now), true, now);
        assert_eq!(refused, TokenRefusal::Action);
        let refused = refusals.refuse(&action, (2, now), false, now);
        assert_eq!(refused, TokenRefusal::Action);
        assert!(refusals.suspects(2));
    }

    /// A late success with an older token says nothing about a newer token.
    #[test]
    fn late_success_of_old_token_changes_nothing() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        let broken = action("broken");
        refusals.refuse(&broken, (1, now), false, now);
        refusals.refuse(&broken, (2, now), true, now);
        refusals.accept(&broken, 1, now);
        let refused = refusals.refuse(&broken, (3, now), false, now);
        assert_eq!(refused, TokenRefusal::Action);
    }

    /// Red without the bound.
    #[test]
    fn number_of_known_actions_is_bounded() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        for n in 0..5 * MAX_ACTIONS {
            refusals.accept(&action(&n.to_string()), 1, now);
            refusals.refuse(&action(&n.to_string()), (2, now), false, now);
            assert!(refusals.actions.len() <= MAX_ACTIONS);
        }
    }
}
