//! The durable store of one machine: one file, one process at a time. What it
//! acknowledged is on the disk; it follows `record`'s rules and has none of its
//! own, except for what a process that ended left behind.
//!
//! Reads go by the last commit and wait for nobody; writes go through one thread
//! ([`writer`]), since one file has one writer anyhow and one sync can serve many
//! transitions. [`open`] is what happens before, [`tables`] is what is in the
//! file, [`clock`] is when it expires.

mod clock;
mod open;
mod tables;
#[cfg(all(test, feature = "testing"))]
mod tests;
mod writer;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{
    Receiver, RecvTimeoutError, SyncSender, TrySendError, channel, sync_channel,
};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use redb::Database;
use tokio::sync::oneshot;

#[cfg(feature = "testing")]
pub use self::clock::ManualClock;
use self::clock::{Source, Timeline};
use self::tables::{Snapshot, row_name};
use self::writer::{Command, Opener, Writer};
use super::notices::Notices;
use super::{BoxFuture, Store};
use crate::error::{Error, StoreError};
use crate::key::{IdempotencyKey, Namespace, RecordName};
use crate::record::{self, Answer, Event, Record, RecordState};

/// Transitions that may wait for the disk; one more is an error at once.
const MAX_WAITING: usize = 1024;

/// How long dropping the last clone waits for the file to be closed. A disk that
/// hangs for longer must not hang its owner.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// The durable store of one machine, without a server: one file.
///
/// A clone is the same store. The file is closed when the last clone is dropped,
/// which may happen outside a runtime and waits until everything sent is written
/// (a few milliseconds; at most 5 s where the disk hangs).
///
/// - **Durable.** Every transition is one transaction, synced to the disk before
///   it is acknowledged; several that wait share a sync. Only an extended lease
///   may be acknowledged earlier: where it is lost, so is its holder. A process
///   that is killed at any point leaves the records that it had acknowledged.
/// - **One process at a time.** [`open`](Self::open) refuses a file that is open
///   already. So whoever holds a lease in a file that can be opened is gone, and
///   opening settles it: `Claimed` becomes `Released`, `Dispatched` becomes
///   `Indeterminate`. The file must be on a local file system, since others may
///   not have locks.
/// - **Time** is the store's own. While it is open it goes by the monotonic
///   clock: a step of the machine's clock lapses no lease and expires no record.
///   From one run to the next it goes on by what the machine's clock says has
///   passed since the last write. A clock set back in between counts as no time,
///   so records live longer; one set forward makes them expire sooner.
/// - **Growth.** Expired records are removed as others are written and when the
///   file is opened; their space is used again. A file of which more than half
///   is unused is made smaller when it is opened.
/// - **Damage.** Opening reads the whole file and compares its checksums; a
///   damaged one is refused. A single record that cannot be read, because a newer
///   version wrote it, is [`StoreError::unreadable`] for its key until it expires.
/// - **Failure.** Where the disk is full or broken, every call fails with
///   [`StoreError::unavailable`]; the file is opened again, at most once a
///   second, until that succeeds.
///
/// It waits for a disk, so it must not be used under tokio's paused time.
///
/// ```
/// # let folder = std::env::temp_dir().join(format!("genesys-once-doc-{}", std::process::id()));
/// use genesys_once::FileStore;
///
/// let store = FileStore::open(folder.join("outcomes.redb"))?;
/// let error = FileStore::open(folder.join("outcomes.redb")).unwrap_err();
/// assert!(error.to_string().contains("has it open"), "{error}");
/// # drop(store);
/// # std::fs::remove_dir_all(folder).unwrap();
/// # Ok::<(), genesys_once::Error>(())
/// ```
#[derive(Clone)]
pub struct FileStore {
    handle: Arc<Handle>,
}

