//! Disks that fail or hang, and transitions that skip or share a sync, over a file that
//! counts its syncs, can be full and can hang.

use std::io;
use std::ops::Bound;
use std::sync::Condvar;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::FutureExt as _;
use redb::{BackendError, StorageBackend};

use super::super::backing::{Backing, Mode};
use super::*;
use crate::store::BreakerStore;

#[tokio::test]
async fn extensions_skip_a_bounded_number_of_syncs() {
    let folder = Folder::new("unsynced");
    let synced = Disk::default();
    let store = synced.open(&folder.file()).unwrap();
    let syncs = || synced.syncs.swap(0, Ordering::SeqCst);
    // Room in the file: redb syncs whenever it grows.
    let large = Box::leak("x".repeat(1024 * 1024).into_boxed_str());
    for event in [
        complete(9, large),
        Event::Forget {
            lease: LeaseId::from_bytes([0xf0; 16]),
        },
    ] {
        store.apply(&name(9), event).await.unwrap();
    }
    syncs();

    assert_eq!(
        store.apply(&name(1), acquire(1)).await.unwrap(),
        Answer::Done
    );
    assert!(syncs() > 0, "an acquire");

    for _ in 0..10 {
        assert_eq!(
            store.apply(&name(1), extend(1)).await.unwrap(),
            Answer::Done
        );
    }
    assert_eq!(syncs(), 0, "an extended lease");
    // It writes an absent record again: that is a transition.
    assert_eq!(
        store.apply(&name(2), extend(2)).await.unwrap(),
        Answer::Done
    );
    assert!(syncs() > 0, "an extend that writes a record");
    for _ in 0..100 {
        store.apply(&name(1), extend(1)).await.unwrap();
    }
    assert!(syncs() > 0, "a hundred extended leases");
    // Nothing changes, so nothing is written.
    assert!(matches!(
        store
            .apply(
                &name(1),
                Event::Forget {
                    lease: LeaseId::from_bytes([0xf0; 16]),
                }
            )
            .await
            .unwrap(),
        Answer::Is(Some(_))
    ));
    assert_eq!(syncs(), 0, "an event that changes nothing");
}

#[tokio::test]
async fn waiting_transitions_share_one_sync() {
    let folder = Folder::new("group");
    let disk = Disk::default();
    let store = disk.open(&folder.file()).unwrap();
    disk.syncs.store(0, Ordering::SeqCst);
    let names: Vec<RecordName> = (0..100).map(name).collect();
    let answers =
        futures_util::future::join_all(names.iter().map(|name| store.apply(name, acquire(1))))
            .await;
    assert!(
        answers
            .into_iter()
            .all(|answer| answer.unwrap() == Answer::Done)
    );
    let syncs = disk.syncs.load(Ordering::SeqCst);
    assert!(syncs < 100, "{syncs} syncs for 100 transitions");
}

