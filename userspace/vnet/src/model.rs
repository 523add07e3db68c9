//! The topology: what people declared, as plain data. Immutable; a change makes a new [`Model`].
//!
//! Owns the objects and nothing that is learned or measured. The store keeps it, the API shows it, and
//! [`crate::Snapshot`] is built from it. Changing is in `apply`, checking in `validate`.

mod address;
mod apply;
mod draft;
mod find;
mod policy;
pub(crate) mod shared;
mod validate;

pub use address::{AddressError, PortAddress};
pub use find::FindError;

use crate::id::{
    AddressGroupId, BridgeId, ChainId, HostId, PortGroupId, PortId, RouterId, TenantId, ZoneId,
};
use crate::mac::Mac;
use crate::policy::{AddressGroup, Chain, Hook, Policy, PortGroup};
use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use uuid::Uuid;

/// Owner and namespace: two tenants may use the same names and addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// Unique among tenants.
    pub name: String,
}

/// A virtual layer 2 switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bridge {
    /// Its id.
    pub id: BridgeId,
    /// Its owner.
    pub tenant: TenantId,
    /// Unique among the tenant's bridges and routers.
    pub name: String,
}

/// A virtual layer 3 router. The prefixes of its ports' addresses are routes as well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Router {
    /// Its id.
    pub id: RouterId,
    /// Its owner.
    pub tenant: TenantId,
    /// Unique among the tenant's bridges and routers.
    pub name: String,
    /// Static routes. The longest destination counts, then the longest source, then the lowest weight.
    #[serde(default)]
    pub routes: Vec<Route>,
}

/// A static route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Destinations, of the family of the next hop.
    pub to: IpNet,
    /// Sources, of the same family; all of them when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<IpNet>,
    /// What happens to packets for them.
    pub action: RouteAction,
    /// Of equal prefixes the lowest weight is used; next hops of one weight share the packets.
    #[serde(default = "default_weight")]
    pub weight: u32,
}

/// What a route does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteAction {
    /// Forward to this address, which must be in the prefix of one of the router's ports: else the route is
    /// not used.
    Via(IpAddr),
    /// Drop in silence.
    Blackhole,
    /// Refuse.
    Reject,
}

/// Highest tunnel key that a binding can declare: without the bit of a state record.
pub const TUNNEL_KEY_MAX: u32 = weft_common::tunnel::STATE_RECORD - 1;

/// Weight of a route that names none.
pub const ROUTE_WEIGHT_DEFAULT: u32 = 100;

fn default_weight() -> u32 {
    ROUTE_WEIGHT_DEFAULT
}

/// A port of a bridge or router: exterior (bound to a host's interface, or not yet) or interior (peered).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Its id.
    pub id: PortId,
    /// What it is a port of.
    pub device: DeviceId,
    /// Unique among the device's ports.
    pub name: String,
    /// Of an exterior bridge port the workload's address, of a router port the router's.
    pub mac: Mac,
    /// A port that is down drops both ways.
    #[serde(default = "default_up")]
    pub admin_up: bool,
    /// Of a bridge port the workload's, without a prefix length; of a router port its own, with one.
    #[serde(default)]
    pub addresses: Vec<PortAddress>,
    /// The interface it is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<Binding>,
    /// The port at the other end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<PortId>,
    /// Chains for what comes into the virtual network by it, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<ChainId>,
    /// Chains for what leaves the virtual network by it, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<ChainId>,
}

fn default_up() -> bool {
    true
}

/// A bridge or router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceId {
    /// A bridge.
    Bridge(BridgeId),
    /// A router.
    Router(RouterId),
}

/// Where an exterior port meets its workload.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Binding {
    /// The host.
    pub host: HostId,
    /// Name of the interface on it.
    pub interface: String,
    /// Where no weftd runs on the host: the GRE key under which it takes frames for the port, 1 to
    /// [`TUNNEL_KEY_MAX`]. A host's weftd gives its ports keys itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel_key: Option<u32>,
}

/// A machine that runs weftd, or another maker's VTEP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Its id.
    pub id: HostId,
    /// Unique among hosts.
    pub name: String,
    /// Its underlay address in each tunnel zone, by the zone's name.
    #[serde(default)]
    pub zones: BTreeMap<String, IpAddr>,
}

