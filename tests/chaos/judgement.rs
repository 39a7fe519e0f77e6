//! Reads the platform's ledger, the callers' histories and the records, and reports each
//! violation of the promise. It sends nothing, and uses no code of the engine.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::history::{Ask, CallerResult, Process};
use super::oracle::Oracle;
use super::platform::{Flight, ReceivedCall, Tally};
use super::report;
use super::roles::Policy;
use super::worker::{DEADLINE, digest, key};

/// The records at the two reads, and the workers' own figures.
#[derive(Debug, Default)]
pub struct LastWords {
    pub before: Vec<&'static str>,
    pub after: Vec<&'static str>,
    /// Executions and callers that the workers still had.
    pub unfinished: usize,
}

/// The figures of a run, and everything that was wrong with it.
#[derive(Debug)]
pub struct Judgement {
    pub figures: Vec<String>,
    pub wrong: Vec<String>,
}

impl Judgement {
    pub fn of(oracle: &Oracle, faults: &Tally, last: LastWords) -> Self {
        let mut judge = Judge {
            oracle,
            asks: by_number(oracle.history.asks()),
            wrong: BTreeMap::new(),
        };
        let numbers = last.after.len() as u64;
        let executions: usize = (0..numbers).map(|n| oracle.ledger.executed(&key(n))).sum();
        let mut calls = Calls::default();
        let (mut disagreeing, mut stuck) = (0, 0);
        for number in 0..numbers {
            calls.add(judge.calls(number));
            disagreeing += usize::from(!judge.answers_agree(number));
            stuck += usize::from(!judge.has_ended(number, last.after[number as usize]));
        }
        let unanswered = judge.unanswered();
        let mut figures = vec![format!("keys: {numbers}")];
        let faults = faults.counts();
        figures.push(format!("faults: {}", faults.values().sum::<usize>()));
        figures.extend(faults.iter().map(|(kind, n)| format!("  {kind}: {n}")));
        figures.push(format!("calls at the platform: {}", oracle.ledger.total()));
        figures.push(format!("executions: {executions}"));
        figures.push(format!("second calls: {}", calls.second));
        figures.push(format!("repeats by policy: {}", calls.repeats));
        figures.push(format!("unanswered: {unanswered}"));
        figures.push(format!("keys with different answers: {disagreeing}"));
        figures.push(format!("keys without an end: {stuck}"));
        figures.push(format!("left in workers: {}", last.unfinished));
        figures.push(format!("answers: {}", judge.answers_by_kind()));
        figures.push(format!(
            "records before the last round: {}",
            count(&last.before)
        ));
        figures.push(format!("records at the end: {}", count(&last.after)));
        let said = oracle.tally.counts();
        figures.extend(said.iter().map(|(what, n)| format!("{what}: {n}")));
        figures.push(recovery(&oracle.history.recoveries()));
        if last.unfinished > 0 {
            let what = format!(
                "{} executions or callers are left in workers",
                last.unfinished
            );
            judge.wrong.entry(numbers).or_default().push(what);
        }
        let wrong = report::all(oracle, &judge.asks, &judge.wrong);
        Self { figures, wrong }
    }
}

/// Calls that might have been executed, beyond the first of a key.
#[derive(Clone, Copy, Default)]
struct Calls {
    /// Calls that no policy allows.
    second: usize,
    /// Calls of a retrying execution after its own attempt with an unknown outcome.
    repeats: usize,
}

impl Calls {
    fn add(&mut self, other: Self) {
        self.second += other.second;
        self.repeats += other.repeats;
    }
}

struct Judge<'a> {
    oracle: &'a Oracle,
    /// By the key's number, in the order of asking.
    asks: BTreeMap<u64, Vec<Ask>>,
    /// What is wrong, by the key's number.
    wrong: BTreeMap<u64, Vec<String>>,
}

