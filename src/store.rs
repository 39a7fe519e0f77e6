//! The seam to a store: three operations, all idempotent. Implementations live
//! below; none decides anything that `record` does not say.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{RefusalKind, StoreError};
use crate::key::{Namespace, RecordName};
use crate::record::{Answer, Event, RecordState};

mod alive;
mod breaker_store;
mod encrypted;
#[cfg(feature = "file")]
mod file;
mod list;
mod memory;
mod notifications;
#[cfg(feature = "redis")]
mod redis;
mod unreadable;

pub(crate) use self::breaker_store::BreakerStore;
pub(crate) use self::encrypted::readable;
#[cfg(feature = "encrypted")]
pub use self::encrypted::{Encrypted, EncryptionKeys};
#[cfg(feature = "file")]
pub use self::file::FileStore;
#[cfg(all(feature = "file", feature = "testing"))]
pub use self::file::ManualClock;
pub use self::list::{Cursor, ListFilter, ListQuery, Page};
pub use self::memory::MemoryStore;
#[cfg(feature = "redis")]
pub use self::redis::{
    Durability, Persistence, RedisStore, RedisStoreBuilder, ServerReport, WhenEmptied,
};
pub use self::unreadable::UnreadableRecord;

/// A boxed future that may be sent between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where records are kept: what all processes that share it agree on.
///
/// Object safe, and implemented for `Arc<S>`. Whoever writes a store runs
/// `testing::store_conformance` against it.
///
/// What the engine relies on:
///
/// - `apply` reads, calls [`record::apply`](crate::record::apply) and writes as
///   **one atomic step**, with times by **one clock**, the store's own;
/// - what was acknowledged is kept as long as the transition asks;
/// - a record that cannot be read is [`StoreError::unreadable`], never `None`;
/// - a command whose fate is unknown is [`StoreError::unavailable`]; one that was
///   definitely not applied may be [`StoreError::refused`].
///
/// A store need not limit its own time: the engine puts every call under
/// `store_timeout`, which bounds the whole call; of a body that `RedisStore` transfers,
/// the time in which nothing moves. A call that the engine drops may still be applied.
pub trait Store: Send + Sync + 'static {
    /// Applies one event to the record of `name`.
    ///
    /// # Errors
    ///
    /// [`StoreError::refused`] where the event was certainly not applied,
    /// [`StoreError::unavailable`] wherever that is not certain, and
    /// [`StoreError::unreadable`] for a record that cannot be read.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may or may not be applied; all events may be sent again.
    fn apply<'a>(
        &'a self,
        name: &'a RecordName,
        event: Event,
    ) -> BoxFuture<'a, Result<Answer, StoreError>>;

    /// The record of `name`, without changing it; `None` where there is none or
    /// it has expired.
    ///
    /// # Errors
    ///
    /// [`StoreError::unavailable`], and [`StoreError::unreadable`] for a record
    /// that cannot be read: never `None`.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    fn look<'a>(
        &'a self,
        name: &'a RecordName,
    ) -> BoxFuture<'a, Result<Option<RecordState>, StoreError>>;

    /// As [`look`](Self::look), by the cheapest read that tells a recorded outcome
    /// from anything else: for callers who replay what is recorded. What is left of
    /// the time of an outcome may be said to be zero. By default it is a look.
    ///
    /// # Errors
    ///
    /// Those of [`look`](Self::look).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    fn peek<'a>(
        &'a self,
        name: &'a RecordName,
    ) -> BoxFuture<'a, Result<Option<RecordState>, StoreError>> {
        self.look(name)
    }

    /// Completes when the record of `name` may have changed since the future
    /// was first polled: a notice to those who wait. The engine polls besides,
    /// so a store without notifications leaves this as it is.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a notice that nobody waits for is lost, which polling covers.
    fn changed<'a>(&'a self, name: &'a RecordName) -> BoxFuture<'a, ()> {
        let _ = name;
        Box::pin(std::future::pending())
    }

    /// Which part of the store has the record of `name`, as a number of the
    /// store's own; 0, the only one, by default. Parts fail apart: while one does
    /// not answer, the engine goes on with the others.
    fn shard(&self, name: &RecordName) -> u64 {
        let _ = name;
        0
    }

    /// Completes when a command about the record of `name` that failed is worth
    /// sending again, after `pause` at most where the store answers. For the
    /// engine's own guard around a store; a store leaves this as it is.
    #[doc(hidden)]
    fn again<'a>(&'a self, name: &'a RecordName, pause: Duration) -> BoxFuture<'a, ()> {
        let _ = name;
        Box::pin(tokio::time::sleep(pause))
    }

    /// The least [version of the rules](crate::record::WRITER) whose engines may
    /// take keys of a namespace, once it is `at_least` that: kept beside the
    /// records, raised and never lowered. An engine below it refuses to take
    /// keys, and finishes what it holds.
    ///
    /// `at_least` by default: for a store that engines of different versions
    /// cannot share.
    ///
    /// # Errors
    ///
    /// [`StoreError::unavailable`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it may or may not have been raised.
    fn least_writer<'a>(
        &'a self,
        namespace: &'a Namespace,
        at_least: u32,
    ) -> BoxFuture<'a, Result<u32, StoreError>> {
        let _ = namespace;
        Box::pin(async move { Ok(at_least) })
    }

    /// How often this store was found to have lost its records of a namespace, or a
    /// part of them, since it was made; 0 by default, for a store that does not notice.
    fn emptied(&self, namespace: &Namespace) -> u64 {
        let _ = namespace;
        0
    }

    /// One page of a namespace's records, in no order.
    ///
    /// A page takes a bounded time, whatever the size of the store: it may be empty
    /// and have a [`next`](Page::next). A walk through all pages is whole, as
    /// [`Page`] says, or one of them is an error.
    ///
    /// # Errors
    ///
    /// By default a refusal, [`RefusalKind::NotAllowed`](crate::RefusalKind): a store
    /// that cannot list its records leaves this as it is.
    /// [`RefusalKind::NotNow`](crate::RefusalKind) where the list has to start again,
    /// without a cursor.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    fn list<'a>(
        &'a self,
        namespace: &'a Namespace,
        query: &'a ListQuery,
    ) -> BoxFuture<'a, Result<Page, StoreError>> {
        let _ = (namespace, query);
        Box::pin(async {
            let reason = "this store cannot list its records";
            Err(StoreError::refused_as(RefusalKind::NotAllowed, reason))
        })
    }

    /// Whether this process may walk through a namespace's records now; for `period`
    /// from then on, no other process may. It is no lease: a walk does no harm twice.
    ///
    /// Yes by default: for a store that only one process has, or that cannot tell.
    ///
    /// # Errors
    ///
    /// [`StoreError::unavailable`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the period might have begun.
    fn walk_turn<'a>(
        &'a self,
        namespace: &'a Namespace,
        period: Duration,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        let _ = (namespace, period);
        Box::pin(async { Ok(true) })
    }

    /// What is wrong with the record of `name`; `None` where there is none, or it
    /// can be read.
    ///
    /// # Errors
    ///
    /// By default [`StoreError::refused_as`]: a store that cannot tell leaves this
    /// as it is.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    fn look_unreadable<'a>(
        &'a self,
        name: &'a RecordName,
    ) -> BoxFuture<'a, Result<Option<UnreadableRecord>, StoreError>> {
        let _ = name;
        Box::pin(async { Err(no_unreadable()) })
    }

    /// Removes a record that cannot be read, if it still is, byte for byte, what
    /// was listed; returns whether it was.
    ///
    /// # Errors
    ///
    /// Those of [`look_unreadable`](Self::look_unreadable).
    ///
    /// # Cancel safety
    ///
    /// The record might have been removed; asking again is safe.
    fn discard<'a>(
        &'a self,
        record: &'a UnreadableRecord,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        let _ = record;
        Box::pin(async { Err(no_unreadable()) })
    }
}

