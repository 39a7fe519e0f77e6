//! A cluster or a Sentinel set-up for the fail-over test: its primary, its replicas, and the
//! server elected after a fail-over. It judges nothing.

use std::fmt;
use std::time::{Duration, Instant};

use genesys_once::IdempotencyKey;
use genesys_once::record::RecordName;
use tokio::time::sleep;

use crate::chaos::worker;
use crate::chaos::worker::namespace;
use crate::support::cluster::RedisCluster;
use crate::support::redis::RedisServer;
use crate::support::sentinel::{PRIMARY, RedisSentinel};

/// How long an election may take on a busy machine.
const ELECTION: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Cluster,
    Sentinel,
}

pub enum Topology {
    Cluster(RedisCluster),
    Sentinel(RedisSentinel),
}

impl Topology {
    pub async fn start(kind: Kind) -> Self {
        match kind {
            Kind::Cluster => Self::Cluster(RedisCluster::start().await),
            Kind::Sentinel => Self::Sentinel(RedisSentinel::start().await),
        }
    }

    /// All replicas of a primary.
    pub fn copies(&self) -> u32 {
        match self {
            Self::Cluster(_) => 1,
            Self::Sentinel(_) => 2,
        }
    }

    /// A worker's setting for this topology.
    pub fn store(&self, copies: u32) -> String {
        match self {
            Self::Cluster(cluster) => format!("cluster {copies} {}", cluster.urls().join(" ")),
            Self::Sentinel(sentinel) => {
                format!("sentinel {copies} {PRIMARY} {}", sentinel.urls().join(" "))
            }
        }
    }

    /// The primary of the shard that has a number's record, as most servers report it.
    pub fn primary(&self, number: u64) -> usize {
        match self {
            Self::Cluster(cluster) => cluster.primary_of(&record(worker::key(number))),
            Self::Sentinel(sentinel) => sentinel.primary(),
        }
    }

    /// The replicas of a primary.
    pub fn replicas(&self, primary: usize) -> Vec<usize> {
        let all = self.servers().len();
        match self {
            // The pairs of the start: no replica moves to another primary.
            Self::Cluster(_) => vec![(primary + all / 2) % all],
            Self::Sentinel(_) => (0..all).filter(|server| *server != primary).collect(),
        }
    }

    pub fn server(&self, index: usize) -> &RedisServer {
        &self.servers()[index]
    }

    pub fn server_mut(&mut self, index: usize) -> &mut RedisServer {
        match self {
            Self::Cluster(cluster) => &mut cluster.nodes[index],
            Self::Sentinel(sentinel) => &mut sentinel.servers[index],
        }
    }

    /// Waits until most servers report another primary than `old`.
    pub async fn elected(&self, old: usize, number: u64) -> usize {
        let deadline = Instant::now() + ELECTION;
        loop {
            let now = self.primary(number);
            if now != old {
                return now;
            }
            assert!(Instant::now() < deadline, "no server was elected");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until every primary has its replicas again.
    pub async fn stable(&self) {
        match self {
            Self::Cluster(cluster) => cluster.replicated().await,
            Self::Sentinel(sentinel) => sentinel.stable().await,
        }
    }

    fn servers(&self) -> &[RedisServer] {
        match self {
            Self::Cluster(cluster) => &cluster.nodes,
            Self::Sentinel(sentinel) => &sentinel.servers,
        }
    }
}

/// The name of a key's record in Redis.
fn record(key: IdempotencyKey) -> String {
    RecordName::new(namespace(), key).to_string()
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cluster => "cluster",
            Self::Sentinel => "sentinel",
        })
    }
}
