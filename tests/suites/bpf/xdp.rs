//! `from_underlay_xdp`: what it delivers, and what it leaves to `from_underlay`, untouched.

use crate::bench::{Bench, GENERATION, PORT, with_bench};
use crate::frames;
use aya::programs::TestRunAttrs;
use aya::{TestRun, TestRunOptions};
use std::process::Command;
use weft_common::port::{PORT_XDP, PORT_XDP_FRAGS, PortKind, PortRecord};
use weft_common::{DropReason, TunnelKey};
use weft_datapath::Datapath;

/// `XDP_PASS`
const XDP_PASS: u32 = 2;
/// `XDP_REDIRECT`
const XDP_REDIRECT: u32 = 4;

fn key(index: u16, generation: u8) -> u32 {
    TunnelKey { index, generation }.bits()
}

/// Makes the port one that takes frames of XDP.
fn takes_frames(bench: &mut Bench, ifindex: u32, flags: u8) {
    let record = PortRecord {
        kind: PortKind::Port as u8,
        generation: GENERATION,
        flags,
        ifindex,
        ..PortRecord::default()
    };
    bench.kernel.write_port(PORT, &record).expect("a record");
}

fn run(bench: &mut Bench, frame: &[u8]) -> (u32, Vec<u8>) {
    let mut out = vec![0; frame.len() + 64];
    let options = TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut out),
        ..TestRunOptions::new()
    };
    let program = bench.kernel.programs().xdp().expect("the program");
    let result = program.test_run(options).expect("BPF_PROG_TEST_RUN");
    out.truncate(result.data_size_out as usize);
    (result.return_value, out)
}

/// ARP with an answer's destination: one receiver.
fn arp_unicast() -> Vec<u8> {
    let mut frame = frames::arp();
    frame[..6].copy_from_slice(&[2, 0, 0, 0, 1, 12]);
    frame
}

fn changed(frame: &[u8], position: usize, value: u8) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[position] = value;
    frame
}

#[test]
fn known_unicast_is_delivered_as_it_was_sent_and_counted() {
    with_bench(|bench| {
        takes_frames(bench, 1, PORT_XDP);
        let mut bytes = 0;
        let mut packets = 0;
        for inner in [
            frames::ping(),
            frames::tcp(),
            frames::udp(),
            frames::ping_v6(),
            frames::tcp_v6(),
            frames::udp_v6(),
            arp_unicast(),
        ] {
            for outer in [frames::gre, frames::gre_v6] {
                let result = run(bench, &outer(key(PORT, GENERATION), &inner));
                assert_eq!(result, (XDP_REDIRECT, inner.clone()));
                packets += 1;
                bytes += inner.len() as u64;
            }
        }
        let counters = bench.kernel.port_counters(PORT).expect("counters");
        assert_eq!(
            (counters.egress_packets, counters.egress_bytes),
            (packets, bytes)
        );
    });
}

#[test]
fn everything_else_passes_untouched_and_is_no_drop() {
    with_bench(|bench| {
        takes_frames(bench, 1, PORT_XDP | PORT_XDP_FRAGS);
        let plain = key(PORT, GENERATION);
        let ours = frames::gre(plain, &frames::ping());
        let ours_v6 = frames::gre_v6(plain, &frames::ping());
        let state_record = plain | weft_common::tunnel::STATE_RECORD;
        let mut unfinished = frames::tcp();
        // Sum of the pseudo-header: 0a00 + 010b + 0a00 + 010c + 0006 + 0014.
        unfinished[50..52].copy_from_slice(&[0x16, 0x31]);
        let cases = [
            ("another source", changed(&ours, 29, 99)),
            ("another IPv6 source", changed(&ours_v6, 37, 99)),
            ("another destination", changed(&ours, 33, 2)),
            ("no key", changed(&ours, 34, 0)),
            ("an outer fragment", changed(&ours, 20, 0x20)),
            ("congestion experienced", changed(&ours, 15, 3)),
            ("ECT(1)", changed(&ours, 15, 1)),
            ("IPv6 congestion", changed(&ours_v6, 15, 0x30)),
            ("a probe", frames::gre(1, &frames::ping())),
            ("an unknown key", frames::gre(key(77, 1), &frames::ping())),
            (
                "an old generation",
                frames::gre(key(PORT, GENERATION - 1), &frames::ping()),
            ),
            (
                "a wide key",
                frames::gre(0x0100_0000 | plain, &frames::ping()),
            ),
            ("a state record", frames::gre(state_record, &frames::ping())),
            ("a group", frames::gre(plain, &frames::arp())),
            ("a tag", frames::gre(plain, &frames::tagged())),
            (
                "a first fragment",
                frames::gre(plain, &frames::first_fragment()),
            ),
            (
                "a later fragment",
                frames::gre(plain, &frames::later_fragment()),
            ),
            (
                "another type",
                frames::gre(plain, &changed(&frames::ping(), 12, 0x88)),
            ),
            (
                "IP options",
                frames::gre(plain, &changed(&frames::ping(), 14, 0x46)),
            ),
            (
                "an extension header",
                frames::gre(plain, &changed(&frames::ping_v6(), 20, 44)),
            ),
            ("an unfinished checksum", frames::gre(plain, &unfinished)),
            ("cut short", ours[..50].to_vec()),
            ("the host's own", frames::ping()),
        ];
        for (what, frame) in cases {
            assert_eq!(run(bench, &frame), (XDP_PASS, frame), "{what}");
        }
        let counters = bench.kernel.port_counters(PORT).expect("counters");
        assert_eq!(counters.egress_packets, 0);
        assert_eq!(bench.kernel.drops(0).expect("drops"), []);
        assert_eq!(bench.drops(PORT, DropReason::OldGeneration), 0);
    });
}

