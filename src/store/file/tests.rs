//! Inner cases: damaged records and files, the clock, and that nothing outlives the last
//! clone.

mod disk;
mod growth;
mod lists;
mod named;
mod threads;
mod unreadable;

use std::sync::Arc;
use std::time::SystemTime;

use redb::{Database, ReadableDatabase as _, TableDefinition};

use super::clock::{MAX_AGE, Moment, Stamp, Timeline};
use super::tables::{RECORDS, Snapshot, Tables, UNFINISHED, row_name};
use super::*;
use crate::key::{Fingerprint, IdempotencyKey};
use crate::outcome::Outcome;
use crate::record::{Attempts, Claim, LeaseId, Phase};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A folder for each test, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let name = format!("genesys-once-{test}-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn file(&self) -> PathBuf {
        self.0.join("store.redb")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn name(key: u8) -> RecordName {
    RecordName::new(
        "unit".parse().unwrap(),
        IdempotencyKey::from_bytes([key; 32]),
    )
}

fn claim(lease: u8) -> Claim {
    Claim {
        lease: LeaseId::from_bytes([lease; 16]),
        fingerprint: Fingerprint::from_bytes([7; 32]),
        lease_ttl: Duration::from_secs(30),
        retention: DAY,
        attempts: Attempts::default(),
        about: Default::default(),
    }
}

fn acquire(lease: u8) -> Event {
    Event::Acquire {
        claim: claim(lease),
    }
}

fn extend(lease: u8) -> Event {
    Event::Extend {
        claim: claim(lease),
        dispatched: Some(0),
    }
}

fn complete(lease: u8, body: &'static str) -> Event {
    Event::Complete {
        claim: claim(lease),
        step: 1,
        stored: Outcome::new(http::StatusCode::OK, http::HeaderMap::new(), body).into(),
        origin: Default::default(),
        ttl: DAY,
    }
}

/// Writes a row as another program might.
fn plant(path: &Path, key: u8, bytes: &[u8]) {
    let db = Database::open(path).unwrap();
    let txn = db.begin_write().unwrap();
    {
        let name = row_name(&name(key));
        let mut records = txn.open_table(RECORDS).unwrap();
        let row = (1, u64::MAX, bytes);
        records.insert(name.as_str(), row).unwrap();
        let mut unfinished = txn.open_table(UNFINISHED).unwrap();
        unfinished.insert(name.as_str(), ()).unwrap();
    }
    txn.commit().unwrap();
}

#[tokio::test]
async fn unreadable_record_is_never_absent_or_overwritten() {
    let folder = Folder::new("unreadable");
    drop(FileStore::open(folder.file()).unwrap());
    let newer = b"genesys-once/4 locked claimed 0 0 0 0 0 0\n";
    plant(&folder.file(), 1, newer);
    plant(&folder.file(), 2, b"genesys-once/3 lock");
    plant(&folder.file(), 3, b"");

    let store = FileStore::open(folder.file()).unwrap();
    for key in 1..=3 {
        let error = store.look(&name(key)).await.unwrap_err();
        assert!(error.is_unreadable(), "{key}: {error:?}");
        for event in [
            acquire(1),
            extend(1),
            complete(1, "{}"),
            Event::Forget {
                lease: LeaseId::from_bytes([0xf0; 16]),
            },
        ] {
            let error = store.apply(&name(key), event.clone()).await.unwrap_err();
            assert!(error.is_unreadable(), "{key} {event:?}: {error:?}");
        }
    }
    // Red where such a row is left out: the list looked whole.
    let query = ListQuery::indeterminate();
    let listed = store.list(&name(1).namespace, &query).await.unwrap();
    assert_eq!(listed.records, []);
    assert!(!listed.unreadable.is_empty());
    // One transaction of several: the others are none the worse.
    let (one, two) = (name(1), name(9));
    let (bad, good) = tokio::join!(store.apply(&one, extend(1)), store.apply(&two, acquire(1)));
    assert!(bad.unwrap_err().is_unreadable());
    assert_eq!(good.unwrap(), Answer::Done);
    drop(store);

    let mut db = Database::open(folder.file()).unwrap();
    let source = Source::system();
    open::prepare(&folder.file(), &mut db, source).unwrap();
    let row = Snapshot::take(&db).unwrap().row(&row_name(&name(1)));
    assert_eq!(row.unwrap().unwrap().bytes, newer);
}

#[test]
fn nothing_outlives_the_last_clone() {
    let folder = Folder::new("dropped");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = FileStore::open(folder.file()).unwrap();
    let clone = store.clone();
    let event = acquire(1);
    runtime.block_on(async {
        // Given up before it is answered.
        let _ = tokio::time::timeout(Duration::ZERO, store.apply(&name(1), event)).await;
        let name = name(2);
        let _ = tokio::time::timeout(Duration::ZERO, store.changed(&name)).await;
    });
    let core = Arc::downgrade(&store.handle.core);
    drop(store);
    assert!(core.upgrade().is_some());
    drop(runtime);
    drop(clone);
    // The writer's thread had the last but one.
    assert!(core.upgrade().is_none());
    drop(FileStore::open(folder.file()).unwrap());
}

/// An executor that is not tokio's.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(thread::current())).into();
    let mut future = std::pin::pin!(future);
    loop {
        let mut context = std::task::Context::from_waker(&waker);
        if let std::task::Poll::Ready(done) = future.as_mut().poll(&mut context) {
            return done;
        }
        thread::park();
    }
}

