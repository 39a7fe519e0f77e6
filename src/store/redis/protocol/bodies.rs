//! Bodies too large for the shared connection. Each has a key of its own, is written before
//! its record and read after it, on separate connections.
//!
//! The first line of a body identifies it, and is written last; a value with another first
//! line counts as absent. A body is written in parts, so that the server confirms each:
//! buffers on the way accept a few megabytes at once and then report no progress.
//!
//! ```text
//! genesys-once:{genesys-once:NAMESPACE:KEY}:LEASE
//!     genesys-once/3 body genesys-once:NAMESPACE:KEY LEASE BYTES\n
//!     BODY
//! ```

use std::collections::HashMap;
use std::fmt;
use std::slice;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use redis::{Cmd, Value, cmd};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use crate::error::{RefusalKind, StoreError};
use crate::key::{LeaseId, RecordName};
use crate::record::MAGIC;
use crate::store::redis::connection::command_error::CommandError;
use crate::store::redis::connection::monitored_stream::{Activity, MAX_BODY_BYTES};
use crate::store::redis::connection::pool::while_moving;
use crate::store::redis::connection::transport::{Lane, single_reply};
use crate::store::redis::topology::node::BODY_TIMEOUT;
use crate::store::redis::topology::routes::Routes;

/// Default for the bytes of bodies in transfer at once.
const DEFAULT_MAX_BYTES: usize = 64 << 20;

/// Bytes in one part of a body.
const PART_BYTES: usize = 64 << 10;

/// Allocates a body, and writes a part of it.
const BEGIN: &str = include_str!("body_begin.lua");
const PUT: &str = include_str!("body_part.lua");

/// How often a body is sent.
const MAX_SENDS: u32 = 3;

/// The most bodies with a remembered number of sends.
const MAX_REMEMBERED: usize = 1024;

/// The limit on bodies in transfer, and how often each unrecorded body was sent.
pub(crate) struct BodyTransfers {
    bytes: Semaphore,
    max_bytes: u32,
    /// The latest activity of all transfers.
    activity: Arc<Activity>,
    sent: Mutex<HashMap<String, u32>>,
}

/// A body to write.
pub(crate) struct Body {
    key: String,
    head: String,
    body: Bytes,
    /// Its time to live, in milliseconds.
    ttl: u64,
}

impl Body {
    pub(crate) fn new(name: &RecordName, lease: LeaseId, body: Bytes, ttl: u64) -> Self {
        let record = name.to_string();
        Self {
            key: key(&record, lease),
            head: head(&record, lease, body.len()),
            body,
            ttl,
        }
    }

    /// Its length.
    pub(crate) fn bytes(&self) -> usize {
        self.body.len()
    }

    /// The commands that write it: allocate all of it, write each part after the one
    /// before, and write its first line with the last part.
    fn commands(&self) -> Vec<Cmd> {
        let number = fastrand::u64(..);
        // As long as the first line, and never equal to one.
        let unfinished = |parts: usize| {
            let width = self.head.len() - 1;
            format!("{:<width$}\n", format!("unfinished {number:016x} {parts}"))
        };
        let eval = |script: &str| {
            let mut eval = cmd("EVAL");
            eval.arg(script).arg(1).arg(&self.key);
            eval
        };
        let mut begin = eval(BEGIN);
        begin.arg(unfinished(0)).arg(&self.head);
        begin.arg(self.head.len() + self.body.len()).arg(self.ttl);
        let parts = self.body.chunks(PART_BYTES);
        let last = parts.len() - 1;
        let parts = parts.enumerate().map(|(part, bytes)| {
            let mut put = eval(PUT);
            put.arg(unfinished(part));
            match part == last {
                true => put.arg(&self.head),
                false => put.arg(unfinished(part + 1)),
            };
            put.arg(self.head.len() + part * PART_BYTES).arg(bytes);
            put
        });
        [begin].into_iter().chain(parts).collect()
    }
}

/// In the slot of the record; no record has such a key.
fn key(record: &str, lease: LeaseId) -> String {
    format!("genesys-once:{{{record}}}:{lease}")
}

fn head(record: &str, lease: LeaseId, length: usize) -> String {
    format!("{MAGIC} body {record} {lease} {length}\n")
}

/// Whether a server has all of a body, by its replies to [`Body::commands`].
fn confirmed(replies: Vec<Value>) -> Result<bool, CommandError> {
    let replies = replies.into_iter().map(CommandError::check);
    let replies = replies.collect::<Result<Vec<_>, _>>()?;
    let is_there = replies.first() == Some(&Value::Int(2));
    Ok(is_there || replies.iter().all(|reply| *reply == Value::Int(1)))
}

/// Writes and reads bodies.
#[derive(Clone, Copy)]
pub(crate) struct BodyStore<'a> {
    pub(crate) routes: &'a Routes,
    pub(crate) bodies: &'a BodyTransfers,
}

