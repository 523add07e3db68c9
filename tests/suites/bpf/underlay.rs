//! What comes in from the underlay: our tunnel packets, and everything else.

use crate::bench::{GENERATION, OTHER, PASS, PORT, REDIRECT, SHOT, with_bench};
use crate::frames;
use weft_common::{DropReason, TunnelKey};

fn key(index: u16, generation: u8) -> u32 {
    TunnelKey { index, generation }.bits()
}

#[test]
fn a_tunnel_packet_is_delivered_as_it_was_sent() {
    with_bench(|bench| {
        for inner in [
            frames::ping(),
            frames::tcp(),
            frames::arp(),
            frames::ping_v6(),
        ] {
            for outer in [frames::gre, frames::gre_v6] {
                let run = bench.run("from_underlay", &outer(key(PORT, GENERATION), &inner));
                assert_eq!(run.verdict, REDIRECT);
                assert_eq!(run.frame, inner);
            }
        }
    });
}

/// The kernel takes the outer headers off no frame below 34 bytes: shorter ones arrive with zeros behind them.
#[test]
fn a_short_frame_arrives_padded() {
    with_bench(|bench| {
        for outer in [frames::gre, frames::gre_v6] {
            for length in 14..60 {
                let mut inner = frames::arp();
                inner.resize(length, 0x5a);
                inner[12..14].copy_from_slice(&[0x88, 0xb5]);
                let run = bench.run("from_underlay", &outer(key(PORT, GENERATION), &inner));
                assert_eq!(run.verdict, REDIRECT, "{length} bytes");
                inner.resize(length.max(34), 0);
                assert_eq!(run.frame, inner, "{length} bytes");
            }
        }
    });
}

#[test]
fn what_is_ours_and_wrong_is_dropped_by_name() {
    with_bench(|bench| {
        let mut stranger = frames::gre(key(PORT, GENERATION), &frames::ping());
        stranger[29] = 99;
        let mut stranger_v6 = frames::gre_v6(key(PORT, GENERATION), &frames::ping());
        stranger_v6[37] = 99;
        let state_record = key(PORT, GENERATION) | weft_common::tunnel::STATE_RECORD;
        let cases = [
            (stranger, 0, DropReason::UnknownHost),
            (stranger_v6, 0, DropReason::UnknownHost),
            (
                frames::gre(key(77, 1), &frames::ping()),
                0,
                DropReason::UnknownTunnelKey,
            ),
            (
                frames::gre(key(PORT, GENERATION - 1), &frames::ping()),
                PORT,
                DropReason::OldGeneration,
            ),
            (
                frames::gre(0x0100_0000 | key(PORT, GENERATION), &frames::ping()),
                0,
                DropReason::WideTunnelKey,
            ),
            (
                frames::gre(state_record, &frames::ping()),
                0,
                DropReason::StateRecord,
            ),
            (
                frames::gre_v6(key(PORT, GENERATION - 1), &frames::ping()),
                PORT,
                DropReason::OldGeneration,
            ),
            (
                frames::gre_v6(key(PORT, GENERATION), &[2, 0, 0]),
                PORT,
                DropReason::DecapFailed,
            ),
            (
                frames::gre(key(PORT, GENERATION), &[2, 0, 0]),
                PORT,
                DropReason::DecapFailed,
            ),
        ];
        for (frame, port, reason) in cases {
            let before = bench.drops(port, reason);
            assert_eq!(
                bench.run("from_underlay", &frame).verdict,
                SHOT,
                "{}",
                reason.name()
            );
            assert_eq!(bench.drops(port, reason), before + 1, "{}", reason.name());
        }
        assert_eq!(bench.drops(OTHER, DropReason::OldGeneration), 0);
    });
}

/// GRE of other kinds or for other addresses, fragments, and all that isn't GRE go on to the host, unchanged.
#[test]
fn everything_else_passes_untouched() {
    with_bench(|bench| {
        let ours = frames::gre(key(PORT, GENERATION), &frames::ping());
        let changed = |position: usize, value: u8| {
            let mut frame = ours.clone();
            frame[position] = value;
            frame
        };
        let ours_v6 = frames::gre_v6(key(PORT, GENERATION), &frames::ping());
        let changed_v6 = |position: usize, value: u8| {
            let mut frame = ours_v6.clone();
            frame[position] = value;
            frame
        };
        let cases = [
            ("IPv6 GRE without a key", changed_v6(54, 0)),
            ("IPv6 GRE of IPv4", changed_v6(56, 0x08)),
            ("IPv6 to another address", changed_v6(53, 2)),
            ("IPv6 with an extension header", changed_v6(20, 60)),
            ("IPv6 cut short", ours_v6[..60].to_vec()),
            ("GRE without a key", changed(34, 0)),
            ("GRE with a key and a checksum", changed(34, 0xa0)),
            ("GRE version 1", changed(35, 1)),
            ("GRE of IPv4", changed(36, 0x08)),
            ("another destination", changed(33, 2)),
            ("UDP", changed(23, 17)),
            ("a fragment", changed(20, 0x20)),
            ("IP options", changed(14, 0x46)),
            ("ARP", frames::arp()),
            ("ping", frames::ping()),
            ("IPv6", frames::ping_v6()),
            ("cut short", ours[..40].to_vec()),
        ];
        for (what, frame) in cases {
            let run = bench.run("from_underlay", &frame);
            assert_eq!((run.verdict, run.frame), (PASS, frame), "{what}");
        }
    });
}
