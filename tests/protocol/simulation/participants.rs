//! Everything around the engines: callers, operators, the hook, and the steps that kill and
//! replace engines.

use std::sync::Arc;
use std::time::Duration;

use genesys_once::record::{Fingerprint, RecordName};
use genesys_once::{
    Engine, EngineBuilder, EngineMessage, Error, OnDuplicate, OnUnknown, Reply, Resolution,
    RetryPolicy,
};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::facts::{Clearing, Seat};
use super::operators::operate;
use super::oracle::Rule;
use super::platform::{Platform, parts};
use super::schedule::{Call, End, HookSays, Ms, Step, VARIANTS};
use super::store::{Backend, Way};
use super::world::{OPERATORS, World, mix, ms};

/// A waiting caller.
#[derive(Clone, Debug)]
pub struct Asked {
    pub number: usize,
    pub engine: usize,
    pub life: usize,
    pub name: RecordName,
    pub label: String,
    pub fingerprint: Fingerprint,
    pub began: Instant,
    pub limit: Duration,
}

/// An engine for one place, as the schedule sets it up.
pub fn builder(world: &Arc<World>, engine: usize, life: usize, clock: i64) -> EngineBuilder {
    let setup = world.schedule.setup.engines[engine].clone();
    let way = Way {
        world: world.clone(),
        engine,
        life,
    };
    let platform = Platform {
        world: world.clone(),
        engine,
        life,
    };
    let seed = mix(world.schedule.seed ^ ((engine as u64) << 32) ^ ((life as u64) << 40));
    let policy = RetryPolicy::default()
        .attempts(setup.attempts)
        .backoff(ms(500))
        .max_wait(Duration::from_secs(20));
    let mut builder = Engine::builder(platform)
        .store(way)
        .deterministic(seed, world.clock(clock))
        .lease(ms(setup.lease))
        .store_timeout(ms(setup.store_timeout))
        .result_ttl(ms(setup.result_ttl))
        .recent(1 << 24, ms(setup.recent))
        .max_in_flight(setup.max_in_flight)
        .retry(policy);
    if setup.retry_unknown {
        builder = builder.on_unknown(OnUnknown::Retry);
    }
    if setup.fail_fast {
        builder = builder.on_duplicate(OnDuplicate::FailFast);
    }
    if world.schedule.setup.hook {
        let world = world.clone();
        builder = builder.reconcile(move |request, _error| {
            let (after, says) = world.next_hook();
            world.note(|| format!("HOOK {says:?} after {after} ms"));
            assert!(
                says != HookSays::PanicWhenCalled,
                "scripted: the hook panics when called"
            );
            let world = world.clone();
            async move {
                sleep(ms(after)).await;
                match says {
                    HookSays::Nothing => None,
                    HookSays::Panic => panic!("scripted: the hook panics"),
                    HookSays::Hang => std::future::pending().await,
                    HookSays::Truth | HookSays::PanicWhenCalled => {
                        let (slot, variant) = parts(request.payload());
                        let name = world.name(engine, slot, variant);
                        let label = world.label(engine, slot, variant);
                        Some(world.say(&name, &label))
                    }
                }
            }
        });
    }
    builder
}

impl World {
    /// What is true of a request by now, as a resolution.
    pub fn say(&self, name: &RecordName, label: &str) -> Resolution {
        let now = Instant::now();
        let executed = self.state().sent.iter().any(|sent| {
            sent.name == *name
                && sent.label == label
                && sent.executes_at.is_some_and(|at| at <= now)
        });
        if executed {
            Resolution::applied(self.operators_word(label))
        } else {
            Resolution::not_applied()
        }
    }

    /// Gives a place to the next engine, unless a later engine already has it.
    fn reseat(&self, place: usize, next: Seat) -> bool {
        let mut state = self.state();
        let life = state.seats[place].life;
        if life + 1 == next.life {
            state.seats[place] = next;
            state.ended.insert((place, life));
        }
        state.seats[place].life == life + 1
    }

