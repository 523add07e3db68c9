//! The network of the differential test, in Weft's terms: see `weft_tests::model::forwarding` for what it is.

use crate::bench::{Bench, GENERATION, PORT, peer};
use std::process::Command;
use std::sync::Arc;
use uuid::Uuid;
use weft_common::flood::{FloodList, FloodRemote};
use weft_common::limits::{FLOOD_LOCALS_MAX, FLOOD_REMOTES_MAX};
use weft_common::port::{Delivery, PortKind, PortRecord};
use weft_common::{Slot, TunnelKey};
use weft_datapath::Datapath;
use weft_tests::model::forwarding::{
    DB_1, DB_2, ROUTER_DB, ROUTER_WEB, WEB_1, WEB_2, WEB_3, mac, v4, v6,
};
use weft_vnet::{
    Activity, Binding, Bridge, BridgeId, DeviceId, Encapsulation, FlowState, Host, HostId, Mac,
    Model, Object, Operation, Outcome, Placement, Port, PortId, Route, RouteAction, Router,
    RouterId, Snapshot, Tenant, TenantId, TunnelZone, ZoneId, compile,
};

/// Index of `web-2` on this host.
const WEB_2_INDEX: u16 = 3;
/// Index of `db-1` on this host.
const DB_1_INDEX: u16 = 4;
/// Local ports that a flood of `web` reaches.
pub const FLOOD_LOCALS: [u16; 1] = [WEB_2_INDEX];
/// Index of the flood list of `web`.
const LIST: u32 = 1;
const MTU: u16 = 1458;

const TENANT: TenantId = TenantId(Uuid::from_u128(1));
const HERE: HostId = HostId(Uuid::from_u128(2));
const THERE: HostId = HostId(Uuid::from_u128(3));
const WEB: BridgeId = BridgeId(Uuid::from_u128(4));
const DB: BridgeId = BridgeId(Uuid::from_u128(5));
const CORE: RouterId = RouterId(Uuid::from_u128(6));

pub struct Network {
    pub snapshot: Snapshot,
    pub state: FlowState,
    pub ingress: PortId,
    placement: Placement,
}

impl Network {
    /// Builds it, and what of it is in the kernel besides flows.
    pub fn new(bench: &mut Bench) -> Network {
        let model = model();
        let key = |index: u16| {
            let generation = GENERATION;
            TunnelKey { index, generation }.bits()
        };
        let snapshot = Snapshot::build(Arc::new(model.clone()), Activity::default());
        let domain = snapshot.flood_domain_of(WEB).expect("a domain").id;
        let activity = Activity {
            ports: [
                (port_id(WEB_1), (HERE, key(PORT))),
                (port_id(WEB_2), (HERE, key(WEB_2_INDEX))),
                (port_id(WEB_3), (THERE, key(u16::from(WEB_3)))),
                (port_id(DB_1), (HERE, key(DB_1_INDEX))),
                (port_id(DB_2), (THERE, key(u16::from(DB_2)))),
            ]
            .into(),
            floods: [((domain, THERE), key(100))].into(),
        };
        let placement = Placement {
            ports: [
                (port_id(WEB_1), PORT),
                (port_id(WEB_2), WEB_2_INDEX),
                (port_id(DB_1), DB_1_INDEX),
            ]
            .into(),
            peers: [(THERE, weft_vnet::Peer { index: 1, mtu: MTU })].into(),
            flood_lists: [(domain, LIST)].into(),
        };
        fill(bench, key(100));
        Network {
            snapshot: Snapshot::build(Arc::new(model), activity),
            state: FlowState::default(),
            ingress: port_id(WEB_1),
            placement,
        }
    }

    pub fn compile(&self, outcome: &Outcome) -> Slot {
        compile(outcome, &self.snapshot, HERE, &self.placement)
    }

    /// Number of the workload on a port of this host.
    pub fn local(&self, index: u16) -> Option<u8> {
        [(WEB_2_INDEX, WEB_2), (DB_1_INDEX, DB_1), (PORT, WEB_1)]
            .into_iter()
            .find_map(|(port, number)| (port == index).then_some(number))
    }

    /// Number of the remote workload with a tunnel key.
    pub fn remote(&self, key: u32) -> Option<u8> {
        let index = TunnelKey::from_bits(key).index;
        [WEB_3, DB_2]
            .into_iter()
            .find(|&number| u16::from(number) == index)
    }

    /// Packets delivered to each port of this host.
    pub fn egress(&self, bench: &Bench) -> Vec<(u16, u64)> {
        let counters = |port| {
            bench
                .kernel
                .port_counters(port)
                .expect("counters")
                .egress_packets
        };
        [PORT, WEB_2_INDEX, DB_1_INDEX]
            .map(|port| (port, counters(port)))
            .into()
    }
}

