//! Flows that choose among next hops.

use super::*;
use std::collections::BTreeMap;
use weft_common::slot::Output;
use weft_vnet::{Route, RouteAction};

const TO: &str = "198.51.100.0/24";
const GUEST: [u8; 4] = [10, 0, 2, 77];
/// Source ports of connections.
const PORTS: std::ops::Range<u16> = 1000..1400;

impl Rig {
    /// A rig whose router has these next hops to [`TO`], each with its own port in `db`; 77 is the guest's, of whom
    /// nothing is known yet.
    fn with_next_hops(hops: &[u8]) -> Rig {
        let mut rig = Rig::new();
        for hop in hops.iter().filter(|hop| **hop != GUEST[3]) {
            let path = format!("db/gw-{hop}");
            rig.port(&path, &[&format!("10.0.2.{hop}")]);
            rig.bind(&path, "h1");
        }
        rig.next_hops(hops);
        rig.look();
        rig.settle();
        rig
    }

    fn next_hops(&mut self, hops: &[u8]) {
        let route = |hop: &u8| Route {
            to: TO.parse().unwrap(),
            from: None,
            action: RouteAction::Via(Ipv4Addr::new(10, 0, 2, *hop).into()),
            weight: 100,
        };
        let mut router = Router::clone(self.model.routers.values().next().unwrap());
        router.routes = hops.iter().map(route).collect();
        self.put(Object::Router(router));
        self.topology();
    }

    fn connection(&self, port: u16) -> Vec<u8> {
        let text = format!("udp 10.0.1.11:{port} > 198.51.100.7:53");
        self.frame("web/near", &text)
    }

    /// What the kernel would do with each connection, by source port.
    fn all(&mut self) -> BTreeMap<u16, Slot> {
        let frames = PORTS.map(|port| (port, self.connection(port)));
        let frames: Vec<_> = frames.collect();
        let forward = |(port, frame): (u16, Vec<u8>)| {
            let slot = self.forward("web/near", &frame);
            (port, slot.unwrap_or_else(|| panic!("{port} is a miss")))
        };
        frames.into_iter().map(forward).collect()
    }
}

#[test]
fn connections_over_several_next_hops_are_one_flow() {
    let mut rig = Rig::with_next_hops(&[21, 22, 23, 24]);
    rig.send("web/near", &rig.connection(PORTS.start));
    let mut shares: BTreeMap<u16, u32> = BTreeMap::new();
    for slot in rig.all().into_values() {
        assert_eq!((slot.output, slot.ttl_decrement), (Output::Local as u8, 1));
        *shares.entry(slot.port).or_default() += 1;
    }
    assert_eq!(shares.len(), 4);
    assert!(
        shares.values().all(|it| (60..140).contains(it)),
        "{shares:?}"
    );
    assert_eq!((rig.engine.table.len(), rig.engine.misses), (1, 1));
    // Another port's flow with the same members shares the group.
    rig.port("web/more", &["10.0.1.13"]);
    rig.bind("web/more", "h1");
    rig.topology();
    rig.look();
    rig.settle();
    let frame = rig.frame("web/more", "udp 10.0.1.13:1 > 198.51.100.7:53");
    rig.send("web/more", &frame);
    assert_eq!(
        (rig.engine.table.len(), rig.engine.table.groups_len()),
        (2, 1)
    );
}

/// The others neither move nor miss, and their slots are the very same.
#[test]
fn a_next_hop_that_leaves_moves_its_own_connections_only() {
    let mut rig = Rig::with_next_hops(&[21, 22, 23, 24]);
    rig.send("web/near", &rig.connection(PORTS.start));
    let before = rig.all();
    let flow = rig.engine.table.iter().next().unwrap().id;
    rig.next_hops(&[21, 23, 24]);
    let after = rig.all();
    let gone = rig.index("db/gw-22");
    for port in PORTS {
        let (before, after) = (before[&port], after[&port]);
        assert!(before == after || before.port == gone, "{port}");
        assert_ne!(after.port, gone);
    }
    assert_eq!(rig.engine.table.iter().next().unwrap().id, flow);
    assert_eq!(rig.engine.misses, 1);
    // The old group goes after its grace, the flow's with the flow.
    for _ in 0..2 {
        rig.pass(3);
        rig.engine.tick();
    }
    assert_eq!(rig.engine.table.groups_len(), 1);
    rig.change("web/near", |port| port.admin_up = false);
    rig.topology();
    for _ in 0..2 {
        rig.pass(3);
        rig.engine.tick();
    }
    assert_eq!(rig.engine.table.groups_len(), 0);
}

