//! Choices: kernel and simulation take the same bucket, groups lead on to groups, and a stale member is a miss.

use crate::bench::{Bench, PORT, REDIRECT, SHOT, key_of, with_bench};
use crate::frames;
use weft_common::event::MissReason;
use weft_common::key::CLASS_NETWORK;
use weft_common::slot::{Choice, Output, SET_MACS};
use weft_common::{DropReason, FlowKey, Slot, SlotRef, select};
use weft_datapath::{Buckets, Datapath, HeldPacket, Member, held};

/// Random packets of each kind.
const PACKETS: u64 = 400;

/// The same delivery under another source MAC: slots that can be told apart.
fn delivery(number: u8) -> Slot {
    Slot {
        output: Output::Local as u8,
        port: PORT,
        flags: SET_MACS,
        src_mac: [2, 0, 0, 0, 9, number],
        ..Slot::default()
    }
}

fn choice(group: u32) -> Slot {
    Slot {
        choice: Choice::Select as u8,
        choice_group: group,
        ..Slot::default()
    }
}

/// Every packet of the frame's network.
fn network() -> FlowKey {
    let mut mask = FlowKey::default();
    mask.head.port = 0xffff;
    mask.head.class = CLASS_NETWORK;
    mask
}

/// A group whose bucket n leads to `delivery(n)`.
fn one_slot_a_bucket(bench: &mut Bench, group: u32) -> Buckets {
    let buckets = std::array::from_fn(|number| bench.reserve(delivery(number as u8)));
    bench.kernel.write_group(group, &buckets).expect("written");
    buckets
}

fn members(numbers: std::ops::Range<u8>) -> Vec<Member> {
    let member = |number| Member {
        identity: select::identity(&[u64::from(number)]),
        slot: delivery(number),
    };
    numbers.map(member).collect()
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Other addresses and L4 fields in a frame of one of the given shapes.
    fn change(&mut self, frame: &mut [u8]) {
        let is_v6 = frame[12] == 0x86;
        let (first, addresses) = if is_v6 { (22, 32) } else { (26, 8) };
        for byte in &mut frame[first..first + addresses + 4] {
            *byte = self.next() as u8;
        }
        // An ICMP echo keeps its type: only then is there an identifier.
        let protocol = if is_v6 { frame[20] } else { frame[23] };
        if matches!(protocol, 1 | 58) {
            let l4 = first + addresses;
            frame[l4] = if protocol == 1 { 8 } else { 128 };
            frame[l4 + 1] = 0;
            frame[l4 + 4] = self.next() as u8;
            frame[l4 + 5] = self.next() as u8;
        }
    }
}

#[test]
fn kernel_and_simulation_take_the_same_bucket() {
    with_bench(|bench| {
        one_slot_a_bucket(bench, 7);
        for frame in [frames::udp(), frames::udp_v6()] {
            bench.install(&frame, &network(), choice(7));
        }
        let mut random = Random(1);
        let mut seen = std::collections::BTreeSet::new();
        let shapes = [
            frames::udp(),
            frames::tcp(),
            frames::ping(),
            frames::udp_v6(),
            frames::tcp_v6(),
            frames::ping_v6(),
        ];
        for shape in shapes {
            for _ in 0..PACKETS {
                let mut frame = shape.clone();
                random.change(&mut frame);
                let run = bench.run("from_port", &frame);
                assert_eq!(run.verdict, REDIRECT, "{frame:02x?}");
                let bucket = select::bucket(&key_of(&frame));
                assert_eq!(run.frame[11], bucket, "{frame:02x?}");
                seen.insert(bucket);
            }
        }
        assert!(seen.len() > 250, "{} of 256 buckets", seen.len());
        assert!(bench.misses().is_empty());
    });
}

/// The same group for the same members; each packet gets the member that the books say.
#[test]
fn a_group_of_members_spreads_packets_as_the_books_say() {
    with_bench(|bench| {
        let group = |bench: &mut Bench| {
            bench
                .table
                .group(&mut bench.kernel, &members(0..4), 0)
                .expect("a group")
        };
        let first = group(bench);
        let id = bench.install(&frames::udp(), &network(), choice(first));
        assert_eq!(group(bench), first);
        let mut random = Random(2);
        let mut hits = [0; 4];
        for _ in 0..PACKETS {
            let mut frame = frames::udp();
            random.change(&mut frame);
            let run = bench.run("from_port", &frame);
            let slot = bench.table.get(id).expect("the flow").slot;
            let chosen = bench.table.chosen(&slot, &key_of(&frame)).expect("a slot");
            assert_eq!(run.frame[6..12], chosen.src_mac);
            hits[usize::from(run.frame[11])] += 1;
        }
        let is_fair = |count: &u64| count * 100 > PACKETS * 15 && count * 100 < PACKETS * 35;
        assert!(hits.iter().all(is_fair), "{hits:?} of {PACKETS}");
        let uses: Vec<u64> = bench
            .table
            .members(first)
            .map(|(_, target)| bench.kernel.slot_use(target.slot).packets)
            .collect();
        assert_eq!(uses, hits, "each member's packets are counted");
        let flow = bench.table.get(id).expect("the flow");
        assert_eq!(bench.table.use_of(&bench.kernel, flow).packets, PACKETS);
    });
}

