//! What a topology must be: references lead somewhere, names and addresses are unique where they must be.
//!
//! No state. Called once per transaction, on the finished draft: so within a transaction order is free.

use super::draft::Draft;
use super::policy;
use super::{DeviceId, Kind, Model, Port, Route, RouteAction, TUNNEL_KEY_MAX};
use crate::id::{BridgeId, HostId, RouterId, TenantId};
use crate::mac::Mac;
use ipnet::IpNet;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr};
use uuid::Uuid;
use weft_common::limits::NEXT_HOPS_MAX;

/// Longest name of an interface in Linux (IFNAMSIZ less the final zero).
const INTERFACE_NAME_MAX: usize = 15;
/// Longest name of an object.
const NAME_MAX: usize = 63;

pub(super) fn validate(draft: &mut Draft<'_>) {
    let model = draft.model.clone();
    names(draft, &model);
    references(draft, &model);
    hosts(draft, &model);
    routers(draft, &model);
    for port in model.ports.values() {
        port_kind(draft, &model, port);
        port_mac(draft, port);
        port_addresses(draft, port);
    }
    bindings(draft, &model);
    seeded_macs(draft, &model);
    device_addresses(draft, &model);
    policy::names(draft, &model);
    policy::references(draft, &model);
}

/// What is refused of a change only: a topology that was stored with it goes on working.
pub(super) fn validate_new(draft: &mut Draft<'_>) {
    let model = draft.model.clone();
    for port in model.ports.values() {
        whole_subnets(draft, port);
    }
    overlaps(draft, &model);
    policy::rules(draft, &model);
}

pub(super) fn at(port: &Port) -> (Kind, Uuid) {
    (Kind::Port, port.id.0)
}

fn names(draft: &mut Draft<'_>, model: &Model) {
    for object in draft.put_objects() {
        if !is_name(object.name()) {
            let message = format!(
                "`{}` can't be a name: expected 1 to {NAME_MAX} letters, digits, `-`, `_` or `.`",
                object.name()
            );
            draft.refuse_at((object.kind(), object.id()), "/name", message);
        }
    }
    let mut unique = Unique::new("/name", "the name is taken");
    for it in model.tenants.values() {
        let text = format!("tenant {}", it.name);
        unique.see(
            draft,
            ("tenant", Uuid::nil(), &it.name),
            (Kind::Tenant, it.id.0),
            &text,
        );
    }
    for it in model.bridges.values() {
        let text = format!("bridge {}", it.name);
        unique.see(
            draft,
            ("device", it.tenant.0, &it.name),
            (Kind::Bridge, it.id.0),
            &text,
        );
    }
    for it in model.routers.values() {
        let text = format!("router {}", it.name);
        unique.see(
            draft,
            ("device", it.tenant.0, &it.name),
            (Kind::Router, it.id.0),
            &text,
        );
    }
    for it in model.ports.values() {
        let device = device_uuid(it.device);
        unique.see(
            draft,
            ("port", device, &it.name),
            at(it),
            &model.port_path(it.id),
        );
    }
    for it in model.hosts.values() {
        let text = format!("host {}", it.name);
        unique.see(
            draft,
            ("host", Uuid::nil(), &it.name),
            (Kind::Host, it.id.0),
            &text,
        );
    }
    for it in model.zones.values() {
        let text = format!("tunnel zone {}", it.name);
        unique.see(
            draft,
            ("zone", Uuid::nil(), &it.name),
            (Kind::TunnelZone, it.id.0),
            &text,
        );
    }
}

pub(super) fn is_name(name: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(letter)
}

fn device_uuid(device: DeviceId) -> Uuid {
    match device {
        DeviceId::Bridge(id) => id.0,
        DeviceId::Router(id) => id.0,
    }
}

