//! The map of a cluster as one server reports it, and the choice between several reports:
//! the identity of the cluster counts before the epoch. It adopts no map.

use std::collections::HashSet;

use redis::cmd;

use super::slots::{self, SlotRange, node_id};
use crate::store::redis::connection::command_error::CommandError;
use crate::store::redis::connection::shared::SharedConnection;
use crate::store::redis::connection::transport::exact_replies;

/// The map as one server reports it.
pub(crate) struct TopologySnapshot {
    /// Whether that server reports the cluster as `ok`, and the latest epoch that it knows:
    /// each fail-over starts one.
    rank: (bool, u64),
    pub(crate) ranges: Vec<SlotRange>,
    /// The id of that server, where it is known.
    reported_by: Option<String>,
    /// The address of that server.
    pub(crate) address: String,
}

/// Asks one server for its map.
pub(crate) async fn fetch_snapshot(
    connection: &SharedConnection,
) -> Result<TopologySnapshot, CommandError> {
    let cluster = |about: &str| {
        let mut command = cmd("CLUSTER");
        command.arg(about);
        command
    };
    let replies = connection
        .send(&["SLOTS", "INFO", "MYID"].map(cluster))
        .await?;
    let [slots, info, reported_by] = exact_replies(replies)?;
    let slots = CommandError::check(slots)?;
    let address = connection.address();
    let wrong = |what| CommandError::Lost(format!("{address}: {what}"));
    let ranges = slots::ranges(slots, &connection.host());
    let ranges = ranges.ok_or_else(|| wrong("malformed reply to CLUSTER SLOTS"))?;
    if ranges.is_empty() {
        return Err(wrong("its cluster has no slots"));
    }
    // Without the right to ask, all maps have the same rank.
    let info: String = redis::from_redis_value(info).unwrap_or_default();
    let epoch = info
        .lines()
        .find_map(|line| line.strip_prefix("cluster_current_epoch:"));
    let epoch = epoch.and_then(|epoch| epoch.trim().parse().ok());
    Ok(TopologySnapshot {
        rank: (info.contains("cluster_state:ok"), epoch.unwrap_or_default()),
        ranges,
        reported_by: node_id(reported_by),
        address,
    })
}

impl TopologySnapshot {
    /// The ids of all servers in it.
    pub(crate) fn ids(&self) -> HashSet<&str> {
        let servers = self.ranges.iter().flat_map(|range| &range.servers);
        servers.map(|server| server.id.as_str()).collect()
    }

    fn shares(&self, ids: &HashSet<&str>) -> usize {
        self.ids().intersection(ids).count()
    }

    /// Whether it is of the cluster that had these servers: it has most of them. With half
    /// of them, it is the same cluster after a fail-over if it has no other server, and no
    /// other snapshot contradicts it.
    fn continues(&self, old: &HashSet<&str>, among: &[TopologySnapshot]) -> bool {
        let kept = self.shares(old);
        match (kept * 2).cmp(&old.len()) {
            std::cmp::Ordering::Greater => true,
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal => {
                let own = self.ids();
                own.len() == kept && among.iter().all(|other| other.shares(&own) > 0)
            }
        }
    }
}

/// The latest of the snapshots that continue the map of these servers.
pub(crate) fn latest_continuing(
    snapshots: &[TopologySnapshot],
    old: &HashSet<&str>,
) -> Option<usize> {
    let own =
        (0..snapshots.len()).filter(|snapshot| snapshots[*snapshot].continues(old, snapshots));
    own.max_by_key(|snapshot| snapshots[*snapshot].rank)
}

/// The latest of all snapshots.
pub(crate) fn latest_of_all(snapshots: &[TopologySnapshot]) -> Option<usize> {
    (0..snapshots.len()).max_by_key(|snapshot| snapshots[*snapshot].rank)
}

/// The latest snapshot of the cluster that most snapshots belong to; `None` where no
/// cluster has most of them.
pub(crate) fn majority(snapshots: &[TopologySnapshot]) -> Option<usize> {
    // A snapshot from before a fail-over is still of the same cluster.
    let related = |one: &TopologySnapshot, other: &TopologySnapshot| {
        let (shared, ids) = (one.shares(&other.ids()), (one.ids(), other.ids()));
        shared * 2 > ids.0.len().min(ids.1.len())
    };
    let votes = |snapshot: &TopologySnapshot| {
        snapshots
            .iter()
            .filter(|other| related(snapshot, other))
            .count()
    };
    let own =
        (0..snapshots.len()).filter(|snapshot| votes(&snapshots[*snapshot]) * 2 > snapshots.len());
    own.max_by_key(|snapshot| snapshots[*snapshot].rank)
}

