//! The kernel extracts the same key from a frame as the agent does, or refuses it under the same name.

use crate::bench::{Bench, PORT, SHOT, exact, key_of, with_bench};
use crate::frames::{self, hex};
use crate::fuzz_targets::TARGETS;
use crate::odd_packets::ODD_PACKETS;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::Command;
use std::time::Duration;
use weft_common::key::VLAN_PRESENT;
use weft_common::slot::Output;
use weft_common::{DropReason, FlowKey, Fragment, Network, Slot, extract};
use weft_tests::harness::socket::PacketSocket;
use weft_tests::harness::wait;
use weft_tests::model::headers::{self, Kind};

/// Why the flows of these tests drop: no packet is dropped for it otherwise.
const MARK: DropReason = DropReason::BlackholeRoute;

fn marked() -> Slot {
    Slot {
        output: Output::Drop as u8,
        drop_reason: MARK as u8,
        ..Slot::default()
    }
}

/// A key in words, for [`ODD_PACKETS`].
pub fn describe(key: &FlowKey) -> String {
    let head = &key.head;
    let mut text = String::new();
    if head.vlan & VLAN_PRESENT != 0 {
        let _ = write!(text, "vlan {} ", head.vlan & 0x0fff);
    }
    let v4 = |address: [u8; 4]| Ipv4Addr::from(address);
    let fragment = match head.fragment() {
        Fragment::Whole => "whole",
        Fragment::First => "first",
        Fragment::Later => "later",
    };
    let (name, addresses) = match head.network() {
        Network::Other => return format!("{text}other {:04x}", head.l4_src),
        Network::Arp => {
            let (protocol, src, dst) = (head.protocol, v4(key.src_v4()), v4(key.dst_v4()));
            return format!("{text}arp {protocol} {src} > {dst}");
        }
        Network::Ipv4 => (
            "ip4",
            format!("{} > {}", v4(key.src_v4()), v4(key.dst_v4())),
        ),
        Network::Ipv6 => {
            let (src, dst) = (Ipv6Addr::from(key.src), Ipv6Addr::from(key.dst));
            ("ip6", format!("{src} > {dst}"))
        }
    };
    let (protocol, tos, src, dst) = (head.protocol, head.tos, head.l4_src, head.l4_dst);
    format!("{text}{name} {protocol} tos {tos:02x} {fragment} {addresses} l4 {src:04x} {dst:04x}")
}

/// The key, or `!` and the drop reason's name, as user space sees the frame.
fn in_user_space(frame: &[u8]) -> String {
    let mut key = FlowKey::default();
    match extract(frame, PORT, None, &mut key) {
        Ok(_) => describe(&key),
        Err(reason) => format!("!{}", reason.name()),
    }
}

/// The same, as the independent model sees it.
fn in_model(frame: &[u8]) -> String {
    let headers = match headers::read(frame, None) {
        Ok(headers) => headers,
        Err(refusal) => return format!("!{refusal}"),
    };
    let tag = headers
        .vlan
        .map_or(String::new(), |id| format!("vlan {id} "));
    let address = |bytes: &[u8]| match <[u8; 4]>::try_from(bytes) {
        Ok(v4) => Ipv4Addr::from(v4).to_string(),
        Err(_) => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).expect("4 or 16 bytes")).to_string(),
    };
    match headers.kind {
        Kind::Other(ethertype) => format!("{tag}other {ethertype:04x}"),
        Kind::Arp(operation, sender, target) => {
            format!(
                "{tag}arp {operation} {} > {}",
                address(&sender),
                address(&target)
            )
        }
        Kind::Ip(ip) => {
            let name = if ip.src.len() == 4 { "ip4" } else { "ip6" };
            let fragment = ["whole", "first", "later"][usize::from(ip.fragment)];
            let (src, dst) = (address(&ip.src), address(&ip.dst));
            let (protocol, tos, (from, to)) = (ip.protocol, ip.tos, ip.ports);
            format!(
                "{tag}{name} {protocol} tos {tos:02x} {fragment} {src} > {dst} l4 {from:04x} {to:04x}"
            )
        }
    }
}

/// Lets the loopback interface receive the frame, and waits until the program has counted a drop.
fn receive_on_loopback(bench: &Bench, frame: &[u8]) {
    let before = all_drops(bench);
    let loopback = PacketSocket::open_here(1).expect("a packet socket");
    loopback.send(frame).expect("sent");
    wait::until("a drop", Duration::from_secs(10), || {
        Ok((all_drops(bench) != before).then_some(()))
    })
    .expect("it is dropped by name");
}

