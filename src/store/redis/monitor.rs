//! What a store knows of its servers beyond the records: how lasting they are, and
//! whether they still hold what they held. It asks at each new connection and once a
//! minute, and reports; only a store that refuses emptied servers refuses by it.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep, sleep_until};

use super::connection::runtime::AbortOnDrop;
use super::connection::shared::SharedConnection;
use super::durability::Durability;
use super::emptied::WhenEmptied;
use super::protocol::shard_marker::{self, Marker, MarkerState, MarkerUpdate};
use super::server_mode;
use super::topology::cluster_state::lock;
use super::topology::quorum::collect_answers;
use super::topology::routes::Routes;
use crate::error::{Error, RefusalKind, StoreError};
use crate::key::{Namespace, RecordName};
use crate::record::Event;
use crate::telemetry::{self, contained};

/// How often the servers are asked without a new connection.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// Between two rounds, whatever happens.
const MIN_CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// How long the other shards are waited for once one has answered. Less than what
/// makes a silent connection suspicious.
const GRACE: Duration = Duration::from_millis(50);

/// After so long a refusal is made sure of: an operator may have lifted it.
const RECHECK_REFUSAL_AFTER: Duration = Duration::from_secs(1);

/// The connection that a server was asked on.
type ConnectionId = (String, u64);

pub(super) struct ServerMonitor {
    pub(super) routes: Routes,
    refuses: AtomicBool,
    known: Mutex<MonitorState>,
    task: Mutex<Option<AbortOnDrop>>,
}

#[derive(Default)]
struct MonitorState {
    /// By address.
    servers: HashMap<String, ServerStatus>,
    namespaces: HashMap<Namespace, NamespaceShards>,
}

/// What a server has said; nothing yet, on no connection.
#[derive(Default)]
struct ServerStatus {
    generation: u64,
    durability: Durability,
}

/// The shards of a namespace.
#[derive(Default)]
struct NamespaceShards {
    least_writer: u32,
    /// How often one of them was found emptied.
    emptied: u64,
    /// By the names of their markers.
    seen: HashMap<String, SeenMarker>,
}

struct SeenMarker {
    marker: Marker,
    at: Instant,
    connection_id: ConnectionId,
}

impl ServerMonitor {
    pub(super) fn new(routes: Routes) -> Self {
        Self {
            routes,
            refuses: AtomicBool::new(false),
            known: Mutex::default(),
            task: Mutex::default(),
        }
    }

    /// How lasting the servers are, as they said last; of a cluster, the worst of its
    /// primaries.
    pub(super) fn durability(&self) -> Durability {
        let known = lock(&self.known);
        let all = known.servers.values().map(|asked| asked.durability.clone());
        all.reduce(Durability::and).unwrap_or_default()
    }

    /// How often a shard was found emptied that has records of a namespace.
    pub(super) fn emptied(&self, namespace: &Namespace) -> u64 {
        let known = lock(&self.known);
        known.namespaces.get(namespace).map_or(0, |all| all.emptied)
    }

    pub(super) fn set_when_emptied(&self, when: WhenEmptied) {
        let refuses = when == WhenEmptied::Refuse;
        self.refuses.store(refuses, Ordering::Release);
    }

    fn refuses(&self) -> bool {
        self.refuses.load(Ordering::Acquire)
    }

    /// Whether this event takes a key that [may not be taken](Self::may_take).
    pub(super) fn must_check_before(&self, event: &Event) -> bool {
        let takes = matches!(event, Event::Acquire { .. } | Event::TakeOver { .. });
        takes && self.refuses()
    }

    /// The least version of a namespace's writers, of all shards that answer at once.
    pub(super) async fn least_writer(
        &self,
        namespace: &Namespace,
        at_least: u32,
    ) -> Result<u32, StoreError> {
        {
            let mut known = lock(&self.known);
            let shards = known.namespaces.entry(namespace.clone()).or_default();
            shards.least_writer = at_least.max(shards.least_writer);
        }
        let keys = shard_marker::keys(&self.routes, namespace);
        let looks = keys.iter().map(|key| self.look(namespace, key));
        let mut failure = StoreError::unavailable("no server of the store is known");
        let mut min_version = None;
        for look in collect_answers(looks, 1, GRACE).await.into_iter().flatten() {
            match look {
                Ok(marker) => min_version = min_version.max(Some(marker.min_version)),
                Err(error) => failure = error,
            }
        }
        min_version.ok_or(failure)
    }

