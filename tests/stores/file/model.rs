//! A file that is opened repeatedly under any clock, against a model of its two clocks.

use std::time::UNIX_EPOCH;

use genesys_once::testing::ManualClock;
use proptest::prelude::*;

use super::clocks::{MINUTE, WEEK, boot};
use super::*;

#[derive(Clone, Copy, Debug)]
enum Wall {
    /// The machine's true time and an offset in minutes.
    Off(i64),
    Epoch,
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Cached {
        ttl: u32,
    },
    Locked {
        retention: u32,
    },
    Indeterminate {
        retention: u32,
    },
    /// Minutes pass.
    Pass(u32),
    /// The wall clock is set.
    Set(Wall),
    /// The process ends, or the power fails; minutes later another process starts.
    Boot {
        in_order: bool,
        off: u32,
        wall: Wall,
    },
}

fn walls() -> impl Strategy<Value = Wall> {
    let day = 24 * 60;
    prop_oneof![
        3 => Just(Wall::Off(0)),
        2 => (-day..day).prop_map(Wall::Off),
        2 => (-30 * day..30 * day).prop_map(Wall::Off),
        1 => Just(Wall::Off(3650 * day)),
        1 => Just(Wall::Epoch),
    ]
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let life = || 1..20_u32 * 24 * 60;
    let act = prop_oneof![
        2 => life().prop_map(|ttl| Act::Cached { ttl }),
        1 => life().prop_map(|retention| Act::Locked { retention }),
        1 => life().prop_map(|retention| Act::Indeterminate { retention }),
        2 => (0..5_u32 * 24 * 60).prop_map(Act::Pass),
        1 => walls().prop_map(Act::Set),
        4 => (any::<bool>(), 0..10_u32 * 24 * 60, walls())
            .prop_map(|(in_order, off, wall)| Act::Boot { in_order, off, wall }),
    ];
    prop::collection::vec(act, 1..30)
}

/// The times that the file should hold, without nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    store: Duration,
    open: Duration,
    /// The latest wall time shown, since 1970.
    wall: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Cached,
    Locked,
    Indeterminate,
}

/// A record, and its true times.
#[derive(Debug)]
struct Written {
    key: u32,
    kind: Kind,
    life: Duration,
    /// When it expires by the model's clock of its kind.
    expires: Duration,
    /// How long the file had truly been open when it was written.
    open: Duration,
    /// The latest wall time shown until then.
    wall: Duration,
}

struct Model {
    /// The machine's true time, since 1970.
    now: Duration,
    clock: ManualClock,
    times: Times,
    /// The times in the file.
    stamped: Times,
    /// How long the file has truly been open.
    open: Duration,
    /// The latest wall time of all.
    latest: Duration,
    records: Vec<Written>,
}

impl Model {
    fn wall(&self, wall: Wall) -> SystemTime {
        let minutes = match wall {
            Wall::Epoch => return UNIX_EPOCH,
            Wall::Off(minutes) => minutes,
        };
        let off = minutes.unsigned_abs() as u32 * MINUTE;
        UNIX_EPOCH
            + if minutes < 0 {
                self.now.saturating_sub(off)
            } else {
                self.now + off
            }
    }

    fn shown(&self) -> Duration {
        self.clock.wall().duration_since(UNIX_EPOCH).unwrap()
    }

    /// The wall clock is read at each write.
    fn stamp(&mut self) {
        self.times.wall = self.times.wall.max(self.shown());
        self.latest = self.latest.max(self.times.wall);
        self.stamped = self.times;
    }

    fn open(&mut self) {
        let ahead = self.shown().saturating_sub(self.stamped.wall);
        self.times = self.stamped;
        if ahead <= WEEK {
            self.times.store += ahead;
        }
        self.stamp();
    }

    fn by(&self, kind: Kind) -> Duration {
        match kind {
            Kind::Cached => self.times.store,
            Kind::Locked | Kind::Indeterminate => self.times.open,
        }
    }

    fn write(&mut self, key: u32, kind: Kind, life: Duration) {
        self.stamp();
        self.records.push(Written {
            key,
            kind,
            life,
            expires: self.by(kind) + life,
            open: self.open,
            wall: self.times.wall,
        });
    }

