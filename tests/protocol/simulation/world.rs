//! What all parts of a run share, and what is known of it from outside: every call that
//! reached the platform, every change of a record, every fault. The engines know nothing of
//! it; the oracle judges by it.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use genesys_once::record::{Namespace, RecordName, RecordState};
use genesys_once::testing::ScriptedTokens;
use genesys_once::{DataActionRequest, IdempotencyKey, MemoryStore};
use tokio::time::Instant;

use super::facts::{Ended, Sent, State};
use super::oracle::{Rule, Violation};
use super::platform::{self, Platform};
use super::schedule::{
    Answer, Command, Fault, HookSays, Kind, Ms, Schedule, Step, TokenAnswer, VARIANTS,
};
use super::store::{Backend, Disk, Way};

tokio::task_local! {
    /// Set while an operator's command runs.
    pub static OPERATORS: ();
}

pub fn ms(number: Ms) -> Duration {
    Duration::from_millis(number)
}

/// One run.
pub struct World {
    pub schedule: Schedule,
    pub begun: Instant,
    pub store: Backend,
    pub tokens: Option<ScriptedTokens>,
    pub traced: bool,
    state: Mutex<State>,
}

impl World {
    pub fn new(schedule: &Schedule, traced: bool) -> Arc<Self> {
        let mut state = State::default();
        let mut tokens = Vec::<TokenAnswer>::new();
        let mut loses = false;
        let begun = Instant::now();
        for step in &schedule.steps {
            match step {
                Step::Answer { slot, answer } => {
                    let slot = slot % schedule.setup.slots.len() as u8;
                    state
                        .answers
                        .entry(slot)
                        .or_default()
                        .push_back(answer.clone());
                }
                Step::Token(answer) => tokens.push(answer.clone()),
                Step::Hook { after, says } => state.hook.push_back((*after, *says)),
                Step::Blip {
                    at,
                    engine,
                    on,
                    fault,
                    times,
                } => {
                    let engine = usize::from(*engine) % schedule.setup.engines.len();
                    state
                        .blips
                        .push((begun + ms(*at), engine, *on, *fault, *times));
                }
                Step::Restart { .. } | Step::Evict { .. } => loses = true,
                _ => {}
            }
        }
        let life = schedule.setup.token_life;
        Arc::new(Self {
            schedule: schedule.clone(),
            begun,
            store: if loses {
                Backend::Disk(Arc::new(Disk::default()))
            } else {
                Backend::Memory(MemoryStore::new())
            },
            tokens: life
                .map(|life| platform::tokens(ms(life), tokens, begun + ms(schedule.setup.horizon))),
            traced,
            state: Mutex::new(state),
        })
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line to the story; a repeated run must have the same story.
    pub fn note(&self, line: impl FnOnce() -> String) {
        if self.traced {
            let line = format!("{:>9.3} {}", self.begun.elapsed().as_secs_f64(), line());
            self.state().trace.push(line);
        }
    }

    /// Adds an event that a repetition of this run must have at the same moment.
    pub fn mark(&self, what: u64) {
        let now = self.begun.elapsed().as_millis() as u64;
        let mut state = self.state();
        for number in [what, now] {
            state.hash = (state.hash ^ number)
                .wrapping_mul(0x0100_0000_01b3)
                .rotate_left(23);
        }
    }

    pub fn violated(&self, rule: Rule, what: impl FnOnce() -> String) {
        let what = what();
        self.note(|| format!("VIOLATION {rule:?}: {what}"));
        self.state().violations.push(Violation { rule, what });
    }

    pub fn horizon(&self) -> Instant {
        self.begun + ms(self.schedule.setup.horizon)
    }

    pub fn is_over(&self) -> bool {
        Instant::now() >= self.horizon()
    }

    // Names.

    pub fn engines(&self) -> usize {
        self.schedule.setup.engines.len()
    }

    pub fn place(&self, engine: u8) -> usize {
        usize::from(engine) % self.engines()
    }

    pub fn namespace(&self, engine: usize) -> Namespace {
        let org = self.schedule.setup.engines[engine].org;
        format!("org{org}").parse().expect("a namespace")
    }

    pub fn request(&self, slot: u8, variant: u8) -> DataActionRequest {
        let index = usize::from(slot) % self.schedule.setup.slots.len();
        let setup = &self.schedule.setup.slots[index];
        let payload = format!(r#"{{"slot":{index},"variant":{variant}}}"#);
        let action = format!("custom_-_{}", setup.action);
        let mut request = DataActionRequest::new(action, payload).expect("a request");
        if setup.own_key {
            request = request.with_key(format!("own-{index}")).expect("a key");
        }
        if setup.scope {
            request = request.with_scope("a scope").expect("a scope");
        }
        request
    }

    pub fn name(&self, engine: usize, slot: u8, variant: u8) -> RecordName {
        let key = IdempotencyKey::of(&self.request(slot, variant));
        RecordName::new(self.namespace(engine), key)
    }

    pub fn label(&self, engine: usize, slot: u8, variant: u8) -> String {
        let slot = usize::from(slot) % self.schedule.setup.slots.len();
        let org = self.schedule.setup.engines[engine].org;
        format!("o{org}s{slot}v{variant}")
    }

    pub fn short(&self, name: &RecordName) -> String {
        for engine in 0..self.engines() {
            for slot in 0..self.schedule.setup.slots.len() as u8 {
                for variant in 0..VARIANTS {
                    if self.name(engine, slot, variant) == *name {
                        return self.label(engine, slot, variant);
                    }
                }
            }
        }
        name.to_string()
    }

    // The way to the store.

    /// What happens to a command, and how long it is on its way.
    pub fn way(
        &self,
        engine: usize,
        kind: Command,
        name: &RecordName,
    ) -> (Option<Fault>, Duration) {
        let now = Instant::now();
        let outage = self.outage(engine);
        let over = self.is_over();
        let mut state = self.state();
        state.total_commands += 1;
        assert!(state.total_commands < 200_000, "a run without an end");
        let number = state.commands.entry((engine, name.clone())).or_default();
        *number += 1;
        let draw = mix(self.schedule.seed ^ (*number << 8) ^ engine as u64)
            ^ u64::from(name.key.as_bytes()[0]);
        let fault = outage.or_else(|| {
            let blip = state.blips.iter_mut().find(|(at, whose, on, _, times)| {
                *at <= now && *whose == engine && *times > 0 && (*on == Command::Any || *on == kind)
            });
            let (_, _, _, fault, times) = blip.filter(|_| !over)?;
            *times -= 1;
            Some(*fault)
        });
        if fault.is_some() {
            state.faults.entry(engine).or_default().push(now);
        }
        let latency = self.schedule.setup.latency;
        let latency = if latency == 0 {
            0
        } else {
            mix(draw) % (latency / 2 + 1)
        };
        (fault, ms(latency))
    }

    /// The outage that an engine has now.
    pub fn outage(&self, engine: usize) -> Option<Fault> {
        let now = Instant::now();
        if now >= self.horizon() {
            return None;
        }
        self.schedule.steps.iter().find_map(|step| match step {
            Step::Outage {
                at,
                engine: whose,
                lasts,
                fault,
            } => {
                let from = self.begun + ms(*at);
                let mine = whose.is_none_or(|whose| self.place(whose) == engine);
                (mine && from <= now && now < from + ms(*lasts)).then_some(*fault)
            }
            _ => None,
        })
    }

    /// An engine has seen a record, or that there is nothing to wait for.
    pub fn saw(&self, way: &Way, name: &RecordName, state: Option<&RecordState>) {
        if OPERATORS.try_with(|()| ()).is_ok() {
            return; // no flight of the engine sees what an operator looks at
        }
        let (engine, life) = (way.engine, way.life);
        let at = (engine, life, name.clone());
        match state {
            Some(RecordState::Locked {
                lease_left,
                revision,
                ..
            }) if !lease_left.is_zero() => {
                let lease = (engine, life, name.clone(), revision.lease.to_string());
                let now = Instant::now();
                let mut state = self.state();
                if state.own.contains(&(engine, life, lease.3.clone())) {
                    return;
                }
                state.seen.insert(lease);
                let entry = state.expires.entry(at).or_insert((Vec::new(), now));
                entry.0.push(now);
                entry.1 = now + *lease_left;
            }
            _ => {
                self.state().expires.remove(&at);
            }
        }
    }

    // The platform.

    pub fn next_answer(&self, slot: u8) -> Answer {
        let mut state = self.state();
        let next = state.answers.get_mut(&slot).and_then(VecDeque::pop_front);
        next.filter(|_| !self.is_over()).unwrap_or(Answer {
            connect: 0,
            delay: 20,
            kind: Kind::Ok,
            executes: true,
        })
    }

    pub fn arrive(
        &self,
        platform: &Platform,
        name: RecordName,
        (slot, variant): (u8, u8),
        attempt: u32,
        kind: Kind,
        executes_at: Option<Duration>,
    ) -> usize {
        let now = Instant::now();
        let lease = match self.store.state(&name) {
            Some(RecordState::Locked { revision, .. }) => Some(revision.lease.to_string()),
            _ => None,
        };
        let sent = Sent {
            engine: platform.engine,
            life: platform.life,
            label: self.label(platform.engine, slot, variant),
            name,
            attempt,
            arrived: now,
            executes_at: executes_at.map(|after| now + after),
            end: None,
            lease,
            recorded_until: None,
        };
        let id = self.state().sent.len();
        self.note(|| {
            format!(
                "engine {} CALLS for {}: call {id}, attempt {attempt}, {kind:?}",
                sent.engine, sent.label
            )
        });
        self.mark(1 + id as u64);
        self.judge_arrival(&sent, slot, variant);
        if kind == Kind::Panic {
            self.state().seats[platform.engine].hurt = true;
        }
        self.state().sent.push(sent);
        id
    }

    pub fn ends(&self, id: usize, how: Ended) {
        let mut state = self.state();
        let sent = &mut state.sent[id];
        if sent.end.is_none() {
            sent.end = Some((Instant::now(), how));
            drop(state);
            self.note(|| format!("call {id} ends: {how:?}"));
        }
    }

    pub fn next_hook(&self) -> (Ms, HookSays) {
        self.state()
            .hook
            .pop_front()
            .filter(|_| !self.is_over())
            .unwrap_or((0, HookSays::Truth))
    }

    /// The system's clock as an engine finds it at its start.
    pub fn clock(&self, jumped: i64) -> SystemTime {
        let base = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let now = base + self.begun.elapsed();
        let jump = Duration::from_secs(jumped.unsigned_abs());
        if jumped < 0 { now - jump } else { now + jump }
    }

    /// The whole story.
    pub fn story(&self) -> String {
        let mut text = String::new();
        for line in &self.state().trace {
            let _ = writeln!(text, "{line}");
        }
        text
    }
}

/// SplitMix64's output function.
pub fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
