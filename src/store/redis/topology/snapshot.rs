//! A cluster as one server draws it, and which of several drawings is to be
//! followed: identity comes before rank. Pure but for the question itself.

use std::collections::HashSet;

use redis::cmd;

use super::slots::{self, Range, node_id};
use crate::store::redis::connection::command_error::Failure;
use crate::store::redis::connection::shared::Link;
use crate::store::redis::connection::transport::exactly;

/// The map as one server draws it.
pub(crate) struct Chart {
    /// Whether that server finds the cluster in order, and the latest epoch
    /// that it has heard of: each fail-over begins one.
    rank: (bool, u64),
    pub(crate) ranges: Vec<Range>,
    /// The id of the server that drew it, where it says.
    author: Option<String>,
    /// Where it was asked.
    pub(crate) address: String,
}

/// Asks one server for the map.
pub(crate) async fn chart(link: &Link) -> Result<Chart, Failure> {
    let cluster = |about: &str| {
        let mut command = cmd("CLUSTER");
        command.arg(about);
        command
    };
    let replies = link.send(&["SLOTS", "INFO", "MYID"].map(cluster)).await?;
    let [slots, info, author] = exactly(replies)?;
    let slots = Failure::or_reply(slots)?;
    let address = link.address();
    let wrong = |what| Failure::Lost(format!("{address}: {what}"));
    let ranges = slots::ranges(slots, &link.host());
    let ranges = ranges.ok_or_else(|| wrong("its map cannot be read"))?;
    if ranges.is_empty() {
        return Err(wrong("its cluster has no slots"));
    }
    // A user without the right to ask for it has to do with any map.
    let info: String = redis::from_redis_value(info).unwrap_or_default();
    let epoch = info
        .lines()
        .find_map(|line| line.strip_prefix("cluster_current_epoch:"));
    let epoch = epoch.and_then(|epoch| epoch.trim().parse().ok());
    Ok(Chart {
        rank: (info.contains("cluster_state:ok"), epoch.unwrap_or_default()),
        ranges,
        author: node_id(author),
        address,
    })
}

impl Chart {
    /// The ids of all servers on it.
    pub(crate) fn ids(&self) -> HashSet<&str> {
        let servers = self.ranges.iter().flat_map(|range| &range.servers);
        servers.map(|server| server.id.as_str()).collect()
    }

    fn shares(&self, ids: &HashSet<&str>) -> usize {
        self.ids().intersection(ids).count()
    }

    /// Whether it is of the cluster that had these servers: most of them are on
    /// it. With half of them it is the same cluster after a fail-over if no other
    /// server is on it, and none of the others draws another map.
    fn continues(&self, old: &HashSet<&str>, among: &[Chart]) -> bool {
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

/// The latest of the charts that continue the map of these servers.
pub(crate) fn latest(charts: &[Chart], old: &HashSet<&str>) -> Option<usize> {
    let own = (0..charts.len()).filter(|chart| charts[*chart].continues(old, charts));
    own.max_by_key(|chart| charts[*chart].rank)
}

/// The latest of all.
pub(crate) fn newest(charts: &[Chart]) -> Option<usize> {
    (0..charts.len()).max_by_key(|chart| charts[*chart].rank)
}

/// The latest of the charts that most servers agree with in the cluster that
/// they mean; `None` where no cluster has more of them than every other.
pub(crate) fn first(charts: &[Chart]) -> Option<usize> {
    // One that was missed by a fail-over is of the same cluster all the same.
    let related = |one: &Chart, other: &Chart| {
        let (shared, ids) = (one.shares(&other.ids()), (one.ids(), other.ids()));
        shared * 2 > ids.0.len().min(ids.1.len())
    };
    let votes = |chart: &Chart| charts.iter().filter(|other| related(chart, other)).count();
    let own = (0..charts.len()).filter(|chart| votes(&charts[*chart]) * 2 > charts.len());
    own.max_by_key(|chart| charts[*chart].rank)
}

/// Whether most of these servers draw a map of exactly the servers on that chart.
pub(crate) fn is_confirmed(chart: &Chart, by: &[Chart], old: &HashSet<&str>) -> bool {
    let authors: HashSet<_> = by
        .iter()
        .filter(|other| other.ids() == chart.ids())
        .filter_map(|other| other.author.as_deref())
        .filter(|author| old.contains(author))
        .collect();
    authors.len() * 2 > old.len()
}

#[cfg(test)]
mod tests {
    use super::slots::Member;
    use super::*;

    fn drawn(author: &str, epoch: u64, ids: &[&str]) -> Chart {
        let server = |id: &&str| Member {
            host: "a".into(),
            port: 1,
            id: id.to_string(),
        };
        Chart {
            rank: (true, epoch),
            ranges: vec![Range {
                from: 0,
                to: 16_383,
                servers: ids.iter().map(server).collect(),
            }],
            author: Some(author.into()),
            address: author.into(),
        }
    }

    fn set<'a>(ids: &[&'a str]) -> HashSet<&'a str> {
        ids.iter().copied().collect()
    }

    /// Red when the latest epoch wins whatever cluster it is of.
    #[test]
    fn identity_comes_before_rank() {
        let old = set(&["a", "b", "c", "d"]);
        let charts = [
            drawn("a", 5, &["a", "b", "c"]),
            drawn("b", 6, &["a", "b", "c"]),
            // It has left, and kept its id.
            drawn("d", 50, &["d", "x", "y"]),
            drawn("z", 60, &["z"]),
        ];
        assert_eq!(latest(&charts, &old), Some(1));
        assert_eq!(latest(&charts[2..], &old), None);
        assert_eq!(newest(&charts), Some(3));
        assert_eq!(newest(&[]), None);
    }

    /// Red when half of the servers are enough, or never.
    #[test]
    fn half_of_the_servers_are_the_cluster_if_nothing_speaks_against_it() {
        let old = set(&["a", "b"]);
        let promoted = || drawn("b", 7, &["b"]);
        assert_eq!(latest(&[promoted()], &old), Some(0));
        assert_eq!(latest(&[promoted(), drawn("a", 6, &["a"])], &old), None);
        assert_eq!(latest(&[drawn("b", 7, &["b", "x"])], &old), None);
    }

    /// Red when the first map is taken by its epoch alone.
    #[test]
    fn first_map_is_that_of_most_servers() {
        let ours = |author| drawn(author, 5, &["a", "b", "c"]);
        let foreign = || drawn("x", 50, &["x", "y"]);
        assert_eq!(first(&[foreign(), ours("a"), ours("b")]), Some(2));
        assert_eq!(first(&[foreign(), ours("a")]), None);
        // One that missed a fail-over, by which a server was lost.
        let late = drawn("c", 4, &["a", "b", "c", "d"]);
        assert_eq!(first(&[late, ours("a")]), Some(1));
        assert_eq!(first(&[]), None);
    }

    /// Red when servers are counted by their address, or any map is counted.
    #[test]
    fn confirmed_is_what_most_old_servers_draw() {
        let old = set(&["a", "b", "c"]);
        let moved = |author| drawn(author, 9, &["x", "y"]);
        assert!(is_confirmed(&moved("a"), &[moved("a"), moved("b")], &old));
        let strangers = [moved("a"), moved("x"), moved("y")];
        assert!(!is_confirmed(&moved("a"), &strangers, &old));
        let divided = [moved("a"), drawn("b", 9, &["x"])];
        assert!(!is_confirmed(&moved("a"), &divided, &old));
    }
}