impl FileStore {
    /// Opens the store in the file `path`, which is created where there is none,
    /// with the folders above it; only its owner may then read it.
    ///
    /// It blocks while it reads the file: about a second per gigabyte.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for the setting `path`, with the reason: another
    /// process (or another `FileStore`) has it open, it is a folder, it is not a
    /// database or not a store's, it is damaged, a newer version wrote it, it may
    /// not be read and written, its disk is full.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open_with(path.as_ref(), Source::system())
    }

    /// Opens the store with a clock that a test moves (feature `testing`), so
    /// that leases and retentions pass without waiting.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open).
    #[cfg(feature = "testing")]
    pub fn open_with_clock(path: impl AsRef<Path>, clock: ManualClock) -> Result<Self, Error> {
        Self::open_with(path.as_ref(), Source::Manual(clock))
    }

    fn open_with(path: &Path, source: Source) -> Result<Self, Error> {
        let path = open::absolute(path)?;
        let db = open::open(&path)?;
        let again = path.clone();
        Self::start(path, db, source, Box::new(move || open::reopen(&again)))
    }

    fn start(
        path: PathBuf,
        mut db: Database,
        source: Source,
        opener: Opener,
    ) -> Result<Self, Error> {
        let timeline = open::prepare(&path, &mut db, source)?;
        let core = Arc::new(Core {
            path,
            db: RwLock::new(Some(db)),
            timeline,
            notices: Notices::default(),
        });
        let (commands, received) = sync_channel(MAX_WAITING);
        let (ended, end) = channel();
        let writer = Writer::new(core.clone(), received, opener);
        let thread = thread::Builder::new()
            .name("genesys-once".into())
            .spawn(move || {
                // Dropped last, whether the writer returns or panics.
                let _ended: std::sync::mpsc::Sender<()> = ended;
                writer.run();
            })
            .map_err(|error| open::refused(&core.path, &error.into()))?;
        Ok(Self {
            handle: Arc::new(Handle {
                core,
                commands: Some(commands),
                end: Mutex::new(end),
                thread: Some(thread),
            }),
        })
    }
}

impl fmt::Debug for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileStore")
            .field("path", &self.handle.core.path)
            .finish_non_exhaustive()
    }
}

/// What the clones, the readers and the writer share.
struct Core {
    path: PathBuf,
    /// `None` once closed, and while a file that failed cannot be opened again.
    /// The lock is held to begin a transaction, never during one.
    db: RwLock<Option<Database>>,
    timeline: Timeline,
    notices: Notices,
}

impl Core {
    fn database(&self) -> RwLockReadGuard<'_, Option<Database>> {
        self.db.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn database_mut(&self) -> RwLockWriteGuard<'_, Option<Database>> {
        self.db.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn snapshot(&self) -> Result<Snapshot, StoreError> {
        match self.database().as_ref() {
            Some(db) => Snapshot::take(db).map_err(StoreError::unavailable),
            None => Err(StoreError::unavailable("the store's file is not open")),
        }
    }

    fn current(&self, name: &RecordName) -> Result<Option<(Record, Duration)>, StoreError> {
        let row = self
            .snapshot()?
            .row(&row_name(name))
            .map_err(StoreError::unavailable)?;
        row.map_or(Ok(None), |row| row.read(self.timeline.now()))
    }

    fn look(&self, name: &RecordName) -> Result<Option<RecordState>, StoreError> {
        let current = self.current(name)?;
        Ok(current.map(|(record, left)| record.state(left)))
    }

    /// The answer to an event that changes nothing, from the last commit; `None`
    /// where it has something to write. So an acquire that finds an outcome
    /// need not wait for anybody's sync.
    fn answer_unchanged(
        &self,
        name: &RecordName,
        event: &Event,
    ) -> Result<Option<Answer>, StoreError> {
        let Some((record, left)) = self.current(name)? else {
            return Ok(None);
        };
        let (next, answer) = record::apply(Some((&record, left)), event);
        let unchanged = next.is_some_and(|next| next.0.rev == record.rev && next.1 == left);
        Ok(unchanged.then_some(answer))
    }

