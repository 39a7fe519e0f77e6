//! The thread that writes: it puts the waiting transitions into one transaction, in their
//! order, and answers each after the commit. It never answers a write before the commit. It
//! ends with the last clone of the store. While the file takes no writes, it answers events
//! that write nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use redb::{Database, Durability};
use tokio::sync::mpsc::Receiver;
use tokio::sync::oneshot;

use super::backing::Mode;
use super::meta::FileIdentity;
use super::open::Opened;
use super::recovery::Failure;
use super::shared::FileCore;
use super::tables::Tables;
use super::write::{Effect, Write, WriteReply, Written};
use crate::error::{Error, StoreError};
use crate::telemetry::contained;

/// Transitions in one transaction, at most: a transaction is held in memory until its
/// commit.
const MAX_BATCH: usize = 64;

/// Commits without a sync in a row, at most: redb reuses their freed pages only after one
/// with it.
const MAX_UNSYNCED: u32 = 64;

/// How often an idle store removes expired records and checks its file's name.
pub(super) const TICK: Duration = Duration::from_secs(10);

/// Expired records that one tick removes.
const MAX_RECLAIMED: usize = 1000;

/// How a file that failed is opened again.
pub(super) type Opener = Box<dyn Fn(Mode) -> Result<Opened, Error> + Send>;

/// One write and the caller that waits for it.
pub(super) struct WriterCommand {
    pub(super) write: Write,
    pub(super) reply: oneshot::Sender<WriteReply>,
}

/// What a transaction did.
struct Done {
    answers: Vec<(WriteReply, Effect)>,
    /// Expired records.
    removed: usize,
    synced: bool,
}

pub(super) struct Writer {
    pub(super) core: Arc<FileCore>,
    commands: Receiver<WriterCommand>,
    pub(super) opener: Opener,
    unsynced: u32,
    /// As of the last synced commit: a file that is opened again must be at least as new.
    pub(super) synced: FileIdentity,
    pub(super) failed: Option<Failure>,
    tick: Duration,
    /// `None` for never.
    next_tick: Option<Instant>,
}

