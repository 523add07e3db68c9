//! What a bridge does with one frame at a time.

use crate::fixture::Topology;
use crate::flow_state::StateEntry;
use crate::{Emission, Entry, Mac, Origin, Outcome, Tag, Verdict, text};
use weft_common::DropReason;
use weft_wire::{Arp, ethernet};

const STRANGER: Mac = Mac([2, 0, 0, 0, 9, 1]);
const OTHER: Mac = Mac([2, 0, 0, 0, 9, 2]);

/// Two subnets, and on `web` two ports on which anyone may speak.
fn open() -> Topology {
    let mut topology = Topology::two_subnets();
    for path in ["web/open-1", "web/open-2"] {
        topology.port(path, &[]);
        topology.bind(path, "h1");
    }
    topology
}

/// A frame of a protocol that nobody knows.
fn frame(source: Mac, destination: Mac) -> Vec<u8> {
    ethernet::frame(destination.0, source.0, 0x88b5, &[0; 46])
}

fn flood(topology: &Topology) -> Verdict {
    Verdict::Flood {
        domain: topology.domain("web"),
    }
}

fn dropped(outcome: &Outcome) -> Option<DropReason> {
    match outcome.verdict {
        Verdict::Drop { reason, .. } => Some(reason),
        _ => None,
    }
}

fn matched(topology: &Topology, outcome: &Outcome, sent: &[u8]) -> String {
    let port = Entry::Workload(topology.id("web/web-1"));
    let key = crate::Packet::parse(port, 1, sent, None).unwrap().key;
    let text = text::describe_match(&key, &outcome.mask, &topology.snapshot());
    text.split_once(',').unwrap().1.to_owned()
}

#[test]
fn a_declared_mac_is_switched_to_without_learning() {
    let topology = Topology::two_subnets();
    let sent = frame(STRANGER, topology.mac("web/web-2"));
    let outcome = topology.send_frame("web/web-1", &sent);
    assert_eq!(outcome.verdict, Verdict::Deliver(topology.id("web/web-2")));
    assert!(outcome.install && outcome.writes.is_empty());
    let expected = format!("eth,dst_mac={}", topology.mac("web/web-2"));
    assert_eq!(matched(&topology, &outcome, &sent), expected);
}

#[test]
fn what_nobody_knows_is_flooded() {
    let topology = Topology::two_subnets();
    for destination in [STRANGER, Mac::BROADCAST, Mac([1, 0, 0x5e, 0, 0, 1])] {
        let outcome = topology.send_frame("web/web-1", &frame(STRANGER, destination));
        assert_eq!(outcome.verdict, flood(&topology), "{destination}");
        assert!(outcome.install && outcome.tags.contains(&Tag::Flood(topology.domain("web"))));
    }
    let unknown = topology.send_frame("web/web-1", &frame(STRANGER, OTHER));
    assert!(
        unknown
            .tags
            .contains(&Tag::Mac(topology.domain("web"), OTHER))
    );
}

#[test]
fn reserved_groups_go_nowhere() {
    let topology = Topology::two_subnets();
    let lldp = Mac([1, 0x80, 0xc2, 0, 0, 0x0e]);
    let outcome = topology.send_frame("web/web-1", &frame(STRANGER, lldp));
    assert_eq!(dropped(&outcome), Some(DropReason::ReservedGroup));
}

#[test]
fn an_open_port_learns_and_is_switched_to() {
    let mut topology = open();
    let sent = frame(STRANGER, OTHER);
    let outcome = topology.send_frame("web/open-1", &sent);
    let (bridge, port) = (topology.domain("web"), topology.id("web/open-1"));
    assert_eq!(
        outcome.writes,
        [StateEntry::Mac {
            bridge,
            mac: STRANGER,
            port
        }]
    );
    assert!(outcome.tags.contains(&Tag::Mac(bridge, STRANGER)));
    let expected = format!("eth,src_mac={STRANGER},dst_mac={OTHER}");
    assert_eq!(matched(&topology, &outcome, &sent), expected);
    topology.learn(&outcome);
    assert!(topology.send_frame("web/open-1", &sent).writes.is_empty());
    let back = topology.send_frame("web/web-1", &frame(OTHER, STRANGER));
    assert_eq!(back.verdict, Verdict::Deliver(port));
    assert!(back.tags.contains(&Tag::Mac(bridge, STRANGER)));
}

#[test]
fn a_mac_that_moves_is_learned_again() {
    let mut topology = open();
    topology.learn(&topology.send_frame("web/open-1", &frame(STRANGER, OTHER)));
    topology.learn(&topology.send_frame("web/open-2", &frame(STRANGER, OTHER)));
    let back = topology.send_frame("web/web-1", &frame(OTHER, STRANGER));
    assert_eq!(back.verdict, Verdict::Deliver(topology.id("web/open-2")));
}

