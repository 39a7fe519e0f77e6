//! The list of unresolved records: a walk through all keys of all primaries. It
//! fetches no record whole that has an outcome.

use std::collections::HashSet;

use redis::{Value, cmd};

use super::commands::{look, unexpected};
use super::failure::Failure;
use super::link::Link;
use super::routes::Routes;
use crate::error::{StoreError, chain};
use crate::key::{IdempotencyKey, Namespace, RecordName};
use crate::record::RecordState;
use crate::telemetry::contained;

/// Keys that one `SCAN` looks at.
const SCAN: usize = 1000;

/// How the first lines of these records begin; which locks have lapsed, their
/// time to live says.
const BEGINNINGS: [&[u8]; 2] = [b"genesys-once/3 indeterminate ", b"genesys-once/3 locked "];

/// As many bytes as the longest has.
const LENGTH: usize = BEGINNINGS[0].len();

/// The unresolved records of a namespace.
///
/// # Errors
///
/// Where any primary does not answer: a list with a shard missing would look
/// complete.
pub(super) async fn unresolved(
    routes: &Routes,
    namespace: &Namespace,
    limit: usize,
) -> Result<Vec<(IdempotencyKey, RecordState)>, StoreError> {
    let mut walk = Walk {
        routes,
        namespace,
        prefix: format!("genesys-once:{namespace}:"),
        limit,
        found: Vec::new(),
        known: HashSet::new(),
    };
    let mut seen = HashSet::new();
    // Another one may be promoted meanwhile: until there is none left.
    while let Some(primary) = routes.next_primary(&mut seen) {
        walk.through(&primary).await?;
    }
    Ok(walk.found)
}

struct Walk<'a> {
    routes: &'a Routes,
    namespace: &'a Namespace,
    prefix: String,
    limit: usize,
    found: Vec<(IdempotencyKey, RecordState)>,
    /// A scan may return a key twice, and so may a shard on the move.
    known: HashSet<IdempotencyKey>,
}

impl Walk<'_> {
    async fn through(&mut self, primary: &Link) -> Result<(), StoreError> {
        let mut cursor = "0".to_owned();
        while self.found.len() < self.limit {
            // The namespace's alphabet has nothing that a pattern would expand.
            let mut scan = cmd("SCAN");
            scan.arg(&cursor)
                .arg("MATCH")
                .arg(format!("{}*", self.prefix));
            scan.arg("COUNT").arg(SCAN).arg("TYPE").arg("string");
            let reply = primary.command(&scan).await?;
            let (next, keys): (String, Vec<String>) =
                redis::from_redis_value(reply).map_err(|_| unexpected())?;
            for key in candidates(primary, keys).await? {
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
        if self.found.len() == self.limit || !self.known.insert(digits) {
            return Ok(());
        }
        // It may have been settled, or expired, since.
        let name = RecordName::new(self.namespace.clone(), digits);
        let state = match look(self.routes, &name, key).await {
            // Asking for the key itself says so too; the others are still worth
            // listing.
            Err(reason) if reason.is_unreadable() => {
                let reason = chain(&reason);
                contained(|| {
                    tracing::warn!(
                        %name,
                        reason,
                        "a record that cannot be read is left out of the list"
                    );
                });
                return Ok(());
            }
            state => state?.filter(RecordState::is_unresolved),
        };
        self.found.extend(state.map(|state| (digits, state)));
        Ok(())
    }
}

/// Those whose first line says that they are indeterminate or locked, and those
/// that have gone to another server meanwhile.
async fn candidates(primary: &Link, keys: Vec<String>) -> Result<Vec<String>, StoreError> {
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
    let replies = primary.send(&beginnings).await?;
    let mut candidates = Vec::new();
    for (key, reply) in keys.into_iter().zip(replies) {
        match Failure::in_reply(&reply) {
            Some(failure) if !failure.doubts_the_server() => return Err(failure.into()),
            None if !matches!(&reply, Value::BulkString(line) if is_candidate(line)) => {}
            _ => candidates.push(key),
        }
    }
    Ok(candidates)
}

fn is_candidate(line: &[u8]) -> bool {
    BEGINNINGS
        .iter()
        .any(|beginning| line.starts_with(beginning))
}
