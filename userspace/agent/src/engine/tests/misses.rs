//! What a miss does: the order of slot, packets and flow; what is counted instead.

use super::recorder::Event;
use super::*;
use weft_common::SlotRef;
use weft_common::slot::Output;

/// The numbers that `raw` gave to frames.
fn numbers(injected: &[Injected]) -> Vec<u8> {
    let last = |it: &Injected| *it.packet.frame.last().unwrap();
    injected.iter().map(last).collect()
}

#[test]
fn packets_go_through_the_slot_before_the_flow_is_published() {
    let mut rig = Rig::new();
    let (near, far) = (rig.mac("web/near"), rig.mac("web/far"));
    let batch = [1, 2, 3].map(|number| rig.miss("web/near", rig.raw(near, far, number)));
    rig.engine.handle_misses(batch.into());
    let Some(&Event::Wrote(target)) = rig.datapath().log.first() else {
        panic!("no slot was written: {:?}", rig.datapath().log);
    };
    let sent = Event::Injected(target);
    let expected = [
        Event::Wrote(target),
        sent,
        sent,
        sent,
        Event::Published(target),
    ];
    assert_eq!(rig.datapath().log, expected);
    let injected = rig.injected();
    assert_eq!(numbers(&injected), [1, 2, 3]);
    let slot = injected[0].slot.unwrap();
    assert_eq!(
        (slot.output, slot.tunnel_key),
        (Output::Tunnel as u8, key(9, 1).bits())
    );
    assert_eq!(injected[0].port, rig.index("web/near"));
    let frame = rig.raw(near, far, 4);
    assert_eq!(rig.forward("web/near", &frame), Some(slot));
}

#[test]
fn what_came_up_before_the_flow_follows_it() {
    let mut rig = Rig::new();
    let (near, far) = (rig.mac("web/near"), rig.mac("web/far"));
    rig.send("web/near", &rig.raw(near, far, 1));
    let slot = rig.forward("web/near", &rig.raw(near, far, 2));
    rig.datapath().log.clear();
    rig.send("web/near", &rig.raw(near, far, 2));
    assert!(matches!(rig.datapath().log[..], [Event::Injected(_)]));
    assert_eq!(rig.injected()[1].slot, slot);
    assert_eq!(rig.engine.table.len(), 1);
}

#[test]
fn unknown_ports_and_generations_are_counted() {
    let mut rig = Rig::new();
    let frame = rig.frame("web/near", "icmp 10.0.1.11 > 10.0.1.12");
    let mut old = rig.miss("web/near", frame.clone());
    old.generation -= 1;
    let mut unknown = rig.miss("web/near", frame);
    unknown.port = 4000;
    rig.engine.handle_misses(vec![old, unknown]);
    let drops = &rig.engine.drops;
    assert_eq!(drops[&(None, DropReason::PortDown)], 2);
    assert_eq!((rig.engine.misses, rig.injected().len()), (2, 0));
}

#[test]
fn before_there_is_a_topology_misses_are_counted_as_that() {
    let mut rig = Rig::empty(None);
    let miss = Miss {
        port: 1,
        generation: 1,
        reason: MissReason::NoFlow as u8,
        packet: HeldPacket::made(rig.raw(FRIEND, STRANGER, 1)),
    };
    rig.engine.handle_misses(vec![miss]);
    assert_eq!(rig.engine.drops[&(None, DropReason::NoTopology)], 1);
}

#[test]
fn a_full_flow_table_still_forwards() {
    let mut rig = Rig::with_flows_max(Some(1));
    rig.send(
        "web/near",
        &rig.frame("web/near", "icmp 10.0.1.11 > 10.0.1.12"),
    );
    let frame = rig.frame("web/near", "icmp 10.0.1.11 > 10.0.2.11");
    rig.injected();
    for _ in 0..3 {
        rig.send("web/near", &frame);
    }
    let injected = rig.injected();
    let index = rig.index("db/near");
    let arrives = |it: &Injected| {
        it.slot
            .is_some_and(|slot| (slot.output, slot.port) == (Output::Local as u8, index))
    };
    assert_eq!((injected.len(), injected.iter().all(arrives)), (3, true));
    // The one that was there made room; nothing was dropped, and nobody has to be told.
    assert!(rig.forward("web/near", &frame).is_some());
    assert_eq!((rig.engine.table.len(), rig.engine.evicted), (1, 1));
    assert_eq!(rig.drops("web/near", DropReason::FlowTableFull), 0);
    assert_eq!(rig.engine.report_status().evicted, 1);
}

#[test]
fn what_finds_no_room_in_the_queue_is_counted_at_its_port() {
    let mut rig = Rig::new();
    let miss = rig.miss("web/near", Vec::new());
    rig.engine.refuse_miss(miss.port, miss.generation);
    rig.engine.refuse_miss(4000, 1);
    assert_eq!(rig.drops("web/near", DropReason::MissQueueFull), 1);
    assert_eq!(rig.engine.drops[&(None, DropReason::MissQueueFull)], 1);
    assert_eq!(rig.engine.misses, 2);
}

#[test]
fn slots_of_packets_without_a_flow_are_shared_and_retired() {
    let mut rig = Rig::new();
    let ping = rig.frame("web/near", "icmp 10.0.1.11 > 10.0.1.1 echo");
    rig.send("web/near", &ping);
    rig.send("web/near", &ping);
    let &[
        Event::Wrote(target),
        Event::Injected(first),
        Event::Injected(second),
    ] = &rig.datapath().log[..]
    else {
        panic!("{:?}", rig.datapath().log);
    };
    assert_eq!((first, second), (target, target));
    rig.pass(9);
    rig.engine.tick();
    rig.send("web/near", &ping);
    assert_eq!(rig.datapath().log.last(), Some(&Event::Injected(target)));
    rig.pass(10);
    rig.engine.tick();
    let retired = SlotRef {
        generation: 0,
        ..target
    };
    assert_eq!(rig.datapath().log.last(), Some(&Event::Wrote(retired)));
    rig.send("web/near", &ping);
    let target_now = rig.datapath().log.last().copied();
    assert!(matches!(target_now, Some(Event::Injected(now)) if now != target));
    assert!(rig.injected().iter().all(|it| it.slot.is_some()));
}

#[test]
fn what_one_packet_teaches_reaches_flows_of_the_same_batch() {
    let mut rig = Rig::new();
    let unknown = rig.raw(FRIEND, STRANGER, 1);
    let batch = vec![
        rig.miss("lab/one", unknown.clone()),
        rig.miss("lab/two", rig.raw(STRANGER, FRIEND, 2)),
    ];
    rig.engine.handle_misses(batch);
    let slot = rig.forward("lab/one", &unknown);
    let is_flood = slot.is_some_and(|slot| slot.output == Output::Flood as u8);
    assert!(!is_flood, "decided before the MAC was learned: {slot:?}");
}

#[test]
fn a_ttl_that_ends_is_answered_whatever_flow_there_is() {
    let mut rig = Rig::new();
    let text = "icmp 10.0.1.11 > 10.0.2.11";
    let long = rig.miss("web/near", rig.frame("web/near", text));
    let short = rig.frame("web/near", &format!("{text} ttl 1"));
    let short = rig.miss("web/near", short);
    rig.engine
        .handle_misses(vec![long.clone(), short.clone(), long]);
    let sent: Vec<u16> = rig
        .injected()
        .iter()
        .map(|it| it.slot.unwrap().port)
        .collect();
    let (near, other) = (rig.index("web/near"), rig.index("db/near"));
    assert_eq!(sent, [other, near, other]);
    assert_eq!(rig.engine.table.len(), 1);
}
