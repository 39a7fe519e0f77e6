//! The simulated platform, asked by a client that is no part of the crate: what
//! it answers, what it counts, and how its connections end.

mod client;
mod connections;
mod execute;
mod limits;
mod tokens;