#[test]
fn a_member_that_leaves_moves_its_own_packets_only() {
    with_bench(|bench| {
        let of = |bench: &mut Bench, members: &[Member]| {
            bench
                .table
                .group(&mut bench.kernel, members, 0)
                .expect("a group")
        };
        let all = of(bench, &members(0..4));
        let id = bench.install(&frames::udp(), &network(), choice(all));
        let mut random = Random(3);
        let packets: Vec<Vec<u8>> = (0..PACKETS)
            .map(|_| {
                let mut frame = frames::udp();
                random.change(&mut frame);
                frame
            })
            .collect();
        let run = |bench: &mut Bench| -> Vec<u8> {
            let each = packets.iter();
            each.map(|frame| bench.run("from_port", frame).frame[11])
                .collect()
        };
        let before = run(bench);
        let rest = of(bench, &members(0..3));
        let slot = choice(rest);
        let target = bench.reserve(slot);
        bench
            .table
            .replace(&mut bench.kernel, id, target, &slot, 0)
            .expect("replaced");
        let after = run(bench);
        let moved = before.iter().zip(&after).filter(|(a, b)| a != b).count() as u64;
        let gone = before.iter().filter(|member| **member == 3).count() as u64;
        assert_eq!(moved, gone, "only those of the member that left");
        assert!(moved * 100 > PACKETS * 15 && moved * 100 < PACKETS * 35);
        assert!(bench.misses().is_empty());
    });
}

#[test]
fn groups_lead_on_to_groups() {
    with_bench(|bench| {
        let last = one_slot_a_bucket(bench, 1);
        for group in [2, 3, 4] {
            let next = bench.reserve(choice(group - 1));
            bench
                .kernel
                .write_group(group, &[next; 256])
                .expect("written");
        }
        let bucket = select::bucket(&key_of(&frames::udp()));
        let id = bench.install(&frames::udp(), &network(), choice(3));
        let run = bench.run("from_port", &frames::udp());
        assert_eq!((run.verdict, run.frame[11]), (REDIRECT, bucket));
        let leaf = last[usize::from(bucket)].slot;
        assert_eq!(bench.kernel.slot_use(leaf).packets, 1);
        // A fourth in a row is more than a packet may meet.
        let slot = choice(4);
        let target = bench.reserve(slot);
        bench
            .table
            .replace(&mut bench.kernel, id, target, &slot, 0)
            .expect("replaced");
        assert_eq!(bench.run("from_port", &frames::udp()).verdict, SHOT);
        assert_eq!(bench.misses().len(), 1);
    });
}

#[test]
fn a_stale_or_unwritten_member_is_a_miss() {
    with_bench(|bench| {
        let mut buckets = one_slot_a_bucket(bench, 7);
        let bucket = usize::from(select::bucket(&key_of(&frames::udp())));
        bench.install(&frames::udp(), &network(), choice(7));
        assert_eq!(bench.run("from_port", &frames::udp()).verdict, REDIRECT);
        bench.table.retire(&mut bench.kernel, buckets[bucket], 0);
        assert_eq!(bench.run("from_port", &frames::udp()).verdict, SHOT);
        buckets[bucket] = SlotRef::default();
        bench.kernel.write_group(7, &buckets).expect("written");
        assert_eq!(bench.run("from_port", &frames::udp()).verdict, SHOT);
        let misses = bench.misses();
        let reasons: Vec<u8> = misses.iter().map(|miss| miss.reason).collect();
        assert_eq!(reasons, [MissReason::NoFlow as u8; 2]);
        // The agent's own packet never comes back up.
        let target = bench.reserve(choice(7));
        let held = HeldPacket::made(frames::udp()).to_inject(target, PORT);
        let run = bench.run("from_inject", &held[held::VNET_HEADER_LEN..]);
        assert_eq!(run.verdict, SHOT);
        assert_eq!(bench.drops(PORT, DropReason::InjectStale), 1);
        assert!(bench.misses().is_empty());
    });
}

/// A member's guard is the guard of its packets.
#[test]
fn guards_and_rewrite_are_those_of_the_chosen_member() {
    with_bench(|bench| {
        let routed = Slot {
            ttl_decrement: 2,
            ..delivery(1)
        };
        let target = bench.reserve(routed);
        bench
            .kernel
            .write_group(7, &[target; 256])
            .expect("written");
        bench.install(&frames::ping(), &network(), choice(7));
        let run = bench.run("from_port", &frames::ping());
        assert_eq!((run.verdict, run.frame[22]), (REDIRECT, 62));
        assert_eq!(bench.run("from_port", &frames::ping_ttl_1()).verdict, SHOT);
        let misses = bench.misses();
        assert_eq!(misses.len(), 1);
        assert_eq!(misses[0].reason, MissReason::Ttl as u8);
    });
}
