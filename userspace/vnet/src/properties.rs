//! What must be true of every decision, tried on random small topologies and packets.
//!
//! Everything random comes from a [`Dice`], so that a failure shrinks to a short list of numbers. Values are
//! drawn from small pools: packets should hit what is declared and learned, and just miss it.

mod neighbours;
mod policies;

use crate::fixture::Topology;
use crate::flow_state::StateEntry;
use crate::model::{DeviceId, Object, Operation, RouteAction};
use crate::snapshot::Snapshot;
use crate::tag::changed_tags;
use crate::{
    Entry, FlowState, Mac, NoTrace, Outcome, Packet, PortId, Tag, Verdict, mask, simulate,
};
use policies::Kept;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use weft_common::FlowKey;
use weft_wire::ndp::{ALL_ROUTERS, Message};
use weft_wire::{Arp, Nd, ethernet};
use zerocopy::IntoBytes;

const CASES: u32 = 400;
const PACKETS: usize = 24;

struct Dice {
    numbers: Vec<u8>,
    next: usize,
}

impl fmt::Debug for Dice {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used = &self.numbers[..self.next.min(self.numbers.len())];
        write!(out, "dice of {} numbers, used {used:?}", self.numbers.len())
    }
}

impl Dice {
    /// A number below `bound`; 0 when the numbers are used up.
    fn below(&mut self, bound: usize) -> usize {
        let number = self.numbers.get(self.next).copied().unwrap_or(0);
        self.next += 1;
        usize::from(number) % bound
    }

    fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == bound - 1
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }
}

fn dice() -> impl Strategy<Value = Dice> {
    proptest::collection::vec(any::<u8>(), 700).prop_map(|numbers| Dice { numbers, next: 0 })
}

const STRANGERS: [Mac; 3] = [
    Mac([2, 0, 0, 0, 9, 1]),
    Mac([2, 0, 0, 0, 9, 2]),
    Mac([0x42, 0, 0, 0, 9, 1]),
];

const GROUPS: [Mac; 4] = [
    Mac::BROADCAST,
    Mac([1, 0, 0x5e, 0, 0, 5]),
    Mac([1, 0x80, 0xc2, 0, 0, 0x0e]),
    Mac([1, 0x80, 0xc2, 0, 0, 0x10]),
];

fn addresses() -> Vec<Ipv4Addr> {
    let mut pool = Vec::new();
    for net in 0..3 {
        for last in [0, 1, 2, 10, 11, 12, 77, 130, 255] {
            pool.push(Ipv4Addr::new(10, 0, net, last));
        }
    }
    let others = [
        "192.0.2.1",
        "192.0.2.2",
        "203.0.113.1",
        "203.0.113.200",
        "10.9.0.1",
        "10.9.0.2",
        "224.0.0.5",
        "255.255.255.255",
        "0.0.0.0",
        "127.0.0.1",
        "126.0.0.1",
    ];
    pool.extend(others.iter().map(|text| text.parse::<Ipv4Addr>().unwrap()));
    pool
}

/// The same for IPv6: declared, routed, and just beside; of neighbour discovery, too.
fn addresses_v6() -> Vec<Ipv6Addr> {
    let mut pool = Vec::new();
    for net in 0..3 {
        for last in [0, 1, 2, 0x10, 0x11, 0x12, 0x77] {
            pool.push(Ipv6Addr::new(0xfd00, net, 0, 0, 0, 0, 0, last));
        }
    }
    let others = [
        "2001:db8::1",
        "2001:db8:0:8000::1",
        "fd09::1",
        "fd09::2",
        "fe80::9",
        "ff02::1",
        "ff02::2",
        "ff02::1:ff00:11",
        "::",
        "::1",
        "::ffff:10.0.0.1",
        "::2:0:1",
    ];
    pool.extend(others.iter().map(|text| text.parse::<Ipv6Addr>().unwrap()));
    pool
}

fn ports(topology: &Topology) -> Vec<PortId> {
    topology.model.ports.keys().copied().collect()
}