fn references(draft: &mut Draft<'_>, model: &Model) {
    let tenant_exists = |id: TenantId| model.tenants.contains_key(&id);
    for it in model
        .bridges
        .values()
        .filter(|it| !tenant_exists(it.tenant))
    {
        let text = format!("bridge {}", it.name);
        draft.refuse_missing(
            (Kind::Bridge, it.id.0),
            "/tenant",
            (Kind::Tenant, it.tenant.0),
            &text,
        );
    }
    for it in model
        .routers
        .values()
        .filter(|it| !tenant_exists(it.tenant))
    {
        let text = format!("router {}", it.name);
        draft.refuse_missing(
            (Kind::Router, it.id.0),
            "/tenant",
            (Kind::Tenant, it.tenant.0),
            &text,
        );
    }
    for it in model.ports.values() {
        let path = model.port_path(it.id);
        if model.device(it.device).is_none() {
            let kind = match it.device {
                DeviceId::Bridge(_) => Kind::Bridge,
                DeviceId::Router(_) => Kind::Router,
            };
            draft.refuse_missing(at(it), "/device", (kind, device_uuid(it.device)), &path);
        }
        if let Some(binding) = it
            .binding
            .as_ref()
            .filter(|it| !model.hosts.contains_key(&it.host))
        {
            let missing = (Kind::Host, binding.host.0);
            draft.refuse_missing(at(it), "/binding/host", missing, &path);
        }
    }
}

fn hosts(draft: &mut Draft<'_>, model: &Model) {
    let mut unique: Unique<(&str, IpAddr)> = Unique::new("", "the underlay address is taken");
    let zones: HashMap<&str, Uuid> = model
        .zones
        .values()
        .map(|zone| (zone.name.as_str(), zone.id.0))
        .collect();
    for host in model.hosts.values() {
        let key = (Kind::Host, host.id.0);
        for (zone, &address) in &host.zones {
            let pointer = format!("/zones/{}", escape(zone));
            if !zones.contains_key(zone.as_str()) {
                let message = format!(
                    "host {} is in tunnel zone `{zone}`, which doesn't exist",
                    host.name
                );
                draft.refuse_at(key, pointer.clone(), message);
            }
            if !is_underlay(address) {
                let message = format!("{address} can't be the address of a host");
                draft.refuse_at(key, pointer.clone(), message);
            }
            unique.pointer = pointer;
            unique.see(draft, (zone, address), key, &format!("host {}", host.name));
        }
    }
}

/// Whether a host can have this address in the network between hosts. Link-local ones would need an interface.
fn is_underlay(address: IpAddr) -> bool {
    let is_elsewhere = matches!(
        address,
        IpAddr::V6(it) if it.is_unicast_link_local() || it.to_ipv4_mapped().is_some()
    );
    is_unicast(address) && !is_elsewhere
}

/// RFC 6901, section 3.
fn escape(token: &str) -> String {
    token.replace('~', "~0").replace('/', "~1")
}

fn routers(draft: &mut Draft<'_>, model: &Model) {
    for router in model.routers.values() {
        if !draft.touched(Kind::Router, router.id.0) {
            continue;
        }
        let key = (Kind::Router, router.id.0);
        let mut next_hops: BTreeMap<(IpNet, Option<IpNet>, u32), usize> = BTreeMap::new();
        for (index, route) in router.routes.iter().enumerate() {
            let Route {
                to,
                from,
                action,
                weight,
            } = route;
            if let Some(message) = from.and_then(|from| source_refusal(*to, from)) {
                draft.refuse_at(key, format!("/routes/{index}/from"), message);
            }
            if matches!(action, RouteAction::Via(_)) {
                let count = next_hops.entry((*to, *from, *weight)).or_default();
                *count += 1;
                if *count > NEXT_HOPS_MAX {
                    let message =
                        format!("{to} has more than {NEXT_HOPS_MAX} next hops of weight {weight}");
                    draft.refuse_at(key, format!("/routes/{index}"), message);
                }
            }
            if *to != to.trunc() {
                let message = format!("{to} has bits beyond its prefix: expected {}", to.trunc());
                draft.refuse_at(key, format!("/routes/{index}/to"), message);
            }
            if let RouteAction::Via(address) = action
                && let Some(message) = next_hop_refusal(*to, *address)
            {
                draft.refuse_at(key, format!("/routes/{index}/action/via"), message);
            }
        }
    }
}

