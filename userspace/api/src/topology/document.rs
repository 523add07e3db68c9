//! The documents of a topology file as typed values, each with its place, and how they are read
//! from YAML. References between them are not followed here; `plan` does that against the
//! topology that exists.

use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::IpAddr;

use weft_vnet::model::{ROUTE_WEIGHT_DEFAULT, TUNNEL_KEY_MAX};
use weft_vnet::{Encapsulation, Mac, PortAddress, Route, RouteAction};

use super::mistake::{Mistake, Mistakes, Span, Spanned};
use super::policy::{self, AddressGroupEntry, ChainEntry, PortGroupEntry};
use super::reader::{Fields, Keys, Reader, list};
use super::yaml::{self, Node, Source, Value};

const DOCUMENT: Keys = Keys {
    what: "a document",
    known: &[
        "weft",
        "tenant",
        "bridges",
        "routers",
        "tunnel_zones",
        "hosts",
        "chains",
        "address_groups",
        "port_groups",
    ],
    later: &[],
};
const BRIDGE: Keys = Keys {
    what: "a bridge",
    known: &["ports"],
    later: &["ingress", "egress", "dhcp"],
};
const ROUTER: Keys = Keys {
    what: "a router",
    known: &["ports", "routes"],
    later: &["ingress", "egress", "floating", "load_balancers"],
};
const BRIDGE_PORT: Keys = Keys {
    what: "a bridge port",
    known: &[
        "mac",
        "addresses",
        "bind",
        "peer",
        "admin_up",
        "ingress",
        "egress",
    ],
    later: &["allowed_pairs"],
};
const ROUTER_PORT: Keys = Keys {
    what: "a router port",
    known: &[
        "mac",
        "addresses",
        "bind",
        "peer",
        "admin_up",
        "ingress",
        "egress",
    ],
    later: &["allowed_pairs", "uplink", "masquerade"],
};
const BIND: Keys = Keys {
    what: "a binding",
    known: &["host", "interface", "tunnel_key"],
    later: &[],
};
const ROUTE: Keys = Keys {
    what: "a route",
    known: &["to", "from", "via", "action", "weight"],
    later: &[],
};
const ZONE: Keys = Keys {
    what: "a tunnel zone",
    known: &["encapsulation"],
    later: &[],
};
const HOST: Keys = Keys {
    what: "a host",
    known: &["zones"],
    later: &[],
};

/// One parsed topology file.
#[derive(Clone, Debug)]
pub struct TopologyFile {
    /// Its documents, in order.
    pub documents: Vec<Document>,
    pub(crate) source: Source,
}

/// One document: what belongs to a tenant, or what belongs to none.
#[derive(Clone, Debug, Default)]
pub struct Document {
    /// The tenant that bridges and routers belong to.
    pub tenant: Option<Spanned<String>>,
    /// Bridges with their ports.
    pub bridges: Vec<BridgeEntry>,
    /// Routers with their ports and routes.
    pub routers: Vec<RouterEntry>,
    /// Tunnel zones.
    pub tunnel_zones: Vec<ZoneEntry>,
    /// Hosts.
    pub hosts: Vec<HostEntry>,
    /// Chains.
    pub chains: Vec<ChainEntry>,
    /// Address groups.
    pub address_groups: Vec<AddressGroupEntry>,
    /// Port groups.
    pub port_groups: Vec<PortGroupEntry>,
}

/// A bridge as a file says it.
#[derive(Clone, Debug)]
pub struct BridgeEntry {
    /// Its name.
    pub name: Spanned<String>,
    /// Its ports that the file mentions.
    pub ports: Vec<PortEntry>,
}

/// A router as a file says it.
#[derive(Clone, Debug)]
pub struct RouterEntry {
    /// Its name.
    pub name: Spanned<String>,
    /// Its ports that the file mentions.
    pub ports: Vec<PortEntry>,
    /// All its routes, if the file lists them.
    pub routes: Option<Spanned<Vec<Spanned<Route>>>>,
}

