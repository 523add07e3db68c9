//! What `from_port` answers by itself: the agent's answers, byte for byte, and everything else as it was.

use crate::bench::{Bench, OTHER, PORT, REDIRECT, SHOT, with_bench};
use crate::differential::network::Network;
use crate::zone::Zone;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use weft_common::limits::NEIGHBOURS_MAX;
use weft_common::neighbour::{Asker, HEARS, Neighbour, NeighbourKey, ROUTER};
use weft_common::peer::address_bytes;
use weft_datapath::{Datapath, Error};
use weft_tests::model::forwarding::{DB_1, ROUTER_WEB, WEB_1, WEB_2, WEB_3, mac, v4, v6};
use weft_vnet::neighbours::{answered_under, asks_unheard, neighbours};
use weft_vnet::{Entry, Mac, NoTrace, Origin, Packet, Verdict, simulate};
use weft_wire::{Arp, Nd};

/// Number of nobody.
const NOBODY: u8 = 99;

/// Fills the tables for web-1's port.
fn fill(bench: &mut Bench, network: &Network) {
    let snapshot = &network.snapshot;
    let port = snapshot.port(network.ingress).expect("web-1");
    let domain = asks_unheard(snapshot, port).expect("its network");
    let id = domain.id.0.into_bytes();
    for (address, it) in neighbours(snapshot, domain) {
        let key = NeighbourKey {
            domain: id,
            address: address_bytes(address),
        };
        let is_own = it.owner == network.ingress;
        let neighbour = Neighbour {
            mac: it.mac.0,
            flags: u8::from(it.is_router) * ROUTER + u8::from(it.hears) * HEARS,
            spare: 0,
            owner: u32::from(if is_own { PORT } else { 0 }),
        };
        let written = bench.kernel.write_neighbour(&key, Some(&neighbour));
        written.expect("an entry");
    }
    let asker = Asker {
        domain: id,
        mac: answered_under(domain, port).expect("its MAC").0,
        spare: [0; 2],
    };
    bench.kernel.write_asker(PORT, &asker).expect("a port");
}

/// What the agent answers to the workload; none where something else becomes of the packet.
fn answer(network: &Network, frame: &[u8]) -> Option<Vec<u8>> {
    let entry = Entry::Workload(network.ingress);
    let packet = Packet::parse(entry, PORT, frame, None).ok()?;
    let outcome = simulate(&network.snapshot, &network.state, &packet, 0, &mut NoTrace);
    let is_answer = outcome.verdict == Verdict::Answered;
    let [emission] = &outcome.emit[..] else {
        return None;
    };
    let is_here = match emission.origin {
        Origin::ToPort(port) => port == network.ingress,
        Origin::Device(_) => emission.frame[..6] == mac(WEB_1),
        _ => false,
    };
    (is_answer && is_here).then(|| emission.frame.clone())
}

fn request(sender: u8, target: u8) -> Vec<u8> {
    Arp::request(mac(WEB_1), v4(sender).into(), v4(target).into()).frame(Mac::BROADCAST.0)
}

fn solicitation(sender: Ipv6Addr, target: u8) -> Vec<u8> {
    let nd = Nd::solicitation(sender, mac(WEB_1), v6(target).into());
    nd.frame(Mac::of_group(nd.destination).0, mac(WEB_1))
}

/// To the MAC and the address that it asks for.
fn direct(sender: Ipv6Addr, target: u8) -> Vec<u8> {
    let mut nd = Nd::solicitation(sender, mac(WEB_1), v6(target).into());
    nd.destination = v6(target).into();
    nd.frame(mac(target), mac(WEB_1))
}

fn tagged(mut frame: Vec<u8>) -> Vec<u8> {
    frame.splice(12..12, [0x81, 0x00, 0x20, 0x05]);
    frame
}

/// The question goes where it went without the stage: up, as it is.
fn goes_up(bench: &mut Bench, frame: &[u8], what: &str) {
    let run = bench.run("from_port", frame);
    assert_eq!(run.verdict, SHOT, "{what}");
    let misses = bench.misses();
    assert_eq!(misses.len(), 1, "{what}");
    assert_eq!(misses[0].packet.frame, frame, "{what}");
}

