//! The actor tree, told in the order in which a request meets it.
//!
//! `flights` admits a caller's request, on the caller's own task. The first request
//! of its key begins a flight, whose [`FlightGuard`](crate::flights::FlightGuard) owes every
//! waiter an answer. The caller's task gives the guard to an execution actor that is
//! idle; where none is, it sends the guard to the root, which spawns another one.
//!
//! - [`flight`]: a `FlightActor` walks one key from `Hashed` to `Cached`, and
//!   is idle until it gets the next. All of it is one future that a kill may drop at
//!   any point: the guard answers, the progress tells. A panic ends the actor as
//!   well; the next flight has another one.
//! - [`idle`]: the stack of the idle ones. Giving one a flight takes no message to
//!   the root, no spawn and no supervision event, which together cost more than the
//!   rest of an execution. Actors that the load of the last seconds did not need
//!   leave the stack and stop.
//! - [`supervisor`], the root: it owns the `TokenActor` and every `FlightActor`.
//!   It does no I/O of its own, so it is never slow. Where a child dies it ends the
//!   record of the flight that the child ran then, by what its progress says is
//!   known. Where the engine closes no actor is idle any more: each stops after its
//!   flight, so that the end of the last child is the end of the last flight. Past
//!   the grace the root cuts flights off.
//! - [`token`]: fetches the OAuth token, renews it before it expires and when it
//!   is refused, and backs off when that fails or goes on. Readers see the token
//!   on a board and wake the actor only where there is none for them.
//! - [`watcher`], where the engine asks for it: [`walk`]s through the namespace's
//!   indeterminate keys from time to time and warns of them.
//!
//! Nobody's answer depends on a supervision event: when the root is killed, or
//! a supervisor above it stops, none is handled at all. Nor does it depend on a
//! flight being begun: a guard is dropped wherever its way to an actor ends.
//! All execution actors live on the root's runtime, whichever runtime a caller is on.
//! Mailboxes are unbounded, so what may enter them was admitted before. Actors have
//! no names, since ractor's registry is global and an engine is not.

pub(crate) mod access_log;
pub(crate) mod backlog;
pub(crate) mod caller;
pub(crate) mod cooldown;
mod finish;
pub(crate) mod flight;
mod idle;
pub(crate) mod permits;
mod ports;
pub(crate) mod posted;
pub(crate) mod replays;
pub(crate) mod resolution;
pub(crate) mod shared;
pub(crate) mod supervisor;
pub(crate) mod token;
pub(crate) mod unmatched;
pub(crate) mod walk;
pub(crate) mod watcher;

pub use self::backlog::{Backlog, BacklogEntry};
pub(crate) use self::resolution::resolve;
pub use self::supervisor::{Drained, EngineMessage};
