//! What a router does with one packet at a time.

use crate::fixture::{Topology, mend_checksum};
use crate::flow_state::StateEntry;
use crate::model::RouteAction::{Blackhole, Reject, Via};
use crate::{Cause, Entry, Mac, Origin, Outcome, Packet, Step, Tag, Verdict, simulate, text};
use std::net::{IpAddr, Ipv4Addr};
use weft_common::DropReason;
use weft_wire::Arp;

const GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 2, 254));

/// A parsed address, of whichever type is wanted.
fn ip<A: std::str::FromStr<Err = std::net::AddrParseError>>(text: &str) -> A {
    text.parse().unwrap()
}

fn dropped(outcome: &Outcome) -> Option<DropReason> {
    match outcome.verdict {
        Verdict::Drop { reason, .. } | Verdict::Refuse { reason, .. } => Some(reason),
        _ => None,
    }
}

fn matched(topology: &Topology, path: &str, outcome: &Outcome, sent: &[u8]) -> String {
    let key = Packet::parse(Entry::Workload(topology.id(path)), 1, sent, None)
        .unwrap()
        .key;
    let text = text::describe_match(&key, &outcome.mask, &topology.snapshot());
    text.split_once(',').unwrap().1.to_owned()
}

/// Two subnets; in the second a machine that nobody declared routes on to the rest of the world.
fn with_gateway() -> Topology {
    let mut topology = Topology::two_subnets();
    topology.port("db/gateway", &[]);
    topology.bind("db/gateway", "h2");
    topology.route("core", "198.51.100.0/24", Via(GATEWAY), 100);
    topology.learn(&topology.send("db/gateway", "arp 10.0.2.254 who-has 10.0.2.1"));
    topology
}

/// A router with a bound port of its own, to the outside.
fn with_uplink() -> Topology {
    let mut topology = Topology::two_subnets();
    topology.port("core/up", &["192.0.2.2/30"]);
    topology.bind("core/up", "h2");
    topology.route("core", "0.0.0.0/0", Via(ip("192.0.2.1")), 100);
    topology
}

/// Answers the question that the outcome asks, as a machine with `mac` would.
fn answer(topology: &mut Topology, outcome: &Outcome, mac: Mac) {
    let request = Arp::parse(&outcome.emit[0].frame[14..]).unwrap();
    let reply = request.answered_by(mac.0).frame(request.sender_mac);
    let heard = match outcome.emit[0].origin {
        Origin::ToPort(port) => topology.simulate(Entry::Workload(port), &reply),
        Origin::Workload(_) | Origin::Device(_) => topology.send_frame("db/db-2", &reply),
        Origin::Router(_) => unreachable!("a question has a port"),
    };
    assert_eq!(
        (heard.verdict.clone(), heard.install),
        (Verdict::Answered, false)
    );
    topology.learn(&heard);
}

#[test]
fn a_packet_crosses_to_the_other_subnet() {
    let topology = Topology::two_subnets();
    let ping = topology.frame("web/web-1", "icmp 10.0.1.11 > 10.0.2.11");
    let outcome = topology.send_frame("web/web-1", &ping);
    assert_eq!(outcome.verdict, Verdict::Deliver(topology.id("db/db-1")));
    assert_eq!(
        outcome.macs,
        Some((topology.mac("core/db"), topology.mac("db/db-1")))
    );
    assert_eq!(outcome.ttl_decrement, 1);
    assert!(outcome.install && outcome.writes.is_empty() && outcome.emit.is_empty());
    let gateway = topology.mac("core/web");
    let expected = format!("ip,vlan=none,dst_mac={gateway},ip_src=8.0.0.0/5,ip_dst=10.0.2.11/32");
    assert_eq!(matched(&topology, "web/web-1", &outcome, &ping), expected);
}

#[test]
fn a_route_is_matched_by_its_prefix_only() {
    let topology = with_gateway();
    let packet = topology.frame("web/web-1", "tcp 10.0.1.11:4000 > 198.51.100.7:80");
    let outcome = topology.send_frame("web/web-1", &packet);
    assert_eq!(outcome.verdict, Verdict::Deliver(topology.id("db/gateway")));
    let expected = format!(
        "ip,vlan=none,dst_mac={},ip_src=8.0.0.0/5,ip_dst=198.51.100.0/24",
        topology.mac("core/web")
    );
    assert_eq!(matched(&topology, "web/web-1", &outcome, &packet), expected);
    assert!(
        outcome
            .tags
            .contains(&Tag::Neighbour(topology.id("core/db"), GATEWAY))
    );
}