fn topology(dice: &mut Dice) -> Topology {
    let mut topology = Topology::new();
    let bridges = 1 + dice.below(3);
    for bridge in 0..bridges {
        topology.bridge(&format!("b{bridge}"));
        for port in 0..dice.below(4) {
            let own = format!("10.0.{bridge}.{}", 10 + port);
            let own_v6 = format!("fd00:{bridge}::1{port}");
            let path = format!("b{bridge}/p{port}");
            let secured: &[&str] = match dice.below(4) {
                0 => &[&own],
                1 => &[&own, &own_v6],
                _ => &[],
            };
            topology.port(&path, secured);
            bind(&mut topology, dice, &path);
        }
    }
    // Subnets of a router don't overlap: a wide one only where it is alone.
    let lengths = if bridges == 1 {
        [24, 25, 22]
    } else {
        [24, 25, 26]
    };
    for router in 0..dice.below(3) {
        topology.router(&format!("r{router}"));
        for bridge in (0..bridges).filter(|_| !dice.one_in(3)).collect::<Vec<_>>() {
            let address = format!("10.0.{bridge}.{}/{}", router + 1, dice.pick(&lengths));
            let length = dice.pick(&[64, 64, 72]);
            let address_v6 = format!("fd00:{bridge}::{}/{length}", router + 1);
            topology.port(&format!("r{router}/b{bridge}"), &[&address, &address_v6]);
            topology.port(&format!("b{bridge}/r{router}"), &[]);
            topology.peer(
                &format!("r{router}/b{bridge}"),
                &format!("b{bridge}/r{router}"),
            );
        }
        if dice.one_in(2) {
            let path = format!("r{router}/up");
            topology.port(&path, &["192.0.2.2/29", "2001:db8::2/64"]);
            bind(&mut topology, dice, &path);
        }
        for _ in 0..dice.below(4) {
            route(&mut topology, dice, router);
        }
    }
    if topology.model.routers.len() == 2 {
        topology.port("r0/x", &["10.9.0.1/30", "fd09::1/64"]);
        topology.port("r1/x", &["10.9.0.2/30", "fd09::2/64"]);
        topology.peer("r0/x", "r1/x");
    }
    if bridges > 1 && dice.one_in(2) {
        link(&mut topology);
    }
    for _ in 0..dice.below(6) {
        let entry = entry(&topology, dice);
        topology.state.apply(&entry);
    }
    topology
}

fn bind(topology: &mut Topology, dice: &mut Dice, path: &str) {
    if !dice.one_in(5) {
        let host = dice.pick(&["h1", "h2"]);
        topology.bind(path, host);
    }
}

fn link(topology: &mut Topology) {
    topology.port("b0/link", &[]);
    topology.port("b1/link", &[]);
    topology.peer("b0/link", "b1/link");
}

fn route(topology: &mut Topology, dice: &mut Dice, router: usize) {
    let prefixes = [
        "0.0.0.0/0",
        "10.0.0.0/8",
        "10.0.1.0/24",
        "10.0.2.0/25",
        "203.0.113.0/24",
        "203.0.113.1/32",
        "203.0.113.128/25",
    ];
    let prefixes_v6 = [
        "::/0",
        "fd00::/16",
        "fd00:1::/64",
        "fd00:2::/48",
        "2001:db8:0:8000::/49",
        "2001:db8:0:8000::1/128",
    ];
    let is_v6 = dice.one_in(2);
    let to = if is_v6 {
        dice.pick(&prefixes_v6)
    } else {
        dice.pick(&prefixes)
    };
    let action = match dice.below(6) {
        0 => RouteAction::Blackhole,
        1 => RouteAction::Reject,
        _ => {
            let vias = [
                "10.0.0.77",
                "10.0.1.1",
                "10.0.1.2",
                "10.0.2.12",
                "192.0.2.1",
                "10.9.0.1",
                "10.9.0.2",
            ];
            let vias_v6 = [
                "fd00::77",
                "fd00:1::1",
                "fd00:1::2",
                "fd00:2::12",
                "fd09::1",
                "2001:db8::1",
            ];
            let via = if is_v6 {
                dice.pick(&vias_v6)
            } else {
                dice.pick(&vias)
            };
            RouteAction::Via(via.parse().unwrap())
        }
    };
    let weight = dice.pick(&[100, 100, 50]);
    let mut from = dice.pick(&[None, None, None, Some("10.0.0.0/25"), Some("10.0.1.8/29")]);
    if to.contains(':') {
        from = from.map(|_| "fd00:1::/120");
    }
    topology.route_from(&format!("r{router}"), to, from, action, weight);
}

