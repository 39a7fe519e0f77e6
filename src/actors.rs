//! The actor tree, in the order in which a request passes through it.
//!
//! `flights` admits a request on the caller's own task. The first request of a key begins
//! a flight, whose [`FlightGuard`](crate::flights::FlightGuard) must answer every waiter.
//! The caller's task gives the guard to an idle flight actor. If none is idle, it sends
//! the guard to the root, which spawns one.
//!
//! - [`flight`]: a `FlightActor` takes one key from `Hashed` to `Cached`, and then is idle
//!   until its next flight. A flight is one future, which a kill can drop at any point:
//!   the guard then answers, and the progress says what is known. A panic ends the actor,
//!   too.
//! - [`idle`]: the stack of idle flight actors. To give one a flight takes no message to
//!   the root, no spawn and no supervision event, which together cost more than the rest
//!   of an execution. Actors that recent load did not need leave the stack and stop.
//! - [`supervisor`], the root: it owns the `TokenActor` and every `FlightActor`. It does
//!   no I/O, so it is never slow. If a child dies, the root finishes the record of the
//!   child's flight by its progress. If the engine closes, each flight actor stops after
//!   its flight. After the grace the root cuts flights off.
//! - [`token`]: fetches the OAuth token, renews it before it expires and when the platform
//!   refuses it, and backs off after failures. Readers read the shared token state, and
//!   wake the actor only if they have no token.
//! - [`watcher`], an optional actor: it [`walk`]s through the namespace's indeterminate
//!   keys periodically and warns of them.
//!
//! No answer depends on a supervision event: if the root is killed, or a supervisor above
//! it stops, no event is handled. No answer depends on the start of a flight either: a
//! guard answers wherever it is dropped, and the end of the root answers what is left. A
//! flight actor runs all its flights in one hook, so ractor's `stop` of a child takes
//! effect when the actor leaves the stack; `kill` takes effect immediately. All flight actors live on the root's runtime, on
//! whichever runtime a caller is. Mailboxes are unbounded, so only admitted requests enter
//! them. Actors have no names, since ractor's registry is global and an engine is not.

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
