//! What the clones of a cluster share: the slot map, the seeds, and the state of its
//! refreshes. It sends nothing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;

use super::node::Node;
use super::slot_map::SlotMap;
use crate::store::redis::connection::command_error::CommandError;
use crate::store::redis::connection::runtime::{AbortOnDrop, StoreRuntime};
use crate::store::redis::connection::server::Server;
use crate::store::redis::connection::shared::SharedConnection;

/// The state of one cluster.
pub(crate) struct ClusterState {
    pub(crate) map: watch::Sender<Arc<SlotMap>>,
    /// Asked where no server of the map answers, whichever nodes the cluster has now.
    pub(crate) seeds: Vec<SharedConnection>,
    pub(crate) importing: Mutex<HashMap<String, Arc<Node>>>,
    pub(crate) runtime: StoreRuntime,
    /// Completed refreshes.
    pub(crate) rounds: AtomicU64,
    /// Whether the last one read a map.
    pub(crate) is_current: AtomicBool,
    /// When the last one began; locked during a refresh.
    pub(crate) last_round: tokio::sync::Mutex<Option<Instant>>,
    pub(crate) refresh_task: Mutex<Option<AbortOnDrop>>,
    pub(crate) review_task: Mutex<Option<AbortOnDrop>>,
    /// Why a map was refused last; empty after a success.
    pub(crate) last_refused: Mutex<String>,
}

impl ClusterState {
    /// The state before the first map.
    pub(crate) fn new(login: &Server, seeds: &[Server]) -> Self {
        let map = SlotMap::empty(login);
        let connection =
            |seed: &Server| SharedConnection::new(Arc::new(seed.clone()), Arc::default());
        Self {
            map: watch::Sender::new(Arc::new(map)),
            seeds: seeds.iter().map(connection).collect(),
            importing: Mutex::default(),
            runtime: login.runtime().clone(),
            rounds: AtomicU64::new(0),
            is_current: AtomicBool::new(true),
            last_round: tokio::sync::Mutex::new(None),
            refresh_task: Mutex::new(None),
            review_task: Mutex::new(None),
            last_refused: Mutex::default(),
        }
    }

    pub(crate) fn map(&self) -> Arc<SlotMap> {
        self.map.borrow().clone()
    }

    pub(crate) fn round(&self) -> u64 {
        self.rounds.load(Ordering::Acquire)
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change under these locks is one assignment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn uncovered(slot: usize) -> CommandError {
    CommandError::Unsent(format!("no server of the cluster has slot {slot}"))
}
