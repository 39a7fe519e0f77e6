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

/// For how long no token is renewed for an action that two in a row were refused for.
const BROKEN_FOR: Duration = Duration::from_secs(600);

/// What a refusal was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
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
    /// The newest one that was refused, and when.
    refused: Option<(usize, Instant)>,
    /// Until when its refusals are its own fault.
    broken: Option<Instant>,
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
        known.is_some_and(|known| {
            let broken = known.broken.is_some_and(|until| now < until);
            !broken && known.refused.is_some_and(|(refused, _)| refused == token)
        })
    }

    /// The platform refused the current token for an action.
    pub(super) fn refuse(&mut self, action: &ActionId, token: usize, now: Instant) -> Refused {
        let suspected = self.suspects(token);
        let known = self.known(action);
        if known.broken.is_some_and(|until| now < until) {
            return Refused::Action;
        }
        let before = known.refused.replace((token, now));
        match before {
            Some((refused, _)) if refused == token && suspected => return Refused::Stale,
            // Two in a row, with no success in between.
            Some((refused, when)) if refused > known.accepted && now < when + BROKEN_FOR => {
                known.broken = Some(now + BROKEN_FOR);
                return Refused::Action;
            }
            _ => {}
        }
        self.suspect = token;
        Refused::Current
    }

    /// A call of this action succeeded with this token.
    pub(super) fn accept(&mut self, action: &ActionId, token: usize) {
        let known = self.known(action);
        known.accepted = known.accepted.max(token);
        if known.refused.is_none_or(|(refused, _)| refused <= token) {
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

    /// The action is at fault where a token and its successor were refused for it,
    /// for ten minutes or until it succeeds.
    #[test]
    fn two_tokens_in_a_row_are_the_action_s_fault() {
        let (mut refusals, start) = (Refusals::default(), Instant::now());
        let (broken, other) = (action("broken"), action("other"));
        assert_eq!(refusals.refuse(&broken, 1, start), Refused::Current);
        assert!(refusals.suspects(1) && refusals.is_refused(&broken, 1, start));
        assert!(!refusals.is_refused(&other, 1, start));
        assert_eq!(refusals.refuse(&broken, 1, start), Refused::Stale);
        // It waits for the next one, which is not suspected for its sake.
        assert!(!refusals.is_refused(&broken, 2, start));
        assert_eq!(refusals.refuse(&broken, 2, start), Refused::Action);
        assert!(!refusals.suspects(2) && !refusals.is_refused(&broken, 2, start));
        assert_eq!(refusals.refuse(&other, 2, start), Refused::Current);
        // For ten minutes, …
        let later = start + 9 * MINUTE;
        assert_eq!(refusals.refuse(&broken, 3, later), Refused::Action);
        let later = start + 10 * MINUTE;
        assert!(
            !refusals.is_refused(&broken, 3, later),
            "nobody fetches another"
        );
        assert_eq!(refusals.refuse(&broken, 4, later), Refused::Current);
        assert_eq!(refusals.refuse(&broken, 5, later), Refused::Action);
        // … or until it succeeds.
        refusals.accept(&broken, 5);
        assert_eq!(refusals.refuse(&broken, 6, later), Refused::Current);
    }

    /// Tokens that worked and then ended are nobody's fault, however fast they do.
    #[test]
    fn an_action_that_succeeds_in_between_is_not_at_fault() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        let healthy = action("healthy");
        for token in 1..100 {
            assert_eq!(refusals.refuse(&healthy, token, now), Refused::Current);
            refusals.accept(&healthy, token + 1);
        }
        // A late success of an older token says nothing of a newer one.
        assert_eq!(refusals.refuse(&healthy, 200, now), Refused::Current);
        refusals.accept(&healthy, 199);
        assert_eq!(refusals.refuse(&healthy, 201, now), Refused::Action);
        refusals.accept(&healthy, 199);
        assert_eq!(refusals.refuse(&healthy, 202, now), Refused::Action);
    }

    /// Red without the bound.
    #[test]
    fn as_many_actions_are_known_as_may_be() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        for n in 0..5 * MAX_ACTIONS {
            refusals.accept(&action(&n.to_string()), 1);
            refusals.refuse(&action(&n.to_string()), 2, now);
            assert!(refusals.actions.len() <= MAX_ACTIONS);
        }
    }
}