#[test]
fn store_needs_no_runtime() {
    let folder = Folder::new("no-runtime");
    let store = FileStore::open(folder.file()).unwrap();
    let name = name(1);
    assert_eq!(
        block_on(store.apply(&name, acquire(1))).unwrap(),
        Answer::Done
    );
    assert!(matches!(
        block_on(store.look(&name)).unwrap(),
        Some(RecordState::Locked {
            phase: Phase::Dispatched,
            ..
        })
    ));
}

/// Red where a wall time below the last is stamped, and where any step ahead counts: a boot
/// at 1970 and a correction a minute later aged every record by 56 years.
#[test]
fn time_continues_between_runs_without_steps() {
    let hour = Duration::from_secs(3600);
    let nanos = clock::nanos;
    let clock = ManualClock::new();
    let source = || Source::Manual(clock.clone());
    let first = Timeline::resume(source(), None);
    let begin = first.now();
    clock.advance(hour);
    let after = Moment {
        store: begin.store + nanos(hour),
        open: begin.open + nanos(hour),
    };
    assert_eq!(first.now(), after);

    let wall = clock.wall();
    clock.set_wall(wall + 100 * DAY);
    assert_eq!(first.now(), after);
    clock.set_wall(SystemTime::UNIX_EPOCH);
    assert_eq!(first.now(), after);

    clock.set_wall(wall);
    let end = first.stamp();
    assert_eq!(end.moment, after);
    let resumed = |wall| {
        clock.set_wall(wall);
        Timeline::resume(source(), Some(end))
    };
    let later = resumed(wall + hour);
    assert_eq!(later.now().store, after.store + nanos(hour));
    assert_eq!(later.now().open, after.open, "the file was not open");
    assert_eq!(
        resumed(wall + MAX_AGE).now().store,
        after.store + nanos(MAX_AGE)
    );
    let unbelieved = resumed(wall + MAX_AGE + Duration::from_nanos(1));
    assert_eq!(unbelieved.now(), after);
    assert_eq!(unbelieved.stamp().wall, end.wall + nanos(MAX_AGE) + 1);
    for wall in [wall - DAY, SystemTime::UNIX_EPOCH] {
        let set_back = resumed(wall);
        assert_eq!(set_back.now(), after);
        assert_eq!(set_back.stamp().wall, end.wall);
    }
    // Within a run, too.
    first.stamp();
    clock.set_wall(wall + hour);
    first.stamp();
    clock.set_wall(wall);
    assert_eq!(first.stamp().wall, end.wall + nanos(hour));

    let last = Stamp {
        moment: Moment {
            store: u64::MAX,
            open: u64::MAX,
        },
        wall: 0,
    };
    let last_of_all = Timeline::resume(source(), Some(last));
    assert_eq!(last_of_all.now(), last.moment);
}