#[test]
fn sources_that_nobody_can_have_are_not_forwarded() {
    let topology = Topology::two_subnets();
    let mut sent = topology.frame("web/web-1", "udp 10.0.1.11:1 > 10.0.2.11:2");
    for (source, matched_as) in [
        ("0.0.0.1", Some("0.0.0.0/8")),
        ("127.0.0.1", Some("127.0.0.0/8")),
        ("224.0.0.5", Some("224.0.0.0/5")),
        ("255.255.255.255", Some("248.0.0.0/5")),
        ("223.0.0.1", None),
    ] {
        let source_bytes = ip::<Ipv4Addr>(source).octets();
        sent[26..30].copy_from_slice(&source_bytes);
        mend_checksum(&mut sent);
        let outcome = topology.send_frame("web/web-1", &sent);
        let reason = matched_as.map(|_| DropReason::MartianSource);
        assert_eq!(dropped(&outcome), reason, "{source}");
        assert!(outcome.install && outcome.emit.is_empty(), "{source}");
        if let Some(matched_as) = matched_as {
            let text = matched(&topology, "web/web-1", &outcome, &sent);
            let source = format!("ip_src={matched_as},");
            assert!(text.contains(&source), "{text}");
        }
    }
}

#[test]
fn a_damaged_header_is_dropped_and_makes_no_flow() {
    let topology = Topology::two_subnets();
    // Through the router, to the router, and on the bridge, which doesn't look.
    for (to, is_dropped) in [
        ("10.0.2.11", true),
        ("10.0.1.1", true),
        ("192.0.2.9", true),
        ("10.0.1.12", false),
    ] {
        let mut sent = topology.frame("web/web-1", &format!("icmp 10.0.1.11 > {to}"));
        sent[25] ^= 1;
        let outcome = topology.send_frame("web/web-1", &sent);
        let reason = is_dropped.then_some(DropReason::BadChecksum);
        assert_eq!(dropped(&outcome), reason, "{to}");
        assert_eq!(
            (outcome.install, outcome.emit.is_empty()),
            (!is_dropped, true),
            "{to}"
        );
    }
}

#[test]
fn the_lower_weight_wins_and_then_the_first() {
    let mut topology = with_gateway();
    let send = |topology: &Topology| {
        topology
            .send("web/web-1", "udp 10.0.1.11:1 > 198.51.100.7:2")
            .verdict
    };
    topology.route("core", "198.51.100.0/24", Blackhole, 100);
    assert_eq!(send(&topology), Verdict::Deliver(topology.id("db/gateway")));
    topology.route("core", "198.51.100.0/24", Reject, 99);
    assert!(matches!(
        send(&topology),
        Verdict::Refuse {
            reason: DropReason::RejectRoute,
            ..
        }
    ));
}

#[test]
fn routes_that_drop_are_named() {
    let mut topology = Topology::two_subnets();
    topology.route("core", "198.51.100.0/24", Blackhole, 100);
    topology.route("core", "203.0.113.0/24", Reject, 100);
    let cases = [
        (
            "198.51.100.7",
            DropReason::BlackholeRoute,
            Some("198.51.100.0/24"),
        ),
        (
            "203.0.113.7",
            DropReason::RejectRoute,
            Some("203.0.113.0/24"),
        ),
        ("192.0.2.7", DropReason::NoRoute, None),
        ("224.0.0.5", DropReason::RouterLocal, None),
        ("10.0.2.255", DropReason::RouterLocal, None),
        ("10.0.2.0", DropReason::RouterLocal, None),
    ];
    for (to, reason, prefix) in cases {
        let outcome = topology.send("web/web-1", &format!("udp 10.0.1.11:1 > {to}:2"));
        assert_eq!(dropped(&outcome), Some(reason), "{to}");
        assert!(outcome.install, "{to}");
        if let Some(prefix) = prefix {
            let router = *topology.model.routers.keys().next().unwrap();
            let cause = Some(Cause::Route {
                router,
                to: prefix.parse().unwrap(),
                from: None,
            });
            let silent = reason == DropReason::BlackholeRoute;
            let expected = match silent {
                true => Verdict::Drop { reason, cause },
                false => Verdict::Refuse { reason, cause },
            };
            assert_eq!(
                (outcome.verdict, outcome.emit.is_empty()),
                (expected, silent)
            );
        }
    }
}

