//! Which slot a packet gets: microflow cache, megaflows, generations, epochs.

use crate::bench::{Bench, OTHER, PORT, REDIRECT, SHOT, exact, with_bench};
use crate::frames;
use weft_common::slot::Output;
use weft_common::{FlowKey, Slot};
use weft_datapath::{Datapath, Family};

fn local() -> Slot {
    Slot {
        output: Output::Local as u8,
        port: PORT,
        ..Slot::default()
    }
}

/// A mask of ingress port, class and the first `bits` of the destination.
fn destination(bits: u32) -> FlowKey {
    let mut mask = FlowKey::default();
    mask.head.port = 0xffff;
    mask.head.class = 0xff;
    mask.set_dst_v4((u32::MAX << (32 - bits)).to_be_bytes());
    mask
}

#[test]
fn a_megaflow_serves_every_packet_under_its_mask() {
    with_bench(|bench| {
        bench.install(&frames::ping(), &destination(24), local());
        for frame in [frames::ping(), frames::udp(), frames::tcp()] {
            assert_eq!(bench.run("from_port", &frame).verdict, REDIRECT);
        }
        let mut outside = frames::udp();
        outside[32] = 2;
        assert_eq!(bench.run("from_port", &outside).verdict, SHOT);
        assert_eq!(bench.misses().len(), 1);
    });
}

/// The cache answers while its slot holds the decision, even without the megaflow; a retired slot is never used.
#[test]
fn a_cached_decision_lives_as_long_as_its_slot() {
    with_bench(|bench| {
        let id = bench.install(&frames::ping(), &exact(), local());
        assert_eq!(bench.run("from_port", &frames::ping()).verdict, REDIRECT);
        let flow = bench.table.get(id).expect("the flow").clone();
        bench
            .kernel
            .withdraw(Family::V4, &flow.masked)
            .expect("withdrawn");
        assert_eq!(
            bench.run("from_port", &frames::ping()).verdict,
            REDIRECT,
            "by the cache alone"
        );
        bench.table.remove(&mut bench.kernel, id, 0);
        assert_eq!(bench.run("from_port", &frames::ping()).verdict, SHOT);
        assert_eq!(bench.misses().len(), 1);
    });
}

#[test]
fn a_cached_decision_of_another_epoch_is_looked_up_again() {
    with_bench(|bench| {
        let id = bench.install(&frames::ping(), &exact(), local());
        assert_eq!(bench.run("from_port", &frames::ping()).verdict, REDIRECT);
        let flow = bench.table.get(id).expect("the flow").clone();
        bench
            .kernel
            .withdraw(Family::V4, &flow.masked)
            .expect("withdrawn");
        let mut record = bench.kernel.read_port(PORT).expect("the record");
        record.epoch += 1;
        bench.kernel.write_port(PORT, &record).expect("written");
        assert_eq!(bench.run("from_port", &frames::ping()).verdict, SHOT);
        assert_eq!(bench.misses().len(), 1);
    });
}

/// A mask that only another port's flows use isn't tried.
#[test]
fn each_port_has_its_own_set_of_masks() {
    with_bench(|bench| {
        let mut without_port = destination(24);
        without_port.head.port = 0;
        bench.install(&frames::ping(), &without_port, local());
        assert_eq!(bench.run("from_port", &frames::ping()).verdict, REDIRECT);
        let (masks, _) = bench.table.mask_sets(OTHER);
        assert_eq!(masks, 0);
        let record = bench.kernel.read_port(PORT).expect("the record");
        assert_eq!(record.masks_v4, 1);
        bench
            .kernel
            .write_port(
                PORT,
                &weft_common::PortRecord {
                    masks_v4: 0,
                    epoch: 1,
                    ..record
                },
            )
            .expect("written");
        assert_eq!(bench.run("from_port", &frames::ping()).verdict, SHOT);
    });
}

#[test]
fn a_replaced_decision_is_used_by_the_next_packet() {
    with_bench(|bench: &mut Bench| {
        let id = bench.install(&frames::ping(), &exact(), local());
        assert_eq!(bench.run("from_port", &frames::ping()).verdict, REDIRECT);
        let drop = Slot {
            output: Output::Drop as u8,
            drop_reason: 20,
            ..Slot::default()
        };
        let target = bench.reserve(drop);
        bench
            .table
            .replace(&mut bench.kernel, id, target, &drop, 0)
            .expect("replaced");
        assert_eq!(bench.run("from_port", &frames::ping()).verdict, SHOT);
        assert_eq!(bench.drops(PORT, weft_common::DropReason::NoRoute), 1);
        let used = bench
            .table
            .use_of(&bench.kernel, bench.table.get(id).expect("the flow"));
        assert_eq!(
            (used.packets, used.bytes),
            (2, 2 * frames::ping().len() as u64)
        );
    });
}
