//! The model as a file wants it: the current one, with what the file says done to it by name.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use uuid::Uuid;
use weft_vnet::{
    Binding, Bridge, BridgeId, DeviceId, Encapsulation, Host, HostId, Kind, Model, Port, PortId,
    Router, RouterId, Tenant, TenantId, TunnelZone, ZoneId,
};

use super::generated_mac;
use super::places::Places;
use super::policies::Policies;
use crate::topology::{
    Attachment, BridgeEntry, HostEntry, Mistake, Mistakes, PortEntry, RouterEntry, Span, Spanned,
    TopologyFile, ZoneAddress, ZoneEntry, list,
};

/// Known names are told along with an unknown one, if they are so few.
const KNOWN_NAMES_MAX: usize = 8;

/// Builds the wanted model, and where each part of it was written.
pub(super) fn build(
    current: &Model,
    file: &TopologyFile,
    prune: bool,
) -> Result<(Model, Places), Mistakes> {
    let mut target = Target::new(current, file);
    for document in &file.documents {
        for zone in &document.tunnel_zones {
            target.zone(zone);
        }
    }
    for document in &file.documents {
        for host in &document.hosts {
            target.host(host);
        }
    }
    for document in &file.documents {
        let Some(name) = &document.tenant else {
            continue;
        };
        let tenant = target.tenant(name);
        target.declare_policies(tenant, document);
        for bridge in &document.bridges {
            target.bridge(tenant, bridge);
        }
        for router in &document.routers {
            target.router(tenant, router);
        }
    }
    if prune {
        target.prune();
    }
    target.join_peers();
    target.resolve_policies();
    if target.mistakes.is_empty() {
        Ok((target.model, target.places))
    } else {
        Err(Mistakes::new(target.mistakes))
    }
}

/// A peering that the file asks for.
struct Joint {
    port: PortId,
    tenant: TenantId,
    path: Spanned<(String, String)>,
}

pub(super) struct Target<'a> {
    file: &'a TopologyFile,
    pub(super) model: Model,
    pub(super) places: Places,
    mistakes: Vec<Mistake>,
    joints: Vec<Joint>,
    /// Ports whose `bind` the file says, with its place.
    bound: HashMap<PortId, Span>,
    /// Ports whose `bind` or `peer` the file says.
    attached: BTreeSet<PortId>,
    pub(super) tenants: BTreeSet<TenantId>,
    devices: BTreeSet<DeviceId>,
    ports: BTreeSet<PortId>,
    pub(super) policies: Policies<'a>,
}

impl<'a> Target<'a> {
    fn new(current: &Model, file: &'a TopologyFile) -> Self {
        Target {
            file,
            model: current.clone(),
            places: Places::default(),
            mistakes: Vec::new(),
            joints: Vec::new(),
            bound: HashMap::new(),
            attached: BTreeSet::new(),
            tenants: BTreeSet::new(),
            devices: BTreeSet::new(),
            ports: BTreeSet::new(),
            policies: Policies::default(),
        }
    }

    fn report(&mut self, span: Span, message: impl Into<String>) {
        self.mistakes.push(self.file.mistake(span, message));
    }

    /// Reports a name that leads nowhere, with the names there are.
    pub(super) fn unknown(&mut self, span: Span, what: &str, known: &[String]) {
        let message = format!("found {what}, which is neither in this file nor in the topology");
        let mut mistake = self.file.mistake(span, message);
        if (1..=KNOWN_NAMES_MAX).contains(&known.len()) {
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            mistake.help = Some(format!("expected {}", list(&known)));
        }
        self.mistakes.push(mistake);
    }

    fn zone(&mut self, entry: &ZoneEntry) {
        let name = &entry.name.value;
        let existing = self.model.zones.values().find(|zone| zone.name == *name);
        let mut zone = existing.map_or_else(
            || TunnelZone {
                id: ZoneId(Uuid::new_v4()),
                name: name.clone(),
                encapsulation: Encapsulation::default(),
            },
            |zone| (**zone).clone(),
        );
        self.places
            .add(Kind::TunnelZone, zone.id.0, "", entry.name.span);
        if let Some(encapsulation) = &entry.encapsulation {
            self.places.add(
                Kind::TunnelZone,
                zone.id.0,
                "/encapsulation",
                encapsulation.span,
            );
            zone.encapsulation = encapsulation.value;
        }
        self.model.zones.insert(zone.id, Arc::new(zone));
    }

