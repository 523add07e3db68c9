//! Where a port's chains are asked, besides `connections`: floods, the inject TAP, XDP; what goes up; what isn't tracked.

use crate::bench::{GENERATION, OTHER, PORT, REDIRECT, SHOT, with_bench};
use crate::frames::{self, hex};
use crate::zone::{
    IN, Network, OUT, SYN, Workload, Zone, replies, rule, stateful, tcp, udp, udp_v6,
};
use aya::{TestRun, TestRunOptions};
use weft_common::event::{INJECT_MADE, MissReason};
use weft_common::flood::FloodList;
use weft_common::limits::{FLOOD_LOCALS_MAX, FLOOD_REMOTES_MAX, GUARD_BURST};
use weft_common::port::{Delivery, PORT_XDP, PortKind, PortRecord};
use weft_common::slot::Output;
use weft_common::{DropReason, Slot, TunnelKey};
use weft_datapath::held::VNET_HEADER_LEN;
use weft_datapath::{Datapath, HeldPacket};
use weft_vnet::policy::{Action, Connection as State};

/// Index of a flood set of all ports.
const SET: u16 = 9;
/// A port without chains.
const THIRD: u16 = 3;

/// Makes a flood set of the port, and of one without chains.
fn flood_set(zone: &mut Zone) {
    zone.add_port(THIRD);
    let mut list = FloodList {
        local_count: 2,
        remote_count: 0,
        locals: [0; FLOOD_LOCALS_MAX],
        remotes: [Default::default(); FLOOD_REMOTES_MAX],
    };
    list.locals[..2].copy_from_slice(&[PORT, THIRD]);
    let kernel = &mut zone.bench.kernel;
    kernel.write_flood_list(1, &list).expect("a list");
    let record = PortRecord {
        kind: PortKind::FloodSet as u8,
        generation: GENERATION,
        flood_list: 1,
        ..PortRecord::default()
    };
    kernel.write_port(SET, &record).expect("a record");
}

/// Which ports get a copy of a frame out of a tunnel.
fn flooded(zone: &mut Zone, frame: &[u8]) -> (bool, bool) {
    let packets = |zone: &Zone, port| {
        let counters = zone.bench.kernel.port_counters(port).expect("counters");
        counters.egress_packets
    };
    let before = [packets(zone, PORT), packets(zone, THIRD)];
    assert!(!zone.arrives(SET, frame));
    (
        packets(zone, PORT) > before[0],
        packets(zone, THIRD) > before[1],
    )
}

#[test]
fn copies_are_judged_port_by_port_and_make_no_connection() {
    with_bench(|bench| {
        let mut zone = Zone::new(bench, stateful(None), replies());
        flood_set(&mut zone);
        assert_eq!(flooded(&mut zone, &udp(Network)), (false, true));
        assert_eq!(flooded(&mut zone, &udp_v6(Network)), (false, true));
        assert_eq!(zone.bench.drops(PORT, DropReason::PolicyEgress), 2);
        assert!(zone.passes(Workload, &udp(Workload)));
        assert_eq!(flooded(&mut zone, &udp(Network)), (true, true));
        // The copy was no answer.
        assert_eq!((zone.counts(), zone.phase()), ((1, 0), 0));
        // Only a rule that names it matches ARP.
        assert_eq!(flooded(&mut zone, &frames::arp()), (true, true));
        // A frame that no port with chains takes.
        let mut damaged = udp(Network);
        damaged[14] = 0x44;
        assert_eq!(flooded(&mut zone, &damaged), (false, true));
        assert_eq!(zone.bench.drops(PORT, DropReason::BadHeader), 1);
        zone.acl(OUT, stateful(None));
        zone.set_policy(PORT, IN, OUT, 2);
        assert_eq!(flooded(&mut zone, &udp_v6(Network)), (true, true));
        assert_eq!(zone.counts(), (1, 0));
    });
}

/// As above, for what a workload of this host floods.
#[test]
fn copies_of_a_workloads_frames_are_judged() {
    with_bench(|bench| {
        let mut zone = Zone { bench };
        zone.acl(IN, stateful(None));
        zone.acl(OUT, replies());
        flood_set(&mut zone);
        zone.set_policy(THIRD, IN, OUT, 1);
        let slot = Slot {
            output: Output::Flood as u8,
            flood_list: 1,
            ..Slot::default()
        };
        zone.bench
            .install(&tcp(Workload, SYN, 0), &crate::bench::exact(), slot);
        assert_eq!(
            zone.bench.run("from_port", &tcp(Workload, SYN, 0)).verdict,
            SHOT
        );
        assert_eq!(zone.bench.drops(THIRD, DropReason::PolicyEgress), 1);
        zone.acl(OUT, stateful(None));
        zone.bench.run("from_port", &tcp(Workload, SYN, 0));
        assert_eq!(zone.bench.drops(THIRD, DropReason::PolicyEgress), 1);
        let counters = zone.bench.kernel.port_counters(THIRD).expect("counters");
        assert_eq!(counters.egress_packets, 1);
    });
}

