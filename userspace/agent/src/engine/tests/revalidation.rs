//! What a change does to the flows that are there.

use super::*;
use weft_common::slot::Output;
use weft_vnet::{Route, RouteAction};

impl Rig {
    fn route(&mut self, to: &str, action: RouteAction) {
        let mut routers = self.model.routers.values();
        let mut router = Router::clone(routers.next().unwrap());
        router.routes.push(Route {
            to: to.parse().unwrap(),
            from: None,
            action,
            weight: 100,
        });
        self.put(Object::Router(router));
        self.topology();
    }
}

#[test]
fn a_change_that_does_not_concern_a_flow_leaves_it_alone() {
    let mut rig = Rig::new();
    let frame = rig.frame("web/near", "icmp 10.0.1.11 > 10.0.1.12");
    rig.send("web/near", &frame);
    let before = rig.forward("web/near", &frame);
    assert!(before.is_some());
    rig.datapath().log.clear();
    rig.route("198.51.100.0/24", RouteAction::Blackhole);
    rig.live_on_h2("lab/far", key(20, 1));
    rig.change("web/near", |port| port.name = "renamed".into());
    rig.topology();
    assert_eq!(rig.forward("web/renamed", &frame), before);
    assert_eq!(rig.datapath().log, []);
}

#[test]
fn a_change_that_concerns_a_flow_and_changes_nothing_leaves_it_alone() {
    let mut rig = Rig::new();
    let frame = rig.frame("web/near", "icmp 10.0.1.11 > 10.0.2.11");
    rig.send("web/near", &frame);
    let before = rig.forward("web/near", &frame);
    // A mask that stays: the route is as far away as others.
    rig.route("192.0.2.0/24", RouteAction::Blackhole);
    rig.route("192.0.3.0/24", RouteAction::Blackhole);
    assert!(before.is_some());
    assert_eq!(rig.forward("web/near", &frame), before);
}

#[test]
fn a_changed_decision_is_another_slot() {
    let mut rig = Rig::new();
    let frame = rig.frame("web/near", "icmp 10.0.1.11 > 10.0.1.12");
    rig.send("web/near", &frame);
    let before = rig.forward("web/near", &frame).unwrap();
    let flow = rig.engine.table.iter().next().unwrap().id;
    rig.live_on_h2("web/far", key(9, 2));
    rig.topology();
    let after = rig.forward("web/near", &frame).unwrap();
    assert_eq!(
        (before.tunnel_key, after.tunnel_key),
        (key(9, 1).bits(), key(9, 2).bits())
    );
    assert_ne!(before.generation, after.generation);
    assert_eq!(rig.engine.table.iter().next().unwrap().id, flow);
}

#[test]
fn a_port_that_goes_down_turns_flows_into_drops() {
    let mut rig = Rig::new();
    let frame = rig.frame("web/near", "icmp 10.0.1.11 > 10.0.1.12");
    rig.send("web/near", &frame);
    rig.change("web/far", |port| port.admin_up = false);
    rig.topology();
    let slot = rig.forward("web/near", &frame).unwrap();
    assert_eq!(
        (slot.output, slot.drop_reason),
        (Output::Drop as u8, DropReason::PortDown as u8)
    );
}

#[test]
fn a_flow_whose_source_must_be_learned_again_is_removed() {
    let mut rig = Rig::new();
    let frame = rig.raw(STRANGER, FRIEND, 1);
    rig.send("lab/one", &frame);
    assert!(rig.forward("lab/one", &frame).is_some());
    let update = rig.settle();
    let gone = owned("h1", &update.put[0]);
    rig.state(StateChange::Remove(gone));
    assert_eq!(rig.forward("lab/one", &frame), None);
    rig.send("lab/one", &frame);
    assert!(
        rig.forward("lab/one", &frame).is_some(),
        "learned and installed again"
    );
}

#[test]
fn a_flow_under_another_mask_is_removed() {
    let mut rig = Rig::new();
    let via = RouteAction::Via("10.0.2.11".parse().unwrap());
    rig.route("198.51.0.0/16", via);
    let [low, high] = ["198.51.1.1", "198.51.200.1"]
        .map(|address| rig.frame("web/near", &format!("icmp 10.0.1.11 > {address}")));
    rig.send("web/near", &low);
    assert!(
        rig.forward("web/near", &high).is_some(),
        "one flow for all of the route"
    );
    // The first packet goes where it went, but others of its flow don't.
    rig.route("198.51.128.0/17", RouteAction::Blackhole);
    assert_eq!(rig.forward("web/near", &high), None);
    rig.send("web/near", &high);
    rig.send("web/near", &low);
    let reason = |slot: Option<Slot>| slot.unwrap().drop_reason;
    assert_eq!(reason(rig.forward("web/near", &low)), 0);
    let blackhole = DropReason::BlackholeRoute as u8;
    assert_eq!(reason(rig.forward("web/near", &high)), blackhole);
}

#[test]
fn a_change_decides_again_only_what_it_concerns() {
    let mut rig = Rig::new();
    let (near, far) = (rig.mac("web/near"), rig.mac("web/far"));
    // Ten floods that nobody's port decides, one flow to a port, one over the router.
    for last in 0..10 {
        rig.send("web/near", &rig.raw(near, Mac([2, 7, 7, 7, 7, last]), 1));
    }
    rig.send("web/near", &rig.raw(near, far, 1));
    let routed = rig.frame("web/near", "icmp 10.0.1.11 > 10.0.2.11");
    rig.send("web/near", &routed);
    assert_eq!(rig.engine.table.len(), 12);
    let decided = |rig: &mut Rig, change: &mut dyn FnMut(&mut Rig)| {
        let before = rig.engine.redecided;
        change(rig);
        rig.topology();
        rig.engine.redecided - before
    };
    let moved = decided(&mut rig, &mut |rig| rig.live_on_h2("web/far", key(9, 3)));
    // A flood goes to that port, too; the routed flow has nothing to do with it.
    assert_eq!(moved, 11);
    let routes = &mut |rig: &mut Rig| rig.route("198.51.100.0/24", RouteAction::Blackhole);
    assert_eq!(decided(&mut rig, routes), 1);
    let renamed = &mut |rig: &mut Rig| rig.change("web/near", |port| port.name = "other".into());
    assert_eq!(decided(&mut rig, renamed), 0);
    let elsewhere = &mut |rig: &mut Rig| rig.live_on_h2("lab/far", key(21, 1));
    assert_eq!(decided(&mut rig, elsewhere), 0);
}