    fn host(&mut self, entry: &HostEntry) {
        let name = &entry.name.value;
        let existing = self.model.hosts.values().find(|host| host.name == *name);
        let mut host = existing.map_or_else(
            || Host {
                id: HostId(Uuid::new_v4()),
                name: name.clone(),
                zones: BTreeMap::new(),
            },
            |host| (**host).clone(),
        );
        self.places.add(Kind::Host, host.id.0, "", entry.name.span);
        if let Some(zones) = &entry.zones {
            self.places.add(Kind::Host, host.id.0, "/zones", zones.span);
            host.zones.clear();
            for ZoneAddress { zone, address } in &zones.value {
                let known = || self.model.zones.values().map(|zone| zone.name.clone());
                if !known().any(|known| known == zone.value) {
                    let known: Vec<String> = known().collect();
                    self.unknown(zone.span, &format!("tunnel zone `{}`", zone.value), &known);
                }
                let pointer = format!("/zones/{}", zone.value);
                self.places
                    .add(Kind::Host, host.id.0, pointer, address.span);
                host.zones.insert(zone.value.clone(), address.value);
            }
        }
        self.model.hosts.insert(host.id, Arc::new(host));
    }

    fn tenant(&mut self, name: &Spanned<String>) -> TenantId {
        let existing = self
            .model
            .tenants
            .values()
            .find(|tenant| tenant.name == name.value);
        let id = existing.map_or_else(|| TenantId(Uuid::new_v4()), |tenant| tenant.id);
        let tenant = Tenant {
            id,
            name: name.value.clone(),
        };
        self.places.add(Kind::Tenant, id.0, "", name.span);
        self.model.tenants.insert(id, Arc::new(tenant));
        self.tenants.insert(id);
        id
    }

    fn bridge(&mut self, tenant: TenantId, entry: &'a BridgeEntry) {
        let name = &entry.name.value;
        let mut bridges = self.model.bridges.values();
        let existing = bridges.find(|it| it.tenant == tenant && it.name == *name);
        let id = existing.map_or_else(|| BridgeId(Uuid::new_v4()), |bridge| bridge.id);
        let bridge = Bridge {
            id,
            tenant,
            name: name.clone(),
        };
        self.places.add(Kind::Bridge, id.0, "", entry.name.span);
        self.model.bridges.insert(id, Arc::new(bridge));
        self.devices.insert(DeviceId::Bridge(id));
        for port in &entry.ports {
            self.port(tenant, DeviceId::Bridge(id), port);
        }
    }

    fn router(&mut self, tenant: TenantId, entry: &'a RouterEntry) {
        let name = &entry.name.value;
        let mut routers = self.model.routers.values();
        let existing = routers.find(|it| it.tenant == tenant && it.name == *name);
        let mut router = existing.map_or_else(
            || Router {
                id: RouterId(Uuid::new_v4()),
                tenant,
                name: name.clone(),
                routes: Vec::new(),
            },
            |router| (**router).clone(),
        );
        let id = router.id;
        self.places.add(Kind::Router, id.0, "", entry.name.span);
        if let Some(routes) = &entry.routes {
            self.places.add(Kind::Router, id.0, "/routes", routes.span);
            for (index, route) in routes.value.iter().enumerate() {
                self.places
                    .add(Kind::Router, id.0, format!("/routes/{index}"), route.span);
            }
            router.routes = routes
                .value
                .iter()
                .map(|route| route.value.clone())
                .collect();
        }
        self.model.routers.insert(id, Arc::new(router));
        self.devices.insert(DeviceId::Router(id));
        for port in &entry.ports {
            self.port(tenant, DeviceId::Router(id), port);
        }
    }

