//! Topologies and packets for the tests of this crate: one helper builds a topology, one a packet.
//!
//! No state. Ids count up, so that they are the same in every run.

use crate::flow_state::FlowState;
use crate::model::*;
use crate::packet::{Entry, Packet};
use crate::simulate::{Outcome, simulate};
use crate::snapshot::{Activity, Snapshot};
use crate::trace::Step;
use crate::workload::frame_for;
use crate::{BridgeId, HostId, Mac, PortId, RouterId, TenantId, ZoneId};
use std::cell::Cell;
use std::sync::Arc;
use uuid::Uuid;
use weft_common::TunnelKey;

/// A topology that grows by one object at a time.
pub(crate) struct Topology {
    pub(crate) model: Model,
    pub(crate) state: FlowState,
    next: Cell<u128>,
}

impl Topology {
    /// One tenant, two hosts in one zone, nothing else.
    pub(crate) fn new() -> Self {
        let mut topology = Topology {
            model: Model::default(),
            state: FlowState::default(),
            next: Cell::new(1),
        };
        let tenant = Tenant {
            id: TenantId(topology.uuid()),
            name: "acme".into(),
        };
        let zone = TunnelZone {
            id: ZoneId(topology.uuid()),
            name: "default".into(),
            encapsulation: Encapsulation::Gre,
        };
        let mut objects = vec![Object::Tenant(tenant), Object::TunnelZone(zone)];
        for (name, address) in [("h1", "172.30.1.1"), ("h2", "172.30.2.1")] {
            let id = HostId(topology.uuid());
            let zones = [("default".to_owned(), address.parse().unwrap())].into();
            objects.push(Object::Host(Host {
                id,
                name: name.into(),
                zones,
            }));
        }
        topology.put(objects);
        topology
    }

    /// Bridges `web` (10.0.1.0/24) and `db` (10.0.2.0/24) with two workloads each, joined by router `core`.
    pub(crate) fn two_subnets() -> Self {
        let mut topology = Topology::new();
        topology.router("core");
        for (bridge, net) in [("web", 1), ("db", 2)] {
            topology.bridge(bridge);
            for (index, last) in [(1, 11), (2, 12)] {
                let path = format!("{bridge}/{bridge}-{index}");
                topology.port(&path, &[&format!("10.0.{net}.{last}")]);
                let host = if index == 1 { "h1" } else { "h2" };
                topology.bind(&path, host);
            }
            topology.port(&format!("core/{bridge}"), &[&format!("10.0.{net}.1/24")]);
            topology.port(&format!("{bridge}/core"), &[]);
            topology.peer(&format!("{bridge}/core"), &format!("core/{bridge}"));
        }
        topology
    }

    pub(crate) fn bridge(&mut self, name: &str) -> BridgeId {
        let (id, tenant) = (BridgeId(self.uuid()), self.tenant());
        self.put(vec![Object::Bridge(Bridge {
            id,
            tenant,
            name: name.into(),
        })]);
        id
    }

    pub(crate) fn router(&mut self, name: &str) -> RouterId {
        let (id, tenant) = (RouterId(self.uuid()), self.tenant());
        self.put(vec![Object::Router(Router {
            id,
            tenant,
            name: name.into(),
            routes: Vec::new(),
        })]);
        id
    }

    pub(crate) fn port(&mut self, path: &str, addresses: &[&str]) -> PortId {
        let mut port = self.port_object(path);
        port.addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        let id = port.id;
        self.put(vec![Object::Port(port)]);
        id
    }

    /// A port of this path that isn't in the model yet.
    pub(crate) fn port_object(&self, path: &str) -> Port {
        let (device, name) = path.split_once('/').unwrap();
        let bridges = self
            .model
            .bridges
            .values()
            .map(|it| (DeviceId::Bridge(it.id), &it.name));
        let routers = self
            .model
            .routers
            .values()
            .map(|it| (DeviceId::Router(it.id), &it.name));
        let (device, _) = bridges
            .chain(routers)
            .find(|(_, name)| *name == device)
            .unwrap();
        let number = self.next.get() as u8;
        Port {
            id: PortId(self.uuid()),
            device,
            name: name.into(),
            mac: Mac([2, 0, 0, 0, 0, number]),
            admin_up: true,
            addresses: Vec::new(),
            binding: None,
            peer: None,
            ingress: Vec::new(),
            egress: Vec::new(),
        }
    }

    pub(crate) fn peer(&mut self, path: &str, other: &str) {
        let other = self.id(other);
        self.change(path, |port| port.peer = Some(other));
    }

    pub(crate) fn bind(&mut self, path: &str, host: &str) {
        let host = self
            .model
            .hosts
            .values()
            .find(|it| it.name == host)
            .unwrap()
            .id;
        let interface = path.replace('/', "-");
        self.change(path, |port| {
            port.binding = Some(Binding {
                host,
                interface,
                tunnel_key: None,
            })
        });
    }

