//! What a store is connected to: one server (or whichever the sentinels call the
//! primary), or a cluster. Everything above it asks for a key and never for a
//! server.

use std::hash::{Hash, Hasher};
use std::slice;

use redis::{Cmd, Value, cmd};

use super::cluster::Cluster;
use super::node::Node;
use crate::store::redis::connection::command_error::CommandError;
use crate::store::redis::connection::runtime::StoreRuntime;
use crate::store::redis::connection::shared::SharedConnection;
use crate::store::redis::connection::transport::{Lane, Transport, single_reply};

/// The way to the server that has a key.
pub(crate) enum Routes {
    One(Node),
    Cluster(Cluster),
}

impl Routes {
    /// The link to the server that has a key.
    pub(crate) fn connection(&self, key: &str) -> Result<SharedConnection, CommandError> {
        match self {
            Self::One(node) => Ok(node.connection.clone()),
            Self::Cluster(cluster) => cluster.connection(key),
        }
    }

    /// Where background work runs.
    pub(crate) fn runtime(&self) -> StoreRuntime {
        match self {
            Self::One(node) => node.connection.runtime().clone(),
            Self::Cluster(cluster) => cluster.runtime().clone(),
        }
    }

    /// The shard of a key, by number; 0 where there is only one.
    pub(crate) fn shard(&self, key: &str) -> u64 {
        match self {
            Self::One(_) => 0,
            Self::Cluster(cluster) => cluster.shard(key),
        }
    }

    /// Sends commands about one key in one go, by a connection of that kind.
    pub(crate) async fn send_by(
        &self,
        lane: Lane<'_>,
        key: &str,
        commands: &[Cmd],
    ) -> Result<Vec<Value>, CommandError> {
        match self {
            Self::One(node) => node.send(lane, commands).await,
            Self::Cluster(cluster) => Box::pin(cluster.send(lane, key, commands)).await,
        }
    }

    /// Who has what at this moment, asked anew.
    ///
    /// # Errors
    ///
    /// Where a primary cannot be reached, or a slot has none.
    pub(crate) async fn layout(&self) -> Result<Layout, CommandError> {
        if let Self::Cluster(cluster) = self {
            let wrong = |reason: &str| Err(CommandError::Unsent(reason.into()));
            if !cluster.refresh().await {
                return wrong("no server of the cluster gives its map");
            }
            if !cluster.is_whole() {
                return wrong("a part of the cluster's slots has no server");
            }
        }
        let mut shards = Vec::new();
        for (_, connection) in self.primaries() {
            let generation = connection.generation().await?;
            let slots = match self {
                Self::One(_) => String::new(),
                Self::Cluster(_) => slots(&connection, generation).await?,
            };
            shards.push(Shard {
                connection,
                generation,
                slots,
            });
        }
        Ok(Layout(shards))
    }

    /// The links to all primaries, by address.
    pub(crate) fn primaries(&self) -> Vec<(String, SharedConnection)> {
        match self {
            Self::One(node) => vec![(node.connection.address(), node.connection.clone())],
            Self::Cluster(cluster) => cluster.primaries(),
        }
    }

    /// Completes when something may have changed on that channel since the
    /// future was first polled.
    pub(crate) async fn changed(&self, channel: String) {
        match self {
            Self::One(node) => node.changed(channel).await,
            Self::Cluster(cluster) => cluster.changed(channel).await,
        }
    }
}

/// What the primaries have at one moment, and the connections to them.
pub(crate) struct Layout(pub(crate) Vec<Shard>);

/// One primary.
pub(crate) struct Shard {
    pub(crate) connection: SharedConnection,
    pub(crate) generation: u64,
    /// Its slots as it names them, those included that come or go.
    slots: String,
}

impl Layout {
    /// Whether it is the same now: the same connections to the same servers.
    pub(crate) fn is_still(&self, now: &Self) -> bool {
        self.0.iter().map(Shard::id).eq(now.0.iter().map(Shard::id))
    }

    /// Whether slots are on their way from one server to another.
    pub(crate) fn is_moving(&self) -> bool {
        self.0.iter().any(|shard| shard.slots.contains('['))
    }
}

impl Hash for Layout {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.0.iter().for_each(|shard| shard.id().hash(hasher));
    }
}

impl Shard {
    fn id(&self) -> (String, u64, &str) {
        (self.connection.address(), self.generation, &self.slots)
    }
}

/// What a node says of its own slots, in its own line of `CLUSTER NODES`. A user
/// without the right to ask has to do with the map.
async fn slots(connection: &SharedConnection, generation: u64) -> Result<String, CommandError> {
    let mut nodes = cmd("CLUSTER");
    nodes.arg("NODES");
    let nodes = match connection
        .send_on(generation, &[nodes])
        .await
        .and_then(single_reply)
    {
        Ok(nodes) => redis::from_redis_value::<String>(nodes).unwrap_or_default(),
        Err(CommandError::Server { .. }) => String::new(),
        Err(failure) => return Err(failure),
    };
    let own = nodes.lines().find(|line| line.contains("myself"));
    let slots = own.and_then(|line| line.splitn(9, ' ').nth(8));
    Ok(slots.unwrap_or_default().to_owned())
}

// The way through a cluster is boxed: commands for one server, of which most
// stores are, would carry its room about.
impl Transport for Routes {
    async fn send(&self, key: &str, commands: &[Cmd]) -> Result<Vec<Value>, CommandError> {
        match self {
            Self::One(node) => node.connection.send(commands).await,
            Self::Cluster(cluster) => Box::pin(cluster.send(Lane::Shared, key, commands)).await,
        }
    }

    async fn command(&self, key: &str, command: &Cmd) -> Result<Value, CommandError> {
        match self {
            Self::One(node) => node.connection.command(command).await,
            Self::Cluster(cluster) => {
                let command = slice::from_ref(command);
                let replies = Box::pin(cluster.send(Lane::Shared, key, command));
                single_reply(replies.await?)
            }
        }
    }

    fn is_sharded(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }
}
