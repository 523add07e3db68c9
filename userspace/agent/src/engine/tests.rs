//! Tests of the engine over a datapath in memory: messages and misses go in; what the datapath holds, what was
//! sent and what is published comes out.
//!
//! [`Rig`] is the one helper: a topology that grows by one object at a time, host `h1` on which the engine runs,
//! and the store's part played by hand.

mod acls;
mod adoption;
mod advertisements;
mod audit;
mod choices;
mod floods;
mod learning;
mod misses;
mod neighbours;
mod next_hops;
mod policy_seen;
mod ports;
mod probes;
mod recorder;
mod refusals;
mod reports;
mod revalidation;
mod swap;
mod underlay;
mod watches;

use super::{Engine, EngineConfig, Message, TunnelOptions};
use recorder::Recorder;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;
use weft_api::{OwnedState, StateChange, StateUpdate};
use weft_common::event::MissReason;
use weft_common::{DropReason, FlowKey, PortRecord, Slot, TunnelKey};
use weft_datapath::fake::Injected;
use weft_datapath::network::{HostNetwork, Link, Path};
use weft_datapath::{Datapath, FlowTable, HeldPacket, Miss, PortTable};
use weft_vnet::{
    Activity, Binding, Bridge, BridgeId, DeviceId, Encapsulation, Entry, Host, HostId, Mac, Model,
    Object, Operation, Packet, Port, PortId, Router, RouterId, StateEntry, Tenant, TenantId,
    TunnelZone, ZoneId, frame_for,
};

/// Underlay address of the remote host.
const H2: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 30, 2, 1));
/// MAC of the gateway towards it.
const GATEWAY: [u8; 6] = [2, 0, 0, 0, 1, 1];
/// A MAC that no port declares.
const STRANGER: Mac = Mac([2, 9, 9, 9, 9, 9]);
/// Another one.
const FRIEND: Mac = Mac([2, 8, 8, 8, 8, 8]);

/// An engine on host `h1` with its world around it.
struct Rig {
    engine: Engine<Recorder>,
    model: Model,
    activity: Activity,
    network: HostNetwork,
    updates: mpsc::UnboundedReceiver<StateUpdate>,
    _remotes: watch::Receiver<Vec<IpAddr>>,
    next: u128,
}

impl Rig {
    /// Bridges `web` (10.0.1.0/24) and `db` (10.0.2.0/24), joined by router `core`, and bridge `lab` whose ports
    /// have no addresses. On `h1`: `web/near`, `db/near`, `db/guest` (which learns), `lab/one`, `lab/two`; on
    /// `h2`: `web/far`, `lab/far`. All are live and everybody knows.
    fn new() -> Rig {
        Rig::with_flows_max(None)
    }

    fn with_flows_max(flows_max: Option<usize>) -> Rig {
        let mut rig = Rig::empty(flows_max);
        for (bridge, net) in [("web", 1), ("db", 2)] {
            rig.bridge(bridge);
            rig.port(&format!("{bridge}/near"), &[&format!("10.0.{net}.11")]);
            rig.bind(&format!("{bridge}/near"), "h1");
        }
        rig.router("core");
        for (bridge, net) in [("web", 1), ("db", 2)] {
            rig.port(&format!("core/{bridge}"), &[&format!("10.0.{net}.1/24")]);
            rig.port(&format!("{bridge}/core"), &[]);
            let peer = rig.id(&format!("core/{bridge}"));
            rig.change(&format!("{bridge}/core"), |port| port.peer = Some(peer));
        }
        rig.port("web/far", &["10.0.1.12"]);
        rig.port("db/guest", &[]);
        rig.bridge("lab");
        for port in ["lab/one", "lab/two", "lab/far"] {
            rig.port(port, &[]);
        }
        for port in ["db/guest", "lab/one", "lab/two"] {
            rig.bind(port, "h1");
        }
        for (index, port) in [(9, "web/far"), (10, "lab/far")] {
            rig.bind(port, "h2");
            rig.live_on_h2(port, key(index, 1));
        }
        for (index, bridge) in [(11, "web"), (12, "lab")] {
            let place = (rig.bridge_id(bridge), rig.host("h2"));
            rig.activity.floods.insert(place, key(index, 1).bits());
        }
        rig.topology();
        rig.look();
        rig.settle();
        rig.datapath().log.clear();
        rig
    }

