//! What the API is told.

use super::*;
use crate::store_sync::StoreHealth;
use weft_api::{Health, PortState, TraceRequest, TraceResponse};
use weft_vnet::ChainId;
use weft_vnet::policy::{Action, Chain, Conditions, Connection, Rule};

impl Rig {
    /// Everything that could be wrong isn't.
    fn healthy() -> Rig {
        let mut rig = Rig::new();
        rig.store(None);
        rig
    }

    fn store(&mut self, problem: Option<&str>) {
        self.engine.handle(Message::Store(StoreHealth {
            url: "embedded:x".into(),
            connected: problem.is_none(),
            problem: problem.map(str::to_owned),
            save_problem: None,
        }));
    }

    fn problems(&self) -> Vec<String> {
        let status = self.engine.report_status();
        let is_ok = status.state == Health::Ok;
        assert_eq!(is_ok, status.problems.is_empty());
        status.problems
    }

    fn trace(&self, from: &str, packet: &str) -> TraceResponse {
        let request = TraceRequest {
            from: from.into(),
            packet: Some(packet.into()),
            ..TraceRequest::default()
        };
        self.engine.trace(&request).unwrap()
    }
}

#[test]
fn drops_are_told_by_port_and_reason() {
    let mut rig = Rig::healthy();
    let index = rig.index("web/near");
    let dropped = &mut rig.datapath().dropped;
    dropped.insert(index, vec![(DropReason::PortDown, 2)]);
    dropped.insert(0, vec![(DropReason::WideTunnelKey, 5)]);
    let port = Some(rig.id("web/near"));
    rig.engine.count_drop(port, DropReason::PortDown);
    rig.engine.count_drop(port, DropReason::WaitingFull);
    rig.engine.count_drop(None, DropReason::NoTopology);
    let told = rig.engine.report_drops().into_iter();
    let mut told: Vec<_> = told
        .map(|it| (it.port.unwrap_or_default(), it.reason, it.packets))
        .collect();
    told.sort();
    let told: Vec<_> = told
        .iter()
        .map(|(port, reason, packets)| (&**port, &**reason, *packets))
        .collect();
    let expected = [
        ("", "no_topology", 1),
        ("", "wide_tunnel_key", 5),
        ("web/near", "port_down", 3),
        ("web/near", "waiting_full", 1),
    ];
    assert_eq!(told, expected);
}

#[test]
fn status_lists_what_is_wrong() {
    let mut rig = Rig::healthy();
    assert_eq!(rig.problems(), [""; 0]);
    rig.store(Some("no route to host"));
    rig.remove_interface("web-near");
    rig.remove_interface("eth1");
    rig.network.paths.get_mut(&H2).unwrap().next_hop_mac = None;
    rig.look();
    let expected = [
        "store embedded:x: no route to host",
        "underlay interface eth1 isn't attached: it doesn't exist",
        "port web/near (interface web-near): its interface doesn't exist",
        "host h2 (172.30.2.1) is resolving",
    ];
    assert_eq!(rig.problems(), expected);
}

#[test]
fn status_says_when_the_host_is_unknown() {
    let mut rig = Rig::healthy();
    rig.model = Model {
        revision: 7,
        ..Model::default()
    };
    rig.topology();
    let problems = rig.problems();
    let is_unknown = |it: &String| it.contains("isn't in the topology");
    assert!(problems.iter().any(is_unknown), "{problems:?}");
    // A store into which nothing has been put yet is no problem.
    rig.model = Model::default();
    rig.topology();
    assert!(!rig.problems().iter().any(is_unknown));
}

#[test]
fn a_port_that_is_set_down_is_no_problem() {
    let mut rig = Rig::healthy();
    rig.change("web/near", |port| port.admin_up = false);
    rig.topology();
    assert_eq!(rig.problems(), [""; 0]);
}

#[test]
fn ports_are_told_with_their_state() {
    let mut rig = Rig::healthy();
    rig.port("web/free", &[]);
    rig.topology();
    let state = |path: &str| {
        let ports = rig.engine.report_ports();
        ports.into_iter().find(|it| it.name == path).unwrap().state
    };
    assert_eq!(state("web/near"), PortState::Active);
    assert_eq!(state("web/far"), PortState::Remote);
    assert_eq!(state("web/core"), PortState::Interior);
    assert_eq!(state("web/free"), PortState::Unbound);
}