#[test]
fn members_wait_for_their_next_hop_while_the_others_go_on() {
    let mut rig = Rig::with_next_hops(&[21, 22, 23, 77]);
    let is_guests = |rig: &mut Rig, port: u16| {
        let frame = rig.connection(port);
        let key = rig.key("web/near", &frame);
        let packet = Packet::parse(Entry::Workload(rig.id("web/near")), 1, &frame, None).unwrap();
        let outcome = rig.engine.decide(&packet, &mut weft_vnet::NoTrace);
        matches!(outcome.taken(&key).verdict, weft_vnet::Verdict::Wait { .. })
    };
    let guests: Vec<u16> = PORTS.filter(|port| is_guests(&mut rig, *port)).collect();
    let mut ports = PORTS;
    let first = ports.find(|port| !guests.contains(port)).unwrap();
    assert!((60..140).contains(&guests.len()), "{}", guests.len());
    rig.send("web/near", &rig.connection(first));
    let asks =
        |it: &Injected| it.packet.frame[12..14] == [8, 6] && it.packet.frame[38..42] == GUEST;
    assert_eq!(
        rig.injected().iter().filter(|it| asks(it)).count(),
        1,
        "asked at once"
    );
    let before = rig.all();
    for (port, slot) in &before {
        let is_waiting = slot.output == Output::Agent as u8;
        assert_eq!(is_waiting, guests.contains(port), "{port}");
    }
    // A packet of the guest's comes up, and is held, not dropped.
    let mut miss = rig.miss("web/near", rig.connection(guests[0]));
    miss.reason = MissReason::Action as u8;
    rig.engine.handle_misses(vec![miss]);
    assert_eq!(rig.engine.waiting.packets, 1);
    let router = rig.mac("core/db");
    rig.send(
        "db/guest",
        &arp_reply(STRANGER, GUEST, router, [10, 0, 2, 1]),
    );
    assert_eq!(rig.engine.waiting.packets, 0);
    let index = rig.index("db/guest");
    for (port, slot) in rig.all() {
        if guests.contains(&port) {
            assert_eq!((slot.port, slot.dst_mac), (index, STRANGER.0));
        } else {
            assert_eq!(slot, before[&port], "{port}");
        }
    }
}

/// A next hop that looked at more of the packet than the others: without it the flow could match more. It goes on as
/// it is, as none of its packets is decided otherwise.
#[test]
fn a_flow_that_could_match_more_goes_on() {
    let mut rig = Rig::with_next_hops(&[21, 22]);
    let mut router = Router::clone(rig.model.routers.values().next().unwrap());
    let mut narrow = router.routes[0].clone();
    narrow.from = Some("10.0.1.12/32".parse().unwrap());
    router.routes.push(narrow);
    rig.put(Object::Router(router));
    rig.topology();
    rig.send("web/near", &rig.connection(PORTS.start));
    let before = rig.all();
    let flow = rig.engine.table.iter().next().unwrap();
    let (id, mask) = (flow.id, flow.mask);
    assert_ne!(mask.src_v4(), [0; 4]);
    rig.next_hops(&[21, 22]);
    assert_eq!(rig.all(), before);
    let flow = rig.engine.table.iter().next().unwrap();
    assert_eq!((flow.id, flow.mask), (id, mask));
    assert_eq!(rig.engine.misses, 1);
}

/// Others take its place, and it is asked for in the background: no packet waits for it again until it answers.
#[test]
fn a_next_hop_that_does_not_answer_is_no_member_until_it_does() {
    let mut rig = Rig::with_next_hops(&[21, 22, 77]);
    let mut ports = PORTS;
    while rig.engine.table.is_empty() {
        let frame = rig.connection(ports.next().unwrap());
        rig.send("web/near", &frame);
    }
    let tick = |rig: &mut Rig| {
        rig.pass(1);
        rig.engine.tick();
    };
    (0..4).for_each(|_| tick(&mut rig));
    rig.injected();
    let guest = rig.index("db/guest");
    for _ in 0..30 {
        tick(&mut rig);
        let all = rig.all();
        assert!(all.values().all(|slot| slot.output == Output::Local as u8));
    }
    let asks = |it: &&Injected| it.packet.frame[12..14] == [8, 6];
    assert!(rig.injected().iter().filter(asks).count() > 3);
    let router = rig.mac("core/db");
    rig.send(
        "db/guest",
        &arp_reply(STRANGER, GUEST, router, [10, 0, 2, 1]),
    );
    assert!(rig.all().values().any(|slot| slot.port == guest));
}

/// A packet that was on its way up while its flow was installed is decided anew where the flow says so.
#[test]
fn a_late_packet_of_a_waiting_member_waits_too() {
    let mut rig = Rig::with_next_hops(&[21, 77]);
    let frames: Vec<Vec<u8>> = PORTS.map(|port| rig.connection(port)).collect();
    for frame in &frames[..40] {
        rig.send("web/near", frame);
    }
    assert_eq!(rig.engine.table.len(), 1);
    assert_eq!(rig.drops("web/near", DropReason::UnknownAction), 0);
    assert!(rig.engine.waiting.packets > 4);
}

#[test]
fn flows_and_traces_name_the_members() {
    let mut rig = Rig::with_next_hops(&[21, 22]);
    let packet = "udp 10.0.1.11:1000 > 198.51.100.7:53";
    rig.send("web/near", &rig.connection(1000));
    let flows = rig.engine.report_flows();
    let actions = &flows[0].actions;
    assert!(actions.starts_with("select("), "{actions}");
    for part in ["/256:[set_macs(", "output(db/gw-21)", "output(db/gw-22)"] {
        assert!(actions.contains(part), "{part} in {actions}");
    }
    let trace = rig
        .engine
        .trace(&weft_api::TraceRequest {
            from: "web/near".to_owned(),
            packet: Some(packet.to_owned()),
            ..Default::default()
        })
        .unwrap();
    assert!(trace.installed);
    let frame = rig.connection(1000);
    let slot = rig.forward("web/near", &frame).unwrap();
    let port = rig.engine.ports.by_index(slot.port).unwrap();
    let verdict = format!("delivered to {}", rig.model.port_path(port));
    assert_eq!(trace.verdict, verdict);
    let says = trace
        .steps
        .iter()
        .any(|step| step.text.contains("of 256 is that of next hop"));
    assert!(says, "{:?}", trace.steps);
}
