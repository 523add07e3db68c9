//! Packets that go no further: who is told, how often, and what is installed.

use super::*;
use weft_common::limits::ERROR_BURST;
use weft_common::slot::Output;

/// Nobody is at this address of a connected subnet.
const NOBODY: &str = "icmp 10.0.1.11 > 10.0.2.77";
const UNROUTABLE: &str = "udp 10.0.1.11:1 > 203.0.113.9:2";

/// The ICMP types and codes among what was sent to a port, with the senders' last bytes.
fn errors(rig: &mut Rig, path: &str) -> Vec<(u8, u8, u8)> {
    let (index, mac) = (rig.index(path), rig.mac(path));
    let all = rig.injected();
    let here = all.iter().filter(|it| {
        let slot = it.slot.unwrap();
        slot.port == index && slot.dst_mac == mac.0 && it.packet.frame[23] == 1
    });
    here.map(|it| {
        let frame = &it.packet.frame;
        (frame[34], frame[35], frame[29])
    })
    .collect()
}

fn came_up_again(rig: &mut Rig, path: &str, frame: &[u8], reason: MissReason) {
    let mut miss = rig.miss(path, frame.to_vec());
    miss.reason = reason as u8;
    rig.engine.handle_misses(vec![miss]);
}

#[test]
fn a_flow_that_refuses_tells_each_sender_within_the_limit() {
    let mut rig = Rig::new();
    let frame = rig.frame("web/near", UNROUTABLE);
    rig.send("web/near", &frame);
    assert_eq!(errors(&mut rig, "web/near"), [(3, 0, 1)]);
    let slot = rig.forward("web/near", &frame).unwrap();
    assert_eq!(
        (slot.output, slot.drop_reason),
        (Output::Agent as u8, DropReason::NoRoute as u8)
    );
    for _ in 1..ERROR_BURST + 5 {
        came_up_again(&mut rig, "web/near", &frame, MissReason::Action);
    }
    let told = errors(&mut rig, "web/near").len() as u64 + 1;
    let untold = rig.drops("web/near", DropReason::AnswerRate);
    // Time goes by while the test runs: the bucket may fill a little.
    assert!(
        told >= ERROR_BURST && untold > 0,
        "{told} told, {untold} not"
    );
    assert_eq!(told + untold, ERROR_BURST + 5);
    assert_eq!(rig.drops("web/near", DropReason::NoRoute), ERROR_BURST + 5);
    assert_eq!(rig.engine.table.len(), 1);
}

/// Two that came up before the flow was there: both are told, and there is one flow.
#[test]
fn a_batch_of_refused_packets_makes_one_flow() {
    let mut rig = Rig::new();
    let frame = rig.frame("web/near", UNROUTABLE);
    let misses = vec![
        rig.miss("web/near", frame.clone()),
        rig.miss("web/near", frame.clone()),
    ];
    rig.engine.handle_misses(misses);
    rig.send("web/near", &frame);
    assert_eq!(errors(&mut rig, "web/near").len(), 3);
    assert_eq!(rig.engine.table.len(), 1);
}

#[test]
fn a_next_hop_that_does_not_answer_is_unreachable_for_a_while() {
    let mut rig = Rig::new();
    let frame = rig.frame("web/near", NOBODY);
    rig.send("web/near", &frame);
    (0..3).for_each(|_| rig.engine.tick());
    assert_eq!(
        errors(&mut rig, "web/near"),
        [(3, 1, 1)],
        "host unreachable"
    );
    // Now at once, and by a flow.
    rig.send("web/near", &frame);
    assert_eq!(errors(&mut rig, "web/near"), [(3, 1, 1)]);
    let slot = rig.forward("web/near", &frame).unwrap();
    assert_eq!(slot.drop_reason, DropReason::NextHopUnresolved as u8);
    // Until it is asked for again.
    rig.pass(3);
    rig.engine.tick();
    assert_eq!(rig.forward("web/near", &frame), None);
    rig.send("web/near", &frame);
    assert_eq!(rig.engine.waiting.packets, 1);
    assert_eq!(errors(&mut rig, "web/near"), []);
}

