//! Who is told what, and which packets share the word.

use crate::fixture::{Topology, mend_checksum};
use crate::model::RouteAction::{Reject, Via};
use crate::{Entry, Origin, Outcome, Verdict};
use weft_common::DropReason;

/// Three routers in a row: `web` - core - mid - far - `farm`, in both families.
fn row() -> Topology {
    let mut topology = Topology::two_subnets();
    for router in ["mid", "far"] {
        topology.router(router);
    }
    topology.bridge("farm");
    topology.port("farm/end", &["10.3.0.7", "fd00:3::7"]);
    topology.bind("farm/end", "h2");
    topology.port("farm/far", &[]);
    let links = [
        ("core/mid", ["10.9.1.1/30", "fd00:91::1/64"]),
        ("mid/core", ["10.9.1.2/30", "fd00:91::2/64"]),
        ("mid/far", ["10.9.2.1/30", "fd00:92::1/64"]),
        ("far/mid", ["10.9.2.2/30", "fd00:92::2/64"]),
        ("far/farm", ["10.3.0.1/24", "fd00:3::1/64"]),
    ];
    for (path, addresses) in links {
        topology.port(path, &addresses);
    }
    topology.peer("core/mid", "mid/core");
    topology.peer("mid/far", "far/mid");
    topology.peer("far/farm", "farm/far");
    topology.change("core/web", |port| {
        port.addresses.push("fd00:1::1/64".parse().unwrap());
    });
    topology.change("web/web-1", |port| {
        port.addresses.push("fd00:1::b".parse().unwrap());
    });
    let routes = [
        ("core", "10.3.0.0/16", "10.9.1.2"),
        ("mid", "10.3.0.0/16", "10.9.2.2"),
        ("mid", "10.0.0.0/16", "10.9.1.1"),
        ("far", "10.0.0.0/16", "10.9.2.1"),
        ("core", "fd00:3::/32", "fd00:91::2"),
        ("mid", "fd00:3::/32", "fd00:92::2"),
        ("mid", "fd00:1::/32", "fd00:91::1"),
        ("far", "fd00:1::/32", "fd00:92::1"),
    ];
    for (router, to, via) in routes {
        topology.route(router, to, Via(via.parse().unwrap()), 100);
    }
    topology
}

/// Sender, type and code of the error that the outcome tells; and that it finds its way back to `web-1`.
fn told(topology: &Topology, outcome: &Outcome) -> (String, u8, u8) {
    let [emission] = &outcome.emit[..] else {
        panic!("not one answer: {outcome:?}");
    };
    let Origin::Router(router) = emission.origin else {
        panic!("not a router's: {emission:?}");
    };
    let back = topology.simulate(Entry::Router(router), &emission.frame);
    assert_eq!(back.verdict, Verdict::Deliver(topology.id("web/web-1")));
    assert_eq!(back.macs.unwrap().1, topology.mac("web/web-1"));
    assert!(!back.install);
    let frame = &emission.frame;
    if frame[12] == 8 {
        let from: [u8; 4] = frame[26..30].try_into().unwrap();
        (
            std::net::Ipv4Addr::from(from).to_string(),
            frame[34],
            frame[35],
        )
    } else {
        let from: [u8; 16] = frame[22..38].try_into().unwrap();
        (
            std::net::Ipv6Addr::from(from).to_string(),
            frame[54],
            frame[55],
        )
    }
}

fn refused(outcome: &Outcome) -> Option<DropReason> {
    match outcome.verdict {
        Verdict::Refuse { reason, .. } => Some(reason),
        _ => None,
    }
}

/// Each TTL ends at its router, and the first that is enough arrives with the flow of all others.
#[test]
fn every_ttl_ends_where_it_should() {
    let topology = row();
    let hops = [
        ("10.0.1.1", "fd00:1::1"),
        ("10.9.1.2", "fd00:91::2"),
        ("10.9.2.2", "fd00:92::2"),
    ];
    for (ttl, (v4, v6)) in (1..).zip(hops) {
        for (text, hop, kind) in [
            ("udp 10.0.1.11:1 > 10.3.0.7:2", v4, 11),
            ("udp [fd00:1::b]:1 > [fd00:3::7]:2", v6, 3),
        ] {
            let outcome = topology.send("web/web-1", &format!("{text} ttl {ttl}"));
            assert_eq!(refused(&outcome), Some(DropReason::TtlExpired));
            assert!(!outcome.install);
            assert_eq!(told(&topology, &outcome), (hop.to_owned(), kind, 0));
        }
    }
    for text in [
        "udp 10.0.1.11:1 > 10.3.0.7:2",
        "udp [fd00:1::b]:1 > [fd00:3::7]:2",
    ] {
        let [four, more] =
            [4, 64].map(|ttl| topology.send("web/web-1", &format!("{text} ttl {ttl}")));
        assert_eq!(four.verdict, Verdict::Deliver(topology.id("farm/end")));
        assert_eq!((four.ttl_decrement, &four), (3, &more));
    }
}