/// Something that a host may have learned, or may believe to have.
fn entry(topology: &Topology, dice: &mut Dice) -> StateEntry {
    let ports = ports(topology);
    let mac = dice.pick(&STRANGERS);
    let router_ports: Vec<PortId> = topology
        .model
        .ports
        .values()
        .filter(|port| matches!(port.device, DeviceId::Router(_)))
        .map(|port| port.id)
        .collect();
    if dice.one_in(2) && !router_ports.is_empty() {
        let address = if dice.one_in(2) {
            IpAddr::V6(dice.pick(&addresses_v6()))
        } else {
            IpAddr::V4(dice.pick(&addresses()))
        };
        return StateEntry::Neighbour {
            router_port: dice.pick(&router_ports),
            address,
            mac,
        };
    }
    let bridge = *topology
        .model
        .bridges
        .keys()
        .nth(dice.below(topology.model.bridges.len()))
        .unwrap();
    let bridge = topology.snapshot().flood_domain_of(bridge).unwrap().id;
    let port = if ports.is_empty() {
        PortId(bridge.0)
    } else {
        dice.pick(&ports)
    };
    StateEntry::Mac { bridge, mac, port }
}

/// Any change of the topology, as small as changes are.
fn change(topology: &mut Topology, dice: &mut Dice) {
    let ports = ports(topology);
    let path = |topology: &Topology, id: PortId| topology.model.port_path(id);
    match dice.below(11) {
        8.. => policies::change(topology, dice),
        0 => {
            let mut port = topology.port_object("b0/new");
            let pool = ["10.0.0.12", "10.0.0.77", "fd00::12", "fd00::77"];
            let address = (!dice.one_in(5)).then(|| dice.pick(&pool));
            port.addresses = address.iter().map(|text| text.parse().unwrap()).collect();
            // Refused where another port has the address: then nothing changes.
            if let Ok(model) = topology.model.apply(&[Operation::Put(Object::Port(port))]) {
                topology.model = model;
            }
        }
        1 if topology.model.find_port(None, "b0/link").is_err()
            && topology.model.bridges.len() > 1 =>
        {
            link(topology);
        }
        2 if !topology.model.routers.is_empty() => route(topology, dice, 0),
        3 if !topology.model.routers.is_empty() => {
            let mut router = (**topology.model.routers.values().next().unwrap()).clone();
            router.routes.pop();
            topology.put(vec![Object::Router(router)]);
        }
        _ if ports.is_empty() => {}
        4 => {
            let path = path(topology, dice.pick(&ports));
            topology.change(&path, |port| port.admin_up = !port.admin_up);
        }
        5 => {
            let path = path(topology, dice.pick(&ports));
            topology.change(&path, |port| port.peer = None);
        }
        6 => {
            let path = path(topology, dice.pick(&ports));
            let given = topology.model.ports.values().map(|port| port.mac.0);
            let last = given.filter(|mac| mac[4] == 8).map(|mac| mac[5]).max();
            let mac = Mac([2, 0, 0, 0, 8, last.map_or(8, |last| last + 1)]);
            topology.change(&path, |port| port.mac = mac);
        }
        _ => {
            let path = path(topology, dice.pick(&ports));
            let mut port = topology.get(&path).clone();
            port.addresses.pop();
            // Refused where rules ask for it by a port group.
            if let Ok(model) = topology.model.apply(&[Operation::Put(Object::Port(port))]) {
                topology.model = model;
            }
        }
    }
}

/// A packet that may enter somewhere.
struct Sent {
    entry: Entry,
    frame: Vec<u8>,
}

