//! The last whole run as the tables of `benches/README.md`, and as a bar chart.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::report::{last_run, write};

/// The tables are between these two lines.
const BEGIN: &str = "<!-- floors -->\n";
const END: &str = "<!-- /floors -->\n";

/// Writes the tables into this package's `README.md`.
pub fn markdown() {
    let path = in_package("README.md");
    let page = fs::read_to_string(&path).expect("README.md of this package");
    let (before, rest) = page
        .split_once(BEGIN)
        .expect("a line that begins the tables");
    let (_, after) = rest.split_once(END).expect("a line that ends the tables");
    let tables = tables(&last_run());
    save(&path, &format!("{before}{BEGIN}{tables}{END}{after}"));
}

/// Writes the bar chart into this package.
pub fn svg() {
    save(&in_package("floors.svg"), &picture(&last_run()));
}

fn in_package(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn save(path: &Path, text: &str) {
    write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    println!("{}", path.display());
}

fn rows(run: &Value) -> &[Value] {
    run["rows"].as_array().expect("rows")
}

fn text<'a>(row: &'a Value, key: &str) -> &'a str {
    row[key].as_str().unwrap_or("")
}

fn number(row: &Value, key: &str) -> f64 {
    row[key].as_f64().unwrap_or(f64::NAN)
}

/// How the value must compare with the goal.
fn sign(row: &Value) -> &'static str {
    match text(row, "op") {
        ">=" => "≥",
        "<=" => "≤",
        _ => "=",
    }
}

fn tables(run: &Value) -> String {
    let mut out =
        String::from("| row | engine | baseline | ratio | goal |\n|---|---|---|---|---|\n");
    for row in rows(run) {
        let missed = if row["met"] == true { "" } else { ", missed" };
        let [name, path, baseline] = ["row", "path", "baseline"].map(|key| text(row, key));
        let (value, goal) = (number(row, "value"), number(row, "goal"));
        let sign = sign(row);
        line(
            &mut out,
            format_args!("| `{name}` | {path} | {baseline} | {value:.2}{missed} | {sign} {goal} |"),
        );
    }
    parts(run, &mut out);
    let [command, machine] = ["command", "machine"].map(|key| text(run, key));
    let minutes = number(run, "seconds") / 60.0;
    line(
        &mut out,
        format_args!(
            "\n{} of {} met by `{command}` on {machine}, in {minutes:.0} minutes.",
            run["met"],
            rows(run).len()
        ),
    );
    out
}

/// The rows that were also measured in parts: each part divided by the row's baseline.
fn parts(run: &Value, out: &mut String) {
    let others = |row: &Value| row["others"].as_array().cloned().unwrap_or_default();
    let mut names = Vec::new();
    for row in rows(run) {
        let others = others(row);
        if others.len() < 2 {
            continue;
        }
        if names.is_empty() {
            names = others.iter().map(|o| text(o, "name").to_owned()).collect();
            let head: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
            line(
                out,
                format_args!(
                    "\n| row | {} | engine |\n|---{}|---|",
                    head.join(" | "),
                    "|---".repeat(head.len())
                ),
            );
        }
        let values: Vec<String> = others
            .iter()
            .map(|other| format!("{:.2}", number(other, "value")))
            .collect();
        let (name, engine) = (text(row, "row"), number(row, "value"));
        line(
            out,
            format_args!("| `{name}` | {} | {engine:.2} |", values.join(" | ")),
        );
    }
}

/// One bar for each row: the ratio, or its inverse if less is better, so that a longer bar
/// is always better. A line shows the baseline, and each bar has a mark at its goal.
fn picture(run: &Value) -> String {
    const LINE: usize = 24;
    const NAMES: usize = 170;
    const ONE: f64 = 250.0;
    const MAX: f64 = 1.8;
    let rows = rows(run);
    let height = LINE * (rows.len() + 2);
    let mut out = String::new();
    line(
        &mut out,
        format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"760\" height=\"{height}\" \
             font-family=\"sans-serif\" font-size=\"13\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>"
        ),
    );
    for (place, row) in rows.iter().enumerate() {
        let (value, goal) = (number(row, "value"), number(row, "goal"));
        let length = |ratio: f64| {
            let better = match sign(row) {
                "≤" => 1.0 / ratio,
                _ => ratio,
            };
            ONE * better.clamp(0.0, MAX)
        };
        let colour = match row["met"] == true {
            true => "#4c9f70",
            false => "#d1495b",
        };
        let (width, mark) = (length(value), NAMES as f64 + length(goal));
        let (top, base) = (LINE * (place + 1), LINE * (place + 1) + 13);
        let (name, sign) = (text(row, "row"), sign(row));
        line(
            &mut out,
            format_args!(
                "<text x=\"{}\" y=\"{base}\" text-anchor=\"end\">{name}</text>\n\
                 <rect x=\"{NAMES}\" y=\"{top}\" width=\"{width:.0}\" height=\"16\" fill=\"{colour}\"/>\n\
                 <rect x=\"{mark:.0}\" y=\"{top}\" width=\"2\" height=\"16\" fill=\"#333\"/>\n\
                 <text x=\"640\" y=\"{base}\">{value:.2} ({sign} {goal})</text>",
                NAMES - 8,
            ),
        );
    }
    let one = NAMES as f64 + ONE;
    line(
        &mut out,
        format_args!(
            "<line x1=\"{one}\" y1=\"{LINE}\" x2=\"{one}\" y2=\"{}\" stroke=\"#333\" stroke-dasharray=\"4\"/>\n\
             <text x=\"{one}\" y=\"16\" text-anchor=\"middle\">baseline</text>\n\
             <text x=\"{NAMES}\" y=\"{}\">longer is better; the dark mark is the goal</text>\n</svg>",
            height - LINE,
            height - 6
        ),
    );
    out
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("writing to a String succeeds");
}