    fn port(&mut self, tenant: TenantId, device: DeviceId, entry: &'a PortEntry) {
        let name = &entry.name.value;
        let mut ports = self.model.ports.values();
        let existing = ports.find(|it| it.device == device && it.name == *name);
        let mut port = existing.map_or_else(|| new_port(device, name), |port| (**port).clone());
        let id = port.id;
        self.places.add(Kind::Port, id.0, "", entry.name.span);
        if let Some(mac) = &entry.mac {
            self.places.add(Kind::Port, id.0, "/mac", mac.span);
            port.mac = mac.value;
        }
        if let Some(admin_up) = &entry.admin_up {
            port.admin_up = admin_up.value;
        }
        if let Some(addresses) = &entry.addresses {
            self.places
                .add(Kind::Port, id.0, "/addresses", addresses.span);
            for (index, address) in addresses.value.iter().enumerate() {
                self.places.add(
                    Kind::Port,
                    id.0,
                    format!("/addresses/{index}"),
                    address.span,
                );
            }
            port.addresses = addresses
                .value
                .iter()
                .map(|address| address.value)
                .collect();
        }
        self.note_hooks(tenant, id, entry);
        if entry.attachment.is_some() {
            self.attached.insert(id);
        }
        match &entry.attachment {
            Some(Attachment::Bind {
                host,
                interface,
                tunnel_key,
            }) => self.bind(&mut port, host, interface, tunnel_key.as_ref()),
            Some(Attachment::Peer(path)) => {
                self.places.add(Kind::Port, id.0, "/peer", path.span);
                // Asked for by the file itself, so an earlier binding ends.
                port.binding = None;
                self.joints.push(Joint {
                    port: id,
                    tenant,
                    path: path.clone(),
                });
            }
            None => {}
        }
        self.model.ports.insert(id, Arc::new(port));
        self.ports.insert(id);
    }

    fn bind(
        &mut self,
        port: &mut Port,
        host: &Spanned<String>,
        interface: &Spanned<String>,
        tunnel_key: Option<&Spanned<u32>>,
    ) {
        let id = port.id;
        self.places
            .add(Kind::Port, id.0, "/binding", interface.span);
        if let Some(key) = tunnel_key {
            self.places
                .add(Kind::Port, id.0, "/binding/tunnel_key", key.span);
        }
        self.bound.insert(id, interface.span);
        let host = self.find_host(host);
        port.binding = host.map(|host| Binding {
            host,
            interface: interface.value.clone(),
            tunnel_key: tunnel_key.map(|key| key.value),
        });
        self.part(port.peer.take());
    }

    fn find_host(&mut self, name: &Spanned<String>) -> Option<HostId> {
        let found = self
            .model
            .hosts
            .values()
            .find(|host| host.name == name.value);
        if let Some(host) = found {
            return Some(host.id);
        }
        let known: Vec<String> = self
            .model
            .hosts
            .values()
            .map(|it| it.name.clone())
            .collect();
        self.unknown(name.span, &format!("host `{}`", name.value), &known);
        None
    }

    /// Removes what the file doesn't mention, in the tenants that it names.
    fn prune(&mut self) {
        let tenants = &self.tenants;
        let devices = &self.devices;
        let ports = &self.ports;
        let owned = |model: &Model, device: DeviceId| {
            model
                .device(device)
                .is_some_and(|(_, tenant)| tenants.contains(&tenant))
        };
        let gone: Vec<PortId> = self
            .model
            .ports
            .values()
            .filter(|port| owned(&self.model, port.device) && !ports.contains(&port.id))
            .map(|port| port.id)
            .collect();
        self.model.bridges.retain(|id, bridge| {
            !tenants.contains(&bridge.tenant) || devices.contains(&DeviceId::Bridge(*id))
        });
        self.model.routers.retain(|id, router| {
            !tenants.contains(&router.tenant) || devices.contains(&DeviceId::Router(*id))
        });
        self.prune_policies();
        for id in gone {
            let port = self.model.ports.remove(&id);
            self.part(port.and_then(|port| port.peer));
        }
    }

