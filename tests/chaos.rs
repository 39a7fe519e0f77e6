//! The promise under real faults: worker processes that embed the engine, one
//! `redis-server` with an append-only file, the simulated platform, and a proxy
//! on every connection. This binary is coordinator and worker in one, and never
//! sends a byte beyond loopback.
//!
//! A seeded schedule kills and stops workers, kills and stops Redis, delays,
//! holds, resets and half-closes connections, while the platform answers 5xx,
//! 429 and 408, cuts bodies, resets and is silent. Afterwards everything is
//! healed, every key is asked for once more, and the platform's ledger, the
//! callers' histories and the records are read:
//!
//! - no key has a second call unless those before are proven unexecuted;
//! - no caller is without an answer, those in killed workers excepted;
//! - all recorded answers of a key are one, and the platform's for this key;
//! - every key ends `Cached` or `Indeterminate` for the next one who asks.
//!
//! It was seen to fail, with one line taken out of a script at a time, at 40 s
//! for each seed:
//!
//! | taken out | second calls of executions (seed) |
//! |---|---|
//! | I5: a lapsed lease in `Dispatched` is taken over, too (`take_over.lua`) | 121 of 985 (31), 108 of 974 (32) |
//! | I4: `release` does not compare leases | 43 of 907 (31), 57 of 916 (32) |
//! | I4: `enter` does not compare leases | 5 of 857 (31), 0 of 837 (32), 4 of 862 (33) |
//! | I4: `complete` does not compare leases | none in either |
//!
//! The last one cannot be seen from outside as long as everything else holds: a
//! key whose holder has an outcome goes to nobody else, unless somebody resolves
//! it, and nobody does here. The stores' conformance suite holds that line.
//!
//! `CHAOS_SEED=…` draws the same schedule, keys and answers again (the threads'
//! interleaving is the machine's), `CHAOS_SECONDS=600` makes it long,
//! `CHAOS_LOG=1` prints the workers' logs.

mod support;

mod chaos {
    pub mod fleet;
    pub mod harness;
    pub mod history;
    pub mod judgement;
    pub mod load;
    pub mod oracle;
    pub mod platform;
    pub mod proxy;
    pub mod records;
    pub mod roles;
    pub mod run;
    pub mod scene;
    pub mod schedule;
    pub mod story;
    pub mod worker;
    pub mod world;
}

use std::process::ExitCode;
use std::time::Duration;

use chaos::harness;

/// How long faults are injected, in seconds, unless `CHAOS_SECONDS` says else.
const SECONDS: u64 = 40;

fn main() -> ExitCode {
    if let Ok(redis) = std::env::var(chaos::worker::REDIS) {
        chaos::worker::main(redis);
        return ExitCode::SUCCESS;
    }
    let seed = harness::number("CHAOS_SEED").unwrap_or_else(|| fastrand::u64(..));
    let seconds = harness::number("CHAOS_SECONDS").unwrap_or(SECONDS);
    let again = format!("CHAOS_SEED={seed} CHAOS_SECONDS={seconds}");
    harness::run(&["chaos"], &again, |_| {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(chaos::run::run(seed, Duration::from_secs(seconds)))
    })
}
