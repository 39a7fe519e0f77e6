//! The interface of the test runner for a binary with its own `main`: names, a filter, and
//! the counts at the end. It knows no test.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use super::judgement::Judgement;

/// How many wrong keys to report in full; the others usually have the same cause.
const STORIES: usize = 20;

pub struct Test {
    pub name: &'static str,
    /// The variables that repeat the test.
    pub again: String,
    pub run: Box<dyn Fn() -> Judgement>,
}

/// Runs the tests that the arguments select, and prints their results.
pub fn run(tests: &[Test]) -> ExitCode {
    let (mut passed, mut failed) = (0, 0);
    for Test { name, again, run } in wanted(tests) {
        println!("{name}: {again}");
        let Ok(judgement) = catch_unwind(AssertUnwindSafe(run)) else {
            // The panic's message is above; the test's processes ended with it.
            println!("the test itself failed; again with {again}");
            failed += 1;
            continue;
        };
        for story in judgement.wrong.iter().take(STORIES) {
            println!("{story}");
        }
        for figure in &judgement.figures {
            println!("{figure}");
        }
        if judgement.wrong.is_empty() {
            passed += 1;
        } else {
            let wrong = judgement.wrong.len();
            println!("{wrong} keys are wrong; again with {again}");
            failed += 1;
        }
    }
    println!("{passed} passed, {failed} failed");
    match failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// The tests that the arguments select; none if they only ask for a list.
fn wanted(tests: &[Test]) -> Vec<&Test> {
    let (mut filters, mut exact) = (Vec::new(), false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match &*argument {
            "--list" => {
                tests
                    .iter()
                    .for_each(|test| println!("{}: test", test.name));
                return Vec::new();
            }
            "--exact" => exact = true,
            "--skip" | "--test-threads" | "--color" | "--format" => drop(arguments.next()),
            flag if flag.starts_with('-') => {}
            _ => filters.push(argument),
        }
    }
    let asks_for = |test: &&Test| {
        let mut filters = filters.iter();
        filters.len() == 0
            || filters.any(|filter| match exact {
                true => filter == test.name,
                false => test.name.contains(&**filter),
            })
    };
    tests.iter().filter(asks_for).collect()
}

/// A number from the environment.
pub fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}")))
}
