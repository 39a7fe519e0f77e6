//! What an operator decides about a server that has lost its records: whether
//! engines go on, and that the loss is accepted. It notices nothing itself.

use super::RedisStore;
use crate::ambient::in_runtime;
use crate::error::Error;
use crate::key::Namespace;

/// What a [`RedisStore`](crate::RedisStore) does about a server that has lost its
/// records: after a `FLUSHALL`, a restart without persistence, or another server or
/// database behind the same address.
///
/// It notices that by a marker, a small key in each shard, which this process has
/// seen before. Noticing is best effort: see *guarantees*.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WhenEmptied {
    /// Reports it, and goes on: what was executed before is executed again when it
    /// is requested again.
    #[default]
    Go,
    /// Reports it, and takes no key of that shard until an operator accepts the loss
    /// with [`accept_emptied`](crate::RedisStore::accept_emptied). What the engines
    /// hold already, they finish.
    Refuse,
}

impl RedisStore {
    /// What this store and its clones do about a server that has lost its records:
    /// by default they report it, and go on. Set it alike in all processes.
    pub fn when_emptied(self, when: WhenEmptied) -> Self {
        self.connected.monitor.set_when_emptied(when);
        self
    }

    /// Accepts that servers have lost the records of a namespace, so that stores that
    /// [refuse](WhenEmptied::Refuse) take its keys again, in all processes, within a
    /// minute; returns in how many shards they refused. What was executed before the
    /// loss is executed again when it is requested again: find out first what that is.
    ///
    /// # Errors
    ///
    /// [`Error::StoreUnavailable`] where a shard does not answer: those before it have
    /// accepted, and calling it again is safe.
    ///
    /// # Cancel safety
    ///
    /// A part of the shards might have accepted; calling it again is safe.
    pub async fn accept_emptied(&self, namespace: &Namespace) -> Result<usize, Error> {
        in_runtime()?;
        let accepted = self.connected.monitor.accept(namespace).await;
        accepted.map_err(|source| Error::StoreUnavailable { source })
    }
}