#[test]
fn a_route_without_a_connected_next_hop_is_not_used() {
    let mut topology = Topology::two_subnets();
    for via in [ip("10.0.9.1"), ip("10.0.2.1")] {
        topology.route("core", "198.51.100.0/24", Via(via), 100);
        let outcome = topology.send("web/web-1", "udp 10.0.1.11:1 > 198.51.100.7:2");
        assert_eq!(dropped(&outcome), Some(DropReason::NoRoute), "{via}");
    }
}

#[test]
fn a_drop_without_a_route_names_the_inactive_one() {
    let mut topology = Topology::two_subnets();
    let [far, own] = [ip("192.168.77.1"), ip("10.0.2.1")];
    topology.route("core", "198.51.0.0/16", Via(own), 100);
    topology.route("core", "198.51.100.0/24", Via(far), 100);
    topology.route("core", "198.51.100.0/24", Via(own), 200);
    let said = |topology: &Topology, to: &str| {
        let sent = topology.frame("web/web-1", &format!("udp 10.0.1.11:1 > {to}:2"));
        let outcome = topology.send_frame("web/web-1", &sent);
        assert_eq!(dropped(&outcome), Some(DropReason::NoRoute), "{to}");
        let Verdict::Refuse { cause, .. } = outcome.verdict else {
            panic!("a refusal")
        };
        let cause = cause.unwrap().describe(&topology.snapshot());
        let matched = matched(topology, "web/web-1", &outcome, &sent);
        let prefix = matched.rsplit_once("ip_dst=").unwrap().1.to_owned();
        (cause, prefix)
    };
    let expected = "router core, whose route 198.51.100.0/24 via 192.168.77.1 is inactive: \
                    192.168.77.1 is in no connected subnet";
    assert_eq!(
        said(&topology, "198.51.100.7"),
        (expected.into(), "198.51.100.0/24".into())
    );
    let expected = "router core, whose route 198.51.0.0/16 via 10.0.2.1 is inactive: \
                    10.0.2.1 is the router's own address";
    assert_eq!(
        said(&topology, "198.51.7.7"),
        (expected.into(), "198.51.0.0/18".into())
    );
    // No inactive route either: five bits tell it from 198.51.0.0/16.
    assert_eq!(
        said(&topology, "200.0.0.1"),
        ("router core".into(), "200.0.0.0/5".into())
    );
    let mut steps: Vec<Step> = Vec::new();
    let frame = topology.frame("web/web-1", "udp 10.0.1.11:1 > 198.51.100.7:2");
    let packet = Packet::parse(Entry::Workload(topology.id("web/web-1")), 1, &frame, None).unwrap();
    simulate(
        &topology.snapshot(),
        &topology.state,
        &packet,
        0,
        &mut steps,
    );
    let step = "no active route to 198.51.100.7; 198.51.100.0/24 via 192.168.77.1 is inactive: \
                192.168.77.1 is in no connected subnet";
    assert!(
        steps
            .iter()
            .any(|it| it.device == "router core" && it.text == step),
        "{steps:?}"
    );
    // An active route that is less specific is used.
    topology.route("core", "0.0.0.0/0", Blackhole, 100);
    let outcome = topology.send_frame("web/web-1", &frame);
    assert_eq!(dropped(&outcome), Some(DropReason::BlackholeRoute));
}

