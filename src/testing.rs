//! For tests of an embedding service (feature `testing`): platforms that follow a script,
//! and a ledger that counts the calls that reached them. The engine never uses it.
//!
//! Two platforms follow the same [`Step`]s:
//!
//! - [`ScriptedUpstream`] has no sockets. Together with `MemoryStore` it runs
//!   under tokio's paused time (`#[tokio::test(start_paused = true)]`): a
//!   lease, a `Retry-After` of an hour and a day's retention pass at once and in order.
//!   [`ScriptedTokens`] replaces the token endpoint.
//! - [`GenesysSimulator`] is a real HTTP server on loopback: tokens, both
//!   execute routes, limits, and every way in which a connection can end. It
//!   must **not** run under paused time: while a task waits for a socket, the
//!   paused clock sees an idle runtime and jumps to the next timer, so that
//!   every time-out fires at once. The same holds for `RedisStore` and
//!   `FileStore`.
//!
//! Both have a [`Ledger`]. A test waits on it for a call ([`Ledger::wait_for`], without
//! sleeping), and asserts at its end that each key was executed exactly once
//! ([`Ledger::assert_exactly_once`]).
//!
//! [`FaultyStore`] is a store that fails, delays and loses replies by a script, and
//! [`store_conformance`] the suite that a custom store must pass. [`strategies`] generates
//! requests and their respellings, [`answers`] makes answers in the platform's shape, and
//! [`every_error`] one error of each variant.
//!
//! The guide [*testing your service*](crate::guide::testing_your_service) has a
//! complete example of each.

pub mod answers;
#[cfg(feature = "testing")]
mod conformance;
mod errors;
mod faulty;
mod ledger;
mod scripted;
mod simulator;
mod step;
#[cfg(feature = "testing")]
pub mod strategies;
mod tokens;

#[cfg(feature = "testing")]
pub use conformance::store_conformance;
pub use errors::every_error;
pub use faulty::{Fault, FaultyStore, Operation};
pub use ledger::Ledger;
pub use scripted::ScriptedUpstream;
pub use simulator::GenesysSimulator;
pub use step::Step;
pub use tokens::{ScriptedTokens, TokenStep};

#[cfg(all(feature = "file", feature = "testing"))]
pub use crate::store::file::ManualClock;
