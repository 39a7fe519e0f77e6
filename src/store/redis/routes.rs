//! What a store is connected to: one server (or whichever the sentinels call the
//! primary), or a cluster. Everything above it asks for a key and never for a
//! server.

use std::collections::HashSet;
use std::slice;

use redis::{Cmd, Value};

use super::carrier::{Carrier, only};
use super::cluster::Cluster;
use super::failure::Failure;
use super::link::Link;
use super::node::Node;
use super::server::Server;

/// The way to the server that has a key.
pub(super) enum Routes {
    One(Node),
    Cluster(Cluster),
}

impl Routes {
    /// The server that has a key.
    pub(super) async fn server(&self, key: &str) -> Result<Server, Failure> {
        match self {
            Self::One(node) => node.link.server().await,
            Self::Cluster(cluster) => cluster.server(key).await,
        }
    }

    /// The shard of a key, by number; 0 where there is only one.
    pub(super) fn part(&self, key: &str) -> u64 {
        match self {
            Self::One(_) => 0,
            Self::Cluster(cluster) => cluster.part(key),
        }
    }

    /// Makes sure of who has what: a server has sent us away.
    pub(super) async fn doubt(&self) {
        match self {
            Self::One(node) => node.link.doubt(),
            Self::Cluster(cluster) => cluster.refresh().await,
        }
    }

    /// A primary that is not among those `seen`, and which is so from now on.
    pub(super) fn next_primary(&self, seen: &mut HashSet<String>) -> Option<Link> {
        let mut primaries = self.primaries().into_iter();
        let (address, link) = primaries.find(|(address, _)| !seen.contains(address))?;
        seen.insert(address);
        Some(link)
    }

    /// The links to all primaries, by address.
    pub(super) fn primaries(&self) -> Vec<(String, Link)> {
        match self {
            Self::One(node) => vec![(node.link.address(), node.link.clone())],
            Self::Cluster(cluster) => cluster.primaries(),
        }
    }

    /// Completes when something may have changed on that channel since the
    /// future was first polled.
    pub(super) async fn changed(&self, channel: String) {
        match self {
            Self::One(node) => node.changed(channel).await,
            Self::Cluster(cluster) => cluster.changed(channel).await,
        }
    }
}

// The way through a cluster is boxed: commands for one server, of which most
// stores are, would carry its room about.
impl Carrier for Routes {
    async fn send(&self, key: &str, commands: &[Cmd]) -> Result<Vec<Value>, Failure> {
        match self {
            Self::One(node) => node.link.send(commands).await,
            Self::Cluster(cluster) => Box::pin(cluster.send(key, commands)).await,
        }
    }

    async fn command(&self, key: &str, command: &Cmd) -> Result<Value, Failure> {
        match self {
            Self::One(node) => node.link.command(command).await,
            Self::Cluster(cluster) => {
                let replies = Box::pin(cluster.send(key, slice::from_ref(command)));
                only(replies.await?)
            }
        }
    }

    fn is_sharded(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }
}