/// What is sent, who answers, type, code, reason.
const REFUSED: [(&str, &str, u8, u8, DropReason); 9] = [
    (
        "udp 10.0.1.11:1 > 192.0.2.9:2",
        "10.0.1.1",
        3,
        0,
        DropReason::NoRoute,
    ),
    (
        "udp 10.0.1.11:1 > 203.0.113.9:2",
        "10.9.2.2",
        3,
        13,
        DropReason::RejectRoute,
    ),
    (
        "udp 10.0.1.11:1 > 10.3.0.99:2",
        "10.9.2.2",
        3,
        1,
        DropReason::NextHopUnresolved,
    ),
    (
        "udp 10.0.1.11:1 > 10.9.1.2:2",
        "10.9.1.2",
        3,
        3,
        DropReason::RouterLocal,
    ),
    (
        "udp 10.0.1.11:1 > 10.3.0.1:2",
        "10.3.0.1",
        3,
        3,
        DropReason::RouterLocal,
    ),
    (
        "udp [fd00:1::b]:1 > [2001:db8::1]:2",
        "fd00:1::1",
        1,
        0,
        DropReason::NoRoute,
    ),
    (
        "udp [fd00:1::b]:1 > [fd00:dead::1]:2",
        "fd00:1::1",
        1,
        1,
        DropReason::RejectRoute,
    ),
    (
        "udp [fd00:1::b]:1 > [fd00:3::99]:2",
        "fd00:92::2",
        1,
        3,
        DropReason::NextHopUnresolved,
    ),
    (
        "udp [fd00:1::b]:1 > [fd00:91::2]:2",
        "fd00:91::2",
        1,
        4,
        DropReason::RouterLocal,
    ),
];

#[test]
fn what_cannot_be_forwarded_is_told_by_its_router() {
    let mut topology = row();
    topology.route("far", "203.0.113.0/24", Reject, 100);
    topology.route(
        "core",
        "203.0.113.0/24",
        Via("10.9.1.2".parse().unwrap()),
        100,
    );
    topology.route(
        "mid",
        "203.0.113.0/24",
        Via("10.9.2.2".parse().unwrap()),
        100,
    );
    topology.route("core", "fd00:dead::/32", Reject, 100);
    let nobody = ("10.3.0.99".parse().unwrap(), "fd00:3::99".parse().unwrap());
    let farm = topology.id("far/farm");
    topology.state.set_unreachable(farm, nobody.0);
    topology.state.set_unreachable(farm, nobody.1);
    for (text, from, kind, code, reason) in REFUSED {
        let outcome = topology.send("web/web-1", text);
        assert_eq!(refused(&outcome), Some(reason), "{text}");
        assert!(
            outcome.install,
            "{text}: every such packet may come up by one flow"
        );
        assert_eq!(
            told(&topology, &outcome),
            (from.to_owned(), kind, code),
            "{text}"
        );
    }
}

/// The word is no part of the flow: it looks at nothing of the sender.
#[test]
fn the_flow_that_refuses_is_as_wide_as_the_decision() {
    let topology = row();
    let sent = topology.send("web/web-1", "udp 10.0.1.11:1 > 192.0.2.9:2");
    assert_eq!(sent.mask.src_v4(), [0; 4]);
    assert_eq!((sent.mask.head.protocol, sent.mask.head.l4_dst), (0, 0));
}

#[test]
fn tcp_for_the_router_itself_is_reset() {
    let topology = row();
    let outcome = topology.send("web/web-1", "tcp 10.0.1.11:7 > 10.9.1.2:80 [syn]");
    assert_eq!(refused(&outcome), Some(DropReason::RouterLocal));
    let frame = &outcome.emit[0].frame;
    assert_eq!((frame[23], frame[47]), (6, 0x14), "RST and ACK");
    assert_eq!(frame[26..34], [10, 9, 1, 2, 10, 0, 1, 11]);
    let reset = topology.send("web/web-1", "tcp 10.0.1.11:7 > 10.9.1.2:80 [rst]");
    assert_eq!(
        (refused(&reset), reset.emit.len()),
        (Some(DropReason::RouterLocal), 0)
    );
}

/// Errors, later fragments and packets of nobody (RFC 1812, 4.3.2.7): dropped by the same flow without a word.
#[test]
fn nobody_is_told_about_errors_fragments_and_groups() {
    let topology = row();
    let mut frame = topology.frame("web/web-1", "icmp 10.0.1.11 > 192.0.2.9");
    frame[34] = 3;
    let error = topology.send_frame("web/web-1", &frame);
    assert_eq!(
        (refused(&error), error.emit.len()),
        (Some(DropReason::NoRoute), 0)
    );
    let mut frame = topology.frame("web/web-1", "udp 10.0.1.11:1 > 192.0.2.9:2");
    frame[21] = 9;
    mend_checksum(&mut frame);
    let later = topology.send_frame("web/web-1", &frame);
    assert_eq!(
        (refused(&later), later.emit.len()),
        (Some(DropReason::NoRoute), 0)
    );
    let group = topology.send("web/web-1", "udp 10.0.1.11:1 > 224.0.0.9:2");
    assert!(matches!(group.verdict, Verdict::Drop { .. }), "in silence");
    // A fragment for the router would have to be put together first.
    let mut frame = topology.frame("web/web-1", "udp 10.0.1.11:1 > 10.0.1.1:2");
    frame[20] = 0x20;
    mend_checksum(&mut frame);
    let first = topology.send_frame("web/web-1", &frame);
    assert!(matches!(first.verdict, Verdict::Drop { .. }), "in silence");
}

/// A sender behind a net that the router doesn't know hears nothing, and nobody hears of that.
#[test]
fn an_error_without_a_way_back_ends_in_silence() {
    let topology = row();
    let outcome = topology.send("web/web-1", "udp 198.51.100.1:1 > 192.0.2.9:2");
    let [emission] = &outcome.emit[..] else {
        panic!("{outcome:?}")
    };
    let Origin::Router(router) = emission.origin else {
        panic!("{emission:?}")
    };
    let back = topology.simulate(Entry::Router(router), &emission.frame);
    assert!(matches!(back.verdict, Verdict::Drop { .. }) && back.emit.is_empty());
}