#[test]
fn the_kernels_answers_are_the_agents() {
    with_bench(|bench| {
        let network = Network::new(bench);
        fill(bench, &network);
        let on_link = Mac(mac(WEB_1)).link_local();
        let own: Ipv6Addr = v6(WEB_1).into();
        let mut frames = Vec::new();
        for target in [WEB_2, WEB_3, ROUTER_WEB] {
            frames.push(request(WEB_1, target));
            frames.push(request(NOBODY, target));
            // A wire pads a frame to 60 bytes.
            let padded = [&request(WEB_1, target)[..], &[0x55; 18]].concat();
            frames.push(padded);
            let mut probe = request(WEB_1, target);
            probe[28..32].fill(0);
            frames.push(probe);
            let mut at_its_mac = request(WEB_1, target);
            at_its_mac[..6].copy_from_slice(&mac(target));
            frames.push(at_its_mac);
            for sender in [own, on_link, v6(NOBODY).into()] {
                frames.push(solicitation(sender, target));
            }
        }
        let router = Mac(mac(ROUTER_WEB)).link_local();
        let nd = Nd::solicitation(own, mac(WEB_1), router);
        frames.push(nd.frame(Mac::of_group(nd.destination).0, mac(WEB_1)));
        frames.push(direct(own, ROUTER_WEB));
        frames.push(direct(on_link, ROUTER_WEB));
        let count = frames.len() as u64;
        for frame in &frames {
            let expected = answer(&network, frame).expect("the agent answers, too");
            let run = bench.run("from_port", frame);
            assert_eq!(run.verdict, REDIRECT, "{frame:02x?}");
            assert_eq!(run.frame, expected, "{frame:02x?}");
        }
        assert!(bench.misses().is_empty());
        let counters = bench.kernel.port_counters(PORT).expect("counters");
        let packets = (counters.ingress_packets, counters.egress_packets);
        assert_eq!(packets, (count, count));
        assert!(counters.egress_bytes > 0);
    });
}

/// Kernel and simulation agree on the checksum of whatever is asked, too: each target has another sum.
#[test]
fn checksums_are_right_whatever_is_asked() {
    with_bench(|bench| {
        let network = Network::new(bench);
        fill(bench, &network);
        let asker = bench.kernel.asker(PORT).expect("a port");
        let mut number = 1_u64;
        for _ in 0..500 {
            let mut bytes = [0; 16];
            for half in bytes.chunks_mut(8) {
                number = number
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                half.copy_from_slice(&number.to_be_bytes());
            }
            bytes[0] = 0x20;
            let (target, sender) = (
                Ipv6Addr::from(bytes),
                Ipv6Addr::from(number as u128 | 0x24 << 120),
            );
            let key = NeighbourKey {
                domain: asker.domain,
                address: address_bytes(IpAddr::V6(target)),
            };
            let [.., a, b, c, d] = bytes;
            let neighbour = Neighbour {
                mac: [2, 0, a, b, c, d],
                ..Neighbour::default()
            };
            let written = bench.kernel.write_neighbour(&key, Some(&neighbour));
            written.expect("an entry");
            let nd = Nd::solicitation(sender, mac(WEB_1), target);
            let frame = nd.frame(Mac::of_group(nd.destination).0, mac(WEB_1));
            let expected = Nd::advertisement(target, neighbour.mac, false, sender);
            let run = bench.run("from_port", &frame);
            assert_eq!(run.verdict, REDIRECT);
            assert_eq!(run.frame, expected.frame(mac(WEB_1), neighbour.mac));
        }
    });
}

#[test]
fn what_is_odd_goes_up_as_it_is() {
    with_bench(|bench| {
        let network = Network::new(bench);
        fill(bench, &network);
        let own: Ipv6Addr = v6(WEB_1).into();
        let asked = solicitation(own, WEB_2);
        let changed = |at: usize, byte: u8| {
            let mut frame = asked.clone();
            frame[at] = byte;
            frame
        };
        let mut announcement = request(WEB_2, WEB_2);
        announcement[6..12].copy_from_slice(&mac(WEB_1));
        let mut reply = request(WEB_1, WEB_2);
        reply[21] = 2;
        let mut nameless = Nd::solicitation(own, mac(WEB_1), v6(WEB_2).into());
        if let weft_wire::ndp::Message::NeighbourSolicitation { source_mac, .. } =
            &mut nameless.message
        {
            *source_mac = None;
        }
        let mut probe = nameless.clone();
        probe.source = Ipv6Addr::UNSPECIFIED;
        let group = Mac::of_group(nameless.destination).0;
        let mut elsewhere = direct(own, ROUTER_WEB);
        elsewhere[6..12].copy_from_slice(&mac(NOBODY));
        let cases = [
            ("an address of nobody", request(WEB_1, NOBODY)),
            ("one of another network", request(WEB_1, DB_1)),
            ("the owner's own question", request(NOBODY, WEB_1)),
            ("an announcement", announcement),
            ("a reply", reply),
            ("a tagged request", tagged(request(WEB_1, WEB_2))),
            ("an address of nobody, over IPv6", solicitation(own, NOBODY)),
            (
                "the owner's own solicitation",
                solicitation(v6(NOBODY).into(), WEB_1),
            ),
            ("a tagged solicitation", tagged(asked.clone())),
            ("a wrong checksum", changed(56, asked[56] ^ 1)),
            ("another target than was summed", changed(77, asked[77] ^ 1)),
            ("from another link", changed(21, 254)),
            ("with a code", changed(55, 1)),
            ("another option", changed(78, 14)),
            ("a long option", changed(79, 2)),
            ("bytes behind it", [&asked[..], &[0; 4]].concat()),
            ("without a MAC", nameless.frame(group, mac(WEB_1))),
            ("a probe", probe.frame(group, mac(WEB_1))),
            ("to a workload's MAC", direct(own, WEB_2)),
            (
                "to a router that learns from it",
                direct(v6(NOBODY).into(), ROUTER_WEB),
            ),
            ("of which the answer goes elsewhere", elsewhere),
        ];
        for (what, frame) in &cases {
            goes_up(bench, frame, what);
        }
        // What a port doesn't ask by isn't answered to it.
        bench
            .kernel
            .write_asker(PORT, &Asker::default())
            .expect("a port");
        goes_up(bench, &request(WEB_1, WEB_2), "no network");
        goes_up(bench, &asked, "no network, over IPv6");
    });
}

