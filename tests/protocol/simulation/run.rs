//! Plays one schedule until nothing more happens, and checks what is left.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Once};
use std::time::Duration;

use genesys_once::record::RecordState;
use genesys_once::{Error, RetryHint};
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::facts::{Ended, Seat};
use super::oracle::{Rule, Violation};
use super::participants::{self, builder};
use super::schedule::{Call, Kind, Schedule, Step, VARIANTS};
use super::store::Backend;
use super::world::{World, ms};

/// The result of a run.
pub struct Report {
    pub violations: Vec<Violation>,
    pub calls: usize,
    /// Equal for equal runs.
    pub hash: u64,
    pub story: String,
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Hides the panics that a schedule asks for.
fn quiet() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                usual(panic);
            }
        }));
    });
}

/// Plays a schedule; `traced` keeps its story.
pub fn run(schedule: &Schedule, traced: bool) -> Report {
    quiet();
    QUIET.set(true);
    // The crate's own test answers draw from this generator.
    fastrand::seed(schedule.seed);
    let played = catch_unwind(AssertUnwindSafe(|| {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let world = runtime.block_on(play(schedule, traced));
        let tasks = runtime.metrics().num_alive_tasks();
        // A `MemoryStore` has one task, which removes expired records.
        let own = usize::from(matches!(world.store, Backend::Memory(_)));
        if tasks > own {
            world.violated(Rule::LeftOver, || format!("{tasks} tasks are left"));
        }
        world
    }));
    QUIET.set(false);
    match played {
        Ok(world) => {
            let story = world.story();
            let mut state = world.state();
            Report {
                violations: std::mem::take(&mut state.violations),
                calls: state.sent.len(),
                hash: state.hash,
                story,
            }
        }
        Err(panic) => {
            let what = panic.downcast_ref::<String>().cloned();
            let what = what.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            let what = what.unwrap_or_default();
            let violation = Violation {
                rule: Rule::Harness,
                what: format!("a panic: {what}"),
            };
            Report {
                violations: vec![violation],
                calls: 0,
                hash: 0,
                story: String::new(),
            }
        }
    }
}

async fn play(schedule: &Schedule, traced: bool) -> Arc<World> {
    let world = World::new(schedule, traced);
    for place in 0..world.engines() {
        let builder = builder(&world, place, 0, 0);
        let engine = builder.start().await.expect("possible settings");
        let seat = Seat {
            engine,
            life: 0,
            hurt: false,
            clock: 0,
        };
        world.state().seats.push(seat);
    }
    let mut taking = JoinSet::new();
    for step in &schedule.steps {
        taking.spawn(participants::take(world.clone(), step.clone()));
    }
    while let Some(taken) = taking.join_next().await {
        if let Err(panic) = taken {
            let panic = panic.into_panic();
            let what = panic.downcast_ref::<String>().cloned();
            let what = what.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            world.violated(Rule::Harness, || {
                format!("a caller's task panics: {what:?}")
            });
        }
    }
    let limits = schedule
        .setup
        .engines
        .iter()
        .map(|engine| engine.attempt_timeout);
    let limit = ms(limits.max().unwrap_or(0));
    let horizon = world.horizon().saturating_duration_since(Instant::now());
    sleep(horizon + 4 * world.longest_lease() + 2 * limit + Duration::from_secs(90)).await;
    world.judge_records();
    probe(&world).await;
    world.judge_leftovers();
    shut(&world).await;
    world
}