/// Why a route for `to` can't be one for packets from `from` only.
fn source_refusal(to: IpNet, from: IpNet) -> Option<String> {
    if to.addr().is_ipv4() != from.addr().is_ipv4() {
        let family = if to.addr().is_ipv4() { "IPv4" } else { "IPv6" };
        return Some(format!(
            "packets for {to} don't come from {from}: expected an {family} prefix"
        ));
    }
    (from != from.trunc()).then(|| {
        format!(
            "{from} has bits beyond its prefix: expected {}",
            from.trunc()
        )
    })
}

/// Why a router can't forward packets for `to` to this address.
fn next_hop_refusal(to: IpNet, via: IpAddr) -> Option<String> {
    if to.addr().is_ipv4() != via.is_ipv4() {
        let family = if via.is_ipv4() { "an IPv6" } else { "an IPv4" };
        return Some(format!(
            "{via} can't be the next hop for {to}: expected {family} address"
        ));
    }
    if matches!(via, IpAddr::V6(it) if it.is_unicast_link_local()) {
        return Some(format!(
            "{via} is link-local, and there is one on every port: expected an address of a port's subnet"
        ));
    }
    (!is_unicast(via)).then(|| format!("{via} can't be a next hop"))
}

/// Interior xor exterior, and a sensible partner.
fn port_kind(draft: &mut Draft<'_>, model: &Model, port: &Port) {
    if let Some(binding) = &port.binding {
        if port.peer.is_some() {
            let message = "a port is bound to an interface or has a peer, not both";
            // Whoever gave it the peer may not have touched the port itself.
            let culprit = if draft.touched(Kind::Port, port.id.0) {
                port.id
            } else {
                port.peer.unwrap_or(port.id)
            };
            draft.refuse_at((Kind::Port, culprit.0), "/binding", message);
        }
        let length = binding.interface.len();
        if length == 0 || length > INTERFACE_NAME_MAX || binding.interface.contains(['/', ' ']) {
            let message = format!(
                "`{}` can't be an interface: expected 1 to {INTERFACE_NAME_MAX} characters",
                binding.interface
            );
            draft.refuse_at(at(port), "/binding/interface", message);
        }
        if let Some(key) = binding.tunnel_key
            && !(1..=TUNNEL_KEY_MAX).contains(&key)
        {
            let message = format!("{key} can't be a tunnel key: expected 1 to {TUNNEL_KEY_MAX}");
            draft.refuse_at(at(port), "/binding/tunnel_key", message);
        }
    }
    let peer = port.peer.and_then(|id| model.ports.get(&id));
    if peer.is_some_and(|peer| peer.device == port.device) && draft.touched(Kind::Port, port.id.0) {
        draft.refuse_at(at(port), "/peer", "the peer is a port of the same device");
    }
}

fn port_mac(draft: &mut Draft<'_>, port: &Port) {
    if port.mac.is_group() || port.mac == Mac::default() {
        let message = format!(
            "{} can't be the MAC of a port: it names a group or nobody",
            port.mac
        );
        draft.refuse_at(at(port), "/mac", message);
    }
}

fn port_addresses(draft: &mut Draft<'_>, port: &Port) {
    if draft.unchanged_port(port) {
        return;
    }
    for (index, address) in port.addresses.iter().enumerate() {
        let message = match (port.device, address.prefix) {
            (DeviceId::Bridge(_), Some(_)) => Some(format!(
                "{address} has a prefix length: on a bridge expected the bare address {}",
                address.address
            )),
            (DeviceId::Router(_), None) => Some(format!(
                "{address} has no prefix length: on a router expected one like {address}/24"
            )),
            (_, Some(prefix)) if prefix > address.prefix_max() => Some(format!(
                "{address}: expected a prefix of at most {}",
                address.prefix_max()
            )),
            _ => None,
        };
        let usable = is_unicast(address.address);
        let unusable = || format!("{} can't be the address of a port", address.address);
        if let Some(message) = message.or_else(|| (!usable).then(unusable)) {
            draft.refuse_at(at(port), format!("/addresses/{index}"), message);
        }
    }
}

