//! The lists of an operator: a walk through all keys of all primaries, which is
//! whole or fails. It fetches no record whole that has an outcome.

use std::collections::HashSet;
use std::time::Duration;

use redis::{Cmd, Value, cmd};
use tokio::time::sleep;

use super::commands::{look, unexpected, unreadable};
use super::failure::Failure;
use super::routes::{Layout, Routes, Shard};
use crate::error::{RefusalKind, StoreError};
use crate::key::{IdempotencyKey, Namespace, RecordName};
use crate::record::RecordState;
use crate::store::UnreadableRecord;
use crate::telemetry::contained;

/// Keys that one `SCAN` looks at.
const SCAN: usize = 1000;

/// How the first lines of records begin that can be read, and whether such a
/// record may be unresolved; which locks have lapsed, their time to live says.
const BEGINNINGS: [(&[u8], bool); 4] = [
    (b"genesys-once/3 indeterminate ", true),
    (b"genesys-once/3 locked ", true),
    (b"genesys-once/3 cached ", false),
    (b"genesys-once/3 released ", false),
];

/// As many bytes as the longest has.
const LENGTH: usize = BEGINNINGS[0].0.len();

/// How often a walk begins, where servers or slots change under it.
const WALKS: u32 = 4;

/// Before the next one.
const PAUSE: Duration = Duration::from_millis(250);

/// What is looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Unresolved,
    Unreadable,
}

/// What was found.
#[derive(Default)]
struct Found {
    unresolved: Vec<(IdempotencyKey, RecordState)>,
    unreadable: Vec<UnreadableRecord>,
}

/// The unresolved records of a namespace.
///
/// # Errors
///
/// Where any primary does not answer, and where servers or slots change again and
/// again: a list with records missing would look whole.
pub(super) async fn unresolved(
    routes: &Routes,
    namespace: &Namespace,
    limit: usize,
) -> Result<Vec<(IdempotencyKey, RecordState)>, StoreError> {
    let found = find(routes, namespace, limit, Wanted::Unresolved).await?;
    for record in &found.unreadable {
        contained(|| {
            tracing::warn!(
                name = %record.name(),
                reason = record.reason(),
                "a record that cannot be read is on no list of unresolved keys"
            );
        });
    }
    Ok(found.unresolved)
}

/// The records of a namespace whose first line cannot be read, and those that
/// may be unresolved and cannot be read.
///
/// # Errors
///
/// Those of [`unresolved`].
pub(super) async fn all_unreadable(
    routes: &Routes,
    namespace: &Namespace,
    limit: usize,
) -> Result<Vec<UnreadableRecord>, StoreError> {
    let found = find(routes, namespace, limit, Wanted::Unreadable).await?;
    Ok(found.unreadable)
}

async fn find(
    routes: &Routes,
    namespace: &Namespace,
    limit: usize,
    wanted: Wanted,
) -> Result<Found, StoreError> {
    let mut walks = 0;
    loop {
        walks += 1;
        let mut walk = Walk {
            routes,
            namespace,
            prefix: format!("genesys-once:{namespace}:"),
            limit,
            wanted,
            found: Found::default(),
            known: HashSet::new(),
        };
        match walk.through_all().await {
            Ok(()) => return Ok(walk.found),
            Err(failure) if walks == WALKS => return Err(failure),
            Err(_) => sleep(PAUSE * walks).await,
        }
    }
}

struct Walk<'a> {
    routes: &'a Routes,
    namespace: &'a Namespace,
    prefix: String,
    limit: usize,
    wanted: Wanted,
    found: Found,
    /// A scan may return a key twice.
    known: HashSet<IdempotencyKey>,
}