/// Hosts that reach each other by tunnels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelZone {
    /// Its id.
    pub id: ZoneId,
    /// Unique among tunnel zones.
    pub name: String,
    /// How packets are carried in it.
    #[serde(default)]
    pub encapsulation: Encapsulation,
}

/// How packets are carried between hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encapsulation {
    /// RFC 2784 with the key of RFC 2890.
    #[default]
    Gre,
}

/// One object of any kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Object {
    /// A tenant.
    Tenant(Tenant),
    /// A bridge.
    Bridge(Bridge),
    /// A router.
    Router(Router),
    /// A port.
    Port(Port),
    /// A host.
    Host(Host),
    /// A tunnel zone.
    TunnelZone(TunnelZone),
    /// A chain of rules.
    Chain(Chain),
    /// An address group.
    AddressGroup(AddressGroup),
    /// A port group.
    PortGroup(PortGroup),
}

/// The kinds of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A tenant.
    Tenant,
    /// A bridge.
    Bridge,
    /// A router.
    Router,
    /// A port.
    Port,
    /// A host.
    Host,
    /// A tunnel zone.
    TunnelZone,
    /// A chain of rules.
    Chain,
    /// An address group.
    AddressGroup,
    /// A port group.
    PortGroup,
}

/// One change of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Make the object, or replace it whole.
    Put(Object),
    /// Remove the object; a device takes its ports with it.
    Delete {
        /// The object's kind.
        kind: Kind,
        /// The object's id.
        id: Uuid,
    },
    /// Change some members of an address group, and say nothing of the others: a small change of a large group. One
    /// that is there already stays, one that isn't stays away.
    Members {
        /// The group.
        group: AddressGroupId,
        /// Those that come.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        add: Vec<IpNet>,
        /// Those that go; one that comes as well goes.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        remove: Vec<IpNet>,
    },
}

/// Why a transaction was refused: one of its operations, and the place in its object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("operation {operation}, {pointer}: {message}")]
pub struct Invalid {
    /// Index of the operation, from 0.
    pub operation: usize,
    /// JSON pointer inside the object (RFC 6901); empty for the object as a whole.
    pub pointer: String,
    /// What is wrong, and what was expected.
    pub message: String,
}

/// The whole topology at one revision. Cheap to clone: objects are shared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// Raised by each transaction.
    pub revision: u64,
    /// Tenants.
    #[serde(with = "shared")]
    pub tenants: BTreeMap<TenantId, Arc<Tenant>>,
    /// Bridges.
    #[serde(with = "shared")]
    pub bridges: BTreeMap<BridgeId, Arc<Bridge>>,
    /// Routers.
    #[serde(with = "shared")]
    pub routers: BTreeMap<RouterId, Arc<Router>>,
    /// Ports.
    #[serde(with = "shared")]
    pub ports: BTreeMap<PortId, Arc<Port>>,
    /// Hosts.
    #[serde(with = "shared")]
    pub hosts: BTreeMap<HostId, Arc<Host>>,
    /// Tunnel zones.
    #[serde(with = "shared")]
    pub zones: BTreeMap<ZoneId, Arc<TunnelZone>>,
    /// Chains and groups.
    #[serde(default)]
    pub policy: Policy,
}

impl Model {
    /// The object of this kind and id.
    pub fn get(&self, kind: Kind, id: Uuid) -> Option<Object> {
        match kind {
            Kind::Tenant => self
                .tenants
                .get(&TenantId(id))
                .map(|it| Object::Tenant((**it).clone())),
            Kind::Bridge => self
                .bridges
                .get(&BridgeId(id))
                .map(|it| Object::Bridge((**it).clone())),
            Kind::Router => self
                .routers
                .get(&RouterId(id))
                .map(|it| Object::Router((**it).clone())),
            Kind::Port => self
                .ports
                .get(&PortId(id))
                .map(|it| Object::Port((**it).clone())),
            Kind::Host => self
                .hosts
                .get(&HostId(id))
                .map(|it| Object::Host((**it).clone())),
            Kind::TunnelZone => self
                .zones
                .get(&ZoneId(id))
                .map(|it| Object::TunnelZone((**it).clone())),
            Kind::Chain => self
                .policy
                .chains
                .get(&ChainId(id))
                .map(|it| Object::Chain((**it).clone())),
            Kind::AddressGroup => self
                .policy
                .address_groups
                .get(&AddressGroupId(id))
                .map(|it| Object::AddressGroup((**it).clone())),
            Kind::PortGroup => self
                .policy
                .port_groups
                .get(&PortGroupId(id))
                .map(|it| Object::PortGroup((**it).clone())),
        }
    }

