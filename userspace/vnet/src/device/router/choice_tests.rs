//! Several next hops for one destination, and routes for some sources only.

use crate::fixture::Topology;
use crate::flow_state::StateEntry;
use crate::model::RouteAction::{Blackhole, Via};
use crate::{Cause, Entry, Mac, Member, Outcome, Packet, Step, Tag, Verdict, simulate, text};
use std::collections::BTreeMap;
use std::net::IpAddr;
use weft_common::{DropReason, FlowKey};

const TO: &str = "198.51.100.0/24";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Two subnets; in the second `count` machines, 10.0.2.21 and so on, route on to the rest of the world.
fn with_gateways(count: u8) -> Topology {
    let mut topology = Topology::two_subnets();
    for number in 1..=count {
        let (path, address) = (format!("db/gw-{number}"), format!("10.0.2.{}", 20 + number));
        topology.port(&path, &[&address]);
        topology.bind(&path, "h2");
        topology.route("core", TO, Via(ip(&address)), 100);
    }
    topology
}

fn udp(port: u16) -> String {
    format!("udp 10.0.1.11:{port} > 198.51.100.7:53")
}

fn dropped(outcome: &Outcome) -> Option<DropReason> {
    match outcome.verdict {
        Verdict::Drop { reason, .. } | Verdict::Refuse { reason, .. } => Some(reason),
        _ => None,
    }
}

fn key(topology: &Topology, text: &str) -> FlowKey {
    let frame = topology.frame("web/web-1", text);
    let entry = Entry::Workload(topology.id("web/web-1"));
    Packet::parse(entry, 1, &frame, None).unwrap().key
}

fn members(outcome: &Outcome) -> &[Member] {
    match &outcome.verdict {
        Verdict::Select(members) => members,
        other => panic!("{other:?}"),
    }
}

/// Packets of 400 connections by where they end.
fn spread(topology: &Topology, outcome: &Outcome) -> BTreeMap<String, u32> {
    let mut ends = BTreeMap::new();
    for port in 1000..1400 {
        let taken = outcome.taken(&key(topology, &udp(port)));
        let end = text::describe_verdict(&taken.verdict, &topology.snapshot());
        *ends.entry(end).or_default() += 1;
    }
    ends
}

#[test]
fn routes_of_one_prefix_and_weight_share_the_packets() {
    let topology = with_gateways(4);
    let outcome = topology.send("web/web-1", &udp(1000));
    assert!(outcome.install && outcome.emit.is_empty());
    for (number, member) in (1..).zip(members(&outcome)) {
        let gateway = format!("db/gw-{number}");
        assert_eq!(
            member.next_hop.address,
            ip(&format!("10.0.2.{}", 20 + number))
        );
        let Outcome {
            verdict,
            macs,
            ttl_decrement,
            install,
            ..
        } = &member.outcome;
        assert_eq!(*verdict, Verdict::Deliver(topology.id(&gateway)));
        assert_eq!(
            *macs,
            Some((topology.mac("core/db"), topology.mac(&gateway)))
        );
        assert!(*ttl_decrement == 1 && *install);
        assert!(outcome.tags.contains(&Tag::Activity(topology.id(&gateway))));
    }
    // No bit of what tells connections apart.
    let head = outcome.mask.head;
    assert_eq!((head.l4_src, head.l4_dst, head.protocol), (0, 0, 0));
    assert_eq!(outcome.mask.src_v4(), [0xf8, 0, 0, 0]);
    assert_eq!(outcome.mask.dst_v4(), [255, 255, 255, 0]);
    for port in 1001..1100 {
        assert_eq!(topology.send("web/web-1", &udp(port)), outcome);
    }
    let ends = spread(&topology, &outcome);
    assert_eq!(ends.len(), 4);
    assert!(
        ends.values().all(|count| (60..140).contains(count)),
        "{ends:?}"
    );
}

