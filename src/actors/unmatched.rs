//! Pointers of `ignoring` that match nothing, told to the log once per action: a
//! misspelled pointer makes a new request of each call. It refuses nobody.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, PoisonError};

use crate::request::DataActionRequest;
use crate::telemetry;

/// How many pairs of action and pointer are logged; later ones are not.
const MAX_LOGGED: usize = 1_000;
/// How much of a pointer is logged, in characters.
const MAX_SHOWN: usize = 200;

/// What has been logged.
#[derive(Debug, Default)]
pub(crate) struct Unmatched {
    hasher: RandomState,
    /// Hashes, since a caller chooses how long actions and pointers are.
    logged: Mutex<HashSet<u64>>,
}

impl Unmatched {
    /// Logs the pointers of this request that match nothing, where that is new.
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
        // A set of numbers: an insertion leaves it whole.
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        logged.len() < MAX_LOGGED && logged.insert(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Red without the bound.
    #[test]
    fn each_pair_is_new_once_and_their_number_is_bounded() {
        let unmatched = Unmatched::default();
        assert!(unmatched.is_new("refund", "/at"));
        assert!(unmatched.is_new("refund", "/by"));
        assert!(unmatched.is_new("other", "/at"));
        assert!(!unmatched.is_new("refund", "/at"));
        let new = (0..5 * MAX_LOGGED).filter(|n| unmatched.is_new("many", &n.to_string()));
        assert_eq!(new.count(), MAX_LOGGED - 3);
    }
}