    /// The same, on a host without weftd.
    pub(crate) fn bind_with_key(&mut self, path: &str, host: &str, tunnel_key: u32) {
        self.bind(path, host);
        self.change(path, |port| {
            let binding = port.binding.as_mut().unwrap();
            binding.tunnel_key = Some(tunnel_key);
        });
    }

    pub(crate) fn route(&mut self, router: &str, to: &str, action: RouteAction, weight: u32) {
        self.route_from(router, to, None, action, weight);
    }

    pub(crate) fn route_from(
        &mut self,
        router: &str,
        to: &str,
        from: Option<&str>,
        action: RouteAction,
        weight: u32,
    ) {
        let found = self
            .model
            .routers
            .values()
            .find(|it| it.name == router)
            .unwrap();
        let mut router = (**found).clone();
        router.routes.push(Route {
            to: to.parse().unwrap(),
            from: from.map(|from| from.parse().unwrap()),
            action,
            weight,
        });
        self.put(vec![Object::Router(router)]);
    }

    pub(crate) fn change(&mut self, path: &str, change: impl FnOnce(&mut Port)) {
        let mut port = self.get(path).clone();
        change(&mut port);
        self.put(vec![Object::Port(port)]);
    }

    pub(crate) fn put(&mut self, objects: Vec<Object>) {
        let operations: Vec<_> = objects.into_iter().map(Operation::Put).collect();
        self.model = self.model.apply(&operations).unwrap();
    }

    pub(crate) fn id(&self, path: &str) -> PortId {
        self.model.find_port(None, path).unwrap()
    }

    pub(crate) fn get(&self, path: &str) -> &Port {
        &self.model.ports[&self.id(path)]
    }

    pub(crate) fn mac(&self, path: &str) -> Mac {
        self.get(path).mac
    }

    /// The flood domain of the bridge.
    pub(crate) fn domain(&self, bridge: &str) -> BridgeId {
        let id = self
            .model
            .bridges
            .values()
            .find(|it| it.name == bridge)
            .unwrap()
            .id;
        self.snapshot().flood_domain_of(id).unwrap().id
    }

    /// Every bound port is live on its host, under index 1, 2, ...
    pub(crate) fn snapshot(&self) -> Snapshot {
        let bound = self
            .model
            .ports
            .values()
            .filter_map(|it| Some((it.id, it.binding.as_ref()?)));
        let ports = bound.zip(1..).map(|((port, binding), index)| {
            (
                port,
                (
                    binding.host,
                    TunnelKey {
                        index,
                        generation: 1,
                    }
                    .bits(),
                ),
            )
        });
        let activity = Activity {
            ports: ports.collect(),
            floods: Default::default(),
        };
        Snapshot::build(Arc::new(self.model.clone()), activity)
    }

    /// What `text`, sent by the workload on `path`, comes to.
    pub(crate) fn send(&self, path: &str, text: &str) -> Outcome {
        self.send_frame(path, &self.frame(path, text))
    }

    pub(crate) fn frame(&self, path: &str, text: &str) -> Vec<u8> {
        frame_for(&self.snapshot(), &self.state, self.id(path), text).unwrap()
    }

    pub(crate) fn send_frame(&self, path: &str, frame: &[u8]) -> Outcome {
        self.simulate(Entry::Workload(self.id(path)), frame)
    }

    pub(crate) fn simulate(&self, entry: Entry, frame: &[u8]) -> Outcome {
        let packet = Packet::parse(entry, 1, frame, None).unwrap();
        let mut trace: Vec<Step> = Vec::new();
        let outcome = simulate(&self.snapshot(), &self.state, &packet, 0, &mut trace);
        assert!(!trace.is_empty());
        // Shown when the test fails.
        trace.iter().for_each(|step| println!("{step}"));
        outcome
    }

    /// Takes in what a packet taught.
    pub(crate) fn learn(&mut self, outcome: &Outcome) {
        assert!(!outcome.writes.is_empty(), "nothing to learn: {outcome:?}");
        outcome
            .writes
            .iter()
            .for_each(|entry| _ = self.state.apply(entry));
    }

    fn tenant(&self) -> TenantId {
        *self.model.tenants.keys().next().unwrap()
    }

    fn uuid(&self) -> Uuid {
        let number = self.next.get();
        self.next.set(number + 1);
        Uuid::from_u128(number)
    }
}

/// Writes the right checksum into the IPv4 header of an untagged frame.
pub(crate) fn mend_checksum(frame: &mut [u8]) {
    let header = etherparse::Ipv4Header::from_slice(&frame[14..]).unwrap().0;
    frame[24..26].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
}
