//! Topologies as scenarios write them, and the file that `weft apply` gets for one.
//!
//! Pure: [`Network`](super::Network) makes the workloads.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use super::packet::Mac;
use super::tap::Station;

/// Longest name of an interface (IFNAMSIZ with its final zero).
const INTERFACE_NAME_LEN_MAX: usize = 15;

/// One tenant's bridges, ports and routers.
///
/// Its methods panic on text that isn't what they document: that is a mistake in the scenario.
#[derive(Clone, Debug)]
pub struct Topology {
    tenant: String,
    ports: Vec<PortSpec>,
    routers: Vec<RouterSpec>,
    /// Chains and groups, as in the file.
    policy: String,
}

/// An exterior port of a bridge, and the workload behind it.
#[derive(Clone, Debug)]
pub struct PortSpec {
    /// Its bridge.
    pub bridge: String,
    /// Its name, which is the workload's, too.
    pub name: String,
    /// Host to which it is bound.
    pub host: String,
    /// Interface on that host.
    pub interface: String,
    /// The workload's MAC.
    pub mac: Mac,
    /// The workload's address and subnet; none if the network shall not know of any.
    pub address: Option<Ipv4Net>,
    /// Its IPv6 address and subnet.
    pub address_v6: Option<Ipv6Net>,
    /// It has IPv6 and no address: it makes itself one when a router advertises itself (RFC 4862).
    pub autoconf: bool,
    /// Chains for what its workload sends.
    pub ingress: Vec<String>,
    /// Chains for what its workload receives.
    pub egress: Vec<String>,
    /// What is behind the interface.
    pub kind: WorkloadKind,
}

/// What is behind a workload's interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkloadKind {
    /// A veth into a namespace of its own.
    Veth,
    /// A tap with a process behind it.
    Tap,
}

#[derive(Clone, Debug)]
struct RouterSpec {
    name: String,
    /// Bridge, and the router's address on it.
    legs: Vec<(String, Ipv4Net)>,
    /// The same for IPv6, on bridges of `legs` and to routers of `links`.
    legs_v6: Vec<(String, Ipv6Net)>,
    /// Other router, and this one's address on the way there.
    links: Vec<(String, Ipv4Net)>,
    /// Prefix, and what becomes of its packets: `via: ADDRESS` or `action: ACTION`.
    routes: Vec<(String, String)>,
}

impl Topology {
    /// An empty topology.
    pub fn tenant(name: &str) -> Topology {
        Topology {
            tenant: name.into(),
            ports: Vec::new(),
            routers: Vec::new(),
            policy: String::new(),
        }
    }

    /// A veth workload: `port("web/web-1", "h1", "10.0.1.11/24")`. Its MAC is `02:00` and its address.
    pub fn port(self, path: &str, host: &str, address: &str) -> Topology {
        self.add(path, host, Some(address), WorkloadKind::Veth)
    }

    /// A tap workload with a process behind it.
    pub fn tap(self, path: &str, host: &str, address: &str) -> Topology {
        self.add(path, host, Some(address), WorkloadKind::Tap)
    }

    /// A veth workload of which the network knows no address. Its MAC is `02:fe` and its number.
    pub fn silent_port(self, path: &str, host: &str) -> Topology {
        self.add(path, host, None, WorkloadKind::Veth)
    }

    /// Gives the port that was added last an IPv6 address, too: `and_v6("fd00:1::b/64")`.
    pub fn and_v6(mut self, address: &str) -> Topology {
        let port = self.ports.last_mut().expect("a port comes first");
        port.address_v6 = Some(network_v6(address));
        self
    }

    /// Has the workload of the port that was added last configure itself for IPv6.
    pub fn and_autoconf(mut self) -> Topology {
        self.ports.last_mut().expect("a port comes first").autoconf = true;
        self
    }

    /// Gives the port that was added last another MAC.
    pub fn with_mac(mut self, mac: Mac) -> Topology {
        self.ports.last_mut().expect("a port comes first").mac = mac;
        self
    }

    /// Gives the port that was added last chains: `and_chains(&["from-web"], &["to-web"])`, ingress and egress.
    pub fn and_chains(mut self, ingress: &[&str], egress: &[&str]) -> Topology {
        let port = self.ports.last_mut().expect("a port comes first");
        let owned = |list: &[&str]| list.iter().map(|it| (*it).to_owned()).collect();
        (port.ingress, port.egress) = (owned(ingress), owned(egress));
        self
    }

    /// Chains and groups, as the topology file has them: what stands at the left edge of a tenant's document.
    pub fn policy(mut self, yaml: &str) -> Topology {
        self.policy = yaml.to_owned();
        self
    }

