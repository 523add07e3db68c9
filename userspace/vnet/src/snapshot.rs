//! The topology as the packet path reads it: with flood domains, seeded addresses and routing tables worked out.
//!
//! Immutable; the agent makes one per revision (or change of activity) out of the one before, and shares it by Arc.

use crate::id::{BridgeId, ChainId, HostId, PortId, RouterId};
use crate::mac::Mac;
use crate::model::{DeviceId, Model, Port, Router};
use crate::policy::{self, Group, Hook, Policy, Sets};
use crate::route::RoutingTable;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use uuid::Uuid;

/// Where ports and flood sets are live.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// Host of each live port, and its tunnel key there.
    pub ports: BTreeMap<PortId, (HostId, u32)>,
    /// Tunnel key of each flood domain's set on each host.
    pub floods: BTreeMap<(BridgeId, HostId), u32>,
}

/// Bridges that are joined by peerings: they forward like one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FloodDomain {
    /// The smallest id of its bridges.
    pub id: BridgeId,
    /// Its bridges, in order of their ids.
    pub bridges: Vec<BridgeId>,
    /// Exterior ports that take part in floods, in order of their ids: those that are up.
    pub ports: Vec<PortId>,
    /// Ports of routers that are attached to it, in order of their ids.
    pub router_ports: Vec<PortId>,
    /// MACs that are known without learning.
    pub seeds: BTreeMap<Mac, Seed>,
    /// Addresses that are known without asking: declared ones, and the link-local ones of router ports.
    pub addresses: BTreeMap<IpAddr, Seed>,
}

/// An address that the topology itself declares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed {
    /// The exterior bridge port, or router port, whose it is.
    pub owner: PortId,
    /// The bridge port through which it is reached: the owner itself, or the attached router port's peer.
    pub exit: PortId,
    /// The owner's MAC.
    pub mac: Mac,
}

/// The same, and the declared keys of ports whose host publishes nothing: no weftd runs there. Also returns those hosts.
fn with_declared(model: &Model, mut activity: Activity) -> (Activity, BTreeSet<HostId>) {
    let floods = activity.floods.keys().map(|(_, host)| *host);
    let ports = activity.ports.values().map(|(host, _)| *host);
    let managed: BTreeSet<HostId> = ports.chain(floods).collect();
    let mut unmanaged = BTreeSet::new();
    for port in model.ports.values() {
        if let Some((host, key)) = declared(port)
            && !managed.contains(&host)
        {
            unmanaged.insert(host);
            activity.ports.entry(port.id).or_insert((host, key));
        }
    }
    (activity, unmanaged)
}

fn declared(port: &Port) -> Option<(HostId, u32)> {
    let binding = port.binding.as_ref()?;
    Some((binding.host, binding.tunnel_key?))
}

/// See the module's text.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    model: Arc<Model>,
    activity: Activity,
    unmanaged: BTreeSet<HostId>,
    domains: BTreeMap<BridgeId, Arc<FloodDomain>>,
    domain_of: BTreeMap<BridgeId, BridgeId>,
    tables: BTreeMap<RouterId, Arc<RoutingTable>>,
    overlay_mtu: Option<u16>,
}

impl Snapshot {
    /// Works out what the packet path needs.
    pub fn build(model: Arc<Model>, activity: Activity) -> Snapshot {
        Snapshot::default().update(model, activity)
    }

    /// The snapshot of a later model. Routing tables and flood domains are worked out again where something that
    /// they are made of is another object than before, and shared with this snapshot where nothing is.
    pub fn update(&self, model: Arc<Model>, activity: Activity) -> Snapshot {
        let changed = changed_ports(&self.model, &model);
        let domain_of = join_bridges(&model);
        let touched = self.touched_domains(&model, &domain_of, &changed);
        let mut domains = build_domains(&model, &domain_of, &touched);
        for id in domain_of.values().filter(|id| !touched.contains(id)) {
            if let Some(domain) = self.domains.get(id) {
                domains.insert(*id, Arc::clone(domain));
            }
        }
        let tables = self.routing_tables_of(&model, &changed);
        let (activity, unmanaged) = with_declared(&model, activity);
        Snapshot {
            model,
            activity,
            unmanaged,
            domains,
            domain_of,
            tables,
            overlay_mtu: self.overlay_mtu,
        }
    }

