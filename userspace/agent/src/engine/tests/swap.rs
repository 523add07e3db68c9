//! What an agent of another ABI left forwards until it is rebuilt beside it.

use super::recorder::Event;
use super::*;
use weft_common::slot::Output;

/// More flows than any test has.
const ALL: usize = 1000;

const TEXTS: [(&str, &str); 4] = [
    ("web/near", "icmp 10.0.1.11 > 10.0.1.12"),
    ("web/near", "icmp 10.0.1.11 > 10.0.2.11"),
    ("db/near", "icmp 10.0.2.11 > 10.0.1.12"),
    ("web/near", "icmp 10.0.1.11 > 192.0.2.1"),
];

/// A port with a frame that comes from it.
type Sent = (&'static str, Vec<u8>);

/// A rig with flows for `TEXTS`, whose agent is replaced by one of another ABI that knows everything.
fn replaced(has_known_keys: bool) -> (Rig, [Sent; 4], Vec<Slot>) {
    let mut rig = Rig::new();
    let frames = TEXTS.map(|(port, text)| (port, rig.frame(port, text)));
    for (port, frame) in &frames {
        rig.send(port, frame);
    }
    let before = rig.decisions(&frames);
    rig.datapath().fake.set_aside(1, has_known_keys);
    rig.restart();
    rig.topology();
    rig.look();
    let before = before
        .into_iter()
        .map(|slot| slot.expect("a flow for each"));
    (rig, frames, before.collect())
}

impl Rig {
    /// What is done with each frame, whichever slot says so.
    fn decisions(&mut self, frames: &[Sent]) -> Vec<Option<Slot>> {
        let slots = frames.iter().map(|(port, frame)| {
            let slot = self.forward(port, frame)?;
            let generation = 0;
            Some(Slot { generation, ..slot })
        });
        slots.collect()
    }

    fn is_swapped(&mut self) -> bool {
        self.datapath().log.contains(&Event::Swapped)
    }

    fn swap_problem(&self) -> Option<String> {
        let problems = self.engine.report_status().problems.into_iter();
        let mut found = problems.filter(|problem| problem.contains("earlier weftd"));
        found.next()
    }
}

#[test]
fn flows_of_another_abi_are_rebuilt_and_then_swapped_in() {
    let (mut rig, frames, before) = replaced(true);
    let flows = rig.datapath().take_over().unwrap().other_abi.unwrap().keys;
    assert!(flows.len() >= frames.len());
    let problem = rig.swap_problem().expect("status says so");
    assert!(problem.contains("ABI 1"), "{problem}");
    for left in (0..flows.len()).rev() {
        assert!(rig.engine.adopt_flows(1));
        assert!(!rig.is_swapped(), "{left} flows are left");
        // The earlier programs go on, with their maps.
        let now: Vec<Slot> = rig.decisions(&frames).into_iter().flatten().collect();
        assert_eq!(now, before);
    }
    assert!(!rig.engine.adopt_flows(1), "that was all");
    assert!(rig.is_swapped());
    assert_eq!(rig.swap_problem(), None);
    let after: Vec<Slot> = rig.decisions(&frames).into_iter().flatten().collect();
    assert_eq!(after, before, "without a packet that came up");
    assert_eq!(rig.engine.table.len(), flows.len());
    // It knows why.
    rig.change("db/near", |port| port.admin_up = false);
    rig.topology();
    let (port, frame) = &frames[1];
    let dropped = rig.forward(port, frame).unwrap();
    assert_eq!(dropped.drop_reason, DropReason::PortDown as u8);
}

#[test]
fn flows_whose_keys_cannot_be_read_are_left_to_their_next_packets() {
    let (mut rig, frames, before) = replaced(false);
    rig.engine.adopt_flows(ALL);
    assert!(rig.is_swapped());
    assert!(rig.decisions(&frames).iter().all(Option::is_none));
    for (port, frame) in &frames {
        rig.send(port, frame);
    }
    let after: Vec<Slot> = rig.decisions(&frames).into_iter().flatten().collect();
    assert_eq!(after, before);
}

#[test]
fn ports_keep_their_keys_whether_the_other_abis_can_be_read_or_not() {
    let keys = |rig: &Rig| -> Vec<TunnelKey> {
        let bound = rig.engine.ports.bound.values();
        bound.map(|bound| bound.key).collect()
    };
    let untouched = keys(&Rig::new());
    for has_known_keys in [true, false] {
        assert_eq!(keys(&replaced(has_known_keys).0), untouched);
    }
}

#[test]
fn what_changed_while_no_agent_ran_is_decided_anew() {
    let mut rig = Rig::new();
    let frames = TEXTS.map(|(port, text)| (port, rig.frame(port, text)));
    for (port, frame) in &frames {
        rig.send(port, frame);
    }
    rig.datapath().fake.set_aside(1, true);
    rig.restart();
    rig.change("db/near", |port| port.admin_up = false);
    rig.topology();
    rig.look();
    let (port, frame) = &frames[1];
    assert_eq!(
        rig.forward(port, frame).unwrap().output,
        Output::Local as u8
    );
    rig.engine.adopt_flows(ALL);
    let dropped = rig.forward(port, frame).unwrap();
    assert_eq!(dropped.drop_reason, DropReason::PortDown as u8);
}

#[test]
fn a_port_that_is_refused_at_the_swap_is_tried_again() {
    let (mut rig, frames, _) = replaced(true);
    rig.datapath().refuses_ports = true;
    rig.engine.adopt_flows(ALL);
    assert!(rig.is_swapped(), "one port holds up nobody");
    let problems = rig.engine.report_status().problems;
    assert!(
        problems.iter().any(|it| it.contains("busy")),
        "{problems:?}"
    );
    assert_eq!(rig.engine.report_status().ports_active, 0);
    rig.datapath().refuses_ports = false;
    rig.engine.tick();
    assert!(rig.engine.report_status().ports_active > 0);
    let (port, frame) = &frames[0];
    let slot = rig.forward(port, frame).unwrap();
    assert_eq!(slot.output, Output::Tunnel as u8);
}

#[test]
fn what_cannot_be_put_away_is_said_and_tried_again() {
    let (mut rig, _, _) = replaced(true);
    rig.datapath().refuses_swap = true;
    rig.engine.adopt_flows(ALL);
    let problem = rig.swap_problem().expect("status says so");
    assert!(problem.contains("busy"), "{problem}");
    rig.datapath().refuses_swap = false;
    rig.engine.tick();
    assert!(rig.is_swapped());
    assert_eq!(rig.swap_problem(), None);
}

#[test]
fn hosts_are_not_probed_while_answers_would_go_to_the_earlier_programs() {
    let (mut rig, _, _) = replaced(true);
    rig.injected();
    rig.engine.probe_hosts();
    assert!(rig.injected().is_empty());
    rig.engine.adopt_flows(ALL);
    rig.engine.probe_hosts();
    assert!(!rig.injected().is_empty());
}
