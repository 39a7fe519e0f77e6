//! Which tokens the platform refused for which actions: whether the token is at fault
//! or the action, and whose call is worth another token. Plain data; nothing here
//! waits.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::request::ActionId;

/// How many actions are known at a time. Beyond it all are forgotten: each broken
/// one then asks for one more token, at the pace of all.
const MAX_ACTIONS: usize = 1_000;

/// For how long no token is renewed for an action that a fresh one was refused for.
const BROKEN_FOR: Duration = Duration::from_secs(600);

/// How long a token is fresh: whatever is revoked was in use before.
const FRESH_FOR: Duration = Duration::from_secs(60);

/// What a refusal was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenRefusal {
    /// Of a token that was no longer current: a newer one is there, or it was
    /// refused for this action before, and its successor is on its way.
    Stale,
    /// Of the current token, whose successor is fetched now.
    Current,
    /// No token mends it: the action is at fault.
    Action,
}

/// What is known of actions and tokens.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    actions: HashMap<ActionId, Known>,
    /// The newest token that was refused.
    suspect: usize,
}

/// Tokens by their numbers, from 1; 0 is none.
#[derive(Debug, Default)]
struct Known {
    /// The newest one that a call of this action succeeded with.
    accepted: usize,
    /// The newest one that was refused.
    refused: usize,
    /// Until when its refusals are its own fault.
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

    /// Whether an action had better wait for this token's successor. One that no
    /// token mends need not.
    pub(super) fn is_refused(&self, action: &ActionId, token: usize, now: Instant) -> bool {
        let known = self.actions.get(action).filter(|_| self.suspects(token));
        known.is_some_and(|known| known.refused == token && !known.is_broken(now))
    }

    /// The platform refused the current token, which came at `since`, for an action;
    /// `again` where the same execution was refused one before.
    pub(super) fn refuse(
        &mut self,
        action: &ActionId,
        (token, since): (usize, Instant),
        again: bool,
        now: Instant,
    ) -> TokenRefusal {
        let suspected = self.suspects(token);
        let known = self.known(action);
        if known.is_broken(now) {
            return TokenRefusal::Action;
        }
        let before = std::mem::replace(&mut known.refused, token) == token;
        if again && now < since + FRESH_FOR && known.accepted != token {
            known.broken = Some(now + BROKEN_FOR);
            return TokenRefusal::Action;
        }
        if before && suspected {
            return TokenRefusal::Stale;
        }
        self.suspect = token;
        TokenRefusal::Current
    }

    /// A call of this action succeeded with this token.
    pub(super) fn accept(&mut self, action: &ActionId, token: usize) {
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

    /// The action is at fault where one execution is refused a token and then a fresh
    /// one, for ten minutes or until it succeeds.
    #[test]
    fn a_fresh_token_that_is_refused_is_the_action_s_fault() {
        let (mut refusals, start) = (Refusals::default(), Instant::now());
        let (broken, other) = (action("broken"), action("other"));
        let mut refuse = |action: &ActionId, token, again, after| {
            let now = start + after;
            refusals.refuse(action, (token, now), again, now)
        };
        assert_eq!(refuse(&broken, 1, false, MINUTE), TokenRefusal::Current);
        assert_eq!(refuse(&broken, 1, false, MINUTE), TokenRefusal::Stale);
        assert_eq!(refuse(&broken, 2, true, MINUTE), TokenRefusal::Action);
        assert_eq!(refuse(&broken, 2, false, MINUTE), TokenRefusal::Action);
        assert_eq!(refuse(&other, 2, false, MINUTE), TokenRefusal::Current);
        // Also where one that came later was refused it first.
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
        refusals.accept(&broken, 5);
        let now = start + 12 * MINUTE;
        let refused = refusals.refuse(&broken, (6, now), false, now);
        assert_eq!(refused, TokenRefusal::Current);
    }

    /// Only the token's own actions wait for its successor, and only while one comes.
    #[test]
    fn a_token_is_refused_to_those_who_had_it_refused() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        let (broken, other) = (action("broken"), action("other"));
        refusals.refuse(&broken, (1, now), false, now);
        assert!(refusals.suspects(1) && refusals.is_refused(&broken, 1, now));
        assert!(!refusals.is_refused(&other, 1, now));
        assert!(!refusals.is_refused(&broken, 2, now));
        refusals.refuse(&broken, (2, now), true, now);
        assert!(!refusals.suspects(2) && !refusals.is_refused(&broken, 2, now));
        let later = now + 10 * MINUTE;
        assert!(
            !refusals.is_refused(&broken, 2, later),
            "nobody fetches one"
        );
    }

    /// Found by `tests/protocol/simulation.rs`. Red where any two tokens in a row are the
    /// action's fault: both were revoked, and no action had a chance to succeed.
    #[test]
    fn a_token_that_is_revoked_is_not_the_action_s_fault() {
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
        refusals.accept(&healthy, 101);
        let refused = refusals.refuse(&healthy, (101, later), true, later);
        assert_eq!(refused, TokenRefusal::Current);
    }

    /// A late success of an older token says nothing of a newer one.
    #[test]
    fn a_late_success_mends_nothing() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        let broken = action("broken");
        refusals.refuse(&broken, (1, now), false, now);
        refusals.refuse(&broken, (2, now), true, now);
        refusals.accept(&broken, 1);
        let refused = refusals.refuse(&broken, (3, now), false, now);
        assert_eq!(refused, TokenRefusal::Action);
    }

    /// Red without the bound.
    #[test]
    fn as_many_actions_are_known_as_may_be() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        for n in 0..5 * MAX_ACTIONS {
            refusals.accept(&action(&n.to_string()), 1);
            refusals.refuse(&action(&n.to_string()), (2, now), false, now);
            assert!(refusals.actions.len() <= MAX_ACTIONS);
        }
    }
}
