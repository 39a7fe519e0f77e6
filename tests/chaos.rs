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
    pub mod history;
    pub mod judgement;
    pub mod oracle;
    pub mod platform;
    pub mod proxy;
    pub mod records;
    pub mod roles;
    pub mod run;
    pub mod schedule;
    pub mod story;
    pub mod worker;
    pub mod world;
}

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Duration;

/// How long faults are injected, in seconds, unless `CHAOS_SECONDS` says else.
const SECONDS: u64 = 40;

/// How many wrong keys are told in full; they are usually wrong alike.
const STORIES: usize = 20;

fn main() -> ExitCode {
    if let Ok(redis) = std::env::var(chaos::worker::REDIS) {
        chaos::worker::main(redis);
        return ExitCode::SUCCESS;
    }
    if !is_wanted() {
        println!("0 passed, 0 failed");
        return ExitCode::SUCCESS;
    }
    let seed = number("CHAOS_SEED").unwrap_or_else(|| fastrand::u64(..));
    let length = Duration::from_secs(number("CHAOS_SECONDS").unwrap_or(SECONDS));
    println!(
        "chaos: CHAOS_SEED={seed} CHAOS_SECONDS={}",
        length.as_secs()
    );
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let run = AssertUnwindSafe(|| runtime.block_on(chaos::run::run(seed, length)));
    let Ok(judgement) = catch_unwind(run) else {
        // Its message stands above; the processes went with the stack.
        println!("the test itself failed; again with CHAOS_SEED={seed}");
        println!("0 passed, 1 failed");
        return ExitCode::FAILURE;
    };
    for story in judgement.wrong.iter().take(STORIES) {
        println!("{story}");
    }
    for figure in &judgement.figures {
        println!("{figure}");
    }
    if judgement.wrong.is_empty() {
        println!("1 passed, 0 failed");
        ExitCode::SUCCESS
    } else {
        println!(
            "{} keys are wrong; again with CHAOS_SEED={seed}",
            judgement.wrong.len()
        );
        println!("0 passed, 1 failed");
        ExitCode::FAILURE
    }
}

/// Whether the test runner's arguments ask for this test: it has one name, and
/// `--list` only asks for that.
fn is_wanted() -> bool {
    let mut filters = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match &*argument {
            "--list" => {
                println!("chaos: test");
                return false;
            }
            "--skip" | "--test-threads" | "--color" | "--format" => drop(arguments.next()),
            flag if flag.starts_with('-') => {}
            _ => filters.push(argument),
        }
    }
    filters.is_empty() || filters.iter().any(|filter| "chaos".contains(&**filter))
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}")))
}
