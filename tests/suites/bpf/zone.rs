//! A port with chains, its workload (10.0.1.11, fd00::1) and what it talks to (10.0.1.12, fd00::2): packets both ways, and
//! what the kernel keeps of their connections.

use crate::bench::{Bench, GENERATION, OTHER, PORT, REDIRECT, exact, key_of};
use crate::frames::{self, hex};
use aya::maps::{Array, HashMap, Map, MapData};
use weft_common::connection::{
    Connection, ConnectionKeyV4, ConnectionKeyV6, Entry, Phase, Quota, TCP_ACK, TCP_SYN,
};
use weft_common::policy::Policy;
use weft_common::port::{Delivery, PortKind, PortRecord};
use weft_common::slot::Output;
use weft_common::{FlowKey, Slot, TunnelKey};
use weft_datapath::Datapath;
use weft_vnet::policy::generator::{chain_id, policy};
use weft_vnet::policy::{Action, Conditions, Connection as State, PortRange, Rule, Sets, compile};
use zerocopy::{FromBytes, IntoBytes};

/// Number of the ACL of the port's ingress, and of its egress.
pub const IN: u16 = 1;
pub const OUT: u16 = 2;
/// Flags of TCP.
pub const SYN: u8 = TCP_SYN;
pub const ACK: u8 = TCP_ACK;
pub const SYN_ACK: u8 = TCP_SYN | TCP_ACK;

const WORKLOAD: &str = "02000000010b";
const PEER: &str = "02000000010c";

/// Who sends: the workload, or who it talks to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sender {
    Workload,
    Network,
}
pub use Sender::{Network, Workload};

/// A rule for states, and for a TCP or UDP destination port.
pub fn rule(states: &[State], port: Option<u16>, action: Action) -> Rule {
    Rule {
        matches: Conditions {
            state: (!states.is_empty()).then(|| states.to_vec()),
            dst_port: port.map(|port| {
                vec![PortRange {
                    first: port,
                    last: port,
                }]
            }),
            ..Conditions::default()
        },
        action,
        ..Rule::default()
    }
}

/// Accepts what opens a connection to a port (none: any), and what belongs to a connection.
pub fn stateful(port: Option<u16>) -> Vec<Rule> {
    vec![
        rule(&[State::Established, State::Related], None, Action::Accept),
        rule(&[State::New], port, Action::Accept),
        rule(&[], None, Action::Drop),
    ]
}

/// Accepts what belongs to a connection, and nothing else.
pub fn replies() -> Vec<Rule> {
    vec![
        rule(&[State::Established, State::Related], None, Action::Accept),
        rule(&[], None, Action::Drop),
    ]
}

fn ipv4(from: Sender, protocol: u8, field: u16, payload: &[u8]) -> Vec<u8> {
    let (src, dst, s, d) = match from {
        Workload => (WORKLOAD, PEER, "0a00010b", "0a00010c"),
        Network => (PEER, WORKLOAD, "0a00010c", "0a00010b"),
    };
    let mut frame = hex(&format!(
        "{dst} {src} 0800 45000000 00010000 4000 0000 {s} {d}"
    ));
    let length = (20 + payload.len()) as u16;
    frame[16..18].copy_from_slice(&length.to_be_bytes());
    frame[20..22].copy_from_slice(&field.to_be_bytes());
    frame[23] = protocol;
    frame.extend_from_slice(payload);
    frame
}

/// An IPv6 packet; `extensions` stand in front of the payload, the first of them is of number `next`.
pub fn ipv6(from: Sender, next: u8, payload: &[u8]) -> Vec<u8> {
    let (one, two) = (
        "fd000000000000000000000000000001",
        "fd000000000000000000000000000002",
    );
    let (src, dst, s, d) = match from {
        Workload => (WORKLOAD, PEER, one, two),
        Network => (PEER, WORKLOAD, two, one),
    };
    let mut frame = hex(&format!("{dst} {src} 86dd 60000000 0000 00 40 {s} {d}"));
    frame[18..20].copy_from_slice(&(payload.len() as u16).to_be_bytes());
    frame[20] = next;
    frame.extend_from_slice(payload);
    frame
}

