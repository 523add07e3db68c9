//! Topologies as scenarios write them, and the file that `weft apply` gets for one.
//!
//! Pure: [`Network`](super::Network) makes the workloads.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::packet::Mac;
use super::tap::Station;

/// Longest name of an interface (IFNAMSIZ with its final zero).
const INTERFACE_NAME_LEN_MAX: usize = 15;

/// One tenant's bridges, ports and router.
///
/// Its methods panic on text that isn't what they document: that is a mistake in the scenario.
#[derive(Clone, Debug)]
pub struct Topology {
    tenant: String,
    ports: Vec<PortSpec>,
    router: Option<RouterSpec>,
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
}

impl Topology {
    /// An empty topology.
    pub fn tenant(name: &str) -> Topology {
        Topology {
            tenant: name.into(),
            ports: Vec::new(),
            router: None,
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

    /// Gives the port that was added last another MAC.
    pub fn with_mac(mut self, mac: Mac) -> Topology {
        self.ports.last_mut().expect("a port comes first").mac = mac;
        self
    }

    /// A router between bridges: `router("core", &[("web", "10.0.1.1/24"), ("db", "10.0.2.1/24")])`.
    pub fn router(mut self, name: &str, legs: &[(&str, &str)]) -> Topology {
        let legs = legs
            .iter()
            .map(|(bridge, address)| (bridge.to_string(), network(address)));
        self.router = Some(RouterSpec {
            name: name.into(),
            legs: legs.collect(),
        });
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

    /// The router's address on a bridge: the gateway of its workloads.
    pub fn gateway(&self, bridge: &str) -> Option<Ipv4Addr> {
        let legs = &self.router.as_ref()?.legs;
        legs.iter()
            .find(|(name, _)| name == bridge)
            .map(|(_, address)| address.addr())
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
            let router = self
                .router
                .as_ref()
                .filter(|_| self.gateway(bridge).is_some());
            if let Some(RouterSpec { name, .. }) = router {
                yaml += &format!("      {name}: {{ peer: {name}/{bridge} }}\n");
            }
        }
        if let Some(RouterSpec { name, legs }) = &self.router {
            yaml += &format!("routers:\n  {name}:\n    ports:\n");
            for (bridge, address) in legs {
                yaml += &format!(
                    "      {bridge}: {{ addresses: [{address}], peer: {bridge}/{name} }}\n"
                );
            }
        }
        yaml
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
            kind,
        });
        self
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
            kind: _,
        } = self;
        let mut yaml = format!("      {name}: {{ mac: \"{mac}\", ");
        if let Some(address) = address {
            write!(yaml, "addresses: [{}], ", address.addr()).expect("a string takes all");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topology_becomes_a_file_of_the_fixed_format() {
        let topology = Topology::tenant("acme")
            .port("web/web-1", "h1", "10.0.1.11/24")
            .silent_port("db/db-1", "h2")
            .router("core", &[("web", "10.0.1.1/24")]);
        let expected = r#"weft: v1
tenant: acme
bridges:
  db:
    ports:
      db-1: { mac: "02:fe:00:00:00:02", bind: { host: h2, interface: db1 } }
  web:
    ports:
      web-1: { mac: "02:00:0a:00:01:0b", addresses: [10.0.1.11], bind: { host: h1, interface: web1 } }
      core: { peer: core/web }
routers:
  core:
    ports:
      web: { addresses: [10.0.1.1/24], peer: web/core }
"#;
        assert_eq!(topology.yaml(), expected);
        assert_eq!(topology.gateway("web"), Some(Ipv4Addr::new(10, 0, 1, 1)));
        assert_eq!(topology.gateway("db"), None);
        let hosts = hosts_yaml([("h1", Ipv4Addr::new(172, 30, 1, 1))].into_iter());
        assert!(
            hosts.ends_with("hosts:\n  h1: { zones: { default: 172.30.1.1 } }\n"),
            "{hosts}"
        );
    }
}