    /// Ids of the domains that may differ from those of this snapshot.
    fn touched_domains(
        &self,
        model: &Model,
        domain_of: &BTreeMap<BridgeId, BridgeId>,
        changed: &BTreeSet<PortId>,
    ) -> BTreeSet<BridgeId> {
        let mut bridges = BTreeSet::new();
        for port in self.model.ports.values().chain(model.ports.values()) {
            let is_changed = |id: &PortId| changed.contains(id);
            if (is_changed(&port.id) || port.peer.as_ref().is_some_and(is_changed))
                && let DeviceId::Bridge(bridge) = port.device
            {
                bridges.insert(bridge);
            }
        }
        let all = self.domain_of.keys().chain(domain_of.keys());
        bridges.extend(all.filter(|id| self.domain_of.get(id) != domain_of.get(id)));
        // A domain that lost a bridge is another one, too.
        let before = bridges.iter().filter_map(|id| self.domain_of.get(id));
        let after = bridges.iter().filter_map(|id| domain_of.get(id));
        before.chain(after).copied().collect()
    }

    fn routing_tables_of(
        &self,
        model: &Model,
        changed: &BTreeSet<PortId>,
    ) -> BTreeMap<RouterId, Arc<RoutingTable>> {
        let mut ports_of: BTreeMap<RouterId, Vec<&Port>> = BTreeMap::new();
        for port in model.ports.values() {
            if let DeviceId::Router(router) = port.device {
                ports_of.entry(router).or_default().push(port);
            }
        }
        let changed_ports = |model: &Model| -> Vec<DeviceId> {
            let ports = changed.iter().filter_map(|id| model.ports.get(id));
            ports.map(|port| port.device).collect()
        };
        let touched: BTreeSet<DeviceId> = [changed_ports(&self.model), changed_ports(model)]
            .concat()
            .into_iter()
            .collect();
        let table = |router: &Arc<Router>| {
            let is_same = !touched.contains(&DeviceId::Router(router.id))
                && self
                    .model
                    .routers
                    .get(&router.id)
                    .is_some_and(|it| Arc::ptr_eq(it, router));
            let shared = self.tables.get(&router.id).filter(|_| is_same).cloned();
            let ports = ports_of.get(&router.id).into_iter().flatten().copied();
            let table =
                shared.unwrap_or_else(|| Arc::new(RoutingTable::new(ports, &router.routes)));
            (router.id, table)
        };
        model.routers.values().map(table).collect()
    }

    /// The same, where the tunnels of this host carry packets of so many bytes. No flow depends on it: it is only
    /// told to workloads.
    pub fn with_overlay_mtu(mut self, mtu: Option<u16>) -> Snapshot {
        self.overlay_mtu = mtu;
        self
    }

    /// Largest packet that every tunnel of this host carries, in bytes; none while there are no tunnels.
    pub fn overlay_mtu(&self) -> Option<u16> {
        self.overlay_mtu
    }

    /// The topology that it was built from.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The topology that it was built from, shared.
    pub fn shared_model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Where everything is live, declared tunnel keys included.
    pub fn all_activity(&self) -> &Activity {
        &self.activity
    }

    /// The host on which a port is live, and the port's tunnel key there.
    pub fn activity(&self, port: PortId) -> Option<(HostId, u32)> {
        self.activity.ports.get(&port).copied()
    }

    /// Whether a host is known by the declared tunnel keys of its ports only: no weftd runs on it.
    pub fn is_unmanaged(&self, host: HostId) -> bool {
        self.unmanaged.contains(&host)
    }

    /// Who takes a copy of a flooded frame of a domain, under which key: hosts under that of their set, and hosts
    /// without weftd under that of each of their ports.
    pub fn flood_hosts(&self, domain: BridgeId) -> impl Iterator<Item = (HostId, u32)> {
        let hosts = (domain, HostId(Uuid::nil()))..=(domain, HostId(Uuid::max()));
        let sets = self.activity.floods.range(hosts);
        let sets = sets.map(|((_, host), key)| (*host, *key));
        let ports = self
            .domains
            .get(&domain)
            .into_iter()
            .flat_map(|it| &it.ports);
        let ports = ports.filter_map(|port| self.activity(*port));
        sets.chain(ports.filter(|(host, _)| self.is_unmanaged(*host)))
    }

    /// Every flood domain, in order of its id.
    pub fn flood_domains(&self) -> impl Iterator<Item = &FloodDomain> {
        self.domains.values().map(|domain| &**domain)
    }