#[test]
fn packets_wait_for_a_next_hop_behind_a_bridge() {
    let mut topology = Topology::two_subnets();
    let ping = topology.frame("web/web-1", "icmp 10.0.1.11 > 10.0.2.99");
    let waiting = topology.send_frame("web/web-1", &ping);
    let router_port = topology.id("core/db");
    let address = ip("10.0.2.99");
    assert_eq!(
        waiting.verdict,
        Verdict::Wait {
            router_port,
            address
        }
    );
    assert!(!waiting.install);
    assert_eq!(waiting.emit[0].origin, Origin::Device(router_port));
    let asked = topology.simulate(Entry::Device(router_port), &waiting.emit[0].frame);
    assert_eq!(
        asked.verdict,
        Verdict::Flood {
            domain: topology.domain("db")
        }
    );
    let own = ip("10.0.2.1");
    let expected = Arp::request(topology.mac("core/db").0, own, ip("10.0.2.99"));
    assert_eq!(Arp::parse(&waiting.emit[0].frame[14..]).unwrap(), expected);
    answer(&mut topology, &waiting, Mac([2, 0, 0, 0, 7, 7]));
    let sent = topology.send_frame("web/web-1", &ping);
    assert_eq!(
        sent.macs,
        Some((topology.mac("core/db"), Mac([2, 0, 0, 0, 7, 7])))
    );
    assert_eq!(
        sent.verdict,
        Verdict::Flood {
            domain: topology.domain("db")
        }
    );
}

#[test]
fn packets_wait_for_a_next_hop_on_an_uplink() {
    let mut topology = with_uplink();
    let ping = topology.frame("web/web-1", "icmp 10.0.1.11 > 203.0.113.9");
    let waiting = topology.send_frame("web/web-1", &ping);
    let up = topology.id("core/up");
    let address = ip("192.0.2.1");
    assert_eq!(
        waiting.verdict,
        Verdict::Wait {
            router_port: up,
            address
        }
    );
    assert_eq!(waiting.emit[0].origin, Origin::ToPort(up));
    answer(&mut topology, &waiting, Mac([2, 0, 0, 0, 7, 7]));
    let sent = topology.send_frame("web/web-1", &ping);
    assert_eq!(sent.verdict, Verdict::Deliver(up));
    assert_eq!(
        sent.macs,
        Some((topology.mac("core/up"), Mac([2, 0, 0, 0, 7, 7])))
    );
    // 203 isn't one of 192.0.2.0/30, 224/4, 240/4, 127/8, 10.0.0.0/22, which takes 5 bits.
    assert!(matched(&topology, "web/web-1", &sent, &ping).ends_with("ip_dst=200.0.0.0/5"));
    let back = topology.send("core/up", "icmp 203.0.113.9 > 10.0.1.11 reply");
    assert_eq!(back.verdict, Verdict::Deliver(topology.id("web/web-1")));
}

#[test]
fn nobody_answers_on_an_unbound_uplink() {
    let mut topology = with_uplink();
    topology.change("core/up", |port| port.binding = None);
    let outcome = topology.send("web/web-1", "icmp 10.0.1.11 > 203.0.113.9");
    assert_eq!(dropped(&outcome), Some(DropReason::PortUnbound));
    // The sender is told, and nobody is asked.
    assert_eq!((outcome.install, outcome.emit.len()), (true, 1));
    assert!(matches!(outcome.emit[0].origin, Origin::Router(_)));
}

#[test]
fn an_uplink_answers_for_the_router_and_hears_announcements() {
    let mut topology = with_uplink();
    let up = topology.id("core/up");
    let asked = topology.send("core/up", "arp 192.0.2.1 who-has 192.0.2.2");
    assert_eq!(
        (asked.verdict.clone(), asked.install),
        (Verdict::Answered, false)
    );
    assert_eq!(asked.emit[0].origin, Origin::ToPort(up));
    let reply = Arp::parse(&asked.emit[0].frame[14..]).unwrap();
    assert_eq!(
        (Mac(reply.sender_mac), reply.sender),
        (topology.mac("core/up"), [192, 0, 2, 2].into())
    );
    topology.learn(&asked);
    let (address, new) = (ip("192.0.2.1"), Mac([2, 0, 0, 0, 7, 8]));
    let announcement = Arp::request(new.0, ip("192.0.2.1"), ip("192.0.2.1")).frame([0xff; 6]);
    let heard = topology.send_frame("core/up", &announcement);
    assert_eq!(
        heard.writes,
        [StateEntry::Neighbour {
            router_port: up,
            address,
            mac: new
        }]
    );
    let foreign = topology.send("core/up", "arp 192.0.2.1 who-has 192.0.2.77");
    assert_eq!(dropped(&foreign), Some(DropReason::RouterLocal));
}

