//! The servers of a store: one server, the primary that sentinels name, or a cluster. The
//! code above it names a key and never a server.

use std::hash::{Hash, Hasher};
use std::slice;

use redis::{Cmd, Value, cmd};

use super::cluster::Cluster;
use super::node::Node;
use crate::store::redis::connection::command_error::CommandError;
use crate::store::redis::connection::runtime::StoreRuntime;
use crate::store::redis::connection::shared::SharedConnection;
use crate::store::redis::connection::transport::{Lane, Transport, single_reply};

/// Routes commands to the server that has a key.
pub(crate) enum Routes {
    One(Node),
    Cluster(Cluster),
}

impl Routes {
    /// The connection to the server that has a key.
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

    /// The number of the shard of a key; 0 where there is only one.
    pub(crate) fn shard(&self, key: &str) -> u64 {
        match self {
            Self::One(_) => 0,
            Self::Cluster(cluster) => cluster.shard(key),
        }
    }

    /// Sends commands about one key in one go, on that lane.
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

    /// The current layout, after a refresh.
    ///
    /// # Errors
    ///
    /// Where a primary cannot be reached, or a slot has none.
    pub(crate) async fn layout(&self) -> Result<Layout, CommandError> {
        if let Self::Cluster(cluster) = self {
            let wrong = |reason: &str| Err(CommandError::Unsent(reason.into()));
            if !cluster.refresh().await {
                return wrong("no server of the cluster returns its map");
            }
            if !cluster.is_whole() {
                return wrong("some slots of the cluster have no server");
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

    /// The connections to all primaries, by address.
    pub(crate) fn primaries(&self) -> Vec<(String, SharedConnection)> {
        match self {
            Self::One(node) => vec![(node.connection.address(), node.connection.clone())],
            Self::Cluster(cluster) => cluster.primaries(),
        }
    }

    /// Completes when the record of that channel might have changed since the future was
    /// first polled.
    pub(crate) async fn changed(&self, channel: String) {
        match self {
            Self::One(node) => node.changed(channel).await,
            Self::Cluster(cluster) => cluster.changed(channel).await,
        }
    }
}

/// The slots of all primaries at one moment, and the connections to them.
pub(crate) struct Layout(pub(crate) Vec<Shard>);

/// One primary.
pub(crate) struct Shard {
    pub(crate) connection: SharedConnection,
    pub(crate) generation: u64,
    /// Its slots as it reports them, including slots that move.
    slots: String,
}

impl Layout {
    /// Whether both have the same connections to the same servers.
    pub(crate) fn is_still(&self, now: &Self) -> bool {
        self.0.iter().map(Shard::id).eq(now.0.iter().map(Shard::id))
    }

    /// Whether slots move from one server to another.
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

/// The slots in a node's own line of `CLUSTER NODES`. A user without the right to ask
/// relies on the map.
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

// The future of a cluster is boxed: commands for a single server would have its size.
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