/// What the agent held is judged like any packet; what the network says itself isn't.
#[test]
fn held_packets_are_judged_and_made_ones_are_not() {
    with_bench(|bench| {
        let mut zone = Zone::new(bench, stateful(None), replies());
        let target = zone.bench.reserve(Slot {
            output: Output::Local as u8,
            port: PORT,
            ..Slot::default()
        });
        let packet = HeldPacket::made(udp(Network));
        let mut verdict = |port, flags| {
            let mut frame = packet.to_inject(target, port)[VNET_HEADER_LEN..].to_vec();
            frame[10] = flags;
            zone.bench.run("from_inject", &frame).verdict
        };
        assert_eq!(verdict(OTHER, 0), SHOT);
        assert_eq!(verdict(0, 0), REDIRECT);
        assert_eq!(verdict(OTHER, INJECT_MADE), REDIRECT);
        assert_eq!(zone.bench.drops(PORT, DropReason::PolicyEgress), 1);
        assert!(zone.passes(Workload, &udp(Workload)));
        let frame = packet.to_inject(target, OTHER)[VNET_HEADER_LEN..].to_vec();
        assert_eq!(zone.bench.run("from_inject", &frame).verdict, REDIRECT);
        assert_eq!(zone.counts(), (0, 1));
    });
}

#[test]
fn xdp_leaves_a_port_with_chains_to_the_other_program() {
    with_bench(|bench| {
        let mut zone = Zone::new(bench, stateful(None), replies());
        let record = PortRecord {
            kind: PortKind::Port as u8,
            generation: GENERATION,
            delivery: Delivery::Plain as u8,
            flags: PORT_XDP,
            ifindex: 1,
            ..PortRecord::default()
        };
        zone.bench
            .kernel
            .write_port(PORT, &record)
            .expect("a record");
        let key = TunnelKey {
            index: PORT,
            generation: GENERATION,
        };
        let frame = frames::gre(key.bits(), &frames::udp());
        let mut verdicts = Vec::new();
        for (ingress, egress, epoch) in [(IN, OUT, 1), (0, 0, 0)] {
            zone.set_policy(PORT, ingress, egress, epoch);
            let options = TestRunOptions {
                data_in: Some(&frame),
                ..TestRunOptions::new()
            };
            let program = zone.bench.kernel.programs().xdp().expect("the program");
            verdicts.push(program.test_run(options).expect("a run").return_value);
        }
        // XDP_PASS, XDP_REDIRECT
        assert_eq!(verdicts, [2, 4]);
    });
}

/// A reject goes up, so that the sender hears of it: of both hooks, under the bucket of refused packets.
#[test]
fn a_reject_goes_up() {
    with_bench(|bench| {
        let rejects = || vec![rule(&[], None, Action::Reject)];
        let mut zone = Zone::new(bench, rejects(), rejects());
        assert!(!zone.passes(Workload, &udp(Workload)));
        assert!(!zone.passes(Network, &udp(Network)));
        let misses = zone.bench.misses();
        assert_eq!(misses.len(), 2);
        let expected = [
            (MissReason::Reject, udp(Workload)),
            (MissReason::RejectEgress, udp(Network)),
        ];
        for (miss, (reason, frame)) in misses.iter().zip(expected) {
            assert_eq!((miss.port, miss.reason), (PORT, reason as u8));
            assert_eq!(miss.packet.frame, frame);
        }
        assert_eq!(zone.counts(), (0, 0));
        for _ in 0..GUARD_BURST + 100 {
            zone.passes(Workload, &udp(Workload));
        }
        assert!(zone.bench.drops(PORT, DropReason::PolicyIngress) > 0);
    });
}

/// What was admitted and has no flow goes up, with its connection made.
#[test]
fn an_admitted_packet_without_a_flow_goes_up() {
    with_bench(|bench| {
        let mut zone = Zone::new(bench, stateful(None), replies());
        zone.forget_flows();
        assert!(!zone.passes(Workload, &udp(Workload)));
        let misses = zone.bench.misses();
        assert_eq!(misses.len(), 1);
        assert_eq!(misses[0].reason, MissReason::NoFlow as u8);
        assert_eq!(zone.counts(), (1, 0));
        zone.acl(IN, replies());
        assert!(!zone.passes(Workload, &tcp(Workload, SYN, 0)));
        assert!(zone.bench.misses().is_empty());
    });
}

/// No connections, and "new" to the chains: what has many receivers, and what isn't IP. Neighbours and DHCP only where a
/// rule names them.
#[test]
fn what_is_not_tracked() {
    with_bench(|bench| {
        let mut zone = Zone::new(bench, stateful(None), stateful(None));
        let to = |mac: &str, address: &str| {
            let mut frame = udp(Workload);
            frame[..6].copy_from_slice(&hex(mac));
            frame[30..34].copy_from_slice(&hex(address));
            frame
        };
        let mut solicitation = crate::zone::ipv6(Workload, 58, &[0; 24]);
        solicitation[54] = 135;
        let mut dhcp = udp(Workload);
        dhcp[36..38].copy_from_slice(&67u16.to_be_bytes());
        let untracked = [
            to("01005e000101", "e0000101"),
            to("ffffffffffff", "0a0001ff"),
            to("02000000010c", "ffffffff"),
            frames::arp(),
            frames::other(),
            solicitation.clone(),
            dhcp.clone(),
        ];
        for (number, frame) in untracked.iter().enumerate() {
            assert!(zone.passes(Workload, frame), "{number}");
        }
        assert_eq!(zone.counts(), (0, 0));
        zone.acl(IN, vec![rule(&[State::New], None, Action::Drop)]);
        zone.set_policy(PORT, IN, OUT, 2);
        let passed: Vec<bool> = untracked
            .iter()
            .map(|frame| zone.passes(Workload, frame))
            .collect();
        assert_eq!(passed, [false, false, false, true, false, true, true]);
    });
}