/// Whether most of the old servers report exactly the servers of that snapshot.
pub(crate) fn is_confirmed(
    snapshot: &TopologySnapshot,
    by: &[TopologySnapshot],
    old: &HashSet<&str>,
) -> bool {
    let authors: HashSet<_> = by
        .iter()
        .filter(|other| other.ids() == snapshot.ids())
        .filter_map(|other| other.reported_by.as_deref())
        .filter(|reported_by| old.contains(reported_by))
        .collect();
    authors.len() * 2 > old.len()
}

#[cfg(test)]
mod tests {
    use super::slots::ClusterNode;
    use super::*;

    fn reported(reported_by: &str, epoch: u64, ids: &[&str]) -> TopologySnapshot {
        let server = |id: &&str| ClusterNode {
            host: "a".into(),
            port: 1,
            id: id.to_string(),
        };
        TopologySnapshot {
            rank: (true, epoch),
            ranges: vec![SlotRange {
                from: 0,
                to: 16_383,
                servers: ids.iter().map(server).collect(),
            }],
            reported_by: Some(reported_by.into()),
            address: reported_by.into(),
        }
    }

    fn set<'a>(ids: &[&'a str]) -> HashSet<&'a str> {
        ids.iter().copied().collect()
    }

    /// Red when the latest epoch wins, whatever the cluster.
    #[test]
    fn identity_counts_before_epoch() {
        let old = set(&["a", "b", "c", "d"]);
        let snapshots = [
            reported("a", 5, &["a", "b", "c"]),
            reported("b", 6, &["a", "b", "c"]),
            // It has left the cluster, and kept its id.
            reported("d", 50, &["d", "x", "y"]),
            reported("z", 60, &["z"]),
        ];
        assert_eq!(latest_continuing(&snapshots, &old), Some(1));
        assert_eq!(latest_continuing(&snapshots[2..], &old), None);
        assert_eq!(latest_of_all(&snapshots), Some(3));
        assert_eq!(latest_of_all(&[]), None);
    }

    /// Red when half of the servers are enough, or never.
    #[test]
    fn half_of_servers_continue_uncontradicted_map() {
        let old = set(&["a", "b"]);
        let promoted = || reported("b", 7, &["b"]);
        assert_eq!(latest_continuing(&[promoted()], &old), Some(0));
        assert_eq!(
            latest_continuing(&[promoted(), reported("a", 6, &["a"])], &old),
            None
        );
        assert_eq!(
            latest_continuing(&[reported("b", 7, &["b", "x"])], &old),
            None
        );
    }

    /// Red when the first map is chosen by its epoch alone.
    #[test]
    fn first_map_needs_majority() {
        let ours = |reported_by| reported(reported_by, 5, &["a", "b", "c"]);
        let foreign = || reported("x", 50, &["x", "y"]);
        assert_eq!(majority(&[foreign(), ours("a"), ours("b")]), Some(2));
        assert_eq!(majority(&[foreign(), ours("a")]), None);
        // One from before a fail-over in which a server was lost.
        let late = reported("c", 4, &["a", "b", "c", "d"]);
        assert_eq!(majority(&[late, ours("a")]), Some(1));
        assert_eq!(majority(&[]), None);
    }

    /// Red when servers are counted by their address, or every map is counted.
    #[test]
    fn map_is_confirmed_by_most_old_servers() {
        let old = set(&["a", "b", "c"]);
        let moved = |reported_by| reported(reported_by, 9, &["x", "y"]);
        assert!(is_confirmed(&moved("a"), &[moved("a"), moved("b")], &old));
        let strangers = [moved("a"), moved("x"), moved("y")];
        assert!(!is_confirmed(&moved("a"), &strangers, &old));
        let divided = [moved("a"), reported("b", 9, &["x"])];
        assert!(!is_confirmed(&moved("a"), &divided, &old));
    }
}