    /// Which request of a slot has this fingerprint.
    pub fn whose(
        &self,
        engine: usize,
        slot: u8,
        fingerprint: Option<Fingerprint>,
    ) -> Option<String> {
        let variant = (0..VARIANTS)
            .find(|variant| Some(self.request(slot, *variant).fingerprint("")) == fingerprint)?;
        Some(self.label(engine, slot, variant))
    }

    pub fn seat(&self, engine: u8) -> (usize, Seat) {
        let place = self.place(engine);
        (place, self.state().seats[place].clone())
    }

    pub fn asks(
        &self,
        engine: usize,
        life: usize,
        slot: u8,
        variant: u8,
        limit: Duration,
    ) -> Asked {
        let mut state = self.state();
        state.callers += 1;
        let number = state.callers;
        drop(state);
        let asked = Asked {
            number,
            engine,
            life,
            name: self.name(engine, slot, variant),
            label: self.label(engine, slot, variant),
            fingerprint: self.request(slot, variant).fingerprint(""),
            began: Instant::now(),
            limit,
        };
        self.note(|| format!("caller {number} asks engine {engine} for {}", asked.label));
        self.state().asked.insert((
            engine,
            life,
            asked.name.clone(),
            asked.label.clone(),
            asked.began,
            number,
        ));
        asked
    }

    /// A caller got an answer, or left without one.
    pub fn answered(&self, asked: &Asked, answer: Option<&Result<Reply, Error>>) {
        let entry = (
            asked.engine,
            asked.life,
            asked.name.clone(),
            asked.label.clone(),
            asked.began,
            asked.number,
        );
        self.state().asked.remove(&entry);
        self.note(|| match answer {
            None => format!("caller {} leaves", asked.number),
            Some(Ok(reply)) => {
                let source = self.identify(reply.outcome());
                format!(
                    "caller {} gets {} {:?} recorded={} of {source:?}",
                    asked.number,
                    reply.status(),
                    reply.served(),
                    reply.recorded()
                )
            }
            Some(Err(error)) => format!("caller {} gets {error:?}", asked.number),
        });
        let code = match answer {
            None => 1,
            Some(Ok(reply)) => u64::from(reply.status().as_u16()),
            Some(Err(error)) => error.code().len() as u64,
        };
        self.mark(code << 32 | asked.number as u64);
        if let Some(answer) = answer {
            self.judge_answer(asked, answer);
        }
    }

    pub async fn until(&self, at: Ms) {
        sleep_until(self.begun + ms(at)).await;
    }
}

pub async fn call(world: &Arc<World>, call: &Call) -> Option<Result<Reply, Error>> {
    let (place, seat) = world.seat(call.engine);
    let mut request = world.request(call.slot, call.variant);
    if let Some(ttl) = call.ttl {
        request = request.with_ttl(ms(ttl)).unwrap();
    }
    if call.sensitive {
        request = request.sensitive();
    }
    let limit = ms(call.limit);
    let asked = world.asks(place, seat.life, call.slot, call.variant, limit);
    let engine = seat.engine.clone();
    drop(seat);
    let by_message = call.by_message;
    let asking = async move {
        if !by_message {
            return Some(engine.execute_within(request, limit).await);
        }
        let (port, answer) = ractor::concurrency::oneshot();
        let message = EngineMessage::Execute(request, (port, limit).into());
        engine.actor().send_message(message).ok()?;
        drop(engine);
        answer.await.ok()
    };
    let patience = call.leaves.map_or(limit + Duration::from_secs(1), ms);
    let answer = match timeout(patience, asking).await {
        Ok(Some(answer)) => answer,
        Ok(None) => {
            let gone = world.state().ended.contains(&(place, asked.life));
            if !gone {
                world.violated(Rule::Unanswered, || {
                    format!(
                        "the port of caller {} is dropped, and the engine runs",
                        asked.number
                    )
                });
            }
            Err(Error::Stopped)
        }
        Err(_) => {
            world.answered(&asked, None);
            if call.leaves.is_none() {
                world.violated(Rule::Unanswered, || {
                    format!("caller {} is left without an answer", asked.number)
                });
            }
            return None;
        }
    };
    world.answered(&asked, Some(&answer));
    Some(answer)
}

