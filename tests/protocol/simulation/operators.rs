//! Operators: they look at a key, find out what is true, and resolve it, early or late.

use std::sync::Arc;
use std::time::Duration;

use genesys_once::Error;
use genesys_once::record::RecordState;
use tokio::time::{Instant, sleep};

use super::oracle::{Rule, fingerprint};
use super::schedule::Step;
use super::world::{World, ms};

/// What operators do with a key.
pub async fn operate(world: Arc<World>, step: Step) {
    match step {
        Step::Resolve {
            at,
            engine,
            slot,
            variant,
            after,
            blind,
            tries,
        } => {
            world.until(at).await;
            for _ in 0..tries.max(1) {
                if resolve(&world, (engine, slot, variant), ms(after), blind).await {
                    break;
                }
                sleep(Duration::from_secs(1)).await;
            }
        }
        Step::Forget {
            at,
            engine,
            slot,
            variant,
        } => {
            world.until(at).await;
            let (place, seat) = world.seat(engine);
            let name = world.name(place, slot, variant);
            let begun = Instant::now();
            let order = (name.clone(), place, begun);
            world.state().forget_events.push(order);
            let returned = seat.engine.forget(&name.key).await;
            world.note(|| {
                format!(
                    "engine {place} forgets {}: {returned:?}",
                    world.short(&name)
                )
            });
            if let Ok(genesys_once::engine::Forgotten::Outcome) = returned {
                world
                    .state()
                    .forgotten
                    .push((name, place, begun, Instant::now()));
            }
            world.bounded(place, begun, 2, "forget");
        }
        Step::List { at, engine } => {
            world.until(at).await;
            let (place, seat) = world.seat(engine);
            let listed = seat.engine.indeterminate(10).await;
            world.note(|| {
                format!(
                    "engine {place} lists {:?}",
                    listed.map(|listed| listed.keys.len())
                )
            });
        }
        _ => {}
    }
}

async fn resolve(
    world: &Arc<World>,
    (engine, slot, variant): (u8, u8, u8),
    after: Duration,
    blind: bool,
) -> bool {
    let (place, seat) = world.seat(engine);
    let name = world.name(place, slot, variant);
    let begun = Instant::now();
    let state = seat.engine.inspect(&name.key).await;
    world.bounded(place, begun, 1, "inspect");
    let Ok(Some(state)) = state else { return false };
    if !blind && !state.is_indeterminate() {
        return false;
    }
    if let RecordState::Cached { .. } | RecordState::Released { .. } = state {
        return false;
    }
    let Some(label) = world.whose(place, slot, fingerprint(&state)) else {
        return false;
    };
    let resolution = world.say(&name, &label);
    sleep(after).await;
    let (place, seat) = world.seat(engine);
    let begun = Instant::now();
    let word = format!("{resolution:?}");
    let returned = seat.engine.resolve(&name.key, &state, resolution).await;
    world.note(|| format!("OPERATOR says of {label} at engine {place}: {word} -> {returned:?}"));
    world.bounded(place, begun, 6, "resolve");
    if let Err(Error::TooEarly { wait, .. }) = returned {
        sleep(wait).await;
    }
    returned.is_ok()
}

impl World {
    /// An operation of this many store commands must end in time.
    fn bounded(&self, engine: usize, begun: Instant, commands: u32, what: &str) {
        let limit = ms(self.schedule.setup.engines[engine].store_timeout) * commands + ms(200);
        let took = begun.elapsed();
        if took > limit {
            self.violated(Rule::Unanswered, || format!("{what} takes {took:?}"));
        }
    }
}