fn no_unreadable() -> StoreError {
    let reason = "this store neither describes nor removes records that it cannot read";
    StoreError::refused_as(RefusalKind::NotAllowed, reason)
}

impl<S: Store + ?Sized> Store for Arc<S> {
    fn apply<'a>(
        &'a self,
        name: &'a RecordName,
        event: Event,
    ) -> BoxFuture<'a, Result<Answer, StoreError>> {
        (**self).apply(name, event)
    }

    fn look<'a>(
        &'a self,
        name: &'a RecordName,
    ) -> BoxFuture<'a, Result<Option<RecordState>, StoreError>> {
        (**self).look(name)
    }

    fn peek<'a>(
        &'a self,
        name: &'a RecordName,
    ) -> BoxFuture<'a, Result<Option<RecordState>, StoreError>> {
        (**self).peek(name)
    }

    fn changed<'a>(&'a self, name: &'a RecordName) -> BoxFuture<'a, ()> {
        (**self).changed(name)
    }

    fn shard(&self, name: &RecordName) -> u64 {
        (**self).shard(name)
    }

    fn again<'a>(&'a self, name: &'a RecordName, pause: Duration) -> BoxFuture<'a, ()> {
        (**self).again(name, pause)
    }

    fn least_writer<'a>(
        &'a self,
        namespace: &'a Namespace,
        at_least: u32,
    ) -> BoxFuture<'a, Result<u32, StoreError>> {
        (**self).least_writer(namespace, at_least)
    }

    fn emptied(&self, namespace: &Namespace) -> u64 {
        (**self).emptied(namespace)
    }

    fn list<'a>(
        &'a self,
        namespace: &'a Namespace,
        query: &'a ListQuery,
    ) -> BoxFuture<'a, Result<Page, StoreError>> {
        (**self).list(namespace, query)
    }

    fn walk_turn<'a>(
        &'a self,
        namespace: &'a Namespace,
        period: Duration,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        (**self).walk_turn(namespace, period)
    }

    fn look_unreadable<'a>(
        &'a self,
        name: &'a RecordName,
    ) -> BoxFuture<'a, Result<Option<UnreadableRecord>, StoreError>> {
        (**self).look_unreadable(name)
    }

    fn discard<'a>(
        &'a self,
        record: &'a UnreadableRecord,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        (**self).discard(record)
    }
}
