//! A cluster: the way to the server that has a key, and what to do when another
//! one has it by now. It sends a command again only where the server said that
//! it had not run it, or where there was no connection to send it on. It follows
//! no map of another cluster, whatever its epoch.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use redis::{Cmd, Value, cmd};
use tokio::sync::watch;
use tokio::time::{Instant, interval_at, sleep_until, timeout};

use super::chart::{self, Chart, chart};
use super::failure::Failure;
use super::gather::gather;
use super::link::{AbortOnDrop, DEADLINE, Link, SUSPICIOUS};
use super::map::Map;
use super::node::Node;
use super::place::Place;
use super::server::Server;
use super::slots::{Redirection, slot};

/// Other servers that one command may be sent on to.
const HOPS: usize = 3;

/// Servers that are asked for the map at once, of those that are known.
const ASKED: usize = 8;

/// How long the others are waited for once one has given its map.
const GRACE: Duration = Duration::from_millis(200);

/// The same at `connect`, where the answers are all that is known.
const FIRST_GRACE: Duration = Duration::from_secs(1);

/// How often the map is asked for without a reason: a client that sees each
/// change of a cluster knows it again after any number of them.
const REVIEW: Duration = Duration::from_secs(10);

/// Servers that are about to get their first slots, and are on no map yet.
const GUESTS: usize = 16;

/// Between two rounds of asking for the map.
const PAUSE: Duration = Duration::from_millis(100);

/// A cluster; a clone is the same one.
#[derive(Clone)]
pub(super) struct Cluster {
    shared: Arc<Shared>,
}

struct Shared {
    map: watch::Sender<Arc<Map>>,
    /// Asked where no server of the map answers, whoever is in the cluster by now.
    seeds: Vec<Link>,
    guests: Mutex<HashMap<String, Arc<Node>>>,
    /// Rounds of asking that have ended.
    rounds: AtomicU64,
    /// Whether a server gave the map in the last one.
    is_current: AtomicBool,
    /// When the last one began.
    asking: tokio::sync::Mutex<Option<Instant>>,
    background: Mutex<Option<AbortOnDrop>>,
    review: Mutex<Option<AbortOnDrop>>,
    /// The map that was refused last.
    refused: Mutex<String>,
}

/// Why there is no new map.
enum NoMap {
    Failed(Failure),
    /// There are maps, of another cluster as far as can be told.
    Foreign(String),
}

impl Cluster {
    /// Asks the seeds for the map.
    ///
    /// # Errors
    ///
    /// Where none of them gives one.
    pub(super) async fn connect(seeds: &[Server]) -> Result<Self, Failure> {
        let unknown = || Failure::Unsent("no server of the cluster is known".into());
        let map = Map::blank(seeds.first().ok_or_else(unknown)?);
        let link = |seed: &Server| Link::new(Place::Server(seed.clone()), Arc::default());
        let shared = Arc::new(Shared {
            map: watch::Sender::new(Arc::new(map)),
            seeds: seeds.iter().map(link).collect(),
            guests: Mutex::default(),
            rounds: AtomicU64::new(0),
            is_current: AtomicBool::new(true),
            asking: tokio::sync::Mutex::new(None),
            background: Mutex::new(None),
            review: Mutex::new(None),
            refused: Mutex::default(),
        });
        shared.ask_first().await?;
        let review = tokio::spawn(review(Arc::downgrade(&shared)));
        *lock(&shared.review) = Some(AbortOnDrop(review));
        Ok(Self { shared })
    }

    /// The links to all primaries, by address.
    pub(super) fn primaries(&self) -> Vec<(String, Link)> {
        self.shared.map().primaries()
    }

    /// The shard that has a key, by number.
    pub(super) fn part(&self, key: &str) -> u64 {
        self.shared.map().part(slot(key))
    }

    /// The server that has a key, with a connection to it.
    pub(super) async fn server(&self, key: &str) -> Result<Server, Failure> {
        match self.shared.map().owner(slot(key)) {
            Some(node) => node.link.server().await,
            None => Err(uncovered(slot(key))),
        }
    }

    /// Whether every slot has a server.
    pub(super) fn is_whole(&self) -> bool {
        self.shared.map().is_whole()
    }

    /// Asks for the map anew, and says whether a server gave one.
    pub(super) async fn refresh(&self) -> bool {
        self.shared.refresh(self.shared.round()).await;
        self.shared.is_current.load(Ordering::Acquire)
    }

    /// Completes when something may have changed on that channel since the
    /// future was first polled: a notice, or another server to listen to.
    pub(super) async fn changed(&self, channel: String) {
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
    pub(super) async fn send(&self, key: &str, commands: &[Cmd]) -> Result<Vec<Value>, Failure> {
        let mut patience = Patience {
            shared: &self.shared,
            begun: Instant::now(),
            over: false,
        };
        let sent = timeout(DEADLINE, self.shared.route(slot(key), commands)).await;
        patience.over = true;
        let sent = sent.unwrap_or_else(|_| {
            let seconds = DEADLINE.as_secs();
            Err(Failure::Lost(format!(
                "the cluster did not answer within {seconds} s"
            )))
        });
        let stale = match &sent {
            Err(_) => true,
            Ok(replies) => replies.iter().any(|reply| {
                let failure = Failure::in_reply(reply);
                failure.is_some_and(|failure| failure.doubts_the_server())
            }),
        };
        if stale {
            // The next command, this one once more perhaps, finds a new map.
            self.shared.refresh_soon();
        }
        sent
    }
}

/// Watches over one command for the case that its caller drops it: callers may
/// be less patient than [`DEADLINE`], and a server that hangs must be given up
/// all the same.
struct Patience<'a> {
    shared: &'a Arc<Shared>,
    begun: Instant,
    over: bool,
}

