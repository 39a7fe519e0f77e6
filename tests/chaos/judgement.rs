//! Reads the platform's ledger, the callers' histories and the records, and
//! says what of the promise was broken. It asks nobody, and knows the promise
//! only from the outside.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use genesys_once::record::RecordState;
use genesys_once::testing::{ScriptedUpstream, Step};
use genesys_once::{Engine, IdempotencyKey, RedisStore};

use super::history::{Ask, Told};
use super::worker::{DEADLINE, NAMESPACE, request};
use super::world::World;

/// The records at the two looks, and what the workers say of themselves.
#[derive(Debug, Default)]
pub struct LastWords {
    pub before: Vec<&'static str>,
    pub after: Vec<&'static str>,
    /// Executions and callers that the workers still had.
    pub unsettled: usize,
}

/// What stands in the store, as an engine of its own sees it.
pub async fn look(world: &World, numbers: u64) -> Vec<&'static str> {
    let store = RedisStore::connect(&world.redis_url).await.unwrap();
    // It only looks: an engine that called anybody would fail here.
    let upstream = ScriptedUpstream::new(|_| Step::Panic);
    let engine = Engine::builder(upstream)
        .store(store)
        .namespace(NAMESPACE.parse().unwrap());
    let engine = engine.start().await.unwrap();
    let mut states = Vec::new();
    for number in 0..numbers {
        let state = engine.inspect(&key(number)).await.unwrap();
        states.push(match state {
            None => "absent",
            Some(RecordState::Locked { .. }) => "locked",
            Some(RecordState::Cached { .. }) => "cached",
            Some(RecordState::Indeterminate { .. }) => "indeterminate",
            Some(RecordState::Released { .. }) => "released",
            Some(_) => "in an unknown state",
        });
    }
    states
}

fn key(number: u64) -> IdempotencyKey {
    IdempotencyKey::of(&request(number, 0))
}

/// The figures of a run, and everything that was wrong with it.
#[derive(Debug)]
pub struct Judgement {
    pub figures: Vec<String>,
    pub wrong: Vec<String>,
}

impl Judgement {
    pub fn of(world: &World, last: LastWords) -> Self {
        let mut judge = Judge {
            world,
            asks: by_number(world.history.asks()),
            wrong: BTreeMap::new(),
        };
        let numbers = last.after.len() as u64;
        let ledger = world.simulator.ledger();
        let executions: usize = (0..numbers).map(|n| ledger.executed(&key(n))).sum();
        let (mut second, mut disagreeing, mut stuck) = (0, 0, 0);
        for number in 0..numbers {
            second += judge.second_calls(number);
            disagreeing += usize::from(!judge.answers_agree(number));
            stuck += usize::from(!judge.has_ended(number, last.after[number as usize]));
        }
        let unanswered = judge.unanswered();
        let mut figures = vec![format!("keys: {numbers}")];
        let faults = world.faults.counts();
        figures.push(format!("faults: {}", faults.values().sum::<usize>()));
        figures.extend(faults.iter().map(|(kind, n)| format!("  {kind}: {n}")));
        figures.push(format!("calls at the platform: {}", ledger.total()));
        figures.push(format!("executions: {executions}"));
        figures.push(format!("second calls: {second}"));
        figures.push(format!("unanswered: {unanswered}"));
        figures.push(format!("keys with different answers: {disagreeing}"));
        figures.push(format!("keys without an end: {stuck}"));
        figures.push(format!("left in workers: {}", last.unsettled));
        figures.push(format!("answers: {}", judge.answers_by_kind()));
        figures.push(format!(
            "records before the last round: {}",
            count(&last.before)
        ));
        figures.push(format!("records at the end: {}", count(&last.after)));
        figures.push(recovery(&world.history.recoveries()));
        if last.unsettled > 0 {
            let what = format!(
                "{} executions or callers are left in workers",
                last.unsettled
            );
            judge.wrong.entry(numbers).or_default().push(what);
        }
        let wrong = judge.stories();
        Self { figures, wrong }
    }
}

struct Judge<'a> {
    world: &'a World,
    /// By the key's number, in the order in which they were made.
    asks: BTreeMap<u64, Vec<Ask>>,
    /// What is wrong, by the key's number.
    wrong: BTreeMap<u64, Vec<String>>,
}

