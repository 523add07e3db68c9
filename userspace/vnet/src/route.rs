//! A router's routing table: what to do with a packet by its destination and source, and how many bits decided.
//!
//! Built by the snapshot from a router's ports and static routes; immutable. Read by the router device.

use crate::id::PortId;
use crate::model::{Port, Route, RouteAction};
use crate::trie::Trie;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use weft_common::limits::NEXT_HOPS_MAX;
use weft_common::select;

/// What a router does with packets for a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Any of these next hops, each of them once, in order, at most [`NEXT_HOPS_MAX`].
    Via(Vec<NextHop>),
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

/// A neighbour that takes packets on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NextHop {
    /// The egress port.
    pub port: PortId,
    /// Its address.
    pub address: IpAddr,
}

impl NextHop {
    /// The same number on every host: what a choice among next hops is computed from.
    pub fn identity(&self) -> u64 {
        let (port_high, port_low) = self.port.0.as_u64_pair();
        let address = match self.address {
            IpAddr::V4(it) => u128::from(it.to_bits()),
            IpAddr::V6(it) => it.to_bits(),
        };
        select::identity(&[port_high, port_low, (address >> 64) as u64, address as u64])
    }
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup<'a> {
    /// What to do, in order of preference: the longest destination, then the longest source, then the lowest weight.
    /// All but the last are next hops: where none of them can be reached, the following counts.
    pub routes: Vec<Found<'a>>,
    /// Leading bits of the destination that prove it.
    pub bits: u8,
    /// Leading bits of the source that prove it, when none of the routes counts.
    pub source_bits: u8,
}

/// A route that a lookup found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<'a> {
    /// Destinations.
    pub to: IpNet,
    /// Sources; none for all of them.
    pub from: Option<IpNet>,
    /// What to do.
    pub target: &'a Target,
    /// Leading bits of the source that prove that this one, or one before it, counts.
    pub source_bits: u8,
}

/// All routes that a router knows. Two tables are equal when they decide everything alike.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoutingTable {
    /// By destination, then by source, where a prefix of length 0 stands for all; by weight, the lowest first.
    destinations: Trie<Trie<Vec<Target>>>,
    /// Routes whose next hop isn't a neighbour, as a table of [`Target::Inactive`]; none when there is no such.
    inactive: Option<Box<RoutingTable>>,
}

/// Targets by destination and source, and by their rank.
type Ranked = BTreeMap<IpNet, BTreeMap<IpNet, BTreeMap<Rank, Target>>>;

/// Which of several entries for one destination and source counts: the lowest.
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
        let mut ranked = Ranked::new();
        let mut offer = |to: IpNet, rank, target| offer(&mut ranked, to, None, rank, target);
        for own in ports.iter().filter_map(|port| port.link_local()) {
            offer(IpAddr::V6(own).into(), RANK_LOCAL, Target::Local);
        }
        for (address, bits) in NOT_UNICAST {
            if let Ok(prefix) = IpNet::new(address, bits) {
                offer(prefix, RANK_NOT_UNICAST, Target::NotUnicast);
            }
        }
        for &(port, network) in &networks {
            offer(network.addr().into(), RANK_LOCAL, Target::Local);
            offer(network.trunc(), RANK_CONNECTED, Target::Connected { port });
            for address in not_in_subnet(network).into_iter().flatten() {
                offer(address.into(), RANK_NOT_UNICAST, Target::NotUnicast);
            }
        }
        let inactive = static_routes(&mut ranked, &networks, routes);
        RoutingTable {
            destinations: trie_of(ranked),
            inactive: (!inactive.is_empty()).then(|| {
                Box::new(RoutingTable {
                    destinations: trie_of(inactive),
                    inactive: None,
                })
            }),
        }
    }

    /// What to do with packets between two addresses of one family; when nothing, the longest that is inactive.
    pub fn lookup(&self, source: IpAddr, destination: IpAddr) -> Lookup<'_> {
        let used = self.lookup_used(source, destination);
        match &self.inactive {
            Some(inactive) if used.routes.is_empty() => {
                let mut unused = inactive.lookup_used(source, destination);
                unused.routes.truncate(1);
                for found in &mut unused.routes {
                    found.source_bits = found.source_bits.max(used.source_bits);
                }
                Lookup {
                    routes: unused.routes,
                    bits: used.bits.max(unused.bits),
                    source_bits: used.source_bits.max(unused.source_bits),
                }
            }
            _ => used,
        }
    }

    fn lookup_used(&self, source: IpAddr, destination: IpAddr) -> Lookup<'_> {
        let destinations = self.destinations.lookup(destination);
        let mut lookup = Lookup {
            routes: Vec::new(),
            bits: destinations.bits,
            source_bits: 0,
        };
        for (to, sources) in destinations.entries {
            let sources = sources.lookup(source);
            lookup.source_bits = lookup.source_bits.max(sources.bits);
            for (from, targets) in sources.entries {
                for target in targets {
                    lookup.routes.push(Found {
                        to: *to,
                        from: (from.prefix_len() > 0).then_some(*from),
                        target,
                        source_bits: lookup.source_bits,
                    });
                    if !matches!(target, Target::Via(_)) {
                        return lookup;
                    }
                }
            }
        }
        lookup
    }
}