impl Judge<'_> {
    fn result(&self, number: u64) -> impl Iterator<Item = &CallerResult> {
        let asks = self.asks.get(&number).into_iter().flatten();
        asks.flat_map(|ask| ask.answers.iter().flatten())
    }

    fn blame(&mut self, number: u64, what: impl Into<String>) {
        self.wrong.entry(number).or_default().push(what.into());
    }

    fn seen(&self, number: u64) -> Vec<ReceivedCall> {
        let calls = self.oracle.calls.lock().unwrap();
        calls.get(&key(number)).cloned().unwrap_or_default()
    }

    /// Executions of a key by the process and the flight that sent them.
    fn executions(&self, number: u64) -> BTreeMap<Process, BTreeMap<Flight, usize>> {
        let mut all: BTreeMap<Process, BTreeMap<Flight, usize>> = BTreeMap::new();
        let executed = self.oracle.ledger.executions(&key(number));
        let seen = self.seen(number);
        for nth in executed {
            let call = seen.iter().find(|call| call.nth == nth);
            let by = call.expect("an executed call was seen").by;
            let process = self.oracle.history.process(by.0);
            *all.entry(process).or_default().entry(by).or_default() += 1;
        }
        all
    }

    fn calls(&mut self, number: u64) -> Calls {
        let mut calls = Calls::default();
        let executions = self.executions(number);
        for ((place, _), flights) in &executions {
            calls.second += flights.len() - 1;
            let again: usize = flights.values().map(|made| made - 1).sum();
            match self.oracle.policies[*place] {
                Policy::Retry => calls.repeats += again,
                Policy::Hold | Policy::Reconcile => calls.second += again,
            }
        }
        calls.second += executions.len().saturating_sub(1);
        if calls.second > 0 {
            let what = format!("executed by {executions:?}");
            self.blame(number, what);
        }
        calls
    }

    /// All recorded answers are equal, all successes are equal, and each was given by
    /// the platform for this key.
    fn answers_agree(&mut self, number: u64) -> bool {
        let (mut recorded, mut all) = (BTreeSet::new(), BTreeSet::new());
        let mut successes: BTreeSet<(u16, String)> = BTreeSet::new();
        for result in self.result(number).filter(|result| result.is_ok()) {
            let answer = (result.status, result.digest.clone());
            if result.recorded {
                recorded.insert(answer.clone());
            }
            if result.status < 300 {
                successes.insert(answer.clone());
            }
            all.insert(answer);
        }
        let mut given: BTreeSet<String> = self
            .seen(number)
            .into_iter()
            .filter(|seen| seen.whole)
            .map(|seen| digest(seen.answer.1.as_bytes()))
            .collect();
        // Or the operator or hook that resolved the key gave the answer.
        let said = self.oracle.said().into_iter();
        given.extend(
            said.filter(|said| said.number == number)
                .filter_map(|said| said.digest),
        );
        let mut what = Vec::new();
        if recorded.len() > 1 {
            what.push(format!("recorded answers differ: {recorded:?}"));
        }
        if successes.len() > 1 {
            what.push(format!("successes differ: {successes:?}"));
        }
        if let Some(foreign) = all.iter().find(|(_, digest)| !given.contains(digest)) {
            what.push(format!(
                "an answer that the platform did not give: {foreign:?}"
            ));
        }
        let agree = what.is_empty();
        what.into_iter().for_each(|what| self.blame(number, what));
        agree
    }

    /// After all faults have ended, a key has its outcome or is indeterminate, in the store
    /// and for its last caller.
    fn has_ended(&mut self, number: u64, state: &'static str) -> bool {
        let last = self.asks.get(&number).and_then(|asks| asks.last());
        let result = last.and_then(|ask| ask.answers[0].clone());
        let executed = self.oracle.ledger.executed(&key(number));
        let kind = result.as_ref().map(|result| &*result.kind);
        let what = match (state, kind) {
            (_, Some("ok")) if executed == 0 => "an outcome without a call",
            // Recorded or not at that moment: a busy store might record the outcome after
            // the answer.
            ("cached", Some("ok")) => return true,
            ("indeterminate", Some("indeterminate")) => return true,
            _ => "no end",
        };
        let result = result.map(|result| result.kind);
        self.blame(
            number,
            format!("{what}: {state}, the last caller got {result:?}"),
        );
        false
    }

    /// Callers without an answer, except those in killed workers.
    fn unanswered(&mut self) -> usize {
        let mut unanswered = 0;
        let all: Vec<Ask> = self.asks.values().flatten().cloned().collect();
        for ask in all {
            let missing = ask.answers.iter().filter(|result| result.is_none()).count();
            if missing > 0 && !self.oracle.history.was_killed(ask.process) {
                unanswered += missing;
                self.blame(ask.number, format!("{missing} of {ask:?} have no answer"));
            }
        }
        unanswered
    }

    fn answers_by_kind(&self) -> String {
        let mut kinds: Vec<String> = Vec::new();
        let mut lost = 0;
        for ask in self.asks.values().flatten() {
            for result in &ask.answers {
                match result {
                    Some(result) if result.is_ok() => {
                        kinds.push(format!("{} {}", result.kind, result.served))
                    }
                    Some(result) if result.kind == "deadline_exceeded" && ask.limit < DEADLINE => {
                        kinds.push("gave up".into());
                    }
                    Some(result) => kinds.push(result.kind.clone()),
                    None => lost += 1,
                }
            }
        }
        format!("{}, lost with their worker {lost}", count(&kinds))
    }
}

fn by_number(asks: Vec<Ask>) -> BTreeMap<u64, Vec<Ask>> {
    let mut numbers: BTreeMap<u64, Vec<Ask>> = BTreeMap::new();
    for ask in asks {
        numbers.entry(ask.number).or_default().push(ask);
    }
    numbers
}

fn count<S: AsRef<str>>(words: &[S]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for word in words {
        *counts.entry(word.as_ref()).or_default() += 1;
    }
    let counts = counts.iter().map(|(word, n)| format!("{word} {n}"));
    counts.collect::<Vec<_>>().join(", ")
}

fn recovery(times: &[Option<Duration>]) -> String {
    let mut found: Vec<u128> = times.iter().flatten().map(Duration::as_millis).collect();
    found.sort();
    let of = times.len();
    let (Some(middle), Some(longest)) = (found.get(found.len() / 2), found.last()) else {
        return format!("Redis returned {of} times, and no success followed before its next end");
    };
    let seen = found.len();
    format!(
        "time from Redis's return to the first success: median {middle} ms, longest {longest} ms ({seen} of {of} returns)"
    )
}
