//! How a cluster's map is kept up to date: asked for where it was wrong, and from
//! time to time, and taken only where it is of the same cluster.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, interval_at, sleep_until};

use super::cluster_state::{Shared, lock, uncovered};
use super::quorum::gather;
use super::snapshot::{self, Chart, chart};
use crate::store::redis::connection::command_error::Failure;
use crate::store::redis::connection::shared::Link;

/// Servers that are asked for the map at once, of those that are known.
const ASKED: usize = 8;

/// How long the others are waited for once one has given its map.
const GRACE: Duration = Duration::from_millis(200);

/// The same at `connect`, where the answers are all that is known.
const FIRST_GRACE: Duration = Duration::from_secs(1);

/// Between two rounds of asking for the map.
const PAUSE: Duration = Duration::from_millis(100);

/// How often the map is asked for without a reason: a client that sees each
/// change of a cluster knows it again after any number of them.
const REVIEW: Duration = Duration::from_secs(10);

/// Why there is no new map.
enum NoMap {
    Failed(Failure),
    /// There are maps, of another cluster as far as can be told.
    Foreign(String),
}

impl Shared {
    /// Asks for the map in a task of its own, unless that is under way.
    pub(crate) fn refresh_soon(self: &Arc<Self>) {
        self.review_from_now_on();
        let mut task = lock(&self.background);
        if task.as_ref().is_none_or(|task| task.0.is_finished()) {
            let shared = Arc::downgrade(self);
            let round = self.round();
            *task = self.home.spawn(async move {
                if let Some(shared) = shared.upgrade() {
                    shared.ask_after(round).await;
                }
            });
        }
    }

    pub(crate) fn review_from_now_on(self: &Arc<Self>) {
        let mut task = lock(&self.review);
        // Finished: the runtime that it ran on is gone.
        if task.as_ref().is_none_or(|task| task.0.is_finished()) {
            *task = self.home.spawn(review(Arc::downgrade(self)));
        }
    }

    /// Asks for the map, unless that was done since `round`: not on the runtime of
    /// the caller, who may stop in the middle and keep all others waiting.
    pub(crate) async fn refresh(self: &Arc<Self>, round: u64) {
        let (done, asked) = oneshot::channel::<()>();
        let shared = self.clone();
        let task = self.home.spawn(async move {
            shared.ask_after(round).await;
            drop(done);
        });
        let _ = asked.await;
        drop(task);
    }

    async fn ask_after(&self, round: u64) {
        let mut last = self.asking.lock().await;
        if self.round() != round {
            return;
        }
        if let Some(last) = *last {
            sleep_until(last + PAUSE).await;
        }
        *last = Some(Instant::now());
        let asked = self.ask().await;
        self.is_current.store(asked.is_ok(), Ordering::Release);
        self.rounds.fetch_add(1, Ordering::AcqRel);
        drop(last);
        let foreign = match &asked {
            Err(NoMap::Foreign(reason)) => reason.clone(),
            _ => String::new(),
        };
        let news = std::mem::replace(&mut *lock(&self.refused), foreign.clone()) != foreign;
        // A subscriber is foreign: it is told last, with no lock held.
        match asked {
            Err(NoMap::Failed(failure)) => {
                tracing::debug!(?failure, "no redis server gives the map of the cluster");
            }
            Err(NoMap::Foreign(reason)) if news => tracing::error!(
                reason,
                "the map of another redis cluster is not followed; to use that cluster, connect to it"
            ),
            Err(NoMap::Foreign(_)) | Ok(()) => {}
        }
    }

    /// Asks the seeds, and takes the map that most of them agree on.
    pub(crate) async fn ask_first(&self) -> Result<(), Failure> {
        let charts = self.charts_of_seeds(FIRST_GRACE).await?;
        let Some(first) = snapshot::first(&charts) else {
            let reason = "the urls lead to different clusters, none of which has most of them";
            return Err(Failure::Unsent(reason.into()));
        };
        self.take(&charts[first])
    }

    /// Asks some servers for the map, and takes the latest one of this cluster.
    async fn ask(&self) -> Result<(), NoMap> {
        let map = self.map();
        let mut charts = charts(&map.ask(ASKED), GRACE).await.unwrap_or_default();
        let old = map.ids();
        if let Some(latest) = snapshot::latest(&charts, &old) {
            return self.take(&charts[latest]).map_err(NoMap::Failed);
        }
        if charts.is_empty() {
            charts = self.charts_of_seeds(GRACE).await.map_err(NoMap::Failed)?;
            if let Some(latest) = snapshot::latest(&charts, &old) {
                return self.take(&charts[latest]).map_err(NoMap::Failed);
            }
        }
        let Some(newest) = snapshot::newest(&charts) else {
            return Err(NoMap::Failed(uncovered(0)));
        };
        // All of the old servers, and each for itself.
        let all = map.ask(usize::MAX);
        let links = gather(all.iter().map(chart), all.len(), GRACE).await;
        let by: Vec<_> = links.into_iter().flatten().flatten().collect();
        let newest = &charts[newest];
        if snapshot::is_confirmed(newest, &by, &old) {
            return self.take(newest).map_err(NoMap::Failed);
        }
        Err(NoMap::Foreign(format!(
            "{} draws a map on which most of the servers known until now are missing, and most of them do not confirm it",
            newest.address
        )))
    }

    /// The maps that the seeds draw. They are seldom asked: no connection is kept.
    async fn charts_of_seeds(&self, grace: Duration) -> Result<Vec<Chart>, Failure> {
        let charts = charts(&self.seeds, grace).await;
        self.seeds.iter().for_each(Link::doubt);
        charts
    }

    fn take(&self, chart: &Chart) -> Result<(), Failure> {
        let mut taken = Ok(());
        self.map
            .send_if_modified(|map| match map.redrawn(&chart.ranges) {
                Ok(new) => {
                    // Replicas may have changed besides; nobody waits for that.
                    let moved = !new.agrees_with(map);
                    *map = Arc::new(new);
                    moved
                }
                Err(failure) => {
                    taken = Err(failure);
                    false
                }
            });
        taken
    }
}

/// The maps that these servers draw.
async fn charts(links: &[Link], grace: Duration) -> Result<Vec<Chart>, Failure> {
    let mut why = Failure::Unsent("no server of the cluster is known".into());
    let mut charts = Vec::new();
    for answer in gather(links.iter().map(chart), 1, grace).await {
        match answer {
            Some(Ok(chart)) => charts.push(chart),
            Some(Err(failure)) => why = failure,
            None => {}
        }
    }
    match charts.is_empty() {
        true => Err(why),
        false => Ok(charts),
    }
}

/// Looks at the map from time to time, for as long as the store lives.
async fn review(shared: Weak<Shared>) {
    let mut due = interval_at(Instant::now() + REVIEW, REVIEW);
    loop {
        due.tick().await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        shared.ask_after(shared.round()).await;
    }
}
