//! Packets that wait for a next hop.

use super::*;
use weft_common::limits::{WAITING_MAX, WAITING_PER_NEIGHBOUR_MAX};
use weft_common::slot::Output;

const GUEST: [u8; 4] = [10, 0, 2, 77];

/// Requests for an address among what was sent.
fn requests(injected: &[Injected], address: [u8; 4]) -> usize {
    let asks =
        |it: &&Injected| it.packet.frame[12..14] == [8, 6] && it.packet.frame[38..42] == address;
    injected.iter().filter(asks).count()
}

fn numbered(rig: &Rig, address: [u8; 4], number: u8) -> Vec<u8> {
    let address = Ipv4Addr::from(address);
    let text = format!("icmp 10.0.1.11 > {address}");
    let mut frame = rig.frame("web/near", &text);
    *frame.last_mut().unwrap() = number;
    frame
}

/// The guest says where it is.
fn answer(rig: &mut Rig) {
    let router = rig.mac("core/db");
    rig.send(
        "db/guest",
        &arp_reply(STRANGER, GUEST, router, [10, 0, 2, 1]),
    );
}

#[test]
fn packets_wait_for_the_answer_and_go_in_order() {
    let mut rig = Rig::new();
    for number in 0..10 {
        rig.send("web/near", &numbered(&rig, GUEST, number));
    }
    let asked = rig.injected();
    assert_eq!(
        (asked.len(), requests(&asked, GUEST)),
        (1, 1),
        "one question for all: {asked:?}"
    );
    let bound = WAITING_PER_NEIGHBOUR_MAX as u8;
    assert_eq!(
        rig.drops("web/near", DropReason::WaitingFull),
        u64::from(10 - bound)
    );
    answer(&mut rig);
    let sent = rig.injected();
    let numbers = sent.iter().map(|it| *it.packet.frame.last().unwrap());
    let expected: Vec<u8> = (0..bound).collect();
    assert_eq!(numbers.take(bound.into()).collect::<Vec<u8>>(), expected);
    let slot = sent[0].slot.unwrap();
    assert_eq!(
        (slot.output, slot.port, slot.dst_mac),
        (Output::Local as u8, rig.index("db/guest"), STRANGER.0)
    );
    assert_eq!(rig.engine.waiting.packets, 0);
    let neighbour = StateEntry::Neighbour {
        router_port: rig.id("core/db"),
        address: GUEST.into(),
        mac: STRANGER,
    };
    assert!(rig.published().put.contains(&neighbour));
    // Now there can be a flow.
    let next = numbered(&rig, GUEST, 11);
    rig.send("web/near", &next);
    assert!(rig.forward("web/near", &next).is_some());
}

#[test]
fn an_answer_that_another_host_heard_counts() {
    let mut rig = Rig::new();
    rig.send("web/near", &numbered(&rig, GUEST, 1));
    rig.injected();
    let guest = rig.id("db/guest");
    rig.heard(&StateEntry::Mac {
        bridge: rig.bridge_id("db"),
        mac: STRANGER,
        port: guest,
    });
    assert_eq!(rig.injected().len(), 0);
    rig.heard(&StateEntry::Neighbour {
        router_port: rig.id("core/db"),
        address: GUEST.into(),
        mac: STRANGER,
    });
    assert_eq!(rig.injected().len(), 1);
}

#[test]
fn what_nobody_answers_is_asked_again_and_then_refused_by_name() {
    let mut rig = Rig::new();
    rig.send("web/near", &numbered(&rig, GUEST, 1));
    rig.send("web/near", &numbered(&rig, GUEST, 2));
    for _ in 0..3 {
        rig.engine.tick();
    }
    let sent = rig.injected();
    // Both senders are told.
    assert_eq!((sent.len(), requests(&sent, GUEST)), (5, 3));
    assert_eq!(rig.drops("web/near", DropReason::NextHopUnresolved), 2);
    assert_eq!(rig.engine.waiting.packets, 0);
    rig.engine.tick();
    assert_eq!(rig.injected().len(), 0);
}

#[test]
fn a_change_elsewhere_does_not_lengthen_the_wait_nor_ask_again() {
    let mut rig = Rig::new();
    rig.send("web/near", &numbered(&rig, GUEST, 1));
    rig.injected();
    for key in [30, 31, 32] {
        rig.live_on_h2("lab/far", super::key(key, 1));
        rig.topology();
        assert_eq!(rig.injected().len(), 0);
        rig.engine.tick();
        rig.injected();
    }
    assert_eq!(rig.drops("web/near", DropReason::NextHopUnresolved), 1);
}

