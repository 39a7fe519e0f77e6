//! Puts every call to a store under a deadline, so that no execution hangs on
//! one. It decides nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::timeout;

use super::{BoxFuture, Store};
use crate::error::StoreError;
use crate::key::{IdempotencyKey, Namespace, RecordName};
use crate::record::{Answer, Event, RecordState};

/// A store whose every call ends within `limit`. A call that is given up may
/// still be applied: [`StoreError::unavailable`].
pub(crate) struct Deadline {
    store: Arc<dyn Store>,
    limit: Duration,
    /// Whether the last call was answered.
    up: Arc<AtomicBool>,
}

impl Deadline {
    pub(crate) fn new(store: Arc<dyn Store>, limit: Duration, up: Arc<AtomicBool>) -> Self {
        Self { store, limit, up }
    }

    async fn within<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let answer = timeout(self.limit, call).await.unwrap_or_else(|_| {
            let limit = self.limit.as_secs_f64();
            Err(StoreError::unavailable(format!(
                "no answer within {limit} s"
            )))
        });
        let up = answer
            .as_ref()
            .err()
            .is_none_or(|e| e.is_refused() || e.is_unreadable());
        self.up.store(up, Ordering::Relaxed);
        answer
    }
}

impl Store for Deadline {
    fn apply<'a>(
        &'a self,
        name: &'a RecordName,
        event: Event,
    ) -> BoxFuture<'a, Result<Answer, StoreError>> {
        Box::pin(self.within(self.store.apply(name, event)))
    }

    fn look<'a>(
        &'a self,
        name: &'a RecordName,
    ) -> BoxFuture<'a, Result<Option<RecordState>, StoreError>> {
        Box::pin(self.within(self.store.look(name)))
    }

    fn changed<'a>(&'a self, name: &'a RecordName) -> BoxFuture<'a, ()> {
        self.store.changed(name)
    }

    fn unresolved<'a>(
        &'a self,
        namespace: &'a Namespace,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<(IdempotencyKey, RecordState)>, StoreError>> {
        // Listing walks the whole store: it has no fixed time.
        self.store.unresolved(namespace, limit)
    }
}