/// Addresses of a router's port that mean everyone in its subnet, or nobody (RFC 1122, 3.2.1.3). A /31 has no
/// such (RFC 3021).
fn whole_subnets(draft: &mut Draft<'_>, port: &Port) {
    if matches!(port.device, DeviceId::Bridge(_)) || draft.unchanged_port(port) {
        return;
    }
    for (index, address) in port.addresses.iter().enumerate() {
        if matches!(address.address, IpAddr::V6(it) if it.is_unicast_link_local()) {
            let message = format!(
                "{} is link-local: a router's port makes such an address of its MAC",
                address.address
            );
            draft.refuse_at(at(port), format!("/addresses/{index}"), message);
        }
        if let Some(net) = address.network().filter(|it| is_routers_anycast(*it)) {
            let message = format!(
                "{} is the address of all routers of {}: expected one with other bits behind the prefix",
                net.addr(),
                net.trunc()
            );
            draft.refuse_at(at(port), format!("/addresses/{index}"), message);
        }
        let Some(net) = address.ipv4_network().filter(|it| it.prefix_len() <= 30) else {
            continue;
        };
        let (first, last) = (net.network(), net.broadcast());
        let what = match net.addr() {
            it if it == first => "network",
            it if it == last => "broadcast",
            _ => continue,
        };
        let message = format!(
            "{} is the {what} address of {}: expected one from {} to {}",
            net.addr(),
            net.trunc(),
            Ipv4Addr::from_bits(first.to_bits().saturating_add(1)),
            Ipv4Addr::from_bits(last.to_bits().saturating_sub(1)),
        );
        draft.refuse_at(at(port), format!("/addresses/{index}"), message);
    }
}

/// RFC 4291, 2.6.1; not for links between two routers (RFC 6164).
fn is_routers_anycast(net: IpNet) -> bool {
    net.addr().is_ipv6() && net.prefix_len() < 127 && net.addr() == net.network()
}

/// Each subnet of a router is on one of its ports: a destination would be a neighbour on two otherwise. The
/// port that this transaction put, or put later, is to blame.
fn overlaps(draft: &mut Draft<'_>, model: &Model) {
    let mut routers: BTreeMap<RouterId, Vec<Subnet<'_>>> = BTreeMap::new();
    for port in model.ports.values() {
        let DeviceId::Router(router) = port.device else {
            continue;
        };
        let subnets = port.addresses.iter().enumerate().filter_map(|(index, it)| {
            let net = it.network()?;
            Some(Subnet { net, port, index })
        });
        routers.entry(router).or_default().extend(subnets);
    }
    for mut subnets in routers.into_values() {
        // Two prefixes overlap when one holds the other: it starts no later and ends no earlier.
        subnets.sort_by_key(|it| (it.net.network(), it.net.prefix_len(), it.port.id));
        let mut open: Vec<&Subnet<'_>> = Vec::new();
        for subnet in &subnets {
            while open
                .last()
                .is_some_and(|outer| !outer.net.contains(&subnet.net))
            {
                open.pop();
            }
            let is_new = |outer: &&&Subnet<'_>| {
                let (a, b) = (outer.port, subnet.port);
                a.id != b.id && !(draft.unchanged_port(a) && draft.unchanged_port(b))
            };
            if let Some(outer) = open.iter().rev().find(is_new) {
                refuse_overlap(draft, model, outer, subnet);
            }
            open.push(subnet);
        }
    }
}

/// An address of a router's port, with its prefix.
struct Subnet<'a> {
    net: IpNet,
    port: &'a Port,
    /// Which of the port's addresses.
    index: usize,
}

