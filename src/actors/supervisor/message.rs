//! The messages of the engine's root, and its report of the end. It owns plain data and
//! never acts.

use std::time::Duration;

use ractor::RpcReplyPort;

use crate::error::Error;
use crate::flights::FlightGuard;
use crate::outcome::Reply;
use crate::request::DataActionRequest;

/// The messages of the engine's root actor, for callers that are actors. Its address is
/// `engine.actor()`.
#[derive(Debug)]
#[non_exhaustive]
pub enum EngineMessage {
    /// Executes a request as `Engine::execute` does, with admission and coalescing. The
    /// deadline is the engine's, or the port's own time-out if that is shorter. While
    /// `max_waiting` callers wait by message, further callers get `Error::Overloaded` at
    /// once. If the reply port is dropped, the engine has stopped.
    ///
    /// Set a time-out for the port. A message that arrives at the moment when the root
    /// ends might stay in its mailbox, without an answer, for as long as a handle of the
    /// engine lives: tokio's channel allows it (seen once in 200,000 messages).
    Execute(DataActionRequest, RpcReplyPort<Result<Reply, Error>>),
    /// The engine's own messages.
    #[doc(hidden)]
    Internal(Internal),
}

/// A message of the engine to its root.
#[derive(Debug)]
#[doc(hidden)]
pub struct Internal(pub(super) Order);

#[derive(Debug)]
pub(super) enum Order {
    /// Run this flight.
    Run(Box<FlightGuard>),
    /// Close admission, drain, finish the records and stop.
    Close { grace: Duration },
    /// The grace of a `Close` is over.
    Cut,
    /// The record of a dead child's flight was finished or given up.
    Finished,
    /// The wait after the death of a token actor is over.
    StartToken,
    /// The wait after the death of the watcher is over.
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
    /// Executions that were cut off when the grace was over, also those that had sent
    /// nothing, or only had an answer to record; and those that ended without an answer:
    /// killed, stopped or panicked. Callers without an answer got `Error::Stopped`. The records say what is
    /// known.
    pub cut_off: usize,
}

impl Drained {
    /// Whether nothing was cut off.
    pub fn is_clean(&self) -> bool {
        self.cut_off == 0
    }
}
