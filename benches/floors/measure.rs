//! How the sides of a row are compared: in turns, in several rounds, by medians.

use std::future::Future;
use std::ops::Range;
use std::time::Instant;

/// Callers at the same time, unless a row says otherwise.
pub const TASKS: usize = 64;

/// The result of a row.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Engine divided by baseline.
    pub value: f64,
    /// The medians of both sides.
    pub engine: f64,
    pub baseline: f64,
    pub unit: &'static str,
    pub rounds: usize,
    /// The middle half of the rounds' ratios lies between these two.
    pub quartiles: [f64; 2],
    /// Other ways to do the engine's job, each divided by the baseline.
    pub others: Vec<(&'static str, f64)>,
    /// A remark for the reader of the figures.
    pub note: String,
}

/// A way to do a row's job: the engine, its baseline, or a part of the engine.
pub struct Side<'a> {
    pub name: &'static str,
    pub run: Box<dyn FnMut() -> f64 + 'a>,
}

impl Measured {
    /// The result of one measurement of both sides: counts, or memory.
    pub fn once(engine: f64, baseline: f64, unit: &'static str) -> Self {
        let value = engine / baseline;
        Self {
            value,
            engine,
            baseline,
            unit,
            rounds: 1,
            quartiles: [value; 2],
            others: Vec::new(),
            note: String::new(),
        }
    }

    pub fn with_note(self, note: impl Into<String>) -> Self {
        Self {
            note: note.into(),
            ..self
        }
    }
}

/// Measures both sides in turns; see [`in_turns_with`].
pub fn in_turns(
    rounds: usize,
    unit: &'static str,
    engine: impl FnMut() -> f64,
    baseline: impl FnMut() -> f64,
) -> Measured {
    in_turns_with(rounds, unit, engine, baseline, Vec::new())
}

/// Measures all sides in turns. The first round only warms up, and each round begins with
/// another side. The value is the median of the rounds' ratios: a temporary slowdown of the
/// machine affects all sides of a round.
///
/// `FLOORS_SIDE` (`engine`, `baseline` or another side's name) runs that side alone,
/// for a profiler.
pub fn in_turns_with(
    rounds: usize,
    unit: &'static str,
    engine: impl FnMut() -> f64,
    baseline: impl FnMut() -> f64,
    others: Vec<Side<'_>>,
) -> Measured {
    let wanted = std::env::var("FLOORS_SIDE").unwrap_or_default();
    let mut sides = vec![
        Side {
            name: "engine",
            run: Box::new(engine),
        },
        Side {
            name: "baseline",
            run: Box::new(baseline),
        },
    ];
    sides.extend(others);
    let mut pairs = vec![Vec::new(); sides.len()];
    for round in 0..=rounds {
        let mut values = vec![f64::NAN; sides.len()];
        for turn in 0..sides.len() {
            let side = (turn + round) % sides.len();
            let Side { name, run } = &mut sides[side];
            if wanted.is_empty() || wanted == *name {
                values[side] = run();
            }
        }
        if round > 0 {
            for (pairs, value) in pairs.iter_mut().zip(&values) {
                pairs.push((*value, values[1]));
            }
        }
    }
    let others = (2..sides.len()).map(|n| (sides[n].name, of_pairs(&pairs[n], unit).value));
    Measured {
        others: others.collect(),
        ..of_pairs(&pairs[0], unit)
    }
}

/// The medians of pairs of engine and baseline, one per round.
pub fn of_pairs(pairs: &[(f64, f64)], unit: &'static str) -> Measured {
    let ratios = sorted(pairs.iter().map(|(engine, baseline)| engine / baseline));
    Measured {
        value: at(&ratios, 0.5),
        engine: at(&sorted(pairs.iter().map(|pair| pair.0)), 0.5),
        baseline: at(&sorted(pairs.iter().map(|pair| pair.1)), 0.5),
        unit,
        rounds: pairs.len(),
        quartiles: [at(&ratios, 0.25), at(&ratios, 0.75)],
        others: Vec::new(),
        note: String::new(),
    }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// A quantile, interpolated between two values.
fn at(sorted: &[f64], quantile: f64) -> f64 {
    let place = quantile * (sorted.len() - 1) as f64;
    let below = sorted[place.floor() as usize];
    let above = sorted[place.ceil() as usize];
    below + (above - below) * place.fract()
}

/// Calls of `work` per second, one after the other on this thread.
pub fn rate(calls: usize, mut work: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..calls {
        work();
    }
    calls as f64 / start.elapsed().as_secs_f64()
}

/// Calls per second by [`TASKS`] tasks at the same time. `work` is called once
/// per task, with the numbers of the calls that this task makes; `calls` is
/// rounded up to whole shares.
pub async fn throughput<F, Fut>(calls: usize, work: F) -> f64
where
    F: Fn(Range<usize>) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    throughput_of(TASKS, calls, work).await
}

/// The same by this many tasks.
pub async fn throughput_of<F, Fut>(tasks: usize, calls: usize, work: F) -> f64
where
    F: Fn(Range<usize>) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let share = calls.div_ceil(tasks);
    let calls = share * tasks;
    let start = Instant::now();
    let tasks: Vec<_> = (0..tasks)
        .map(|task| tokio::spawn(work(task * share..(task + 1) * share)))
        .collect();
    for task in tasks {
        task.await.expect("a task of a bench panicked");
    }
    calls as f64 / start.elapsed().as_secs_f64()
}