    /// The flood domain that a bridge is in.
    pub fn flood_domain_of(&self, bridge: BridgeId) -> Option<&FloodDomain> {
        self.domains
            .get(self.domain_of.get(&bridge)?)
            .map(|domain| &**domain)
    }

    /// A port of the topology.
    pub fn port(&self, id: PortId) -> Option<&Port> {
        self.model.ports.get(&id).map(|port| &**port)
    }

    /// Chains and groups.
    pub fn policy(&self) -> &Policy {
        &self.model.policy
    }

    /// The chains of a port's hook, in order; none where the port isn't there.
    pub fn chains(&self, port: PortId, hook: Hook) -> &[ChainId] {
        self.port(port).map_or(&[], |port| port.chains(hook))
    }

    /// All members of all groups, those of port groups by their addresses; one may come twice. What changes of them from
    /// one snapshot to the next, [`policy::changed`] says.
    pub fn members(&self) -> impl Iterator<Item = (Group, IpNet)> {
        policy::members(&self.model.policy, &self.model.ports)
    }

    /// The groups that these addresses are in, and nothing of other addresses: for the interpreted evaluation of one
    /// packet. An address of too many groups is in as many as may be.
    pub fn sets_around(&self, addresses: impl IntoIterator<Item = IpAddr>) -> Sets {
        let addresses: Vec<IpAddr> = addresses.into_iter().collect();
        let mut sets = Sets::default();
        for (group, prefix) in self.members() {
            if addresses.iter().any(|it| prefix.contains(it)) {
                // Validation bounds the groups of a policy, not those around an address.
                let _ = sets.add(group, prefix);
            }
        }
        sets
    }

    /// A router's routing table.
    pub fn routing_table(&self, router: RouterId) -> Option<&RoutingTable> {
        self.tables.get(&router).map(|table| &**table)
    }

    /// The bridge that a router's port is peered with.
    pub fn attached_domain(&self, router_port: &Port) -> Option<&FloodDomain> {
        match self.port(router_port.peer?)?.device {
            DeviceId::Bridge(bridge) => self.flood_domain_of(bridge),
            DeviceId::Router(_) => None,
        }
    }

    pub(crate) fn routing_tables(&self) -> &BTreeMap<RouterId, Arc<RoutingTable>> {
        &self.tables
    }

    pub(crate) fn domain_ids(&self) -> &BTreeMap<BridgeId, BridgeId> {
        &self.domain_of
    }
}

/// Ports that come, go, or are other objects than before.
fn changed_ports(old: &Model, new: &Model) -> BTreeSet<PortId> {
    let is_same = |id: &PortId, port: &Arc<Port>, other: &Model| {
        other.ports.get(id).is_some_and(|it| Arc::ptr_eq(it, port))
    };
    let gone = old
        .ports
        .iter()
        .filter(|(id, port)| !is_same(id, port, new));
    let come = new
        .ports
        .iter()
        .filter(|(id, port)| !is_same(id, port, old));
    gone.chain(come).map(|(id, _)| *id).collect()
}

/// For each bridge the smallest id that it reaches over peerings whose both sides are up.
fn join_bridges(model: &Model) -> BTreeMap<BridgeId, BridgeId> {
    let mut joined: BTreeMap<BridgeId, Vec<BridgeId>> = BTreeMap::new();
    for port in model.ports.values().filter(|port| port.admin_up) {
        let peer = port
            .peer
            .and_then(|id| model.ports.get(&id))
            .filter(|peer| peer.admin_up);
        if let (DeviceId::Bridge(here), Some(DeviceId::Bridge(there))) =
            (port.device, peer.map(|peer| peer.device))
        {
            joined.entry(here).or_default().push(there);
        }
    }
    let mut domain_of = BTreeMap::new();
    // In order of ids, so that the first bridge of a domain that comes is its smallest.
    for &first in model.bridges.keys() {
        let mut open = vec![first];
        while let Some(bridge) = open.pop() {
            if let std::collections::btree_map::Entry::Vacant(entry) = domain_of.entry(bridge) {
                entry.insert(first);
                open.extend(joined.get(&bridge).into_iter().flatten());
            }
        }
    }
    domain_of
}

