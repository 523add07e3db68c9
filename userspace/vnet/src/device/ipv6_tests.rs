//! What bridges and routers do with one IPv6 packet at a time.

use crate::fixture::Topology;
use crate::flow_state::StateEntry;
use crate::model::RouteAction::Via;
use crate::{Emission, Entry, Mac, Origin, Outcome, Packet, Tag, Verdict, advertisements, text};
use std::net::{IpAddr, Ipv6Addr};
use weft_common::DropReason;
use weft_wire::Nd;
use weft_wire::ndp::{ALL_NODES, ALL_ROUTERS, Message};

const GUEST: Mac = Mac([2, 0, 0, 0, 7, 7]);
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

fn ip(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

/// The two subnets with fd00:1::/64 and fd00:2::/64; in each a port on which anyone may speak.
fn topology() -> Topology {
    let mut topology = Topology::two_subnets();
    let added = [
        ("web/web-1", "fd00:1::b"),
        ("web/web-2", "fd00:1::c"),
        ("db/db-1", "fd00:2::b"),
        ("core/web", "fd00:1::1/64"),
        ("core/db", "fd00:2::1/64"),
    ];
    for (path, address) in added {
        let address = address.parse().unwrap();
        topology.change(path, |port| port.addresses.push(address));
    }
    for path in ["web/open", "db/open"] {
        topology.port(path, &[]);
        topology.bind(path, "h1");
    }
    topology
}

fn dropped(outcome: &Outcome) -> Option<DropReason> {
    match outcome.verdict {
        Verdict::Drop { reason, .. } => Some(reason),
        _ => None,
    }
}

fn flood(topology: &Topology, bridge: &str) -> Verdict {
    let domain = topology.domain(bridge);
    Verdict::Flood { domain }
}

/// What is matched besides the ingress port.
fn matched(topology: &Topology, outcome: &Outcome, sent: &[u8]) -> String {
    let entry = Entry::Workload(topology.id("web/web-1"));
    let key = Packet::parse(entry, 1, sent, None).unwrap().key;
    let text = text::describe_match(&key, &outcome.mask, &topology.snapshot());
    text.split_once(',').unwrap().1.to_owned()
}

fn nd(emission: &Emission) -> Nd {
    Nd::parse(&emission.frame[14..]).unwrap()
}

fn group_mac(group: Ipv6Addr) -> [u8; 6] {
    Mac::of_group(group).0
}

/// A probe whether somebody has the address already.
fn probe(source: Mac, target: &str) -> Vec<u8> {
    let mut nd = Nd::solicitation(Ipv6Addr::UNSPECIFIED, source.0, ip(target));
    let target = ip(target);
    nd.message = Message::NeighbourSolicitation {
        target,
        source_mac: None,
    };
    nd.frame(group_mac(nd.destination), source.0)
}

fn announcement(mac: Mac, target: &str, replaces: bool) -> Vec<u8> {
    let mut nd = Nd::advertisement(ip(target), mac.0, false, Ipv6Addr::UNSPECIFIED);
    if let Message::NeighbourAdvertisement { replaces: flag, .. } = &mut nd.message {
        *flag = replaces;
    }
    nd.frame(ALL_NODES_MAC, mac.0)
}

fn solicitation_of_routers(source: Mac) -> Vec<u8> {
    let nd = Nd {
        source: Ipv6Addr::UNSPECIFIED,
        destination: ALL_ROUTERS,
        message: Message::RouterSolicitation { source_mac: None },
    };
    nd.frame(group_mac(ALL_ROUTERS), source.0)
}

#[test]
fn a_bridge_switches_it_by_its_mac_alone() {
    let topology = topology();
    let ping = topology.frame("web/web-1", "icmp fd00:1::b > fd00:1::c echo");
    let outcome = topology.send_frame("web/web-1", &ping);
    assert_eq!(outcome.verdict, Verdict::Deliver(topology.id("web/web-2")));
    let expected = format!("ipv6,dst_mac={}", topology.mac("web/web-2"));
    assert_eq!(matched(&topology, &outcome, &ping), expected);
}

#[test]
fn a_router_forwards_by_destination_and_the_sources_scope() {
    let topology = topology();
    let sent = topology.frame("web/web-1", "tcp [fd00:1::b]:40000 > [fd00:2::b]:80");
    let outcome = topology.send_frame("web/web-1", &sent);
    assert_eq!(outcome.verdict, Verdict::Deliver(topology.id("db/db-1")));
    let macs = (topology.mac("core/db"), topology.mac("db/db-1"));
    assert_eq!((outcome.macs, outcome.ttl_decrement), (Some(macs), 1));
    let gateway = topology.mac("core/web");
    let expected =
        format!("ipv6,vlan=none,dst_mac={gateway},ipv6_src=fd00::/10,ipv6_dst=fd00:2::b/128");
    assert_eq!(matched(&topology, &outcome, &sent), expected);
}

#[test]
fn behind_a_gateway_the_mask_is_the_prefix() {
    let mut topology = topology();
    topology.route(
        "core",
        "fd00:9::/56",
        Via("fd00:2::b".parse().unwrap()),
        100,
    );
    let sent = topology.frame("web/web-1", "udp [fd00:1::b]:1 > [fd00:9::1]:2");
    let outcome = topology.send_frame("web/web-1", &sent);
    assert_eq!(outcome.verdict, Verdict::Deliver(topology.id("db/db-1")));
    let text = matched(&topology, &outcome, &sent);
    assert!(
        text.ends_with("ipv6_src=fd00::/10,ipv6_dst=fd00:9::/56"),
        "{text}"
    );
}

#[test]
fn what_means_something_on_its_own_link_only_stays_there() {
    let topology = topology();
    let mac = topology.mac("core/web").0;
    let mut sent = topology.frame("web/web-1", "udp [fd00:1::b]:1 > [fd00:2::b]:2");
    for (source, reason, matched_as) in [
        ("fe80::b", DropReason::BeyondScope, "fe80::/10"),
        ("ff02::1", DropReason::MartianSource, "ff00::/10"),
        ("::", DropReason::MartianSource, "::/128"),
        ("::1", DropReason::MartianSource, "::1/128"),
        (
            "::ffff:10.0.1.11",
            DropReason::MartianSource,
            "::ffff:0.0.0.0/96",
        ),
    ] {
        sent[22..38].copy_from_slice(&ip(source).octets());
        let outcome = topology.send_frame("web/web-1", &sent);
        assert_eq!(dropped(&outcome), Some(reason), "{source}");
        assert!(outcome.install);
        let text = matched(&topology, &outcome, &sent);
        assert!(
            text.contains(&format!("ipv6_src={matched_as},")),
            "{source}: {text}"
        );
    }
    sent[22..38].copy_from_slice(&ip("fd00:1::b").octets());
    for destination in ["fe80::b", "::1", "ff0e::1", "fd00:2::"] {
        sent[38..54].copy_from_slice(&ip(destination).octets());
        sent[..6].copy_from_slice(&mac);
        let outcome = topology.send_frame("web/web-1", &sent);
        assert_eq!(
            dropped(&outcome),
            Some(DropReason::RouterLocal),
            "{destination}"
        );
    }
}

#[test]
fn a_declared_address_is_answered_for_by_the_bridge() {
    let topology = topology();
    let port = topology.id("web/web-1");
    for (target, owner, is_router) in [
        ("fd00:1::c", "web/web-2", false),
        ("fd00:1::1", "core/web", true),
        (
            &topology.mac("core/web").link_local().to_string(),
            "core/web",
            true,
        ),
    ] {
        let outcome = topology.send("web/web-1", &format!("nd fd00:1::b who-has {target}"));
        assert_eq!(
            (&outcome.verdict, outcome.install),
            (&Verdict::Answered, false)
        );
        let [answer] = &outcome.emit[..] else {
            panic!("{outcome:?}")
        };
        assert_eq!(answer.origin, Origin::ToPort(port));
        assert_eq!(answer.frame[..6], topology.mac("web/web-1").0);
        let mac = topology.mac(owner).0;
        let expected = Nd::advertisement(ip(target), mac, is_router, ip("fd00:1::b"));
        assert_eq!(nd(answer), expected);
        let tag = Tag::Address(topology.domain("web"), IpAddr::V6(ip(target)));
        assert!(outcome.tags.contains(&tag));
    }
}

#[test]
fn a_probe_for_anothers_address_is_answered_to_all_and_ones_own_passes() {
    let topology = topology();
    let mac = topology.mac("web/web-1");
    let outcome = topology.send_frame("web/web-1", &probe(mac, "fd00:1::c"));
    assert_eq!(outcome.verdict, Verdict::Answered);
    let answer = nd(&outcome.emit[0]);
    assert_eq!(
        (answer.destination, &outcome.emit[0].frame[..6]),
        (ALL_NODES, &ALL_NODES_MAC[..])
    );
    assert!(matches!(
        answer.message,
        Message::NeighbourAdvertisement {
            solicited: false,
            replaces: true,
            ..
        }
    ));
    for target in ["fd00:1::b", "fd00:1::77"] {
        let outcome = topology.send_frame("web/web-1", &probe(mac, target));
        assert_eq!(outcome.verdict, flood(&topology, "web"), "{target}");
        assert!(outcome.emit.is_empty() && !outcome.install);
    }
}

#[test]
fn bad_discovery_is_dropped_by_name() {
    let topology = topology();
    let good = topology.frame("web/web-1", "nd fd00:1::b who-has fd00:1::c");
    let mut routed = good.clone();
    routed[21] = 254;
    let mut damaged = good.clone();
    damaged[57] ^= 1;
    let mut with_code = good;
    with_code[55] = 1;
    for frame in [routed, damaged, with_code] {
        let outcome = topology.send_frame("web/web-1", &frame);
        assert_eq!(dropped(&outcome), Some(DropReason::BadNd));
        assert!(!outcome.install && outcome.emit.is_empty());
        // To the router itself likewise.
        let unicast = [
            &topology.mac("core/web").0[..],
            &frame[6..38],
            &ip("fd00:1::1").octets(),
            &frame[54..],
        ];
        let outcome = topology.send_frame("web/web-1", &unicast.concat());
        assert_eq!(dropped(&outcome), Some(DropReason::BadNd));
    }
}

#[test]
fn other_groups_are_flooded_by_a_flow_that_looks_at_no_more_than_it_must() {
    let topology = topology();
    let sent = topology.frame("web/web-1", "udp [fd00:1::b]:5353 > [ff02::fb]:5353");
    let outcome = topology.send_frame("web/web-1", &sent);
    assert_eq!(
        (outcome.verdict.clone(), outcome.install),
        (flood(&topology, "web"), true)
    );
    let expected = "ipv6,vlan=none,dst_mac=33:33:00:00:00:fb,proto=udp";
    assert_eq!(matched(&topology, &outcome, &sent), expected);
}

#[test]
fn a_router_answers_for_its_own_addresses_and_learns_the_asker() {
    let mut topology = topology();
    let mac = topology.mac("core/db");
    let question = Nd::solicitation(ip("fd00:2::77"), GUEST.0, ip("fd00:2::1"));
    let frame = question.frame(group_mac(question.destination), GUEST.0);
    topology.learn(&topology.send_frame("db/open", &frame));
    let known = |topology: &Topology| {
        let port = topology.id("core/db");
        topology.state.neighbour(port, IpAddr::V6(ip("fd00:2::77")))
    };
    assert_eq!(known(&topology), Some(GUEST));
    // Whether it is still there is asked of the router itself.
    let again = Nd {
        destination: ip("fd00:2::1"),
        ..question
    };
    let outcome = topology.send_frame("db/open", &again.frame(mac.0, GUEST.0));
    assert_eq!(
        (&outcome.verdict, outcome.install),
        (&Verdict::Answered, false)
    );
    assert_eq!(
        outcome.emit[0].origin,
        Origin::Device(topology.id("core/db"))
    );
    let expected = Nd::advertisement(ip("fd00:2::1"), mac.0, true, ip("fd00:2::77"));
    assert_eq!(nd(&outcome.emit[0]), expected);
}

#[test]
fn packets_wait_for_a_next_hop_that_is_asked_for() {
    let mut topology = topology();
    let router_port = topology.id("core/db");
    let ping = topology.frame("web/web-1", "icmp fd00:1::b > fd00:2::77");
    let waiting = topology.send_frame("web/web-1", &ping);
    let address = IpAddr::V6(ip("fd00:2::77"));
    assert_eq!(
        waiting.verdict,
        Verdict::Wait {
            router_port,
            address
        }
    );
    assert!(!waiting.install);
    let mac = topology.mac("core/db");
    let expected = Nd::solicitation(ip("fd00:2::1"), mac.0, ip("fd00:2::77"));
    assert_eq!(nd(&waiting.emit[0]), expected);
    let asked = topology.simulate(Entry::Device(router_port), &waiting.emit[0].frame);
    assert_eq!(asked.verdict, flood(&topology, "db"));
    let answer = Nd::advertisement(ip("fd00:2::77"), GUEST.0, false, ip("fd00:2::1"));
    let heard = topology.send_frame("db/open", &answer.frame(mac.0, GUEST.0));
    assert_eq!(heard.verdict, Verdict::Answered);
    topology.learn(&heard);
    let sent = topology.send_frame("web/web-1", &ping);
    assert_eq!(sent.macs, Some((mac, GUEST)));
    assert!(sent.install && sent.tags.contains(&Tag::Neighbour(router_port, address)));
}

#[test]
fn an_announcement_moves_what_is_known_if_it_says_so() {
    let mut topology = topology();
    let (router_port, new) = (topology.id("core/db"), Mac([2, 0, 0, 0, 7, 8]));
    let address = IpAddr::V6(ip("fd00:2::77"));
    let unknown = topology.send_frame("db/open", &announcement(new, "fd00:2::77", true));
    let neighbours = |outcome: &Outcome| {
        let is_neighbour = |it: &&StateEntry| matches!(it, StateEntry::Neighbour { .. });
        outcome
            .writes
            .iter()
            .filter(is_neighbour)
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (neighbours(&unknown), unknown.verdict),
        (vec![], flood(&topology, "db"))
    );
    let known = StateEntry::Neighbour {
        router_port,
        address,
        mac: GUEST,
    };
    topology.state.apply(&known);
    let shy = topology.send_frame("db/open", &announcement(new, "fd00:2::77", false));
    assert_eq!(neighbours(&shy), []);
    let moved = topology.send_frame("db/open", &announcement(new, "fd00:2::77", true));
    let entry = StateEntry::Neighbour {
        router_port,
        address,
        mac: new,
    };
    assert_eq!((neighbours(&moved), moved.install), (vec![entry], false));
    // Nobody takes an address that is declared.
    let stolen = topology.send_frame("db/open", &announcement(new, "fd00:2::b", true));
    assert_eq!(neighbours(&stolen), []);
}

#[test]
fn who_asks_for_routers_hears_of_them() {
    let topology = topology();
    let port = topology.id("web/web-1");
    let mac = topology.mac("web/web-1");
    let outcome = topology.send_frame("web/web-1", &solicitation_of_routers(mac));
    assert_eq!(
        (&outcome.verdict, outcome.install),
        (&Verdict::Answered, false)
    );
    assert_eq!(outcome.emit, advertisements(&topology.snapshot(), port));
    let [emission] = &outcome.emit[..] else {
        panic!("{outcome:?}")
    };
    assert_eq!(emission.origin, Origin::ToPort(port));
    let router = topology.mac("core/web");
    assert_eq!(nd(emission).source, router.link_local());
    let Message::RouterAdvertisement(said) = nd(emission).message else {
        panic!()
    };
    assert_eq!((said.source_mac, said.mtu), (Some(router.0), None));
    assert!(said.lifetime_secs > 0);
    let [prefix] = &said.prefixes[..] else {
        panic!("{said:?}")
    };
    assert_eq!(
        (prefix.prefix, prefix.prefix_length),
        (ip("fd00:1::").octets(), 64)
    );
    assert!(prefix.on_link && prefix.autonomous_address_configuration);
    let snapshot = topology.snapshot().with_overlay_mtu(Some(1458));
    let Message::RouterAdvertisement(said) = nd(&advertisements(&snapshot, port)[0]).message else {
        panic!()
    };
    assert_eq!(said.mtu, Some(1458));
}

#[test]
fn without_a_router_the_question_is_for_all() {
    let mut topology = topology();
    topology.change("core/web", |port| port.addresses.truncate(1));
    let question = solicitation_of_routers(GUEST);
    let outcome = topology.send_frame("web/open", &question);
    assert_eq!(outcome.verdict, flood(&topology, "web"));
    assert!(advertisements(&topology.snapshot(), topology.id("web/open")).is_empty());
}

#[test]
fn an_uplink_takes_part_in_discovery() {
    let mut topology = topology();
    topology.port("core/up", &["2001:db8::2/64"]);
    topology.bind("core/up", "h1");
    let up = topology.id("core/up");
    let question = Nd::solicitation(ip("2001:db8::1"), GUEST.0, ip("2001:db8::2"));
    let outcome = topology.send_frame(
        "core/up",
        &question.frame(group_mac(question.destination), GUEST.0),
    );
    assert_eq!(outcome.emit[0].origin, Origin::ToPort(up));
    topology.learn(&outcome);
    let outcome = topology.send_frame("core/up", &solicitation_of_routers(GUEST));
    assert_eq!(outcome.emit, advertisements(&topology.snapshot(), up));
    let mdns = topology.frame("core/up", "udp [2001:db8::1]:5353 > [ff02::fb]:5353");
    let group = [&[0x33, 0x33, 0, 0, 0, 0xfb][..], &mdns[6..]].concat();
    let outcome = topology.send_frame("core/up", &group);
    assert_eq!(dropped(&outcome), Some(DropReason::NotForRouter));
}

#[test]
fn the_router_answers_pings_from_near_and_far() {
    let topology = topology();
    let own = topology.mac("core/web").link_local().to_string();
    for (source, target) in [
        ("fd00:1::b", "fd00:1::1"),
        ("fd00:1::b", "fd00:2::1"),
        ("fe80::b", &own),
    ] {
        let mut ping = topology.frame("web/web-1", &format!("icmp {source} > {target} echo"));
        ping[..6].copy_from_slice(&topology.mac("core/web").0);
        let outcome = topology.send_frame("web/web-1", &ping);
        assert_eq!(outcome.verdict, Verdict::Answered, "{source} > {target}");
        let port = topology.id("core/web");
        assert_eq!(outcome.emit[0].origin, Origin::Device(port));
        let reply = topology.simulate(Entry::Device(port), &outcome.emit[0].frame);
        assert_eq!(reply.verdict, Verdict::Deliver(topology.id("web/web-1")));
    }
}