    /// Every object, in an order in which nothing refers to what comes later (but peers to each other, and ports and
    /// chains to what they are filtered by).
    pub fn objects(&self) -> impl Iterator<Item = Object> {
        let tenants = self
            .tenants
            .values()
            .map(|it| Object::Tenant((**it).clone()));
        let zones = self
            .zones
            .values()
            .map(|it| Object::TunnelZone((**it).clone()));
        let hosts = self.hosts.values().map(|it| Object::Host((**it).clone()));
        let bridges = self
            .bridges
            .values()
            .map(|it| Object::Bridge((**it).clone()));
        let routers = self
            .routers
            .values()
            .map(|it| Object::Router((**it).clone()));
        let ports = self.ports.values().map(|it| Object::Port((**it).clone()));
        let policy = &self.policy;
        let address_groups = policy.address_groups.values();
        let address_groups = address_groups.map(|it| Object::AddressGroup((**it).clone()));
        let port_groups = policy.port_groups.values();
        let port_groups = port_groups.map(|it| Object::PortGroup((**it).clone()));
        let chains = policy.chains.values();
        let chains = chains.map(|it| Object::Chain((**it).clone()));
        tenants
            .chain(zones)
            .chain(hosts)
            .chain(bridges)
            .chain(routers)
            .chain(ports)
            .chain(address_groups)
            .chain(port_groups)
            .chain(chains)
    }

    /// Name of a bridge or router, and its tenant.
    pub fn device(&self, device: DeviceId) -> Option<(&str, TenantId)> {
        match device {
            DeviceId::Bridge(id) => self
                .bridges
                .get(&id)
                .map(|it| (it.name.as_str(), it.tenant)),
            DeviceId::Router(id) => self
                .routers
                .get(&id)
                .map(|it| (it.name.as_str(), it.tenant)),
        }
    }

    /// A port as people write it: `web/web-1`; its id when it (or its device) isn't in the model.
    pub fn port_path(&self, id: PortId) -> String {
        let path = || {
            let port = self.ports.get(&id)?;
            let (device, _) = self.device(port.device)?;
            Some(format!("{device}/{}", port.name))
        };
        path().unwrap_or_else(|| id.to_string())
    }

    /// Routes that a router doesn't use, as things are, with the reason.
    pub fn inactive_routes<'a>(&self, router: &'a Router) -> Vec<(&'a Route, String)> {
        let device = DeviceId::Router(router.id);
        let ports = self.ports.values().map(|port| &**port);
        crate::route::unused(ports.filter(|port| port.device == device), &router.routes)
    }

    /// Name of a bridge, or its id when it isn't in the model.
    pub fn bridge_name(&self, id: BridgeId) -> String {
        self.bridges
            .get(&id)
            .map_or_else(|| id.to_string(), |it| it.name.clone())
    }

    /// Name of a router, or its id when it isn't in the model.
    pub fn router_name(&self, id: RouterId) -> String {
        self.routers
            .get(&id)
            .map_or_else(|| id.to_string(), |it| it.name.clone())
    }
}

impl Object {
    /// What kind of object it is.
    pub fn kind(&self) -> Kind {
        match self {
            Object::Tenant(_) => Kind::Tenant,
            Object::Bridge(_) => Kind::Bridge,
            Object::Router(_) => Kind::Router,
            Object::Port(_) => Kind::Port,
            Object::Host(_) => Kind::Host,
            Object::TunnelZone(_) => Kind::TunnelZone,
            Object::Chain(_) => Kind::Chain,
            Object::AddressGroup(_) => Kind::AddressGroup,
            Object::PortGroup(_) => Kind::PortGroup,
        }
    }

