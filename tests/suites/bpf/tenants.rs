//! What one tenant provokes leaves the packets of another as they were: the masks under which they are looked up,
//! their decision, and (printed, since no test asserts time) what a hit costs.

use crate::bench::{Bench, OTHER, PORT, REDIRECT, key_of, with_bench};
use crate::frames;
use std::time::Duration;
use weft_common::limits::MASKS_PER_TENANT_MAX;
use weft_common::slot::Output;
use weft_common::{FlowKey, Slot};
use weft_datapath::{Datapath, Family};

/// Runs of one measurement, and measurements of which the shortest counts.
const RUNS: u32 = 20_000;
const MEASUREMENTS: u32 = 15;

fn mask(bits: u32, l4_dst: u16) -> FlowKey {
    let mut mask = FlowKey::default();
    mask.head.port = u16::MAX;
    mask.head.class = u8::MAX;
    mask.head.l4_dst = l4_dst;
    let prefix = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
    mask.set_dst_v4(prefix.to_be_bytes());
    mask
}

fn hit(bench: &mut Bench) -> Duration {
    let times = (0..MEASUREMENTS).map(|_| bench.run_many("from_port", &frames::udp(), RUNS));
    times.min().unwrap_or_default()
}

#[test]
fn a_tenant_that_provokes_every_prefix_and_port_range_leaves_others_alone() {
    with_bench(|bench| {
        bench.table.set_owner(PORT, 1);
        bench.table.set_owner(OTHER, 2);
        let local = Slot {
            output: Output::Local as u8,
            port: PORT,
            ..Slot::default()
        };
        for bits in [24, 16] {
            bench.install(&frames::udp(), &mask(bits, 0), local);
        }
        let masks = bench.kernel.read_port(PORT).expect("a record").masks_v4;
        let before = hit(bench);
        let flows = provoke(bench, local);
        let after = hit(bench);
        println!("a hit: {before:?}, beside {flows} flows of another tenant: {after:?}");
        let theirs = bench.kernel.read_port(OTHER).expect("a record").masks_v4;
        assert!(theirs.count_ones() as usize <= MASKS_PER_TENANT_MAX + 1);
        let record = bench.kernel.read_port(PORT).expect("a record");
        assert_eq!(record.masks_v4, masks);
        // A kind of traffic that the other tenant didn't leave a mask for gets one of its own.
        bench.install(&frames::tcp(), &mask(7, 0x1234), local);
        let record = bench.kernel.read_port(PORT).expect("a record");
        let new = record.masks_v4 & !masks;
        assert_eq!(new.count_ones(), 1);
        let bits = bench.kernel.read_mask(Family::V4, new.trailing_zeros());
        assert_eq!(bits.expect("a mask").head.l4_dst, 0x1234);
        assert_eq!(bench.run("from_port", &frames::udp()).verdict, REDIRECT);
    });
}

/// Every prefix length with every prefix of a port range, each to some destinations. Returns how many flows came of it.
fn provoke(bench: &mut Bench, slot: Slot) -> u32 {
    let mut flows = 0;
    for bits in 0..=32 {
        for range in 0..=16_u32 {
            for last in 0..8 {
                let mut key = key_of(&frames::udp());
                key.head.port = OTHER;
                key.set_dst_v4([10, bits as u8, range as u8, last]);
                let ports = u16::MAX.checked_shl(16 - range).unwrap_or(0);
                let wanted = mask(bits, ports);
                let target = bench.reserve(slot);
                let (table, kernel) = (&mut bench.table, &mut bench.kernel);
                flows += u32::from(
                    table
                        .install(kernel, &key, &wanted, target, &slot, 0)
                        .is_ok(),
                );
            }
        }
    }
    flows
}
