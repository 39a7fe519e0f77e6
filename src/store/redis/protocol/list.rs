//! Lists: a walk through all keys of all primaries in pages, which is complete or fails.
//! For a list of indeterminate keys it fetches no record that has an outcome.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, Hash as _, Hasher as _, RandomState};
use std::sync::LazyLock;
use std::time::Duration;

use futures_util::future::join_all;
use redis::{Cmd, Value, cmd};
use tokio::time::sleep;

use super::bodies::BodyStore;
use super::read::look_for_list;
use super::unreadable::unreadable;
use crate::error::{RefusalKind, StoreError};
use crate::key::{IdempotencyKey, Namespace, RecordName};
use crate::record::{MAGIC, RecordState};
use crate::store::redis::connection::command_error::CommandError;
use crate::store::redis::topology::routes::{Layout, Shard};
use crate::store::{Cursor, ListFilter, ListQuery, Page, UnreadableRecord};

/// Keys that one `SCAN` examines: its reply is below 64 KiB.
const SCAN_COUNT: usize = 400;

/// How readable records go on after [`MAGIC`], and whether such a record might be
/// indeterminate: a lock has expired according to its time to live.
const STATES: [(&[u8], bool); 4] = [
    (b" indeterminate ", true),
    (b" locked ", true),
    (b" cached ", false),
    (b" released ", false),
];

/// The length of the longest prefix.
const PREFIX_BYTES: usize = MAGIC.len() + STATES[0].0.len();

/// How often to try a first page while servers or slots change.
const MAX_TRIES: u32 = 4;

/// The pause before the next attempt.
const PAUSE: Duration = Duration::from_millis(250);

/// The most batches of keys in one page.
const MAX_BATCHES: usize = 25;

/// The most records read at once.
const MAX_CONCURRENT_READS: usize = 8;

/// One page of a namespace's records.
///
/// The walk uses the same connections to the same servers from its first page to its last.
/// A cursor is valid on one server only, and a key that moves from a later server to an
/// earlier one would be missed.
///
/// # Errors
///
/// Where a primary does not answer, and where servers or slots have changed since the first
/// page. A first page is retried.
pub(crate) async fn page(
    body_store: BodyStore<'_>,
    namespace: &Namespace,
    query: &ListQuery,
) -> Result<Page, StoreError> {
    let mut tries = 0;
    loop {
        tries += 1;
        let mut walk = ListWalk {
            body_store,
            namespace,
            prefix: format!("genesys-once:{namespace}:"),
            query,
            page: Page::default(),
            known: HashSet::new(),
        };
        match walk.through_batches().await {
            Ok(()) => return Ok(walk.page),
            Err(failure) if tries == MAX_TRIES || query.cursor().is_some() => return Err(failure),
            Err(_) => sleep(PAUSE * tries).await,
        }
    }
}

/// The start of a page.
struct ListPosition {
    /// The index of the primary in the layout.
    shard: usize,
    /// The last cursor of `SCAN`.
    scan: String,
    /// Within the batch that starts there: the cursor of the next batch, and the last key
    /// that was examined, in order.
    within: Option<(String, IdempotencyKey)>,
}

impl ListPosition {
    const FIRST_SCAN: &str = "0";

    fn first_of(shard: usize) -> Self {
        Self {
            shard,
            scan: Self::FIRST_SCAN.into(),
            within: None,
        }
    }

    fn cursor(&self, layout: u64) -> Cursor {
        let within = self.within.as_ref();
        let within = within.map(|(next, key)| format!("{next}-{key}"));
        let within = within.as_deref().unwrap_or("");
        let Self { shard, scan, .. } = self;
        Cursor::new(format!("{layout:016x}-{shard}-{scan}-{within}"))
    }

    /// # Errors
    ///
    /// Where the cursor is of another list, or the servers have changed.
    fn of(cursor: &Cursor, layout: u64) -> Result<Self, StoreError> {
        let read = |text: &str| {
            let mut parts = text.splitn(4, '-');
            let of = u64::from_str_radix(parts.next()?, 16).ok()?;
            let shard = parts.next()?.parse().ok()?;
            let scan = parts.next()?.to_owned();
            let within = match parts.next()? {
                "" => None,
                within => {
                    let (next, key) = within.split_once('-')?;
                    Some((next.to_owned(), key.parse().ok()?))
                }
            };
            let is_scan = !scan.is_empty() && scan.bytes().all(|b| b.is_ascii_digit());
            let position = Self {
                shard,
                scan,
                within,
            };
            is_scan.then_some((of, position))
        };
        let (of, position) = read(cursor.as_str()).ok_or_else(Cursor::foreign)?;
        match of == layout {
            true => Ok(position),
            false => Err(changed()),
        }
    }
}

struct ListWalk<'a> {
    body_store: BodyStore<'a>,
    namespace: &'a Namespace,
    prefix: String,
    query: &'a ListQuery,
    page: Page,
    /// A scan can return a key twice.
    known: HashSet<IdempotencyKey>,
}