#[test]
fn the_router_answers_pings_to_any_of_its_addresses() {
    let topology = Topology::two_subnets();
    for address in ["10.0.1.1", "10.0.2.1"] {
        let ping = format!("icmp 10.0.1.11 > {address}");
        let outcome = topology.send("web/web-1", &ping);
        assert_eq!(
            (outcome.verdict.clone(), outcome.install),
            (Verdict::Answered, false)
        );
        let emission = &outcome.emit[0];
        assert_eq!(emission.origin, Origin::Device(topology.id("core/web")));
        let reply = topology.simulate(Entry::Device(topology.id("core/web")), &emission.frame);
        assert_eq!(
            reply.verdict,
            Verdict::Deliver(topology.id("web/web-1")),
            "{address}"
        );
        assert_eq!(emission.frame[..6], topology.mac("web/web-1").0);
        assert_eq!(
            emission.frame[26..30],
            address.parse::<Ipv4Addr>().unwrap().octets()
        );
    }
}

#[test]
fn the_answer_goes_where_the_route_back_leads() {
    let topology = with_gateway();
    // Comes in from `web`, but its sender is behind the gateway in `db`.
    let outcome = topology.send("web/web-1", "icmp 198.51.100.9 > 10.0.1.1 echo");
    assert_eq!(outcome.verdict, Verdict::Answered);
    assert_eq!(
        outcome.emit[0].origin,
        Origin::Device(topology.id("core/db"))
    );
    assert_eq!(outcome.emit[0].frame[..6], topology.mac("db/gateway").0);
}

#[test]
fn nothing_else_is_served() {
    let topology = Topology::two_subnets();
    for text in [
        "tcp 10.0.1.11:1 > 10.0.1.1:22",
        "udp 10.0.1.11:1 > 10.0.1.1:53",
        "icmp 10.0.1.11 > 10.0.2.1 reply",
    ] {
        let outcome = topology.send("web/web-1", text);
        assert_eq!(dropped(&outcome), Some(DropReason::RouterLocal), "{text}");
        assert!(outcome.install);
    }
    let unroutable = topology.send("web/web-1", "icmp 203.0.113.1 > 10.0.1.1");
    assert_eq!(
        (dropped(&unroutable), unroutable.install),
        (Some(DropReason::RouterLocal), false)
    );
}

#[test]
fn the_sender_hears_that_the_ttl_ended() {
    let topology = Topology::two_subnets();
    for ttl in [0, 1] {
        let outcome = topology.send(
            "web/web-1",
            &format!("udp 10.0.1.11:1 > 10.0.2.11:2 ttl {ttl}"),
        );
        assert_eq!(
            (dropped(&outcome), outcome.install),
            (Some(DropReason::TtlExpired), false)
        );
        let error = &outcome.emit[0].frame;
        assert_eq!(
            error[26..30],
            [10, 0, 1, 1],
            "from the port by which it came"
        );
        assert_eq!(error[30..34], [10, 0, 1, 11]);
        assert_eq!(error[34..36], [11, 0]);
    }
    let enough = topology.send("web/web-1", "udp 10.0.1.11:1 > 10.0.2.11:2 ttl 2");
    assert_eq!(enough.verdict, Verdict::Deliver(topology.id("db/db-1")));
}

#[test]
fn frames_for_others_and_other_protocols_are_refused() {
    let topology = with_uplink();
    let ping = topology.frame("core/up", "icmp 192.0.2.1 > 10.0.1.11");
    let for_another = [&[2, 0, 0, 0, 9, 9][..], &ping[6..]].concat();
    let outcome = topology.send_frame("core/up", &for_another);
    assert_eq!(dropped(&outcome), Some(DropReason::NotForRouter));
    let tagged = [&ping[..12], &[0x81, 0, 0, 5], &ping[12..]].concat();
    let outcome = topology.send_frame("core/up", &tagged);
    assert_eq!(dropped(&outcome), Some(DropReason::NotCarried));
    let mut other = vec![0; 60];
    other[..12].copy_from_slice(&ping[..12]);
    other[12..14].copy_from_slice(&[0x88, 0xb5]);
    let outcome = topology.send_frame("core/up", &other);
    assert_eq!(dropped(&outcome), Some(DropReason::NotCarried));
}

