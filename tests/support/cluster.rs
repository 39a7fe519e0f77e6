//! A real Redis Cluster for one test: three primaries with a replica each, in processes that
//! the guard kills. It knows no store.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use redis::Value;

use super::eventually_within;
use super::redis::{Options, RedisServer};

/// Shards, each a primary and a replica.
const SHARDS: usize = 3;

/// A node without an answer for this long counts as failed, in milliseconds.
const NODE_TIMEOUT: &str = "1500";

/// How long the nodes may take to form a cluster on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A node that does not answer a greeting for `NODE_TIMEOUT` is forgotten.
const GREETING: Duration = Duration::from_secs(3);

/// A running cluster; dropping it kills every node.
#[derive(Debug)]
pub struct RedisCluster {
    /// At first nodes 0, 1 and 2 are primaries, and 3, 4 and 5 their replicas. Kill, pause,
    /// resume and restart them like any server.
    pub nodes: Vec<RedisServer>,
}

impl RedisCluster {
    /// Without persistence or password; the loss of one shard does not stop the others
    /// (`cluster-require-full-coverage no`).
    pub async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    /// With further options for every node.
    pub async fn start_with(options: Options) -> Self {
        let options = options
            .set("cluster-node-timeout", NODE_TIMEOUT)
            .set("cluster-require-full-coverage", "no")
            .set("cluster-allow-replica-migration", "no")
            .set("cluster-replica-validity-factor", "0")
            .set("repl-diskless-sync-delay", "0")
            .cluster_node();
        let start = |_| options.clone().start();
        let cluster = Self {
            nodes: (0..2 * SHARDS).map(start).collect(),
        };
        cluster.join().await;
        cluster
    }

