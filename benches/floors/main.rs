//! Measures each path of the engine beside its baseline, which does the same job with the
//! least possible work. Both sides of a row run in turns in this process, so that their ratio
//! is meaningful even on a noisy machine. Only ratios are judged.
//!
//! ```text
//! cargo bench -p benches --bench floors                    every row: about fifteen minutes
//! cargo bench -p benches --bench floors -- key_small herd  these rows only
//! cargo bench -p benches --bench floors -- --markdown      last whole run: benches/README.md
//! cargo bench -p benches --bench floors -- --svg           last whole run: benches/floors.svg
//! ```
//!
//! For each row it prints `ratio <row> <value> goal <op> <goal>`, followed by the figures
//! behind the value, and at the end `floors: N of M met`. It writes the same figures to
//! `target/floors/floors.json` (single rows: `partial.json`). It starts its own
//! `redis-server`, 7.0 or later, on a free port. `FLOORS_PERCENT=5` shortens
//! `memory_after_burst`, `growth` and `soak` for a trial.

mod allocations;
mod baseline;
mod herd;
mod in_process;
mod keys;
mod measure;
mod memory;
mod over_file;
mod over_redis;
mod process;
#[path = "../../tests/support/redis.rs"]
#[allow(dead_code)]
mod redis_server;
mod report;
mod several;
mod steps;
mod table;
mod world;

use std::process::ExitCode;
use std::time::Instant;

use report::{Op, Row};
use world::World;

/// The rows, in the order of the table.
const ROWS: [Row; 20] = [
    Row {
        name: "key_small",
        path: "`DataActionRequest::new` of a 60-byte payload",
        baseline: "serde_json, serde_json_canonicalizer, sha2",
        op: Op::AtLeast,
        goal: 4.0,
        run: keys::small,
    },
    Row {
        name: "key_large",
        path: "the same, 50 kB of nested objects",
        baseline: "the same",
        op: Op::AtLeast,
        goal: 10.0,
        run: keys::large,
    },
    Row {
        name: "key_vs_read",
        path: "the same, 50 kB",
        baseline: "serde_json reads it and keeps nothing, sha2 hashes it",
        op: Op::AtLeast,
        goal: 0.8,
        run: keys::against_reading,
    },
    Row {
        name: "replay_memory",
        path: "request made and executed, recent outcome; 64 tasks",
        baseline: "request made, `moka` get",
        op: Op::AtLeast,
        goal: 0.6,
        run: in_process::replay,
    },
    Row {
        name: "replay_redis",
        path: "`execute` served by Redis; 64 tasks",
        baseline: "one `GET`, its JSON parsed",
        op: Op::AtLeast,
        goal: 0.6,
        run: over_redis::replay,
    },
    Row {
        name: "replay_few_permits",
        path: "the same, 256 tasks, 50 permits",
        baseline: "the same",
        op: Op::AtLeast,
        goal: 0.55,
        run: over_redis::replay_few_permits,
    },
    Row {
        name: "fresh_redis_http",
        path: "new keys, Redis and HTTP; 64 tasks",
        baseline: "`SET NX GET`, POST, compare-and-set script",
        op: Op::AtLeast,
        goal: 0.9,
        run: over_redis::fresh_against_locked,
    },
    Row {
        name: "fresh_vs_naive",
        path: "the same",
        baseline: "`GET`, `SET NX`, POST, `SET`",
        op: Op::AtLeast,
        goal: 0.95,
        run: over_redis::fresh_against_naive,
    },
    Row {
        name: "fresh_memory",
        path: "`execute` of new keys, `MemoryStore`, answered at once; 64 tasks",
        baseline: "one ractor actor spawned per key and asked once",
        op: Op::AtLeast,
        goal: 0.6,
        run: in_process::fresh,
    },
    Row {
        name: "replay_file",
        path: "`execute` served by `FileStore`; 64 tasks",
        baseline: "one redb read transaction by `spawn_blocking`, its JSON parsed",
        op: Op::AtLeast,
        goal: 0.7,
        run: over_file::replay,
    },
    Row {
        name: "fresh_file",
        path: "new keys, `FileStore`, answered at once; 64 tasks",
        baseline: "the same bytes written by redb, waiting writes in one synced transaction",
        op: Op::AtLeast,
        goal: 0.7,
        run: over_file::fresh,
    },
    Row {
        name: "cluster",
        path: "new keys over a cluster of 3 primaries; 64 tasks",
        baseline: "the engine over one server",
        op: Op::AtLeast,
        goal: 0.8,
        run: several::cluster,
    },
    Row {
        name: "scale",
        path: "new keys, 8 engines in 8 processes over one Redis, by one engine",
        baseline: "the same of bare clients: `SET NX GET`, compare-and-set script",
        op: Op::AtLeast,
        goal: 0.9,
        run: several::scale,
    },
    Row {
        name: "herd",
        path: "10,000 callers of one key, upstream takes 50 ms: the last answer",
        baseline: "50 ms and waking 10,000 tasks from one `watch`",
        op: Op::AtMost,
        goal: 1.5,
        run: herd::in_one_process,
    },
    Row {
        name: "herd_processes",
        path: "4 processes of 500 callers, one key, Redis: the last answer",
        baseline: "the last answer in the process that sent it",
        op: Op::AtMost,
        goal: 1.2,
        run: herd::in_four_processes,
    },
    Row {
        name: "round_trips",
        path: "Redis commands per fresh execution, and per replay",
        baseline: "2, and 1",
        op: Op::Equals,
        goal: 1.0,
        run: over_redis::round_trips,
    },
    Row {
        name: "memory_in_flight",
        path: "heap per key in flight, 100,000 keys",
        baseline: "one idle ractor actor and its payload",
        op: Op::AtMost,
        goal: 1.5,
        run: memory::in_flight,
    },
    Row {
        name: "memory_after_burst",
        path: "heap in use after 100,000 keys in flight at once and 30 s of quiet",
        baseline: "before them",
        op: Op::AtMost,
        goal: 1.2,
        run: memory::after_burst,
    },
    Row {
        name: "growth",
        path: "fresh executions with 1,000,000 recorded keys",
        baseline: "with 10,000",
        op: Op::AtLeast,
        goal: 0.9,
        run: memory::growth,
    },
    Row {
        name: "soak",
        path: "resident memory after 2,000,000 executions",
        baseline: "after 200,000",
        op: Op::AtMost,
        goal: 1.1,
        run: memory::soak,
    },
];

