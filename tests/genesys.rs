//! `GenesysCloud` against real sockets: what goes on the wire byte for byte, and for every
//! failure whether it proves that no byte was sent.
#![cfg(all(feature = "genesys", feature = "testing"))]

#[path = "support/own_process.rs"]
mod own_process;

mod genesys {
    mod burst;
    mod common;
    mod connection_reuse;
    mod execute;
    mod failures;
    mod large_requests;
    mod lease;
    mod malformed_bodies;
    mod proxies;
    mod server;
    mod stalls;
    mod tls;
    mod token;

    use common::*;
}
