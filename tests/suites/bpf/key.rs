//! The kernel extracts the same key from a frame as the agent does.

use crate::bench::{PORT, SHOT, exact, with_bench};
use crate::frames;
use weft_common::slot::Output;
use weft_common::{DropReason, Slot};

/// A flow under a mask of all bits, made from user space's key, is hit by the kernel's.
#[test]
fn both_sides_extract_the_same_key() {
    let frames = [
        ("ICMP echo", frames::ping()),
        ("ARP", frames::arp()),
        ("UDP", frames::udp()),
        ("TCP with DSCP", frames::tcp()),
        ("IP options", frames::with_options()),
        ("later fragment", frames::later_fragment()),
        ("first fragment", frames::first_fragment()),
        ("VLAN tag", frames::tagged()),
        ("IPv6", frames::ping_v6()),
        ("other Ethernet type", frames::other()),
    ];
    with_bench(move |bench| {
        for (number, (what, frame)) in frames.iter().enumerate() {
            let reason = DropReason::BlackholeRoute;
            let slot = Slot {
                output: Output::Drop as u8,
                drop_reason: reason as u8,
                ..Slot::default()
            };
            bench.install(frame, &exact(), slot);
            assert_eq!(bench.run("from_port", frame).verdict, SHOT, "{what}");
            assert_eq!(
                bench.drops(PORT, reason),
                number as u64 + 1,
                "{what}: the flow wasn't hit"
            );
        }
        assert!(bench.misses().is_empty());
    });
}

/// What user space refuses, the kernel refuses under the same name.
#[test]
fn both_sides_refuse_the_same_frames() {
    let mut impossible_length = frames::udp();
    impossible_length[16..18].copy_from_slice(&0x0100u16.to_be_bytes());
    let mut short_header = frames::udp();
    short_header[14] = 0x44;
    let mut wrong_version = frames::udp();
    wrong_version[14] = 0x65;
    let mut udp_without_header = frames::udp();
    udp_without_header.truncate(38);
    udp_without_header[16..18].copy_from_slice(&24u16.to_be_bytes());
    let frames = [
        ("longer than the frame", impossible_length),
        ("header of 16 bytes", short_header),
        ("version 6 under type 0800", wrong_version),
        ("4 bytes of UDP", udp_without_header),
        (
            "IPv6 longer than the frame",
            frames::ping_v6()[..58].to_vec(),
        ),
    ];
    with_bench(move |bench| {
        for (what, frame) in &frames {
            let mut key = weft_common::FlowKey::default();
            let reason =
                weft_common::extract(frame.as_slice(), PORT, None, &mut key).expect_err(what);
            let before = bench.drops(PORT, reason);
            assert_eq!(bench.run("from_port", frame).verdict, SHOT, "{what}");
            assert_eq!(
                bench.drops(PORT, reason),
                before + 1,
                "{what}: {}",
                reason.name()
            );
        }
    });
}
