//! Logs pointers of `ignoring` that match nothing, once per action: with a misspelled
//! pointer each call is a new request. It refuses no request.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, PoisonError};

use crate::request::DataActionRequest;
use crate::telemetry;

/// How many pairs of action and pointer are logged; later pairs are not.
const MAX_LOGGED: usize = 1_000;
/// How much of a pointer is logged, in characters.
const MAX_SHOWN: usize = 200;

/// What has been logged.
#[derive(Debug, Default)]
pub(crate) struct Unmatched {
    hasher: RandomState,
    /// Hashes, since a caller chooses the length of actions and pointers.
    logged: Mutex<HashSet<u64>>,
}

impl Unmatched {
    /// Logs the pointers of this request that match nothing and were not logged before.
    pub(crate) fn log(&self, request: &DataActionRequest) {
        let action_id = request.action_id().as_str();
        for pointer in request.unmatched() {
            if self.is_new(action_id, pointer) {
                let shown: String = pointer.chars().take(MAX_SHOWN).collect();
                telemetry::contained(|| {
                    tracing::warn!(
                        action_id,
                        pointer = ?shown,
                        "a pointer of `ignoring` matches nothing in the payload; logged once per action"
                    );
                });
            }
        }
    }

    fn is_new(&self, action_id: &str, pointer: &str) -> bool {
        let hash = self.hasher.hash_one((action_id, pointer));
        // A panic leaves no half-made insertion in a set of numbers.
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        logged.len() < MAX_LOGGED && logged.insert(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Red without the bound.
    #[test]
    fn each_pair_is_logged_once_within_bounds() {
        let unmatched = Unmatched::default();
        assert!(unmatched.is_new("refund", "/at"));
        assert!(unmatched.is_new("refund", "/by"));
        assert!(unmatched.is_new("other", "/at"));
        assert!(!unmatched.is_new("refund", "/at"));
        let new = (0..5 * MAX_LOGGED).filter(|n| unmatched.is_new("many", &n.to_string()));
        assert_eq!(new.count(), MAX_LOGGED - 3);
    }
}
