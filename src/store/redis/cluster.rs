//! A cluster: which server has which slot, a link to each of them, and what to
//! do when they change. It sends a command again only where the server said
//! that it had not run it, or where there was no connection to send it on.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::{Cmd, Value, cmd};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::failure::Failure;
use super::gather::gather;
use super::link::{AbortOnDrop, DEADLINE, Link};
use super::node::Node;
use super::server::Server;
use super::slots::{self, Range, Redirection, SLOTS, slot};

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
    /// How to log in to every node.
    login: Server,
    /// Never forgotten, whoever is in the cluster by now.
    seeds: Vec<String>,
    map: watch::Sender<Arc<Map>>,
    /// Rounds of asking that have ended.
    rounds: AtomicU64,
    /// When the last one began.
    asking: tokio::sync::Mutex<Option<Instant>>,
    background: Mutex<Option<AbortOnDrop>>,
}

/// Who has which slot.
#[derive(Clone)]
struct Map {
    /// For each slot the number of its primary below.
    owners: Vec<Option<u16>>,
    primaries: Vec<String>,
    /// Every server of the last map, replicas included, and the seeds.
    nodes: HashMap<String, Arc<Node>>,
}

impl Map {
    fn owner(&self, slot: usize) -> Option<&Arc<Node>> {
        let number = self.owners[slot]?;
        self.nodes.get(&self.primaries[usize::from(number)])
    }
}

