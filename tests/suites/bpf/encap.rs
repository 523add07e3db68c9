//! What stands in front of a frame that leaves for another host: families, ECN, DSCP, MSS; and ECN on its way in.

use crate::bench::{
    Bench, GENERATION, OWN_V6, PORT, REDIRECT, REMOTE_V6, Run, SHOT, exact, peer, peer_v6,
    with_bench,
};
use crate::frames;
use std::net::Ipv6Addr;
use weft_common::ecn::{CE, ECT_0, ECT_1, NOT_ECT};
use weft_common::peer::PeerRecord;
use weft_common::slot::Output;
use weft_common::{DropReason, Slot, TunnelKey};
use weft_datapath::Datapath;

const KEY: u32 = 0x0000_abcd;
/// Underlay records of the bench, with the bytes that their outer headers take.
const RECORDS: [(u16, usize); 2] = [(1, 42), (2, 62)];
const CODEPOINTS: [u8; 4] = [NOT_ECT, ECT_0, ECT_1, CE];

/// Sends the frame out of the port through a tunnel to the host of record `peer`.
fn sent(bench: &mut Bench, peer: u16, frame: &[u8]) -> Run {
    let slot = Slot {
        output: Output::Tunnel as u8,
        peer,
        tunnel_key: KEY,
        ..Slot::default()
    };
    let flow = bench.install(frame, &exact(), slot);
    let run = bench.run("from_port", frame);
    bench
        .table
        .remove(&mut bench.kernel, flow, 0)
        .expect("the flow");
    run
}

fn with_tos(mut frame: Vec<u8>, tos: u8) -> Vec<u8> {
    if frame[12] == 0x08 {
        frame[15] = tos;
        frame[24..26].fill(0);
        let sum = !checksum(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    } else {
        frame[14] = 0x60 | tos >> 4;
        frame[15] = tos << 4 | frame[15] & 0x0f;
    }
    frame
}

fn tos_of(frame: &[u8]) -> u8 {
    if frame[12] == 0x08 {
        frame[15]
    } else {
        frame[14] << 4 | frame[15] >> 4
    }
}

/// One's complement sum of the words (RFC 1071): 0xffff over what holds a right checksum.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2);
    let sum: u32 = words
        .map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)))
        .sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

#[test]
fn an_ipv6_outer_header_is_complete() {
    with_bench(|bench| {
        for frame in [
            frames::ping(),
            frames::ping_v6(),
            frames::arp(),
            frames::other(),
        ] {
            let run = sent(bench, 2, &frame);
            assert_eq!(run.verdict, REDIRECT);
            let (outer, inner) = run.frame.split_at(62);
            assert_eq!(inner, frame);
            assert_eq!(outer[..14], frames::hex("0a0000000002 0a0000000001 86dd"));
            assert_eq!(outer[14], 0x60);
            let length = u16::from_be_bytes([outer[18], outer[19]]);
            assert_eq!(usize::from(length), 8 + frame.len());
            assert_eq!(outer[20..22], [47, 64]);
            assert_eq!(outer[22..38], Ipv6Addr::from(OWN_V6).octets());
            assert_eq!(outer[38..54], Ipv6Addr::from(REMOTE_V6).octets());
            assert_eq!(outer[54..58], frames::hex("2000 6558"));
            assert_eq!(outer[58..62], KEY.to_be_bytes());
        }
    });
}

#[test]
fn a_flow_keeps_its_label() {
    with_bench(|bench| {
        let label = |bench: &mut Bench, frame: &[u8]| {
            let run = sent(bench, 2, frame);
            u32::from_be_bytes([0, run.frame[15] & 0x0f, run.frame[16], run.frame[17]])
        };
        let (tcp, udp) = (label(bench, &frames::tcp()), label(bench, &frames::udp()));
        assert_eq!(tcp, label(bench, &frames::tcp()));
        assert_ne!(tcp, udp);
        assert_ne!(tcp, 0);
    });
}

#[test]
fn ecn_is_copied_outwards_and_dscp_is_not() {
    with_bench(|bench| {
        for (record, outer) in RECORDS {
            for inner in [frames::udp(), frames::ping_v6()] {
                for ecn in CODEPOINTS {
                    let frame = with_tos(inner.clone(), 0xb8 | ecn);
                    let run = sent(bench, record, &frame);
                    assert_eq!(tos_of(&run.frame), ecn);
                    assert_eq!(run.frame[outer..], frame);
                    if outer == 42 {
                        assert_eq!(checksum(&run.frame[14..34]), 0xffff);
                    }
                }
            }
        }
    });
}

#[test]
fn dscp_is_copied_on_request() {
    with_bench(|bench| {
        for (record, held) in [(1, peer()), (2, peer_v6())] {
            let copying = PeerRecord {
                tos_mask: 0xff,
                ..held
            };
            bench.kernel.write_peer(record, &copying).expect("a record");
            for inner in [frames::udp(), frames::ping_v6()] {
                let run = sent(bench, record, &with_tos(inner, 0xb9));
                assert_eq!(tos_of(&run.frame), 0xb9);
                if record == 1 {
                    assert_eq!(checksum(&run.frame[14..34]), 0xffff);
                }
            }
        }
    });
}

