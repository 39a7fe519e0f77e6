//! Shrinks a failing schedule and stores it as data, so that it still fails after the meaning
//! of seeds has changed.

use std::fs;
use std::path::PathBuf;

use super::schedule::{Schedule, Step};

/// The smallest schedule found that still fails: without steps that change nothing, and
/// with plain settings in place of odd ones.
pub fn shrink(schedule: &Schedule, fails: impl Fn(&Schedule) -> bool) -> Schedule {
    let mut best = schedule.clone();
    loop {
        let before = best.clone();
        drop_steps(&mut best, &fails);
        for simpler in plain() {
            let mut next = best.clone();
            simpler(&mut next);
            if next != best && fails(&next) {
                best = next;
            }
        }
        for step in 0..best.steps.len() {
            for simpler in PLAIN_CALL {
                let mut next = best.clone();
                simpler(&mut next.steps[step]);
                if next != best && fails(&next) {
                    best = next;
                }
            }
        }
        if best == before {
            return best;
        }
    }
}

/// Leaves out as many steps as possible: halves first, single steps last.
fn drop_steps(best: &mut Schedule, fails: &impl Fn(&Schedule) -> bool) {
    let mut length = best.steps.len().div_ceil(2);
    while length > 0 {
        let mut from = 0;
        while from < best.steps.len() {
            let mut next = best.clone();
            let until = (from + length).min(next.steps.len());
            next.steps.drain(from..until);
            if fails(&next) {
                *best = next;
            } else {
                from = until;
            }
        }
        length /= 2;
    }
}

type Simpler = Box<dyn Fn(&mut Schedule)>;

fn plain() -> Vec<Simpler> {
    let mut all: Vec<Simpler> = vec![
        Box::new(|s| s.setup.latency = 0),
        Box::new(|s| s.setup.notices = true),
        Box::new(|s| s.setup.token_life = None),
        Box::new(|s| s.setup.hook = false),
        Box::new(|s| s.setup.engines.truncate(1)),
        Box::new(|s| s.setup.engines.truncate(2)),
        Box::new(|s| s.setup.slots.truncate(1)),
    ];
    for place in 0..3 {
        let mut each = |change: fn(&mut super::schedule::EngineSetup)| {
            all.push(Box::new(move |s: &mut Schedule| {
                s.setup
                    .engines
                    .get_mut(place)
                    .map(change)
                    .unwrap_or_default();
            }));
        };
        each(|engine| engine.retry_unknown = false);
        each(|engine| engine.fail_fast = false);
        each(|engine| engine.max_in_flight = 50);
        each(|engine| engine.recent = 0);
        each(|engine| engine.result_ttl = 86_400_000);
        each(|engine| engine.org = 0);
        each(|engine| engine.attempts = 1);
    }
    all
}

const PLAIN_CALL: [fn(&mut Step); 5] = [
    |step| {
        if let Step::Call(call) = step {
            call.by_message = false;
        }
    },
    |step| {
        if let Step::Call(call) = step {
            call.leaves = None;
        }
    },
    |step| {
        if let Step::Call(call) = step {
            (call.again, call.pause) = (0, 0);
        }
    },
    |step| {
        if let Step::Call(call) = step {
            (call.ttl, call.sensitive) = (None, false);
        }
    },
    |step| {
        if let Step::Answer { answer, .. } = step {
            (answer.connect, answer.executes) = (0, true);
        }
    },
];

fn file() -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.join("proptest-regressions/simulation.jsonl")
}

/// The schedules that failed once, one a line.
pub fn kept() -> Vec<Schedule> {
    let text = fs::read_to_string(file()).unwrap_or_default();
    let lines = text.lines().filter(|line| line.starts_with('{'));
    lines
        .map(|line| serde_json::from_str(line).expect("a schedule"))
        .collect()
}

/// Appends a schedule that fails.
pub fn keep(schedule: &Schedule) {
    let mut text = fs::read_to_string(file()).unwrap_or_default();
    let line = serde_json::to_string(schedule).expect("plain data");
    if text.lines().all(|kept| kept != line) {
        text.push_str(&line);
        text.push('\n');
        let file = file();
        let folder = file.parent().expect("a folder");
        let written = fs::create_dir_all(folder).and_then(|()| fs::write(&file, text));
        if let Err(error) = written {
            println!("could not keep the schedule: {error}");
        }
    }
}
