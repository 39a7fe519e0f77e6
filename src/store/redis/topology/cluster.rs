//! Routes commands to the cluster node that has a key, and follows redirections. It sends
//! a command again only if the node reports that it did not run it, or if there was no
//! connection to send it on.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use redis::{Cmd, Value, cmd};
use tokio::time::{Instant, timeout};

use super::cluster_state::{ClusterState, lock, uncovered};
use super::node::Node;
use super::slots::{Redirection, slot};
use crate::store::redis::connection::command_error::CommandError;
use crate::store::redis::connection::runtime::StoreRuntime;
use crate::store::redis::connection::server::Server;
use crate::store::redis::connection::shared::{MIN_SUSPICIOUS_AGE, SharedConnection};
use crate::store::redis::connection::transport::Lane;

/// The most redirections of one command.
const MAX_REDIRECTIONS: usize = 3;

/// Numbers to try for one key on each primary.
const MAX_KEY_NUMBERS: usize = 100_000;

/// The most nodes that import their first slots and are on no map yet.
const MAX_IMPORTING_NODES: usize = 16;

/// A cluster. A clone is the same cluster.
#[derive(Clone)]
pub(crate) struct Cluster {
    shared: Arc<ClusterState>,
}

impl Cluster {
    /// Reads the map from the seeds.
    ///
    /// # Errors
    ///
    /// Where no seed returns a map.
    pub(crate) async fn connect(seeds: &[Server]) -> Result<Self, CommandError> {
        let unknown = || CommandError::Unsent("no server of the cluster is known".into());
        let login = seeds.first().ok_or_else(unknown)?;
        let shared = Arc::new(ClusterState::new(login, seeds));
        shared.load_first_map().await?;
        shared.start_periodic_refresh();
        Ok(Self { shared })
    }

    /// Where background work runs.
    pub(crate) fn runtime(&self) -> &StoreRuntime {
        &self.shared.runtime
    }

    /// The connections to all primaries, by address.
    pub(crate) fn primaries(&self) -> Vec<(String, SharedConnection)> {
        self.shared.map().primaries()
    }

    /// The shard that has a key, by number.
    pub(crate) fn shard(&self, key: &str) -> u64 {
        self.shared.map().shard(slot(key))
    }

    /// The connection to the server that has a key.
    pub(crate) fn connection(&self, key: &str) -> Result<SharedConnection, CommandError> {
        match self.shared.map().owner(slot(key)) {
            Some(node) => Ok(node.connection.clone()),
            None => Err(uncovered(slot(key))),
        }
    }

    /// One key on each primary: this prefix and the lowest number with a slot there.
    pub(crate) fn one_key_per_primary(&self, prefix: &str) -> Vec<String> {
        let map = self.shared.map();
        let mut seen = HashSet::new();
        (0..MAX_KEY_NUMBERS)
            .map(|number| format!("{prefix}{number}"))
            .filter(|key| {
                let owner = map.owner(slot(key));
                owner.is_some_and(|owner| seen.insert(owner.connection.address()))
            })
            .take(map.primaries().len())
            .collect()
    }

    /// Whether every slot has a server.
    pub(crate) fn is_whole(&self) -> bool {
        self.shared.map().is_whole()
    }

    /// Reads the map again, and returns whether a server returned one.
    pub(crate) async fn refresh(&self) -> bool {
        self.shared.refresh(self.shared.round()).await;
        self.shared.is_current.load(Ordering::Acquire)
    }

    /// Completes when the record of that channel might have changed since the future was
    /// first polled: with a notification, or when the slot moves to another node.
    pub(crate) async fn changed(&self, channel: String) {
        let slot = slot(&channel);
        let mut maps = self.shared.map.subscribe();
        let here = maps.borrow_and_update().owner(slot).cloned();
        let moved = async {
            while maps.changed().await.is_ok() {
                let now = maps.borrow_and_update().owner(slot).cloned();
                match (&here, &now) {
                    (Some(here), Some(now)) if Arc::ptr_eq(here, now) => {}
                    (None, None) => {}
                    _ => return,
                }
            }
            std::future::pending().await
        };
        let notice = async {
            match &here {
                Some(node) => node.changed(channel).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = notice => {}
            () = moved => {}
        }
    }

    /// Sends commands to the server that has the key.
    pub(crate) async fn send(
        &self,
        lane: Lane<'_>,
        key: &str,
        commands: &[Cmd],
    ) -> Result<Vec<Value>, CommandError> {
        let mut guard = AbandonedRouteGuard {
            shared: &self.shared,
            begun: Instant::now(),
            over: false,
        };
        let limit = Node::limit(lane);
        let sent = timeout(limit, self.shared.route(lane, slot(key), commands)).await;
        guard.over = true;
        let sent = sent.unwrap_or_else(|_| {
            let seconds = limit.as_secs();
            Err(CommandError::Lost(format!(
                "the cluster did not answer within {seconds} s"
            )))
        });
        let stale = match &sent {
            Err(CommandError::Busy(_)) => false,
            Err(_) => true,
            Ok(replies) => replies.iter().any(|reply| {
                let failure = CommandError::from_reply(reply);
                failure.is_some_and(|failure| failure.calls_for_refresh())
            }),
        };
        if stale {
            // The next command, perhaps a retry of this one, uses a new map.
            self.shared.refresh_soon();
        }
        sent
    }
}

/// Refreshes the map when a caller drops a command: callers might have shorter limits than
/// the store, and a node that hangs must be replaced even then.
struct AbandonedRouteGuard<'a> {
    shared: &'a Arc<ClusterState>,
    begun: Instant,
    over: bool,
}

