//! What a decision depended on, so that a change finds the decisions that it concerns.
//!
//! No state. [`crate::simulate()`] puts tags on outcomes, [`crate::FlowState`] and [`changed_tags`] name those that
//! changed, the agent simulates flows with a common tag again.

use crate::id::{BridgeId, HostId, PortId, RouterId};
use crate::mac::Mac;
use crate::model::Port;
use crate::snapshot::{FloodDomain, Snapshot};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// Something that a decision may depend on. Bridges in tags about addresses and floods are flood domains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tag {
    /// The port's declaration, but for its name.
    Port(PortId),
    /// Which bridges this one is joined with, and which router ports are attached.
    Bridge(BridgeId),
    /// The router's routing table.
    Router(RouterId),
    /// Where a MAC is, seeded or learned, or that nobody knows.
    Mac(BridgeId, Mac),
    /// Whose an address is by declaration, or that it is nobody's.
    Address(BridgeId, IpAddr),
    /// What a router's port learned about a next hop, or that it learned nothing.
    Neighbour(PortId, IpAddr),
    /// Where the port is live, and its tunnel key.
    Activity(PortId),
    /// Who gets floods of this domain.
    Flood(BridgeId),
    /// The host's underlay addresses.
    Host(HostId),
    /// Everything.
    Topology,
}

impl fmt::Display for Tag {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Tag::Port(port) => write!(out, "port/{port}"),
            Tag::Bridge(bridge) => write!(out, "bridge/{bridge}"),
            Tag::Router(router) => write!(out, "router/{router}"),
            Tag::Mac(bridge, mac) => write!(out, "mac/{bridge}/{mac}"),
            Tag::Address(bridge, address) => write!(out, "address/{bridge}/{address}"),
            Tag::Neighbour(port, address) => write!(out, "neighbour/{port}/{address}"),
            Tag::Activity(port) => write!(out, "activity/{port}"),
            Tag::Flood(bridge) => write!(out, "flood/{bridge}"),
            Tag::Host(host) => write!(out, "host/{host}"),
            Tag::Topology => out.write_str("topology"),
        }
    }
}

/// The tags of decisions that may differ between two snapshots: all others are the same.
pub fn changed_tags(old: &Snapshot, new: &Snapshot) -> BTreeSet<Tag> {
    let mut tags = BTreeSet::new();
    let (before, after) = (old.model(), new.model());
    for id in changed_keys(&before.ports, &after.ports, same_port) {
        tags.insert(Tag::Port(id));
    }
    for id in changed_keys(&before.hosts, &after.hosts, |a, b| a.zones == b.zones) {
        tags.insert(Tag::Host(id));
    }
    for id in changed_keys(old.routing_tables(), new.routing_tables(), PartialEq::eq) {
        tags.insert(Tag::Router(id));
    }
    let (before, after) = (old.all_activity(), new.all_activity());
    let live = changed_keys(&before.ports, &after.ports, PartialEq::eq);
    for &id in &live {
        tags.insert(Tag::Activity(id));
    }
    for (domain, _) in changed_keys(&before.floods, &after.floods, PartialEq::eq) {
        tags.insert(Tag::Flood(domain));
    }
    changed_domains(old, new, &live, &mut tags);
    tags
}

/// The keys whose values come, go or differ.
fn changed_keys<K: Ord + Copy, V>(
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
    same: impl Fn(&V, &V) -> bool,
) -> BTreeSet<K> {
    let differs = |(key, value): &(&K, &V)| !old.get(key).is_some_and(|before| same(before, value));
    let come = new.iter().filter(differs).map(|(key, _)| *key);
    let gone = old.keys().filter(|key| !new.contains_key(key)).copied();
    come.chain(gone).collect()
}

/// Equal in all that decides about packets.
fn same_port(a: &Arc<Port>, b: &Arc<Port>) -> bool {
    if Arc::ptr_eq(a, b) {
        return true;
    }
    let Port {
        id,
        device,
        name: _,
        mac,
        admin_up,
        addresses,
        binding,
        peer,
        // A port's own chains put no bits into flows: `policy::changed` says what they concern.
        ingress: _,
        egress: _,
    } = &**a;
    *id == b.id
        && *device == b.device
        && *mac == b.mac
        && *admin_up == b.admin_up
        && *addresses == b.addresses
        && *binding == b.binding
        && *peer == b.peer
}

fn changed_domains(
    old: &Snapshot,
    new: &Snapshot,
    live: &BTreeSet<PortId>,
    tags: &mut BTreeSet<Tag>,
) {
    for bridge in changed_keys(old.domain_ids(), new.domain_ids(), PartialEq::eq) {
        tags.insert(Tag::Bridge(bridge));
    }
    let both = old.flood_domains().chain(new.flood_domains());
    let ids: BTreeSet<BridgeId> = both.map(|domain| domain.id).collect();
    for id in ids {
        match (find(old, id), find(new, id)) {
            (Some(before), Some(after)) => changed_domain(old, new, before, after, live, tags),
            (Some(domain), None) | (None, Some(domain)) => {
                tags.extend(domain.bridges.iter().map(|bridge| Tag::Bridge(*bridge)));
                tags.insert(Tag::Flood(id));
            }
            (None, None) => {}
        }
    }
}

