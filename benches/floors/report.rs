//! What a run says: a line per row, the sum, JSON, and the last run as a table.
//! It measures and judges nothing but a value against its goal.

use std::fmt;
use std::fs;
use std::path::PathBuf;
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
    /// What nobody can avoid.
    pub floor: &'static str,
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

/// Prints one row, and what stands behind its value.
pub fn print(row: &Row, measured: &Measured) {
    let Measured {
        value,
        engine,
        floor,
        unit,
        rounds,
        quartiles: [low, high],
        others,
        note,
    } = measured;
    println!("ratio {} {value:.3} goal {} {}", row.name, row.op, row.goal);
    let missed = if row.is_met(*value) { "" } else { "MISSED; " };
    print!(
        "    {missed}engine {}, floor {} {unit}",
        figure(*engine),
        figure(*floor)
    );
    if *rounds > 1 {
        print!("; {rounds} rounds, half of them between {low:.3} and {high:.3}");
    }
    if !note.is_empty() {
        print!("; {note}");
    }
    println!();
    for (name, value) in others {
        println!("    {name} {value:.3}");
    }
}

/// Prints the sum and writes the file.
pub fn finish(results: &[(&Row, Measured)], allocations: &[(&str, f64)], whole: bool) {
    let met = results
        .iter()
        .filter(|(row, measured)| row.is_met(measured.value))
        .count();
    println!("floors: {met} of {} met", results.len());
    let rows: Vec<Value> = results
        .iter()
        .map(|(row, measured)| {
            json!({
                "row": row.name,
                "path": row.path,
                "floor": row.floor,
                "value": measured.value,
                "op": row.op.to_string(),
                "goal": row.goal,
                "met": row.is_met(measured.value),
                "engine_value": measured.engine,
                "floor_value": measured.floor,
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
        "command": "cargo bench --bench floors",
        "machine": machine(),
        "unix_seconds": now.as_secs(),
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

/// Prints the last whole run as README has it.
pub fn markdown() {
    let table = last_run();
    let rows = table["rows"].as_array().expect("rows");
    println!("| row | engine's path | floor | ratio | goal |\n|---|---|---|---|---|");
    for row in rows {
        let [name, path, floor] =
            ["row", "path", "floor"].map(|key| row[key].as_str().unwrap_or(""));
        let op = match row["op"].as_str() {
            Some(">=") => "≥",
            Some("<=") => "≤",
            _ => "=",
        };
        let value = row["value"].as_f64().unwrap_or(f64::NAN);
        let missed = if row["met"] == true { "" } else { ", missed" };
        println!(
            "| `{name}` | {path} | {floor} | {value:.2}{missed} | {op} {} |",
            row["goal"]
        );
    }
    apart(rows);
    let [command, machine] = ["command", "machine"].map(|key| table[key].as_str().unwrap_or(""));
    println!(
        "\n{} of {} met by `{command}` on {machine}.",
        table["met"],
        rows.len()
    );
}

/// Prints the last whole run as a bar chart: each value as a share of its goal, or its
/// goal as a share of the value where less is better.
pub fn svg() {
    const LINE: usize = 24;
    const NAMES: usize = 190;
    const WHOLE: f64 = 300.0;
    let table = last_run();
    let rows = table["rows"].as_array().expect("rows");
    let height = LINE * (rows.len() + 2);
    println!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"760\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"13\">"
    );
    println!("<rect width=\"100%\" height=\"100%\" fill=\"white\"/>");
    for (place, row) in rows.iter().enumerate() {
        let number = |key: &str| row[key].as_f64().unwrap_or(f64::NAN);
        let (value, goal) = (number("value"), number("goal"));
        let share = if row["op"] == "<=" {
            goal / value
        } else {
            value / goal
        };
        let colour = if row["met"] == true {
            "#4c9f70"
        } else {
            "#d1495b"
        };
        let (top, name) = (LINE * (place + 1), row["row"].as_str().unwrap_or(""));
        let (text, width) = (top + 12, WHOLE * share.clamp(0.0, 1.5));
        println!(
            "<text x=\"{}\" y=\"{text}\" text-anchor=\"end\">{name}</text>",
            NAMES - 8
        );
        println!(
            "<rect x=\"{NAMES}\" y=\"{top}\" width=\"{width:.0}\" height=\"16\" fill=\"{colour}\"/>"
        );
        let sign = row["op"]
            .as_str()
            .unwrap_or("")
            .replace('>', "&gt;")
            .replace('<', "&lt;");
        println!(
            "<text x=\"{:.0}\" y=\"{text}\">{value:.2} ({sign} {goal})</text>",
            NAMES as f64 + width + 6.0
        );
    }
    let goal = NAMES as f64 + WHOLE;
    println!(
        "<line x1=\"{goal}\" y1=\"{LINE}\" x2=\"{goal}\" y2=\"{}\" stroke=\"#333\" \
         stroke-dasharray=\"4\"/>\n<text x=\"{goal}\" y=\"16\" text-anchor=\"middle\">goal</text>\n</svg>",
        height - LINE
    );
}

fn last_run() -> Value {
    let path = file("floors.json");
    let text = fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; run the bench first", path.display()));
    serde_json::from_str(&text).expect("what this program wrote")
}

/// The rows that were measured in several other ways: everything by the floor,
/// but the last column, which is the engine by the last of those ways.
fn apart(rows: &[Value]) {
    let others = |row: &Value| row["others"].as_array().cloned().unwrap_or_default();
    let mut head = false;
    for row in rows {
        let others = others(row);
        let Some(last) = others.last().filter(|_| others.len() > 1) else {
            continue;
        };
        let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
        if !head {
            head = true;
            let names: Vec<String> = others
                .iter()
                .map(|other| format!("`{}`", other["name"].as_str().unwrap_or("")))
                .collect();
            let name = names.last().map_or("", String::as_str);
            println!(
                "\n| row | {} | engine | engine by {name} |\n|---{}|---|---|",
                names.join(" | "),
                "|---".repeat(names.len())
            );
        }
        let values: Vec<String> = others
            .iter()
            .map(|other| format!("{:.2}", number(&other["value"])))
            .collect();
        let engine = number(&row["value"]);
        println!(
            "| `{}` | {} | {engine:.2} | {:.2} |",
            row["row"].as_str().unwrap_or(""),
            values.join(" | "),
            engine / number(&last["value"])
        );
    }
}

/// Three significant digits, and no more zeros than a reader wants.
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

fn file(name: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR");
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let target = target.map_or_else(|| root.join("target"), |target| root.join(target));
    target.join("floors").join(name)
}

fn write(path: &PathBuf, text: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, text)
}