/// Executes one step at its time.
pub async fn take(world: Arc<World>, step: Step) {
    match step {
        Step::Resolve { .. } | Step::Forget { .. } | Step::List { .. } => {
            OPERATORS.scope((), operate(world, step)).await;
        }
        _ => act(world, step).await,
    }
}

async fn act(world: Arc<World>, step: Step) {
    match step {
        Step::Call(asked) => {
            world.until(asked.at).await;
            for _ in 0..=asked.again {
                match call(&world, &asked).await {
                    Some(Err(_)) if !world.is_over() => sleep(ms(asked.pause)).await,
                    _ => break,
                }
            }
        }
        Step::Restart { at, back } => {
            world.until(at).await;
            if let Backend::Disk(disk) = &world.store {
                let lost = disk.restart(back.map(|back| Instant::now() - ms(back.min(at))));
                world.note(|| "THE STORE RESTARTS".to_owned());
                for name in lost {
                    world.clear(&name, Clearing::Loss);
                }
            }
        }
        Step::Evict { at, slot, variant } => {
            world.until(at).await;
            if let Backend::Disk(disk) = &world.store {
                let name = world.name(0, slot, variant);
                disk.evict(&name);
                world.clear(&name, Clearing::Loss);
            }
        }
        Step::Revoke { at } => {
            world.until(at).await;
            if let Some(tokens) = &world.tokens {
                tokens.revoke();
            }
        }
        Step::Kill { at, engine, child } => {
            world.until(at).await;
            let (place, seat) = world.seat(engine);
            let mut children = seat.engine.actor().get_cell().get_children();
            children.sort_by_key(|child| child.get_id().pid());
            if !children.is_empty() {
                let child = usize::from(child) % children.len();
                world.note(|| format!("KILL child {child} of engine {place}"));
                world.state().seats[place].hurt = true;
                children[child].kill();
            }
        }
        Step::Replace {
            at,
            engine,
            how,
            jump_seconds,
        } => {
            world.until(at).await;
            replace(&world, engine, how, jump_seconds).await;
        }
        _ => {}
    }
}

async fn replace(world: &Arc<World>, engine: u8, how: End, jump_seconds: i64) {
    let (place, old) = world.seat(engine);
    let (life, clock) = (old.life + 1, old.clock + jump_seconds);
    let builder = builder(world, place, life, clock);
    let engine = builder.start().await.expect("possible settings");
    let next = Seat {
        engine,
        life,
        hurt: false,
        clock,
    };
    if !world.reseat(place, next) {
        return; // replaced at the same time
    }
    world.note(|| format!("REPLACE engine {place} by {how:?}"));
    let old = old.engine;
    match how {
        End::Drop => drop(old),
        End::KillRoot => {
            // In a fixed order: ractor keeps children in a map of random order.
            let mut children = old.actor().get_cell().get_children();
            children.sort_by_key(|child| child.get_id().pid());
            children.iter().for_each(|child| child.kill());
            old.actor().kill();
        }
        End::Shutdown(grace) => {
            let begun = Instant::now();
            let limit = ms(grace) + Duration::from_secs(100);
            let drained = timeout(limit, old.shutdown(ms(grace))).await;
            let took = begun.elapsed();
            let store = ms(world.schedule.setup.engines[place].store_timeout);
            if drained.is_err() || took > ms(grace) + 3 * store + Duration::from_secs(2) {
                world.violated(Rule::Unanswered, || {
                    format!("shutdown({grace} ms) takes {took:?}")
                });
            }
        }
    }
}