    /// Follows the peers that the file names, and makes both sides say the same.
    fn join_peers(&mut self) {
        let mut wanted: BTreeMap<PortId, (PortId, Span)> = BTreeMap::new();
        for joint in std::mem::take(&mut self.joints) {
            let span = joint.path.span;
            let Some(peer) = self.find_peer(&joint) else {
                continue;
            };
            if let Some(message) = self.peer_refusal(joint.port, peer) {
                self.report(span, message);
                continue;
            }
            let sides = [(joint.port, peer), (peer, joint.port)];
            let mut taken = sides.iter().filter_map(|(port, other)| {
                let (by, at) = wanted.get(port)?;
                (by != other).then_some((*port, *by, *at))
            });
            if let Some((port, by, at)) = taken.next() {
                let (port, by) = (self.model.port_path(port), self.model.port_path(by));
                let message = format!(
                    "found another peer for {port}, which is joined to {by} at {}:{}",
                    at.line, at.column
                );
                self.report(span, message);
                continue;
            }
            for (port, other) in sides {
                wanted.entry(port).or_insert((other, span));
            }
        }
        for (port, (peer, _)) in wanted {
            self.join(port, peer);
        }
    }

    /// Why `peer` can't become the peer of `port`, whatever else the file asks for.
    fn peer_refusal(&self, port: PortId, peer: PortId) -> Option<String> {
        let found = self.model.ports.get(&peer)?;
        let path = self.model.port_path(peer);
        if self.model.ports.get(&port)?.device == found.device {
            return Some("found a peer of the same device, expected one of another".into());
        }
        if let Some(Span { line, column, .. }) = self.bound.get(&peer) {
            return Some(format!(
                "found peer {path}, expected a port without `bind`: it has one at {line}:{column}"
            ));
        }
        if let Some(Binding { interface, .. }) = &found.binding {
            return Some(format!(
                "found peer {path}, expected a port that isn't bound: it is, to {interface}"
            ));
        }
        // Where the file says neither of the two anew, one would lose its peer without a word.
        let by = found.peer.filter(|by| *by != port)?;
        let is_moved = self.attached.contains(&by) || self.attached.contains(&peer);
        (!is_moved).then(|| {
            format!(
                "found peer {path}, expected a port without one: it is joined to {}, which the \
                 file would have to move (give it another `peer`, or `bind`)",
                self.model.port_path(by)
            )
        })
    }

    fn find_peer(&mut self, joint: &Joint) -> Option<PortId> {
        self.find_port(joint.tenant, &joint.path)
    }

    pub(super) fn find_port(
        &mut self,
        tenant: TenantId,
        path: &Spanned<(String, String)>,
    ) -> Option<PortId> {
        let (device, name) = &path.value;
        let of_tenant = |it: &&Arc<Port>| {
            let found = self.model.device(it.device);
            found.is_some_and(|(its, owner)| its == device && owner == tenant)
        };
        let ports: Vec<&Arc<Port>> = self.model.ports.values().filter(of_tenant).collect();
        if let Some(port) = ports.iter().find(|port| port.name == *name) {
            return Some(port.id);
        }
        let known: Vec<String> = ports
            .iter()
            .map(|it| format!("{device}/{}", it.name))
            .collect();
        self.unknown(path.span, &format!("port `{device}/{name}`"), &known);
        None
    }

    fn join(&mut self, port: PortId, peer: PortId) {
        let before = self.model.ports.get(&port).and_then(|it| it.peer);
        if before == Some(peer) {
            return;
        }
        self.part(before);
        if let Some(port) = self.model.ports.get_mut(&port) {
            Arc::make_mut(port).peer = Some(peer);
        }
    }

    /// The other side of a peering that ended.
    fn part(&mut self, port: Option<PortId>) {
        if let Some(port) = port.and_then(|id| self.model.ports.get_mut(&id)) {
            Arc::make_mut(port).peer = None;
        }
    }
}

fn new_port(device: DeviceId, name: &str) -> Port {
    let id = PortId(Uuid::new_v4());
    Port {
        id,
        device,
        name: name.to_owned(),
        mac: generated_mac(id),
        admin_up: true,
        addresses: Vec::new(),
        binding: None,
        peer: None,
        ingress: Vec::new(),
        egress: Vec::new(),
    }
}