#[test]
fn a_trace_says_what_stands_in_the_way_and_changes_nothing() {
    let mut rig = Rig::healthy();
    let text = "icmp 10.0.1.11 > 10.0.1.12";
    let traced = rig.trace("web/near", text);
    assert_eq!(traced.problems, [""; 0]);
    assert!(!traced.installed);
    rig.send("web/near", &rig.frame("web/near", text));
    assert!(rig.trace("web/near", text).installed);
    rig.network.paths.clear();
    rig.look();
    let traced = rig.trace("web/near", text);
    assert_eq!(traced.problems, ["host h2 (172.30.2.1) is unreachable"]);
    let far = rig.id("web/far");
    rig.activity.ports.remove(&far);
    rig.topology();
    let traced = rig.trace("web/near", text);
    assert!(
        traced.problems[0].starts_with("port web/far isn't live: interface web-far on host h2"),
        "{:?}",
        traced.problems
    );
    rig.remove_interface("web-near");
    rig.look();
    rig.settle();
    let traced = rig.trace("web/near", text);
    assert!(traced.problems[0].starts_with("port web/near isn't live"));
}

#[test]
fn a_trace_learns_and_sends_nothing() {
    let mut rig = Rig::healthy();
    let log = rig.datapath().log.len();
    rig.trace("db/guest", "arp 10.0.2.77 who-has 10.0.2.1");
    rig.trace("web/near", "icmp 10.0.1.11 > 10.0.2.77");
    assert_eq!(rig.datapath().log.len(), log);
    assert_eq!(rig.published(), StateUpdate::default());
    assert_eq!(rig.engine.state.entries().count(), 0);
    assert_eq!(rig.engine.waiting.packets, 0);
}

/// `web/near` sends no UDP, and `web/far` receives what is established only.
fn filtered() -> Rig {
    let mut rig = Rig::healthy();
    let tenant = rig.tenant();
    let rule = |matches, action| Rule {
        matches,
        action,
        ..Rule::default()
    };
    let any = Conditions::default;
    let udp = Conditions {
        protocol: Some(vec![17]),
        ..any()
    };
    let established = Conditions {
        state: Some(vec![Connection::Established]),
        ..any()
    };
    let answers = vec![rule(established, Action::Accept), rule(any(), Action::Drop)];
    let id = |number| ChainId(uuid::Uuid::from_u128(number));
    for (id, name, rules) in [
        (id(71), "no-udp", vec![rule(udp, Action::Drop)]),
        (id(72), "to-far", answers),
    ] {
        let name = name.into();
        rig.put(Object::Chain(Chain {
            id,
            tenant,
            name,
            rules,
        }));
    }
    rig.change("web/near", |port| port.ingress = vec![id(71)]);
    rig.change("web/far", |port| port.egress = vec![id(72)]);
    rig.topology();
    rig
}

#[test]
fn a_trace_names_chain_and_rule_and_a_port_s_own_chains_are_no_part_of_flows() {
    let rig = filtered();
    let sent = rig.trace("web/near", "udp 10.0.1.11:5 > 10.0.1.12:6");
    assert_eq!(sent.reason.as_deref(), Some("policy_ingress"));
    assert_eq!(sent.cause.as_deref(), Some("chain no-udp, rule 1"));
    assert!(
        sent.verdict
            .starts_with("dropped by chain no-udp, rule 1: "),
        "{}",
        sent.verdict
    );
    assert_eq!(
        (sent.matches, sent.actions, sent.egress),
        (None, None, None)
    );
    let last = sent.steps.iter().rev().nth(1).unwrap();
    assert_eq!(
        (last.device.as_str(), last.text.as_str()),
        ("port web/near", "ingress: chain no-udp, rule 1: drop")
    );

    // What the other host drops has a flow here.
    let icmp = "icmp 10.0.1.11 > 10.0.1.12";
    let sent = rig.trace("web/near", icmp);
    assert_eq!(sent.reason.as_deref(), Some("policy_egress"));
    assert_eq!(sent.cause.as_deref(), Some("chain to-far, rule 2"));
    assert!(sent.matches.is_some() && sent.actions.is_some());
    let request = TraceRequest {
        from: "web/near".into(),
        packet: Some(icmp.into()),
        state: Connection::Established,
        ..TraceRequest::default()
    };
    let answered = rig.engine.trace(&request).unwrap();
    assert_eq!(answered.verdict, "delivered to web/far");
    assert_eq!((answered.reason, answered.actions), (None, sent.actions));
}
