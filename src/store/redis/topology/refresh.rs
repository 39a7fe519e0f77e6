//! Keeps the slot map of a cluster up to date: after an error and every 10 s. It never
//! adopts the map of another cluster, whatever its epoch.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, interval_at, sleep_until};

use super::cluster_state::{ClusterState, lock, uncovered};
use super::quorum::collect_answers;
use super::snapshot::{self, TopologySnapshot, fetch_snapshot};
use crate::store::redis::connection::command_error::CommandError;
use crate::store::redis::connection::shared::SharedConnection;

/// How many of the known servers to ask for the map at once.
const MAX_ASKED: usize = 8;

/// How long to wait for the others once one has returned its map.
const GRACE: Duration = Duration::from_millis(200);

/// The same at `connect`, where only the answers identify the cluster.
const FIRST_GRACE: Duration = Duration::from_secs(1);

/// The least time between two refreshes.
const MIN_REFRESH_INTERVAL: Duration = Duration::from_millis(100);

/// How often to refresh without an error: a client that sees each change of a cluster
/// recognises it after any number of changes.
const REFRESH_INTERVAL: Duration = Duration::from_secs(10);

/// Why a refresh found no map.
enum RefreshError {
    Failed(CommandError),
    /// The maps are of another cluster.
    Foreign(String),
}

impl ClusterState {
    /// Refreshes the map in a separate task, unless one is running.
    pub(crate) fn refresh_soon(self: &Arc<Self>) {
        self.start_periodic_refresh();
        let mut task = lock(&self.refresh_task);
        if task.as_ref().is_none_or(|task| task.0.is_finished()) {
            let shared = Arc::downgrade(self);
            let round = self.round();
            *task = self.runtime.spawn(async move {
                if let Some(shared) = shared.upgrade() {
                    shared.refresh_after(round).await;
                }
            });
        }
    }

    pub(crate) fn start_periodic_refresh(self: &Arc<Self>) {
        let mut task = lock(&self.review_task);
        // A finished task means that its runtime has ended.
        if task.as_ref().is_none_or(|task| task.0.is_finished()) {
            *task = self
                .runtime
                .spawn(refresh_periodically(Arc::downgrade(self)));
        }
    }

    /// Refreshes the map, unless that was done since `round`. It runs on the store's
    /// runtime: a caller that stops in the middle would block all others.
    pub(crate) async fn refresh(self: &Arc<Self>, round: u64) {
        let (done, asked) = oneshot::channel::<()>();
        let shared = self.clone();
        let task = self.runtime.spawn(async move {
            shared.refresh_after(round).await;
            drop(done);
        });
        let _ = asked.await;
        drop(task);
    }

    async fn refresh_after(&self, round: u64) {
        let mut last = self.last_round.lock().await;
        if self.round() != round {
            return;
        }
        if let Some(last) = *last {
            sleep_until(last + MIN_REFRESH_INTERVAL).await;
        }
        *last = Some(Instant::now());
        let asked = self.ask().await;
        self.is_current.store(asked.is_ok(), Ordering::Release);
        self.rounds.fetch_add(1, Ordering::AcqRel);
        drop(last);
        let foreign = match &asked {
            Err(RefreshError::Foreign(reason)) => reason.clone(),
            _ => String::new(),
        };
        let news = std::mem::replace(&mut *lock(&self.last_refused), foreign.clone()) != foreign;
        // Log subscribers are foreign code: they run last, with no lock held.
        match asked {
            Err(RefreshError::Failed(failure)) => {
                tracing::debug!(?failure, "no redis server returns the map of the cluster");
            }
            Err(RefreshError::Foreign(reason)) if news => tracing::error!(
                reason,
                "refused the map of another redis cluster; to use that cluster, connect to it"
            ),
            Err(RefreshError::Foreign(_)) | Ok(()) => {}
        }
    }

    /// Asks the seeds, and adopts the map that most of them agree on.
    pub(crate) async fn load_first_map(&self) -> Result<(), CommandError> {
        let snapshots = self.seed_snapshots(FIRST_GRACE).await?;
        let Some(first) = snapshot::majority(&snapshots) else {
            let reason = "the urls are of different clusters, and no cluster has most of them";
            return Err(CommandError::Unsent(reason.into()));
        };
        self.adopt(&snapshots[first])
    }

    /// Asks some servers, and adopts the latest map of this cluster.
    async fn ask(&self) -> Result<(), RefreshError> {
        let map = self.map();
        let mut snapshots = snapshots(&map.refresh_candidates(MAX_ASKED), GRACE)
            .await
            .unwrap_or_default();
        let old = map.ids();
        if let Some(latest) = snapshot::latest_continuing(&snapshots, &old) {
            return self.adopt(&snapshots[latest]).map_err(RefreshError::Failed);
        }
        if snapshots.is_empty() {
            snapshots = self
                .seed_snapshots(GRACE)
                .await
                .map_err(RefreshError::Failed)?;
            if let Some(latest) = snapshot::latest_continuing(&snapshots, &old) {
                return self.adopt(&snapshots[latest]).map_err(RefreshError::Failed);
            }
        }
        let Some(newest) = snapshot::latest_of_all(&snapshots) else {
            return Err(RefreshError::Failed(uncovered(0)));
        };
        // Each of the old servers.
        let all = map.refresh_candidates(usize::MAX);
        let links = collect_answers(all.iter().map(fetch_snapshot), all.len(), GRACE).await;
        let by: Vec<_> = links.into_iter().flatten().flatten().collect();
        let newest = &snapshots[newest];
        if snapshot::is_confirmed(newest, &by, &old) {
            return self.adopt(newest).map_err(RefreshError::Failed);
        }
        Err(RefreshError::Foreign(format!(
            "the map of {} lacks most of the known servers, and most of those do not confirm it",
            newest.address
        )))
    }

    /// The maps of the seeds. The store seldom asks them, so it keeps no connection.
    async fn seed_snapshots(&self, grace: Duration) -> Result<Vec<TopologySnapshot>, CommandError> {
        let snapshots = snapshots(&self.seeds, grace).await;
        self.seeds.iter().for_each(SharedConnection::invalidate);
        snapshots
    }

    fn adopt(&self, snapshot: &TopologySnapshot) -> Result<(), CommandError> {
        let mut adopted = Ok(());
        self.map
            .send_if_modified(|map| match map.rebuilt(&snapshot.ranges) {
                Ok(new) => {
                    // A change of replicas only: no waiter needs it.
                    let moved = !new.has_same_owners(map);
                    *map = Arc::new(new);
                    moved
                }
                Err(failure) => {
                    adopted = Err(failure);
                    false
                }
            });
        adopted
    }
}

/// The maps of these servers.
async fn snapshots(
    links: &[SharedConnection],
    grace: Duration,
) -> Result<Vec<TopologySnapshot>, CommandError> {
    let mut why = CommandError::Unsent("no server of the cluster is known".into());
    let mut snapshots = Vec::new();
    for answer in collect_answers(links.iter().map(fetch_snapshot), 1, grace).await {
        match answer {
            Some(Ok(snapshot)) => snapshots.push(snapshot),
            Some(Err(failure)) => why = failure,
            None => {}
        }
    }
    match snapshots.is_empty() {
        true => Err(why),
        false => Ok(snapshots),
    }
}

/// Refreshes the map every [`REFRESH_INTERVAL`], for as long as the store lives.
async fn refresh_periodically(shared: Weak<ClusterState>) {
    let mut due = interval_at(Instant::now() + REFRESH_INTERVAL, REFRESH_INTERVAL);
    loop {
        due.tick().await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        shared.refresh_after(shared.round()).await;
    }
}