/// Wakes the writer's thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl Writer {
    pub(super) fn new(
        core: Arc<FileCore>,
        commands: Receiver<WriterCommand>,
        opener: Opener,
        synced: FileIdentity,
        tick: Duration,
    ) -> Self {
        Self {
            core,
            commands,
            opener,
            unsynced: 0,
            synced,
            failed: None,
            tick,
            next_tick: Instant::now().checked_add(tick),
        }
    }

    /// Works until the last sender is dropped, then closes the file.
    pub(super) fn run(mut self) {
        loop {
            let mut batch = Vec::new();
            match self.receive(&mut batch) {
                Some(0) => break,
                Some(_) => {
                    // Its caller has dropped the future, and takes the outcome as unknown.
                    batch.retain(|command| !command.reply.is_closed());
                    self.serve(batch);
                }
                None => self.idle(),
            }
        }
        self.close();
    }

    /// Waits for commands until the next tick; returns their number, `None` where the tick
    /// is due.
    fn receive(&mut self, batch: &mut Vec<WriterCommand>) -> Option<usize> {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut context = Context::from_waker(&waker);
        loop {
            let left = self
                .next_tick
                .map(|tick| tick.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return None;
            }
            match self.commands.poll_recv_many(&mut context, batch, MAX_BATCH) {
                Poll::Ready(count) => return Some(count),
                Poll::Pending => left.map_or_else(thread::park, thread::park_timeout),
            }
        }
    }

    /// Removes expired records and checks the file's name.
    fn idle(&mut self) {
        let removed = self.commit(&[]).map_or(0, |done| done.removed);
        // Continues after the waiting commands.
        let pause = if removed < MAX_RECLAIMED {
            self.tick
        } else {
            Duration::from_millis(1)
        };
        self.next_tick = Instant::now().checked_add(pause);
    }

    fn serve(&mut self, batch: Vec<WriterCommand>) {
        let answers = match self.commit(&batch) {
            Ok(done) => done.answers,
            Err(error) if error.is_unsent() => {
                let answer = |command| (self.without_writing(command, &error), Effect::Nothing);
                batch.iter().map(answer).collect()
            }
            Err(error) => vec![(Err(error), Effect::Nothing); batch.len()],
        };
        for (command, (answer, effect)) in batch.into_iter().zip(answers) {
            if effect > Effect::Nothing
                && let Some(name) = command.write.name()
            {
                contained(|| self.core.notifications.notify(name));
            }
            // The caller might have dropped its future.
            contained(|| drop(command.reply.send(answer)));
        }
    }

    /// The answer to a command that changes nothing, while nothing is written.
    fn without_writing(&self, command: &WriterCommand, error: &StoreError) -> WriteReply {
        let Write::Event(name, event) = &command.write else {
            return Err(error.clone());
        };
        let unchanged = || self.core.answer_unchanged(name, event);
        match catch_unwind(AssertUnwindSafe(unchanged)) {
            Ok(Ok(Some(answer))) => Ok(Written::Answer(answer)),
            Ok(Err(unreadable)) if unreadable.is_unreadable() => Err(unreadable),
            _ => Err(error.clone()),
        }
    }

    /// One transaction for the whole batch. An error applies to each command: it might have
    /// been applied, unless the error is `unsent`.
    fn commit(&mut self, batch: &[WriterCommand]) -> Result<Done, StoreError> {
        self.recover().map_err(StoreError::unsent)?;
        let begun = Instant::now();
        // An uncaught panic would end the thread, and with it the store.
        let cause = match catch_unwind(AssertUnwindSafe(|| self.transact(batch))) {
            Ok(Ok(done)) => {
                if !done.synced && !batch.is_empty() {
                    return Ok(done);
                }
                return match self.check_name() {
                    Ok(()) => Ok(done),
                    Err(cause) => {
                        self.fail(cause.clone(), begun);
                        Err(StoreError::unavailable(cause))
                    }
                };
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the transaction panicked".into(),
        };
        // The database refuses all transactions and reads until it is opened again.
        let begun = Instant::now();
        let opened = self.open_again();
        self.fail(cause.clone(), begun);
        if let Err(cause) = opened {
            self.fail(cause, begun);
        }
        Err(StoreError::unavailable(cause))
    }

    fn transact(&mut self, batch: &[WriterCommand]) -> Result<Done, redb::Error> {
        let begun = self.core.slot().with(|db| Ok(db.begin_write()?));
        let mut txn = begun?;
        let mut done = Done {
            answers: Vec::with_capacity(batch.len()),
            removed: 0,
            synced: false,
        };
        let mut effect = Effect::Nothing;
        let stamp = self.core.timeline.stamp();
        {
            let mut tables = Tables::open(&txn)?;
            for command in batch {
                let now = self.core.timeline.now();
                let answer = command.write.apply(&mut tables, now)?;
                effect = effect.max(answer.1);
                done.answers.push(answer);
            }
            // Up to 4 for each write, so that removal outpaces writes and the work is
            // bounded.
            let limit = match effect {
                _ if batch.is_empty() => MAX_RECLAIMED,
                Effect::Nothing => 0,
                _ => 4 * batch.len(),
            };
            done.removed = tables.reclaim(self.core.timeline.now(), limit)?;
            if effect > Effect::Nothing || done.removed > 0 {
                tables.stamp(stamp)?;
            }
        }
        if effect == Effect::Nothing && done.removed == 0 {
            txn.abort()?;
            return Ok(done);
        }
        if effect == Effect::Extended && self.unsynced < MAX_UNSYNCED {
            txn.set_durability(Durability::None)?;
            self.unsynced += 1;
        } else {
            txn.set_durability(Durability::Immediate)?;
            self.unsynced = 0;
            done.synced = true;
        }
        txn.commit()?;
        if done.synced {
            self.synced.store = stamp.moment.store;
        }
        Ok(done)
    }

    fn close(&mut self) {
        let Some(Opened { db, .. }) = self.core.slot_mut().opened.take() else {
            return;
        };
        let closed = stamp(&db, &self.core).and_then(|()| Ok(db.close()?));
        if let Err(error) = closed {
            // Acknowledged writes are in the file; the next open repairs it.
            tracing::warn!(
                path = %self.core.path.display(),
                %error,
                "the store's file was not closed completely: the next open repairs it"
            );
        }
    }
}

fn stamp(db: &Database, core: &FileCore) -> Result<(), redb::Error> {
    let txn = db.begin_write()?;
    Tables::open(&txn)?.stamp(core.timeline.stamp())?;
    txn.commit()?;
    Ok(())
}
