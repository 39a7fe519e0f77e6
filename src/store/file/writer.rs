//! The one thread that writes: it puts the transitions that wait for the disk
//! into one transaction, in their order, and answers each after the commit. It
//! never answers before, and it ends when the last clone of the store does.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use redb::{Database, Durability};
use tokio::sync::mpsc::Receiver;
use tokio::sync::oneshot;

use super::Core;
use super::tables::{Tables, expiry, row_name};
use crate::error::{Error, StoreError};
use crate::key::RecordName;
use crate::record::{self, Answer, Event};
use crate::telemetry::contained;

/// Transitions in one transaction, at most: what they write is held in memory
/// until its commit.
const MAX_BATCH: usize = 64;

/// Commits without a sync in a row, at most: redb cannot use the pages that they
/// free again before one with it.
const MAX_UNSYNCED: u32 = 64;

/// How often a file that failed is opened again, at most.
const REOPEN_EVERY: Duration = Duration::from_secs(1);

/// How a file that failed is opened again.
pub(super) type Opener = Box<dyn Fn() -> Result<Database, Error> + Send>;

/// One transition that somebody waits for.
pub(super) struct Command {
    pub(super) name: RecordName,
    pub(super) event: Event,
    pub(super) reply: oneshot::Sender<Reply>,
}

pub(super) type Reply = Result<Answer, StoreError>;

/// What a transition did, by what its answer has to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Effect {
    Nothing,
    /// An `Extend` moved the expiry and nothing else: where that is lost in a
    /// crash, so is the holder.
    Extended,
    Written,
}

pub(super) struct Writer {
    core: Arc<Core>,
    commands: Receiver<Command>,
    opener: Opener,
    unsynced: u32,
    failed: Option<Failure>,
}

/// A transaction that failed: redb then refuses all others until the file is
/// opened again.
struct Failure {
    cause: String,
    /// When to open it again.
    again: Instant,
}

impl Writer {
    pub(super) fn new(core: Arc<Core>, commands: Receiver<Command>, opener: Opener) -> Self {
        Self {
            core,
            commands,
            opener,
            unsynced: 0,
            failed: None,
        }
    }

    /// Works until nobody can send a command any more, then closes the file.
    pub(super) fn run(mut self) {
        loop {
            let mut batch = Vec::new();
            if self.commands.blocking_recv_many(&mut batch, MAX_BATCH) == 0 {
                break;
            }
            // Given up: its sender takes its fate for unknown already.
            batch.retain(|command| !command.reply.is_closed());
            self.serve(batch);
        }
        self.close();
    }

    fn serve(&mut self, batch: Vec<Command>) {
        let answers = match self.commit(&batch) {
            Ok(answers) => answers,
            Err(error) => vec![(Err(error), Effect::Nothing); batch.len()],
        };
        for (command, (answer, effect)) in batch.into_iter().zip(answers) {
            if effect > Effect::Nothing {
                contained(|| self.core.notices.notify(&command.name));
            }
            // Nobody may be waiting any more.
            contained(|| drop(command.reply.send(answer)));
        }
    }

    /// One transaction for the whole batch. An error is everybody's: each of
    /// them may or may not have been applied.
    fn commit(&mut self, batch: &[Command]) -> Result<Vec<(Reply, Effect)>, StoreError> {
        self.recover()?;
        // A panic in here would otherwise end the thread, and with it the store.
        let cause = match catch_unwind(AssertUnwindSafe(|| self.transact(batch))) {
            Ok(Ok(answers)) => return Ok(answers),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the transaction panicked".into(),
        };
        contained(|| {
            tracing::error!(
                path = %self.core.path.display(),
                cause,
                "the store's file could not be written; it is opened again before the next write"
            );
        });
        self.failed = Some(Failure {
            cause: cause.clone(),
            again: Instant::now(),
        });
        Err(StoreError::unavailable(cause))
    }

