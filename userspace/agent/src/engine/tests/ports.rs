//! Bound ports: interfaces that come and go, keys that stay or don't come back.

use super::recorder::Event;
use super::*;
use weft_api::PortState;
use weft_common::port::PortKind;

impl Rig {
    fn activity_of(&self, path: &str) -> StateEntry {
        StateEntry::PortActivity {
            port: self.id(path),
            host: self.host("h1"),
            tunnel_key: self.key_of(path).bits(),
        }
    }

    /// Another agent, with the kernel and the store as this one leaves them.
    pub(super) fn restart(&mut self) {
        let mut kernel = std::mem::take(self.datapath());
        kernel.log.clear();
        let generation = |index| kernel.read_port(index).unwrap().generation;
        let ports = PortTable::new(generation, 0);
        let (updates, updates_out) = mpsc::unbounded_channel();
        let config = EngineConfig {
            host: "h1".into(),
            underlay_interfaces: vec!["eth1".into()],
            xdp: weft_datapath::XdpUse::default(),
            tunnel_options: super::TunnelOptions::default(),
            flows_max: None,
            flow_idle_secs: None,
        };
        let (flows, remotes) = (FlowTable::new(1000), watch::channel(Vec::new()).0);
        self.engine = Engine::new(config, kernel, flows, ports, updates, remotes);
        self.updates = updates_out;
    }

    fn key_of(&self, path: &str) -> TunnelKey {
        self.engine.ports.bound[&self.id(path)].key
    }

    fn state_of(&self, path: &str) -> PortState {
        let id = self.id(path).to_string();
        let ports = self.engine.report_ports();
        ports.into_iter().find(|port| port.id == id).unwrap().state
    }
}

#[test]
fn an_interface_that_vanishes_and_comes_back() {
    let mut rig = Rig::new();
    let (key, index) = (rig.key_of("web/near"), rig.index("web/near"));
    assert_eq!(rig.state_of("web/near"), PortState::Active);
    rig.remove_interface("web-near");
    rig.look();
    assert_eq!(rig.state_of("web/near"), PortState::Waiting);
    assert_eq!(rig.key_of("web/near"), key);
    let update = rig.settle();
    assert!(update.remove.contains(&rig.activity_of("web/near")));
    assert!(rig.datapath().log.contains(&Event::Detached(index)));
    let record = rig.record("web/near");
    assert_eq!((record.ifindex, record.generation), (0, key.generation));
    assert_eq!(record.kind, PortKind::Port as u8);
    rig.add_interface("web-near", 777);
    rig.look();
    assert_eq!(rig.state_of("web/near"), PortState::Active);
    assert_eq!(rig.key_of("web/near"), key);
    let record = rig.record("web/near");
    assert_eq!((record.ifindex, record.generation), (777, key.generation));
    assert!(rig.settle().put.contains(&rig.activity_of("web/near")));
}

#[test]
fn flows_to_a_port_without_an_interface_drop_until_it_is_back() {
    let mut rig = Rig::new();
    let frame = rig.frame("web/near", "icmp 10.0.1.11 > 10.0.2.11");
    rig.send("web/near", &frame);
    rig.remove_interface("db-near");
    rig.look();
    let slot = rig.forward("web/near", &frame).unwrap();
    assert_eq!(slot.drop_reason, DropReason::OutputGone as u8);
    rig.settle();
    let slot = rig.forward("web/near", &frame).unwrap();
    assert_eq!(slot.drop_reason, DropReason::PortUnbound as u8);
    rig.add_interface("db-near", 778);
    rig.look();
    let slot = rig.forward("web/near", &frame).unwrap();
    assert_eq!((slot.drop_reason, slot.port), (0, rig.index("db/near")));
}

#[test]
fn an_interface_that_was_made_anew_is_attached_anew() {
    let mut rig = Rig::new();
    rig.add_interface("web-near", 779);
    rig.look();
    assert_eq!(rig.record("web/near").ifindex, 779);
    assert_eq!(rig.state_of("web/near"), PortState::Active);
}

#[test]
fn unbinding_gives_up_the_key_and_removes_the_flows() {
    let mut rig = Rig::new();
    let own = rig.frame("web/near", "icmp 10.0.1.11 > 10.0.1.12");
    rig.send("web/near", &own);
    let other = rig.frame("db/near", "icmp 10.0.2.11 > 10.0.1.11");
    rig.send("db/near", &other);
    assert_eq!(rig.engine.table.len(), 2);
    let (key, activity) = (rig.key_of("web/near"), rig.activity_of("web/near"));
    let own = rig.key("web/near", &own);
    rig.change("web/near", |port| port.binding = None);
    rig.topology();
    assert_eq!(rig.datapath().fake.forward(&own), None);
    assert_eq!(rig.engine.table.len(), 1, "the other port's flow stays");
    let record = rig.datapath().read_port(key.index).unwrap();
    let expected = PortRecord {
        generation: key.generation,
        ..PortRecord::default()
    };
    assert_eq!(record, expected);
    assert!(rig.settle().remove.contains(&activity));
    assert_eq!(rig.state_of("web/near"), PortState::Unbound);
    rig.bind("web/near", "h1");
    rig.topology();
    rig.look();
    assert_ne!(rig.key_of("web/near"), key);
}

