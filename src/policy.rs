//! Decisions as pure functions: what an answer means, when to try again, what
//! to do about duplicates, unknown outcomes and a store that is down. No I/O,
//! no clock of its own.

pub mod classify;
mod error_body;
mod retry_after;

pub use self::retry_after::{is_platform_limit, retry_after};