/// RFC 6040, figure 4, for both families inside and outside.
#[test]
fn all_combinations_of_ecn_are_merged_on_the_way_in() {
    let key = TunnelKey {
        index: PORT,
        generation: GENERATION,
    };
    let figure_4 = [
        [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None],
        [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)],
        [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)],
        [Some(CE); 4],
    ];
    with_bench(move |bench| {
        let mut dropped = 0;
        for inner in [frames::udp(), frames::ping_v6()] {
            for envelope in [frames::gre, frames::gre_v6] {
                for (row, sent) in CODEPOINTS.into_iter().enumerate() {
                    for (column, marked) in CODEPOINTS.into_iter().enumerate() {
                        let frame = with_tos(inner.clone(), 0xb8 | sent);
                        let outer = with_tos(envelope(key.bits(), &frame), marked);
                        let run = bench.run("from_underlay", &outer);
                        let Some(expected) = figure_4[row][column] else {
                            assert_eq!(run.verdict, SHOT);
                            dropped += 1;
                            assert_eq!(bench.drops(PORT, DropReason::EcnNotCapable), dropped);
                            continue;
                        };
                        assert_eq!(run.verdict, REDIRECT);
                        assert_eq!(run.frame, with_tos(frame, 0xb8 | expected));
                    }
                }
            }
        }
        assert_eq!(dropped, 4);
    });
}

#[test]
fn congestion_is_noted_behind_a_tag_and_ignored_without_ip() {
    let key = TunnelKey {
        index: PORT,
        generation: GENERATION,
    };
    with_bench(move |bench| {
        let mut tagged = with_tos(frames::ping(), ECT_0);
        tagged.splice(12..12, [0x81, 0x00, 0x20, 0x05]);
        let run = bench.run(
            "from_underlay",
            &with_tos(frames::gre(key.bits(), &tagged), CE),
        );
        assert_eq!(run.verdict, REDIRECT);
        assert_eq!(run.frame[19], CE);
        assert_eq!(checksum(&run.frame[18..38]), 0xffff);
        let run = bench.run(
            "from_underlay",
            &with_tos(frames::gre(key.bits(), &frames::arp()), CE),
        );
        assert_eq!((run.verdict, run.frame), (REDIRECT, frames::arp()));
    });
}

/// A SYN 40000 > 80 with these options (padded to words) and a right checksum; over IPv4 or IPv6.
fn syn(over_ipv6: bool, options: &[u8]) -> Vec<u8> {
    let mut tcp = frames::hex("9c40 0050 00000001 00000000 5002 ffff 0000 0000");
    tcp.extend_from_slice(options);
    tcp[12] = ((tcp.len() / 4) << 4) as u8;
    let length = tcp.len() as u16;
    let (head, addresses) = if over_ipv6 {
        let mut head = frames::ping_v6()[..54].to_vec();
        head[18..20].copy_from_slice(&length.to_be_bytes());
        head[20] = 6;
        (head.clone(), head[22..54].to_vec())
    } else {
        let mut head = frames::tcp()[..34].to_vec();
        head[16..18].copy_from_slice(&(20 + length).to_be_bytes());
        (with_tos(head.clone(), 0), head[26..34].to_vec())
    };
    let pseudo = [&addresses[..], &[0, 6], &length.to_be_bytes(), &tcp].concat();
    let sum = !checksum(&pseudo);
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    [head, tcp].concat()
}

#[test]
fn a_syn_offers_no_more_than_the_tunnel_carries() {
    /// Options, and where the MSS is in them.
    const OPTIONS: [(&str, usize); 4] = [
        ("0204 05b4", 2),
        ("0101 0402 0204 05b4", 6),
        // At an odd place each byte counts in the other half of a word.
        ("01 0204 05b4 01 0402", 3),
        (
            "080a 00000001 00000002 01 0204 05b4 010101 0303 07 0000",
            13,
        ),
    ];
    with_bench(|bench| {
        for (record, held) in [(1, peer()), (2, peer_v6())] {
            let outer = if record == 1 { 42 } else { 62 };
            for over_ipv6 in [false, true] {
                let headers = if over_ipv6 { 60 } else { 40 };
                for (options, place) in OPTIONS {
                    let options = frames::hex(options);
                    let frame = syn(over_ipv6, &options);
                    for (clamp_mtu, expected) in [(0, 1460), (1400, 1400 - headers), (1600, 1460)] {
                        let record_now = PeerRecord { clamp_mtu, ..held };
                        bench
                            .kernel
                            .write_peer(record, &record_now)
                            .expect("a record");
                        let mut lowered = options.clone();
                        lowered[place..place + 2].copy_from_slice(&u16::to_be_bytes(expected));
                        let run = sent(bench, record, &frame);
                        assert_eq!(run.frame[outer..], syn(over_ipv6, &lowered));
                    }
                }
            }
        }
    });
}

#[test]
fn only_the_mss_of_a_syn_is_lowered() {
    with_bench(|bench| {
        let clamped = PeerRecord {
            clamp_mtu: 1000,
            ..peer()
        };
        bench.kernel.write_peer(1, &clamped).expect("a record");
        let mut data = syn(false, &frames::hex("0204 05b4"));
        data[47] = 0x10;
        let cases = [
            ("no SYN", data),
            ("no options", syn(false, &[])),
            (
                "an option without end",
                syn(false, &frames::hex("0300 0204")),
            ),
            (
                "an MSS behind the end",
                syn(false, &frames::hex("0000 0000 0204 05b4")),
            ),
            (
                "an MSS that is cut off",
                syn(false, &frames::hex("0101 0204")),
            ),
            ("no TCP", frames::udp()),
        ];
        for (what, frame) in cases {
            assert_eq!(sent(bench, 1, &frame).frame[42..], frame, "{what}");
        }
    });
}
