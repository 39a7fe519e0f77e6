//! The promise under real faults, with real processes: `chaos` over one Redis behind proxies
//! (`tests/chaos/faults.rs`), `failover::cluster` and `failover::sentinel` over servers that
//! elect another primary (`tests/chaos/failover.rs`). A name selects tests:
//!
//! ```sh
//! cargo test --all-features --test chaos -- failover
//! ```
//!
//! This binary is both coordinator and worker, and never sends a byte beyond loopback.

mod support;

mod chaos {
    pub mod failover;
    pub mod faults;
    pub mod fleet;
    pub mod harness;
    pub mod history;
    pub mod judgement;
    pub mod load;
    pub mod oracle;
    pub mod platform;
    pub mod proxy;
    pub mod report;
    pub mod roles;
    pub mod scene;
    pub mod schedule;
    pub mod worker;
}

use std::process::ExitCode;

use chaos::failover::topology::Kind;
use chaos::{failover, faults, harness, worker};

fn main() -> ExitCode {
    if let Ok(store) = std::env::var(worker::REDIS) {
        worker::main(store);
        return ExitCode::SUCCESS;
    }
    harness::run(&[
        faults::test("chaos"),
        failover::test("failover::cluster", Kind::Cluster),
        failover::test("failover::sentinel", Kind::Sentinel),
    ])
}