#[test]
fn a_port_that_takes_no_such_frames_gets_them_by_tc() {
    with_bench(|bench| {
        let frame = frames::gre(key(PORT, GENERATION), &frames::ping());
        for (ifindex, flags) in [(1, 0), (1, PORT_XDP_FRAGS), (0, PORT_XDP)] {
            takes_frames(bench, ifindex, flags);
            assert_eq!(run(bench, &frame), (XDP_PASS, frame.clone()));
        }
        // More than one buffer: only where the interface takes that.
        let mut large = frames::ping();
        large[16..18].copy_from_slice(&6000u16.to_be_bytes());
        large.resize(6014, 7);
        let large = frames::gre(key(PORT, GENERATION), &large);
        takes_frames(bench, 1, PORT_XDP);
        assert_eq!(run(bench, &large).0, XDP_PASS);
        takes_frames(bench, 1, PORT_XDP | PORT_XDP_FRAGS);
        let (verdict, out) = run(bench, &large);
        assert_eq!((verdict, out.len()), (XDP_REDIRECT, 6014));
    });
}

fn tool(command: &str) {
    let mut words = command.split(' ');
    let mut tool = Command::new(words.next().expect("a program"));
    let output = tool.args(words).output().expect("it runs");
    assert!(output.status.success(), "{command}: {output:?}");
}

/// Live frames (`BPF_F_TEST_XDP_LIVE_FRAMES`) through a veth: all arrive where the far end has GRO on.
#[test]
fn live_frames_all_arrive_at_a_veth_with_gro() {
    const FRAMES: u32 = 500;
    with_bench(|bench| {
        tool(
            "ip link add host0 numrxqueues 1 numtxqueues 1 type veth peer name far0 numrxqueues 1 numtxqueues 1",
        );
        tool("ethtool -K far0 gro on");
        tool("ip link set lo up");
        tool("ip link set host0 up");
        tool("ip link set far0 up");
        let ifindex = nix::net::if_::if_nametoindex("host0").expect("host0");
        let features = weft_datapath::kernel::netdev::features_of(ifindex);
        let takes = weft_datapath::kernel::netdev::XDP_TAKES;
        let Some(features) = features else {
            println!("this kernel can't say who takes frames: XDP delivers nothing");
            return;
        };
        assert_ne!(features & takes, 0, "{features:#x}");
        takes_frames(bench, ifindex, PORT_XDP);
        let received = || {
            let path = Command::new("ip")
                .args(["-j", "-s", "link", "show", "far0"])
                .output()
                .expect("ip");
            let text = String::from_utf8_lossy(&path.stdout).into_owned();
            let rx = text.split("\"rx\":").nth(1).expect("rx");
            let packets = rx.split("\"packets\":").nth(1).expect("packets");
            let digits: String = packets.chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<u64>().expect("a number")
        };
        let before = received();
        let frame = frames::gre(key(PORT, GENERATION), &frames::udp());
        let options = TestRunOptions {
            data_in: Some(&frame),
            repeat: FRAMES,
            attrs: TestRunAttrs::new().xdp_live_frames(64),
            ..TestRunOptions::new()
        };
        let program = bench.kernel.programs().xdp().expect("the program");
        program.test_run(options).expect("live frames");
        let wanted = u64::from(FRAMES);
        for _ in 0..500 {
            if received() - before >= wanted {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let counters = bench.kernel.port_counters(PORT).expect("counters");
        assert_eq!(counters.egress_packets, wanted);
        assert!(
            received() - before >= wanted,
            "{} of {wanted}",
            received() - before
        );
        // Without GRO nobody receives there, and the kernel says so.
        tool("ethtool -K far0 gro off");
        let features = weft_datapath::kernel::netdev::features_of(ifindex).expect("features");
        assert_eq!(features & takes, 0, "{features:#x}");
    });
}
