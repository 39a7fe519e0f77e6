//! The threads that read: each takes the next read and answers it from the last
//! commit. They are the store's own, so that no other use of a runtime's
//! blocking threads can keep a record from being read.

use std::sync::{Mutex, PoisonError};

use tokio::sync::mpsc::Receiver;

use super::shared::Core;
use crate::telemetry::contained;

/// One read, its answer included.
pub(super) type Read = Box<dyn FnOnce(&Core) + Send>;

/// Reads until nobody can ask any more.
pub(super) fn run(core: &Core, reads: &Mutex<Receiver<Read>>) {
    let next = || {
        let mut reads = reads.lock().unwrap_or_else(PoisonError::into_inner);
        reads.blocking_recv()
    };
    while let Some(read) = next() {
        // Also for redb, which asserts in debug builds where it otherwise reports
        // a damaged page: a reply that is dropped is an error.
        contained(|| read(core));
    }
}