fn loopback_up() {
    let up = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status();
    assert!(up.expect("ip runs").success());
}

fn all_drops(bench: &Bench) -> Vec<(DropReason, u64)> {
    let reasons = DropReason::ALL.iter();
    reasons
        .map(|&reason| (reason, bench.drops(PORT, reason)))
        .collect()
}

/// The same, as the kernel sees it: `expected` where a flow for exactly that key is hit.
fn in_kernel(bench: &mut Bench, frame: &[u8]) -> String {
    let mut key = FlowKey::default();
    let flow = extract(frame, PORT, None, &mut key)
        .is_ok()
        .then(|| bench.install(frame, &exact(), marked()));
    let before = all_drops(bench);
    match bench.try_run("from_port", frame) {
        Some(run) => assert_eq!(run.verdict, SHOT),
        None => receive_on_loopback(bench, frame),
    }
    let after = all_drops(bench);
    if let Some(flow) = flow {
        bench.table.remove(&mut bench.kernel, flow, 0);
    }
    let counted = before
        .iter()
        .zip(&after)
        .filter(|(before, after)| before != after);
    let reasons: Vec<DropReason> = counted.map(|(_, (reason, _))| *reason).collect();
    match reasons[..] {
        [MARK] => describe(&key),
        [reason] => format!("!{}", reason.name()),
        _ => format!("no key of user space's ({} went up)", bench.misses().len()),
    }
}

#[test]
fn odd_packets_have_one_key_or_one_named_drop_on_both_sides() {
    assert!(ODD_PACKETS.len() >= 60);
    with_bench(|bench| {
        loopback_up();
        let mut wrong = Vec::new();
        for odd in ODD_PACKETS {
            let frame = hex(&format!("02000000010c 02000000010b {}", odd.bytes));
            let seen = [
                in_user_space(&frame),
                in_kernel(bench, &frame),
                in_model(&frame),
            ];
            for (side, seen) in ["user space", "kernel", "model"].iter().zip(seen) {
                if seen != odd.expected {
                    let (what, expected) = (odd.what, odd.expected);
                    wrong.push(format!("{what}, {side}: {seen}, expected {expected}"));
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
}

/// MAC addresses and ingress port aren't in the table's words.
#[test]
fn the_key_has_port_and_mac_addresses() {
    let key = key_of(&frames::arp());
    assert_eq!(key.head.port, PORT);
    assert_eq!(
        (key.head.dst_mac, key.head.src_mac),
        ([0xff; 6], [2, 0, 0, 0, 1, 11])
    );
    with_bench(|bench| {
        bench.install(&frames::ping(), &exact(), marked());
        for byte in 0..12 {
            let mut frame = frames::ping();
            frame[byte] ^= 4;
            bench.run("from_port", &frame);
        }
        assert_eq!(bench.drops(PORT, MARK), 0);
        assert_eq!(bench.misses().len(), 12);
    });
}

/// BPF_PROG_TEST_RUN gives tags in the frame's bytes; a frame that an interface receives has its tag in the packet's
/// metadata. Both have one key.
#[test]
fn a_tag_in_bytes_and_one_in_metadata_give_one_key() {
    with_bench(|bench| {
        loopback_up();
        let loopback = PacketSocket::open_here(1).expect("a packet socket");
        let tagged = frames::tagged();
        loopback.send(&tagged).expect("sent");
        let miss = wait::until("the frame to go up", Duration::from_secs(10), || {
            Ok(bench.misses().pop())
        });
        let packet = miss.expect("a miss").packet;
        assert_eq!((packet.vlan_tci, packet.frame), (Some(5), frames::ping()));
        bench.install(&tagged, &exact(), marked());
        loopback.send(&tagged).expect("sent");
        let hit = wait::until("the flow to be hit", Duration::from_secs(10), || {
            Ok((bench.drops(PORT, MARK) == 1).then_some(()))
        });
        hit.expect("the same key");
        bench.run("from_port", &tagged);
        assert_eq!(bench.drops(PORT, MARK), 2);
    });
}

/// Each fuzz target takes each odd packet, as a frame and as what is behind its Ethernet type.
#[test]
fn odd_packets_pass_every_fuzz_target() {
    for (name, target) in TARGETS {
        for odd in ODD_PACKETS {
            println!("{name}: {}", odd.what);
            let bytes = hex(odd.bytes);
            target(&bytes[2..]);
            target(&[&[0], &[2; 12][..], &bytes].concat());
            target(&[&[0, 68], &bytes[2..]].concat());
        }
    }
}