/// A port as a file says it; what is `None` stays as it is.
#[derive(Clone, Debug)]
pub struct PortEntry {
    /// Its name.
    pub name: Spanned<String>,
    /// Its MAC address.
    pub mac: Option<Spanned<Mac>>,
    /// All its addresses, if the file lists them.
    pub addresses: Option<Spanned<Vec<Spanned<PortAddress>>>>,
    /// Whether packets pass at all.
    pub admin_up: Option<Spanned<bool>>,
    /// What it is connected to.
    pub attachment: Option<Attachment>,
    /// Names of all chains of its ingress, if the file lists them.
    pub ingress: Option<Spanned<Vec<Spanned<String>>>>,
    /// Names of all chains of its egress, likewise.
    pub egress: Option<Spanned<Vec<Spanned<String>>>>,
}

/// What a port is connected to.
#[derive(Clone, Debug)]
pub enum Attachment {
    /// An interface of a host: the port is exterior.
    Bind {
        /// Name of the host.
        host: Spanned<String>,
        /// Name of the interface there.
        interface: Spanned<String>,
        /// The port's GRE key there, if no weftd runs on the host.
        tunnel_key: Option<Spanned<u32>>,
    },
    /// Another port, as (device, port): the port is interior.
    Peer(Spanned<(String, String)>),
}

/// A tunnel zone as a file says it.
#[derive(Clone, Debug)]
pub struct ZoneEntry {
    /// Its name.
    pub name: Spanned<String>,
    /// How its hosts encapsulate.
    pub encapsulation: Option<Spanned<Encapsulation>>,
}

/// A host as a file says it.
#[derive(Clone, Debug)]
pub struct HostEntry {
    /// Its name.
    pub name: Spanned<String>,
    /// Its underlay address in each of its zones, if the file lists them.
    pub zones: Option<Spanned<Vec<ZoneAddress>>>,
}

/// A host's underlay address in a tunnel zone.
#[derive(Clone, Debug)]
pub struct ZoneAddress {
    /// Name of the zone.
    pub zone: Spanned<String>,
    /// The address.
    pub address: Spanned<IpAddr>,
}

impl TopologyFile {
    /// Parses a file. `name` is what errors call it.
    ///
    /// # Errors
    /// Every mistake that can be seen without knowing the existing topology, with its place.
    pub fn parse(name: &str, text: &str) -> Result<TopologyFile, Mistakes> {
        let source = Source::new(name, text);
        let nodes = yaml::documents(&source).map_err(|mistake| Mistakes::new(vec![mistake]))?;
        let mut reader = Reader::new(&source);
        // A list of documents is what they are in JSON, which has no `---`.
        let listed = nodes.iter().flat_map(|node| match &node.value {
            Value::Sequence(items) => items.iter(),
            _ => std::slice::from_ref(node).iter(),
        });
        let documents: Vec<Document> = listed
            .filter_map(|node| document(&mut reader, node))
            .collect();
        repeated_names(&mut reader, &documents);
        if nodes.is_empty() {
            let span = Span {
                start: 0,
                end: 0,
                line: 1,
                column: 1,
            };
            reader.report(
                span,
                "found an empty file, expected `weft: v1` and what follows it",
            );
        }
        let mistakes = reader.mistakes;
        if !mistakes.is_empty() {
            return Err(Mistakes::new(mistakes));
        }
        Ok(TopologyFile { documents, source })
    }

    /// Parses a file as it was read. `name` is what errors call it.
    ///
    /// # Errors
    /// As [`TopologyFile::parse`], and the first byte that isn't UTF-8.
    pub fn parse_bytes(name: &str, bytes: &[u8]) -> Result<TopologyFile, Mistakes> {
        match std::str::from_utf8(bytes) {
            Ok(text) => TopologyFile::parse(name, text),
            Err(error) => {
                let text = String::from_utf8_lossy(bytes);
                let source = Source::new(name, &text);
                let start = error.valid_up_to();
                let byte = bytes.get(start).copied().unwrap_or_default();
                let message = format!("found byte {byte:#04x}, expected UTF-8");
                let mistake = source.mistake(source.span_at(start), message);
                Err(Mistakes::new(vec![mistake]))
            }
        }
    }