#[test]
fn nobody_learns_what_the_topology_declares() {
    let topology = open();
    for path in ["web/web-1", "core/web", "web/open-1"] {
        let outcome = topology.send_frame("web/open-1", &frame(topology.mac(path), OTHER));
        assert_eq!(outcome.writes, [], "{path}");
    }
}

#[test]
fn a_group_is_nobodys_source() {
    let topology = open();
    let outcome = topology.send_frame("web/open-1", &frame(Mac([3, 0, 0, 0, 0, 1]), OTHER));
    assert_eq!(dropped(&outcome), Some(DropReason::GroupSource));
    assert_eq!(outcome.writes, []);
}

#[test]
fn nothing_goes_back_where_it_came_from() {
    let mut topology = open();
    topology.learn(&topology.send_frame("web/open-1", &frame(STRANGER, OTHER)));
    let outcome = topology.send_frame("web/open-1", &frame(OTHER, STRANGER));
    assert_eq!(dropped(&outcome), Some(DropReason::SamePort));
}

#[test]
fn a_port_that_left_the_domain_is_forgotten() {
    let mut topology = open();
    topology.learn(&topology.send_frame("web/open-1", &frame(STRANGER, OTHER)));
    let other = topology.get("db/db-1").device;
    topology.change("web/open-1", |port| port.device = other);
    let outcome = topology.send_frame("web/web-1", &frame(OTHER, STRANGER));
    assert_eq!(outcome.verdict, flood(&topology));
}

#[test]
fn tagged_frames_are_switched_alike() {
    let topology = Topology::two_subnets();
    let inner = frame(STRANGER, topology.mac("web/web-2"));
    let tagged = [&inner[..12], &[0x81, 0, 0, 5], &inner[12..]].concat();
    let outcome = topology.send_frame("web/web-1", &tagged);
    assert_eq!(outcome.verdict, Verdict::Deliver(topology.id("web/web-2")));
    assert_eq!(outcome.mask.head.vlan, 0);
}

#[test]
fn joined_bridges_switch_like_one() {
    let mut topology = Topology::new();
    for bridge in ["left", "right"] {
        topology.bridge(bridge);
        topology.port(&format!("{bridge}/one"), &[]);
        topology.bind(&format!("{bridge}/one"), "h1");
        topology.port(&format!("{bridge}/link"), &[]);
    }
    topology.peer("left/link", "right/link");
    let domain = topology.domain("left");
    assert_eq!(domain, topology.domain("right"));
    let over = frame(STRANGER, topology.mac("right/one"));
    let outcome = topology.send_frame("left/one", &over);
    assert_eq!(outcome.verdict, Verdict::Deliver(topology.id("right/one")));
    topology.learn(&outcome);
    let back = topology.send_frame("right/one", &frame(OTHER, STRANGER));
    assert_eq!(back.verdict, Verdict::Deliver(topology.id("left/one")));
    let all = topology.send_frame("right/one", &frame(OTHER, Mac::BROADCAST));
    assert_eq!(all.verdict, Verdict::Flood { domain });
    topology.change("left/link", |port| port.admin_up = false);
    assert_ne!(topology.domain("left"), topology.domain("right"));
    let cut = topology.send_frame("left/one", &over);
    assert_eq!(
        cut.verdict,
        Verdict::Flood {
            domain: topology.domain("left")
        }
    );
}

#[test]
fn requests_for_declared_addresses_are_answered() {
    let topology = Topology::two_subnets();
    for (address, owner) in [("10.0.1.12", "web/web-2"), ("10.0.1.1", "core/web")] {
        let text = format!("arp 10.0.1.11 who-has {address}");
        let request = topology.frame("web/web-1", &text);
        let outcome = topology.send_frame("web/web-1", &request);
        assert_eq!(outcome.verdict, Verdict::Answered);
        assert!(!outcome.install);
        let asker = topology.mac("web/web-1");
        let reply = Arp::parse(&request[14..])
            .unwrap()
            .answered_by(topology.mac(owner).0);
        let origin = Origin::ToPort(topology.id("web/web-1"));
        assert_eq!(
            outcome.emit,
            [Emission {
                origin,
                frame: reply.frame(asker.0)
            }]
        );
    }
}

