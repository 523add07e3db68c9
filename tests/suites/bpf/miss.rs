//! What goes up to the agent.

use crate::bench::{Bench, GENERATION, PORT, SHOT, exact, with_bench};
use crate::frames;
use weft_common::event::MissReason;
use weft_common::limits::{GUARD_BURST, MISS_BURST};
use weft_common::slot::Output;
use weft_common::{DropReason, Slot};

#[test]
fn a_miss_carries_the_whole_packet() {
    with_bench(|bench| {
        let mut large = frames::udp();
        large.resize(1400, 0xab);
        large[16..18].copy_from_slice(&1386u16.to_be_bytes());
        large[38..40].copy_from_slice(&1366u16.to_be_bytes());
        for frame in [frames::arp(), large] {
            assert_eq!(bench.run("from_port", &frame).verdict, SHOT);
            let misses = bench.misses();
            assert_eq!(misses.len(), 1);
            let miss = &misses[0];
            assert_eq!(
                (miss.port, miss.generation, miss.reason),
                (PORT, GENERATION, MissReason::NoFlow as u8)
            );
            assert_eq!(miss.packet.frame, frame);
            assert_eq!((miss.packet.gso_size, miss.packet.vlan_tci), (0, None));
        }
    });
}

#[test]
fn a_gso_packet_goes_up_as_one() {
    with_bench(|bench| {
        let mut frame = frames::tcp();
        frame.resize(54 + 2000, 1);
        frame[16..18].copy_from_slice(&2040u16.to_be_bytes());
        assert_eq!(bench.run_gso("from_port", &frame, 1000).verdict, SHOT);
        let misses = bench.misses();
        assert_eq!((misses.len(), misses[0].packet.gso_size), (1, 1000));
        assert_eq!(misses[0].packet.frame, frame);
    });
}

/// A port that sends nothing but misses is held to its burst; each refused one is counted. What the buffers had
/// no room for is counted, too: nothing vanishes.
#[test]
fn misses_beyond_the_ports_bucket_are_dropped_by_name() {
    with_bench(|bench| {
        let sent = 5 * MISS_BURST;
        bench.run_many("from_port", &frames::udp(), sent as u32);
        let seen = count_misses(bench, MissReason::NoFlow);
        let refused = bench.drops(PORT, DropReason::MissRate);
        let lost = bench.drops(PORT, DropReason::MissLost);
        let all = format!("seen {seen}, refused {refused}, lost {lost}");
        assert_eq!(seen + refused + lost, sent, "{all}");
        // The bucket fills again while this runs, but not as fast as it is emptied.
        assert!(refused > 0, "{all}");
        assert!(seen > 0, "{all}");
    });
}

/// A flow that refuses hands each packet to the agent as it came, under a bucket of its own: what is too many is
/// dropped as what it was refused for, and leaves the port's new flows alone.
#[test]
fn a_flood_of_refused_packets_leaves_room_for_new_flows() {
    with_bench(|bench| {
        let refused = Slot {
            output: Output::Agent as u8,
            drop_reason: DropReason::NoRoute as u8,
            ttl_decrement: 1,
            ..Slot::default()
        };
        bench.install(&frames::udp(), &exact(), refused);
        bench.run("from_port", &frames::udp());
        let one = bench.misses();
        assert_eq!((one.len(), one[0].reason), (1, MissReason::Action as u8));
        assert_eq!(one[0].packet.frame, frames::udp(), "as it came");
        let sent = 10 * GUARD_BURST;
        bench.run_many("from_port", &frames::udp(), sent as u32);
        let seen = count_misses(bench, MissReason::Action);
        let lost = bench.drops(PORT, DropReason::MissLost);
        let dropped = bench.drops(PORT, DropReason::NoRoute);
        let all = format!("seen {seen}, dropped {dropped}, lost {lost}");
        assert_eq!(seen + dropped + lost, sent, "{all}");
        assert!(dropped > 0 && seen > 0, "{all}");
        bench.run("from_port", &frames::ping());
        assert_eq!(count_misses(bench, MissReason::NoFlow), 1);
        assert_eq!(bench.drops(PORT, DropReason::MissRate), 0);
    });
}

/// A router behind the first one drops in silence, but the TTL ends before.
#[test]
fn a_ttl_ends_before_a_later_router_drops() {
    with_bench(|bench| {
        let blackhole = Slot {
            output: Output::Drop as u8,
            drop_reason: DropReason::BlackholeRoute as u8,
            ttl_decrement: 1,
            ..Slot::default()
        };
        bench.install(&frames::ping_ttl_1(), &exact(), blackhole);
        bench.run("from_port", &frames::ping_ttl_1());
        assert_eq!(count_misses(bench, MissReason::Ttl), 1);
        bench.install(&frames::ping(), &exact(), blackhole);
        bench.run("from_port", &frames::ping());
        assert_eq!(bench.drops(PORT, DropReason::BlackholeRoute), 1);
    });
}

/// Misses that are there, all of them for this reason.
fn count_misses(bench: &mut Bench, reason: MissReason) -> u64 {
    let mut seen = 0;
    loop {
        let more = bench.misses();
        if more.is_empty() {
            return seen;
        }
        assert!(more.iter().all(|miss| miss.reason == reason as u8));
        seen += more.len() as u64;
    }
}