#[test]
fn what_the_router_can_answer_by_now_is_answered() {
    let mut rig = Rig::new();
    rig.send("web/near", &numbered(&rig, GUEST, 1));
    rig.injected();
    rig.change("core/db", |port| {
        port.addresses = vec!["10.0.2.77/24".parse().unwrap()];
    });
    rig.topology();
    let sent = rig.injected();
    let slot = sent[0].slot.unwrap();
    assert_eq!((sent.len(), slot.port), (1, rig.index("web/near")));
}

#[test]
fn all_that_wait_are_bounded_and_so_are_the_questions() {
    let mut rig = Rig::new();
    // A /16, so that there are enough addresses to scan.
    rig.change("core/db", |port| {
        port.addresses = vec!["10.1.0.1/16".parse().unwrap()];
    });
    rig.topology();
    let neighbours = 2 * WAITING_MAX as u32;
    for number in 0..neighbours {
        let [_, _, high, low] = number.to_be_bytes();
        rig.send("web/near", &numbered(&rig, [10, 1, 8 + high, low], 0));
    }
    assert_eq!(rig.engine.waiting.packets, WAITING_MAX);
    assert_eq!(
        rig.drops("web/near", DropReason::WaitingFull),
        u64::from(neighbours) - WAITING_MAX as u64
    );
    assert_eq!(rig.injected().len(), WAITING_MAX);
    for _ in 0..3 {
        rig.engine.tick();
    }
    assert_eq!(rig.engine.waiting.packets, 0);
}

#[test]
fn the_port_that_takes_most_of_the_room_gives_way() {
    let mut rig = Rig::new();
    rig.change("core/db", |port| {
        port.addresses.push("10.1.0.1/16".parse().unwrap());
    });
    rig.topology();
    for number in 0..WAITING_MAX as u32 {
        let [_, _, high, low] = number.to_be_bytes();
        rig.send("web/near", &numbered(&rig, [10, 1, 8 + high, low], 0));
    }
    let asked = [10, 0, 1, 99];
    rig.injected();
    let frame = rig.frame("db/near", "icmp 10.0.2.11 > 10.0.1.99");
    rig.send("db/near", &frame);
    assert_eq!(requests(&rig.injected(), asked), 1);
    assert_eq!(rig.drops("db/near", DropReason::WaitingFull), 0);
    assert_eq!(rig.drops("web/near", DropReason::WaitingFull), 1);
    assert_eq!(rig.engine.waiting.packets, WAITING_MAX);
    // As many as a next hop may have, and no queue is left over.
    for _ in 0..2 * WAITING_PER_NEIGHBOUR_MAX {
        rig.send("db/near", &frame);
    }
    let bound = WAITING_PER_NEIGHBOUR_MAX as u64;
    assert_eq!(rig.drops("web/near", DropReason::WaitingFull), bound);
    for _ in 0..3 {
        rig.engine.tick();
    }
    assert_eq!(rig.engine.waiting.packets, 0);
}

#[test]
fn who_does_not_answer_is_asked_less_and_less_often() {
    let mut rig = Rig::new();
    let mut asked_at = Vec::new();
    for now in 0..60 {
        rig.send("web/near", &numbered(&rig, GUEST, 1));
        rig.engine.retry_waiting(now);
        if requests(&rig.injected(), GUEST) > 0 {
            asked_at.push(now);
        }
    }
    let pauses: Vec<u64> = asked_at.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let long: Vec<u64> = pauses.into_iter().filter(|pause| *pause > 1).collect();
    // Three seconds of asking, then pauses: each twice as long as the one before, up to a bound.
    assert_eq!(long.len(), 4, "{asked_at:?}");
    assert!(long[0] < long[1] && long[1] < long[2], "{long:?}");
    assert!(long[2] == long[3], "{long:?}");
    // Meanwhile the sender hears of its packets at once, and nobody is asked.
    assert_eq!(rig.engine.waiting.packets, 0);
    answer(&mut rig);
    rig.send("web/near", &numbered(&rig, GUEST, 2));
    let sent = rig.injected();
    assert!(sent.iter().any(|it| it.packet.frame.last() == Some(&2)));
    rig.engine.retry_waiting(60);
    assert!(rig.engine.waiting.is_forgotten(), "an answer ends it");
}
