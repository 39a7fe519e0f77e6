//! The map of a cluster: who has which slot, and a link to each server. It asks
//! servers for theirs, and keeps the links that there are already.

use std::collections::HashMap;
use std::sync::Arc;

use redis::cmd;

use super::carrier::exactly;
use super::failure::Failure;
use super::link::Link;
use super::node::Node;
use super::server::Server;
use super::slots::{self, Range, SLOTS};

/// Who has which slot.
#[derive(Clone)]
pub(super) struct Map {
    /// How to log in to every node.
    login: Server,
    /// Never forgotten, whoever is in the cluster by now.
    seeds: Arc<[String]>,
    /// For each slot the number of its primary below.
    owners: Vec<Option<u16>>,
    primaries: Vec<String>,
    /// The first slot of each.
    firsts: Vec<u64>,
    /// Every server of the map, replicas included, and the seeds.
    nodes: HashMap<String, Arc<Node>>,
}

impl Map {
    /// The map of somebody who knows these servers and no slots; `None` where
    /// there are none.
    pub(super) fn blank(seeds: &[Server]) -> Option<Self> {
        let node = |seed: &Server| (seed.address(), Arc::new(Node::in_cluster(seed)));
        Some(Self {
            login: seeds.first()?.clone(),
            seeds: seeds.iter().map(Server::address).collect(),
            owners: vec![None; SLOTS],
            primaries: Vec::new(),
            firsts: Vec::new(),
            nodes: seeds.iter().map(node).collect(),
        })
    }

    /// The primary that has a slot.
    pub(super) fn owner(&self, slot: usize) -> Option<&Arc<Node>> {
        let number = self.owners[slot]?;
        self.nodes.get(&self.primaries[usize::from(number)])
    }

    /// The shard that has a slot, by its first slot: that stays when a replica
    /// takes over. 0 for a slot that nobody has.
    pub(super) fn part(&self, slot: usize) -> u64 {
        let first = self.owners[slot].map(|owner| self.firsts[usize::from(owner)]);
        first.map_or(0, |first| first + 1)
    }

    /// The links to all primaries, by address.
    pub(super) fn primaries(&self) -> Vec<(String, Link)> {
        let link = |address: &String| {
            let node = self.nodes.get(address)?;
            Some((address.clone(), node.link.clone()))
        };
        self.primaries.iter().filter_map(link).collect()
    }

    /// Whom to ask for a new map: some servers, in no order but that primaries
    /// come first, who hear of a fail-over before replicas do.
    pub(super) fn ask(&self, at_most: usize) -> Vec<Link> {
        let mut nodes: Vec<_> = self.nodes.iter().collect();
        fastrand::shuffle(&mut nodes);
        nodes.sort_by_key(|(address, _)| !self.primaries.contains(address));
        let links = nodes.into_iter().map(|(_, node)| node.link.clone());
        links.take(at_most).collect()
    }

    /// Whether every slot is where it is on the other map.
    pub(super) fn agrees_with(&self, other: &Self) -> bool {
        self.primaries == other.primaries && self.owners == other.owners
    }

    /// A server that was named, known already or not.
    pub(super) fn node(&self, host: &str, port: u16) -> Result<(String, Arc<Node>), Failure> {
        let server = self.login.at(host, port);
        let server = server.map_err(|_| Failure::Unsent("a server has an unusable name".into()))?;
        let address = server.address();
        let node = match self.nodes.get(&address) {
            Some(node) => node.clone(),
            None => Arc::new(Node::in_cluster(&server)),
        };
        Ok((address, node))
    }

    /// The same map with one slot at another server.
    pub(super) fn with(&self, slot: usize, host: &str, port: u16) -> Result<Self, Failure> {
        let mut new = self.clone();
        let (address, node) = self.node(host, port)?;
        let known = new.primaries.iter().position(|known| *known == address);
        let number = known.unwrap_or_else(|| {
            new.primaries.push(address.clone());
            new.primaries.len() - 1
        });
        new.owners[slot] = u16::try_from(number).ok();
        new.firsts = firsts(&new.owners, new.primaries.len());
        new.nodes.insert(address, node);
        Ok(new)
    }