#[tokio::test]
async fn recovered_disk_is_used_again() {
    let folder = Folder::new("full");
    let disk = Disk::default();
    let store = disk.open(&folder.file()).unwrap();
    assert_eq!(
        store.apply(&name(1), acquire(1)).await.unwrap(),
        Answer::Done
    );
    assert_eq!(
        store.apply(&name(2), complete(2, "kept")).await.unwrap(),
        Answer::Done
    );

    disk.full.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        let error = store.apply(&name(3), acquire(3)).await.unwrap_err();
        assert!(!error.is_refused() && !error.is_unreadable(), "{error:?}");
        let reported = crate::error::chain(&error);
        assert!(
            reported.contains("no storage space") || reported.contains("disk is full"),
            "{reported}"
        );
        // The database's own header cannot be written either; reads work.
        let known = store.look(&name(2)).await.unwrap();
        assert!(matches!(known, Some(RecordState::Cached { .. })));
        let replayed = store.apply(&name(2), acquire(3)).await.unwrap();
        let is_cached = matches!(replayed, Answer::Is(Some(RecordState::Cached { .. })));
        assert!(is_cached, "{replayed:?}");
    }

    disk.full.store(false, Ordering::SeqCst);
    let healed = async {
        while let Err(error) = store.apply(&name(3), acquire(3)).await {
            assert!(!error.is_unreadable(), "{error:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), healed)
        .await
        .unwrap();
    // The earlier holder lives on: nothing was recovered.
    assert_eq!(
        store.apply(&name(1), extend(1)).await.unwrap(),
        Answer::Done
    );
    assert!(matches!(
        store.look(&name(2)).await.unwrap(),
        Some(RecordState::Cached { .. })
    ));
}

/// Behind the engine's breaker. Seen red: all 124 recorded outcomes were refused, since the
/// breaker opened on writes.
#[tokio::test]
async fn full_disk_replays_recorded_outcomes() {
    let folder = Folder::new("replays");
    let disk = Disk::default();
    let store = Arc::new(disk.open(&folder.file()).unwrap());
    let limit = Duration::from_secs(20);
    let breaker = BreakerStore::new(store, limit, "unit".parse().unwrap());
    let body: &'static str = Box::leak("x".repeat(20_000).into_boxed_str());
    for n in 0..10 {
        let done = breaker.apply(&name(n), complete(n, body)).await;
        assert_eq!(done.unwrap(), Answer::Done);
    }

    disk.cramped.store(true, Ordering::SeqCst);
    let mut known: Vec<u8> = (0..10).collect();
    let (mut n, mut failed, mut stopped) = (10, 0, 0);
    while stopped < 5 {
        match breaker.apply(&name(n), complete(n, body)).await {
            Ok(answer) => {
                assert_eq!((answer, stopped), (Answer::Done, 0));
                known.push(n);
            }
            Err(error) if error.is_unsent() => stopped += 1,
            Err(_) => failed += 1,
        }
        n += 1;
    }
    assert!(failed > 0, "no write failed");
    assert!(!breaker.is_up());
    for _ in 0..3 {
        for &n in &known {
            let state = match breaker.apply(&name(n), acquire(99)).await {
                Ok(Answer::Is(state)) => state,
                other => panic!("{n} of {known:?}: {other:?}"),
            };
            let Some(RecordState::Cached { stored, .. }) = &state else {
                panic!("{n}: {state:?}");
            };
            assert_eq!(stored.outcome.body(), body);
            assert_eq!(
                breaker.look(&name(n)).await.unwrap().map(|s| s.revision()),
                state.map(|s| s.revision())
            );
        }
    }

    disk.cramped.store(false, Ordering::SeqCst);
    let healed = async {
        while breaker.apply(&name(201), complete(1, body)).await.is_err() {
            breaker.again(&name(201), Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), healed)
        .await
        .unwrap();
    assert!(breaker.is_up());
}

/// Callers wait for room in a full queue. A caller that gives up leaves nothing: no room
/// taken, nothing applied.
///
/// Red when a full queue is an error at once.
#[tokio::test]
async fn full_queue_makes_callers_wait() {
    const WAITING: usize = 300;
    let folder = Folder::new("queue");
    let disk = Disk::default();
    let store = disk.open(&folder.file()).unwrap();
    let names: Vec<RecordName> = (0..1 + MAX_QUEUED + WAITING)
        .map(|number| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_le_bytes());
            RecordName::new("unit".parse().unwrap(), IdempotencyKey::from_bytes(key))
        })
        .collect();
    let asked = |name| {
        let mut asked = store.apply(name, complete(1, "{}"));
        assert!((&mut asked).now_or_never().is_none());
        asked
    };
    disk.hang();
    let mut first = vec![asked(&names[0])];
    // The writer has taken it, so all others are in the queue or before it.
    disk.wait_until_hung();
    let rest: Vec<_> = names[1..].iter().map(asked).collect();
    // Every other caller gives up, of those in the queue and those before it.
    let (stay, leave): (Vec<_>, Vec<_>) =
        rest.into_iter().enumerate().partition(|(n, _)| n % 2 == 0);
    drop(leave);
    first.extend(stay.into_iter().map(|(_, asked)| asked));
    disk.go_on();
    for answer in futures_util::future::join_all(first).await {
        assert_eq!(answer.unwrap(), Answer::Done);
    }
    for (number, name) in names.iter().enumerate() {
        let given_up = number > 0 && number % 2 == 0;
        let state = store.look(name).await.unwrap();
        assert_eq!(state.is_none(), given_up, "{number}: {state:?}");
    }
}

/// A file on a disk that counts its syncs, can be full and can hang.
#[derive(Clone, Debug, Default)]
struct Disk {
    /// Nothing can be written.
    full: Arc<AtomicBool>,
    /// The file cannot grow: what it has can be overwritten.
    cramped: Arc<AtomicBool>,
    syncs: Arc<AtomicUsize>,
    hang: Arc<(Mutex<Hang>, Condvar)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Hang {
    #[default]
    No,
    /// The next sync does not end.
    Asked,
    /// It has begun.
    Begun,
}

impl Disk {
    fn hang(&self) {
        *self.hang.0.lock().unwrap() = Hang::Asked;
    }

    fn wait_until_hung(&self) {
        let hang = self.hang.0.lock().unwrap();
        let begun = |hang: &mut Hang| *hang != Hang::Begun;
        drop(self.hang.1.wait_while(hang, begun).unwrap());
    }

    fn go_on(&self) {
        *self.hang.0.lock().unwrap() = Hang::No;
        self.hang.1.notify_all();
    }

    fn sync(&self) {
        self.syncs.fetch_add(1, Ordering::SeqCst);
        let mut hang = self.hang.0.lock().unwrap();
        if *hang == Hang::Asked {
            *hang = Hang::Begun;
            self.hang.1.notify_all();
        }
        let hangs = |hang: &mut Hang| *hang != Hang::No;
        drop(self.hang.1.wait_while(hang, hangs).unwrap());
    }

    fn open(&self, path: &Path) -> Result<FileStore, Error> {
        let (disk, file) = (self.clone(), path.to_owned());
        let opener = move |mode| {
            let opened = std::fs::File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&file)
                .unwrap();
            let (backing, named) = Backing::new(&file, opened, mode).unwrap();
            let backend = Counted {
                file: backing,
                mode,
                disk: disk.clone(),
            };
            let db = Database::builder()
                .create_with_backend(backend)
                .map_err(|error| open::refused(&file, &error.into()))?;
            Ok(Opened { db, named, mode })
        };
        let opened = opener(Mode::Write)?;
        {
            let txn = opened.db.begin_write().unwrap();
            Tables::open(&txn).unwrap().mark_format().unwrap();
            txn.commit().unwrap();
        }
        let (source, spawn) = (Source::system(), thread::Builder::spawn);
        let opener = Box::new(opener);
        FileStore::start(path.to_owned(), opened, source, opener, TICK, spawn)
    }
}

#[derive(Debug)]
struct Counted {
    file: Backing,
    mode: Mode,
    disk: Disk,
}

impl Counted {
    fn room(&self) -> Result<(), BackendError> {
        if self.mode == Mode::Write && self.disk.full.load(Ordering::SeqCst) {
            return Err(io::Error::from(io::ErrorKind::StorageFull).into());
        }
        Ok(())
    }
}

impl StorageBackend for Counted {
    fn len(&self) -> Result<u64, io::Error> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.room()?;
        if self.disk.cramped.load(Ordering::SeqCst) && len > self.file.len()? {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.set_len(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.room()?;
        self.disk.sync();
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.room()?;
        self.file.write(offset, data)
    }

    fn close(&self) -> Result<(), io::Error> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }
}
