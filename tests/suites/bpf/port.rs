//! What a slot does to a packet of a port: guards, rewrite, output.

use crate::bench::{OTHER, PORT, REDIRECT, SHOT, exact, with_bench};
use crate::frames;
use weft_common::event::MissReason;
use weft_common::slot::{Output, SET_MACS};
use weft_common::{DropReason, Slot};
use weft_datapath::Datapath;

const KEY: u32 = 0x0012_3456;

fn tunnel() -> Slot {
    Slot {
        output: Output::Tunnel as u8,
        peer: 1,
        tunnel_key: KEY,
        ..Slot::default()
    }
}

/// RFC 1071 over an IPv4 header: right when the sum with its checksum is all ones.
fn is_checksum_right(header: &[u8]) -> bool {
    let mut sum: u32 = header
        .chunks(2)
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum == 0xffff
}

#[test]
fn a_routed_packet_has_new_macs_and_a_smaller_ttl() {
    let frame = frames::ping();
    assert!(is_checksum_right(&frame[14..34]), "the input itself");
    with_bench(move |bench| {
        let slot = Slot {
            output: Output::Local as u8,
            port: PORT,
            flags: SET_MACS,
            src_mac: [2, 0, 0, 0, 2, 1],
            dst_mac: [2, 0, 0, 0, 2, 11],
            ttl_decrement: 2,
            ..Slot::default()
        };
        bench.install(&frame, &exact(), slot);
        let run = bench.run("from_port", &frame);
        assert_eq!(run.verdict, REDIRECT);
        assert_eq!(run.frame[..12], [2, 0, 0, 0, 2, 11, 2, 0, 0, 0, 2, 1]);
        assert_eq!(run.frame[22], 62);
        assert!(is_checksum_right(&run.frame[14..34]));
        assert_eq!(run.frame[34..], frame[34..]);
        let counters = bench.kernel.port_counters(PORT).expect("counters");
        assert_eq!((counters.ingress_packets, counters.egress_packets), (1, 1));
    });
}

#[test]
fn a_packet_whose_ttl_would_end_goes_up() {
    with_bench(|bench| {
        bench.install(
            &frames::ping_ttl_1(),
            &exact(),
            Slot {
                ttl_decrement: 1,
                ..tunnel()
            },
        );
        assert_eq!(bench.run("from_port", &frames::ping_ttl_1()).verdict, SHOT);
        let misses = bench.misses();
        assert_eq!(misses.len(), 1);
        assert_eq!(misses[0].reason, MissReason::Ttl as u8);
    });
}

/// The guard counts L3 bytes: of a packet, or of a segment of a GSO packet.
#[test]
fn a_packet_that_is_too_large_goes_up() {
    with_bench(|bench| {
        let length = (frames::tcp().len() - 14) as u16;
        bench.install(
            &frames::tcp(),
            &exact(),
            Slot {
                mtu: length,
                ..tunnel()
            },
        );
        assert_eq!(bench.run("from_port", &frames::tcp()).verdict, REDIRECT);
        bench.install(
            &frames::udp(),
            &exact(),
            Slot {
                mtu: 31,
                ..tunnel()
            },
        );
        assert_eq!(bench.run("from_port", &frames::udp()).verdict, SHOT);
        let misses = bench.misses();
        assert_eq!(misses.len(), 1);
        assert_eq!(misses[0].reason, MissReason::Mtu as u8);
    });
}

/// A GSO packet leaves as segments: those are what must fit, not the whole.
#[test]
fn a_packet_of_segments_is_judged_by_their_size() {
    const HEADERS: u16 = 40;
    const SEGMENT: u16 = 1000;
    let mut frame = frames::tcp();
    frame.truncate(54);
    frame.resize(54 + 3 * usize::from(SEGMENT), 0);
    let whole = (frame.len() - 14) as u16;
    frame[16..18].copy_from_slice(&whole.to_be_bytes());
    // By mtu of the slot and size of the segments: whether the packet goes.
    for (mtu, segment, goes) in [
        (HEADERS + SEGMENT, SEGMENT, true),
        (HEADERS + SEGMENT, SEGMENT + 1, false),
        (HEADERS + SEGMENT - 1, SEGMENT, false),
        (whole - 1, 0, false),
        (whole, 0, true),
    ] {
        let frame = frame.clone();
        with_bench(move |bench| {
            let slot = Slot { mtu, ..tunnel() };
            bench.install(&frame, &exact(), slot);
            let run = bench.run_gso("from_port", &frame, segment.into());
            let reasons: Vec<u8> = bench.misses().iter().map(|miss| miss.reason).collect();
            let expected = match goes {
                true => (REDIRECT, vec![]),
                false => (SHOT, vec![MissReason::Mtu as u8]),
            };
            assert_eq!((run.verdict, reasons), expected, "{segment} over {mtu}");
        });
    }
}

#[test]
fn a_tunnel_packet_is_gre_with_the_egress_ports_key() {
    with_bench(|bench| {
        bench.install(&frames::ping(), &exact(), tunnel());
        let run = bench.run("from_port", &frames::ping());
        assert_eq!(run.verdict, REDIRECT);
        let outer = frames::hex("0a0000000002 0a0000000001 0800 45000046 00004000 402f");
        assert_eq!(run.frame[..24], outer);
        assert!(is_checksum_right(&run.frame[14..34]));
        assert_eq!(
            run.frame[26..42],
            frames::hex("ac1e0101 ac1e0201 2000 6558 00123456")
        );
        assert_eq!(run.frame[42..], frames::ping());
    });
}

#[test]
fn arp_and_other_frames_go_through_the_tunnel_whole() {
    with_bench(|bench| {
        for frame in [frames::arp(), frames::other(), frames::ping_v6()] {
            bench.install(&frame, &exact(), tunnel());
            let run = bench.run("from_port", &frame);
            assert_eq!(run.verdict, REDIRECT);
            assert_eq!(
                usize::from(u16::from_be_bytes([run.frame[16], run.frame[17]])),
                frame.len() + 28
            );
            assert!(is_checksum_right(&run.frame[14..34]));
            assert_eq!(run.frame[42..], frame);
        }
    });
}

#[test]
fn drops_are_counted_by_port_and_reason() {
    with_bench(|bench| {
        let reason = DropReason::BlackholeRoute;
        let drop = Slot {
            output: Output::Drop as u8,
            drop_reason: reason as u8,
            ..Slot::default()
        };
        bench.install(&frames::udp(), &exact(), drop);
        assert_eq!(bench.run("from_port", &frames::udp()).verdict, SHOT);
        let gone = Slot {
            output: Output::Local as u8,
            port: 99,
            ..Slot::default()
        };
        bench.install(&frames::tcp(), &exact(), gone);
        assert_eq!(bench.run("from_port", &frames::tcp()).verdict, SHOT);
        let unknown_peer = Slot {
            peer: 9,
            ..tunnel()
        };
        bench.install(&frames::ping(), &exact(), unknown_peer);
        assert_eq!(bench.run("from_port", &frames::ping()).verdict, SHOT);
        assert_eq!(bench.drops(PORT, reason), 1);
        assert_eq!(bench.drops(99, DropReason::OutputGone), 1);
        assert_eq!(bench.drops(PORT, DropReason::PeerUnknown), 1);
        assert_eq!(bench.drops(OTHER, reason), 0);
    });
}