    /// Makes sure that a key may be taken: by a look at the marker of its shard, once
    /// on each connection.
    pub(super) async fn check_may_acquire(&self, name: &RecordName) -> Result<(), StoreError> {
        let record = name.to_string();
        let connection_id = connection_id(&self.routes.connection(&record)?).await?;
        let part = self.routes.shard(&record);
        let keys = shard_marker::keys(&self.routes, &name.namespace);
        let Some(key) = keys.into_iter().find(|key| self.routes.shard(key) == part) else {
            return Ok(());
        };
        let state = {
            let known = lock(&self.known);
            let shards = known.namespaces.get(&name.namespace);
            let seen = shards.and_then(|shards| shards.seen.get(&key));
            let fresh = seen.filter(|seen| {
                let is_refused = seen.marker.state == MarkerState::Emptied;
                seen.connection_id == connection_id
                    && !(is_refused && seen.at.elapsed() > RECHECK_REFUSAL_AFTER)
            });
            fresh.map(|seen| seen.marker.state)
        };
        let state = match state {
            Some(state) => state,
            None => self.look(&name.namespace, &key).await?.state,
        };
        match state {
            MarkerState::Emptied => Err(StoreError::refused_as(
                RefusalKind::NotAllowed,
                "the server has lost its records, and no operator has accepted that",
            )),
            MarkerState::New | MarkerState::Accepted => Ok(()),
        }
    }

    /// Marks the loss of a namespace's records as accepted, and says in how many
    /// shards it was refused.
    pub(super) async fn accept(&self, namespace: &Namespace) -> Result<usize, StoreError> {
        let mut refused = 0;
        for key in shard_marker::keys(&self.routes, namespace) {
            let before = shard_marker::update(&self.routes, &key, 0, MarkerUpdate::Accept).await?;
            refused += usize::from(before.state == MarkerState::Emptied);
            self.look(namespace, &key).await?;
        }
        Ok(refused)
    }

    async fn look(&self, namespace: &Namespace, key: &str) -> Result<Marker, StoreError> {
        let connection_id = connection_id(&self.routes.connection(key)?).await?;
        let at = Instant::now();
        let (min_version, before) = {
            let known = lock(&self.known);
            let shards = known.namespaces.get(namespace);
            let seen = shards.and_then(|shards| shards.seen.get(key));
            let min_version = shards.map_or(0, |shards| shards.least_writer);
            (min_version, seen.map(|seen| seen.marker.id.clone()))
        };
        let look = match &before {
            Some(id) if self.refuses() => MarkerUpdate::Refuse(id),
            _ => MarkerUpdate::Read,
        };
        let marker = shard_marker::update(&self.routes, key, min_version, look).await?;
        let seen = SeenMarker {
            marker: marker.clone(),
            at,
            connection_id,
        };
        self.record_marker(namespace, key, seen);
        Ok(marker)
    }

    fn record_marker(&self, namespace: &Namespace, key: &str, seen: SeenMarker) {
        let (state, id) = (seen.marker.state, seen.marker.id.clone());
        let before = {
            let mut known = lock(&self.known);
            let shards = known.namespaces.entry(namespace.clone()).or_default();
            // Looks may come back in another order than they were sent.
            if shards.seen.get(key).is_some_and(|last| last.at > seen.at) {
                return;
            }
            let before = shards.seen.insert(key.to_owned(), seen);
            let before = before.map(|seen| (seen.marker.id, seen.marker.state));
            if before.as_ref().is_some_and(|before| before.0 != id) {
                shards.emptied += 1;
            }
            before
        };
        // Subscribers and recorders are foreign: told with no lock held.
        if before.as_ref().is_some_and(|before| before.0 != id) {
            telemetry::store_emptied(namespace);
            contained(|| {
                tracing::warn!(
                    %namespace,
                    marker = key,
                    "redis has lost its records: flushed, restarted without them, or another server or database"
                );
            });
        }
        let was = before.map(|before| before.1);
        let refuses = self.refuses() && state == MarkerState::Emptied;
        if refuses && was != Some(MarkerState::Emptied) {
            contained(|| {
                tracing::error!(
                    %namespace,
                    marker = key,
                    "no keys are taken until an operator accepts the loss: RedisStore::accept_emptied"
                );
            });
        }
        if was == Some(MarkerState::Emptied) && state == MarkerState::Accepted {
            contained(|| {
                tracing::info!(%namespace, marker = key, "an operator has accepted the loss");
            });
        }
    }