#[test]
fn a_port_that_is_bound_to_another_interface_gets_another_key() {
    let mut rig = Rig::new();
    let key = rig.key_of("web/near");
    rig.add_interface("other", 780);
    rig.look();
    rig.change("web/near", |port| {
        port.binding.as_mut().unwrap().interface = "other".into();
    });
    rig.topology();
    assert_eq!(rig.record("web/near").ifindex, 780);
    assert_ne!(rig.key_of("web/near"), key);
    let activity = rig.activity_of("web/near");
    assert_eq!(rig.published().put.last(), Some(&activity));
}

#[test]
fn the_key_of_an_earlier_agent_is_taken_over() {
    let mut rig = Rig::new();
    let key = rig.key_of("db/near");
    rig.restart();
    rig.topology();
    rig.look();
    assert_eq!(rig.key_of("db/near"), key);
    // And all of it is said again, for the update that replaces what the earlier agent said.
    assert!(rig.published().put.contains(&rig.activity_of("db/near")));
    let detached = |it: &Event| matches!(it, Event::Detached(_));
    assert!(!rig.datapath().log.iter().any(detached));
}

#[test]
fn a_port_that_was_set_down_while_no_agent_ran_is_let_go() {
    let mut rig = Rig::new();
    let key = rig.key_of("web/near");
    rig.restart();
    rig.change("web/near", |port| port.admin_up = false);
    rig.topology();
    rig.look();
    assert_eq!(rig.key_of("web/near"), key);
    assert_eq!(rig.record("web/near").ifindex, 0);
    assert!(rig.datapath().log.contains(&Event::Detached(key.index)));
}

#[test]
fn a_port_that_is_set_down_says_so() {
    let mut rig = Rig::new();
    let activity = rig.activity_of("web/near");
    rig.change("web/near", |port| port.admin_up = false);
    rig.topology();
    assert_eq!(rig.state_of("web/near"), PortState::Down);
    assert!(rig.published().remove.contains(&activity));
}

#[test]
fn attaching_is_tried_again() {
    let mut rig = Rig::new();
    rig.datapath().refuses_ports = true;
    rig.add_interface("web-near", 781);
    rig.look();
    let problems = rig.engine.report_status().problems;
    assert!(
        problems.iter().any(|it| it.contains("busy")),
        "{problems:?}"
    );
    rig.datapath().refuses_ports = false;
    rig.engine.tick();
    assert_eq!(rig.record("web/near").ifindex, 781);
    assert_eq!(rig.state_of("web/near"), PortState::Active);
}

/// What the kernel says of an interface is said of its port, with its traffic left alone.
#[test]
fn an_interface_that_is_down_or_without_a_far_end_is_said() {
    let mut rig = Rig::new();
    let record = rig.record("web/near");
    for (is_up, has_carrier, problem) in [
        (false, false, Some("its interface is down")),
        (
            true,
            false,
            Some("its interface has no carrier: nobody is at its other end"),
        ),
        (true, true, None),
    ] {
        let link = rig.network.links.get_mut("web-near").unwrap();
        (link.is_up, link.has_carrier) = (is_up, has_carrier);
        rig.look();
        let state = match problem {
            Some(_) => PortState::Down,
            None => PortState::Active,
        };
        assert_eq!(rig.state_of("web/near"), state, "{problem:?}");
        let told = problem.map(|it| format!("port web/near (interface web-near): {it}"));
        let mut problems = rig.engine.report_status().problems;
        problems.retain(|it| it.starts_with("port "));
        assert_eq!(problems, Vec::from_iter(told));
        let ping = weft_api::PingRequest {
            from: "web/near".into(),
            to: "db/near".into(),
            ..weft_api::PingRequest::default()
        };
        let planned = rig.engine.plan_ping(&ping, 1);
        assert_eq!(planned.is_ok(), problem.is_none());
        assert_eq!(rig.record("web/near"), record, "it is as live as it was");
    }
}

#[test]
fn an_underlay_interface_that_is_down_is_named() {
    let mut rig = Rig::new();
    rig.network.links.get_mut("eth1").unwrap().is_up = false;
    rig.network.paths.clear();
    rig.look();
    let problems = rig.engine.report_status().problems;
    let told = "underlay interface eth1 is down".to_owned();
    assert!(problems.contains(&told), "{problems:?}");
    for _ in 0..6 {
        rig.engine.probe_hosts();
        rig.pass(1);
    }
    let hosts = rig.engine.report_hosts();
    let problem = hosts[1].problem.as_ref().unwrap();
    let why = ": underlay interface eth1 is down";
    assert!(problem.ends_with(why), "{problem}");
}
