//! A router's routing table: longest prefix match that also says how many bits of the address decided.
//!
//! Built by the snapshot from a router's ports and static routes; immutable. Read by the router device.

use crate::id::PortId;
use crate::model::{Port, Route, RouteAction};
use ipnet::Ipv4Net;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// What a router does with packets for a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// It is the router's own address.
    Local,
    /// It isn't an address of a single machine (RFC 1812, 5.3.7): group, broadcast, loopback, this network.
    NotUnicast,
    /// The destination is a neighbour on this port.
    Connected {
        /// The egress port.
        port: PortId,
    },
    /// The next hop is a neighbour on this port.
    Via {
        /// The egress port.
        port: PortId,
        /// The next hop.
        address: Ipv4Addr,
    },
    /// A route says to drop in silence.
    Blackhole,
    /// A route says to refuse.
    Reject,
    /// A route whose next hop isn't a neighbour; found only when no other was.
    Inactive {
        /// The next hop.
        address: Ipv4Addr,
        /// Why it isn't one.
        why: Inactive,
    },
}

/// Why the next hop of a route isn't a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Inactive {
    /// The next hop is in the prefix of none of the router's ports.
    NotConnected,
    /// The next hop is an address of the router itself.
    OwnAddress,
}

impl Inactive {
    /// In words: `192.168.77.1 is in no connected subnet`.
    pub fn describe(self, next_hop: Ipv4Addr) -> String {
        match self {
            Inactive::NotConnected => format!("{next_hop} is in no connected subnet"),
            Inactive::OwnAddress => format!("{next_hop} is the router's own address"),
        }
    }
}

/// What a lookup found, and what it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// The longest prefix that holds the address, with what to do.
    pub route: Option<(Ipv4Net, Target)>,
    /// Leading bits of the address that prove it: they agree with the prefix, and with no longer one.
    pub bits: u8,
}

/// All prefixes that a router knows. Two tables are equal when they decide everything alike.
#[derive(Clone, Debug, Default)]
pub struct RoutingTable {
    entries: Vec<(Ipv4Net, Target)>,
    /// A binary trie; node 0 is the root.
    nodes: Vec<Node>,
    /// Routes whose next hop isn't a neighbour, as a table of [`Target::Inactive`]; none when there is no such.
    inactive: Option<Box<RoutingTable>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Node {
    /// Next node for a 0 and a 1; 0 for none.
    children: [u32; 2],
    /// Index into `entries` plus one; 0 for none.
    entry: u32,
}

/// Which of several entries for one prefix counts: the lowest.
type Rank = u64;

const RANK_LOCAL: Rank = 0;
const RANK_NOT_UNICAST: Rank = 1;
const RANK_CONNECTED: Rank = 2;
const RANK_STATIC: Rank = 3;

/// Prefixes that are never forwarded: 0/8, 127/8, 224/4, 240/4 (RFC 1812, 5.3.7; RFC 6890).
const NOT_UNICAST: [(Ipv4Addr, u8); 4] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

impl RoutingTable {
    /// The table of a router with these ports and static routes. A route whose next hop is in no port's
    /// prefix isn't used.
    pub fn new<'a>(ports: impl Iterator<Item = &'a Port>, routes: &[Route]) -> RoutingTable {
        let networks = networks(ports);
        let mut best = BTreeMap::new();
        for (address, bits) in NOT_UNICAST {
            if let Ok(prefix) = Ipv4Net::new(address, bits) {
                offer(&mut best, prefix, RANK_NOT_UNICAST, Target::NotUnicast);
            }
        }
        for &(port, network) in &networks {
            offer(&mut best, network.addr().into(), RANK_LOCAL, Target::Local);
            offer(
                &mut best,
                network.trunc(),
                RANK_CONNECTED,
                Target::Connected { port },
            );
            // RFC 2644: what goes to everyone in a subnet isn't forwarded into it. RFC 3021: /31 has no such.
            if network.prefix_len() < 31 {
                for address in [network.network(), network.broadcast()] {
                    offer(
                        &mut best,
                        address.into(),
                        RANK_NOT_UNICAST,
                        Target::NotUnicast,
                    );
                }
            }
        }
        let mut unused = BTreeMap::new();
        for route in routes {
            let target = match route.action {
                RouteAction::Via(address) => match connected(&networks, address) {
                    Ok(port) => Target::Via { port, address },
                    Err(why) => Target::Inactive { address, why },
                },
                RouteAction::Blackhole => Target::Blackhole,
                RouteAction::Reject => Target::Reject,
            };
            let rank = RANK_STATIC + Rank::from(route.weight);
            let is_inactive = matches!(target, Target::Inactive { .. });
            let into = if is_inactive { &mut unused } else { &mut best };
            offer(into, route.to.trunc(), rank, target);
        }
        let inactive = (!unused.is_empty()).then(|| Box::new(Self::of_best(unused)));
        RoutingTable {
            inactive,
            ..Self::of_best(best)
        }
    }