    /// A router between bridges: `router("core", &[("web", "10.0.1.1/24"), ("db", "10.0.2.1/24")])`. There can be
    /// several.
    pub fn router(mut self, name: &str, legs: &[(&str, &str)]) -> Topology {
        let legs = legs
            .iter()
            .map(|(bridge, address)| (bridge.to_string(), network(address)));
        self.routers.push(RouterSpec {
            name: name.into(),
            legs: legs.collect(),
            legs_v6: Vec::new(),
            links: Vec::new(),
            routes: Vec::new(),
        });
        self
    }

    /// Gives the router that was added last IPv6 addresses, too, on bridges where it has a leg:
    /// `and_legs_v6(&[("web", "fd00:1::1/64")])`.
    pub fn and_legs_v6(mut self, legs: &[(&str, &str)]) -> Topology {
        let router = self.routers.last_mut().expect("a router comes first");
        let legs = legs.iter();
        router.legs_v6 = legs
            .map(|(bridge, address)| (bridge.to_string(), network_v6(address)))
            .collect();
        self
    }

    /// Joins two routers that were added before, by a port on each that has the other's name:
    /// `link(("r1", "10.255.1.1/30"), ("r2", "10.255.1.2/30"))`.
    pub fn link(mut self, one: (&str, &str), other: (&str, &str)) -> Topology {
        for ((here, address), (there, _)) in [(one, other), (other, one)] {
            let links = &mut self.router_named(here).links;
            links.push((there.into(), network(address)));
        }
        self
    }

    /// A static route: `route("r1", "10.0.2.0/24", "10.255.1.2")`.
    pub fn route(mut self, router: &str, to: &str, via: &str) -> Topology {
        let target = format!("via: \"{via}\"");
        let routes = &mut self.router_named(router).routes;
        routes.push((to.into(), target));
        self
    }

    /// A static route without a next hop: `route_action("r1", "192.0.2.0/24", "reject")`.
    pub fn route_action(mut self, router: &str, to: &str, action: &str) -> Topology {
        let routes = &mut self.router_named(router).routes;
        routes.push((to.into(), format!("action: {action}")));
        self
    }

    /// Routers in a row between two bridges, each with routes to both: `row(&["r1", "r2", "r3"],
    /// ("web", "10.0.1.1/24"), ("db", "10.0.2.1/24"))`. Between the Nth and the next one is 10.255.N.0/30, with
    /// .1 on the first's side.
    pub fn row(self, names: &[&str], left: (&str, &str), right: (&str, &str)) -> Topology {
        let last = names.len() - 1;
        let [left_prefix, right_prefix] =
            [left, right].map(|(_, address)| network(address).trunc().to_string());
        let mut topology = self;
        for (index, name) in names.iter().enumerate() {
            let legs = [
                (index == 0).then_some(left),
                (index == last).then_some(right),
            ];
            let legs: Vec<(&str, &str)> = legs.into_iter().flatten().collect();
            topology = topology.router(name, &legs);
        }
        for (index, pair) in names.windows(2).enumerate() {
            let [one, other] = [1, 2].map(|host| format!("10.255.{}.{host}", index + 1));
            topology = topology
                .link(
                    (pair[0], &format!("{one}/30")),
                    (pair[1], &format!("{other}/30")),
                )
                .route(pair[0], &right_prefix, &other)
                .route(pair[1], &left_prefix, &one);
        }
        topology
    }

    /// Gives routers in a [`Topology::row`] IPv6, too: `and_row_v6(&["r1", "r2", "r3"], ("web", "fd00:1::1/64"),
    /// ("db", "fd00:2::1/64"))`. Between the Nth and the next one is fd00:ffff:N::/64, with ::1 on the first's side.
    pub fn and_row_v6(
        mut self,
        names: &[&str],
        left: (&str, &str),
        right: (&str, &str),
    ) -> Topology {
        let [left_prefix, right_prefix] =
            [left, right].map(|(_, address)| network_v6(address).trunc().to_string());
        for (name, (bridge, address)) in [(names[0], left), (names[names.len() - 1], right)] {
            let legs = &mut self.router_named(name).legs_v6;
            legs.push((bridge.into(), network_v6(address)));
        }
        for (index, pair) in names.windows(2).enumerate() {
            let [one, other] = [1, 2].map(|host| format!("fd00:ffff:{}::{host}", index + 1));
            for (here, there, address) in [(pair[0], pair[1], &one), (pair[1], pair[0], &other)] {
                let legs = &mut self.router_named(here).legs_v6;
                legs.push((there.into(), network_v6(&format!("{address}/64"))));
            }
            self = self
                .route(pair[0], &right_prefix, &other)
                .route(pair[1], &left_prefix, &one);
        }
        self
    }

    /// Its tenant.
    pub fn tenant_name(&self) -> &str {
        &self.tenant
    }

    /// Its exterior ports.
    pub fn ports(&self) -> &[PortSpec] {
        &self.ports
    }

