//! The interface of a store, its lists, and the stores of this crate: in memory, in one
//! file, in Redis, and encryption over any of them. A store decides no transition:
//! [`record`](crate::record) does.

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
pub(crate) mod file;
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
pub use self::list::{Cursor, ListFilter, ListQuery, Page};
pub use self::memory::MemoryStore;
#[cfg(feature = "redis")]
pub use self::redis::{
    Durability, Persistence, RedisStore, RedisStoreBuilder, ServerReport, WhenEmptied,
};
pub use self::unreadable::UnreadableRecord;

/// A boxed future that may be sent between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Holds the records. All processes that share a store see the same records.
///
/// Object safe, and implemented for `Arc<S>`. Test your own store with
/// `testing::store_conformance`.
///
/// The engine relies on these rules:
///
/// - `apply` reads, calls [`record::apply`](crate::record::apply) and writes in **one
///   atomic step**, with times by **one clock**, the store's own;
/// - an acknowledged record lives as long as the transition says;
/// - a record that cannot be read is [`StoreError::unreadable`], never `None`;
/// - a command whose outcome is unknown is [`StoreError::unavailable`]; one that was
///   certainly not applied may be [`StoreError::refused`].
///
/// A store needs no time-out of its own: the engine limits every call by `store_timeout`.
/// That limits the whole call; while `RedisStore` transfers a body, it limits the time in
/// which no byte moves. A call that the engine drops might still be applied.
pub trait Store: Send + Sync + 'static {
    /// Applies one event to the record of `name`.
    ///
    /// # Errors
    ///
    /// [`StoreError::refused`] where the event was certainly not applied,
    /// [`StoreError::unavailable`] where that is not certain, and
    /// [`StoreError::unreadable`] for a record that cannot be read.
    ///
    /// # Cancel safety
    ///
    /// A dropped call might have been applied. Send the same event again: all are
    /// idempotent.
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

    /// As [`look`](Self::look), by the cheapest read that distinguishes a recorded outcome
    /// from all other states. The engine calls it to replay. A store may report zero for
    /// the rest of the time to live. By default it is a look.
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

    /// Completes when the record of `name` might have changed since the future was first
    /// polled: a notification to waiters. The engine also polls, so a store without
    /// notifications keeps this default.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a notification without a waiter is lost; the next poll replaces it.
    fn changed<'a>(&'a self, name: &'a RecordName) -> BoxFuture<'a, ()> {
        let _ = name;
        Box::pin(std::future::pending())
    }

    /// The shard of the store that holds the record of `name`, by a number of the store's
    /// own; 0, the only one, by default. While one shard does not answer, the engine uses
    /// the others.
    fn shard(&self, name: &RecordName) -> u64 {
        let _ = name;
        0
    }

    /// Completes when a failed command about the record of `name` can be sent again, after
    /// `pause` at most where the store answers. For the engine's breaker around a store; a
    /// store keeps this default.
    #[doc(hidden)]
    fn again<'a>(&'a self, name: &'a RecordName, pause: Duration) -> BoxFuture<'a, ()> {
        let _ = name;
        Box::pin(tokio::time::sleep(pause))
    }

    /// Raises a namespace's least [version of the rules](crate::record::WRITER) to
    /// `at_least`, and returns it. It is stored beside the records and never lowered. An
    /// engine of an earlier version acquires no keys of the namespace, and finishes the
    /// executions that it has.
    ///
    /// Returns `at_least` by default: for a store that engines of different versions cannot
    /// share.
    ///
    /// # Errors
    ///
    /// [`StoreError::unavailable`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the version might have been raised.
    fn least_writer<'a>(
        &'a self,
        namespace: &'a Namespace,
        at_least: u32,
    ) -> BoxFuture<'a, Result<u32, StoreError>> {
        let _ = namespace;
        Box::pin(async move { Ok(at_least) })
    }

    /// How often this store was found to have lost records of a namespace since it was
    /// made; 0 by default, for a store that does not detect it.
    fn emptied(&self, namespace: &Namespace) -> u64 {
        let _ = namespace;
        0
    }

    /// One page of a namespace's records, in no order.
    ///
    /// A page takes a bounded time, whatever the size of the store: it may be empty and
    /// still have a [`next`](Page::next). A walk through all pages is complete, as [`Page`]
    /// defines it, or one page is an error.
    ///
    /// # Errors
    ///
    /// By default a refusal, [`RefusalKind::NotAllowed`](crate::error::RefusalKind): a store that
    /// cannot list its records keeps this default.
    /// [`RefusalKind::NotNow`](crate::error::RefusalKind) where the list has to start again,
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

    /// Whether this process may walk through a namespace's records now. If so, no other
    /// process may for `period`. It is no lease: two walks at once do no harm.
    ///
    /// `true` by default: for a store of one process, or one that cannot coordinate
    /// processes.
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
    /// By default a refusal, [`RefusalKind::NotAllowed`](crate::error::RefusalKind).
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

    /// Removes a record that cannot be read, if its bytes are still those that were listed;
    /// returns whether it did.
    ///
    /// # Errors
    ///
    /// Those of [`look_unreadable`](Self::look_unreadable).
    ///
    /// # Cancel safety
    ///
    /// The record might have been removed; calling again is safe.
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