    fn of_best(best: BTreeMap<Ipv4Net, (Rank, Target)>) -> RoutingTable {
        let entries = best
            .into_iter()
            .map(|(prefix, (_, target))| (prefix, target));
        Self::from_entries(entries.collect())
    }

    /// The table of these prefixes, each of them once.
    pub fn from_entries(entries: Vec<(Ipv4Net, Target)>) -> RoutingTable {
        let mut table = RoutingTable {
            nodes: vec![Node::default()],
            entries,
            inactive: None,
        };
        for index in 0..table.entries.len() {
            table.insert(index);
        }
        table
    }

    /// Every prefix, in order.
    pub fn entries(&self) -> &[(Ipv4Net, Target)] {
        &self.entries
    }

    /// The longest prefix that holds `address`; when there is none, the longest that is inactive.
    pub fn lookup(&self, address: Ipv4Addr) -> Lookup {
        let used = self.lookup_used(address);
        match &self.inactive {
            Some(inactive) if used.route.is_none() => {
                let unused = inactive.lookup_used(address);
                let bits = used.bits.max(unused.bits);
                Lookup { bits, ..unused }
            }
            _ => used,
        }
    }

    fn lookup_used(&self, address: Ipv4Addr) -> Lookup {
        let mut found = 0;
        let mut node = self.nodes.first().copied().unwrap_or_default();
        let mut bits = 0;
        loop {
            if node.entry != 0 {
                found = node.entry;
            }
            if node.children == [0, 0] {
                break;
            }
            let next = node.children[bit(address, bits)];
            // There are longer prefixes: this bit says whether the address may be in one.
            bits += 1;
            if next == 0 {
                break;
            }
            node = self.nodes[next as usize];
        }
        let route = (found as usize)
            .checked_sub(1)
            .map(|index| self.entries[index]);
        Lookup { route, bits }
    }

    fn insert(&mut self, index: usize) {
        let (prefix, _) = self.entries[index];
        let mut at = 0;
        for depth in 0..prefix.prefix_len() {
            let side = bit(prefix.addr(), depth);
            if self.nodes[at].children[side] == 0 {
                self.nodes[at].children[side] = self.nodes.len() as u32;
                self.nodes.push(Node::default());
            }
            at = self.nodes[at].children[side] as usize;
        }
        self.nodes[at].entry = index as u32 + 1;
    }
}

impl PartialEq for RoutingTable {
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries && self.inactive == other.inactive
    }
}

impl Eq for RoutingTable {}

fn offer(
    best: &mut BTreeMap<Ipv4Net, (Rank, Target)>,
    prefix: Ipv4Net,
    rank: Rank,
    target: Target,
) {
    let entry = best.entry(prefix).or_insert((rank, target));
    if rank < entry.0 {
        *entry = (rank, target);
    }
}

/// The routes that a router with these ports doesn't use, and why.
pub fn unused<'a, 'r>(
    ports: impl Iterator<Item = &'a Port>,
    routes: &'r [Route],
) -> Vec<(&'r Route, String)> {
    let networks = networks(ports);
    let mut unused = Vec::new();
    // For each prefix the route that is used so far; sorting keeps the order of those of one weight.
    let mut used: BTreeMap<Ipv4Net, &Route> = BTreeMap::new();
    let mut ranked: Vec<&Route> = routes.iter().collect();
    ranked.sort_by_key(|route| route.weight);
    for route in ranked {
        let to = route.to.trunc();
        let next_hop = match route.action {
            RouteAction::Via(address) => connected(&networks, address)
                .err()
                .map(|why| why.describe(address)),
            RouteAction::Blackhole | RouteAction::Reject => None,
        };
        let why = if next_hop.is_some() {
            next_hop
        } else if networks.iter().any(|(_, network)| network.trunc() == to) {
            Some(format!("{to} is connected"))
        } else if let Some(first) = used.get(&to) {
            Some(format!("one of {to} with weight {} is used", first.weight))
        } else {
            used.insert(to, route);
            None
        };
        unused.extend(why.map(|why| (route, why)));
    }
    unused
}

fn networks<'a>(ports: impl Iterator<Item = &'a Port>) -> Vec<(PortId, Ipv4Net)> {
    ports
        .flat_map(|port| port.ipv4_networks().map(|net| (port.id, net)))
        .collect()
}

/// The port in whose prefix `address` is; none for the router's own addresses.
fn connected(networks: &[(PortId, Ipv4Net)], address: Ipv4Addr) -> Result<PortId, Inactive> {
    if networks
        .iter()
        .any(|(_, network)| network.addr() == address)
    {
        return Err(Inactive::OwnAddress);
    }
    networks
        .iter()
        .filter(|(_, network)| network.contains(&address))
        .max_by_key(|(port, network)| (network.prefix_len(), std::cmp::Reverse(*port)))
        .map(|(port, _)| *port)
        .ok_or(Inactive::NotConnected)
}