impl Judge<'_> {
    fn told(&self, number: u64) -> impl Iterator<Item = &Told> {
        let asks = self.asks.get(&number).into_iter().flatten();
        asks.flat_map(|ask| ask.answers.iter().flatten())
    }

    fn blame(&mut self, number: u64, what: impl Into<String>) {
        self.wrong.entry(number).or_default().push(what.into());
    }

    /// Calls that may have been executed, beyond the first.
    fn second_calls(&mut self, number: u64) -> usize {
        let executed = self.world.simulator.ledger().executed(&key(number));
        if executed > 1 {
            self.blame(number, format!("executed {executed} times"));
        }
        executed.saturating_sub(1)
    }

    /// All recorded answers are one, all successes are one, and each was given
    /// by the platform for this key.
    fn answers_agree(&mut self, number: u64) -> bool {
        let of = |which: fn(&Told) -> bool| -> BTreeSet<(u16, String)> {
            let told = self.told(number).filter(|told| told.is_ok() && which(told));
            told.map(|told| (told.status, told.digest.clone()))
                .collect()
        };
        let recorded = of(|told| told.recorded);
        let successes = of(|told| told.status < 300);
        let all = of(|_| true);
        let calls = self.world.calls.lock().unwrap();
        let given: BTreeSet<String> = calls
            .get(&key(number))
            .into_iter()
            .flatten()
            .filter_map(|seen| seen.digest.clone())
            .collect();
        drop(calls);
        let mut what = Vec::new();
        if recorded.len() > 1 {
            what.push(format!("recorded answers differ: {recorded:?}"));
        }
        if successes.len() > 1 {
            what.push(format!("successes differ: {successes:?}"));
        }
        if let Some(foreign) = all.iter().find(|(_, digest)| !given.contains(digest)) {
            what.push(format!("an answer that nobody gave: {foreign:?}"));
        }
        let agree = what.is_empty();
        what.into_iter().for_each(|what| self.blame(number, what));
        agree
    }

    /// After everything is healed, a key has its outcome or is known to be
    /// indeterminate, in the store and to the one who asked last.
    fn has_ended(&mut self, number: u64, state: &'static str) -> bool {
        let last = self.asks.get(&number).and_then(|asks| asks.last());
        let told = last.and_then(|ask| ask.answers[0].clone());
        let executed = self.world.simulator.ledger().executed(&key(number));
        let what = match (state, told.as_ref().map(|told| &*told.kind)) {
            ("cached", Some("ok")) if executed == 0 => "an outcome without a call",
            ("cached", Some("ok")) | ("indeterminate", Some("indeterminate")) => return true,
            _ => "no end",
        };
        let told = told.map(|told| told.kind);
        self.blame(
            number,
            format!("{what}: {state}, the last caller was told {told:?}"),
        );
        false
    }

    /// Callers without an answer, those in killed workers excepted.
    fn unanswered(&mut self) -> usize {
        let mut unanswered = 0;
        let all: Vec<Ask> = self.asks.values().flatten().cloned().collect();
        for ask in all {
            let missing = ask.answers.iter().filter(|told| told.is_none()).count();
            if missing > 0 && !self.world.history.was_killed(ask.process) {
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
            for told in &ask.answers {
                match told {
                    Some(told) if told.is_ok() => {
                        kinds.push(format!("{} {}", told.kind, told.served))
                    }
                    Some(told) if told.kind == "deadline_exceeded" && ask.limit < DEADLINE => {
                        kinds.push("gave up".into());
                    }
                    Some(told) => kinds.push(told.kind.clone()),
                    None => lost += 1,
                }
            }
        }
        format!("{}, lost with their worker {lost}", count(&kinds))
    }

    /// Every key that is wrong, with all that is known of it.
    fn stories(self) -> Vec<String> {
        let mut stories = Vec::new();
        for (number, wrong) in &self.wrong {
            let mut lines: Vec<(Duration, String)> = Vec::new();
            for ask in self.asks.get(number).into_iter().flatten() {
                let (process, callers) = (ask.process, ask.answers.len());
                lines.push((ask.at, format!("{callers} ask {process:?}")));
                for told in ask.answers.iter().flatten() {
                    lines.push((told.at, format!("{process:?} is told {told}")));
                }
            }
            let calls = self.world.calls.lock().unwrap();
            for seen in calls.get(&key(*number)).into_iter().flatten() {
                lines.push((seen.at, format!("PLATFORM {} {:?}", seen.what, seen.digest)));
            }
            drop(calls);
            let begin = lines.iter().map(|(at, _)| *at).min().unwrap_or_default();
            let end = lines.iter().map(|(at, _)| *at).max().unwrap_or_default();
            let events = self.world.history.events().into_iter();
            lines.extend(events.filter(|(at, _)| *at >= begin && *at <= end));
            lines.sort();
            let mut story = format!("key {number} ({}): {}", key(*number), wrong.join("; "));
            for (at, line) in lines {
                let _ = write!(story, "\n    {:8.3} {line}", at.as_secs_f64());
            }
            stories.push(story);
        }
        stories
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
    let (Some(middle), Some(longest)) = (found.get(found.len() / 2), found.last()) else {
        return "time from Redis's return to the first success: it was never away".into();
    };
    let of = times.len();
    let seen = found.len();
    format!(
        "time from Redis's return to the first success: median {middle} ms, longest {longest} ms ({seen} of {of} returns)"
    )
}