fn ports(from: Sender, port: u16) -> [u8; 4] {
    let (src, dst) = match from {
        Workload => (40_000u16, port),
        Network => (port, 40_000u16),
    };
    let mut bytes = [0; 4];
    bytes[..2].copy_from_slice(&src.to_be_bytes());
    bytes[2..].copy_from_slice(&dst.to_be_bytes());
    bytes
}

/// Header and payload of TCP between the workload's port 40000 and the other side's 80.
pub fn segment(from: Sender, flags: u8, payload: usize) -> Vec<u8> {
    let mut bytes = ports(from, 80).to_vec();
    bytes.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    bytes.resize(20 + payload, 0x61);
    bytes
}

pub fn tcp(from: Sender, flags: u8, payload: usize) -> Vec<u8> {
    ipv4(from, 6, 0, &segment(from, flags, payload))
}

pub fn tcp_v6(from: Sender, flags: u8, payload: usize) -> Vec<u8> {
    ipv6(from, 6, &segment(from, flags, payload))
}

fn datagram(from: Sender) -> Vec<u8> {
    let mut bytes = ports(from, 53).to_vec();
    bytes.extend([0, 12, 0, 0, 1, 2, 3, 4]);
    bytes
}

/// UDP between the workload's port 40000 and the other side's 53.
pub fn udp(from: Sender) -> Vec<u8> {
    ipv4(from, 17, 0, &datagram(from))
}

pub fn udp_v6(from: Sender) -> Vec<u8> {
    ipv6(from, 17, &datagram(from))
}

/// UDP behind destination options, with as many bytes of them.
pub fn udp_v6_behind_options(from: Sender) -> Vec<u8> {
    let mut payload = hex("11 01 010c 000000000000 000000000000");
    payload.extend(datagram(from));
    ipv6(from, 60, &payload)
}

/// A piece of a UDP packet: the first one, with the header, or the last one.
pub fn piece(from: Sender, is_first: bool) -> Vec<u8> {
    if is_first {
        return ipv4(from, 17, 0x2000, &[datagram(from), vec![0; 4]].concat());
    }
    ipv4(from, 17, 2, &[0xff; 8])
}

/// An echo request or reply with identifier 0x1234.
pub fn echo(from: Sender, is_request: bool) -> Vec<u8> {
    let kind = if is_request { 8 } else { 0 };
    ipv4(from, 1, 0, &[kind, 0, 0, 0, 0x12, 0x34, 0, 1])
}

pub fn echo_v6(from: Sender, is_request: bool) -> Vec<u8> {
    let kind = if is_request { 128 } else { 129 };
    ipv6(from, 58, &[kind, 0, 0, 0, 0x12, 0x34, 0, 1])
}

/// "Fragmentation needed", or "packet too big", about the first bytes of `frame`.
pub fn error_about(from: Sender, frame: &[u8]) -> Vec<u8> {
    let about = &frame[14..frame.len().min(14 + 48)];
    if frame[12..14] == [8, 0] {
        return ipv4(from, 1, 0, &[&[3, 4, 0, 0, 0, 0, 5, 0], about].concat());
    }
    ipv6(from, 58, &[&[2, 0, 0, 0, 0, 0, 5, 0], about].concat())
}

/// See the module's text.
pub struct Zone<'a> {
    pub bench: &'a mut Bench,
}