impl ListWalk<'_> {
    async fn through_batches(&mut self) -> Result<(), StoreError> {
        let layout = self.layout().await?;
        let id = self.id(&layout);
        let mut position = match self.query.cursor() {
            None => ListPosition::first_of(0),
            Some(cursor) => ListPosition::of(cursor, id)?,
        };
        for _ in 0..MAX_BATCHES {
            let Some(shard) = layout.0.get(position.shard) else {
                break;
            };
            let (next, keys) = self.scan(shard, &position.scan).await?;
            // If keys were added or removed, the batch is another one: then all of it is
            // examined, and a key can be listed twice.
            let within = position.within.take();
            let mut after = within
                .filter(|(was, _)| *was == next)
                .map(|(_, after)| after);
            if !self.take_all(shard, keys, &mut after).await? {
                position.within = after.map(|after| (next, after));
                self.page.next = Some(position.cursor(id));
                return Ok(());
            }
            position = match next.as_str() {
                ListPosition::FIRST_SCAN => ListPosition::first_of(position.shard + 1),
                _ => ListPosition {
                    scan: next,
                    within: None,
                    ..position
                },
            };
        }
        if position.shard < layout.0.len() {
            self.page.next = Some(position.cursor(id));
            return Ok(());
        }
        match layout.is_still(&self.layout().await?) {
            true => Ok(()),
            false => Err(changed()),
        }
    }

    async fn layout(&self) -> Result<Layout, StoreError> {
        let layout = self.body_store.routes.layout().await?;
        match layout.is_moving() {
            true => Err(not_whole("slots are moving to another server")),
            false => Ok(layout),
        }
    }

    /// Identifies the layout of these connections in this process.
    fn id(&self, layout: &Layout) -> u64 {
        static PROCESS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        let mut hasher = PROCESS.build_hasher();
        std::ptr::from_ref(self.body_store.routes).hash(&mut hasher);
        layout.hash(&mut hasher);
        hasher.finish()
    }

    async fn scan(
        &self,
        shard: &Shard,
        from: &str,
    ) -> Result<(String, Vec<IdempotencyKey>), StoreError> {
        // A namespace contains no character that a pattern would expand.
        let mut scan = cmd("SCAN");
        scan.arg(from)
            .arg("MATCH")
            .arg(format!("{}*", self.prefix))
            .arg("COUNT")
            .arg(SCAN_COUNT);
        let reply = single_reply(shard, scan).await?;
        let (next, keys): (String, Vec<String>) =
            redis::from_redis_value(reply).map_err(|_| CommandError::unexpected())?;
        // A key with another suffix is no record.
        let digits = keys.iter().filter_map(|key| key.strip_prefix(&self.prefix));
        let mut keys: Vec<_> = digits.filter_map(|hex| hex.parse().ok()).collect();
        keys.sort_unstable();
        Ok((next, keys))
    }

    /// Lists the keys of a batch in order; `false` where the page is full before the last.
    async fn take_all(
        &mut self,
        shard: &Shard,
        mut keys: Vec<IdempotencyKey>,
        after: &mut Option<IdempotencyKey>,
    ) -> Result<bool, StoreError> {
        keys.retain(|key| Some(*key) > *after && self.known.insert(*key));
        self.page.examined += keys.len();
        if self.query.filter() != ListFilter::All {
            keys = self.candidates(shard, keys).await?;
        }
        for some in keys.chunks(MAX_CONCURRENT_READS) {
            let reads = some.iter().map(|key| self.read(*key));
            for (key, read) in some.iter().zip(join_all(reads).await) {
                if self.page.is_full(self.query) {
                    return Ok(false);
                }
                match read? {
                    Listed::Readable(state) => self.page.add(self.query, *key, state),
                    Listed::Unreadable(record) => self.page.add_unreadable(record),
                    // It was finished, or expired, in the meantime.
                    Listed::Gone => {}
                }
                *after = Some(*key);
            }
        }
        Ok(true)
    }

    async fn read(&self, key: IdempotencyKey) -> Result<Listed, StoreError> {
        let name = RecordName::new(self.namespace.clone(), key);
        let redis_key = name.to_string();
        let routes = self.body_store.routes;
        let read = look_for_list(routes, self.body_store, &name, &redis_key);
        Ok(match read.await {
            Err(reason) if reason.is_unreadable() => {
                // Read again, so that reason and bytes are of one moment.
                let record = unreadable(routes, &name, &redis_key).await?;
                record.map_or(Listed::Gone, Listed::Unreadable)
            }
            state => state?.map_or(Listed::Gone, Listed::Readable),
        })
    }

    /// The keys whose record is indeterminate, locked, or in a state that this version does
    /// not know.
    async fn candidates(
        &self,
        shard: &Shard,
        keys: Vec<IdempotencyKey>,
    ) -> Result<Vec<IdempotencyKey>, StoreError> {
        if keys.is_empty() {
            return Ok(keys);
        }
        let beginnings: Vec<_> = keys
            .iter()
            .map(|key| {
                let mut beginning = cmd("GETRANGE");
                let name = format!("{}{key}", self.prefix);
                beginning.arg(name).arg(0).arg(PREFIX_BYTES - 1);
                beginning
            })
            .collect();
        let replies = shard
            .connection
            .send_on(shard.generation, &beginnings)
            .await?;
        let mut candidates = Vec::new();
        for (key, reply) in keys.into_iter().zip(replies) {
            match CommandError::from_reply(&reply) {
                // Another type of value under the key of a record.
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
}

/// What a key of the walk has.
enum Listed {
    Readable(RecordState),
    Unreadable(UnreadableRecord),
    Gone,
}

fn changed() -> StoreError {
    not_whole("servers or slots changed during the list")
}

fn not_whole(reason: &str) -> StoreError {
    let reason = format!("{reason}: the list would be incomplete; start it again");
    StoreError::refused_as(RefusalKind::NotNow, reason)
}

async fn single_reply(shard: &Shard, command: Cmd) -> Result<Value, StoreError> {
    let replies = shard
        .connection
        .send_on(shard.generation, &[command])
        .await?;
    Ok(crate::store::redis::connection::transport::single_reply(
        replies,
    )?)
}

/// Whether a record has to be read; an empty one is gone.
fn is_candidate(line: &[u8]) -> bool {
    let state = line.strip_prefix(MAGIC.as_bytes());
    let known = state.and_then(|state| STATES.iter().find(|known| state.starts_with(known.0)));
    !line.is_empty() && known.is_none_or(|known| known.1)
}