    /// The address on a bridge of the first router that has one: the gateway of its workloads.
    pub fn gateway(&self, bridge: &str) -> Option<Ipv4Addr> {
        let mut legs = self.routers.iter().flat_map(|router| &router.legs);
        legs.find(|(name, _)| name == bridge)
            .map(|(_, address)| address.addr())
    }

    /// The same for IPv6.
    pub fn gateway_v6(&self, bridge: &str) -> Option<Ipv6Addr> {
        let mut legs = self.routers.iter().flat_map(|router| &router.legs_v6);
        legs.find(|(name, _)| name == bridge)
            .map(|(_, address)| address.addr())
    }

    /// Whether any workload has IPv6: then all hear of it.
    pub fn has_v6(&self) -> bool {
        self.ports
            .iter()
            .any(|port| port.autoconf || port.address_v6.is_some())
    }

    /// What is behind a port, if the network knows its address.
    pub fn station(&self, port: &PortSpec) -> Option<Station> {
        let gateway = self.gateway(&port.bridge);
        port.address.map(|address| Station {
            mac: port.mac,
            address,
            gateway,
        })
    }

    /// What is behind the port with this name.
    pub fn station_named(&self, name: &str) -> Option<Station> {
        self.station(self.ports.iter().find(|port| port.name == name)?)
    }

    /// The document for `weft apply`.
    pub fn yaml(&self) -> String {
        let mut bridges: BTreeMap<&str, Vec<&PortSpec>> = BTreeMap::new();
        for port in &self.ports {
            bridges.entry(&port.bridge).or_default().push(port);
        }
        let mut yaml = format!("weft: v1\ntenant: {}\nbridges:\n", self.tenant);
        for (bridge, ports) in bridges {
            yaml += &format!("  {bridge}:\n    ports:\n");
            ports.iter().for_each(|port| yaml += &port.yaml());
            for RouterSpec { name, legs, .. } in &self.routers {
                if legs.iter().any(|(leg, _)| leg == bridge) {
                    yaml += &format!("      {name}: {{ peer: {name}/{bridge} }}\n");
                }
            }
        }
        if !self.routers.is_empty() {
            yaml += "routers:\n";
        }
        self.routers
            .iter()
            .for_each(|router| yaml += &router.yaml());
        yaml + &self.policy
    }

    fn router_named(&mut self, name: &str) -> &mut RouterSpec {
        let mut routers = self.routers.iter_mut();
        routers
            .find(|router| router.name == name)
            .unwrap_or_else(|| panic!("{name}: no such router"))
    }

    fn add(
        mut self,
        path: &str,
        host: &str,
        address: Option<&str>,
        kind: WorkloadKind,
    ) -> Topology {
        let (bridge, name) = path.split_once('/').expect("a port is BRIDGE/PORT");
        let address = address.map(network);
        let number = u8::try_from(self.ports.len() + 1).expect("few ports");
        let mac = address.map_or(Mac([2, 0xfe, 0, 0, 0, number]), |address| {
            Mac::of_address(address.addr())
        });
        self.ports.push(PortSpec {
            bridge: bridge.into(),
            name: name.into(),
            host: host.into(),
            interface: interface_name(name),
            mac,
            address,
            address_v6: None,
            autoconf: false,
            ingress: Vec::new(),
            egress: Vec::new(),
            kind,
        });
        self
    }
}

impl RouterSpec {
    fn yaml(&self) -> String {
        let RouterSpec {
            name,
            legs,
            legs_v6,
            links,
            routes,
        } = self;
        let mut yaml = format!("  {name}:\n    ports:\n");
        for (other, address) in legs.iter().chain(links) {
            let on_leg = legs_v6.iter().filter(|(leg, _)| leg == other);
            let v6: String = on_leg.map(|(_, it)| format!(", \"{it}\"")).collect();
            yaml +=
                &format!("      {other}: {{ addresses: [{address}{v6}], peer: {other}/{name} }}\n");
        }
        if !routes.is_empty() {
            yaml += "    routes:\n";
        }
        for (to, target) in routes {
            yaml += &format!("      - {{ to: \"{to}\", {target} }}\n");
        }
        yaml
    }
}

impl PortSpec {
    /// Where the port is: `BRIDGE/PORT`.
    pub fn path(&self) -> String {
        format!("{}/{}", self.bridge, self.name)
    }