#[test]
fn the_trace_names_the_bucket_and_the_next_hop() {
    let topology = with_gateways(4);
    let frame = topology.frame("web/web-1", &udp(1000));
    let entry = Entry::Workload(topology.id("web/web-1"));
    let packet = Packet::parse(entry, 1, &frame, None).unwrap();
    let mut steps: Vec<Step> = Vec::new();
    let snapshot = topology.snapshot();
    let outcome = simulate(&snapshot, &topology.state, &packet, 0, &mut steps);
    let texts: Vec<&str> = steps.iter().map(|step| step.text.as_str()).collect();
    let taken = outcome.taken(&packet.key);
    let Verdict::Deliver(port) = taken.verdict else {
        panic!("{taken:?}")
    };
    let gateway = topology.model.port_path(port);
    let number: u8 = gateway.trim_start_matches("db/gw-").parse().unwrap();
    let bucket = weft_common::select::bucket(&packet.key);
    let expected = format!(
        "198.51.100.0/24 is via 10.0.2.{} on core/db: bucket {bucket} of 256 is that of next hop {number} of 4",
        20 + number
    );
    assert!(texts.contains(&expected.as_str()), "{texts:?}");
    // The other ways are followed, too, but they are not this packet's.
    let out = texts.iter().filter(|text| **text == "out to the workload");
    assert_eq!(out.count(), 1);
}

#[test]
fn a_next_hop_that_leaves_moves_only_its_own_packets() {
    let mut topology = with_gateways(4);
    let before = topology.send("web/web-1", &udp(1000));
    topology.change("db/gw-2", |port| port.addresses.clear());
    let mut router = (**topology.model.routers.values().next().unwrap()).clone();
    router.routes.remove(1);
    topology.put(vec![crate::Object::Router(router)]);
    let after = topology.send("web/web-1", &udp(1000));
    assert_eq!((members(&before).len(), members(&after).len()), (4, 3));
    assert_eq!(before.mask, after.mask, "the flow goes on");
    let gone = Verdict::Deliver(topology.id("db/gw-2"));
    for port in 1000..1400 {
        let key = key(&topology, &udp(port));
        let (old, new) = (before.taken(&key), after.taken(&key));
        assert!(old == new || old.verdict == gone, "port {port}");
    }
}

#[test]
fn a_next_hop_that_cannot_be_reached_is_no_member() {
    let mut topology = with_gateways(2);
    topology.port("core/up", &["192.0.2.2/29"]);
    topology.bind("core/up", "h2");
    topology.route("core", TO, Via(ip("192.0.2.1")), 100);
    topology.change("core/up", |port| port.admin_up = false);
    assert_eq!(members(&topology.send("web/web-1", &udp(1))).len(), 2);
    // It is a member again with the port, and waits for its MAC.
    topology.change("core/up", |port| port.admin_up = true);
    let outcome = topology.send("web/web-1", &udp(1));
    assert_eq!(members(&outcome).len(), 3);
    let waiting: Vec<bool> = members(&outcome)
        .iter()
        .map(|member| matches!(member.outcome.verdict, Verdict::Wait { .. }))
        .collect();
    assert_eq!(waiting.iter().filter(|it| **it).count(), 1);
    assert!(outcome.install, "the others don't wait for it");
    // Only a packet of its own asks, and is for itself.
    for port in 1..50 {
        let outcome = topology.send("web/web-1", &udp(port));
        let own = outcome.taken(&key(&topology, &udp(port)));
        let waits = matches!(own.verdict, Verdict::Wait { .. });
        assert_eq!(
            (outcome.emit.len(), own.install),
            (usize::from(waits), !waits)
        );
    }
    let address = ip("192.0.2.1");
    let router_port = topology.id("core/up");
    topology.state.apply(&StateEntry::Neighbour {
        router_port,
        address,
        mac: Mac([2; 6]),
    });
    let outcome = topology.send("web/web-1", &udp(1));
    assert!(
        members(&outcome)
            .iter()
            .all(|member| member.outcome.install)
    );
}

