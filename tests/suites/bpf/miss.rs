//! What goes up to the agent.

use crate::bench::{GENERATION, PORT, SHOT, with_bench};
use crate::frames;
use weft_common::DropReason;
use weft_common::event::MissReason;
use weft_common::limits::MISS_BURST;

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
        let mut seen = 0;
        loop {
            let more = bench.misses().len() as u64;
            if more == 0 {
                break;
            }
            seen += more;
        }
        let refused = bench.drops(PORT, DropReason::MissRate);
        let lost = bench.drops(PORT, DropReason::MissLost);
        let all = format!("seen {seen}, refused {refused}, lost {lost}");
        assert_eq!(seen + refused + lost, sent, "{all}");
        // The bucket fills again while this runs, but not as fast as it is emptied.
        assert!(refused > 0, "{all}");
        assert!(seen > 0, "{all}");
    });
}
