//! What the clones of a cluster share: the slot map, the seeds, and the state of its
//! refreshes. It sends nothing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;

use super::node::Node;
use super::slot_map::Map;
use crate::store::redis::connection::command_error::Failure;
use crate::store::redis::connection::runtime::{AbortOnDrop, Home};
use crate::store::redis::connection::server::Server;
use crate::store::redis::connection::shared::Link;

/// The state of one cluster.
pub(crate) struct Shared {
    pub(crate) map: watch::Sender<Arc<Map>>,
    /// Asked where no server of the map answers, whoever is in the cluster by now.
    pub(crate) seeds: Vec<Link>,
    pub(crate) guests: Mutex<HashMap<String, Arc<Node>>>,
    pub(crate) home: Home,
    /// Rounds of asking that have ended.
    pub(crate) rounds: AtomicU64,
    /// Whether a server gave the map in the last one.
    pub(crate) is_current: AtomicBool,
    /// When the last one began.
    pub(crate) asking: tokio::sync::Mutex<Option<Instant>>,
    pub(crate) background: Mutex<Option<AbortOnDrop>>,
    pub(crate) review: Mutex<Option<AbortOnDrop>>,
    /// The map that was refused last.
    pub(crate) refused: Mutex<String>,
}

impl Shared {
    /// The state before the first map.
    pub(crate) fn new(login: &Server, seeds: &[Server]) -> Self {
        let map = Map::blank(login);
        let link = |seed: &Server| Link::new(Arc::new(seed.clone()), Arc::default());
        Self {
            map: watch::Sender::new(Arc::new(map)),
            seeds: seeds.iter().map(link).collect(),
            guests: Mutex::default(),
            home: login.home().clone(),
            rounds: AtomicU64::new(0),
            is_current: AtomicBool::new(true),
            asking: tokio::sync::Mutex::new(None),
            background: Mutex::new(None),
            review: Mutex::new(None),
            refused: Mutex::default(),
        }
    }

    pub(crate) fn map(&self) -> Arc<Map> {
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

pub(crate) fn uncovered(slot: usize) -> Failure {
    Failure::Unsent(format!("no server of the cluster has slot {slot}"))
}
