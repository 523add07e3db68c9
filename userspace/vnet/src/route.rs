//! A router's routing table: longest prefix match that also says how many bits of the address decided.
//!
//! Built by the snapshot from a router's ports and static routes; immutable. Read by the router device.

use crate::id::PortId;
use crate::model::{Port, Route, RouteAction};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a router does with packets for a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// It is the router's own address.
    Local,
    /// It isn't an address of a single machine (RFC 1812, 5.3.7): group, broadcast, loopback, this network. Or one
    /// that means something on its own link only (RFC 4291, 2.5.6).
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
        address: IpAddr,
    },
    /// A route says to drop in silence.
    Blackhole,
    /// A route says to refuse.
    Reject,
    /// A route whose next hop isn't a neighbour; found only when no other was.
    Inactive {
        /// The next hop.
        address: IpAddr,
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
    pub fn describe(self, next_hop: IpAddr) -> String {
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
    pub route: Option<(IpNet, Target)>,
    /// Leading bits of the address that prove it: they agree with the prefix, and with no longer one.
    pub bits: u8,
}

/// All prefixes that a router knows. Two tables are equal when they decide everything alike.
#[derive(Clone, Debug, Default)]
pub struct RoutingTable {
    entries: Vec<(IpNet, Target)>,
    /// Two binary tries: node 0 is the root of IPv4's, node 1 that of IPv6's.
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

/// Prefixes that are never forwarded: 0/8, 127/8, 224/4, 240/4 (RFC 1812, 5.3.7; RFC 6890); ::, ::1, fe80::/10 and
/// ff00::/8 (RFC 4291, 2.4 and 2.5.6; groups aren't routed).
const NOT_UNICAST: [(IpAddr, u8); 8] = [
    (IpAddr::V4(Ipv4Addr::new(0, 0, 0, 0)), 8),
    (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
    (IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), 4),
    (IpAddr::V4(Ipv4Addr::new(240, 0, 0, 0)), 4),
    (IpAddr::V6(Ipv6Addr::UNSPECIFIED), 128),
    (IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
    (IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10),
    (IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), 8),
];

impl RoutingTable {
    /// The table of a router with these ports and static routes. A route whose next hop is in no port's
    /// prefix isn't used.
    pub fn new<'a>(ports: impl Iterator<Item = &'a Port>, routes: &[Route]) -> RoutingTable {
        let ports: Vec<&Port> = ports.collect();
        let networks = networks(ports.iter().copied());
        let mut best = BTreeMap::new();
        for own in ports.iter().filter_map(|port| port.link_local()) {
            offer(&mut best, IpAddr::V6(own).into(), RANK_LOCAL, Target::Local);
        }
        for (address, bits) in NOT_UNICAST {
            if let Ok(prefix) = IpNet::new(address, bits) {
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
            for address in not_in_subnet(network).into_iter().flatten() {
                let prefix = address.into();
                offer(&mut best, prefix, RANK_NOT_UNICAST, Target::NotUnicast);
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

    fn of_best(best: BTreeMap<IpNet, (Rank, Target)>) -> RoutingTable {
        let entries = best
            .into_iter()
            .map(|(prefix, (_, target))| (prefix, target));
        Self::from_entries(entries.collect())
    }

    /// The table of these prefixes, each of them once.
    pub fn from_entries(entries: Vec<(IpNet, Target)>) -> RoutingTable {
        let mut table = RoutingTable {
            nodes: vec![Node::default(); 2],
            entries,
            inactive: None,
        };
        for index in 0..table.entries.len() {
            table.insert(index);
        }
        table
    }

    /// Every prefix, in order.
    pub fn entries(&self) -> &[(IpNet, Target)] {
        &self.entries
    }

    /// The longest prefix that holds `address`; when there is none, the longest that is inactive.
    pub fn lookup(&self, address: IpAddr) -> Lookup {
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

    fn lookup_used(&self, address: IpAddr) -> Lookup {
        let mut found = 0;
        let mut node = self.nodes.get(root(address)).copied().unwrap_or_default();
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
        let mut at = root(prefix.addr());
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

fn offer(best: &mut BTreeMap<IpNet, (Rank, Target)>, prefix: IpNet, rank: Rank, target: Target) {
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
    let mut used: BTreeMap<IpNet, &Route> = BTreeMap::new();
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

fn networks<'a>(ports: impl Iterator<Item = &'a Port>) -> Vec<(PortId, IpNet)> {
    ports
        .flat_map(|port| port.networks().map(|net| (port.id, net)))
        .collect()
}

/// Addresses of a subnet that aren't a neighbour's. RFC 2644: what goes to everyone in a subnet isn't forwarded
/// into it. RFC 3021: /31 has no such. RFC 4291, 2.6.1: an IPv6 subnet's first address is that of its routers,
/// which isn't a neighbour; it has no last one. RFC 6164: /127 has neither.
pub(crate) fn not_in_subnet(network: IpNet) -> [Option<IpAddr>; 2] {
    match network {
        IpNet::V4(net) if net.prefix_len() < 31 => {
            [Some(net.network().into()), Some(net.broadcast().into())]
        }
        IpNet::V6(net) if net.prefix_len() < 127 => [Some(net.network().into()), None],
        IpNet::V4(_) | IpNet::V6(_) => [None, None],
    }
}

/// The port in whose prefix `address` is; none for the router's own addresses.
fn connected(networks: &[(PortId, IpNet)], address: IpAddr) -> Result<PortId, Inactive> {
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

/// The root of the trie of an address's family.
const fn root(address: IpAddr) -> usize {
    address.is_ipv6() as usize
}

/// Bit `depth` of an address, counted from the most significant one.
fn bit(address: IpAddr, depth: u8) -> usize {
    let shift = u32::from(depth);
    match address {
        IpAddr::V4(it) => ((it.to_bits() >> (31 - shift)) & 1) as usize,
        IpAddr::V6(it) => ((it.to_bits() >> (127 - shift)) & 1) as usize,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn net(text: &str) -> IpNet {
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

    /// The 128 bits of an address; an IPv4 one is on the left.
    fn bits(address: IpAddr) -> u128 {
        match address {
            IpAddr::V4(it) => u128::from(it.to_bits()) << 96,
            IpAddr::V6(it) => it.to_bits(),
        }
    }

    fn address(is_v6: bool, bits: u128) -> IpAddr {
        if is_v6 {
            return Ipv6Addr::from_bits(bits).into();
        }
        Ipv4Addr::from_bits((bits >> 96) as u32).into()
    }

    /// The definition, word for word, without a trie.
    fn naive(entries: &[(IpNet, Target)], address: IpAddr) -> Lookup {
        let same = |it: &&(IpNet, Target)| it.0.addr().is_ipv4() == address.is_ipv4();
        let holds = |it: &&(IpNet, Target)| it.0.contains(&address);
        let route = entries
            .iter()
            .filter(holds)
            .max_by_key(|it| it.0.prefix_len())
            .copied();
        let length = route.map_or(0, |it| it.0.prefix_len());
        // The fewest leading bits under which no address has another answer.
        let excluded = entries
            .iter()
            .filter(same)
            .filter(|it| it.0.prefix_len() > length)
            .map(|(prefix, _)| {
                let common = (bits(prefix.addr()) ^ bits(address)).leading_zeros() as u8;
                common + 1
            });
        Lookup {
            route,
            bits: excluded.chain([length]).max().unwrap_or(0),
        }
    }

    fn prefixes() -> impl Strategy<Value = Vec<(IpNet, Target)>> {
        // Few values in few bits, so that prefixes nest and touch.
        let near = prop_oneof![0_u128..64, any::<u128>()];
        let prefix = (any::<bool>(), near, any::<u8>()).prop_map(|(is_v6, bits, length)| {
            let address = address(is_v6, bits.rotate_right(6));
            let longest = if is_v6 { 128 } else { 32 };
            IpNet::new(address, length % (longest + 1)).unwrap().trunc()
        });
        proptest::collection::btree_set(prefix, 0..24)
            .prop_map(|set| set.into_iter().map(|it| (it, Target::Blackhole)).collect())
    }

    proptest! {
        #[test]
        fn lookups_agree_with_the_definition(
            entries in prefixes(),
            is_v6: bool,
            near in 0_u128..64,
            noise in prop_oneof![Just(0), any::<u128>()],
        ) {
            let address = address(is_v6, near.rotate_right(6) ^ (noise >> 6));
            let table = RoutingTable::from_entries(entries.clone());
            prop_assert_eq!(table.lookup(address), naive(&entries, address));
        }

        #[test]
        fn the_bits_prove_the_answer(entries in prefixes(), is_v6: bool, one: u128, other: u128) {
            let table = RoutingTable::from_entries(entries);
            let lookup = table.lookup(address(is_v6, one));
            let mask = u128::MAX.checked_shl(128 - u32::from(lookup.bits)).unwrap_or(0);
            let alike = address(is_v6, one & mask | other & !mask);
            prop_assert_eq!(table.lookup(alike), lookup);
        }
    }

    #[test]
    fn families_share_nothing() {
        let table = table(&["0.0.0.0/0", "fd00:1::/64", "fd00:1::/48", "fd00:2::/64"]);
        let near = (Some("fd00:1::/64".into()), 64);
        assert_eq!(found(&table, "fd00:1::b"), near);
        assert_eq!(
            found(&table, "fd00:1:0:1::b"),
            (Some("fd00:1::/48".into()), 64)
        );
        assert_eq!(found(&table, "fd00:3::b"), (None, 32));
        assert_eq!(found(&table, "10.0.0.1"), (Some("0.0.0.0/0".into()), 0));
    }
}