impl Sent {
    fn new(topology: &Topology, dice: &mut Dice) -> Option<Sent> {
        let ports: Vec<&crate::Port> = topology.model.ports.values().map(|port| &**port).collect();
        let exterior: Vec<&crate::Port> = ports
            .iter()
            .copied()
            .filter(|it| it.peer.is_none())
            .collect();
        if exterior.is_empty() {
            return None;
        }
        let ingress = dice.pick(&exterior);
        let declared: Vec<Mac> = ports.iter().map(|port| port.mac).collect();
        let source = match dice.below(8) {
            0..4 => ingress.mac,
            4 => dice.pick(&declared),
            5 => Mac([3, 0, 0, 0, 9, 1]),
            _ => dice.pick(&STRANGERS),
        };
        let gateways: Vec<Mac> = ports
            .iter()
            .filter(|port| matches!(port.device, DeviceId::Router(_)))
            .map(|port| port.mac)
            .collect();
        let destination = match dice.below(8) {
            0..4 if !gateways.is_empty() => dice.pick(&gateways),
            4 => dice.pick(&GROUPS),
            5 => dice.pick(&STRANGERS),
            6 => Mac::BROADCAST,
            _ => dice.pick(&declared),
        };
        let mut frame = payload(dice, source, destination);
        if dice.one_in(8) {
            frame.splice(12..12, [0x81, 0, 0, 5]);
        }
        Some(Sent {
            entry: Entry::Workload(ingress.id),
            frame,
        })
    }

    fn packet(&self) -> Packet<'_> {
        Packet::parse(self.entry, 1, &self.frame, None).unwrap()
    }
}

fn payload(dice: &mut Dice, source: Mac, destination: Mac) -> Vec<u8> {
    let (from, to) = (dice.pick(&addresses()), dice.pick(&addresses()));
    match dice.below(9) {
        0 | 1 => {
            let operation = weft_wire::Operation::from_number(dice.pick(&[1, 1, 2, 8]));
            let target = if dice.one_in(3) { from } else { to };
            let sender_mac = source.0;
            let arp = Arp {
                operation,
                sender_mac,
                sender: from,
                target_mac: destination.0,
                target,
            };
            ethernet::frame(destination.0, source.0, 0x0806, &arp.emit())
        }
        2 => ethernet::frame(destination.0, source.0, 0x88b5, &[0; 46]),
        3 => discovery(dice, source, destination),
        4 | 5 => packet_v6(dice, source, destination),
        number => {
            let builder = etherparse::PacketBuilder::ethernet2(source.0, destination.0).ipv4(
                from.octets(),
                to.octets(),
                dice.pick(&[64, 64, 64, 2, 1]),
            );
            let mut frame = Vec::new();
            match number {
                6 => builder.icmpv4_echo_request(7, 1).write(&mut frame, &[0; 8]),
                7 => builder.icmpv4_echo_reply(7, 1).write(&mut frame, &[0; 8]),
                _ => builder.udp(4000, 53).write(&mut frame, &[0; 8]),
            }
            .unwrap();
            // First and later fragments, now and then.
            match dice.below(6) {
                4 => frame[20] = 0x20,
                5 => frame[21] = 9,
                _ => {}
            }
            frame
        }
    }
}

/// The group MAC of an IPv6 group, so that packets to groups are as hosts send them, else the one given.
fn destination_v6(to: Ipv6Addr, destination: Mac) -> Mac {
    if to.is_multicast() {
        Mac::of_group(to)
    } else {
        destination
    }
}

fn discovery(dice: &mut Dice, source: Mac, destination: Mac) -> Vec<u8> {
    let pool = addresses_v6();
    let (from, target) = (dice.pick(&pool), dice.pick(&pool));
    let source_mac = Some(source.0);
    let mut nd = Nd::solicitation(from, source.0, target);
    match dice.below(6) {
        0 => nd = Nd::advertisement(target, source.0, false, from),
        1 => {
            nd = Nd::advertisement(target, source.0, false, Ipv6Addr::UNSPECIFIED);
        }
        2 => {
            nd.destination = ALL_ROUTERS;
            nd.message = Message::RouterSolicitation { source_mac };
        }
        3 => nd.destination = target,
        _ => {}
    }
    let mut frame = nd.frame(destination_v6(nd.destination, destination).0, source.0);
    if dice.one_in(6) {
        let last = frame.len() - 1;
        frame[last] ^= 1;
    }
    frame
}

fn packet_v6(dice: &mut Dice, source: Mac, destination: Mac) -> Vec<u8> {
    let pool = addresses_v6();
    let (from, to) = (dice.pick(&pool), dice.pick(&pool));
    let destination = destination_v6(to, destination);
    let hops = dice.pick(&[64, 64, 64, 2, 1]);
    let builder = etherparse::PacketBuilder::ethernet2(source.0, destination.0).ipv6(
        from.octets(),
        to.octets(),
        hops,
    );
    let mut frame = Vec::new();
    match dice.below(3) {
        0 => builder.icmpv6_echo_request(7, 1).write(&mut frame, &[0; 8]),
        1 => builder.icmpv6_echo_reply(7, 1).write(&mut frame, &[0; 8]),
        _ => builder.udp(4000, 53).write(&mut frame, &[0; 8]),
    }
    .unwrap();
    frame
}

