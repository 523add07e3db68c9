//! Held packets on their way back.

use crate::bench::{PORT, REDIRECT, SHOT, with_bench};
use crate::frames;
use weft_common::slot::Output;
use weft_common::{DropReason, Slot, SlotRef};
use weft_datapath::HeldPacket;
use weft_datapath::held::VNET_HEADER_LEN;

/// The frame that the TAP gets, without the virtio header that the kernel takes off.
fn injected(target: SlotRef, frame: &[u8]) -> Vec<u8> {
    HeldPacket::made(frame.to_vec()).to_inject(target, PORT)[VNET_HEADER_LEN..].to_vec()
}

#[test]
fn a_held_packet_goes_through_its_slot() {
    with_bench(|bench| {
        let target = bench.reserve(Slot {
            output: Output::Local as u8,
            port: PORT,
            ..Slot::default()
        });
        for frame in [
            frames::ping(),
            frames::arp(),
            frames::ping_v6(),
            frames::other(),
        ] {
            let run = bench.run("from_inject", &injected(target, &frame));
            assert_eq!((run.verdict, run.frame), (REDIRECT, frame));
        }
    });
}

#[test]
fn a_held_packet_never_goes_through_another_decision() {
    with_bench(|bench| {
        let slot = Slot {
            output: Output::Local as u8,
            port: PORT,
            ..Slot::default()
        };
        let target = bench.reserve(slot);
        bench.table.retire(&mut bench.kernel, target, 0);
        assert_eq!(
            bench
                .run("from_inject", &injected(target, &frames::ping()))
                .verdict,
            SHOT
        );
        assert_eq!(bench.drops(PORT, DropReason::InjectStale), 1);
    });
}

/// A held packet that fails a guard is dropped by name: it was up once.
#[test]
fn a_held_packet_never_goes_up_again() {
    with_bench(|bench| {
        let slot = Slot {
            output: Output::Local as u8,
            port: PORT,
            ttl_decrement: 1,
            ..Slot::default()
        };
        let target = bench.reserve(slot);
        assert_eq!(
            bench
                .run("from_inject", &injected(target, &frames::ping_ttl_1()))
                .verdict,
            SHOT
        );
        assert_eq!(bench.drops(PORT, DropReason::TtlExpired), 1);
        assert!(bench.misses().is_empty());
    });
}
