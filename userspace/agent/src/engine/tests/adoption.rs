//! What an earlier agent left is taken over without a packet being the worse for it.

use super::recorder::Event;
use super::*;
use weft_api::AdoptedStatus;
use weft_common::peer::address_bytes;
use weft_common::slot::Output;

/// More flows than any test has.
const ALL: usize = 1000;

impl Rig {
    /// The agent was killed, and another one knows everything.
    fn take_over(&mut self) {
        self.restart();
        self.topology();
        self.look();
    }

    fn published_events(&mut self) -> usize {
        let log = &self.datapath().log;
        let is_published = |event: &&Event| matches!(event, Event::Published(_));
        log.iter().filter(is_published).count()
    }
}

const TEXTS: [(&str, &str); 4] = [
    ("web/near", "icmp 10.0.1.11 > 10.0.1.12"),
    ("web/near", "icmp 10.0.1.11 > 10.0.2.11"),
    ("db/near", "icmp 10.0.2.11 > 10.0.1.12"),
    ("web/near", "icmp 10.0.1.11 > 192.0.2.1"),
];

#[test]
fn flows_go_on_untouched_and_are_this_agents() {
    let mut rig = Rig::new();
    let frames = TEXTS.map(|(port, text)| (port, rig.frame(port, text)));
    for (port, frame) in &frames {
        rig.send(port, frame);
    }
    let before = frames
        .each_ref()
        .map(|(port, frame)| rig.forward(port, frame));
    assert!(before.iter().all(Option::is_some));
    rig.take_over();
    let flows = rig.engine.table.len();
    let undecided = flows as u64;
    let adopted = AdoptedStatus {
        undecided,
        ..AdoptedStatus::default()
    };
    assert_eq!(rig.engine.report_status().adopted, adopted);
    assert!(!rig.engine.adopt_flows(ALL));
    let adopted = AdoptedStatus {
        kept: undecided,
        ..AdoptedStatus::default()
    };
    assert_eq!(rig.engine.report_status().adopted, adopted);
    let after = frames
        .each_ref()
        .map(|(port, frame)| rig.forward(port, frame));
    assert_eq!(after, before, "the same slots, with their generations");
    assert_eq!((rig.engine.table.len(), rig.published_events()), (flows, 0));
    // It knows why: a change that concerns them is followed.
    rig.change("db/near", |port| port.admin_up = false);
    rig.topology();
    let (port, frame) = &frames[1];
    let dropped = rig.forward(port, frame).unwrap();
    assert_eq!(dropped.drop_reason, DropReason::PortDown as u8);
}

#[test]
fn what_changed_while_no_agent_ran_is_followed_step_by_step() {
    let mut rig = Rig::new();
    let frames = TEXTS.map(|(port, text)| (port, rig.frame(port, text)));
    for (port, frame) in &frames {
        rig.send(port, frame);
    }
    rig.restart();
    rig.change("db/near", |port| port.admin_up = false);
    rig.topology();
    rig.look();
    let flows = rig.engine.adoption.undecided.len();
    assert!(flows >= frames.len());
    for left in (0..flows).rev() {
        rig.engine.adopt_flows(1);
        assert_eq!(rig.engine.adoption.undecided.len(), left);
    }
    assert!(!rig.engine.adopt_flows(1), "that was all");
    let adopted = rig.engine.report_status().adopted;
    assert_eq!(
        (adopted.kept + adopted.replaced) as usize,
        flows,
        "{adopted:?}"
    );
    assert!(adopted.replaced > 0 && adopted.removed == 0, "{adopted:?}");
    let (port, frame) = &frames[1];
    let dropped = rig.forward(port, frame).unwrap();
    assert_eq!(dropped.drop_reason, DropReason::PortDown as u8);
    let (port, frame) = &frames[0];
    let slot = rig.forward(port, frame).unwrap();
    assert_eq!(slot.output, Output::Tunnel as u8);
}

#[test]
fn new_flows_meanwhile_take_no_slot_that_is_in_use() {
    let mut rig = Rig::new();
    let old = rig.frame(TEXTS[0].0, TEXTS[0].1);
    rig.send(TEXTS[0].0, &old);
    let before = rig.forward(TEXTS[0].0, &old);
    rig.take_over();
    let new = rig.frame(TEXTS[2].0, TEXTS[2].1);
    rig.send(TEXTS[2].0, &new);
    let made = rig.forward(TEXTS[2].0, &new);
    assert!(made.is_some() && made != before);
    assert_eq!(rig.forward(TEXTS[0].0, &old), before);
    // A packet of an adopted flow that came up all the same goes the flow's way.
    rig.injected();
    rig.send(TEXTS[0].0, &old);
    assert_eq!(rig.injected()[0].slot, before);
    rig.engine.adopt_flows(ALL);
    assert_eq!(rig.forward(TEXTS[0].0, &old), before);
    assert_eq!(rig.forward(TEXTS[2].0, &new), made);
}