fn refuse_overlap(draft: &mut Draft<'_>, model: &Model, a: &Subnet<'_>, b: &Subnet<'_>) {
    let by = |it: &Subnet<'_>| draft.put_by(Kind::Port, it.port.id.0);
    let (blamed, other) = if by(a) > by(b) { (a, b) } else { (b, a) };
    let message = format!(
        "{} overlaps {} of {}: expected another subnet on each port of a router",
        blamed.net,
        other.net,
        model.port_path(other.port.id)
    );
    draft.refuse_at(
        at(blamed.port),
        format!("/addresses/{}", blamed.index),
        message,
    );
}

/// What a single machine may have (RFC 1122, 3.2.1.3; RFC 4291, 2.4).
fn is_unicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(it) => {
            let first = it.octets()[0];
            !it.is_multicast() && !it.is_loopback() && first != 0 && first < 240
        }
        IpAddr::V6(it) => !it.is_unspecified() && !it.is_loopback() && !it.is_multicast(),
    }
}

fn bindings(draft: &mut Draft<'_>, model: &Model) {
    let mut unique = Unique::new("/binding", "the interface is taken");
    let mut keys = Unique::new("/binding/tunnel_key", "the host's tunnel key is taken");
    for port in model.ports.values() {
        if let Some(binding) = &port.binding {
            let key: (HostId, &str) = (binding.host, &binding.interface);
            unique.see(draft, key, at(port), &model.port_path(port.id));
            if let Some(tunnel_key) = binding.tunnel_key {
                let key = (binding.host, tunnel_key);
                keys.see(draft, key, at(port), &model.port_path(port.id));
            }
        }
    }
}

/// MACs that a bridge knows without learning: of its exterior ports and of the router ports behind it.
fn seeded_macs(draft: &mut Draft<'_>, model: &Model) {
    let mut unique: Unique<(BridgeId, Mac)> = Unique::new("/mac", "the MAC is taken");
    for port in model.ports.values() {
        let DeviceId::Bridge(bridge) = port.device else {
            continue;
        };
        let owner = match port.peer.map(|id| model.ports.get(&id)) {
            None => port,
            Some(Some(peer)) if matches!(peer.device, DeviceId::Router(_)) => peer,
            Some(_) => continue,
        };
        unique.see(
            draft,
            (bridge, owner.mac),
            at(owner),
            &model.port_path(owner.id),
        );
    }
}

fn device_addresses(draft: &mut Draft<'_>, model: &Model) {
    let mut unique: Unique<(DeviceId, IpAddr)> = Unique::new("", "the address is taken");
    for port in model.ports.values() {
        for (index, address) in port.addresses.iter().enumerate() {
            unique.pointer = format!("/addresses/{index}");
            let path = model.port_path(port.id);
            unique.see(draft, (port.device, address.address), at(port), &path);
        }
    }
}

/// Refuses the second owner of something. The one that this transaction put, or put later, is to blame.
pub(super) struct Unique<K> {
    pointer: String,
    complaint: &'static str,
    owners: HashMap<K, ((Kind, Uuid), String, String)>,
}

impl<K: Eq + Hash> Unique<K> {
    pub(super) fn new(pointer: &str, complaint: &'static str) -> Self {
        Self {
            pointer: pointer.to_owned(),
            complaint,
            owners: HashMap::new(),
        }
    }

    pub(super) fn see(&mut self, draft: &mut Draft<'_>, key: K, owner: (Kind, Uuid), text: &str) {
        let Some((first, first_text, first_pointer)) = self.owners.get(&key) else {
            let entry = (owner, text.to_owned(), self.pointer.clone());
            self.owners.insert(key, entry);
            return;
        };
        let (kind, id) = owner;
        let (first_kind, first_id) = *first;
        let (blamed, pointer, holder) =
            if draft.put_by(kind, id) > draft.put_by(first_kind, first_id) {
                (owner, &self.pointer, first_text.as_str())
            } else {
                (*first, first_pointer, text)
            };
        draft.refuse_at(
            blamed,
            pointer.clone(),
            format!("{}: {holder} has it", self.complaint),
        );
    }
}