/// Bit `depth` of an address, counted from the most significant one.
fn bit(address: Ipv4Addr, depth: u8) -> usize {
    ((address.to_bits() >> (31 - u32::from(depth))) & 1) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    fn table(prefixes: &[&str]) -> RoutingTable {
        RoutingTable::from_entries(
            prefixes
                .iter()
                .map(|text| (net(text), Target::Blackhole))
                .collect(),
        )
    }

    fn found(table: &RoutingTable, address: &str) -> (Option<String>, u8) {
        let lookup = table.lookup(address.parse().unwrap());
        (
            lookup.route.map(|(prefix, _)| prefix.to_string()),
            lookup.bits,
        )
    }

    #[test]
    fn a_lone_prefix_takes_its_own_bits() {
        let table = table(&["10.0.1.0/24"]);
        assert_eq!(found(&table, "10.0.1.7"), (Some("10.0.1.0/24".into()), 24));
        assert_eq!(found(&table, "10.0.0.7"), (None, 24));
        assert_eq!(found(&table, "192.0.2.1"), (None, 1));
        assert_eq!(found(&RoutingTable::default(), "192.0.2.1"), (None, 0));
    }

    #[test]
    fn a_longer_prefix_costs_the_bits_that_exclude_it() {
        let table = table(&["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16"]);
        assert_eq!(found(&table, "10.1.2.3"), (Some("10.1.0.0/16".into()), 16));
        assert_eq!(found(&table, "10.0.2.3"), (Some("10.0.0.0/8".into()), 16));
        assert_eq!(found(&table, "10.128.0.1"), (Some("10.0.0.0/8".into()), 9));
        assert_eq!(found(&table, "192.0.2.1"), (Some("0.0.0.0/0".into()), 1));
        assert_eq!(found(&table, "11.0.0.1"), (Some("0.0.0.0/0".into()), 8));
    }

    #[test]
    fn neighbouring_prefixes_cost_nothing() {
        let table = table(&["10.0.1.0/24", "10.0.2.0/24"]);
        assert_eq!(found(&table, "10.0.1.7"), (Some("10.0.1.0/24".into()), 24));
    }

    #[test]
    fn a_host_route_is_matched_whole() {
        let table = table(&["0.0.0.0/0", "10.0.1.1/32"]);
        assert_eq!(found(&table, "10.0.1.1"), (Some("10.0.1.1/32".into()), 32));
        assert_eq!(found(&table, "10.0.1.0"), (Some("0.0.0.0/0".into()), 32));
    }

    /// The definition, word for word, without a trie.
    fn naive(entries: &[(Ipv4Net, Target)], address: Ipv4Addr) -> Lookup {
        let holds = |it: &&(Ipv4Net, Target)| it.0.contains(&address);
        let route = entries
            .iter()
            .filter(holds)
            .max_by_key(|it| it.0.prefix_len())
            .copied();
        let length = route.map_or(0, |it| it.0.prefix_len());
        // The fewest leading bits under which no address has another answer.
        let excluded = entries
            .iter()
            .filter(|it| it.0.prefix_len() > length)
            .map(|(prefix, _)| {
                let common = (prefix.addr().to_bits() ^ address.to_bits()).leading_zeros() as u8;
                common + 1
            });
        Lookup {
            route,
            bits: excluded.chain([length]).max().unwrap_or(0),
        }
    }

    fn prefixes() -> impl Strategy<Value = Vec<(Ipv4Net, Target)>> {
        // Few values in few bits, so that prefixes nest and touch.
        let prefix =
            (prop_oneof![0_u32..64, any::<u32>()], 0_u8..=32).prop_map(|(bits, length)| {
                let address = Ipv4Addr::from_bits(bits.rotate_right(6));
                Ipv4Net::new(address, length).unwrap().trunc()
            });
        proptest::collection::btree_set(prefix, 0..24)
            .prop_map(|set| set.into_iter().map(|it| (it, Target::Blackhole)).collect())
    }

    proptest! {
        #[test]
        fn lookups_agree_with_the_definition(
            entries in prefixes(),
            near in 0_u32..64,
            noise in prop_oneof![Just(0), any::<u32>()],
        ) {
            let address = Ipv4Addr::from_bits(near.rotate_right(6) ^ (noise >> 6));
            let table = RoutingTable::from_entries(entries.clone());
            prop_assert_eq!(table.lookup(address), naive(&entries, address));
        }

        #[test]
        fn the_bits_prove_the_answer(entries in prefixes(), address: u32, other: u32) {
            let table = RoutingTable::from_entries(entries);
            let lookup = table.lookup(Ipv4Addr::from_bits(address));
            let mask = u32::MAX.checked_shl(32 - u32::from(lookup.bits)).unwrap_or(0);
            let alike = Ipv4Addr::from_bits(address & mask | other & !mask);
            prop_assert_eq!(table.lookup(alike), lookup);
        }
    }
}
