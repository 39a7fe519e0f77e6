//! One connection to one server: how it is made, shared, replaced and measured, and what
//! its errors mean. Nothing here chooses a server for a key.

pub(super) mod command_error;
pub(super) mod connect_error;
pub(super) mod connector;
pub(super) mod diagnose;
pub(super) mod login;
pub(super) mod monitored_stream;
pub(super) mod open;
pub(super) mod pool;
pub(super) mod resp;
pub(super) mod runtime;
pub(super) mod server;
pub(super) mod shared;
pub(super) mod state;
pub(super) mod subscriber;
pub(super) mod subscriptions;
pub(super) mod transport;
pub(super) mod url;
