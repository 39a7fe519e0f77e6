//! What the engine's root is told, and what it says of its end. Nothing is done
//! here.

use std::time::Duration;

use ractor::RpcReplyPort;

use crate::error::Error;
use crate::flights::FlightGuard;
use crate::outcome::Reply;
use crate::request::DataActionRequest;

/// What the engine's root actor understands, for callers that are actors
/// themselves: `engine.actor()` is its address.
#[derive(Debug)]
#[non_exhaustive]
pub enum EngineMessage {
    /// The same as `Engine::execute`: admission, coalescing and the engine's
    /// deadline included, or the port's own time-out where that is shorter. While
    /// `max_waiting` callers wait by message, further ones get
    /// `Error::Overloaded` at once. If the reply port is dropped, the engine has
    /// stopped.
    Execute(DataActionRequest, RpcReplyPort<Result<Reply, Error>>),
    /// The engine's own messages.
    #[doc(hidden)]
    Internal(Internal),
}

/// What the engine tells its root.
#[derive(Debug)]
#[doc(hidden)]
pub struct Internal(pub(super) Order);

#[derive(Debug)]
pub(super) enum Order {
    /// Run this flight.
    Run(Box<FlightGuard>),
    /// Close admission, drain, settle and stop.
    Close { grace: Duration },
    /// The grace of a `Close` is over.
    Cut,
    /// The record that a dead child left is settled, or given up.
    Settled,
    /// The wait after the death of a token actor is over.
    StartToken,
    /// The same for the watcher.
    StartWatcher,
}

#[cfg(feature = "ractor-cluster")]
impl ractor::Message for EngineMessage {}

impl EngineMessage {
    pub(crate) fn run(guard: Box<FlightGuard>) -> Self {
        Self::Internal(Internal(Order::Run(guard)))
    }

    pub(crate) fn close(grace: Duration) -> Self {
        Self::Internal(Internal(Order::Close { grace }))
    }
}

/// How an engine ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drained {
    /// Executions that ended by themselves while the engine closed.
    pub finished: usize,
    /// Executions that were cut off when the grace was over; their callers got
    /// `Error::Stopped`, and their records say what is known.
    pub cut_off: usize,
}

impl Drained {
    /// Whether nothing was cut off.
    pub fn is_clean(&self) -> bool {
        self.cut_off == 0
    }
}