#[test]
fn a_decision_that_no_key_leads_to_is_taken_away() {
    let mut rig = Rig::new();
    let lost = Slot {
        generation: 77,
        ..Slot::default()
    };
    rig.datapath().fake.write_slot(500, &lost).unwrap();
    rig.take_over();
    let target = weft_common::SlotRef {
        slot: 500,
        generation: 77,
    };
    let packet = HeldPacket::made(vec![0; 60]);
    rig.injected();
    rig.datapath().fake.inject(target, 0, &packet).unwrap();
    assert_eq!(rig.injected()[0].slot, None);
}

#[test]
fn a_damaged_flow_is_withdrawn() {
    let mut rig = Rig::new();
    let frame = rig.frame(TEXTS[0].0, TEXTS[0].1);
    rig.send(TEXTS[0].0, &frame);
    let flow = rig.engine.table.iter().next().unwrap().clone();
    rig.restart();
    let mut damaged = flow.masked;
    damaged.head.tos = 0xff;
    let fake = &mut rig.datapath().fake;
    fake.publish(flow.family, &damaged, flow.target).unwrap();
    rig.topology();
    rig.look();
    let fake = &rig.datapath().fake;
    assert_eq!(fake.published(flow.family, &damaged).unwrap(), None);
    let whole = fake.published(flow.family, &flow.masked).unwrap();
    assert_eq!(whole, Some(flow.target));
}

#[test]
fn hosts_and_flood_lists_keep_their_numbers() {
    let mut rig = Rig::new();
    let frame = rig.frame(TEXTS[0].0, TEXTS[0].1);
    rig.send(TEXTS[0].0, &frame);
    let peers = rig.datapath().fake.remote_hosts.clone();
    let lists = rig.datapath().fake.flood_lists.clone();
    rig.restart();
    // A host that would be numbered first.
    let other = IpAddr::from([172, 30, 9, 1]);
    let host = Host {
        id: HostId(Uuid::from_u128(1)),
        name: "a0".into(),
        zones: [("default".to_owned(), other)].into(),
    };
    rig.put(Object::Host(host));
    rig.network.paths.insert(other, path_to(other));
    rig.network.asked.push(other);
    rig.topology();
    rig.look();
    let after = rig.datapath().fake.remote_hosts.clone();
    assert_eq!(after[&address_bytes(H2)], peers[&address_bytes(H2)]);
    assert_ne!(after[&address_bytes(other)], after[&address_bytes(H2)]);
    assert_eq!(
        rig.datapath().fake.flood_lists,
        lists,
        "none is written twice"
    );
    rig.engine.adopt_flows(ALL);
    let slot = rig.forward(TEXTS[0].0, &frame).unwrap();
    assert_eq!(slot.peer, peers[&address_bytes(H2)]);
}

#[test]
fn flows_of_a_port_that_is_gone_are_removed() {
    let mut rig = Rig::new();
    let frame = rig.frame(TEXTS[1].0, TEXTS[1].1);
    rig.send(TEXTS[1].0, &frame);
    let key = rig.key(TEXTS[1].0, &frame);
    rig.restart();
    rig.change("web/near", |port| port.binding = None);
    rig.topology();
    rig.look();
    rig.engine.adopt_flows(ALL);
    assert_eq!(rig.datapath().fake.forward(&key), None);
    assert!(
        rig.engine
            .table
            .iter()
            .all(|flow| flow.port != key.head.port)
    );
}

#[test]
fn after_a_reboot_ports_are_known_under_their_old_keys() {
    let mut rig = Rig::new();
    let before: Vec<TunnelKey> = ["db/near", "web/near"]
        .map(|path| rig.engine.ports.bound[&rig.id(path)].key)
        .into();
    // The kernel forgot everything but its interfaces.
    let fake = std::mem::take(&mut rig.datapath().fake);
    rig.datapath().fake.interfaces = fake.interfaces;
    rig.restart();
    rig.bind("web/far", "h1");
    rig.topology();
    rig.look();
    let after: Vec<TunnelKey> = ["db/near", "web/near"]
        .map(|path| rig.engine.ports.bound[&rig.id(path)].key)
        .into();
    assert_eq!(
        after, before,
        "what others still send arrives where it should"
    );
    let new = rig.engine.ports.bound[&rig.id("web/far")].key;
    assert!(!before.contains(&new));
}