    /// One URL for each node, without a login.
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(RedisServer::url).collect()
    }

    /// The slot of a key.
    pub fn slot(&self, key: &str) -> u16 {
        self.running()
            .next()
            .expect("a node runs")
            .1
            .command(&["CLUSTER", "KEYSLOT", key])
    }

    /// The node that most running nodes consider the primary of a key, whether it still
    /// runs or not.
    pub fn primary_of(&self, key: &str) -> usize {
        let slot = self.slot(key);
        let mut votes = HashMap::<usize, usize>::new();
        for (_, node) in self.running() {
            if let Some(index) = owner(node, slot).and_then(|port| self.index(port)) {
                *votes.entry(index).or_default() += 1;
            }
        }
        let most = votes.into_iter().max_by_key(|(_, votes)| *votes);
        most.expect("a node knows the slot").0
    }

    /// Waits until a running primary serves every slot, and all running nodes agree on
    /// that. Stopped nodes are ignored.
    pub async fn stable(&self) {
        let agree = async || {
            let mut views = self.running().map(|(_, node)| self.primaries_by(node));
            let Some(first) = views.next() else {
                return false;
            };
            first.len() >= SHARDS
                && first.iter().all(|index| self.nodes[*index].is_running())
                && views.all(|view| view == first)
                && self.running().all(|(_, node)| is_ok(node))
        };
        eventually_within(PATIENCE, "the cluster serves every slot", agree).await;
    }

    /// Waits until every running replica follows its primary, too.
    pub async fn replicated(&self) {
        self.stable().await;
        let follow = async || {
            let link = |info: String| {
                info.contains("role:master") || info.contains("master_link_status:up")
            };
            self.running()
                .all(|(_, node)| node.try_command(&["INFO", "replication"]).is_ok_and(link))
        };
        eventually_within(PATIENCE, "the replicas follow", follow).await;
    }

    fn running(&self) -> impl Iterator<Item = (usize, &RedisServer)> {
        let nodes = self.nodes.iter().enumerate();
        nodes.filter(|(_, node)| node.is_running())
    }

    fn index(&self, port: u16) -> Option<usize> {
        self.nodes.iter().position(|node| node.port == port)
    }

    /// The primaries that one node knows, if they serve all slots.
    fn primaries_by(&self, node: &RedisServer) -> Vec<usize> {
        let ranges = ranges(node);
        let covered: u32 = ranges
            .iter()
            .map(|(from, to, _)| u32::from(to - from) + 1)
            .sum();
        if covered != 16_384 {
            return Vec::new();
        }
        let mut primaries: Vec<_> = ranges
            .iter()
            .filter_map(|(_, _, port)| self.index(*port))
            .collect();
        primaries.sort_unstable();
        primaries.dedup();
        primaries
    }

    /// Makes six servers one cluster.
    async fn join(&self) {
        for (number, node) in self.nodes.iter().enumerate() {
            let epoch = (number + 1).to_string();
            // A node accepts its epoch only before it knows other nodes.
            node.command::<()>(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch]);
        }
        self.meet().await;
        for shard in 0..SHARDS {
            let from = 16_384 * shard / SHARDS;
            let to = 16_384 * (shard + 1) / SHARDS - 1;
            let [from, to] = [from, to].map(|slot| slot.to_string());
            self.nodes[shard].command::<()>(&["CLUSTER", "ADDSLOTSRANGE", &from, &to]);
        }
        for shard in 0..SHARDS {
            let primary: String = self.nodes[shard].command(&["CLUSTER", "MYID"]);
            let replica = &self.nodes[SHARDS + shard];
            eventually_within(PATIENCE, "the replica accepts its primary", async || {
                let attempt = replica.try_command::<()>(&["CLUSTER", "REPLICATE", &primary]);
                attempt.is_ok()
            })
            .await;
        }
        let known = async || {
            let replicas = |node: &RedisServer| {
                let nodes: String = node.command(&["CLUSTER", "NODES"]);
                nodes.lines().filter(|line| line.contains("slave")).count()
            };
            self.nodes.iter().all(|node| replicas(node) == SHARDS)
        };
        eventually_within(PATIENCE, "all nodes know the replicas", known).await;
        self.replicated().await;
    }

    /// Returns when each node knows all others. A node forgets a node that did not answer
    /// its greeting in time, which happens on a busy machine: the greeting is repeated.
    async fn meet(&self) {
        let mut greeted: Option<Instant> = None;
        let met = async || {
            let strangers = |node: &&RedisServer| {
                let nodes: String = node.command(&["CLUSTER", "NODES"]);
                let known = nodes.lines().filter(|line| !line.contains("handshake"));
                known.count() < self.nodes.len()
            };
            let alone: Vec<_> = self.nodes.iter().filter(strangers).collect();
            if greeted.is_none_or(|at| at.elapsed() > GREETING) {
                greeted = Some(Instant::now());
                for (node, other) in alone.iter().flat_map(|node| {
                    let others = self.nodes.iter();
                    others.map(move |other| (node, other))
                }) {
                    let [port, bus] = [other.port, other.bus_port].map(|port| port.to_string());
                    node.command::<()>(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
                }
            }
            alone.is_empty()
        };
        eventually_within(PATIENCE, "the nodes have met", met).await;
    }
}

/// The first and the last slot of each range, and the port of its primary, as one node sees
/// them.
fn ranges(node: &RedisServer) -> Vec<(u16, u16, u16)> {
    let Ok(Value::Array(ranges)) = node.try_command(&["CLUSTER", "SLOTS"]) else {
        return Vec::new();
    };
    let read = |range: Value| -> Option<(u16, u16, u16)> {
        let Value::Array(parts) = range else {
            return None;
        };
        let [Value::Int(from), Value::Int(to), Value::Array(primary), ..] = parts.as_slice() else {
            return None;
        };
        let [_, Value::Int(port), ..] = primary.as_slice() else {
            return None;
        };
        Some((*from as u16, *to as u16, *port as u16))
    };
    ranges.into_iter().filter_map(read).collect()
}

fn owner(node: &RedisServer, slot: u16) -> Option<u16> {
    let ranges = ranges(node);
    let range = ranges
        .iter()
        .find(|(from, to, _)| (*from..=*to).contains(&slot));
    range.map(|(_, _, port)| *port)
}

fn is_ok(node: &RedisServer) -> bool {
    let info = node.try_command::<String>(&["CLUSTER", "INFO"]);
    info.is_ok_and(|info| info.contains("cluster_state:ok"))
}
