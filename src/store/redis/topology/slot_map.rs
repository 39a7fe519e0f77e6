//! The slot map of a cluster: the node of each slot. It sends nothing, and keeps the
//! connections of nodes that stay in a new map.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::node::Node;
use super::slots::{ClusterNode, SLOTS, SlotRange};
use crate::store::redis::connection::command_error::CommandError;
use crate::store::redis::connection::server::Server;
use crate::store::redis::connection::shared::SharedConnection;

/// The most servers in a map: clusters have at most a thousand nodes.
const MAX_SERVERS: usize = 1000;

/// The node of each slot.
#[derive(Clone)]
pub(crate) struct SlotMap {
    /// The login for every node.
    login: Server,
    /// For each slot, the index of its primary in `primaries`.
    owners: Vec<Option<u16>>,
    primaries: Vec<String>,
    /// The first slot of each primary.
    firsts: Vec<u64>,
    /// All nodes by their addresses, replicas included.
    nodes: HashMap<String, KnownNode>,
}

/// A node of the map, and its id.
#[derive(Clone)]
struct KnownNode {
    id: String,
    node: Arc<Node>,
}

impl SlotMap {
    /// A map without servers.
    pub(crate) fn empty(login: &Server) -> Self {
        Self {
            login: login.clone(),
            owners: vec![None; SLOTS],
            primaries: Vec::new(),
            firsts: Vec::new(),
            nodes: HashMap::new(),
        }
    }

    /// The primary that has a slot.
    pub(crate) fn owner(&self, slot: usize) -> Option<&Arc<Node>> {
        let number = self.owners[slot]?;
        self.node(&self.primaries[usize::from(number)])
    }

    /// The number of the shard that has a slot: its first slot, which stays when a replica
    /// takes over, plus one. 0 for a slot without a server.
    pub(crate) fn shard(&self, slot: usize) -> u64 {
        let first = self.owners[slot].map(|owner| self.firsts[usize::from(owner)]);
        first.map_or(0, |first| first + 1)
    }

    /// Whether every slot has a server.
    pub(crate) fn is_whole(&self) -> bool {
        self.owners.iter().all(Option::is_some)
    }

    /// The connections to all primaries, by address.
    pub(crate) fn primaries(&self) -> Vec<(String, SharedConnection)> {
        let connection =
            |address: &String| Some((address.clone(), self.node(address)?.connection.clone()));
        self.primaries.iter().filter_map(connection).collect()
    }

    /// Servers to ask for a new map, in random order, primaries first: they learn of a
    /// fail-over before replicas do.
    pub(crate) fn refresh_candidates(&self, at_most: usize) -> Vec<SharedConnection> {
        let mut nodes: Vec<_> = self.nodes.iter().collect();
        fastrand::shuffle(&mut nodes);
        nodes.sort_by_key(|(address, _)| !self.primaries.contains(address));
        let links = nodes
            .into_iter()
            .map(|(_, known)| known.node.connection.clone());
        links.take(at_most).collect()
    }

    /// The ids of all its servers.
    pub(crate) fn ids(&self) -> HashSet<&str> {
        self.nodes.values().map(|known| known.id.as_str()).collect()
    }

    /// Whether both maps have the same node for every slot.
    pub(crate) fn has_same_owners(&self, other: &Self) -> bool {
        let same = |address: &String| {
            let node = |map: &'_ Self| map.node(address).map(Arc::as_ptr);
            node(self) == node(other)
        };
        self.primaries == other.primaries
            && self.owners == other.owners
            && self.primaries.iter().all(same)
    }

    /// The server at an address.
    pub(crate) fn node(&self, address: &str) -> Option<&Arc<Node>> {
        self.nodes.get(address).map(|known| &known.node)
    }

    /// A server by host and port, on the map or not.
    pub(crate) fn server_at(&self, host: &str, port: u16) -> Result<Server, CommandError> {
        let server = self.login.at(host, port);
        server.map_err(|_| CommandError::Unsent("a server has an unusable name".into()))
    }

    /// The same map with one slot moved to another of its servers.
    pub(crate) fn with(&self, slot: usize, address: &str) -> Self {
        let mut new = self.clone();
        let known = new.primaries.iter().position(|known| known == address);
        let number = known.unwrap_or_else(|| {
            new.primaries.push(address.to_owned());
            new.primaries.len() - 1
        });
        new.owners[slot] = u16::try_from(number).ok();
        new.firsts = firsts(&new.owners, new.primaries.len());
        new
    }

    /// A map of these ranges, with the existing nodes. Another id at the same address is
    /// another node.
    pub(crate) fn rebuilt(&self, ranges: &[SlotRange]) -> Result<SlotMap, CommandError> {
        let mut nodes = HashMap::new();
        let mut shards = Vec::new();
        for range in ranges {
            let mut primary = None;
            for member in &range.servers {
                let server = self.server_at(&member.host, member.port)?;
                let address = server.address();
                primary.get_or_insert_with(|| address.clone());
                if nodes.len() >= MAX_SERVERS && !nodes.contains_key(&address) {
                    let reason = format!("a map names more than {MAX_SERVERS} servers");
                    return Err(CommandError::Lost(reason));
                }
                let known = || self.known(&address, member, &server);
                nodes.entry(address.clone()).or_insert_with(known);
            }
            shards.extend(primary.map(|primary| (primary, range.from..=range.to)));
        }
        // Sorted, so that equal maps compare equal.
        let mut primaries: Vec<_> = shards.iter().map(|(primary, _)| primary.clone()).collect();
        primaries.sort();
        primaries.dedup();
        let mut owners = vec![None; SLOTS];
        for (primary, slots) in shards {
            let number = primaries.binary_search(&primary).ok();
            let number = number.and_then(|number| u16::try_from(number).ok());
            owners[slots].fill(number);
        }
        Ok(Self {
            login: self.login.clone(),
            firsts: firsts(&owners, primaries.len()),
            owners,
            primaries,
            nodes,
        })
    }

