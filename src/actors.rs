//! The actor tree, told in the order in which a request meets it.
//!
//! A caller's request is admitted by `flights`, on the caller's own task. The
//! first of its key becomes a flight; its [`Guard`](crate::flights::Guard), which
//! owes everybody an answer, is sent to the
//!
//! - [`supervisor`], the root: it owns the `TokenActor` and spawns one linked
//!   `ExecutionActor` per flight. It does no I/O of its own, so it is never
//!   slow. Where a child dies it settles the child's record by what its
//!   progress says is known; where the engine closes it waits for the children,
//!   and past the grace cuts them off.
//! - [`token`]: fetches the OAuth token, renews it before it expires and when it
//!   is refused, and backs off when that fails or goes on. Readers see the token
//!   on a board and wake the actor only where there is none for them.
//! - [`execution`]: walks one key from `Hashed` to `Cached`, in one handler
//!   future that a kill may drop at any point: the guard answers, the progress
//!   tells.
//!
//! Nobody's answer depends on a supervision event: when the root is killed, or
//! a supervisor above it stops, none is handled at all. Mailboxes are unbounded,
//! so what may enter them was admitted before. Actors have no names, since
//! ractor's registry is global and an engine is not.

pub(crate) mod caller;
pub(crate) mod execution;
mod finish;
pub(crate) mod hold;
pub(crate) mod permits;
mod ports;
pub(crate) mod posted;
pub(crate) mod resolution;
pub(crate) mod shared;
pub(crate) mod supervisor;
pub(crate) mod token;
pub(crate) mod unmatched;
pub(crate) mod waits;
pub(crate) mod walk;

pub(crate) use self::resolution::resolve;
pub use self::supervisor::{Drained, EngineMessage};
pub use self::waits::{Wait, Waits};