impl Drop for Patience<'_> {
    fn drop(&mut self) {
        if !self.over && self.begun.elapsed() >= SUSPICIOUS {
            self.shared.refresh_soon();
        }
    }
}

impl Shared {
    fn map(&self) -> Arc<Map> {
        self.map.borrow().clone()
    }

    fn round(&self) -> u64 {
        self.rounds.load(Ordering::Acquire)
    }

    async fn route(self: &Arc<Self>, slot: usize, commands: &[Cmd]) -> Result<Vec<Value>, Failure> {
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
                true => ask(&node.link, commands).await,
                false => node.link.send(commands).await,
            };
            match sent {
                // Nobody there: who has taken over?
                Err(Failure::Unsent(reason)) if hop < HOPS => {
                    self.refresh(round).await;
                    match self.map().owner(slot) {
                        Some(other) if !Arc::ptr_eq(other, &node) => node = other.clone(),
                        _ => return Err(Failure::Unsent(reason)),
                    }
                    asking = false;
                }
                Err(failure) => return Err(failure),
                Ok(replies) => match Redirection::in_replies(&replies, &node.link.host()) {
                    Some(Redirection::Moved(host, port)) if hop < HOPS => {
                        let Some(other) = self.moved(slot, &host, port, round).await? else {
                            return Ok(replies);
                        };
                        node = other;
                        asking = false;
                    }
                    Some(Redirection::Ask(host, port)) if hop < HOPS => {
                        node = self.guest(&host, port)?;
                        asking = true;
                    }
                    _ => return Ok(replies),
                },
            }
        }
        unreachable!("the last hop returns")
    }

    /// One slot is elsewhere; the whole map follows. A server that is on no map
    /// yet is followed by a new map only, never by the word of one server.
    async fn moved(
        self: &Arc<Self>,
        slot: usize,
        host: &str,
        port: u16,
        round: u64,
    ) -> Result<Option<Arc<Node>>, Failure> {
        let address = self.map().named(host, port)?.address();
        if let Some(known) = self.map().node(&address) {
            self.map
                .send_modify(|map| *map = Arc::new(map.with(slot, &address)));
            self.refresh_soon();
            return Ok(Some(known.clone()));
        }
        self.refresh(round).await;
        Ok(self.map().node(&address).cloned())
    }

    /// A server that has a key already and its slot not yet, so that it may be on
    /// no map.
    fn guest(&self, host: &str, port: u16) -> Result<Arc<Node>, Failure> {
        let map = self.map();
        let server = map.named(host, port)?;
        let address = server.address();
        let mut guests = lock(&self.guests);
        guests.retain(|address, _| map.node(address).is_none());
        if let Some(known) = map.node(&address).or_else(|| guests.get(&address)) {
            return Ok(known.clone());
        }
        if guests.len() >= GUESTS {
            let reason = format!("more than {GUESTS} servers are on no map of the cluster");
            return Err(Failure::Unsent(reason));
        }
        let node = Arc::new(Node::in_cluster(&server, None));
        guests.insert(address, node.clone());
        Ok(node)
    }

    /// Asks for the map in a task of its own, unless that is under way.
    fn refresh_soon(self: &Arc<Self>) {
        // A caller may be dropped with its runtime.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let mut task = lock(&self.background);
        if task.as_ref().is_none_or(|task| task.0.is_finished()) {
            let shared = Arc::downgrade(self);
            let round = self.round();
            *task = Some(AbortOnDrop(runtime.spawn(async move {
                if let Some(shared) = shared.upgrade() {
                    shared.refresh(round).await;
                }
            })));
        }
    }

    /// Asks for the map, unless that was done since `round`.
    async fn refresh(&self, round: u64) {
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
    async fn ask_first(&self) -> Result<(), Failure> {
        let charts = self.charts_of_seeds(FIRST_GRACE).await?;
        let Some(first) = chart::first(&charts) else {
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
        if let Some(latest) = chart::latest(&charts, &old) {
            return self.take(&charts[latest]).map_err(NoMap::Failed);
        }
        if charts.is_empty() {
            charts = self.charts_of_seeds(GRACE).await.map_err(NoMap::Failed)?;
            if let Some(latest) = chart::latest(&charts, &old) {
                return self.take(&charts[latest]).map_err(NoMap::Failed);
            }
        }
        let Some(newest) = chart::newest(&charts) else {
            return Err(NoMap::Failed(uncovered(0)));
        };
        // All of the old servers, and each for itself.
        let all = map.ask(usize::MAX);
        let links = gather(all.iter().map(chart), all.len(), GRACE).await;
        let by: Vec<_> = links.into_iter().flatten().flatten().collect();
        let newest = &charts[newest];
        if chart::is_confirmed(newest, &by, &old) {
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
        shared.refresh(shared.round()).await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change under these locks is one assignment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// To a server that is about to get the slot: each command after `ASKING`.
async fn ask(link: &Link, commands: &[Cmd]) -> Result<Vec<Value>, Failure> {
    let asked: Vec<_> = commands
        .iter()
        .flat_map(|command| [cmd("ASKING"), command.clone()])
        .collect();
    let replies = link.send(&asked).await?;
    Ok(replies.into_iter().skip(1).step_by(2).collect())
}

fn uncovered(slot: usize) -> Failure {
    Failure::Unsent(format!("no server of the cluster has slot {slot}"))
}