#[test]
fn requests_for_others_are_flooded_by_target() {
    let topology = Topology::two_subnets();
    let request = topology.frame("web/web-1", "arp 10.0.1.11 who-has 10.0.1.99");
    let outcome = topology.send_frame("web/web-1", &request);
    assert_eq!(outcome.verdict, flood(&topology));
    assert!(outcome.install && outcome.emit.is_empty());
    let expected = "arp,vlan=none,dst_mac=ff:ff:ff:ff:ff:ff,arp_spa=10.0.1.11/32,\
                    arp_tpa=10.0.1.99/32,arp_op=request";
    assert_eq!(matched(&topology, &outcome, &request), expected);
    let unknown = "10.0.1.99".parse().unwrap();
    assert!(
        outcome
            .tags
            .contains(&Tag::Address(topology.domain("web"), unknown))
    );
}

#[test]
fn announcements_are_flooded_and_probes_answered() {
    let topology = Topology::two_subnets();
    for address in ["10.0.1.11", "10.0.1.12", "10.0.1.99"] {
        let text = format!("arp {address} who-has {address}");
        let outcome = topology.send("web/web-1", &text);
        assert_eq!(outcome.verdict, flood(&topology), "{address}");
    }
    let own = topology.send("web/web-1", "arp 0.0.0.0 who-has 10.0.1.11");
    assert_eq!(own.verdict, flood(&topology));
    let taken = topology.send("web/web-1", "arp 0.0.0.0 who-has 10.0.1.12");
    assert_eq!(taken.verdict, Verdict::Answered);
}

#[test]
fn tagged_requests_are_not_answered() {
    let topology = Topology::two_subnets();
    let request = topology.frame("web/web-1", "arp 10.0.1.11 who-has 10.0.1.12");
    let tagged = [&request[..12], &[0x81, 0, 0, 5], &request[12..]].concat();
    assert_eq!(
        topology.send_frame("web/web-1", &tagged).verdict,
        flood(&topology)
    );
}

#[test]
fn whoever_asks_for_a_router_is_its_neighbour() {
    let mut topology = open();
    let asked = topology.send("web/open-1", "arp 10.0.1.77 who-has 10.0.1.1");
    assert_eq!(asked.verdict, Verdict::Answered);
    let (router_port, mac) = (topology.id("core/web"), topology.mac("web/open-1"));
    let address = "10.0.1.77".parse().unwrap();
    assert_eq!(
        asked.writes,
        [StateEntry::Neighbour {
            router_port,
            address,
            mac
        }]
    );
    topology.learn(&asked);
    let ping = topology.send("db/db-1", "icmp 10.0.2.11 > 10.0.1.77");
    assert_eq!(ping.verdict, Verdict::Deliver(topology.id("web/open-1")));
}

#[test]
fn nobody_takes_a_declared_address_by_asking() {
    let topology = open();
    for claimed in ["10.0.1.11", "10.0.1.1", "10.0.7.7", "0.0.0.0", "10.0.1.255"] {
        let asked = topology.send("web/open-1", &format!("arp {claimed} who-has 10.0.1.1"));
        assert_eq!(asked.writes, [], "{claimed}");
    }
}

#[test]
fn routers_hear_that_a_neighbour_moved() {
    let mut topology = open();
    topology.learn(&topology.send("web/open-1", "arp 10.0.1.77 who-has 10.0.1.1"));
    let strange = topology.send("web/open-2", "arp 10.0.1.78 who-has 10.0.1.78");
    assert_eq!(strange.writes, []);
    let moved = topology.send("web/open-2", "arp 10.0.1.77 who-has 10.0.1.77");
    assert_eq!(moved.verdict, flood(&topology));
    assert!(!moved.install);
    topology.learn(&moved);
    let ping = topology.send("db/db-1", "icmp 10.0.2.11 > 10.0.1.77");
    assert_eq!(ping.verdict, Verdict::Deliver(topology.id("web/open-2")));
}

#[test]
fn packets_of_the_network_teach_nothing() {
    let topology = open();
    let sent = frame(STRANGER, OTHER);
    let outcome = topology.simulate(Entry::Device(topology.id("core/web")), &sent);
    assert_eq!(outcome.verdict, flood(&topology));
    assert!(outcome.writes.is_empty() && !outcome.install);
}

#[test]
fn only_requests_are_answered() {
    let topology = Topology::two_subnets();
    let request = topology.frame("web/web-1", "arp 10.0.1.11 who-has 10.0.1.12");
    for operation in [2, 3] {
        let mut other = request.clone();
        other[21] = operation;
        let outcome = topology.send_frame("web/web-1", &other);
        assert_eq!(outcome.verdict, flood(&topology));
        assert!(outcome.install && outcome.emit.is_empty());
    }
}