    fn unresolved(
        &self,
        namespace: &Namespace,
        limit: usize,
    ) -> Result<Vec<(IdempotencyKey, RecordState)>, StoreError> {
        self.snapshot()?
            .unresolved(namespace, limit, self.timeline.now())
            .map_err(StoreError::unavailable)
    }
}

/// Owned by the clones alone: what ends with the last of them.
struct Handle {
    core: Arc<Core>,
    commands: Option<SyncSender<Command>>,
    /// Disconnected once the writer's thread has ended.
    end: Mutex<Receiver<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Handle {
    fn send(&self, command: Command) -> Result<(), StoreError> {
        let Some(commands) = &self.commands else {
            return Err(writer_ended());
        };
        commands.try_send(command).map_err(|error| match error {
            TrySendError::Full(_) => {
                StoreError::unavailable(format!("{MAX_WAITING} transitions wait for the disk"))
            }
            TrySendError::Disconnected(_) => writer_ended(),
        })
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        drop(self.commands.take());
        let Some(thread) = self.thread.take() else {
            return;
        };
        // A waker that the writer runs may own the last clone.
        if thread.thread().id() == thread::current().id() {
            return;
        }
        let end = self.end.get_mut().unwrap_or_else(PoisonError::into_inner);
        match end.recv_timeout(CLOSE_WITHIN) {
            // Nothing is left to do for the thread but to return.
            Err(RecvTimeoutError::Disconnected) => {
                let _ = thread.join();
            }
            Ok(()) | Err(RecvTimeoutError::Timeout) => tracing::warn!(
                path = %self.core.path.display(),
                "the store's file is still being written and will be closed later"
            ),
        }
    }
}

impl Store for FileStore {
    fn apply<'a>(
        &'a self,
        name: &'a RecordName,
        event: Event,
    ) -> BoxFuture<'a, Result<Answer, StoreError>> {
        Box::pin(async move {
            if let Event::Acquire { claim } = event {
                let (core, name) = (self.handle.core.clone(), name.clone());
                let acquire = Event::Acquire { claim };
                match blocking(move || core.answer_unchanged(&name, &acquire)).await {
                    Ok(Some(answer)) => return Ok(answer),
                    Err(error) if error.is_unreadable() => return Err(error),
                    // The writer finds out more, and opens a failed file again.
                    Ok(None) | Err(_) => {}
                }
            }
            let (reply, answer) = oneshot::channel();
            let name = name.clone();
            self.handle.send(Command { name, event, reply })?;
            answer.await.unwrap_or_else(|_| Err(writer_ended()))
        })
    }

    fn look<'a>(
        &'a self,
        name: &'a RecordName,
    ) -> BoxFuture<'a, Result<Option<RecordState>, StoreError>> {
        let (core, name) = (self.handle.core.clone(), name.clone());
        Box::pin(blocking(move || core.look(&name)))
    }

    fn changed<'a>(&'a self, name: &'a RecordName) -> BoxFuture<'a, ()> {
        Box::pin(self.handle.core.notices.changed(name))
    }

    fn unresolved<'a>(
        &'a self,
        namespace: &'a Namespace,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<(IdempotencyKey, RecordState)>, StoreError>> {
        let (core, namespace) = (self.handle.core.clone(), namespace.clone());
        Box::pin(blocking(move || core.unresolved(&namespace, limit)))
    }
}

/// Reads the file where that may block: off the runtime's own threads, or in
/// place where there is no runtime.
async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => runtime.spawn_blocking(read).await.unwrap_or_else(|_| {
            Err(StoreError::unavailable(
                "reading the store's file was cut short",
            ))
        }),
        Err(_) => read(),
    }
}

fn writer_ended() -> StoreError {
    StoreError::unavailable("the thread that writes the store's file has ended")
}