fn main() -> ExitCode {
    // Cargo adds `--bench`.
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|w| w != "--bench")
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["--child", "herd", args @ ..] => herd::child(args),
        ["--child", "scale", args @ ..] => several::scale_child(args),
        ["--child", "soak", args @ ..] => memory::soak_child(args),
        ["--markdown"] => table::markdown(),
        ["--svg"] => table::svg(),
        names => return run(names),
    }
    ExitCode::SUCCESS
}

fn run(names: &[&str]) -> ExitCode {
    let known = |name: &&&str| ROWS.iter().any(|row| row.name == **name) || **name == "allocations";
    if let Some(unknown) = names.iter().find(|name| !known(name)) {
        let rows: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
        eprintln!(
            "no row {unknown:?}; there are: {}, allocations",
            rows.join(", ")
        );
        return ExitCode::FAILURE;
    }
    let wanted = |name: &str| names.is_empty() || names.contains(&name);
    let (begun, world) = (Instant::now(), World::new());
    let mut results = Vec::new();
    for row in ROWS.iter().filter(|row| wanted(row.name)) {
        let begun = Instant::now();
        let measured = (row.run)(&world);
        report::print(row, &measured, begun.elapsed().as_secs_f64());
        results.push((row, measured));
    }
    let counts = if wanted("allocations") {
        allocations::print(&world)
    } else {
        Vec::new()
    };
    let seconds = begun.elapsed().as_secs_f64();
    report::finish(&results, &counts, seconds, names.is_empty());
    ExitCode::SUCCESS
}