    fn transact(&mut self, batch: &[Command]) -> Result<Vec<(Reply, Effect)>, redb::Error> {
        let Some(begun) = self.core.database().as_ref().map(Database::begin_write) else {
            return Err(redb::Error::DatabaseClosed);
        };
        let mut txn = begun?;
        let mut answers = Vec::with_capacity(batch.len());
        let mut effect = Effect::Nothing;
        {
            let mut tables = Tables::open(&txn)?;
            for command in batch {
                let done = apply(&mut tables, command, self.core.timeline.now())?;
                effect = effect.max(done.1);
                answers.push(done);
            }
            if effect > Effect::Nothing {
                // A bound on the work of each write that still outpaces what
                // writes add.
                tables.reclaim(self.core.timeline.now(), 4 * batch.len())?;
                tables.stamp(self.core.timeline.stamp())?;
            }
        }
        if effect == Effect::Nothing {
            txn.abort()?;
            return Ok(answers);
        }
        if effect == Effect::Extended && self.unsynced < MAX_UNSYNCED {
            txn.set_durability(Durability::None)?;
            self.unsynced += 1;
        } else {
            txn.set_durability(Durability::Immediate)?;
            self.unsynced = 0;
        }
        txn.commit()?;
        Ok(answers)
    }

    /// Opens the file again where the last transaction failed, as after a full
    /// disk. It settles nothing: the holders of this process live on.
    fn recover(&mut self) -> Result<(), StoreError> {
        let Some(failure) = &mut self.failed else {
            return Ok(());
        };
        if Instant::now() < failure.again {
            return Err(StoreError::unavailable(failure.cause.clone()));
        }
        let mut slot = self.core.database_mut();
        // Closes it, which gives its lock back for a moment. Should another process
        // get in between, it settles our records, and compare-and-set tells
        // our holders.
        *slot = None;
        match (self.opener)() {
            Ok(db) => {
                *slot = Some(db);
                self.failed = None;
                Ok(())
            }
            Err(error) => {
                failure.cause = match error {
                    Error::InvalidConfig { reason, .. } => reason.to_string(),
                    error => error.to_string(),
                };
                failure.again = Instant::now() + REOPEN_EVERY;
                Err(StoreError::unavailable(failure.cause.clone()))
            }
        }
    }

    fn close(&mut self) {
        let Some(db) = self.core.database_mut().take() else {
            return;
        };
        let closed = stamp(&db, &self.core).and_then(|()| Ok(db.close()?));
        if let Err(error) = closed {
            // What was acknowledged is in the file; the next open repairs it.
            tracing::warn!(
                path = %self.core.path.display(),
                %error,
                "the store's file was not closed in good order"
            );
        }
    }
}

fn stamp(db: &Database, core: &Core) -> Result<(), redb::Error> {
    let txn = db.begin_write()?;
    Tables::open(&txn)?.stamp(core.timeline.stamp())?;
    txn.commit()?;
    Ok(())
}

/// One transition: the pure rules between a read and a write.
fn apply(
    tables: &mut Tables<'_>,
    command: &Command,
    now: u64,
) -> Result<(Reply, Effect), redb::Error> {
    let name = row_name(&command.name);
    let row = tables.row(&name)?;
    let current = match row
        .as_ref()
        .map(|row| row.read(&command.name, now))
        .transpose()
    {
        Ok(current) => current.flatten(),
        Err(unreadable) => return Ok((Err(unreadable), Effect::Nothing)),
    };
    let seen = current.as_ref().map(|(record, left)| (record, *left));
    let (next, answer) = record::apply(seen, &command.event);
    let before = row.as_ref().map(|row| row.expires);
    let effect = match (&current, next) {
        (None, None) => Effect::Nothing,
        (Some((old, left)), Some((new, lives_on))) if old.rev == new.rev && *left == lives_on => {
            Effect::Nothing
        }
        (_, Some((new, left))) => {
            let bytes = new.encode(&command.name);
            // A new revision and a later end of the lease, nothing else.
            let prolongs = current.is_some() && matches!(command.event, Event::Extend { .. });
            tables.put(&name, before, Some((&new, &bytes, expiry(now, &new, left))))?;
            if prolongs {
                Effect::Extended
            } else {
                Effect::Written
            }
        }
        (Some(_), None) => {
            tables.put(&name, before, None)?;
            Effect::Written
        }
    };
    Ok((Ok(answer), effect))
}
