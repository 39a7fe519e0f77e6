//! What is recorded of a key that cannot be resolved, for
//! [`Error::NotIndeterminate`](super::Error::NotIndeterminate). It reads no record.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

/// Why a key cannot be resolved: what is recorded of it instead.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyState {
    /// A holder has the key, and its request might be under way.
    Locked,
    /// The platform's answer is recorded.
    Cached,
    /// An operator has resolved it as applied.
    #[non_exhaustive]
    Resolved {
        /// When, by the resolver's wall clock.
        at: SystemTime,
        /// The operator's name, if it was given.
        by: Option<Arc<str>>,
    },
    /// Nothing was executed, and no holder has the key. The next request executes it.
    Released,
    /// It is indeterminate in another version: by another execution, or for another
    /// request. Read it again.
    OtherVersion,
}

impl fmt::Display for KeyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked => f.write_str("a holder has its lease"),
            Self::Cached => f.write_str("its outcome is recorded"),
            Self::Resolved { by: None, .. } => f.write_str("it has been resolved"),
            Self::Resolved { by: Some(by), .. } => write!(f, "it has been resolved by {by}"),
            Self::Released => f.write_str("it was not executed, and no holder has it"),
            Self::OtherVersion => f.write_str("it is indeterminate in another version"),
        }
    }
}
