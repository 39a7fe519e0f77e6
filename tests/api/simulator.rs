//! The simulated platform and a client that does not belong to this crate: its answers, its
//! counts, and how its connections end.

mod client;
mod connections;
mod execute;
mod limits;
mod tokens;
