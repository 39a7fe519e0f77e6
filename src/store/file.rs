//! The durable store of one machine: one file, one process at a time. An acknowledged write
//! is on the disk. It decides no transition, except that it recovers the records of a
//! process that ended.
//!
//! Reader threads ([`reader`]) read the last commit; one writer thread ([`writer`]) writes,
//! since one sync can serve many transitions ([`write`]). [`open`] opens the file,
//! [`tables`] defines its content, [`clock`] its times, [`backing`] is the file itself.

mod backing;
mod backup;
mod clock;
mod meta;
mod open;
mod reader;
mod recovery;
mod shared;
mod tables;
#[cfg(all(test, feature = "testing"))]
mod tests;
mod write;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{fmt, io};

use tokio::sync::{mpsc, oneshot};

#[cfg(feature = "testing")]
pub use self::clock::ManualClock;
use self::clock::Source;
use self::meta::FileIdentity;
use self::open::Opened;
use self::reader::Read;
use self::shared::FileCore;
use self::write::{Write, Written};
use self::writer::{Opener, TICK, Writer, WriterCommand};
use super::{BoxFuture, ListQuery, Page, Store, UnreadableRecord};
use crate::error::{Error, StoreError};
use crate::key::{Namespace, RecordName};
use crate::record::{Answer, Event, RecordState};

/// How many transitions, and how many reads, may wait for the disk. Further ones wait for
/// room in the queue, as long as their callers do.
const MAX_QUEUED: usize = 1024;

/// Threads that read: a large outcome or a list delays no other read.
const READERS: usize = 2;

type Work = Box<dyn FnOnce() + Send>;

/// How a thread is started; tests replace it with one that fails.
type Spawn = fn(thread::Builder, Work) -> io::Result<JoinHandle<()>>;