    /// A mistake at a place of this file.
    pub(crate) fn mistake(&self, span: Span, message: impl Into<String>) -> Mistake {
        self.source.mistake(span, message)
    }
}

fn document(reader: &mut Reader<'_>, node: &Node) -> Option<Document> {
    let fields = reader.fields(node, &DOCUMENT)?;
    version(reader, node, &fields);
    let tenant = fields.get("tenant").and_then(|node| reader.name(node));
    misplaced(reader, &fields);
    let mut document = Document {
        tenant,
        ..Document::default()
    };
    if let Some(node) = fields.get("bridges") {
        for (name, node) in reader.named(node, "bridges") {
            document.bridges.extend(bridge(reader, name, node));
        }
    }
    if let Some(node) = fields.get("routers") {
        for (name, node) in reader.named(node, "routers") {
            document.routers.extend(router(reader, name, node));
        }
    }
    if let Some(node) = fields.get("tunnel_zones") {
        for (name, node) in reader.named(node, "tunnel zones") {
            document.tunnel_zones.extend(zone(reader, name, node));
        }
    }
    if let Some(node) = fields.get("hosts") {
        for (name, node) in reader.named(node, "hosts") {
            document.hosts.extend(host(reader, name, node));
        }
    }
    // Elsewhere they are misplaced, which was said.
    if fields.key_span("tenant").is_some() {
        policies(reader, &fields, &mut document);
    }
    Some(document)
}

fn policies(reader: &mut Reader<'_>, fields: &Fields<'_>, document: &mut Document) {
    if let Some(node) = fields.get("chains") {
        for (name, node) in reader.named(node, "chains") {
            document.chains.extend(policy::chain(reader, name, node));
        }
    }
    if let Some(node) = fields.get("address_groups") {
        for (name, node) in reader.named(node, "address groups") {
            let group = policy::address_group(reader, name, node);
            document.address_groups.extend(group);
        }
    }
    if let Some(node) = fields.get("port_groups") {
        for (name, node) in reader.named(node, "port groups") {
            let group = policy::port_group(reader, name, node);
            document.port_groups.extend(group);
        }
    }
}

fn version(reader: &mut Reader<'_>, node: &Node, fields: &Fields<'_>) {
    let Some(version) = fields.get("weft") else {
        reader.report(
            node.span,
            "found a document without `weft`, expected `weft: v1` in it",
        );
        return;
    };
    if reader
        .text(version, "`v1`")
        .is_some_and(|text| text != "v1")
    {
        let _: Option<()> = reader.expected(version, "`v1`, the only version of this format");
    }
}

/// What belongs to a tenant stands in a document with `tenant`, the rest in one without.
fn misplaced(reader: &mut Reader<'_>, fields: &Fields<'_>) {
    let owned = fields.key_span("tenant").is_some();
    let wrong: &[&str] = if owned {
        &["tunnel_zones", "hosts"]
    } else {
        &[
            "bridges",
            "routers",
            "chains",
            "address_groups",
            "port_groups",
        ]
    };
    for key in wrong {
        let Some(span) = fields.key_span(key) else {
            continue;
        };
        let message = if owned {
            format!("found `{key}` in a tenant's document, expected it in one without `tenant`")
        } else {
            format!("found `{key}` in a document without `tenant`, expected `tenant: NAME`")
        };
        reader.report(span, message);
    }
}

fn bridge(reader: &mut Reader<'_>, name: Spanned<String>, node: &Node) -> Option<BridgeEntry> {
    let mut ports = Vec::new();
    if !node.is_nothing() {
        let fields = reader.fields(node, &BRIDGE)?;
        if let Some(node) = fields.get("ports") {
            for (name, node) in reader.named(node, "ports") {
                ports.extend(port(reader, name, node, &BRIDGE_PORT));
            }
        }
    }
    Some(BridgeEntry { name, ports })
}