/// Once all is healthy again, every request gets an answer.
async fn probe(world: &Arc<World>) {
    for engine in 0..world.engines() as u8 {
        for slot in 0..world.schedule.setup.slots.len() as u8 {
            for variant in 0..VARIANTS {
                let call = Call {
                    at: 0,
                    engine,
                    slot,
                    variant,
                    by_message: false,
                    limit: 100_000,
                    leaves: None,
                    ttl: None,
                    sensitive: false,
                    again: 0,
                    pause: 0,
                };
                let mut answer = participants::call(world, &call).await;
                // The rest of the platform's limits ends with the hints.
                let limits = world.schedule.steps.iter().filter(|step| {
                    matches!(step, Step::Answer { answer, .. }
                        if matches!(answer.kind, Kind::Limited(_) | Kind::OddLimit(_)))
                });
                for _ in 0..=2 * limits.count() {
                    let Some(Err(error @ Error::RateLimited { .. })) = &answer else {
                        break;
                    };
                    let RetryHint::After(wait) = error.hint() else {
                        break;
                    };
                    sleep(wait).await;
                    answer = participants::call(world, &call).await;
                }
                // Tokens were revoked so fast that the action seemed to be at fault: the
                // next token comes after half a minute at most, plus jitter.
                if let Some(Err(Error::Unauthorized { .. })) = answer {
                    sleep(Duration::from_secs(46)).await;
                    answer = participants::call(world, &call).await;
                }
                let Some(Err(error)) = answer else { continue };
                let fine = matches!(
                    &error,
                    Error::Indeterminate { .. } | Error::PayloadMismatch { .. }
                );
                if !fine {
                    world.violated(Rule::NotHealed, || {
                        format!("all is well, and a request gets {error:?}")
                    });
                }
            }
        }
    }
}

async fn shut(world: &Arc<World>) {
    let seats = std::mem::take(&mut world.state().seats);
    for seat in &seats {
        let begun = Instant::now();
        let drained = seat.engine.shutdown(Duration::from_secs(5)).await;
        if begun.elapsed() > Duration::from_secs(5) || !drained.is_clean() {
            world.violated(Rule::LeftOver, || {
                format!(
                    "an idle engine drains for {:?}: {drained:?}",
                    begun.elapsed()
                )
            });
        }
    }
    drop(seats);
    // Engines that were only dropped get 30 s to end.
    sleep(Duration::from_secs(60)).await;
}

impl World {
    /// Each known outcome is recorded, and nothing is under way.
    fn judge_records(&self) {
        let names: std::collections::BTreeSet<_> = {
            let state = self.state();
            let asked = state.history.keys().cloned();
            asked.collect()
        };
        for name in names {
            let record = self.store.state(&name);
            if let Some(RecordState::Locked { lease_left, .. }) = &record
                && !lease_left.is_zero()
            {
                self.violated(Rule::LeftOver, || {
                    format!("a lease of {} lives", self.short(&name))
                });
            }
            let (calm, sent) = {
                let state = self.state();
                let calm = state.ended.is_empty() && !state.connecting.contains(&name);
                let sent: Vec<_> = state
                    .sent
                    .iter()
                    .filter(|sent| sent.name == name)
                    .cloned()
                    .collect();
                (
                    calm && state.cleared.iter().all(|(cleared, ..)| *cleared != name),
                    sent,
                )
            };
            if !calm {
                continue;
            }
            let known = sent
                .iter()
                .find(|sent| matches!(sent.end, Some((_, Ended::Final))));
            if known.is_some_and(|known| known.recorded_until.is_none()) {
                self.violated(Rule::OutcomeLost, || {
                    format!(
                        "an outcome of {} never came into its record",
                        self.short(&name)
                    )
                });
            }
            let proven = sent
                .iter()
                .all(|sent| matches!(sent.end, Some((_, Ended::Refused))));
            if proven && record.as_ref().is_some_and(RecordState::is_indeterminate) {
                self.violated(Rule::OutcomeLost, || {
                    format!(
                        "{} is indeterminate, and nothing was executed",
                        self.short(&name)
                    )
                });
            }
        }
    }

    fn judge_leftovers(&self) {
        let seats = self.state().seats.clone();
        for (place, seat) in seats.iter().enumerate() {
            let stats = seat.engine.stats();
            let left =
                stats.executions + stats.waiting + stats.in_flight + stats.backlog.executions();
            if left > 0 {
                self.violated(Rule::LeftOver, || {
                    format!("engine {place} is idle: {stats:?}")
                });
            }
        }
    }
}