    fn known(&self, address: &str, member: &ClusterNode, server: &Server) -> KnownNode {
        let id = member.id.clone();
        let node = match self.nodes.get(address) {
            Some(known) if known.id == id => known.node.clone(),
            // Without an id in the map there is nothing to verify.
            _ => Arc::new(Node::in_cluster(server, (id != address).then_some(&id))),
        };
        KnownNode { id, node }
    }
}

fn firsts(owners: &[Option<u16>], primaries: usize) -> Vec<u64> {
    let mut firsts = vec![0; primaries];
    for (slot, owner) in owners.iter().enumerate().rev() {
        if let Some(owner) = owner {
            firsts[usize::from(*owner)] = slot as u64;
        }
    }
    firsts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(from: usize, to: usize, ports: &[u16]) -> SlotRange {
        let server = |port: &u16| ClusterNode {
            host: "a".into(),
            port: *port,
            id: format!("id{port}"),
        };
        SlotRange {
            from,
            to,
            servers: ports.iter().map(server).collect(),
        }
    }

    fn port(map: &SlotMap, slot: usize) -> Option<String> {
        map.owner(slot).map(|node| node.connection.address())
    }

    fn empty() -> SlotMap {
        SlotMap::empty(&Server::parse("redis://a:1", &Default::default()).unwrap())
    }

    #[test]
    fn first_server_of_range_has_its_slots() {
        let map = empty();
        assert!(map.owner(0).is_none());
        let map = map
            .rebuilt(&[range(0, 9, &[1, 2]), range(11, 16_383, &[3, 4])])
            .unwrap();
        assert_eq!(port(&map, 9).as_deref(), Some("a:1"));
        assert_eq!(port(&map, 10), None);
        assert_eq!(port(&map, 16_383).as_deref(), Some("a:3"));
        assert_eq!(
            [0, 9, 10, 11, 16_383].map(|slot| map.shard(slot)),
            [1, 1, 0, 12, 12]
        );
        assert_eq!(map.primaries().len(), 2);
        assert_eq!(map.refresh_candidates(9).len(), 4);
        let first: Vec<_> = map
            .refresh_candidates(2)
            .iter()
            .map(SharedConnection::address)
            .collect();
        assert!(first.contains(&"a:1".into()) && first.contains(&"a:3".into()));
    }

    #[test]
    fn nodes_are_kept_across_maps() {
        let ranges = [range(0, 9, &[1, 2]), range(10, 16_383, &[3])];
        let before = empty().rebuilt(&ranges).unwrap();
        let same = before
            .rebuilt(&[range(10, 16_383, &[3]), range(0, 9, &[1])])
            .unwrap();
        assert!(same.has_same_owners(&before));
        let after = before
            .rebuilt(&[range(0, 9, &[2]), range(10, 16_383, &[3])])
            .unwrap();
        assert!(!after.has_same_owners(&before));
        let kept = after.owner(10).unwrap();
        assert!(Arc::ptr_eq(kept, before.owner(10).unwrap()));
        assert_eq!(after.refresh_candidates(9).len(), 2);
    }

    /// A node that lost its configuration, or whose address another node has now.
    ///
    /// Red when nodes are kept by their address alone.
    #[test]
    fn other_id_at_address_is_another_node() {
        let before = empty().rebuilt(&[range(0, 16_383, &[1])]).unwrap();
        let mut other = range(0, 16_383, &[1]);
        other.servers[0].id = "other".into();
        let after = before.rebuilt(&[other]).unwrap();
        assert!(!Arc::ptr_eq(
            after.owner(0).unwrap(),
            before.owner(0).unwrap()
        ));
        assert!(!after.has_same_owners(&before));
    }

    #[test]
    fn single_slot_moves() {
        let map = empty()
            .rebuilt(&[range(0, 9_999, &[1]), range(10_000, 16_383, &[2])])
            .unwrap();
        let moved = map.with(7, "a:2");
        assert_eq!(port(&moved, 7).as_deref(), Some("a:2"));
        assert_eq!(port(&moved, 8).as_deref(), Some("a:1"));
        assert!(!moved.has_same_owners(&map));
    }

    /// Red without a limit on the servers of a map.
    #[test]
    fn map_with_too_many_servers_is_refused() {
        let ports = |from: u16, to: u16| (from..to).collect::<Vec<_>>();
        let within = range(0, 16_383, &ports(1, 1001));
        assert_eq!(empty().rebuilt(&[within]).unwrap().ids().len(), 1000);
        let beyond = range(0, 16_383, &ports(1, 1002));
        assert!(empty().rebuilt(&[beyond]).is_err());
    }
}