/// The domains with these ids.
fn build_domains(
    model: &Model,
    domain_of: &BTreeMap<BridgeId, BridgeId>,
    wanted: &BTreeSet<BridgeId>,
) -> BTreeMap<BridgeId, Arc<FloodDomain>> {
    let mut domains: BTreeMap<BridgeId, FloodDomain> = BTreeMap::new();
    for (&bridge, &id) in domain_of.iter().filter(|(_, id)| wanted.contains(id)) {
        let domain = domains.entry(id).or_insert_with(|| FloodDomain {
            id,
            bridges: Vec::new(),
            ports: Vec::new(),
            router_ports: Vec::new(),
            seeds: BTreeMap::new(),
            addresses: BTreeMap::new(),
        });
        domain.bridges.push(bridge);
    }
    let mut router_ports: BTreeMap<BridgeId, BTreeSet<PortId>> = BTreeMap::new();
    for port in model.ports.values() {
        let DeviceId::Bridge(bridge) = port.device else {
            continue;
        };
        let Some(domain) = domain_of.get(&bridge).and_then(|id| domains.get_mut(id)) else {
            continue;
        };
        let owner = match port.peer {
            None => port,
            Some(peer) => match model.ports.get(&peer) {
                Some(peer) if matches!(peer.device, DeviceId::Router(_)) => {
                    router_ports.entry(domain.id).or_default().insert(peer.id);
                    peer
                }
                _ => continue,
            },
        };
        if port.peer.is_none() && port.admin_up {
            domain.ports.push(port.id);
        }
        let seed = Seed {
            owner: owner.id,
            exit: port.id,
            mac: owner.mac,
        };
        // A MAC that two bridges of a domain declare belongs to the first by id, on every host alike.
        domain.seeds.entry(owner.mac).or_insert(seed);
        let declared = owner.addresses.iter().map(|own| own.address);
        for address in declared.chain(owner.link_local().map(IpAddr::V6)) {
            domain.addresses.entry(address).or_insert(seed);
        }
    }
    for (id, ports) in router_ports {
        if let Some(domain) = domains.get_mut(&id) {
            domain.router_ports = ports.into_iter().collect();
        }
    }
    let shared = domains
        .into_iter()
        .map(|(id, domain)| (id, Arc::new(domain)));
    shared.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Topology;

    /// `h2` runs no weftd: its port in `web` has a declared key, and nothing is published but what is said.
    fn seen_with(published: &[(&str, u32)]) -> (Topology, Snapshot) {
        let mut topology = Topology::two_subnets();
        topology.bind_with_key("web/web-2", "h2", 4711);
        let ports = published.iter().map(|(path, key)| {
            let id = topology.id(path);
            let host = topology.model.ports[&id].binding.as_ref().unwrap().host;
            (id, (host, *key))
        });
        let activity = Activity {
            ports: ports.collect(),
            floods: BTreeMap::new(),
        };
        let snapshot = Snapshot::build(Arc::new(topology.model.clone()), activity);
        (topology, snapshot)
    }

    #[test]
    fn a_declared_key_counts_where_no_weftd_speaks() {
        let (topology, snapshot) = seen_with(&[("web/web-1", 256)]);
        let port = topology.id("web/web-2");
        let (host, key) = snapshot.activity(port).unwrap();
        assert_eq!(key, 4711);
        assert!(snapshot.is_unmanaged(host));
        let copies = |bridge| -> Vec<_> { snapshot.flood_hosts(topology.domain(bridge)).collect() };
        assert_eq!((copies("web"), copies("db")), (vec![(host, 4711)], vec![]));
        // Without a key it is as before: nobody knows.
        assert_eq!(snapshot.activity(topology.id("db/db-2")), None);
    }

    #[test]
    fn a_host_whose_weftd_speaks_gives_the_keys_itself() {
        let (topology, snapshot) = seen_with(&[("db/db-2", 256)]);
        let (host, _) = snapshot.activity(topology.id("db/db-2")).unwrap();
        assert_eq!(snapshot.activity(topology.id("web/web-2")), None);
        assert!(!snapshot.is_unmanaged(host));
        assert_eq!(snapshot.flood_hosts(topology.domain("web")).count(), 0);
        // What was decided while it was silent is decided again.
        let (_, silent) = seen_with(&[]);
        let tags = crate::tag::changed_tags(&silent, &snapshot);
        let port = topology.id("web/web-2");
        let flood = crate::Tag::Flood(topology.domain("web"));
        assert!(
            tags.is_superset(&[crate::Tag::Activity(port), flood].into()),
            "{tags:?}"
        );
    }
}
