//! The runtime of a store: the one on which it was made. Background work runs there, never
//! on the runtime of the caller that needed it first, since that might stop.

use std::future::{Future, pending};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Where background work runs. A clone is the same runtime.
#[derive(Clone)]
pub(crate) struct StoreRuntime(Arc<RuntimeState>);

struct RuntimeState {
    runtime: Mutex<Option<Handle>>,
    /// Wakes the task that asks servers on each new connection.
    connected: Notify,
}

impl StoreRuntime {
    /// The runtime of the caller, if there is one.
    pub(crate) fn current() -> Self {
        Self(Arc::new(RuntimeState {
            runtime: Mutex::new(Handle::try_current().ok()),
            connected: Notify::new(),
        }))
    }

    /// Reports a new connection.
    pub(crate) fn signal_connected(&self) {
        self.0.connected.notify_one();
    }

    /// Completes with the next new connection, or at once if there was one since the last
    /// call. For one task.
    pub(crate) async fn connected(&self) {
        self.0.connected.notified().await;
    }

    /// Spawns a task; on the caller's runtime if this one has ended. `None` outside of any
    /// runtime.
    pub(crate) fn spawn(
        &self,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> Option<AbortOnDrop> {
        let handle = {
            let mut store_runtime = self.lock();
            if store_runtime.as_ref().is_none_or(has_ended) {
                *store_runtime = Handle::try_current().ok();
            }
            store_runtime.clone()?
        };
        Some(AbortOnDrop(handle.spawn(task)))
    }

    /// Uses the caller's runtime from now on, since no thread drives the one before.
    pub(crate) fn adopt_current_runtime(&self) {
        if let Ok(current) = Handle::try_current() {
            *self.lock() = Some(current);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Handle>> {
        // Every change under this lock is one assignment.
        self.0
            .runtime
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A runtime that has ended cancels a new task at once.
fn has_ended(runtime: &Handle) -> bool {
    let probe = runtime.spawn(pending::<()>());
    let ended = probe.is_finished();
    probe.abort();
    ended
}

/// Ends a task with its owner.
pub(crate) struct AbortOnDrop(pub(crate) JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use tokio::runtime::{Builder, Runtime};

    use super::*;

    fn runtime() -> Runtime {
        Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .unwrap()
    }

    /// Which runtime a task runs on.
    fn runs_on(store_runtime: &StoreRuntime) -> Option<tokio::runtime::Id> {
        let (sender, received) = channel();
        let task = store_runtime.spawn(async move {
            let _ = sender.send(Handle::current().id());
        })?;
        let id = received.recv_timeout(Duration::from_secs(60)).unwrap();
        drop(task);
        Some(id)
    }

    /// Red when a task runs where it is spawned.
    #[test]
    fn task_runs_on_store_runtime() {
        let (first, second) = (runtime(), runtime());
        let store_runtime = first.block_on(async { StoreRuntime::current() });
        let from_second = || second.block_on(async { runs_on(&store_runtime) });
        assert_eq!(from_second(), Some(first.handle().id()));
        assert_eq!(
            runs_on(&store_runtime),
            Some(first.handle().id()),
            "from no runtime"
        );
        drop(first);
        assert_eq!(from_second(), Some(second.handle().id()));
        let third = runtime();
        third.block_on(async { store_runtime.adopt_current_runtime() });
        assert_eq!(from_second(), Some(third.handle().id()));
        let nowhere = StoreRuntime::current();
        assert_eq!(runs_on(&nowhere), None);
    }
}