#[test]
fn a_next_hop_that_speaks_is_reachable_at_once() {
    let mut rig = Rig::new();
    let frame = rig.frame("web/near", NOBODY);
    rig.send("web/near", &frame);
    (0..3).for_each(|_| rig.engine.tick());
    rig.send("web/near", &frame);
    assert!(rig.forward("web/near", &frame).is_some());
    let router = rig.mac("core/db");
    let reply = arp_reply(STRANGER, [10, 0, 2, 77], router, [10, 0, 2, 1]);
    rig.send("db/guest", &reply);
    rig.injected();
    rig.send("web/near", &frame);
    let sent = rig.injected();
    assert_eq!(sent[0].slot.unwrap().dst_mac, STRANGER.0);
}

/// A UDP packet of 1500 bytes on a way that carries 1458: in two pieces if it may be divided.
#[test]
fn a_packet_that_may_be_divided_goes_in_pieces() {
    let mut rig = Rig::new();
    let mut frame = rig.frame("web/near", "udp 10.0.1.11:1 > 10.0.1.12:2");
    frame.truncate(34);
    frame.extend([0, 1, 0, 2, 0x05, 0xc8, 0, 0]);
    frame.resize(1514, 7);
    frame[16..18].copy_from_slice(&1500_u16.to_be_bytes());
    for (flags, pieces) in [(0, 2), (0x40, 0)] {
        frame[20] = flags;
        came_up_again(&mut rig, "web/near", &frame, MissReason::Mtu);
        let sent = rig.injected();
        let gre = |it: &&Injected| it.slot.unwrap().output == Output::Tunnel as u8;
        let sizes: Vec<usize> = sent
            .iter()
            .filter(gre)
            .map(|it| it.packet.frame.len())
            .collect();
        assert_eq!(sizes.len(), pieces, "{sizes:?}");
        assert!(sizes.iter().all(|size| *size <= 1472), "{sizes:?}");
    }
    assert_eq!(rig.drops("web/near", DropReason::MtuExceeded), 1);
}

/// By the chains of the sender's port, and by those of the port that the packet was for.
#[test]
fn senders_of_rejected_packets_are_told() {
    let mut rig = Rig::new();
    let (near, far) = (rig.index("web/near"), rig.index("db/near"));
    for (packet, is_tcp) in [
        ("tcp 10.0.1.11:4000 > 10.0.2.11:80", true),
        ("udp 10.0.1.11:4000 > 10.0.2.11:53", false),
    ] {
        let frame = rig.frame("web/near", packet);
        for (path, reason) in [
            ("web/near", MissReason::Reject),
            ("db/near", MissReason::RejectEgress),
        ] {
            let mut frame = frame.clone();
            if path == "db/near" {
                // As it is delivered, by the router.
                frame[..6].copy_from_slice(&rig.mac(path).0);
                frame[6..12].copy_from_slice(&rig.mac("core/db").0);
            }
            let mut miss = rig.miss(path, frame);
            miss.reason = reason as u8;
            rig.engine.handle_misses(vec![miss]);
            let sent = rig.injected();
            assert_eq!(sent.len(), 1, "{packet} {path} {:?}", rig.engine.drops);
            let slot = sent[0].slot.unwrap();
            assert_eq!(slot.port, near, "{packet} {path}: {far}");
            let answer = &sent[0].packet.frame;
            assert_eq!(answer[23], if is_tcp { 6 } else { 1 }, "{answer:x?}");
            assert_eq!(answer[26..34], [10, 0, 2, 11, 10, 0, 1, 11]);
        }
    }
    assert_eq!(rig.drops("web/near", DropReason::PolicyIngress), 2);
    assert_eq!(rig.drops("db/near", DropReason::PolicyEgress), 2);
}
