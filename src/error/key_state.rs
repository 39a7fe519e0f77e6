//! What is recorded of a key, as a refusal says it. The record itself is read
//! elsewhere.

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
    /// It has been resolved as applied.
    #[non_exhaustive]
    Resolved {
        /// When, by the resolver's wall clock.
        at: SystemTime,
        /// By whom, where that was said.
        by: Option<Arc<str>>,
    },
    /// Nothing was executed, and no holder has the key: the next request executes it.
    Released,
    /// It is indeterminate by another execution, or of another request, than the
    /// version says: look at it again.
    OtherVersion,
}

impl fmt::Display for KeyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked => f.write_str("a holder has it"),
            Self::Cached => f.write_str("its outcome is recorded"),
            Self::Resolved { by: None, .. } => f.write_str("it has been resolved"),
            Self::Resolved { by: Some(by), .. } => write!(f, "it has been resolved by {by}"),
            Self::Released => f.write_str("nothing was executed, and it is free"),
            Self::OtherVersion => f.write_str("another execution or request has it"),
        }
    }
}
