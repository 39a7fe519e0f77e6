//! What an operator decides about a server that has lost its records: whether engines go
//! on, and that the loss is accepted. It detects no loss itself.

use super::RedisStore;
use crate::ambient::in_runtime;
use crate::error::Error;
use crate::key::Namespace;

/// What a [`RedisStore`](crate::RedisStore) does about a server that has lost its
/// records: after a `FLUSHALL`, a restart without persistence, or another server or
/// database behind the same address.
///
/// The store detects the loss by a marker, a small key in each shard, which this process
/// has seen before. Detection is best effort: see *guarantees*.
///
/// Its values in text (`Display`, `FromStr`, serde): `go` and `refuse`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WhenEmptied {
    /// Reports the loss and goes on: a request that was executed before is executed again
    /// when a caller sends it again.
    #[default]
    Go,
    /// Reports the loss, and acquires no key of that shard until an operator accepts the
    /// loss with [`accept_emptied`](crate::RedisStore::accept_emptied). Engines finish
    /// the executions that they have started.
    Refuse,
}

crate::policy::named_values!(WhenEmptied, "when_emptied", Go = "go", Refuse = "refuse");

impl RedisStore {
    /// What this store and its clones do about a server that has lost its records; by
    /// default they report it and go on. Set the same value in all processes.
    pub fn when_emptied(self, when: WhenEmptied) -> Self {
        self.connected.monitor.set_when_emptied(when);
        self
    }

    /// Accepts that servers have lost the records of a namespace: stores that
    /// [refuse](WhenEmptied::Refuse) acquire its keys again, in all processes, within a
    /// minute. Returns in how many shards they refused. A request that was executed
    /// before the loss is executed again when a caller sends it again: find out first
    /// which requests these are.
    ///
    /// # Errors
    ///
    /// [`Error::StoreUnavailable`] where a shard does not answer. The shards before it
    /// have accepted; a second call is safe.
    ///
    /// # Cancel safety
    ///
    /// Some shards might have accepted; a second call is safe.
    pub async fn accept_emptied(&self, namespace: &Namespace) -> Result<usize, Error> {
        in_runtime()?;
        let accepted = self.connected.monitor.accept(namespace).await;
        accepted.map_err(|source| Error::StoreUnavailable { source })
    }
}
