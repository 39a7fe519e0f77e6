//! Each path of the engine beside its floor: what nobody can avoid who does the
//! same job. Both sides of a row run in this process on this machine, in turns,
//! so that the ratio between them means something on a noisy machine too; it
//! judges nothing but ratios, and measures no limit, hold or time-out.
//!
//! ```text
//! cargo bench --bench floors                    every row: about ten minutes
//! cargo bench --bench floors -- key_small herd  these rows only
//! cargo bench --bench floors -- --markdown      the last whole run as a table, without running
//! cargo bench --bench floors -- --svg           the same as a bar chart
//! ```
//!
//! Per row it prints `ratio <row> <value> goal <op> <goal>` with what stands
//! behind the value in the line below, and at the end `floors: N of M met`. The
//! same goes to `target/floors/floors.json` (of single rows to `partial.json`
//! there). Rows that miss their goals are taken apart: `steps` says by what. It
//! needs a `redis-server` 7.0 or later, which it starts itself on a free port;
//! `FLOORS_PERCENT=5` shortens `growth` and `soak`, for trying out.

mod allocations;
mod hand_written;
mod herd;
mod in_process;
mod keys;
mod measure;
mod memory;
mod over_redis;
#[path = "../../tests/support/redis.rs"]
#[allow(dead_code)]
mod redis_server;
mod report;
mod steps;
mod world;

use std::process::ExitCode;

use report::{Op, Row};
use world::World;

/// The rows, in the order of the table.
const ROWS: [Row; 16] = [
    Row {
        name: "key_small",
        path: "`DataActionRequest::new` of a 60-byte payload",
        floor: "serde_json, serde_json_canonicalizer, sha2",
        op: Op::AtLeast,
        goal: 4.0,
        run: keys::small,
    },
    Row {
        name: "key_large",
        path: "the same, 50 kB of nested objects",
        floor: "the same",
        op: Op::AtLeast,
        goal: 10.0,
        run: keys::large,
    },
    Row {
        name: "key_vs_read",
        path: "the same, 50 kB",
        floor: "serde_json reads it and keeps nothing, sha2 hashes it",
        op: Op::AtLeast,
        goal: 0.8,
        run: keys::against_reading,
    },
    Row {
        name: "replay_memory",
        path: "request made and executed, answered lately; 64 tasks",
        floor: "request made, `moka` get",
        op: Op::AtLeast,
        goal: 0.6,
        run: in_process::replay,
    },
    Row {
        name: "replay_redis",
        path: "`execute` served by Redis; 64 tasks",
        floor: "one `GET`, its JSON parsed",
        op: Op::AtLeast,
        goal: 0.6,
        run: over_redis::replay,
    },
    Row {
        name: "replay_few_permits",
        path: "the same, 256 tasks, 50 permits",
        floor: "the same",
        op: Op::AtLeast,
        goal: 0.55,
        run: over_redis::replay_few_permits,
    },
    Row {
        name: "fresh_redis_http",
        path: "new keys, Redis and HTTP; 64 tasks",
        floor: "hand-written `SET NX GET`, POST, compare-and-set script",
        op: Op::AtLeast,
        goal: 0.9,
        run: over_redis::fresh_against_locked,
    },
    Row {
        name: "fresh_vs_naive",
        path: "the same",
        floor: "`GET`, `SET NX`, POST, `SET`",
        op: Op::AtLeast,
        goal: 0.95,
        run: over_redis::fresh_against_naive,
    },
    Row {
        name: "fresh_memory",
        path: "`execute` of new keys, `MemoryStore`, answered at once; 64 tasks",
        floor: "one ractor actor spawned per key and asked once",
        op: Op::AtLeast,
        goal: 0.6,
        run: in_process::fresh,
    },
    Row {
        name: "herd",
        path: "10,000 callers of one key, upstream takes 50 ms: the last answer",
        floor: "50 ms and waking 10,000 tasks from one `watch`",
        op: Op::AtMost,
        goal: 1.5,
        run: herd::in_one_process,
    },
    Row {
        name: "herd_processes",
        path: "4 processes of 500 callers, one key, Redis: the last answer",
        floor: "the last answer in the process that sent it",
        op: Op::AtMost,
        goal: 1.2,
        run: herd::in_four_processes,
    },
    Row {
        name: "round_trips",
        path: "Redis commands per fresh execution, and per replay",
        floor: "2, and 1",
        op: Op::Equals,
        goal: 1.0,
        run: over_redis::round_trips,
    },
    Row {
        name: "memory_in_flight",
        path: "heap per key in flight, 100,000 keys",
        floor: "one idle ractor actor and its payload",
        op: Op::AtMost,
        goal: 1.5,
        run: memory::in_flight,
    },
    Row {
        name: "memory_after_burst",
        path: "resident memory after 100,000 keys in flight at once and 30 s of quiet",
        floor: "before them",
        op: Op::AtMost,
        goal: 1.2,
        run: memory::after_burst,
    },
    Row {
        name: "growth",
        path: "fresh executions with 1,000,000 recorded keys",
        floor: "with 10,000",
        op: Op::AtLeast,
        goal: 0.9,
        run: memory::growth,
    },
    Row {
        name: "soak",
        path: "resident memory after 2,000,000 executions",
        floor: "after 200,000",
        op: Op::AtMost,
        goal: 1.1,
        run: memory::soak,
    },
];

fn main() -> ExitCode {
    // Cargo adds `--bench`; it says nothing.
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|w| w != "--bench")
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["--child", "herd", args @ ..] => herd::child(args),
        ["--child", "soak", args @ ..] => memory::soak_child(args),
        ["--child", "burst", args @ ..] => memory::burst_child(args),
        ["--markdown"] => report::markdown(),
        ["--svg"] => report::svg(),
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
    let world = World::new();
    let mut results = Vec::new();
    for row in ROWS.iter().filter(|row| wanted(row.name)) {
        let measured = (row.run)(&world);
        report::print(row, &measured);
        results.push((row, measured));
    }
    let counts = if wanted("allocations") {
        allocations::print(&world)
    } else {
        Vec::new()
    };
    report::finish(&results, &counts, names.is_empty());
    ExitCode::SUCCESS
}
