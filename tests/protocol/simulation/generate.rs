//! Schedules from seeds. Each seed uses only a few kinds of trouble, so that rare pairs of
//! them meet often. Times fall on few instants, so that events collide.

use fastrand::Rng;

use super::schedule::{Answer, Call, EngineSetup, Kind, Ms, Schedule, Setup, Slot, Step, VARIANTS};

/// The schedule of a seed.
pub fn schedule(seed: u64) -> Schedule {
    let mut maker = Maker {
        rng: Rng::with_seed(seed ^ 0x5eed_0000_0000_0000),
        instants: Vec::new(),
        engines: Vec::new(),
        slots: Vec::new(),
        horizon: 0,
        mixed: false,
    };
    let (setup, steps) = maker.make();
    Schedule { seed, setup, steps }
}

/// Adds steps of one kind.
type Trouble = fn(&mut Maker, &mut Vec<Step>);

pub(super) struct Maker {
    pub rng: Rng,
    instants: Vec<Ms>,
    pub engines: Vec<EngineSetup>,
    pub slots: Vec<Slot>,
    pub horizon: Ms,
    /// Whether payloads under one key differ often.
    mixed: bool,
}

impl Maker {
    pub fn chance(&mut self, percent: u32) -> bool {
        self.rng.u32(0..100) < percent
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.rng.usize(0..from.len())]
    }

    pub fn up_to(&mut self, most: usize) -> usize {
        self.rng.usize(0..=most)
    }

    fn make(&mut self) -> (Setup, Vec<Step>) {
        let engines = self.pick(&[1, 1, 2, 2, 2, 3]);
        let (lease, store_timeout) = self.pick(&[(3_000, 500), (3_000, 1_000), (30_000, 2_000)]);
        self.horizon = lease * self.pick(&[2, 4, 8]);
        self.mixed = self.chance(40);
        let orgs = self.chance(8);
        let one_kind = self.chance(70);
        self.engines = (0..engines)
            .map(|n| {
                let (lease, store_timeout) = if one_kind {
                    (lease, store_timeout)
                } else {
                    self.pick(&[(2_000, 400), (lease, store_timeout), (10_000, 1_000)])
                };
                EngineSetup {
                    lease,
                    store_timeout,
                    attempt_timeout: lease * self.pick(&[1, 2, 3]) + self.pick(&[0, 500]),
                    attempts: self.pick(&[1, 2, 3, 3]),
                    retry_unknown: self.chance(8),
                    fail_fast: self.chance(6),
                    max_in_flight: self.pick(&[1, 2, 50, 50]),
                    recent: self.pick(&[0, 2_000, 60_000, 60_000]),
                    result_ttl: self.pick(&[86_400_000, 86_400_000, 86_400_000, lease / 2]),
                    org: if orgs { n as u8 % 2 } else { 0 },
                }
            })
            .collect();
        self.slots = (0..self.pick(&[1, 1, 2, 3]))
            .map(|_| Slot {
                action: self.pick(&[0, 0, 1]),
                scope: self.chance(15),
                own_key: self.chance(50),
            })
            .collect();
        self.instants = (0..self.pick(&[2, 3, 5, 9]))
            .map(|_| self.rng.u64(0..self.horizon))
            .collect();
        self.instants.push(0);
        let mut steps = self.calls();
        self.answers(&mut steps);
        let troubles: [(u32, Trouble); 8] = [
            (35, Self::outages),
            (35, Self::blips),
            (12, Self::losses),
            (25, Self::kills),
            (20, Self::ends),
            (35, Self::resolves),
            (15, Self::forgets),
            (10, Self::lists),
        ];
        for (percent, trouble) in troubles {
            if self.chance(percent) {
                trouble(self, &mut steps);
            }
        }
        let tokens = self.chance(35);
        if tokens {
            self.tokens(&mut steps);
        }
        let hook = self.chance(35);
        if hook {
            self.hooks(&mut steps);
        }
        let setup = Setup {
            engines: self.engines.clone(),
            slots: self.slots.clone(),
            latency: self.pick(&[0, 0, 2, 30]),
            notices: self.chance(70),
            token_life: tokens.then(|| self.pick(&[lease, 4 * lease, 3_600_000])),
            hook,
            horizon: self.horizon,
            deceitful: false,
        };
        if self.chance(12) {
            self.rush(&mut steps);
        }
        (setup, steps)
    }

    /// A moment: one of a few instants, or a time after it at which something is due.
    pub fn moment(&mut self) -> Ms {
        let from = self.instants[self.rng.usize(0..self.instants.len())];
        let engine = self.rng.usize(0..self.engines.len());
        let EngineSetup {
            lease,
            store_timeout,
            attempt_timeout,
            ..
        } = self.engines[engine];
        from + match self.rng.u32(0..10) {
            0..=3 => 0,
            4 => self.rng.u64(0..40),
            5 => self.rng.u64(0..1_500),
            6 => store_timeout + self.pick(&[0, 1, 20]),
            7 => lease + self.pick(&[0, 1, 300]),
            8 => attempt_timeout + self.rng.u64(0..=lease),
            _ => self.rng.u64(0..lease),
        }
    }

    pub fn engine(&mut self) -> u8 {
        self.rng.usize(0..self.engines.len()) as u8
    }

    pub fn slot(&mut self) -> u8 {
        self.rng.usize(0..self.slots.len()) as u8
    }

    pub fn variant(&mut self) -> u8 {
        let mostly = if self.mixed { 30 } else { 70 };
        if self.chance(mostly) {
            0
        } else {
            self.rng.u8(0..VARIANTS)
        }
    }

    pub fn lease(&self) -> Ms {
        self.engines[0].lease
    }

    fn calls(&mut self) -> Vec<Step> {
        let count = 2 + self.up_to(12);
        (0..count)
            .map(|_| {
                let ttl = self
                    .chance(10)
                    .then(|| self.pick(&[1, 10, 400, 3_000, 60_000]));
                Step::Call(Call {
                    at: self.moment(),
                    engine: self.engine(),
                    slot: self.slot(),
                    variant: self.variant(),
                    by_message: self.chance(15),
                    limit: if self.chance(20) {
                        self.rng.u64(1..10_000)
                    } else {
                        6 * self.lease() + 20_000
                    },
                    leaves: self.chance(15).then(|| self.rng.u64(0..5_000)),
                    ttl,
                    sensitive: self.chance(10),
                    again: if self.chance(25) {
                        self.pick(&[1, 3, 40])
                    } else {
                        0
                    },
                    pause: self.pick(&[0, 20, 200, 1_000]),
                })
            })
            .collect()
    }

    fn answers(&mut self, steps: &mut Vec<Step>) {
        let panics = self.chance(15);
        for _ in 0..self.up_to(9) {
            let kind = match self.rng.u32(0..24) {
                0..=4 => Kind::Ok,
                5 => Kind::Large,
                6 | 7 => Kind::Forbidden,
                8 => Kind::NotFound,
                9 => Kind::Unauthorized,
                10 => Kind::Limited(self.pick(&[0, 1, 2, 5, 15, 40])),
                11 => Kind::OddLimit(self.rng.u8(0..6)),
                12 => Kind::Unreadable(self.rng.u8(0..3)),
                13 => Kind::Timeout408,
                14 => Kind::RelayedLimit,
                15 => Kind::RelayedForbidden,
                16 => Kind::RemoteLogin,
                17 => Kind::Unavailable,
                18 | 19 => Kind::Reset,
                20 => Kind::Refused,
                21 | 22 => Kind::Silent,
                _ if panics => Kind::Panic,
                _ => Kind::Ok,
            };
            let lease = self.lease();
            let answer = Answer {
                connect: if self.chance(10) {
                    self.pick(&[5, lease / 2, lease + 100])
                } else {
                    0
                },
                delay: self.pick(&[0, 1, 50, 700, lease / 3, lease, 2 * lease, 5 * lease / 2]),
                kind,
                executes: self.chance(50),
            };
            steps.push(Step::Answer {
                slot: self.slot(),
                answer,
            });
        }
    }
}