/// How long the drop of the last clone waits for the file to close. A disk that hangs
/// longer must not block the owner.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// The durable store of one machine, without a server: one file.
///
/// A clone is the same store. The drop of the last clone closes the file. It may happen
/// outside a runtime, and waits until all commands are written (a few milliseconds; at most
/// 5 s where the disk hangs).
///
/// - **Durable.** Every transition is one transaction, synced to the disk before it is
///   acknowledged; several that wait share a sync. Only an extension of a lease may be
///   acknowledged earlier: a crash that loses it also ends its holder. A process that is
///   killed at any point leaves all records that it acknowledged.
/// - **One process at a time.** [`open`](Self::open) refuses a file that is open already.
///   So every holder of a lease in a file that can be opened has ended, and opening the
///   file recovers its records: `Claimed` becomes `Released`, `Dispatched` becomes
///   `Indeterminate`. The file must be on a local file system: others might not have locks.
/// - **Time** is the store's own and never goes back. While the file is open, the monotonic
///   clock counts: a step of the machine's clock expires no lease and no record. `Locked`
///   and `Indeterminate` records age only while the file is open. All others also age by
///   the machine's clock between the last write of the run before and the opening. That
///   counts as zero where the clock shows less than its latest time, or is ahead by more
///   than a week. A wrong clock makes records live longer, or an outcome expire up to a
///   week early.
/// - **The file** belongs to its owner alone (mode 0600), and no symbolic link is followed
///   to it. It must stay under its name: where the file is removed, moved, replaced, or
///   changed by another program, the store reports an outage with the next write, or within
///   10 s, and logs an error. The outage lasts until the same file is under its name again.
///   [`backup`](Self::backup) copies a file in use; a copy by another program might be
///   damaged.
/// - **Growth.** Expired records are removed as others are written, when the file is
///   opened, and every 10 s; their space is used again. The removed bytes stay in the file
///   until they are overwritten. Opening compacts a file of which more than half is unused.
/// - **Threads.** Opening starts three threads, outside of any runtime: one writes, two
///   read. Commands that exceed the disk's speed wait for room in the queue, as long as
///   their callers do.
/// - **Damage.** Opening reads the whole file and compares its checksums; a damaged one is
///   refused. A single record that cannot be read, for instance of a newer version, is
///   [`StoreError::unreadable`] for its key until it expires, or until an operator removes
///   it ([`discard_unreadable`](crate::Engine::discard_unreadable)).
/// - **Failure.** Where the disk is full or refuses writes, a write fails with
///   [`StoreError::unavailable`] and the file is opened again. Reads continue: recorded
///   outcomes are replayed. The store retries writes once a second, less often where the
///   file is large.
///
/// It waits for a disk: do not use it under tokio's paused time.
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
    /// Opens the store in the file `path`. It creates a missing file and its folders; only
    /// the owner may read the file then.
    ///
    /// It blocks while it reads the file: about a second per gigabyte.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for the setting `path`, with the reason: another process
    /// (or another `FileStore`) has it open, it is a folder or a symbolic link, it is not a
    /// database or not a store's, it is damaged, a newer version wrote it, this process may
    /// not read and write it, its disk is full, the system starts no thread.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open_with(path.as_ref(), Source::system(), TICK)
    }

    /// Opens the store with a clock that a test moves (feature `testing`), so
    /// that leases and retentions pass without waiting.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open).
    #[cfg(feature = "testing")]
    pub fn open_with_clock(path: impl AsRef<Path>, clock: ManualClock) -> Result<Self, Error> {
        // The test's clock does not drive the periodic work.
        Self::open_with(path.as_ref(), Source::Manual(clock), Duration::MAX)
    }

    fn open_with(path: &Path, source: Source, tick: Duration) -> Result<Self, Error> {
        let path = open::absolute(path)?;
        let opened = open::open(&path)?;
        let (again, id) = (path.clone(), opened.named.id());
        let opener = Box::new(move |mode| open::reopen(&again, id, mode));
        Self::start(path, opened, source, opener, tick, thread::Builder::spawn)
    }

    fn start(
        path: PathBuf,
        mut opened: Opened,
        source: Source,
        opener: Opener,
        tick: Duration,
        spawn: Spawn,
    ) -> Result<Self, Error> {
        let timeline = open::prepare(&path, &mut opened.db, source)?;
        let origin =
            FileIdentity::read(&opened.db).map_err(|error| open::refused(&path, &error))?;
        let core = Arc::new(FileCore::new(path, opened, timeline));
        let (commands, received) = mpsc::channel(MAX_QUEUED);
        let (reads, asked) = mpsc::channel(MAX_QUEUED);
        let (ended, end) = channel();
        let mut handle = Handle {
            core: core.clone(),
            queues: Some(Queues { commands, reads }),
            end: Mutex::new(end),
            threads: Vec::new(),
        };
        let writer = Writer::new(core.clone(), received, opener, origin, tick);
        let asked = Arc::new(Mutex::new(asked));
        let mut threads = vec![until_end(&ended, move || writer.run())];
        for _ in 0..READERS {
            let (core, asked) = (core.clone(), asked.clone());
            threads.push(until_end(&ended, move || reader::run(&core, &asked)));
        }
        drop(ended);
        for thread in threads {
            let builder = thread::Builder::new().name("genesys-once".into());
            // The threads that were started end with the handle.
            let started = spawn(builder, thread);
            let started = started.map_err(|error| open::no_thread(&core.path, &error))?;
            handle.threads.push(started);
        }
        Ok(Self {
            handle: Arc::new(handle),
        })
    }

    /// Has the writer write.
    async fn write(&self, write: Write) -> Result<Written, StoreError> {
        let (reply, written) = oneshot::channel();
        let command = WriterCommand { write, reply };
        let queues = self.handle.queues.as_ref().ok_or_else(writer_ended)?;
        let queued = queues.commands.send(command).await;
        queued.map_err(|_| writer_ended())?;
        written.await.unwrap_or_else(|_| Err(writer_ended()))
    }

    /// Has one of the readers read.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&FileCore) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let read: Read = Box::new(move |core| {
            // The caller has dropped its future.
            if !reply.is_closed() {
                let _ = reply.send(read(core));
            }
        });
        let cut_short = || StoreError::unavailable("the read of the store's file was cut short");
        let queues = self.handle.queues.as_ref().ok_or_else(cut_short)?;
        queues.reads.send(read).await.map_err(|_| cut_short())?;
        answer.await.unwrap_or_else(|_| Err(cut_short()))
    }
}

