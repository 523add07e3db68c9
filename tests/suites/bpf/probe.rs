//! Tunnel probes: answered by the kernel program, whoever listens.

use crate::bench::{PASS, REDIRECT, REMOTE, SHOT, with_bench};
use crate::frames;
use weft_common::DropReason;
use weft_common::event::MissReason;
use weft_common::probe::{
    ETHERTYPE_PROBE, PROBE_FORMAT, PROBE_MAGIC, PROBE_REPLY, PROBE_REQUEST, PROBE_SEEN,
    PROBE_WATCH, ProbePayload,
};
use weft_common::tunnel::ENCAP_LEN_V4;
use zerocopy::{FromBytes, IntoBytes};

/// Where the payload begins: behind outer headers and the inner Ethernet header.
const PAYLOAD: usize = ENCAP_LEN_V4 + 14;

/// A probe under `key`, padded with zeros to `inner` bytes of inner frame.
fn probe(key: u32, inner: usize) -> Vec<u8> {
    let payload = ProbePayload {
        magic: PROBE_MAGIC,
        format: PROBE_FORMAT,
        sequence: 77u64.to_be_bytes(),
        ..ProbePayload::default()
    };
    let mut frame = vec![2; 12];
    frame.extend_from_slice(&ETHERTYPE_PROBE.to_be_bytes());
    frame.extend_from_slice(payload.as_bytes());
    frame.resize(inner.max(frame.len()), 0);
    frames::gre(key, &frame)
}

/// Sum of an IPv4 header's words: 0xffff when its checksum is right (RFC 1071).
fn header_sum(frame: &[u8]) -> u32 {
    let words = frame[14..34].chunks(2);
    let sum: u32 = words
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    (sum & 0xffff) + (sum >> 16)
}

#[test]
fn a_request_goes_back_under_the_reply_key_with_a_right_checksum() {
    with_bench(|bench| {
        for inner in [0, 1000, 1472] {
            let request = probe(u32::from(PROBE_REQUEST), inner);
            let run = bench.run("from_underlay", &request);
            assert_eq!(run.verdict, REDIRECT);
            assert_eq!(run.frame.len(), request.len());
            assert_eq!(run.frame[..6], [0x0a, 0, 0, 0, 0, 2]);
            assert_eq!(run.frame[30..34], REMOTE);
            assert_eq!(header_sum(&run.frame), 0xffff);
            let length = u16::from_be_bytes([run.frame[16], run.frame[17]]);
            assert_eq!(usize::from(length), request.len() - 14);
            assert_eq!(run.frame[38..42], u32::from(PROBE_REPLY).to_be_bytes());
            assert_eq!(run.frame[42..56], request[42..56]);
        }
    });
}

#[test]
fn all_kinds_go_up_with_the_time_of_their_arrival() {
    with_bench(|bench| {
        let kinds = [
            (PROBE_REQUEST, REDIRECT),
            (PROBE_REPLY, SHOT),
            (PROBE_WATCH, SHOT),
            (PROBE_SEEN, SHOT),
        ];
        for (kind, verdict) in kinds {
            let run = bench.run("from_underlay", &probe(u32::from(kind), 1000));
            assert_eq!(run.verdict, verdict);
            let misses = bench.misses();
            assert_eq!(misses.len(), 1);
            let miss = &misses[0];
            assert_eq!(
                (miss.port, miss.generation, miss.reason),
                (0, kind, MissReason::Probe as u8)
            );
            assert_eq!(miss.packet.frame[26..30], REMOTE);
            let (payload, _) = ProbePayload::read_from_prefix(&miss.packet.frame[PAYLOAD..])
                .expect("a whole payload");
            assert_eq!(u64::from_be_bytes(payload.sequence), 77);
            assert_ne!(u64::from_be_bytes(payload.received_ns), 0);
        }
    });
}

#[test]
fn what_is_no_probe_is_dropped_by_name_and_not_answered() {
    with_bench(|bench| {
        let request = probe(u32::from(PROBE_REQUEST), 100);
        let changed = |position: usize| {
            let mut frame = request.clone();
            frame[position] ^= 0x40;
            frame
        };
        let cases = [
            ("another kind", probe(5, 100)),
            ("no kind", probe(0, 100)),
            ("another Ethernet type", changed(PAYLOAD - 1)),
            ("another magic", changed(PAYLOAD)),
            ("another format", changed(PAYLOAD + 4)),
            (
                "cut short",
                frames::gre(u32::from(PROBE_REQUEST), &request[42..42 + 60]),
            ),
        ];
        for (number, (what, frame)) in cases.iter().enumerate() {
            let run = bench.run("from_underlay", frame);
            assert_eq!(run.verdict, SHOT, "{what}");
            let drops = bench.drops(0, DropReason::BadProbe);
            assert_eq!(drops, number as u64 + 1, "{what}");
        }
        assert_eq!(bench.misses(), []);
        let mut stranger = request.clone();
        stranger[29] = 99;
        assert_eq!(bench.run("from_underlay", &stranger).verdict, SHOT);
        assert_eq!(bench.drops(0, DropReason::UnknownHost), 1);
        let mut not_to_us = request;
        not_to_us[33] = 2;
        assert_eq!(bench.run("from_underlay", &not_to_us).verdict, PASS);
    });
}