fn router(reader: &mut Reader<'_>, name: Spanned<String>, node: &Node) -> Option<RouterEntry> {
    let mut entry = RouterEntry {
        name,
        ports: Vec::new(),
        routes: None,
    };
    if node.is_nothing() {
        return Some(entry);
    }
    let fields = reader.fields(node, &ROUTER)?;
    if let Some(node) = fields.get("ports") {
        for (name, node) in reader.named(node, "ports") {
            entry.ports.extend(port(reader, name, node, &ROUTER_PORT));
        }
    }
    if let Some(node) = fields.get("routes") {
        let items = reader.items(node, "a list of routes")?;
        let routes = items
            .iter()
            .filter_map(|item| route(reader, item))
            .collect();
        entry.routes = Some(Spanned::new(routes, node.span));
    }
    Some(entry)
}

fn port(
    reader: &mut Reader<'_>,
    name: Spanned<String>,
    node: &Node,
    keys: &Keys,
) -> Option<PortEntry> {
    let mut entry = PortEntry {
        name,
        mac: None,
        addresses: None,
        admin_up: None,
        attachment: None,
        ingress: None,
        egress: None,
    };
    if node.is_nothing() {
        return Some(entry);
    }
    let fields = reader.fields(node, keys)?;
    entry.mac = fields.get("mac").and_then(|node| mac(reader, node));
    entry.admin_up = fields.get("admin_up").and_then(|node| reader.boolean(node));
    if let Some(node) = fields.get("addresses") {
        let on_router = keys.what == ROUTER_PORT.what;
        entry.addresses = addresses(reader, node, on_router);
    }
    entry.ingress = fields
        .get("ingress")
        .and_then(|node| policy::hook(reader, node));
    entry.egress = fields
        .get("egress")
        .and_then(|node| policy::hook(reader, node));
    if let (Some(bind), Some(peer)) = (fields.key_span("bind"), fields.key_span("peer")) {
        let later = if bind.start > peer.start { bind } else { peer };
        reader.report(later, "found both `bind` and `peer`, expected one: a port is bound to an interface or joined to another port");
        return Some(entry);
    }
    entry.attachment = match (fields.get("bind"), fields.get("peer")) {
        (Some(node), _) => bind(reader, node),
        (_, Some(node)) => reader.port_path(node).map(Attachment::Peer),
        _ => None,
    };
    Some(entry)
}

fn mac(reader: &mut Reader<'_>, node: &Node) -> Option<Spanned<Mac>> {
    let mac: Spanned<Mac> = reader.parsed(node, "a MAC address like 02:00:00:00:01:0b")?;
    if mac.value.is_group() {
        return reader.expected(node, "the MAC address of one station, not a multicast one");
    }
    if mac.value == Mac::default() {
        return reader.expected(node, "a MAC address other than zero");
    }
    Some(mac)
}

fn addresses(
    reader: &mut Reader<'_>,
    node: &Node,
    on_router: bool,
) -> Option<Spanned<Vec<Spanned<PortAddress>>>> {
    let items = reader.items(node, "a list of addresses like [10.0.1.11]")?;
    let mut addresses: Vec<Spanned<PortAddress>> = Vec::with_capacity(items.len());
    for item in items {
        let address = if on_router {
            router_address(reader, item)
        } else {
            bridge_address(reader, item)
        };
        let Some(address) = address else { continue };
        let same = |other: &&Spanned<PortAddress>| other.value.address == address.value.address;
        if let Some(first) = addresses.iter().find(same).map(|first| first.span) {
            reader.duplicate(item.span, &format!("`{}`", address.value.address), first);
            continue;
        }
        addresses.push(address);
    }
    Some(Spanned::new(addresses, node.span))
}

fn bridge_address(reader: &mut Reader<'_>, node: &Node) -> Option<Spanned<PortAddress>> {
    let expected = "an IPv4 or IPv6 address like 10.0.1.11";
    let text = reader.text(node, expected)?;
    if let Ok(net) = text.parse::<IpNet>() {
        let expected = format!("an address without a prefix length: {}", net.addr());
        return reader.expected(node, &expected);
    }
    let address: Spanned<IpAddr> = reader.parsed(node, expected)?;
    if address.value.is_unspecified() || address.value.is_multicast() {
        return reader.expected(node, "the address of one station");
    }
    Some(Spanned::new(
        PortAddress {
            address: address.value,
            prefix: None,
        },
        node.span,
    ))
}

