//! The paths over `FileStore`, compared with redb alone: transactions that write as many
//! bytes with the same durability.

use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use genesys_once::error::SendError;
use genesys_once::record::Namespace;
use genesys_once::store::BoxFuture;
use genesys_once::upstream::{AccessToken, Call};
use genesys_once::{DataActionRequest, Engine, FileStore, Outcome, Upstream};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::{mpsc, oneshot};

use crate::baseline::Record;
use crate::in_process::execute_new;
use crate::measure::{Measured, Side, TASKS, in_turns, in_turns_with, throughput};
use crate::over_redis::{OWN_KEYS, own_keys, replays};
use crate::report;
use crate::world::{ANSWER, Answering, World, engine, payload, request, requests};

const RECORDS: TableDefinition<&str, &[u8]> = TableDefinition::new("records");

/// The most writes in one transaction: the limit of `FileStore`.
const MAX_BATCH: usize = 64;

pub fn replay(world: &World) -> Measured {
    const REPLAYS: usize = 12_800;
    let folder = Folder::new();
    let own = requests(TASKS * OWN_KEYS);
    let engine = world.block_on(async {
        let engine = over_file(&folder, |b| b.recent(0, Duration::from_secs(60))).await;
        for request in &*own {
            engine.execute(request.clone()).await.expect("an answer");
        }
        engine
    });
    let bare = Bare::open(&folder.0.join("bare"));
    let names: Arc<[String]> = own.iter().map(name).collect();
    world.block_on(async {
        for name in &*names {
            bare.put(name, None, Record::of(ANSWER).write()).await;
        }
    });
    let through_redb = |on: fn(&Arc<Database>, &str) -> Reading| {
        world.block_on(throughput(REPLAYS, |numbers| {
            let (db, names) = (bare.db.clone(), names.clone());
            async move {
                for key in own_keys(numbers) {
                    black_box(on(&db, &names[key]).await);
                }
            }
        }))
    };
    let on_the_task = Side {
        name: "redb_on_the_task",
        run: Box::new(|| through_redb(|db, name| Box::pin(std::future::ready(read(db, name))))),
    };
    in_turns_with(
        11,
        "a second",
        || world.block_on(replays(TASKS, REPLAYS, &engine, &own)),
        || through_redb(read_apart),
        vec![on_the_task],
    )
}

type Reading = BoxFuture<'static, Record>;

/// One read transaction, on a thread that may block on the disk.
fn read_apart(db: &Arc<Database>, name: &str) -> Reading {
    let (db, name) = (db.clone(), name.to_owned());
    let reading = tokio::task::spawn_blocking(move || read(&db, &name));
    Box::pin(async { reading.await.expect("a record") })
}

fn read(db: &Database, name: &str) -> Record {
    let txn = db.begin_read().expect("an open file");
    let table = txn.open_table(RECORDS).expect("the table");
    let record = table.get(name).expect("a sound file").expect("a record");
    Record::read(record.value())
}

pub fn fresh(world: &World) -> Measured {
    const KEYS: usize = 1_600;
    let folder = Folder::new();
    let (engine, lengths) = world.block_on(async {
        let engine = over_file(&folder, |b| b).await;
        (engine, record_lengths().await)
    });
    let bare = Bare::open(&folder.0.join("bare"));
    let through_redb = || {
        throughput(KEYS, |numbers| {
            let bare = bare.clone();
            async move {
                for _ in numbers {
                    let (name, [lock, outcome]) = (name(&request(&payload())), lengths);
                    let lock = vec![b'l'; lock];
                    bare.put(&name, None, lock.clone()).await;
                    bare.put(&name, Some(lock), vec![b'o'; outcome]).await;
                }
            }
        })
    };
    let measured = in_turns(
        9,
        "a second",
        || world.block_on(execute_new(&engine, KEYS)),
        || world.block_on(through_redb()),
    );
    measured.with_note(format!("{} and {} bytes", lengths[0], lengths[1]))
}

async fn over_file(
    folder: &Folder,
    settings: impl FnOnce(genesys_once::EngineBuilder) -> genesys_once::EngineBuilder,
) -> Engine {
    let store = FileStore::open(folder.0.join("store")).expect("a new file");
    engine(Answering::at_once(), store, settings).await
}