    /// Two hosts in a zone, a tenant, and the engine that was told nothing yet.
    fn empty(flows_max: Option<usize>) -> Rig {
        let (updates, updates_out) = mpsc::unbounded_channel();
        let (remotes, remotes_out) = watch::channel(Vec::new());
        let config = EngineConfig {
            host: "h1".into(),
            underlay_interfaces: vec!["eth1".into()],
            xdp: weft_datapath::XdpUse::default(),
            tunnel_options: TunnelOptions::default(),
            flows_max,
            flow_idle_secs: None,
        };
        let engine = Engine::new(
            config,
            Recorder::default(),
            FlowTable::new(0),
            PortTable::default(),
            updates,
            remotes,
        );
        let mut rig = Rig {
            engine,
            model: Model::default(),
            activity: Activity::default(),
            network: HostNetwork::default(),
            updates: updates_out,
            _remotes: remotes_out,
            next: 1,
        };
        let tenant = Tenant {
            id: TenantId(rig.uuid()),
            name: "acme".into(),
        };
        let zone = TunnelZone {
            id: ZoneId(rig.uuid()),
            name: "default".into(),
            encapsulation: Encapsulation::Gre,
        };
        rig.put(Object::Tenant(tenant));
        rig.put(Object::TunnelZone(zone));
        for (name, address) in [("h1", IpAddr::from([172, 30, 1, 1])), ("h2", H2)] {
            let host = Host {
                id: HostId(rig.uuid()),
                name: name.into(),
                zones: [("default".to_owned(), address)].into(),
            };
            rig.put(Object::Host(host));
        }
        rig.network.asked.push(H2);
        rig.network.paths.insert(H2, path_to(H2));
        rig.add_interface("eth1", 2);
        rig
    }

    // The topology. Nothing reaches the engine before `topology`.

    fn put(&mut self, object: Object) {
        let mut model = self.model.apply(&[Operation::Put(object)]).unwrap();
        model.revision = self.model.revision + 1;
        self.model = model;
    }

    fn bridge(&mut self, name: &str) {
        let (id, tenant, name) = (BridgeId(self.uuid()), self.tenant(), name.into());
        self.put(Object::Bridge(Bridge { id, tenant, name }));
    }

    fn router(&mut self, name: &str) {
        let router = Router {
            id: RouterId(self.uuid()),
            tenant: self.tenant(),
            name: name.into(),
            routes: Vec::new(),
        };
        self.put(Object::Router(router));
    }

    fn port(&mut self, path: &str, addresses: &[&str]) {
        let (device, name) = path.split_once('/').unwrap();
        let bridges = self.model.bridges.values();
        let bridges = bridges.map(|it| (DeviceId::Bridge(it.id), &it.name));
        let routers = self.model.routers.values();
        let routers = routers.map(|it| (DeviceId::Router(it.id), &it.name));
        let device = bridges.chain(routers).find(|(_, name)| *name == device);
        let (device, name) = (device.unwrap().0, name.to_owned());
        let port = Port {
            id: PortId(self.uuid()),
            device,
            name,
            mac: Mac([2, 0, 0, 0, 0, self.next as u8]),
            admin_up: true,
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            binding: None,
            peer: None,
            ingress: Vec::new(),
            egress: Vec::new(),
        };
        self.put(Object::Port(port));
    }

    fn change(&mut self, path: &str, change: impl FnOnce(&mut Port)) {
        let mut port = Port::clone(&self.model.ports[&self.id(path)]);
        change(&mut port);
        self.put(Object::Port(port));
    }