fn router_address(reader: &mut Reader<'_>, node: &Node) -> Option<Spanned<PortAddress>> {
    let expected = "an address with a prefix length like 10.0.1.1/24 or fd00:1::1/64";
    let text = reader.text(node, expected)?;
    if let Ok(address) = text.parse::<IpAddr>() {
        let bits = if address.is_ipv4() { 24 } else { 64 };
        return reader.expected(node, &format!("a prefix length, too: {address}/{bits}"));
    }
    let net: Spanned<IpNet> = reader.parsed(node, expected)?;
    let address = net.value.addr();
    if address.is_unspecified() || address.is_multicast() {
        return reader.expected(node, "the address of one station");
    }
    let prefix = Some(net.value.prefix_len());
    Some(Spanned::new(PortAddress { address, prefix }, node.span))
}

fn bind(reader: &mut Reader<'_>, node: &Node) -> Option<Attachment> {
    let fields = reader.fields(node, &BIND)?;
    let host = required(reader, node, &fields, &BIND, "host");
    let interface = required(reader, node, &fields, &BIND, "interface");
    let host = host.and_then(|node| reader.name(node));
    let interface = interface.and_then(|node| reader.interface(node));
    let tunnel_key = match fields.get("tunnel_key") {
        None => None,
        Some(node) => Some(tunnel_key(reader, node)?),
    };
    Some(Attachment::Bind {
        host: host?,
        interface: interface?,
        tunnel_key,
    })
}

fn tunnel_key(reader: &mut Reader<'_>, node: &Node) -> Option<Spanned<u32>> {
    let expected = format!("a tunnel key from 1 to {}", TUNNEL_KEY_MAX);
    let key: Spanned<u32> = reader.parsed(node, &expected)?;
    if (1..=TUNNEL_KEY_MAX).contains(&key.value) {
        return Some(key);
    }
    reader.expected(node, &expected)
}

fn required<'n>(
    reader: &mut Reader<'_>,
    node: &Node,
    fields: &Fields<'n>,
    keys: &Keys,
    key: &str,
) -> Option<&'n Node> {
    let value = fields.get(key);
    if value.is_none() {
        reader.report(
            node.span,
            format!("found {} without `{key}`, expected it", keys.what),
        );
    }
    value
}

fn route(reader: &mut Reader<'_>, node: &Node) -> Option<Spanned<Route>> {
    let fields = reader.fields(node, &ROUTE)?;
    let to = required(reader, node, &fields, &ROUTE, "to").and_then(|node| reader.prefix(node));
    let action = match (fields.get("via"), fields.get("action")) {
        (Some(_), Some(_)) => {
            let span = fields.key_span("action").unwrap_or(node.span);
            reader.report(span, "found both `via` and `action`, expected one");
            None
        }
        (Some(via), None) => next_hop(reader, via, to.as_ref().map(|to| to.value)),
        (None, Some(action)) => route_action(reader, action),
        (None, None) => {
            reader.report(
                node.span,
                "found a route without `via` or `action`, expected one",
            );
            None
        }
    };
    let from = match fields.get("from") {
        Some(node) => Some(reader.prefix(node)?.value),
        None => None,
    };
    let weight = match fields.get("weight") {
        Some(node) => reader.parsed::<u32>(node, "a whole number like 100")?.value,
        None => ROUTE_WEIGHT_DEFAULT,
    };
    Some(Spanned::new(
        Route {
            to: to?.value,
            from,
            action: action?,
            weight,
        },
        node.span,
    ))
}

/// A next hop of the family of the route's prefix.
fn next_hop(reader: &mut Reader<'_>, node: &Node, to: Option<IpNet>) -> Option<RouteAction> {
    let expected = match to {
        None => "an IP address like 10.0.1.1 or fd00:1::1",
        Some(IpNet::V4(_)) => "an IPv4 address like 10.0.1.1",
        Some(IpNet::V6(_)) => "an IPv6 address like fd00:1::1",
    };
    let address: Spanned<IpAddr> = reader.parsed(node, expected)?;
    if to.is_some_and(|to| to.addr().is_ipv4() != address.value.is_ipv4()) {
        return reader.expected(node, expected);
    }
    Some(RouteAction::Via(address.value))
}