fn name(request: &DataActionRequest) -> String {
    format!("floors:{}", genesys_once::IdempotencyKey::of(request))
}

/// redb with one table, and a thread that commits all waiting writes at once. A clone
/// shares both.
#[derive(Clone)]
struct Bare {
    db: Arc<Database>,
    writes: mpsc::Sender<Put>,
}

/// Writes a record; the current record must be `before`.
struct Put {
    name: String,
    before: Option<Vec<u8>>,
    next: Vec<u8>,
    written: oneshot::Sender<()>,
}

impl Bare {
    fn open(path: &Path) -> Self {
        let db = Arc::new(Database::create(path).expect("a new file"));
        let (writes, received) = mpsc::channel(1024);
        let writer = db.clone();
        std::thread::spawn(move || write_all(&writer, received));
        Self { db, writes }
    }

    /// Completes when the record is on the disk.
    async fn put(&self, name: &str, before: Option<Vec<u8>>, next: Vec<u8>) {
        let (written, done) = oneshot::channel();
        let name = name.to_owned();
        let put = Put {
            name,
            before,
            next,
            written,
        };
        assert!(self.writes.send(put).await.is_ok(), "the writer is alive");
        done.await.expect("a commit");
    }
}

fn write_all(db: &Database, mut writes: mpsc::Receiver<Put>) {
    let mut batch = Vec::new();
    while writes.blocking_recv_many(&mut batch, MAX_BATCH) > 0 {
        // A commit syncs the file, by default.
        let txn = db.begin_write().expect("an open file");
        {
            let mut table = txn.open_table(RECORDS).expect("the table");
            for put in &batch {
                let found = table.get(&*put.name).expect("a sound file");
                let as_expected = found.map(|found| found.value().to_vec()) == put.before;
                assert!(as_expected, "one writer for each key");
                let inserted = table.insert(&*put.name, &*put.next);
                inserted.expect("room on the disk");
            }
        }
        txn.commit().expect("room on the disk");
        for put in batch.drain(..) {
            let _ = put.written.send(());
        }
    }
}

/// The number of bytes that `FileStore` writes for a lock, and for an outcome.
async fn record_lengths() -> [usize; 2] {
    let folder = Folder::new();
    let [during, after] = ["during", "after"].map(|name| folder.0.join(name));
    let store = FileStore::open(folder.0.join("store")).expect("a new file");
    let upstream = CopiesFile {
        answering: Answering::at_once(),
        store: store.clone(),
        to: during.clone(),
    };
    let engine = engine(upstream, store.clone(), |b| b).await;
    let reply = engine.execute(request(&payload())).await;
    reply.expect("an answer");
    store.backup(&after).await.expect("room on the disk");
    [during, after].map(|path| only_record(&path))
}

/// The length of the only record in a copy of the store's file.
fn only_record(path: &Path) -> usize {
    type Row = (u8, u64, &'static [u8]);
    let db = Database::open(path).expect("a copy");
    let txn = db.begin_read().expect("a copy");
    let table = txn.open_table(TableDefinition::<&str, Row>::new("records"));
    let table = table.expect("the store's table");
    let (_, row) = table.first().expect("a sound file").expect("a record");
    row.value().2.len()
}

/// Copies the store's file while a key is locked, then answers.
struct CopiesFile {
    answering: Answering,
    store: FileStore,
    to: PathBuf,
}

impl Upstream for CopiesFile {
    fn namespace(&self) -> Namespace {
        self.answering.namespace()
    }

    fn send<'a>(
        &'a self,
        call: &'a Call,
        token: Option<&'a AccessToken>,
    ) -> BoxFuture<'a, Result<Outcome, SendError>> {
        Box::pin(async move {
            let copied = self.store.backup(&self.to).await;
            copied.expect("room on the disk");
            self.answering.send(call, token).await
        })
    }
}

/// A folder in `target`: a temporary one might be in memory.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = report::file(&format!("{:016x}", fastrand::u64(..)));
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