fn find(snapshot: &Snapshot, id: BridgeId) -> Option<&FloodDomain> {
    snapshot
        .flood_domain_of(id)
        .filter(|domain| domain.id == id)
}

fn changed_domain(
    old: &Snapshot,
    new: &Snapshot,
    before: &FloodDomain,
    after: &FloodDomain,
    live: &BTreeSet<PortId>,
    tags: &mut BTreeSet<Tag>,
) {
    let FloodDomain {
        id,
        bridges,
        ports,
        router_ports: _,
        seeds,
        addresses,
    } = after;
    let networks = |snapshot: &Snapshot, domain: &FloodDomain| -> Vec<_> {
        let attached = domain
            .router_ports
            .iter()
            .filter_map(|port| snapshot.port(*port));
        attached
            .map(|port| (port.id, port.addresses.clone()))
            .collect()
    };
    if *bridges != before.bridges || networks(old, before) != networks(new, after) {
        let all = bridges.iter().chain(&before.bridges);
        tags.extend(all.map(|bridge| Tag::Bridge(*bridge)));
    }
    if *bridges != before.bridges
        || *ports != before.ports
        || ports.iter().any(|it| live.contains(it))
    {
        tags.insert(Tag::Flood(*id));
    }
    for mac in changed_keys(&before.seeds, seeds, PartialEq::eq) {
        tags.insert(Tag::Mac(*id, mac));
    }
    for address in changed_keys(&before.addresses, addresses, PartialEq::eq) {
        tags.insert(Tag::Address(*id, address));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Topology;
    use crate::model::RouteAction;

    /// What `change` makes of the two subnets, but for their ids.
    fn changed(change: impl FnOnce(&mut Topology)) -> (Topology, BTreeSet<Tag>) {
        let mut topology = Topology::two_subnets();
        let old = topology.snapshot();
        change(&mut topology);
        let tags = changed_tags(&old, &topology.snapshot());
        (topology, tags)
    }

    fn router(topology: &Topology) -> RouterId {
        *topology.model.routers.keys().next().unwrap()
    }

    #[test]
    fn nothing_changed_is_nothing() {
        let (_, tags) = changed(|topology| topology.put(Vec::new()));
        assert_eq!(tags, BTreeSet::new());
    }

    #[test]
    fn a_name_concerns_nobody() {
        let (_, tags) = changed(|it| it.change("web/web-1", |port| port.name = "new".into()));
        assert_eq!(tags, BTreeSet::new());
    }

    #[test]
    fn a_route_concerns_its_router_only() {
        let (topology, tags) =
            changed(|it| it.route("core", "198.51.100.0/24", RouteAction::Blackhole, 100));
        assert_eq!(tags, [Tag::Router(router(&topology))].into());
    }

    #[test]
    fn a_port_that_goes_down_concerns_itself_and_floods() {
        let (topology, tags) = changed(|it| it.change("web/web-1", |port| port.admin_up = false));
        let domain = topology.domain("web");
        assert_eq!(
            tags,
            [Tag::Port(topology.id("web/web-1")), Tag::Flood(domain)].into()
        );
    }

    #[test]
    fn a_new_port_concerns_who_asked_for_its_addresses() {
        let (topology, tags) = changed(|it| _ = it.port("web/new", &["10.0.1.99"]));
        let domain = topology.domain("web");
        let expected = [
            Tag::Port(topology.id("web/new")),
            Tag::Flood(domain),
            Tag::Mac(domain, topology.mac("web/new")),
            Tag::Address(domain, "10.0.1.99".parse().unwrap()),
        ];
        assert_eq!(tags, expected.into());
    }

    #[test]
    fn activity_concerns_the_port_and_its_floods() {
        let (topology, tags) = changed(|it| it.change("db/db-2", |port| port.binding = None));
        let port = topology.id("db/db-2");
        let expected = [
            Tag::Port(port),
            Tag::Activity(port),
            Tag::Flood(topology.domain("db")),
        ];
        assert_eq!(tags, expected.into());
    }

    #[test]
    fn joining_bridges_concerns_both() {
        let (topology, tags) = changed(|it| {
            it.port("web/link", &[]);
            it.port("db/link", &[]);
            it.peer("web/link", "db/link");
        });
        for bridge in topology.model.bridges.keys() {
            assert!(tags.contains(&Tag::Bridge(*bridge)) && tags.contains(&Tag::Flood(*bridge)));
        }
        assert!(!tags.contains(&Tag::Router(router(&topology))));
        assert!(!tags.contains(&Tag::Port(topology.id("web/web-1"))));
    }
}
