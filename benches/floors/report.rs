//! The report of a run: a line for each row, the sum, JSON, and the last whole run.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::measure::Measured;
use crate::world::World;

/// One line of the table.
pub struct Row {
    pub name: &'static str,
    /// The engine's path.
    pub path: &'static str,
    /// The same job with the least possible work.
    pub baseline: &'static str,
    pub op: Op,
    pub goal: f64,
    pub run: fn(&World) -> Measured,
}

/// How a value and its goal compare.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    AtLeast,
    AtMost,
    Equals,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AtLeast => ">=",
            Self::AtMost => "<=",
            Self::Equals => "=",
        })
    }
}

impl Row {
    fn is_met(&self, value: f64) -> bool {
        match self.op {
            Op::AtLeast => value >= self.goal,
            Op::AtMost => value <= self.goal,
            Op::Equals => value == self.goal,
        }
    }
}

/// Prints one row, and the figures behind its value.
pub fn print(row: &Row, measured: &Measured, seconds: f64) {
    let Measured {
        value,
        engine,
        baseline,
        unit,
        rounds,
        quartiles: [low, high],
        others,
        note,
    } = measured;
    println!("ratio {} {value:.3} goal {} {}", row.name, row.op, row.goal);
    let missed = if row.is_met(*value) { "" } else { "MISSED; " };
    print!(
        "    {missed}engine {}, baseline {} {unit}",
        figure(*engine),
        figure(*baseline)
    );
    if *rounds > 1 {
        print!("; {rounds} rounds, half of them between {low:.3} and {high:.3}");
    }
    if !note.is_empty() {
        print!("; {note}");
    }
    println!("; {seconds:.0} s");
    for (name, value) in others {
        println!("    {name} {value:.3}");
    }
}

/// Prints the sum and writes the file.
pub fn finish(
    results: &[(&Row, Measured)],
    allocations: &[(&str, f64)],
    seconds: f64,
    whole: bool,
) {
    let met = results
        .iter()
        .filter(|(row, measured)| row.is_met(measured.value))
        .count();
    println!("floors: {met} of {} met in {seconds:.0} s", results.len());
    let rows: Vec<Value> = results
        .iter()
        .map(|(row, measured)| {
            json!({
                "row": row.name,
                "path": row.path,
                "baseline": row.baseline,
                "value": measured.value,
                "op": row.op.to_string(),
                "goal": row.goal,
                "met": row.is_met(measured.value),
                "engine_value": measured.engine,
                "baseline_value": measured.baseline,
                "unit": measured.unit,
                "rounds": measured.rounds,
                "quartiles": measured.quartiles,
                "others": measured.others.iter().map(|(name, value)| {
                    json!({"name": name, "value": value})
                }).collect::<Vec<Value>>(),
                "note": measured.note,
            })
        })
        .collect();
    let allocations: Vec<Value> = allocations
        .iter()
        .map(|(what, count)| json!({"what": what, "count": count}))
        .collect();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let table = json!({
        "command": "cargo bench -p benches --bench floors",
        "machine": machine(),
        "unix_seconds": now.as_secs(),
        "seconds": seconds,
        "met": met,
        "rows": rows,
        "allocations": allocations,
    });
    let path = file(if whole { "floors.json" } else { "partial.json" });
    let text = serde_json::to_string_pretty(&table).expect("string keys only");
    if let Err(error) = write(&path, &text) {
        eprintln!("{}: {error}", path.display());
    }
}

/// The last whole run.
pub fn last_run() -> Value {
    let path = file("floors.json");
    let text = fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; run the bench first", path.display()));
    serde_json::from_str(&text).expect("what this program wrote")
}

/// A figure with one decimal, in thousands from 1000 on; with two, in millions from 10^6 on.
fn figure(value: f64) -> String {
    match value {
        0.0..1e3 => format!("{value:.1}"),
        1e3..1e6 => format!("{:.1} thousand", value / 1e3),
        _ => format!("{:.2} million", value / 1e6),
    }
}

fn machine() -> String {
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processor
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let model = model.map_or("a processor without a name", |(_, model)| model);
    let version = |program: &str| {
        let output = Command::new(program).arg("--version").output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        Some(text.trim().to_owned())
    };
    let rustc = version("rustc").unwrap_or_default();
    let rustc: Vec<&str> = rustc.split(' ').take(2).collect();
    let server = std::env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".into());
    let server = version(&server).unwrap_or_default();
    let server = server
        .split("v=")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    let server = server.unwrap_or("of an unknown version");
    let system = std::env::consts::OS;
    format!(
        "{model}, {cores} cores, {system}, {}, Redis {server}",
        rustc.join(" ")
    )
}

/// A file or folder of the results.
pub fn file(name: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR");
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = target.map_or_else(|| root.join("target"), |target| root.join(target));
    target.join("floors").join(name)
}

pub fn write(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, text)
}