impl BodyStore<'_> {
    /// Writes the body of a record that is not written yet; `record` is the record's key.
    ///
    /// # Errors
    ///
    /// `StoreError::refused` after [`MAX_SENDS`] transfers without success: the outcome is
    /// then recorded without its body.
    pub(crate) async fn put(&self, record: &str, body: &Body) -> Result<(), StoreError> {
        let _turn = self.bodies.permit(body.body.len()).await?;
        // Counted before it is sent: a caller that gives up has sent it, too.
        self.bodies.count_send(&body.key)?;
        let lane = Lane::Bodies(&self.bodies.activity);
        let sent = self.routes.send_by(lane, record, &body.commands()).await;
        let failure = match sent.and_then(confirmed) {
            Ok(true) => return Ok(()),
            Ok(false) => {
                return Err(StoreError::unavailable(
                    "the body was overwritten by another writer",
                ));
            }
            Err(failure) => failure,
        };
        let is_unsent = matches!(failure, CommandError::Unsent(_) | CommandError::Busy(_));
        if is_unsent || failure.refusal().is_some() {
            self.bodies.uncount_send(&body.key);
        }
        Err(failure.into())
    }

    /// The record is written, or needs no body: the body is not sent again.
    pub(crate) fn forget_sends(&self, body: &Body) {
        self.bodies.sent().remove(&body.key);
    }

    /// The body of a lease's record, if it is complete and has that length.
    pub(crate) async fn get(
        &self,
        record: &str,
        lease: LeaseId,
        length: usize,
    ) -> Result<Option<Bytes>, StoreError> {
        if length > MAX_BODY_BYTES {
            return Ok(None);
        }
        let head = head(record, lease, length);
        let _turn = self.bodies.permit(length).await?;
        let mut range = cmd("GETRANGE");
        // One byte more than expected, to detect a longer value.
        range.arg(key(record, lease));
        range.arg(0).arg(head.len() + length);
        let lane = Lane::Bodies(&self.bodies.activity);
        let sent = self.routes.send_by(lane, record, slice::from_ref(&range));
        match sent.await.and_then(single_reply) {
            Ok(Value::BulkString(value)) => {
                let is_whole = value.len() == head.len() + length;
                let is_own = is_whole && value.starts_with(head.as_bytes());
                Ok(is_own.then(|| Bytes::from(value).slice(head.len()..)))
            }
            Ok(_) => Err(CommandError::unexpected().into()),
            Err(failure) if failure.code() == Some("WRONGTYPE") => Ok(None),
            Err(failure) => Err(failure.into()),
        }
    }
}

impl BodyTransfers {
    /// With at most that many bytes in transfer at once.
    pub(crate) fn new(bytes: usize) -> Self {
        let max_bytes = u32::try_from(bytes).unwrap_or(u32::MAX).max(1);
        // The limit of a semaphore on 32-bit machines.
        let max_bytes = max_bytes.min(u32::MAX >> 3);
        Self {
            bytes: Semaphore::new(max_bytes as usize),
            max_bytes,
            activity: Activity::new(),
            sent: Mutex::default(),
        }
    }

    /// Acquires a transfer of so many bytes, in order. A body over the limit is transferred
    /// alone.
    async fn permit(&self, bytes: usize) -> Result<SemaphorePermit<'_>, StoreError> {
        let bytes = u32::try_from(bytes)
            .unwrap_or(u32::MAX)
            .clamp(1, self.max_bytes);
        let acquired = while_moving(
            &self.activity,
            None,
            BODY_TIMEOUT,
            self.bytes.acquire_many(bytes),
        );
        let permit = timeout(BODY_TIMEOUT, acquired).await.ok().flatten();
        let busy = || {
            let reason = "too many large bodies are in transfer";
            StoreError::refused_as(RefusalKind::NotNow, reason)
        };
        permit.ok_or_else(busy)?.map_err(|_| busy())
    }

    fn count_send(&self, key: &str) -> Result<(), StoreError> {
        let mut sent = self.sent();
        if sent.len() >= MAX_REMEMBERED && !sent.contains_key(key) {
            sent.clear();
        }
        let times = sent.entry(key.to_owned()).or_default();
        if *times == MAX_SENDS {
            return Err(StoreError::refused(format!(
                "the body was sent {MAX_SENDS} times and not accepted"
            )));
        }
        *times += 1;
        Ok(())
    }

    fn uncount_send(&self, key: &str) {
        if let Some(times) = self.sent().get_mut(key) {
            *times = times.saturating_sub(1);
        }
    }

    fn sent(&self) -> MutexGuard<'_, HashMap<String, u32>> {
        // Every change under this lock is one assignment.
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for BodyTransfers {
    fn default() -> Self {
        Self::new(DEFAULT_MAX_BYTES)
    }
}

impl fmt::Debug for BodyTransfers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bodies")
            .field("max_replay_bytes", &self.max_bytes)
            .finish_non_exhaustive()
    }
}