/// Without what a refused packet's sender is told: each packet of such a flow has its own answer.
fn decide(snapshot: &Snapshot, state: &FlowState, packet: &Packet<'_>) -> Outcome {
    let mut outcome = simulate(snapshot, state, packet, 0, &mut NoTrace);
    if matches!(outcome.verdict, Verdict::Refuse { .. }) {
        outcome.emit.clear();
    }
    outcome
}

/// `key` on the bits of `mask`, `other` on all others.
fn mixed(key: &FlowKey, mask: &FlowKey, other: &FlowKey) -> FlowKey {
    let mut mixed = *other;
    let bytes = key.as_bytes().iter().zip(mask.as_bytes());
    for (byte, (key, mask)) in mixed.as_mut_bytes().iter_mut().zip(bytes) {
        *byte = key & mask | *byte & !mask;
    }
    mixed
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    /// The promise of a megaflow: whoever agrees on the mask goes the same way, and teaches the same.
    #[test]
    fn packets_that_match_the_mask_get_the_same_outcome(mut dice in dice(), noise: [u8; 64]) {
        let topology = topology(&mut dice);
        let snapshot = topology.snapshot();
        let sent: Vec<Sent> = (0..PACKETS).filter_map(|_| Sent::new(&topology, &mut dice)).collect();
        for one in &sent {
            let packet = one.packet();
            let outcome = decide(&snapshot, &topology.state, &packet);
            if !outcome.install {
                continue;
            }
            let mut random = FlowKey::default();
            random.as_mut_bytes().copy_from_slice(&noise);
            for other in sent.iter().map(|other| other.packet().key).chain([random]) {
                let key = mixed(&packet.key, &outcome.mask, &other);
                let mut again = decide(&snapshot, &topology.state, &Packet { key, ..packet });
                if let Verdict::Select(_) = again.verdict {
                    // Each packet says what its own next hop needs, and one whose TTL ends makes no flow.
                    again.emit.clone_from(&outcome.emit);
                    if !again.install {
                        continue;
                    }
                }
                prop_assert_eq!(&again, &outcome, "{:?} and {:?}", packet.key, key);
            }
        }
    }

    /// What a change doesn't name is decided as before, to the last bit: nothing else is simulated again.
    #[test]
    fn decisions_without_a_changed_tag_stay(mut dice in dice()) {
        let mut topology = topology(&mut dice);
        let (before, old_state) = (topology.snapshot(), topology.state.clone());
        let sent: Vec<Sent> = (0..PACKETS).filter_map(|_| Sent::new(&topology, &mut dice)).collect();
        let tags: BTreeSet<Tag> = if dice.one_in(3) {
            let entry = entry(&topology, &mut dice);
            let gone = old_state.entries().min_by_key(StateEntry::key).filter(|_| dice.one_in(2));
            let removed = gone.and_then(|gone| topology.state.remove(&gone));
            topology.state.apply(&entry).into_iter().chain(removed).collect()
        } else {
            change(&mut topology, &mut dice);
            changed_tags(&before, &topology.snapshot())
        };
        let after = topology.snapshot();
        for one in &sent {
            let old = decide(&before, &old_state, &one.packet());
            if old.tags.is_disjoint(&tags) {
                let new = decide(&after, &topology.state, &one.packet());
                prop_assert_eq!(&new, &old, "only {:?} changed", tags);
                if let Verdict::Deliver(port) = new.verdict {
                    prop_assert_eq!(before.activity(port), after.activity(port));
                }
            }
        }
    }

    /// A flow's guard and the agent agree on which packets end on the way.
    #[test]
    fn the_ttl_guard_is_the_number_of_routers(mut dice in dice(), ttl: u8) {
        let topology = topology(&mut dice);
        let snapshot = topology.snapshot();
        for _ in 0..PACKETS {
            let Some(sent) = Sent::new(&topology, &mut dice) else { break };
            let mut packet = sent.packet();
            packet.headers.ttl = 255;
            let outcome = decide(&snapshot, &topology.state, &packet);
            packet.headers.ttl = ttl;
            let again = decide(&snapshot, &topology.state, &packet);
            let routers = outcome.taken(&packet.key).ttl_decrement;
            if outcome.install && ttl > routers {
                prop_assert_eq!(&again, &outcome);
            } else if outcome.install && routers > 0 {
                prop_assert!(!again.install, "{:?}", again);
            }
        }
    }

    /// Nobody's bytes stop the agent, cut short or not.
    #[test]
    fn any_frame_is_decided(mut dice in dice(), frame: Vec<u8>, length in 0..64_usize) {
        let topology = topology(&mut dice);
        let snapshot = topology.snapshot();
        let Some(sent) = Sent::new(&topology, &mut dice) else { return Ok(()) };
        if let Ok(packet) = Packet::parse(sent.entry, 1, &frame, None) {
            decide(&snapshot, &topology.state, &packet);
        }
        let short = Packet { frame: &sent.frame[..length.min(sent.frame.len())], ..sent.packet() };
        let outcome = decide(&snapshot, &topology.state, &short);
        // The prefix bits that a mask holds are those of prefixes.
        let bits = u32::from_be_bytes(outcome.mask.dst_v4());
        prop_assert_eq!(bits, mask::prefix_bits(bits.leading_ones() as u8));
        let destination = u128::from_be_bytes(outcome.mask.dst);
        prop_assert_eq!(destination.leading_ones(), destination.count_ones());
    }

    /// Flows that overlap never disagree: a packet that two flows match goes the way of both.
    #[test]
    fn flows_that_overlap_agree(mut dice in dice()) {
        let topology = topology(&mut dice);
        let snapshot = topology.snapshot();
        let sent: Vec<Sent> = (0..PACKETS).filter_map(|_| Sent::new(&topology, &mut dice)).collect();
        let flows: Vec<_> = sent
            .iter()
            .map(|one| (one.packet(), decide(&snapshot, &topology.state, &one.packet())))
            .filter(|(_, outcome)| outcome.install)
            .collect();
        for (packet, outcome) in &flows {
            let others = flows.iter().filter(|(other, _)| other.entry == packet.entry);
            for (other, agreed) in others {
                let both = mixed(&packet.key, &outcome.mask, &other.key);
                if !other.key.matches(&agreed.mask, &both) {
                    continue;
                }
                prop_assert_eq!(actions(outcome), actions(agreed), "{:?}: {:?} and {:?}", both, outcome, agreed);
            }
        }
    }

    /// A snapshot that is made out of the one before is the one that is made from nothing, over any row of changes;
    /// what a change has nothing to do with is shared, not made again. Whoever keeps sets and compiled chains by what
    /// changes has those that he would make anew.
    #[test]
    fn an_updated_snapshot_equals_a_rebuilt_one(mut dice in dice()) {
        let mut topology = topology(&mut dice);
        policies::seed(&mut topology);
        let mut updated = topology.snapshot();
        let mut kept = Kept::of(&updated);
        for _ in 0..10 {
            change(&mut topology, &mut dice);
            let rebuilt = topology.snapshot();
            let before = updated.clone();
            updated = updated.update(rebuilt.shared_model().clone(), rebuilt.all_activity().clone());
            prop_assert_eq!(parts(&updated), parts(&rebuilt));
            kept.follow(&before, &updated);
            let tags = changed_tags(&before, &updated);
            for (id, table) in updated.routing_tables() {
                let is_shared = before.routing_tables().get(id).is_some_and(|it| std::sync::Arc::ptr_eq(it, table));
                prop_assert!(!(is_shared && tags.contains(&Tag::Router(*id))));
            }
        }
    }
}

/// What the kernel is told of a decision.
fn actions(outcome: &Outcome) -> (&Verdict, Option<(Mac, Mac)>, u8) {
    (&outcome.verdict, outcome.macs, outcome.ttl_decrement)
}

/// Everything that a snapshot works out.
fn parts(snapshot: &Snapshot) -> impl PartialEq + fmt::Debug {
    (
        snapshot.flood_domains().cloned().collect::<Vec<_>>(),
        snapshot.domain_ids().clone(),
        snapshot.routing_tables().clone(),
    )
}