/// Ports, a flood list, and interfaces that take copies and lead nowhere.
fn fill(bench: &mut Bench, flood_key: u32) {
    let ifindex = |name: &str| {
        let ip = |args: &[&str]| {
            assert!(
                Command::new("ip")
                    .args(args)
                    .status()
                    .expect("ip runs")
                    .success()
            );
        };
        let other = format!("{name}-p");
        ip(&["link", "add", name, "type", "veth", "peer", "name", &other]);
        for end in [name, &other] {
            // Else the kernel sends its own neighbour discovery.
            ip(&["link", "set", end, "addrgenmode", "none", "up"]);
        }
        nix::net::if_::if_nametoindex(name).expect("just made")
    };
    for (port, name) in [(WEB_2_INDEX, "web-2"), (DB_1_INDEX, "db-1")] {
        let record = PortRecord {
            kind: PortKind::Port as u8,
            generation: GENERATION,
            delivery: Delivery::Plain as u8,
            ifindex: ifindex(name),
            ..PortRecord::default()
        };
        bench
            .kernel
            .write_port(port, &record)
            .expect("a port record");
    }
    let mut way = peer();
    way.ifindex = ifindex("under");
    bench.kernel.write_peer(1, &way).expect("underlay record");
    let mut list = FloodList {
        local_count: 2,
        remote_count: 1,
        locals: [0; FLOOD_LOCALS_MAX],
        remotes: [FloodRemote {
            peer: 0,
            tunnel_key: 0,
        }; FLOOD_REMOTES_MAX],
    };
    (list.locals[0], list.locals[1]) = (PORT, WEB_2_INDEX);
    list.remotes[0] = FloodRemote {
        peer: 1,
        tunnel_key: flood_key,
    };
    bench
        .kernel
        .write_flood_list(LIST, &list)
        .expect("a flood list");
}

fn port_id(number: u8) -> PortId {
    PortId(Uuid::from_u128(1000 + u128::from(number)))
}

fn model() -> Model {
    let zone = TunnelZone {
        id: ZoneId(Uuid::from_u128(7)),
        name: "default".into(),
        encapsulation: Encapsulation::Gre,
    };
    let host = |id, name: &str, address: &str| {
        let zones = [("default".to_owned(), address.parse().expect("an address"))].into();
        Object::Host(Host {
            id,
            name: name.into(),
            zones,
        })
    };
    let bridge = |id, name: &str| {
        Object::Bridge(Bridge {
            id,
            tenant: TENANT,
            name: name.into(),
        })
    };
    let black = |to: &str| Route {
        to: to.parse().expect("a prefix"),
        from: None,
        action: RouteAction::Blackhole,
        weight: 100,
    };
    let router = Router {
        id: CORE,
        tenant: TENANT,
        name: "core".into(),
        routes: vec![black("203.0.113.0/24"), black("2001:db8::/32")],
    };
    let mut objects = vec![
        Object::Tenant(Tenant {
            id: TENANT,
            name: "acme".into(),
        }),
        Object::TunnelZone(zone),
        host(HERE, "h1", "172.30.1.1"),
        host(THERE, "h2", "172.30.2.1"),
        bridge(WEB, "web"),
        bridge(DB, "db"),
        Object::Router(router),
    ];
    for (number, bridge, host) in [
        (WEB_1, WEB, HERE),
        (WEB_2, WEB, HERE),
        (WEB_3, WEB, THERE),
        (DB_1, DB, HERE),
        (DB_2, DB, THERE),
    ] {
        let mut port = port(number, DeviceId::Bridge(bridge), "");
        port.binding = Some(bound(host, number));
        objects.push(Object::Port(port));
    }
    for (number, bridge) in [(ROUTER_WEB, WEB), (ROUTER_DB, DB)] {
        let mut own = port(number, DeviceId::Router(CORE), "/");
        let mut other = port(100 + number, DeviceId::Bridge(bridge), "");
        other.addresses.clear();
        own.peer = Some(other.id);
        other.peer = Some(own.id);
        objects.extend([Object::Port(own), Object::Port(other)]);
    }
    let operations: Vec<Operation> = objects.into_iter().map(Operation::Put).collect();
    Model::default().apply(&operations).expect("a topology")
}

fn bound(host: HostId, number: u8) -> Binding {
    Binding {
        host,
        interface: format!("w{number}"),
        tunnel_key: None,
    }
}

/// The port of a workload, or of the router where `slash` says that addresses have prefixes.
fn port(number: u8, device: DeviceId, slash: &str) -> Port {
    let prefix = |length: u8| (slash == "/").then_some(length);
    let v4 = std::net::Ipv4Addr::from(v4(number));
    let v6 = std::net::Ipv6Addr::from(v6(number));
    Port {
        id: port_id(number),
        device,
        name: format!("p{number}"),
        mac: Mac(mac(number)),
        admin_up: true,
        addresses: vec![
            weft_vnet::PortAddress {
                address: v4.into(),
                prefix: prefix(24),
            },
            weft_vnet::PortAddress {
                address: v6.into(),
                prefix: prefix(64),
            },
        ],
        binding: None,
        peer: None,
        ingress: Vec::new(),
        egress: Vec::new(),
    }
}