/// Adds the static routes; returns those whose next hop isn't a neighbour.
fn static_routes(ranked: &mut Ranked, networks: &[(PortId, IpNet)], routes: &[Route]) -> Ranked {
    let mut inactive = Ranked::new();
    for route in routes {
        let rank = RANK_STATIC + Rank::from(route.weight);
        let (to, from) = (route.to.trunc(), route.from.map(|from| from.trunc()));
        let target = match route.action {
            RouteAction::Via(address) => match connected(networks, address) {
                Ok(port) => Target::Via(vec![NextHop { port, address }]),
                Err(why) => {
                    let target = Target::Inactive { address, why };
                    offer(&mut inactive, to, from, rank, target);
                    continue;
                }
            },
            RouteAction::Blackhole => Target::Blackhole,
            RouteAction::Reject => Target::Reject,
        };
        offer(ranked, to, from, rank, target);
    }
    inactive
}

/// Adds a target. Next hops of one rank join; of anything else with one rank the first counts.
fn offer(ranked: &mut Ranked, to: IpNet, from: Option<IpNet>, rank: Rank, target: Target) {
    let all = if to.addr().is_ipv6() {
        IpNet::from(Ipv6Net::default())
    } else {
        IpNet::from(Ipv4Net::default())
    };
    let by_rank = ranked.entry(to).or_default();
    let by_rank = by_rank.entry(from.unwrap_or(all)).or_default();
    match (by_rank.entry(rank), target) {
        (Entry::Vacant(place), target) => _ = place.insert(target),
        (Entry::Occupied(mut place), Target::Via(more)) => {
            if let Target::Via(hops) = place.get_mut() {
                hops.extend(more);
                hops.sort_unstable();
                hops.dedup();
                hops.truncate(NEXT_HOPS_MAX);
            }
        }
        (Entry::Occupied(_), _) => {}
    }
}

/// What nothing can come behind ends the list of an entry.
fn trie_of(ranked: Ranked) -> Trie<Trie<Vec<Target>>> {
    let targets = |by_rank: BTreeMap<Rank, Target>| {
        let mut targets: Vec<Target> = by_rank.into_values().collect();
        let last = targets.iter().position(|it| !matches!(it, Target::Via(_)));
        targets.truncate(last.map_or(targets.len(), |last| last + 1));
        targets
    };
    let sources = |sources: BTreeMap<IpNet, BTreeMap<Rank, Target>>| {
        let each = sources.into_iter();
        Trie::new(
            each.map(|(from, by_rank)| (from, targets(by_rank)))
                .collect(),
        )
    };
    let each = ranked.into_iter();
    Trie::new(
        each.map(|(to, by_source)| (to, sources(by_source)))
            .collect(),
    )
}

/// The routes that a router with these ports doesn't use, and why.
pub fn unused<'a, 'r>(
    ports: impl Iterator<Item = &'a Port>,
    routes: &'r [Route],
) -> Vec<(&'r Route, String)> {
    let networks = networks(ports);
    let mut unused = Vec::new();
    // For each prefix pair the route that is used so far; sorting keeps the order of those of one weight.
    let mut used: BTreeMap<(IpNet, Option<IpNet>), &Route> = BTreeMap::new();
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
        let is_connected = || networks.iter().any(|(_, network)| network.trunc() == to);
        let prefixes = (to, route.from.map(|from| from.trunc()));
        let why = if next_hop.is_some() {
            next_hop
        } else if route.from.is_none() && is_connected() {
            Some(format!("{to} is connected"))
        } else if let Some(first) = used.get(&prefixes) {
            let is_joined = first.weight == route.weight && is_via(first) && is_via(route);
            (!is_joined).then(|| format!("one of {to} with weight {} is used", first.weight))
        } else {
            used.insert(prefixes, route);
            None
        };
        unused.extend(why.map(|why| (route, why)));
    }
    unused
}

fn is_via(route: &Route) -> bool {
    matches!(route.action, RouteAction::Via(_))
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

#[cfg(test)]
mod tests;