    /// Asks the servers: all of them, or those only that have a connection on which
    /// they were not asked.
    pub(super) async fn check_servers(&self, all: bool) {
        let primaries = self.routes.primaries();
        {
            let mut known = lock(&self.known);
            let is_there = |address: &str| primaries.iter().any(|(there, _)| there == address);
            known.servers.retain(|address, _| is_there(address));
            // Of one that does not answer, nothing is known.
            for (address, _) in &primaries {
                known.servers.entry(address.clone()).or_default();
            }
        }
        let asked = primaries.iter().map(|(address, connection)| async move {
            let generation = match all {
                true => connection.generation().await.ok()?,
                false => connection.current_generation()?,
            };
            let asked_on = |asked: &ServerStatus| asked.generation;
            let before = lock(&self.known).servers.get(address).map_or(0, asked_on);
            if !all && before == generation {
                return None;
            }
            self.ask(address, connection, generation, before > 0).await;
            Some(address)
        });
        let asked: Vec<_> = join_all(asked).await.into_iter().flatten().collect();
        let namespaces: Vec<_> = lock(&self.known).namespaces.keys().cloned().collect();
        for namespace in &namespaces {
            let mut keys = shard_marker::keys(&self.routes, namespace);
            keys.retain(|key| {
                let connection = self.routes.connection(key);
                connection.is_ok_and(|connection| asked.contains(&&connection.address()))
            });
            // A server that does not answer is looked at again, in a minute at most.
            join_all(keys.iter().map(|key| self.look(namespace, key))).await;
        }
    }

    async fn ask(
        &self,
        address: &str,
        connection: &SharedConnection,
        generation: u64,
        again: bool,
    ) {
        if again
            && let Err(Error::InvalidConfig { reason, .. }) = server_mode::about(connection).await
        {
            contained(|| tracing::error!(server = address, %reason, "redis has changed"));
        }
        // One that does not answer is what it was.
        let Ok(durability) = Durability::ask(connection).await else {
            return;
        };
        let asked = ServerStatus {
            generation,
            durability: durability.clone(),
        };
        let before = lock(&self.known).servers.insert(address.to_owned(), asked);
        if before.is_none_or(|before| before.generation == 0 || before.durability != durability) {
            contained(|| durability.warn(address));
        }
    }
}

/// The connection at hand, made first where there is none.
async fn connection_id(connection: &SharedConnection) -> Result<ConnectionId, StoreError> {
    Ok((connection.address(), connection.generation().await?))
}

impl ServerMonitor {
    /// Watches from now on, for as long as the store lives.
    pub(super) fn start(self: &Arc<Self>) {
        let mut task = lock(&self.task);
        // Finished: the runtime that it ran on is gone.
        if task.as_ref().is_none_or(|task| task.0.is_finished()) {
            *task = self.routes.runtime().spawn(run(Arc::downgrade(self)));
        }
    }
}

async fn run(monitor: Weak<ServerMonitor>) {
    let Some(runtime) = monitor.upgrade().map(|monitor| monitor.routes.runtime()) else {
        return;
    };
    let mut due = Instant::now() + CHECK_INTERVAL;
    loop {
        tokio::select! {
            () = runtime.connected() => {}
            () = sleep_until(due) => {}
        }
        let all = due <= Instant::now();
        let Some(monitor) = monitor.upgrade() else {
            return;
        };
        monitor.check_servers(all).await;
        drop(monitor);
        if all {
            due = Instant::now() + CHECK_INTERVAL;
        }
        sleep(MIN_CHECK_INTERVAL).await;
    }
}

impl fmt::Debug for ServerMonitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerMonitor")
            .field("refuses", &self.refuses())
            .field("durability", &self.durability())
            .finish_non_exhaustive()
    }
}