    /// The holders have ended: their requests are indeterminate for the retention. An
    /// expired lock might have left a row or none.
    fn recover(&mut self) {
        let (now, open) = (self.times.open, self.open);
        self.records
            .retain(|written| written.kind != Kind::Locked || now < written.expires);
        for written in &mut self.records {
            if written.kind == Kind::Locked {
                written.kind = Kind::Indeterminate;
                written.life -= LEASE;
                written.expires = now + written.life;
                written.open = open;
            }
        }
    }

    /// Compares a record with the model, and with the true times.
    fn check(&self, written: &Written, found: Option<&RecordState>) {
        let is_alive = self.by(written.kind) < written.expires;
        let found = found.map(|state| match state {
            RecordState::Cached { .. } => Kind::Cached,
            RecordState::Locked { .. } => Kind::Locked,
            RecordState::Indeterminate { .. } => Kind::Indeterminate,
            state => panic!("{written:?}: {state:?}"),
        });
        assert_eq!(found, is_alive.then_some(written.kind), "{written:?}");
        if found.is_none() {
            let mut aged = self.open - written.open;
            if written.kind == Kind::Cached {
                aged += self.latest.saturating_sub(written.wall);
            }
            assert!(aged >= written.life, "{written:?} expired after {aged:?}");
        }
    }
}

fn claim_for(key: u32, retention: Duration) -> Claim {
    Claim {
        retention,
        ..claim(key)
    }
}

async fn run(acts: Vec<Act>) {
    let folder = Folder::new("model");
    let now = Duration::from_secs(1_800_000_000);
    let mut boots = 0;
    let mut model = Model {
        now,
        clock: boot(UNIX_EPOCH + now),
        times: Times::default(),
        stamped: Times::default(),
        open: Duration::ZERO,
        latest: Duration::ZERO,
        records: Vec::new(),
    };
    model.stamped.wall = now;
    let mut path = folder.file();
    let mut store = FileStore::open_with_clock(&path, model.clock.clone()).unwrap();
    model.open();
    for (key, act) in (0_u32..).zip(acts) {
        match act {
            Act::Cached { ttl } => {
                let ttl = ttl * MINUTE;
                let Event::Complete {
                    claim,
                    step,
                    stored,
                    ..
                } = complete(key)
                else {
                    unreachable!()
                };
                let event = Event::Complete {
                    origin: Default::default(),
                    claim,
                    step,
                    stored,
                    ttl,
                };
                done(&store, key, event).await;
                model.write(key, Kind::Cached, ttl);
            }
            Act::Locked { retention } => {
                let claim = claim_for(key, retention * MINUTE);
                done(&store, key, Event::Acquire { claim }).await;
                model.write(key, Kind::Locked, LEASE + retention * MINUTE);
            }
            Act::Indeterminate { retention } => {
                let claim = claim_for(key, retention * MINUTE);
                let event = Event::Abandon {
                    claim,
                    step: 1,
                    cause: "lost".into(),
                };
                done(&store, key, event).await;
                model.write(key, Kind::Indeterminate, retention * MINUTE);
            }
            Act::Pass(minutes) => {
                let time = minutes * MINUTE;
                model.clock.advance(time);
                model.now += time;
                model.open += time;
                model.times.store += time;
                model.times.open += time;
            }
            Act::Set(wall) => model.clock.set_wall(model.wall(wall)),
            Act::Boot {
                in_order,
                off,
                wall,
            } => {
                if in_order {
                    drop(store);
                    model.stamp();
                } else {
                    // The power fails: the file is as of this moment.
                    boots += 1;
                    let copy = folder.path().join(format!("boot-{boots}.redb"));
                    std::fs::copy(&path, &copy).unwrap();
                    drop(store);
                    path = copy;
                }
                model.now += off * MINUTE;
                model.clock = boot(model.wall(wall));
                store = FileStore::open_with_clock(&path, model.clock.clone()).unwrap();
                model.open();
                model.recover();
            }
        }
        for written in &model.records {
            let found = store.look(&name(written.key)).await.unwrap();
            model.check(written, found.as_ref());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 32,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Under any clock, a record is present exactly as long as in the model. A lock or an
    /// indeterminate key never expires before the file was open for its whole life. An
    /// outcome never expires before the open time and the rise of the wall clock add up to
    /// its life.
    ///
    /// Red if a time below the last is stamped, if any step of the wall clock counts, and
    /// if all records age by one clock.
    #[test]
    fn no_clock_makes_a_record_expire_early(acts in acts()) {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_time().build().unwrap();
        runtime.block_on(run(acts));
    }
}