/// Red without the addition in `expiry`: the bytes round a retention up by less than a
/// millisecond, and the lease expired 0.9 ms early.
#[tokio::test]
async fn lease_lasts_to_its_end_whatever_its_retention() {
    let folder = Folder::new("parts");
    let clock = ManualClock::new();
    let store = FileStore::open_with_clock(folder.file(), clock.clone()).unwrap();
    let claim = Claim {
        lease_ttl: Duration::from_micros(99_950),
        retention: DAY + Duration::from_micros(100),
        ..claim(1)
    };
    let name = name(1);
    store.apply(&name, Event::Acquire { claim }).await.unwrap();
    for time in [0, 99_949] {
        clock.advance(Duration::from_micros(time));
        let Some(RecordState::Locked { lease_left, .. }) = store.look(&name).await.unwrap() else {
            panic!("not locked");
        };
        assert_eq!(lease_left, Duration::from_micros(99_950 - time));
    }
}

#[test]
fn newer_or_foreign_file_is_refused() {
    let folder = Folder::new("format");
    drop(FileStore::open(folder.file()).unwrap());
    let db = Database::open(folder.file()).unwrap();
    let txn = db.begin_write().unwrap();
    txn.open_table(TableDefinition::<&str, u64>::new("meta"))
        .unwrap()
        .insert("format", 2)
        .unwrap();
    txn.commit().unwrap();
    drop(db);
    let error = FileStore::open(folder.file()).unwrap_err().to_string();
    assert!(error.contains("a newer version wrote it"), "{error}");

    for (file, table) in [("other.redb", "users"), ("alike.redb", "records")] {
        let path = folder.0.join(file);
        let db = Database::create(&path).unwrap();
        let txn = db.begin_write().unwrap();
        txn.open_table(TableDefinition::<u64, u64>::new(table))
            .unwrap();
        txn.commit().unwrap();
        drop(db);
        let error = FileStore::open(&path).unwrap_err().to_string();
        assert!(error.contains("of something else"), "{file}: {error}");
        // And left as it was.
        let db = Database::open(&path).unwrap();
        let tables = db.begin_read().unwrap().list_tables().unwrap().count();
        assert_eq!(tables, 1);
    }
}

#[test]
fn changed_byte_is_refused_or_harmless() {
    let folder = Folder::new("bytes");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = FileStore::open(folder.file()).unwrap();
    for key in 0..20 {
        let event = complete(1, "{\"paid\": true}");
        runtime.block_on(store.apply(&name(key), event)).unwrap();
    }
    drop(store);
    let sound = std::fs::read(folder.file()).unwrap();
    let damaged = folder.0.join("damaged.redb");
    let mut refused = 0;
    for at in (0..sound.len()).step_by(1501) {
        let mut bytes = sound.clone();
        bytes[at] ^= 0x40;
        std::fs::write(&damaged, bytes).unwrap();
        let store = match FileStore::open(&damaged) {
            Ok(store) => store,
            Err(Error::InvalidConfig { .. }) => {
                refused += 1;
                continue;
            }
            Err(error) => panic!("byte {at}: {error}"),
        };
        for key in 0..20 {
            let state = runtime.block_on(store.look(&name(key))).unwrap();
            let Some(RecordState::Cached { stored, .. }) = state else {
                panic!("byte {at}, key {key}: {state:?}");
            };
            assert_eq!(stored.outcome.body(), "{\"paid\": true}");
        }
    }
    assert!(refused > 0);
}
