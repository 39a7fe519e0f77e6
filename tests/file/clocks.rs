//! A machine's clock that is wrong, over many openings of one file: no record
//! that keeps a request from being executed again is lost by it.

use std::time::UNIX_EPOCH;

use genesys_once::testing::ManualClock;
use proptest::prelude::*;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

/// A clock as a boot finds it.
fn boot(wall: SystemTime) -> ManualClock {
    let clock = ManualClock::new();
    clock.set_wall(wall);
    clock
}

/// One outcome and one indeterminate key.
async fn write_both(store: &FileStore) {
    done(store, 1, acquire(1)).await;
    done(store, 1, complete(1)).await;
    done(store, 2, acquire(2)).await;
    done(store, 2, abandon(2)).await;
}

async fn assert_both(store: &FileStore, when: &str) {
    assert_cached(1, store.look(&name(1)).await.unwrap());
    let state = store.look(&name(2)).await.unwrap();
    let held = matches!(state, Some(RecordState::Indeterminate { .. }));
    assert!(held, "{when}: {state:?}");
}

/// Seen red: 30 of 30 recorded keys were executed again and 10 of 10
/// indeterminate ones lost, where a wall time below the last was stamped.
#[tokio::test]
async fn boot_at_1970_and_a_correction_forget_nothing() {
    let decade = 3650 * DAY;
    for (what, first) in [
        ("1970", UNIX_EPOCH),
        ("ten years ahead", SystemTime::now() + decade),
    ] {
        let folder = Folder::new("boot-1970");
        let right = SystemTime::now();
        let store = FileStore::open_with_clock(folder.file(), boot(right)).unwrap();
        write_both(&store).await;
        drop(store);

        let clock = boot(first);
        let store = FileStore::open_with_clock(folder.file(), clock.clone()).unwrap();
        assert_both(&store, what).await;
        clock.advance(MINUTE);
        clock.set_wall(right + 2 * MINUTE);
        // The power fails before the next write.
        let copy = folder.path().join("power-fails.redb");
        std::fs::copy(folder.file(), &copy).unwrap();
        drop(store);

        let clock = boot(right + 3 * MINUTE);
        let store = FileStore::open_with_clock(&copy, clock.clone()).unwrap();
        assert_both(&store, what).await;
        // And what is over is over.
        clock.advance(TTL);
        assert_eq!(store.look(&name(1)).await.unwrap(), None, "{what}");
    }
}

/// Seen red: each pair of boots aged the records by the hour, and 47 boots forgot
/// all of them.
#[tokio::test]
async fn clock_that_is_wrong_at_every_other_boot_counts_once() {
    let folder = Folder::new("every-other");
    let right = SystemTime::now();
    for number in 0..60_u32 {
        let wrong = if number % 2 == 1 {
            HOUR
        } else {
            Duration::ZERO
        };
        let clock = boot(right + number * MINUTE + wrong);
        let store = FileStore::open_with_clock(folder.file(), clock).unwrap();
        if number == 0 {
            write_both(&store).await;
        }
        assert_both(&store, &format!("boot {number}")).await;
        let Some(RecordState::Cached { left, .. }) = store.look(&name(1)).await.unwrap() else {
            unreachable!("seen above")
        };
        assert!(TTL - left <= HOUR + number * MINUTE, "boot {number}");
    }
}

/// Seen red where a step ahead of any length is believed. Within the week, an
/// outcome expires and an indeterminate key does not.
#[tokio::test]
async fn step_of_more_than_a_week_ages_nothing() {
    for (ahead, is_believed) in [(WEEK, true), (WEEK + MINUTE, false), (500 * DAY, false)] {
        let folder = Folder::new("ahead");
        let right = SystemTime::now();
        let store = FileStore::open_with_clock(folder.file(), boot(right)).unwrap();
        write_both(&store).await;
        drop(store);
        let store = FileStore::open_with_clock(folder.file(), boot(right + ahead)).unwrap();
        let cached = store.look(&name(1)).await.unwrap();
        assert_eq!(cached.is_none(), is_believed, "{ahead:?}: {cached:?}");
        let held = store.look(&name(2)).await.unwrap();
        assert!(
            matches!(held, Some(RecordState::Indeterminate { .. })),
            "{ahead:?}: {held:?}"
        );
    }
}

/// Seen red where `Indeterminate` ages while nobody has the file open.
#[tokio::test]
async fn indeterminate_key_ages_by_the_time_the_file_was_open() {
    let folder = Folder::new("open-time");
    let mut wall = SystemTime::now();
    // Six days off, one day on.
    for day in 0..8 {
        let clock = boot(wall);
        let store = FileStore::open_with_clock(folder.file(), clock.clone()).unwrap();
        if day == 0 {
            done(&store, 2, acquire(2)).await;
            done(&store, 2, abandon(2)).await;
        }
        let held = store.look(&name(2)).await.unwrap();
        assert_eq!(held.is_some(), day < 7, "day {day}: {held:?}");
        clock.advance(DAY);
        drop(store);
        wall += WEEK;
    }
}

#[derive(Clone, Copy, Debug)]
enum Wall {
    /// As far off as the machine's true time and so many minutes.
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
    /// The process ends, or the power fails; minutes later there is another.
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

/// What the file should know of time: nanoseconds never matter here.
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

/// A record, and what is true of it whatever the clocks say.
#[derive(Debug)]
struct Written {
    key: u32,
    kind: Kind,
    life: Duration,
    /// When it expires by the model's clock of its kind.
    expires: Duration,
    /// How long the file was open, truly, when it was written.
    open: Duration,
    /// The latest wall time shown until then.
    wall: Duration,
}

struct Model {
    /// The machine's true time, since 1970.
    now: Duration,
    clock: ManualClock,
    times: Times,
    /// As they stand in the file.
    stamped: Times,
    /// How long the file was open, truly.
    open: Duration,
    /// The latest wall time shown at all.
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

    /// Holders are gone: what they sent is held for its retention. Of a lock that
    /// has expired by then, there may be a row or none.
    fn settle(&mut self) {
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

    /// As the model has it, and by what is true of any clock.
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
                    outcome,
                    kept,
                    ..
                } = complete(key)
                else {
                    unreachable!()
                };
                let event = Event::Complete {
                    claim,
                    step,
                    outcome,
                    kept,
                    ttl,
                };
                done(&store, key, event).await;
                model.write(key, Kind::Cached, ttl);
            }
            Act::Locked { retention } => {
                let claim = claim_for(key, retention * MINUTE);
                done(&store, key, Event::Acquire { claim }).await;
                model.write(key, Kind::Locked, LEASE + claim.retention);
            }
            Act::Indeterminate { retention } => {
                let claim = claim_for(key, retention * MINUTE);
                let event = Event::Abandon {
                    claim,
                    step: 1,
                    cause: "lost".into(),
                };
                done(&store, key, event).await;
                model.write(key, Kind::Indeterminate, claim.retention);
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
                    // What a loss of power leaves.
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
                model.settle();
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

    /// Whatever the clock shows at any opening: a record is there exactly as long
    /// as the model of the two clocks has it. A lock or an indeterminate key
    /// never goes before the file was open for its whole life, an outcome never
    /// before the open time and the rise of the wall clock make up its own.
    ///
    /// Red where a time below the last is stamped, where any step is believed,
    /// and where all records age by one clock.
    #[test]
    fn no_clock_makes_a_record_expire_early(acts in acts()) {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_time().build().unwrap();
        runtime.block_on(run(acts));
    }
}