/// Weights stand by, and shorter prefixes after them; a route that drops ends the list.
#[test]
fn routes_without_a_reachable_next_hop_give_way() {
    let mut topology = Topology::two_subnets();
    for (port, address) in [("core/up1", "192.0.2.2/29"), ("core/up2", "203.0.113.2/29")] {
        topology.port(port, &[address]);
        topology.bind(port, "h2");
    }
    for (router_port, address) in [("core/up1", "192.0.2.1"), ("core/up2", "203.0.113.1")] {
        let (router_port, address) = (topology.id(router_port), ip(address));
        topology.state.apply(&StateEntry::Neighbour {
            router_port,
            address,
            mac: Mac([2; 6]),
        });
    }
    topology.route("core", TO, Via(ip("192.0.2.1")), 50);
    topology.route("core", TO, Via(ip("203.0.113.1")), 60);
    let send = |topology: &Topology| topology.send("web/web-1", &udp(1)).verdict;
    assert_eq!(send(&topology), Verdict::Deliver(topology.id("core/up1")));
    topology.change("core/up1", |port| port.admin_up = false);
    assert_eq!(send(&topology), Verdict::Deliver(topology.id("core/up2")));
    topology.change("core/up2", |port| port.admin_up = false);
    let down = Verdict::Refuse {
        reason: DropReason::PortDown,
        cause: Some(Cause::Port(topology.id("core/up1"))),
    };
    assert_eq!(send(&topology), down);
    topology.route("core", "198.51.0.0/16", Blackhole, 100);
    assert!(matches!(
        send(&topology),
        Verdict::Drop {
            reason: DropReason::BlackholeRoute,
            ..
        }
    ));
}

#[test]
fn a_route_for_some_sources_costs_their_bits_and_only_there() {
    let mut topology = with_gateways(1);
    topology.port("db/other", &["10.0.2.30"]);
    topology.bind("db/other", "h2");
    let to_other = Via(ip("10.0.2.30"));
    topology.route_from("core", TO, Some("10.0.1.12/31"), to_other, 900);
    topology.route("core", "203.0.113.0/24", to_other, 100);
    let send = |from: &str, text: &str| {
        let outcome = topology.send(from, text);
        let Verdict::Deliver(port) = outcome.verdict else {
            panic!("{outcome:?}")
        };
        let source = u32::from_be_bytes(outcome.mask.src_v4()).count_ones();
        (topology.model.port_path(port), source)
    };
    let first = "udp 10.0.1.11:1 > 198.51.100.7:2";
    let second = "udp 10.0.1.12:1 > 198.51.100.7:2";
    assert_eq!(send("web/web-1", first), ("db/gw-1".to_owned(), 30));
    assert_eq!(send("web/web-2", second), ("db/other".to_owned(), 31));
    let elsewhere = "udp 10.0.1.12:1 > 203.0.113.7:2";
    assert_eq!(send("web/web-2", elsewhere), ("db/other".to_owned(), 5));
}

/// Routers in a row that all choose: three times at most, and then all packets go one way.
#[test]
fn a_packet_meets_three_choices_at_most() {
    let mut topology = Topology::two_subnets();
    let mut before = "core".to_owned();
    for number in 1..=4_u8 {
        let router = format!("r{number}");
        topology.router(&router);
        for link in [1, 2] {
            let (near, far) = (format!("{before}/x{link}"), format!("{router}/b{link}"));
            topology.port(&near, &[&format!("10.9.{number}{link}.1/30")]);
            topology.port(&far, &[&format!("10.9.{number}{link}.2/30")]);
            topology.peer(&near, &far);
            let hop = Via(ip(&format!("10.9.{number}{link}.2")));
            topology.route(&before, TO, hop, 100);
        }
        before = router;
    }
    topology.port("r4/out", &["198.51.100.1/24"]);
    topology.bind("r4/out", "h2");
    let (router_port, address) = (topology.id("r4/out"), ip("198.51.100.7"));
    topology.state.apply(&StateEntry::Neighbour {
        router_port,
        address,
        mac: Mac([2; 6]),
    });
    let outcome = topology.send("web/web-1", &udp(1));
    let mut depth = 0;
    let mut at = &outcome;
    while let Verdict::Select(members) = &at.verdict {
        depth += 1;
        assert_eq!(members.len(), 2);
        at = &members[0].outcome;
    }
    assert_eq!((depth, at.ttl_decrement), (3, 5));
    assert_eq!(at.verdict, Verdict::Deliver(router_port));
    // A short TTL ends on the way, and makes no flow; others aren't misled by it.
    let frame = topology.frame("web/web-1", &udp(1));
    let entry = Entry::Workload(topology.id("web/web-1"));
    let mut packet = Packet::parse(entry, 1, &frame, None).unwrap();
    packet.headers.ttl = 3;
    let ended = simulate(
        &topology.snapshot(),
        &topology.state,
        &packet,
        0,
        &mut crate::NoTrace,
    );
    assert!(!ended.install);
    assert_eq!(
        dropped(ended.taken(&packet.key)),
        Some(DropReason::TtlExpired)
    );
}
