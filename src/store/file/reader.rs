//! The threads that read: each takes the next read and answers it from the last commit.
//! They belong to the store, so no other use of a runtime's blocking threads delays a read.

use std::sync::{Mutex, PoisonError};

use tokio::sync::mpsc::Receiver;

use super::shared::FileCore;
use crate::telemetry::contained;

/// One read, its answer included.
pub(super) type Read = Box<dyn FnOnce(&FileCore) + Send>;

/// Reads until the last clone of the store is dropped.
pub(super) fn run(core: &FileCore, reads: &Mutex<Receiver<Read>>) {
    let next = || {
        let mut reads = reads.lock().unwrap_or_else(PoisonError::into_inner);
        reads.blocking_recv()
    };
    while let Some(read) = next() {
        // In debug builds redb panics on a damaged page; a dropped reply is an error for
        // its caller.
        contained(|| read(core));
    }
}