    fn yaml(&self) -> String {
        let PortSpec {
            bridge: _,
            name,
            host,
            interface,
            mac,
            address,
            address_v6,
            autoconf: _,
            ingress,
            egress,
            kind: _,
        } = self;
        let mut yaml = format!("      {name}: {{ mac: \"{mac}\", ");
        let v4 = address.map(|address| address.addr().to_string());
        let v6 = address_v6.map(|address| format!("\"{}\"", address.addr()));
        let addresses: Vec<String> = v4.into_iter().chain(v6).collect();
        if !addresses.is_empty() {
            let addresses = addresses.join(", ");
            write!(yaml, "addresses: [{addresses}], ").expect("a string takes all");
        }
        for (hook, chains) in [("ingress", ingress), ("egress", egress)] {
            if !chains.is_empty() {
                let chains = chains.join(", ");
                write!(yaml, "{hook}: [{chains}], ").expect("a string takes all");
            }
        }
        yaml + &format!("bind: {{ host: {host}, interface: {interface} }} }}\n")
    }
}

/// The document with the tunnel zone and the hosts' addresses in it.
pub fn hosts_yaml<'a>(hosts: impl Iterator<Item = (&'a str, Ipv4Addr)>) -> String {
    let mut yaml =
        String::from("weft: v1\ntunnel_zones: { default: { encapsulation: gre } }\nhosts:\n");
    for (name, address) in hosts {
        yaml += &format!("  {name}: {{ zones: {{ default: {address} }} }}\n");
    }
    yaml
}

/// The interface of a workload on its host: `web-1` is `web1`.
fn interface_name(workload: &str) -> String {
    let name: String = workload.chars().filter(|char| *char != '-').collect();
    assert!(
        name.len() <= INTERFACE_NAME_LEN_MAX,
        "{workload}: too long for an interface's name"
    );
    name
}

fn network(text: &str) -> Ipv4Net {
    text.parse()
        .unwrap_or_else(|_| panic!("{text}: not ADDRESS/PREFIX"))
}

fn network_v6(text: &str) -> Ipv6Net {
    text.parse()
        .unwrap_or_else(|_| panic!("{text}: not ADDRESS/PREFIX of IPv6"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topology_becomes_a_file_of_the_fixed_format() {
        let topology = Topology::tenant("acme")
            .port("web/web-1", "h1", "10.0.1.11/24")
            .and_v6("fd00:1::b/64")
            .silent_port("db/db-1", "h2")
            .router("core", &[("web", "10.0.1.1/24")])
            .and_legs_v6(&[("web", "fd00:1::1/64")]);
        let expected = r#"weft: v1
tenant: acme
bridges:
  db:
    ports:
      db-1: { mac: "02:fe:00:00:00:02", bind: { host: h2, interface: db1 } }
  web:
    ports:
      web-1: { mac: "02:00:0a:00:01:0b", addresses: [10.0.1.11, "fd00:1::b"], bind: { host: h1, interface: web1 } }
      core: { peer: core/web }
routers:
  core:
    ports:
      web: { addresses: [10.0.1.1/24, "fd00:1::1/64"], peer: web/core }
"#;
        assert_eq!(topology.yaml(), expected);
        assert_eq!(topology.gateway("web"), Some(Ipv4Addr::new(10, 0, 1, 1)));
        assert_eq!(topology.gateway("db"), None);
    }

    #[test]
    fn routers_in_a_row_have_links_and_routes_to_both_ends() {
        let topology = Topology::tenant("acme")
            .row(&["r1", "r2"], ("web", "10.0.1.1/24"), ("db", "10.0.2.1/24"))
            .and_row_v6(
                &["r1", "r2"],
                ("web", "fd00:1::1/64"),
                ("db", "fd00:2::1/64"),
            )
            .route_action("r2", "192.0.2.0/24", "reject");
        let expected = r#"weft: v1
tenant: acme
bridges:
routers:
  r1:
    ports:
      web: { addresses: [10.0.1.1/24, "fd00:1::1/64"], peer: web/r1 }
      r2: { addresses: [10.255.1.1/30, "fd00:ffff:1::1/64"], peer: r2/r1 }
    routes:
      - { to: "10.0.2.0/24", via: "10.255.1.2" }
      - { to: "fd00:2::/64", via: "fd00:ffff:1::2" }
  r2:
    ports:
      db: { addresses: [10.0.2.1/24, "fd00:2::1/64"], peer: db/r2 }
      r1: { addresses: [10.255.1.2/30, "fd00:ffff:1::2/64"], peer: r1/r2 }
    routes:
      - { to: "10.0.1.0/24", via: "10.255.1.1" }
      - { to: "fd00:1::/64", via: "fd00:ffff:1::1" }
      - { to: "192.0.2.0/24", action: reject }
"#;
        assert_eq!(topology.yaml(), expected);
    }

    #[test]
    fn hosts_are_written_with_their_addresses() {
        let hosts = hosts_yaml([("h1", Ipv4Addr::new(172, 30, 1, 1))].into_iter());
        assert!(
            hosts.ends_with("hosts:\n  h1: { zones: { default: 172.30.1.1 } }\n"),
            "{hosts}"
        );
    }
}