impl Walk<'_> {
    /// From the first key to the last, on the same connections to the same servers
    /// throughout: a cursor means nothing to another one, and a key that goes from
    /// a server that is still to come to one that has been is seen at neither.
    async fn through_all(&mut self) -> Result<(), StoreError> {
        let before = self.layout().await?;
        for shard in &before.0 {
            self.through(shard).await?;
        }
        // What is cut off by the limit claims to be no more than it is.
        if self.is_full() || before.is_still(&self.layout().await?) {
            return Ok(());
        }
        Err(not_whole("servers or slots have changed under the list"))
    }

    async fn layout(&self) -> Result<Layout, StoreError> {
        let layout = self.routes.layout().await?;
        match layout.is_moving() {
            true => Err(not_whole("slots are on their way to another server")),
            false => Ok(layout),
        }
    }

    fn is_full(&self) -> bool {
        let found = match self.wanted {
            Wanted::Unresolved => self.found.unresolved.len(),
            Wanted::Unreadable => self.found.unreadable.len(),
        };
        found >= self.limit
    }

    async fn through(&mut self, shard: &Shard) -> Result<(), StoreError> {
        let mut cursor = "0".to_owned();
        while !self.is_full() {
            // The namespace's alphabet has nothing that a pattern would expand.
            let mut scan = cmd("SCAN");
            scan.arg(&cursor)
                .arg("MATCH")
                .arg(format!("{}*", self.prefix))
                .arg("COUNT")
                .arg(SCAN);
            let reply = only(shard, scan).await?;
            let (next, keys): (String, Vec<String>) =
                redis::from_redis_value(reply).map_err(|_| unexpected())?;
            for key in candidates(shard, keys).await? {
                self.take(&key).await?;
            }
            if next == "0" {
                break;
            }
            cursor = next;
        }
        Ok(())
    }

    async fn take(&mut self, key: &str) -> Result<(), StoreError> {
        let Some(digits) = key
            .strip_prefix(&self.prefix)
            .and_then(|hex| hex.parse().ok())
        else {
            return Ok(());
        };
        if self.is_full() || !self.known.insert(digits) {
            return Ok(());
        }
        // It may have been settled, or expired, since.
        let name = RecordName::new(self.namespace.clone(), digits);
        match look(self.routes, &name, key).await {
            Err(reason) if reason.is_unreadable() => {
                // Once more, so that reason and bytes are of one moment.
                let record = unreadable(self.routes, &name, key).await?;
                self.found.unreadable.extend(record);
            }
            state => {
                let state = state?.filter(RecordState::is_unresolved);
                let found = state.map(|state| (digits, state));
                self.found.unresolved.extend(found);
            }
        }
        Ok(())
    }
}

fn not_whole(reason: &str) -> StoreError {
    let reason = format!("{reason}: it would not be whole");
    StoreError::refused_as(RefusalKind::NotNow, reason)
}

async fn only(shard: &Shard, command: Cmd) -> Result<Value, StoreError> {
    let replies = shard.link.send_on(shard.generation, &[command]).await?;
    Ok(super::carrier::only(replies)?)
}

/// Those whose first line says that they are indeterminate or locked, or says
/// nothing that this version knows.
async fn candidates(shard: &Shard, keys: Vec<String>) -> Result<Vec<String>, StoreError> {
    if keys.is_empty() {
        return Ok(keys);
    }
    let beginnings: Vec<_> = keys
        .iter()
        .map(|key| {
            let mut beginning = cmd("GETRANGE");
            beginning.arg(key).arg(0).arg(LENGTH - 1);
            beginning
        })
        .collect();
    let replies = shard.link.send_on(shard.generation, &beginnings).await?;
    let mut candidates = Vec::new();
    for (key, reply) in keys.into_iter().zip(replies) {
        match Failure::in_reply(&reply) {
            // Another type of value: no record, under the name of one.
            Some(failure) if failure.code() == Some("WRONGTYPE") => candidates.push(key),
            Some(failure) => return Err(failure.into()),
            None if matches!(&reply, Value::BulkString(line) if is_candidate(line)) => {
                candidates.push(key);
            }
            None => {}
        }
    }
    Ok(candidates)
}

/// Whether a record has to be looked at; an empty one is gone.
fn is_candidate(line: &[u8]) -> bool {
    let known = BEGINNINGS.iter().find(|known| line.starts_with(known.0));
    !line.is_empty() && known.is_none_or(|known| known.1)
}
