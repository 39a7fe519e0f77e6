//! The platform's own rules: what its answers prove, its error codes, the times that it
//! asks to wait, its correlation ids, and its client. No other module names the platform.

use crate::outcome::Outcome;

pub mod classify;
#[cfg(feature = "genesys")]
mod client;
mod error_body;
mod retry_after;

#[cfg(feature = "genesys")]
pub use self::client::{ClientAuth, Credentials, Environment, GenesysCloud, Route};
pub use self::retry_after::{is_platform_limit, retry_after};

/// The longest correlation id that errors and logs repeat, in bytes.
const MAX_CORRELATION_ID: usize = 128;

/// The platform's correlation id, which its support asks for; `None` where the answer
/// has none, or one of more than 128 bytes.
pub fn correlation_id(outcome: &Outcome) -> Option<&str> {
    outcome
        .header("inin-correlation-id")
        .filter(|id| (1..=MAX_CORRELATION_ID).contains(&id.len()))
}
