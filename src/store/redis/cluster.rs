//! A cluster: the way to the server that has a key, and what to do when another
//! one has it by now. It sends a command again only where the server said that
//! it had not run it, or where there was no connection to send it on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::{Cmd, Value, cmd};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::failure::Failure;
use super::gather::gather;
use super::link::{AbortOnDrop, DEADLINE, Link, SUSPICIOUS};
use super::map::{Chart, Map, chart};
use super::node::Node;
use super::server::Server;
use super::slots::{Redirection, slot};

/// Other servers that one command may be sent on to.
const HOPS: usize = 3;

/// Servers that are asked for the map at once, of those that are known.
const ASKED: usize = 8;

/// How long the others are waited for once one has given its map.
const GRACE: Duration = Duration::from_millis(200);

/// Between two rounds of asking for the map.
const PAUSE: Duration = Duration::from_millis(100);

/// A cluster; a clone is the same one.
#[derive(Clone)]
pub(super) struct Cluster {
    shared: Arc<Shared>,
}

struct Shared {
    map: watch::Sender<Arc<Map>>,
    /// Rounds of asking that have ended.
    rounds: AtomicU64,
    /// When the last one began.
    asking: tokio::sync::Mutex<Option<Instant>>,
    background: Mutex<Option<AbortOnDrop>>,
}

impl Cluster {
    /// Asks the seeds for the map.
    ///
    /// # Errors
    ///
    /// Where none of them gives one.
    pub(super) async fn connect(seeds: &[Server]) -> Result<Self, Failure> {
        let unknown = || Failure::Unsent("no server of the cluster is known".into());
        let map = Map::blank(seeds).ok_or_else(unknown)?;
        let cluster = Self {
            shared: Arc::new(Shared {
                map: watch::Sender::new(Arc::new(map)),
                rounds: AtomicU64::new(0),
                asking: tokio::sync::Mutex::new(None),
                background: Mutex::new(None),
            }),
        };
        cluster.shared.ask().await?;
        Ok(cluster)
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

    /// Asks for the map anew: the one at hand was wrong.
    pub(super) async fn refresh(&self) {
        self.shared.refresh(self.shared.round()).await;
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
                        node = self.learn(slot, &host, port)?;
                        asking = false;
                        self.refresh_soon();
                    }
                    Some(Redirection::Ask(host, port)) if hop < HOPS => {
                        node = self.map().node(&host, port)?.1;
                        asking = true;
                    }
                    _ => return Ok(replies),
                },
            }
        }
        unreachable!("the last hop returns")
    }

    /// One slot is elsewhere; the whole map follows.
    fn learn(&self, slot: usize, host: &str, port: u16) -> Result<Arc<Node>, Failure> {
        let mut learnt = Err(uncovered(slot));
        self.map.send_modify(|map| {
            learnt = map.with(slot, host, port).map(|new| *map = Arc::new(new));
        });
        learnt?;
        let map = self.map();
        map.owner(slot).cloned().ok_or_else(|| uncovered(slot))
    }

    /// Asks for the map in a task of its own, unless that is under way.
    fn refresh_soon(self: &Arc<Self>) {
        // A caller may be dropped with its runtime.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let mut task = self
            .background
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
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
        self.rounds.fetch_add(1, Ordering::AcqRel);
        drop(last);
        // A subscriber is foreign: it is told last, with no lock held.
        if let Err(failure) = asked {
            tracing::debug!(?failure, "no redis server gives the map of the cluster");
        }
    }

    /// Asks some servers for the map and takes the one of the latest epoch.
    async fn ask(&self) -> Result<(), Failure> {
        let asked = self.map().ask(ASKED);
        let answers = gather(asked.iter().map(chart), GRACE).await;
        let mut newest: Option<Chart> = None;
        let mut why = Failure::Unsent("no server of the cluster is known".into());
        for answer in answers.into_iter().flatten() {
            match answer {
                Ok(chart) if newest.as_ref().is_none_or(|best| best.rank < chart.rank) => {
                    newest = Some(chart);
                }
                Ok(_) => {}
                Err(failure) => why = failure,
            }
        }
        let newest = newest.ok_or(why)?;
        let mut taken = Ok(());
        self.map
            .send_if_modified(|map| match map.redrawn(&newest.ranges) {
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