fn route_action(reader: &mut Reader<'_>, node: &Node) -> Option<RouteAction> {
    match reader.text(node, &list(&["blackhole", "reject"]))? {
        "blackhole" => Some(RouteAction::Blackhole),
        "reject" => Some(RouteAction::Reject),
        _ => reader.expected(node, &list(&["blackhole", "reject"])),
    }
}

fn zone(reader: &mut Reader<'_>, name: Spanned<String>, node: &Node) -> Option<ZoneEntry> {
    if node.is_nothing() {
        return Some(ZoneEntry {
            name,
            encapsulation: None,
        });
    }
    let fields = reader.fields(node, &ZONE)?;
    let encapsulation =
        fields
            .get("encapsulation")
            .and_then(|node| match reader.text(node, "`gre`")? {
                "gre" => Some(Spanned::new(Encapsulation::Gre, node.span)),
                "vxlan" => {
                    reader.later(node.span, "encapsulation `vxlan`");
                    None
                }
                _ => reader.expected(node, "`gre`"),
            });
    Some(ZoneEntry {
        name,
        encapsulation,
    })
}

fn host(reader: &mut Reader<'_>, name: Spanned<String>, node: &Node) -> Option<HostEntry> {
    if node.is_nothing() {
        return Some(HostEntry { name, zones: None });
    }
    let fields = reader.fields(node, &HOST)?;
    let zones = fields.get("zones").and_then(|node| {
        if node.is_nothing() {
            // An empty value would take the host out of all its zones: that has to be said as `{}`.
            return reader.expected(node, "a mapping from names to underlay addresses");
        }
        let mut zones = Vec::new();
        for (zone, node) in reader.named(node, "underlay addresses") {
            let address = reader.parsed(node, "an IP address like 172.30.1.1 or fd30:1::1");
            zones.extend(address.map(|address| ZoneAddress { zone, address }));
        }
        Some(Spanned::new(zones, node.span))
    });
    Some(HostEntry { name, zones })
}

/// Names that are written twice over documents, or by a bridge and a router.
fn repeated_names(reader: &mut Reader<'_>, documents: &[Document]) {
    let mut devices = Names::default();
    let mut hosts = Names::default();
    let mut zones = Names::default();
    let (mut chains, mut groups, mut port_groups) =
        (Names::default(), Names::default(), Names::default());
    for document in documents {
        let tenant = document.tenant.as_ref().map_or("", |tenant| &tenant.value);
        for bridge in &document.bridges {
            devices.add(reader, tenant, "bridge", &bridge.name);
        }
        for router in &document.routers {
            devices.add(reader, tenant, "router", &router.name);
        }
        for chain in &document.chains {
            chains.add(reader, tenant, "chain", &chain.name);
        }
        for group in &document.address_groups {
            groups.add(reader, tenant, "address group", &group.name);
        }
        for group in &document.port_groups {
            port_groups.add(reader, tenant, "port group", &group.name);
        }
        for host in &document.hosts {
            hosts.add(reader, "", "host", &host.name);
        }
        for zone in &document.tunnel_zones {
            zones.add(reader, "", "tunnel zone", &zone.name);
        }
    }
}

#[derive(Default)]
struct Names<'d> {
    seen: BTreeMap<(&'d str, &'d str), (&'static str, Span)>,
}

impl<'d> Names<'d> {
    fn add(
        &mut self,
        reader: &mut Reader<'_>,
        tenant: &'d str,
        kind: &'static str,
        name: &'d Spanned<String>,
    ) {
        let key = (tenant, name.value.as_str());
        match self.seen.get(&key) {
            Some((first, at)) => {
                let article = if first.starts_with('a') { "an" } else { "a" };
                let message = format!(
                    "found {kind} `{}`, expected another name: {article} {first} has it at {}:{}",
                    name.value, at.line, at.column
                );
                reader.report(name.span, message);
            }
            None => {
                self.seen.insert(key, (kind, name.span));
            }
        }
    }
}