#[test]
fn routers_reach_each_other_by_peering_and_by_bridge() {
    for bridged in [false, true] {
        let mut topology = Topology::two_subnets();
        topology.router("far");
        topology.port("far/near", &["10.9.0.2/24"]);
        topology.port("core/far", &["10.9.0.1/24"]);
        if bridged {
            topology.bridge("between");
            for (here, there) in [("between/a", "far/near"), ("between/b", "core/far")] {
                topology.port(here, &[]);
                topology.peer(here, there);
            }
        } else {
            topology.peer("far/near", "core/far");
        }
        topology.port("far/out", &["10.3.0.1/24"]);
        topology.bind("far/out", "h2");
        topology.route("core", "10.3.0.0/24", Via(ip("10.9.0.2")), 100);
        topology.route("far", "10.0.0.0/16", Via(ip("10.9.0.1")), 100);
        topology.learn(&topology.send("far/out", "arp 10.3.0.7 who-has 10.3.0.1"));
        let sent = topology.send("web/web-1", "icmp 10.0.1.11 > 10.3.0.7");
        assert_eq!(
            sent.verdict,
            Verdict::Deliver(topology.id("far/out")),
            "{bridged}"
        );
        assert_eq!(sent.ttl_decrement, 2);
        let expired = topology.send("web/web-1", "icmp 10.0.1.11 > 10.3.0.7 ttl 2");
        assert_eq!(expired.emit[0].frame[26..30], [10, 9, 0, 2]);
        let back = topology.send("far/out", "icmp 10.3.0.7 > 10.0.1.11 reply");
        assert_eq!(back.verdict, Verdict::Deliver(topology.id("web/web-1")));
        let nobody = topology.send("web/web-1", "icmp 10.0.1.11 > 10.9.0.77");
        if bridged {
            assert!(matches!(nobody.verdict, Verdict::Wait { .. }));
        } else {
            assert_eq!(dropped(&nobody), Some(DropReason::NextHopUnresolved));
        }
    }
}

#[test]
fn a_loop_of_routers_ends() {
    let mut topology = Topology::two_subnets();
    topology.router("other");
    topology.port("other/core", &["10.9.0.2/24"]);
    topology.port("core/other", &["10.9.0.1/24"]);
    topology.peer("other/core", "core/other");
    topology.route("core", "10.3.0.0/24", Via(ip("10.9.0.2")), 100);
    topology.route("other", "10.3.0.0/24", Via(ip("10.9.0.1")), 100);
    let outcome = topology.send("web/web-1", "udp 10.0.1.11:1 > 10.3.0.7:2");
    assert_eq!(dropped(&outcome), Some(DropReason::TooManyDevices));
    let outcome = topology.send("web/web-1", "udp 10.0.1.11:1 > 10.3.0.7:2 ttl 9");
    assert_eq!(
        (dropped(&outcome), outcome.install),
        (Some(DropReason::TtlExpired), false)
    );
}

#[test]
fn a_spoofed_reply_does_not_move_a_declared_address() {
    let topology = Topology::two_subnets();
    let reply = Arp {
        operation: weft_wire::Operation::Reply,
        sender_mac: [2, 0, 0, 0, 6, 6],
        sender: [10, 0, 2, 11].into(),
        target_mac: topology.mac("core/db").0,
        target: [10, 0, 2, 1].into(),
    };
    let heard = topology.send_frame("db/db-2", &reply.frame(topology.mac("core/db").0));
    assert_eq!(
        (heard.verdict, heard.writes),
        (Verdict::Answered, Vec::new())
    );
}

#[test]
fn a_fragment_of_a_ping_is_not_answered() {
    let topology = Topology::two_subnets();
    let whole = topology.frame("web/web-1", "icmp 10.0.1.11 > 10.0.1.1");
    for (index, byte) in [(20, 0x20), (21, 9)] {
        let mut fragment = whole.clone();
        fragment[index] = byte;
        mend_checksum(&mut fragment);
        let outcome = topology.send_frame("web/web-1", &fragment);
        assert_eq!(dropped(&outcome), Some(DropReason::RouterLocal));
        assert!(outcome.install, "it is true of every fragment");
    }
}

#[test]
fn an_announcement_teaches_a_router_nothing_new() {
    let topology = with_uplink();
    let heard = topology.send("core/up", "arp 192.0.2.1 who-has 192.0.2.1");
    assert_eq!(heard.verdict, Verdict::Answered);
    assert_eq!(heard.writes, []);
}
