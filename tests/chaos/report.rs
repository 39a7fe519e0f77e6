//! Reports all that is known of the wrong keys, to help find the cause. It judges nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::history::Ask;
use super::oracle::Oracle;
use super::worker::{digest, key};

/// One report for each number in `wrong`.
pub fn all(
    oracle: &Oracle,
    asks: &BTreeMap<u64, Vec<Ask>>,
    wrong: &BTreeMap<u64, Vec<String>>,
) -> Vec<String> {
    wrong
        .iter()
        .map(|(number, wrong)| {
            let asks = asks.get(number).map_or(&[][..], Vec::as_slice);
            story(oracle, *number, asks, wrong)
        })
        .collect()
}

fn story(oracle: &Oracle, number: u64, asks: &[Ask], wrong: &[String]) -> String {
    let mut lines: Vec<(Duration, String)> = Vec::new();
    for ask in asks {
        let (id, process, callers) = (ask.id, ask.process, ask.answers.len());
        lines.push((ask.at, format!("{callers} ask {process:?} (ask {id})")));
        for result in ask.answers.iter().flatten() {
            lines.push((result.at, format!("{process:?} gets {result} (ask {id})")));
        }
    }
    let executed = oracle.ledger.executions(&key(number));
    let calls = oracle.calls.lock().unwrap();
    for seen in calls.get(&key(number)).into_iter().flatten() {
        let (ask, caller) = seen.by;
        let fate = match executed.contains(&seen.nth) {
            true => "counts as executed",
            false => "proven unexecuted",
        };
        let digest = digest(seen.answer.1.as_bytes());
        let line = format!(
            "PLATFORM call {} of ask {ask}, caller {caller}: {}, {fate} ({digest})",
            seen.nth, seen.what
        );
        lines.push((seen.at, line));
    }
    drop(calls);
    let said = oracle.said().into_iter();
    lines.extend(
        said.filter(|said| said.number == number)
            .map(|said| (said.at, said.what)),
    );
    let begin = lines.iter().map(|(at, _)| *at).min().unwrap_or_default();
    let end = lines.iter().map(|(at, _)| *at).max().unwrap_or_default();
    let events = oracle.history.events().into_iter();
    lines.extend(events.filter(|(at, _)| *at >= begin && *at <= end));
    lines.sort();
    let mut story = format!("key {number} ({}): {}", key(number), wrong.join("; "));
    for (at, line) in lines {
        let _ = write!(story, "\n    {:8.3} {line}", at.as_secs_f64());
    }
    story
}