impl fmt::Debug for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileStore")
            .field("path", &self.handle.core.path)
            .finish_non_exhaustive()
    }
}

/// Owned by the clones alone: it ends with the last of them.
struct Handle {
    core: Arc<FileCore>,
    /// The threads end with it.
    queues: Option<Queues>,
    /// Disconnected once all threads have ended.
    end: Mutex<Receiver<()>>,
    threads: Vec<JoinHandle<()>>,
}

struct Queues {
    commands: mpsc::Sender<WriterCommand>,
    reads: mpsc::Sender<Read>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        drop(self.queues.take());
        // A waker that one of the threads runs might own the last clone.
        let current = thread::current().id();
        if self.threads.iter().any(|t| t.thread().id() == current) {
            return;
        }
        let end = self.end.get_mut().unwrap_or_else(PoisonError::into_inner);
        match end.recv_timeout(CLOSE_WITHIN) {
            // The threads only have to return.
            Err(RecvTimeoutError::Disconnected) => {
                for thread in self.threads.drain(..) {
                    let _ = thread.join();
                }
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
            if let Event::Acquire { .. } = &event {
                let (name, acquire) = (name.clone(), event.clone());
                let unchanged = self.read(move |core| core.answer_unchanged(&name, &acquire));
                match unchanged.await {
                    Ok(Some(answer)) => return Ok(answer),
                    Err(error) if error.is_unreadable() => return Err(error),
                    // The writer answers, and opens a failed file again.
                    Ok(None) | Err(_) => {}
                }
            }
            match self
                .write(Write::Event(name.clone(), Box::new(event)))
                .await?
            {
                Written::Answer(answer) => Ok(answer),
                _ => Err(writer_ended()),
            }
        })
    }

    fn look<'a>(
        &'a self,
        name: &'a RecordName,
    ) -> BoxFuture<'a, Result<Option<RecordState>, StoreError>> {
        let name = name.clone();
        Box::pin(self.read(move |core| core.look(&name)))
    }

    fn changed<'a>(&'a self, name: &'a RecordName) -> BoxFuture<'a, ()> {
        Box::pin(self.handle.core.notifications.changed(name))
    }

    fn least_writer<'a>(
        &'a self,
        namespace: &'a Namespace,
        at_least: u32,
    ) -> BoxFuture<'a, Result<u32, StoreError>> {
        let namespace = namespace.clone();
        Box::pin(async move {
            let wanted = namespace.clone();
            let least = self.read(move |core| core.least_writer(&wanted)).await?;
            if least >= at_least {
                return Ok(least);
            }
            match self.write(Write::Writer(namespace, at_least)).await? {
                Written::Writer(least) => Ok(least),
                _ => Err(writer_ended()),
            }
        })
    }

    fn look_unreadable<'a>(
        &'a self,
        name: &'a RecordName,
    ) -> BoxFuture<'a, Result<Option<UnreadableRecord>, StoreError>> {
        let name = name.clone();
        Box::pin(self.read(move |core| core.look_unreadable(&name)))
    }

    fn discard<'a>(
        &'a self,
        record: &'a UnreadableRecord,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(async move {
            let stamp = record.removable()?.clone();
            let discard = Write::Discard(record.name().clone(), stamp);
            match self.write(discard).await? {
                Written::Discarded(removed) => Ok(removed),
                _ => Err(writer_ended()),
            }
        })
    }

    fn list<'a>(
        &'a self,
        namespace: &'a Namespace,
        query: &'a ListQuery,
    ) -> BoxFuture<'a, Result<Page, StoreError>> {
        let (namespace, query) = (namespace.clone(), query.clone());
        Box::pin(self.read(move |core| core.list(&namespace, &query)))
    }
}

/// Work that drops `ended` when it returns or panics.
fn until_end(ended: &Sender<()>, work: impl FnOnce() + Send + 'static) -> Work {
    let ended = ended.clone();
    Box::new(move || {
        let _ended = ended;
        work();
    })
}

fn writer_ended() -> StoreError {
    StoreError::unavailable("the thread that writes the store's file has ended")
}
