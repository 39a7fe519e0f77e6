//! The kinds of trouble that a schedule may have.

use super::generate::Maker;
use super::schedule::{Answer, Call, Command, End, Fault, HookSays, Kind, Step, TokenAnswer};

impl Maker {
    fn fault(&mut self) -> Fault {
        match self.rng.u32(0..12) {
            0..=3 => Fault::Fail(self.pick(&[0, 0, 0, 5, 900])),
            4 | 5 => Fault::LoseReply,
            6 => Fault::Refuse,
            7 => Fault::Silent(true),
            8 => Fault::Silent(false),
            9 => Fault::Late(self.rng.u64(0..2_500)),
            _ => Fault::Delayed(self.pick(&[20, 400, 1_500, 4_000, 15_000])),
        }
    }

    pub fn outages(&mut self, steps: &mut Vec<Step>) {
        for _ in 0..1 + self.up_to(3) {
            let lease = self.lease();
            let fault = if self.chance(60) {
                self.pick(&[Fault::Fail(0), Fault::Fail(0), Fault::Silent(false)])
            } else {
                self.fault()
            };
            steps.push(Step::Outage {
                at: self.moment(),
                engine: self.chance(60).then(|| self.engine()),
                lasts: self.pick(&[
                    60,
                    300,
                    lease / 4,
                    lease / 3,
                    lease / 2,
                    lease,
                    2 * lease,
                    4 * lease,
                ]),
                fault,
            });
        }
    }

    pub fn blips(&mut self, steps: &mut Vec<Step>) {
        for _ in 0..1 + self.up_to(5) {
            let on = self.pick(&[
                Command::Any,
                Command::Look,
                Command::Take,
                Command::Extend,
                Command::Enter,
                Command::Finish,
                Command::Finish,
                Command::Resolve,
            ]);
            steps.push(Step::Blip {
                at: self.moment(),
                engine: self.engine(),
                on,
                fault: self.fault(),
                times: self.pick(&[1, 1, 2, 3, 4]),
            });
        }
    }

    pub fn losses(&mut self, steps: &mut Vec<Step>) {
        for _ in 0..1 + self.up_to(1) {
            let at = self.moment();
            steps.push(match self.rng.u32(0..3) {
                0 => Step::Restart { at, back: None },
                1 => Step::Restart {
                    at,
                    back: Some(self.pick(&[1, 50, 1_000, 5_000])),
                },
                _ => Step::Evict {
                    at,
                    slot: self.slot(),
                    variant: self.variant(),
                },
            });
        }
    }

    pub fn kills(&mut self, steps: &mut Vec<Step>) {
        for _ in 0..1 + self.up_to(3) {
            let child = self.rng.u8(0..4);
            steps.push(Step::Kill {
                at: self.moment(),
                engine: self.engine(),
                child,
            });
        }
    }

    pub fn ends(&mut self, steps: &mut Vec<Step>) {
        for _ in 0..1 + self.up_to(1) {
            let how = match self.rng.u32(0..4) {
                0 | 1 => End::Shutdown(self.pick(&[0, 100, 2_000, 20_000])),
                2 => End::Drop,
                _ => End::KillRoot,
            };
            let jump_seconds = self.pick(&[0, 0, -3_600, 3_600, -40_000_000, 40_000_000]);
            steps.push(Step::Replace {
                at: self.moment(),
                engine: self.engine(),
                how,
                jump_seconds,
            });
        }
    }

    pub fn resolves(&mut self, steps: &mut Vec<Step>) {
        for _ in 0..1 + self.up_to(3) {
            let lease = self.lease();
            steps.push(Step::Resolve {
                at: self.moment(),
                engine: self.engine(),
                slot: self.slot(),
                variant: self.variant(),
                after: self.pick(&[0, 0, 300, lease, 3 * lease]),
                blind: self.chance(20),
                tries: self.pick(&[1, 1, 10, 60]),
            });
        }
    }

    pub fn forgets(&mut self, steps: &mut Vec<Step>) {
        for _ in 0..1 + self.up_to(2) {
            steps.push(Step::Forget {
                at: self.moment(),
                engine: self.engine(),
                slot: self.slot(),
                variant: self.variant(),
            });
        }
    }

    pub fn lists(&mut self, steps: &mut Vec<Step>) {
        for _ in 0..1 + self.up_to(2) {
            steps.push(Step::List {
                at: self.moment(),
                engine: self.engine(),
            });
        }
    }

    pub fn tokens(&mut self, steps: &mut Vec<Step>) {
        let panics = if self.chance(12) { 7 } else { 0 };
        for _ in 0..panics {
            steps.push(Step::Token(TokenAnswer::Panic));
        }
        for _ in 0..self.up_to(4) {
            let answer = match self.rng.u32(0..6) {
                0 => TokenAnswer::Late(self.pick(&[50, 3_000, 40_000])),
                1 => TokenAnswer::Fail,
                2 => TokenAnswer::Reject,
                3 => TokenAnswer::Limited(self.pick(&[1, 10])),
                4 => TokenAnswer::Silent,
                _ => TokenAnswer::Panic,
            };
            steps.push(Step::Token(answer));
        }
        for _ in 0..self.up_to(2) {
            steps.push(Step::Revoke { at: self.moment() });
        }
    }

    pub fn hooks(&mut self, steps: &mut Vec<Step>) {
        for _ in 0..self.up_to(4) {
            let lease = self.lease();
            let says = self.pick(&[
                HookSays::Truth,
                HookSays::Truth,
                HookSays::Truth,
                HookSays::Nothing,
                HookSays::Panic,
                HookSays::PanicWhenCalled,
                HookSays::Hang,
            ]);
            let after = self.pick(&[0, 20, 900, lease, 3 * lease, 59_000]);
            steps.push(Step::Hook { after, says });
        }
    }

    /// Two payloads under one key at two engines: one request waits for the other engine
    /// while the other payload comes in between.
    pub fn rush(&mut self, steps: &mut Vec<Step>) {
        let slot = self.slot();
        if self.engines.len() < 2 || !self.slots[usize::from(slot)].own_key {
            return;
        }
        let (at, engine) = (self.rng.u64(0..self.horizon / 2), self.engine());
        let other = (engine + 1) % self.engines.len() as u8;
        let call = |at, engine, variant, again| {
            Step::Call(Call {
                at,
                engine,
                slot,
                variant,
                by_message: false,
                limit: 60_000,
                leaves: None,
                ttl: None,
                sensitive: false,
                again,
                pause: 20,
            })
        };
        steps.push(call(at, engine, 0, 0));
        steps.push(call(at + 1, other, 0, 0));
        steps.push(call(at + 2, engine, 1, 60));
        let lease = self.lease();
        for delay in [
            self.pick(&[0, 50, 300]),
            self.pick(&[700, lease / 3, lease]),
        ] {
            let kind = self.pick(&[Kind::Refused, Kind::Forbidden, Kind::NotFound, Kind::Ok]);
            let answer = Answer {
                connect: 0,
                delay,
                kind,
                executes: true,
            };
            // Each answer is inserted in front, so the last one is used first.
            steps.insert(0, Step::Answer { slot, answer });
        }
    }
}