impl<'a> Zone<'a> {
    /// All that the port sends goes to another one, and it has these chains.
    pub fn new(bench: &'a mut Bench, ingress: Vec<Rule>, egress: Vec<Rule>) -> Zone<'a> {
        let mut zone = Zone { bench };
        zone.acl(IN, ingress);
        zone.acl(OUT, egress);
        zone.set_policy(PORT, IN, OUT, 1);
        zone.install(PORT);
        zone
    }

    /// A port's packets, whatever they are, go to another port. In each family.
    pub fn install(&mut self, port: u16) {
        let mut mask = FlowKey::default();
        mask.head.port = exact().head.port;
        mask.head.class = weft_common::key::CLASS_NETWORK;
        let slot = Slot {
            output: Output::Local as u8,
            port: OTHER,
            ..Slot::default()
        };
        for frame in [
            frames::udp(),
            frames::udp_v6(),
            frames::arp(),
            frames::other(),
        ] {
            let mut key = key_of(&frame);
            key.head.port = port;
            let target = self.bench.reserve(slot);
            let (table, kernel) = (&mut self.bench.table, &mut self.bench.kernel);
            let flow = table.install(kernel, &key, &mask, target, &slot, 0);
            flow.expect("a flow");
        }
    }

    /// The port finds no flow any more, neither in the table nor in the cache. Their slots stay.
    pub fn forget_flows(&mut self) {
        let map = Map::Array(self.pinned("ports"));
        let mut map: Array<_, [u8; 32]> = map.try_into().expect("an array");
        let bytes = map.get(&PORT.into(), 0).expect("a record");
        let mut record = PortRecord::read_from_bytes(&bytes).expect("32 bytes");
        (record.masks_v4, record.masks_v6) = (0, 0);
        record.epoch += 1;
        let bytes: [u8; 32] = zerocopy::transmute!(record);
        map.set(PORT.into(), bytes, 0).expect("a record");
    }

    /// Another port, which packets out of tunnels come for.
    pub fn add_port(&mut self, port: u16) {
        let record = PortRecord {
            kind: PortKind::Port as u8,
            generation: GENERATION,
            delivery: Delivery::Plain as u8,
            ifindex: 1,
            ..PortRecord::default()
        };
        self.bench
            .kernel
            .write_port(port, &record)
            .expect("a port record");
    }

    pub fn acl(&mut self, number: u16, rules: Vec<Rule>) {
        let compiled = compile(&policy(vec![rules]), &[chain_id(0)], &mut Sets::default());
        let cells = compiled.expect("rules that compile").cells(1);
        let written = self.bench.kernel.write_acls(&[(number, cells)]);
        written.expect("an ACL");
    }

    pub fn set_policy(&mut self, port: u16, ingress: u16, egress: u16, epoch: u32) {
        let word = Policy {
            ingress,
            egress,
            epoch,
        };
        let map = Map::Array(self.pinned("policies"));
        let mut map: Array<_, u64> = map.try_into().expect("an array");
        map.set(port.into(), word.pack(), 0).expect("a policy");
    }

    /// Belongs the port to a tenant that may open this many connections more?
    pub fn set_quota(&mut self, port: u16, tenant: u32, quota: Quota) {
        let map = Map::Array(self.pinned("port_tenants"));
        let mut map: Array<_, u32> = map.try_into().expect("an array");
        map.set(port.into(), tenant, 0).expect("a tenant");
        let map = Map::Array(self.pinned("quotas"));
        let mut map: Array<_, [u8; 16]> = map.try_into().expect("an array");
        let bytes: [u8; 16] = zerocopy::transmute!(quota);
        map.set(tenant, bytes, 0).expect("a quota");
    }

    pub fn quota(&self, tenant: u32) -> Quota {
        let map = Map::Array(self.pinned("quotas"));
        let map: Array<_, [u8; 16]> = map.try_into().expect("an array");
        Quota::read_from_bytes(&map.get(&tenant, 0).expect("a quota")).expect("16 bytes")
    }

    fn pinned(&self, name: &str) -> MapData {
        MapData::from_pin(self.bench.pin.join("maps").join(name)).expect("a pinned map")
    }

    pub fn established_v4(&self) -> HashMap<MapData, [u8; 16], [u8; 128]> {
        let map = Map::HashMap(self.pinned("connections_v4"));
        map.try_into().expect("a hash")
    }

    pub fn half_open_v4(&self) -> HashMap<MapData, [u8; 16], [u8; 128]> {
        let map = Map::LruHashMap(self.pinned("half_open_v4"));
        map.try_into().expect("a hash")
    }

    pub fn established_v6(&self) -> HashMap<MapData, [u8; 40], [u8; 128]> {
        let map = Map::HashMap(self.pinned("connections_v6"));
        map.try_into().expect("a hash")
    }

    pub fn half_open_v6(&self) -> HashMap<MapData, [u8; 40], [u8; 128]> {
        let map = Map::LruHashMap(self.pinned("half_open_v6"));
        map.try_into().expect("a hash")
    }

    /// How many half-open and established connections there are, of both families.
    pub fn counts(&self) -> (usize, usize) {
        let half = self.half_open_v4().keys().count() + self.half_open_v6().keys().count();
        let whole = self.established_v4().keys().count() + self.established_v6().keys().count();
        (half, whole)
    }

    /// The only connection there is.
    pub fn only(&self) -> Connection {
        let v4 = [self.half_open_v4(), self.established_v4()];
        let v4 = v4.iter().flat_map(|map| {
            let entries: Vec<_> = map.iter().map(|it| it.expect("an entry")).collect();
            entries
        });
        let v6 = [self.half_open_v6(), self.established_v6()];
        let v6 = v6.iter().flat_map(|map| {
            let entries: Vec<_> = map.iter().map(|it| it.expect("an entry")).collect();
            entries
        });
        let mut found = Vec::new();
        for (key, value) in v4 {
            let entry = Entry::read_from_bytes(&value).expect("128 bytes");
            assert!(ConnectionKeyV4::read_from_bytes(&key).is_ok());
            assert_eq!(entry.key.as_bytes()[24..], key);
            found.push(entry.connection);
        }
        for (key, value) in v6 {
            let entry = Entry::read_from_bytes(&value).expect("128 bytes");
            assert_eq!(ConnectionKeyV6::read_from_bytes(&key), Ok(entry.key));
            found.push(entry.connection);
        }
        assert_eq!(found.len(), 1, "{found:?}");
        found[0]
    }

    pub fn phase(&self) -> u8 {
        self.only().phase
    }

    /// Makes all connections of IPv4 older.
    pub fn age(&mut self, units: u32) {
        for mut map in [self.half_open_v4(), self.established_v4()] {
            let entries: Vec<_> = map.iter().flatten().collect();
            for (key, value) in entries {
                let mut entry = Entry::read_from_bytes(&value).expect("128 bytes");
                entry.connection.seen -= units;
                let bytes: [u8; 128] = zerocopy::transmute!(entry);
                map.insert(key, bytes, 0).expect("an entry");
            }
        }
    }

    /// Whether a frame passes: one of the workload goes to the other port, one of the network to the workload.
    pub fn passes(&mut self, from: Sender, frame: &[u8]) -> bool {
        match from {
            Workload => self.bench.run("from_port", frame).verdict == REDIRECT,
            Network => self.arrives(PORT, frame),
        }
    }

    /// Whether a frame out of a tunnel is delivered to a port.
    pub fn arrives(&mut self, port: u16, frame: &[u8]) -> bool {
        let key = TunnelKey {
            index: port,
            generation: GENERATION,
        };
        let outer = frames::gre(key.bits(), frame);
        self.bench.run("from_underlay", &outer).verdict == REDIRECT
    }

    /// A handshake of TCP that the workload begins.
    pub fn handshake(&mut self) {
        assert!(self.passes(Workload, &tcp(Workload, SYN, 0)));
        assert!(self.passes(Network, &tcp(Network, SYN_ACK, 0)));
        assert!(self.passes(Workload, &tcp(Workload, ACK, 0)));
        assert_eq!(self.phase(), Phase::Established as u8);
    }
}
