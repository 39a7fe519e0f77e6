//! What a store knows of its servers beyond the records: their durability, and whether
//! they have lost records. It asks at each new connection and once a minute; only a store
//! with `WhenEmptied::Refuse` refuses commands because of it.

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

/// How often to ask the servers without a new connection.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// The least time between two rounds.
const MIN_CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// How long to wait for the other shards once one has answered. Less than
/// `MIN_SUSPICIOUS_AGE`.
const GRACE: Duration = Duration::from_millis(50);

/// The age from which a refusal is checked again: an operator might have lifted it.
const RECHECK_REFUSAL_AFTER: Duration = Duration::from_secs(1);

/// A connection: address and generation.
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

/// The last report of a server; generation 0 before the first one.
#[derive(Default)]
struct ServerStatus {
    generation: u64,
    durability: Durability,
}

/// The shards of a namespace.
#[derive(Default)]
struct NamespaceShards {
    least_writer: u32,
    /// How often a shard has lost its records.
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

    /// The worst durability of the primaries, as of their last reports.
    pub(super) fn durability(&self) -> Durability {
        let known = lock(&self.known);
        let all = known.servers.values().map(|asked| asked.durability.clone());
        all.reduce(Durability::and).unwrap_or_default()
    }

    /// How often a shard with records of a namespace has lost them.
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

    /// Whether [`check_may_acquire`](Self::check_may_acquire) must run before this event.
    pub(super) fn must_check_before(&self, event: &Event) -> bool {
        let takes = matches!(event, Event::Acquire { .. } | Event::TakeOver { .. });
        takes && self.refuses()
    }

    /// The highest of the shards' minimum writer versions, of those that answer within
    /// [`GRACE`] of the first.
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

    /// Checks that a key may be acquired: reads the marker of its shard, once on each
    /// connection.
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

    /// Marks the loss of a namespace's records as accepted, and returns in how many
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
            // Replies can arrive in another order than the commands were sent.
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
        // Foreign code (log subscribers, recorders) runs with no lock held.
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
                    "no keys are acquired until an operator accepts the loss: RedisStore::accept_emptied"
                );
            });
        }
        if was == Some(MarkerState::Emptied) && state == MarkerState::Accepted {
            contained(|| {
                tracing::info!(%namespace, marker = key, "an operator has accepted the loss");
            });
        }
    }

    /// Asks all servers, or only those with a connection on which they were not asked.
    pub(super) async fn check_servers(&self, all: bool) {
        let primaries = self.routes.primaries();
        {
            let mut known = lock(&self.known);
            let is_there = |address: &str| primaries.iter().any(|(there, _)| there == address);
            known.servers.retain(|address, _| is_there(address));
            // A server that does not answer has an unknown durability.
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
            // The next round asks a server again that does not answer.
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
        // Without an answer the last report stays.
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

/// The current connection, made first where there is none.
async fn connection_id(connection: &SharedConnection) -> Result<ConnectionId, StoreError> {
    Ok((connection.address(), connection.generation().await?))
}

impl ServerMonitor {
    /// Starts the task that asks the servers, for as long as the store lives.
    pub(super) fn start(self: &Arc<Self>) {
        let mut task = lock(&self.task);
        // A finished task means that its runtime has ended.
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