/// The network's services come before the port's chains, which need not let them pass.
#[test]
fn chains_are_not_asked() {
    with_bench(|bench| {
        let network = Network::new(bench);
        fill(bench, &network);
        // An ACL that isn't there: every packet that gets to it goes up.
        Zone { bench: &mut *bench }.set_policy(PORT, 7, 7, 1);
        let run = bench.run("from_port", &request(WEB_1, WEB_2));
        assert_eq!(run.verdict, REDIRECT);
        let run = bench.run("from_port", &solicitation(v6(WEB_1).into(), WEB_2));
        assert_eq!(run.verdict, REDIRECT);
    });
}

/// Entries change and go at once; those of another port's network are its own.
#[test]
fn entries_are_their_networks_and_change_at_once() {
    with_bench(|bench| {
        let key = |domain: u8| NeighbourKey {
            domain: [domain; 16],
            address: address_bytes(IpAddr::V4(Ipv4Addr::from(v4(WEB_2)))),
        };
        let has = |last: u8| Neighbour {
            mac: [2, 0, 0, 0, 0, last],
            ..Neighbour::default()
        };
        for domain in [1, 2] {
            let written = bench
                .kernel
                .write_neighbour(&key(domain), Some(&has(domain)));
            written.expect("an entry");
            let asker = Asker {
                domain: [domain; 16],
                ..Asker::default()
            };
            let port = if domain == 1 { PORT } else { OTHER };
            bench.kernel.write_asker(port, &asker).expect("a port");
        }
        let source = |bench: &mut Bench| bench.run("from_port", &request(WEB_1, WEB_2)).frame[11];
        assert_eq!(source(bench), 1);
        bench
            .kernel
            .write_neighbour(&key(1), Some(&has(9)))
            .expect("an entry");
        assert_eq!(source(bench), 9);
        let mut all = bench.kernel.neighbours().expect("entries");
        all.sort_by_key(|(key, _)| *key);
        assert_eq!(all, [(key(1), has(9)), (key(2), has(2))]);
        for _ in 0..2 {
            bench
                .kernel
                .write_neighbour(&key(1), None)
                .expect("no entry");
        }
        goes_up(bench, &request(WEB_1, WEB_2), "no entry");
    });
}

#[test]
fn a_full_table_says_so_and_still_changes() {
    with_bench(|bench| {
        let key = |number: u32| {
            let mut address = [0; 16];
            address[12..].copy_from_slice(&number.to_be_bytes());
            NeighbourKey {
                domain: [1; 16],
                address,
            }
        };
        let neighbour = Neighbour::default();
        for number in 0..NEIGHBOURS_MAX {
            let written = bench.kernel.write_neighbour(&key(number), Some(&neighbour));
            written.expect("an entry");
        }
        let refused = bench
            .kernel
            .write_neighbour(&key(NEIGHBOURS_MAX), Some(&neighbour));
        assert!(matches!(refused, Err(Error::Full { .. })), "{refused:?}");
        let other = Neighbour {
            owner: 1,
            ..neighbour
        };
        bench
            .kernel
            .write_neighbour(&key(0), Some(&other))
            .expect("an entry");
        bench
            .kernel
            .write_neighbour(&key(1), None)
            .expect("no entry");
        let written = bench
            .kernel
            .write_neighbour(&key(NEIGHBOURS_MAX), Some(&neighbour));
        written.expect("an entry");
    });
}