    /// Binds to an interface that is named like the port, which appears when the host is `h1`.
    fn bind(&mut self, path: &str, host: &str) {
        let (id, interface) = (self.host(host), path.replace('/', "-"));
        if host == "h1" {
            let ifindex = 100 + self.network.links.len() as u32;
            self.add_interface(&interface, ifindex);
        }
        let binding = Binding {
            host: id,
            interface,
            tunnel_key: None,
        };
        self.change(path, |port| port.binding = Some(binding));
    }

    fn live_on_h2(&mut self, path: &str, key: TunnelKey) {
        let live = (self.host("h2"), key.bits());
        self.activity.ports.insert(self.id(path), live);
    }

    fn id(&self, path: &str) -> PortId {
        self.model.find_port(None, path).unwrap()
    }

    fn mac(&self, path: &str) -> Mac {
        self.model.ports[&self.id(path)].mac
    }

    fn bridge_id(&self, name: &str) -> BridgeId {
        let mut bridges = self.model.bridges.values();
        bridges.find(|bridge| bridge.name == name).unwrap().id
    }

    fn host(&self, name: &str) -> HostId {
        let mut hosts = self.model.hosts.values();
        hosts.find(|host| host.name == name).unwrap().id
    }

    fn tenant(&self) -> TenantId {
        *self.model.tenants.keys().next().unwrap()
    }

    fn uuid(&mut self) -> Uuid {
        self.next += 1;
        Uuid::from_u128(self.next)
    }

    // The host, the store and the clock.

    fn add_interface(&mut self, name: &str, ifindex: u32) {
        let link = Link {
            ifindex,
            mac: [2, 0, 0, 0, 0, 1],
            mtu: 1500,
            is_up: true,
            has_carrier: true,
            xdp_features: None,
        };
        self.network.links.insert(name.to_owned(), link);
        self.datapath().fake.add_interface(name, ifindex);
    }

    fn remove_interface(&mut self, name: &str) {
        self.network.links.remove(name);
        self.datapath().fake.interfaces.remove(name);
    }

    /// Tells the engine the topology, and where ports are live.
    fn topology(&mut self) {
        let message = Message::Topology(Arc::new(self.model.clone()), self.activity.clone());
        self.engine.handle(message);
    }

    /// Tells the engine the host's network.
    fn look(&mut self) {
        let network = self.network.clone();
        self.engine.handle(Message::Network(network));
    }

    /// What was published since the last time.
    fn published(&mut self) -> StateUpdate {
        let mut all = StateUpdate::default();
        while let Ok(update) = self.updates.try_recv() {
            all.put.extend(update.put);
            all.remove.extend(update.remove);
        }
        all
    }

    /// Does with what was published what the store would, and tells the engine.
    fn settle(&mut self) -> StateUpdate {
        let update = self.published();
        for entry in &update.remove {
            self.store_activity(entry, false);
            self.state(StateChange::Remove(owned("h1", entry)));
        }
        for entry in &update.put {
            self.store_activity(entry, true);
            self.state(StateChange::Put(owned("h1", entry)));
        }
        self.topology();
        update
    }

    fn store_activity(&mut self, entry: &StateEntry, is_put: bool) {
        let Activity { ports, floods } = &mut self.activity;
        match *entry {
            StateEntry::PortActivity {
                port,
                host,
                tunnel_key,
            } if is_put => _ = ports.insert(port, (host, tunnel_key)),
            StateEntry::PortActivity { port, .. } => _ = ports.remove(&port),
            StateEntry::FloodActivity {
                bridge,
                host,
                tunnel_key,
            } if is_put => _ = floods.insert((bridge, host), tunnel_key),
            StateEntry::FloodActivity { bridge, host, .. } => _ = floods.remove(&(bridge, host)),
            StateEntry::Mac { .. } | StateEntry::Neighbour { .. } => {}
        }
    }

    fn state(&mut self, change: StateChange) {
        self.engine.handle(Message::State(vec![change]));
    }

    /// Another host says so.
    fn heard(&mut self, entry: &StateEntry) {
        self.state(StateChange::Put(owned("h2", entry)));
    }