impl Drop for AbandonedRouteGuard<'_> {
    fn drop(&mut self) {
        if !self.over && self.begun.elapsed() >= MIN_SUSPICIOUS_AGE {
            self.shared.refresh_soon();
        }
    }
}

impl ClusterState {
    async fn route(
        self: &Arc<Self>,
        lane: Lane<'_>,
        slot: usize,
        commands: &[Cmd],
    ) -> Result<Vec<Value>, CommandError> {
        let round = self.round();
        let mut node = match self.map().owner(slot) {
            Some(node) => node.clone(),
            None => {
                self.refresh(round).await;
                let map = self.map();
                map.owner(slot).ok_or_else(|| uncovered(slot))?.clone()
            }
        };
        let mut asking = false;
        for hop in 0.. {
            let round = self.round();
            let sent = match asking {
                true => ask(&node, lane, commands).await,
                false => node.send(lane, commands).await,
            };
            match sent {
                // No connection: another node might have taken over.
                Err(CommandError::Unsent(reason)) if hop < MAX_REDIRECTIONS => {
                    self.refresh(round).await;
                    match self.map().owner(slot) {
                        Some(other) if !Arc::ptr_eq(other, &node) => node = other.clone(),
                        _ => return Err(CommandError::Unsent(reason)),
                    }
                    asking = false;
                }
                Err(failure) => return Err(failure),
                Ok(replies) => match Redirection::in_replies(&replies, &node.connection.host()) {
                    Some(Redirection::Moved(host, port)) if hop < MAX_REDIRECTIONS => {
                        let Some(other) = self.moved(slot, &host, port, round).await? else {
                            return Ok(replies);
                        };
                        node = other;
                        asking = false;
                    }
                    Some(Redirection::Ask(host, port)) if hop < MAX_REDIRECTIONS => {
                        node = self.importing_node(&host, port)?;
                        asking = true;
                    }
                    _ => return Ok(replies),
                },
            }
        }
        unreachable!("the last hop returns")
    }

    /// Handles `MOVED`: changes one slot, and refreshes the whole map. A node that is on no
    /// map is used only after a new map names it: one redirection is not enough.
    async fn moved(
        self: &Arc<Self>,
        slot: usize,
        host: &str,
        port: u16,
        round: u64,
    ) -> Result<Option<Arc<Node>>, CommandError> {
        let address = self.map().server_at(host, port)?.address();
        if let Some(known) = self.map().node(&address) {
            self.map
                .send_modify(|map| *map = Arc::new(map.with(slot, &address)));
            self.refresh_soon();
            return Ok(Some(known.clone()));
        }
        self.refresh(round).await;
        Ok(self.map().node(&address).cloned())
    }

    /// Handles `ASK`: the node has the key but not yet its slot, so that it might be on no
    /// map.
    fn importing_node(&self, host: &str, port: u16) -> Result<Arc<Node>, CommandError> {
        let map = self.map();
        let server = map.server_at(host, port)?;
        let address = server.address();
        let mut importing = lock(&self.importing);
        importing.retain(|address, _| map.node(address).is_none());
        if let Some(known) = map.node(&address).or_else(|| importing.get(&address)) {
            return Ok(known.clone());
        }
        if importing.len() >= MAX_IMPORTING_NODES {
            let reason = format!(
                "more than {MAX_IMPORTING_NODES} nodes are missing from the map of the cluster"
            );
            return Err(CommandError::Unsent(reason));
        }
        let node = Arc::new(Node::in_cluster(&server, None));
        importing.insert(address, node.clone());
        Ok(node)
    }
}

/// Sends each command after `ASKING` to a node that imports the slot.
async fn ask(node: &Node, lane: Lane<'_>, commands: &[Cmd]) -> Result<Vec<Value>, CommandError> {
    let asked: Vec<_> = commands
        .iter()
        .flat_map(|command| [cmd("ASKING"), command.clone()])
        .collect();
    let replies = node.send(lane, &asked).await?;
    Ok(replies.into_iter().skip(1).step_by(2).collect())
}