    /// A map of these ranges, with the links that there are already.
    pub(super) fn redrawn(&self, ranges: &[Range]) -> Result<Map, Failure> {
        let seeds = self.seeds.iter();
        let mut nodes: HashMap<_, _> = seeds
            .filter_map(|seed| Some((seed.clone(), self.nodes.get(seed)?.clone())))
            .collect();
        let mut shards = Vec::new();
        for range in ranges {
            let mut primary = None;
            for (host, port) in &range.servers {
                let (address, node) = self.node(host, *port)?;
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
        Ok(Self {
            login: self.login.clone(),
            seeds: self.seeds.clone(),
            firsts: firsts(&owners, primaries.len()),
            owners,
            primaries,
            nodes,
        })
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

/// The map as one server draws it.
pub(super) struct Chart {
    /// Whether that server finds the cluster in order, and the latest epoch
    /// that it has heard of: each fail-over begins one.
    pub(super) rank: (bool, u64),
    pub(super) ranges: Vec<Range>,
}

/// Asks one server for the map.
pub(super) async fn chart(link: &Link) -> Result<Chart, Failure> {
    let mut slots = cmd("CLUSTER");
    slots.arg("SLOTS");
    let mut info = cmd("CLUSTER");
    info.arg("INFO");
    let replies = link.send(&[slots, info]).await?;
    let [slots, info] = exactly(replies)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn range(from: usize, to: usize, ports: &[u16]) -> Range {
        let server = |port: &u16| ("a".to_owned(), *port);
        Range {
            from,
            to,
            servers: ports.iter().map(server).collect(),
        }
    }

    fn port(map: &Map, slot: usize) -> Option<String> {
        map.owner(slot).map(|node| node.link.address())
    }

    fn blank() -> Map {
        Map::blank(&[Server::parse("redis://a:1").unwrap()]).unwrap()
    }

    #[test]
    fn the_first_of_a_range_has_its_slots() {
        let map = blank();
        assert!(map.owner(0).is_none());
        let map = map
            .redrawn(&[range(0, 9, &[1, 2]), range(11, 16_383, &[3, 4])])
            .unwrap();
        assert_eq!(port(&map, 9).as_deref(), Some("a:1"));
        assert_eq!(port(&map, 10), None);
        assert_eq!(port(&map, 16_383).as_deref(), Some("a:3"));
        assert_eq!(
            [0, 9, 10, 11, 16_383].map(|slot| map.part(slot)),
            [1, 1, 0, 12, 12]
        );
        assert_eq!(map.primaries().len(), 2);
        assert_eq!(map.ask(9).len(), 4);
        let first: Vec<_> = map.ask(2).iter().map(Link::address).collect();
        assert!(first.contains(&"a:1".into()) && first.contains(&"a:3".into()));
    }

    #[test]
    fn links_outlive_a_change_and_the_order_is_none() {
        let ranges = [range(0, 9, &[1, 2]), range(10, 16_383, &[3])];
        let before = blank().redrawn(&ranges).unwrap();
        let same = before
            .redrawn(&[range(10, 16_383, &[3]), range(0, 9, &[1])])
            .unwrap();
        assert!(same.agrees_with(&before));
        let after = before
            .redrawn(&[range(0, 9, &[2]), range(10, 16_383, &[3])])
            .unwrap();
        assert!(!after.agrees_with(&before));
        let kept = after.owner(10).unwrap();
        assert!(Arc::ptr_eq(kept, before.owner(10).unwrap()));
        // Whoever is named in the URL can always be asked again.
        assert_eq!(after.ask(9).len(), 3);
    }

    #[test]
    fn one_slot_may_move_alone() {
        let map = blank().redrawn(&[range(0, 16_383, &[1])]).unwrap();
        let moved = map.with(7, "b", 9).unwrap();
        assert_eq!(port(&moved, 7).as_deref(), Some("b:9"));
        assert_eq!(port(&moved, 8).as_deref(), Some("a:1"));
        assert!(!moved.agrees_with(&map));
    }
}