impl Cluster {
    /// Asks the seeds for the map.
    ///
    /// # Errors
    ///
    /// Where none of them gives one.
    pub(super) async fn connect(seeds: &[Server]) -> Result<Self, Failure> {
        let nodes = seeds
            .iter()
            .map(|seed| (seed.address(), Arc::new(Node::in_cluster(seed))))
            .collect();
        let map = Map {
            owners: vec![None; SLOTS],
            primaries: Vec::new(),
            nodes,
        };
        let cluster = Self {
            shared: Arc::new(Shared {
                login: seeds[0].clone(),
                seeds: seeds.iter().map(Server::address).collect(),
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
        let map = self.shared.map();
        let link = |address: &String| {
            let node = map.nodes.get(address)?;
            Some((address.clone(), node.link.clone()))
        };
        map.primaries.iter().filter_map(link).collect()
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
        let sent = timeout(DEADLINE, self.shared.route(slot(key), commands)).await;
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
                        node = self.node(&self.map(), &host, port)?.1;
                        asking = true;
                    }
                    _ => return Ok(replies),
                },
            }
        }
        unreachable!("the last hop returns")
    }

    /// A server that was named, known already or not.
    fn node(&self, map: &Map, host: &str, port: u16) -> Result<(String, Arc<Node>), Failure> {
        let server = self.login.at(host, port);
        let server = server.map_err(|_| Failure::Unsent("a server has an unusable name".into()))?;
        let address = server.address();
        let node = match map.nodes.get(&address) {
            Some(node) => node.clone(),
            None => Arc::new(Node::in_cluster(&server)),
        };
        Ok((address, node))
    }

    /// One slot is elsewhere; the whole map follows.
    fn learn(&self, slot: usize, host: &str, port: u16) -> Result<Arc<Node>, Failure> {
        let mut learnt = Err(uncovered(slot));
        self.map.send_modify(|map| {
            let mut new = Map::clone(map);
            learnt = self.node(&new, host, port).map(|(address, node)| {
                let known = new.primaries.iter().position(|known| *known == address);
                let number = known.unwrap_or_else(|| {
                    new.primaries.push(address.clone());
                    new.primaries.len() - 1
                });
                new.owners[slot] = u16::try_from(number).ok();
                new.nodes.insert(address, node.clone());
                node
            });
            *map = Arc::new(new);
        });
        learnt
    }

    /// Asks for the map in a task of its own, unless that is under way.
    fn refresh_soon(self: &Arc<Self>) {
        let mut task = self
            .background
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if task.as_ref().is_none_or(|task| task.0.is_finished()) {
            let shared = Arc::downgrade(self);
            let round = self.round();
            *task = Some(AbortOnDrop(tokio::spawn(async move {
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
        if let Err(failure) = self.ask().await {
            tracing::debug!(?failure, "no redis server gives the map of the cluster");
        }
        self.rounds.fetch_add(1, Ordering::AcqRel);
    }

    /// Asks some servers for the map and takes the one of the latest epoch.
    async fn ask(&self) -> Result<(), Failure> {
        let map = self.map();
        let mut nodes: Vec<_> = map.nodes.values().collect();
        fastrand::shuffle(&mut nodes);
        // Primaries first: they hear of a fail-over before replicas do.
        nodes.sort_by_key(|node| !map.primaries.contains(&node.link.address()));
        nodes.truncate(ASKED);
        let answers = gather(nodes.into_iter().map(|node| chart(&node.link)), GRACE).await;
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
        self.take(newest.ranges)
    }

    fn take(&self, ranges: Vec<Range>) -> Result<(), Failure> {
        let mut taken = Ok(());
        self.map.send_if_modified(|map| {
            match self.draw(map, &ranges) {
                Ok(new) if new.primaries == map.primaries && new.owners == map.owners => {
                    // Replicas may have changed; nobody waits for that.
                    *map = Arc::new(new);
                    false
                }
                Ok(new) => {
                    *map = Arc::new(new);
                    true
                }
                Err(failure) => {
                    taken = Err(failure);
                    false
                }
            }
        });
        taken
    }

    /// A map of these ranges, with the links that there are already.
    fn draw(&self, old: &Map, ranges: &[Range]) -> Result<Map, Failure> {
        let seeds = self.seeds.iter();
        let mut nodes: HashMap<_, _> = seeds
            .filter_map(|seed| Some((seed.clone(), old.nodes.get(seed)?.clone())))
            .collect();
        let mut shards = Vec::new();
        for range in ranges {
            let mut primary = None;
            for (host, port) in &range.servers {
                let (address, node) = self.node(old, host, *port)?;
                primary.get_or_insert_with(|| address.clone());
                nodes.entry(address).or_insert(node);
            }
            shards.extend(primary.map(|primary| (primary, range.from..=range.to)));
        }
        // In one order, so that the same map looks the same.
        let mut primaries: Vec<_> = shards.iter().map(|(primary, _)| primary.clone()).collect();
        primaries.sort();
        primaries.dedup();
        let mut owners = vec![None; SLOTS];
        for (primary, slots) in shards {
            let number = primaries.binary_search(&primary).ok();
            let number = number.and_then(|number| u16::try_from(number).ok());
            owners[slots].fill(number);
        }
        Ok(Map {
            owners,
            primaries,
            nodes,
        })
    }
}

/// The map as one server draws it.
struct Chart {
    /// Whether that server finds the cluster in order, and the latest epoch
    /// that it has heard of: each fail-over begins one.
    rank: (bool, u64),
    ranges: Vec<Range>,
}

async fn chart(link: &Link) -> Result<Chart, Failure> {
    let mut slots = cmd("CLUSTER");
    slots.arg("SLOTS");
    let mut info = cmd("CLUSTER");
    info.arg("INFO");
    let replies = link.send(&[slots, info]).await?;
    let [slots, info] = super::link::exactly(replies)?;
    let slots = Failure::or_reply(slots)?;
    let wrong = |what| Failure::Lost(format!("{}: {what}", link.address()));
    let ranges = slots::ranges(slots, &link.host());
    let ranges = ranges.ok_or_else(|| wrong("its map cannot be read"))?;
    if ranges.is_empty() {
        return Err(wrong("its cluster has no slots"));
    }
    // Who may not ask for it has to do with any map.
    let info: String = redis::from_redis_value(info).unwrap_or_default();
    let epoch = info
        .lines()
        .find_map(|line| line.strip_prefix("cluster_current_epoch:"));
    let epoch = epoch.and_then(|epoch| epoch.trim().parse().ok());
    let rank = (info.contains("cluster_state:ok"), epoch.unwrap_or_default());
    Ok(Chart { rank, ranges })
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