    /// Time goes by, without a tick.
    fn pass(&mut self, secs: u64) {
        self.engine.started -= Duration::from_secs(secs);
    }

    // Packets.

    /// The frame that the port's workload sends for the text.
    fn frame(&self, path: &str, text: &str) -> Vec<u8> {
        let engine = &self.engine;
        frame_for(&engine.snapshot, &engine.state, self.id(path), text).unwrap()
    }

    /// A ping between two MACs, with a number to tell it from others.
    fn raw(&self, source: Mac, destination: Mac, number: u8) -> Vec<u8> {
        let mut frame = vec![0; 42];
        frame[..6].copy_from_slice(&destination.0);
        frame[6..12].copy_from_slice(&source.0);
        frame[12..16].copy_from_slice(&[8, 0, 0x45, 0]);
        frame[16..24].copy_from_slice(&[0, 28, 0, 0, 0, 0, 64, 1]);
        frame[26..34].copy_from_slice(&[192, 0, 2, 1, 192, 0, 2, 2]);
        frame[34..42].copy_from_slice(&[8, 0, 0, 0, 0, 1, 0, number]);
        frame
    }

    fn index(&self, path: &str) -> u16 {
        self.engine.ports.bound[&self.id(path)].key.index
    }

    fn miss(&self, path: &str, frame: Vec<u8>) -> Miss {
        let TunnelKey { index, generation } = self.engine.ports.bound[&self.id(path)].key;
        Miss {
            port: index,
            generation,
            reason: MissReason::NoFlow as u8,
            packet: HeldPacket::made(frame),
        }
    }

    /// One miss in a batch of its own.
    fn send(&mut self, path: &str, frame: &[u8]) {
        let miss = self.miss(path, frame.to_vec());
        self.engine.handle_misses(vec![miss]);
    }

    /// What the kernel would do with a frame by itself; the generation tells whether it is still the same slot.
    fn forward(&mut self, path: &str, frame: &[u8]) -> Option<Slot> {
        let key = self.key(path, frame);
        self.datapath().fake.forward(&key)
    }

    fn key(&self, path: &str, frame: &[u8]) -> FlowKey {
        let entry = Entry::Workload(self.id(path));
        let packet = Packet::parse(entry, self.index(path), frame, None);
        packet.unwrap().key
    }

    // What the datapath holds.

    fn datapath(&mut self) -> &mut Recorder {
        self.engine.datapath_mut()
    }

    /// What was sent since the last time.
    fn injected(&mut self) -> Vec<Injected> {
        std::mem::take(&mut self.datapath().fake.injected)
    }

    fn record(&mut self, path: &str) -> PortRecord {
        let index = self.index(path);
        self.datapath().read_port(index).unwrap()
    }

    fn drops(&self, path: &str, reason: DropReason) -> u64 {
        let place = (Some(self.id(path)), reason);
        self.engine.drops.get(&place).copied().unwrap_or_default()
    }
}

fn key(index: u16, generation: u8) -> TunnelKey {
    TunnelKey { index, generation }
}

fn owned(owner: &str, entry: &StateEntry) -> OwnedState {
    OwnedState {
        owner: owner.into(),
        entry: entry.clone(),
    }
}

fn path_to(remote: IpAddr) -> Path {
    Path {
        remote,
        ifindex: 2,
        next_hop: [172, 30, 1, 254].into(),
        next_hop_mac: Some(GATEWAY),
        source_mac: [2, 0, 0, 0, 0, 1],
        mtu: 1500,
    }
}

/// An ARP reply: `sender` is at `mac`, says it to `target`.
fn arp_reply(mac: Mac, sender: [u8; 4], target_mac: Mac, target: [u8; 4]) -> Vec<u8> {
    let ethernet = [&target_mac.0[..], &mac.0[..], &[8, 6]].concat();
    let fixed = [0, 1, 8, 0, 6, 4, 0, 2];
    let addresses = [&mac.0[..], &sender[..], &target_mac.0[..], &target[..]].concat();
    [&ethernet[..], &fixed[..], &addresses[..]].concat()
}