    /// Its id.
    pub fn id(&self) -> Uuid {
        match self {
            Object::Tenant(it) => it.id.0,
            Object::Bridge(it) => it.id.0,
            Object::Router(it) => it.id.0,
            Object::Port(it) => it.id.0,
            Object::Host(it) => it.id.0,
            Object::TunnelZone(it) => it.id.0,
            Object::Chain(it) => it.id.0,
            Object::AddressGroup(it) => it.id.0,
            Object::PortGroup(it) => it.id.0,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Object::Tenant(it) => &it.name,
            Object::Bridge(it) => &it.name,
            Object::Router(it) => &it.name,
            Object::Port(it) => &it.name,
            Object::Host(it) => &it.name,
            Object::TunnelZone(it) => &it.name,
            Object::Chain(it) => &it.name,
            Object::AddressGroup(it) => &it.name,
            Object::PortGroup(it) => &it.name,
        }
    }
}

impl Binding {
    /// `ovs1:vm1`, or `ovs1:vm1 (tunnel key 4711)`, for a host of this name.
    pub fn describe(&self, host: &str) -> String {
        let key = self.tunnel_key.map(|key| format!(" (tunnel key {key})"));
        format!("{host}:{}{}", self.interface, key.unwrap_or_default())
    }
}

impl Port {
    /// Whether it joins two devices.
    pub fn is_interior(&self) -> bool {
        self.peer.is_some()
    }

    /// The chains of one of its hooks, in order.
    pub fn chains(&self, hook: Hook) -> &[ChainId] {
        match hook {
            Hook::Ingress => &self.ingress,
            Hook::Egress => &self.egress,
        }
    }

    /// Whether it may learn MAC addresses: nothing says who may speak here.
    pub fn learns(&self) -> bool {
        self.addresses.is_empty()
    }

    /// Its addresses with their prefixes; without prefix lengths none.
    pub fn networks(&self) -> impl Iterator<Item = IpNet> {
        self.addresses.iter().filter_map(PortAddress::network)
    }

    /// Its IPv4 addresses with their prefixes; without prefix lengths none.
    pub fn ipv4_networks(&self) -> impl Iterator<Item = Ipv4Net> {
        self.addresses.iter().filter_map(PortAddress::ipv4_network)
    }

    /// Whether `address` is one of its own, or its link-local one.
    pub fn has_address(&self, address: IpAddr) -> bool {
        let declared = self.addresses.iter().any(|own| own.address == address);
        declared || self.link_local().is_some_and(|own| own == address)
    }

    /// The link-local address of a router's port that has IPv6 addresses (RFC 4291, 2.8: a router has one on each
    /// of its interfaces). Nobody knows that of a workload: it may choose another (RFC 7217).
    pub fn link_local(&self) -> Option<Ipv6Addr> {
        let is_router = matches!(self.device, DeviceId::Router(_));
        let speaks = self.addresses.iter().any(|own| own.address.is_ipv6());
        (is_router && speaks).then(|| self.mac.link_local())
    }

    /// Its IPv4 addresses.
    pub fn ipv4_addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.addresses.iter().filter_map(PortAddress::ipv4)
    }
}

impl Kind {
    /// The kind's name in API and output, snake case.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Tenant => "tenant",
            Kind::Bridge => "bridge",
            Kind::Router => "router",
            Kind::Port => "port",
            Kind::Host => "host",
            Kind::TunnelZone => "tunnel_zone",
            Kind::Chain => "chain",
            Kind::AddressGroup => "address_group",
            Kind::PortGroup => "port_group",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What a person reads; `name` is the word of the API.
        out.write_str(match self {
            Kind::TunnelZone => "tunnel zone",
            Kind::AddressGroup => "address group",
            Kind::PortGroup => "port group",
            one_word => one_word.name(),
        })
    }
}

/// `10.9.0.0/16 from 10.0.1.0/24 via 10.0.2.254`; the weight is left out.
impl fmt::Display for Route {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Route {
            to,
            from,
            action,
            weight: _,
        } = self;
        write!(out, "{to} ")?;
        if let Some(from) = from {
            write!(out, "from {from} ")?;
        }
        write!(out, "{action}")
    }
}

impl fmt::Display for RouteAction {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RouteAction::Via(address) => write!(out, "via {address}"),
            RouteAction::Blackhole => out.write_str("blackhole"),
            RouteAction::Reject => out.write_str("reject"),
        }
    }
}
