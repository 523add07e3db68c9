//! What a judged walk says of chains, beside the one without. No state; run by cargo.

use crate::fixture::Topology;
use crate::model::Object;
use crate::policy::{
    Action, AddressGroup, AddressMatch, Chain, Conditions, Connection, Group, PortRange, Rule,
    RuleRef,
};
use crate::{
    AddressGroupId, Cause, ChainId, Entry, NoTrace, Outcome, Packet, Step, Verdict, simulate,
    simulate_judged,
};
use uuid::Uuid;
use weft_common::DropReason;

const TO_DB: ChainId = ChainId(Uuid::from_u128(0x1000));
const FROM_WEB: ChainId = ChainId(Uuid::from_u128(0x1001));
const OFFICE: AddressGroupId = AddressGroupId(Uuid::from_u128(0x2000));

/// `db/db-1` takes TCP to port 80 from the office, which is `web/web-1`, and what is established; it rejects the rest of
/// TCP and drops all else. `web/web-1` sends no UDP.
fn filtered() -> Topology {
    let mut topology = Topology::two_subnets();
    let tenant = *topology.model.tenants.keys().next().unwrap();
    let rule = |matches, action, log: Option<&str>| Rule {
        matches,
        action,
        log: log.map(str::to_owned),
        ..Rule::default()
    };
    let any = Conditions::default;
    let tcp = |src, dst_port| Conditions {
        protocol: Some(vec![6]),
        src,
        dst_port,
        ..any()
    };
    let port = PortRange {
        first: 80,
        last: 80,
    };
    let office = AddressMatch::Group(Group::Addresses(OFFICE));
    let established = Conditions {
        state: Some(vec![Connection::Established]),
        ..any()
    };
    let to_db = vec![
        rule(established, Action::Accept, None),
        rule(
            tcp(Some(vec![office]), Some(vec![port])),
            Action::Accept,
            Some("web"),
        ),
        rule(tcp(None, None), Action::Reject, None),
        rule(any(), Action::Drop, None),
    ];
    let no_udp = Conditions {
        protocol: Some(vec![17]),
        ..any()
    };
    let from_web = vec![rule(no_udp, Action::Drop, None)];
    let chain = |id, name: &str, rules| {
        Object::Chain(Chain {
            id,
            tenant,
            name: name.into(),
            rules,
        })
    };
    let group = AddressGroup {
        id: OFFICE,
        tenant,
        name: "office".into(),
        prefixes: vec!["10.0.1.11/32".parse().unwrap()],
    };
    topology.put(vec![
        chain(TO_DB, "to-db", to_db),
        chain(FROM_WEB, "from-web", from_web),
        Object::AddressGroup(group),
    ]);
    topology.change("db/db-1", |port| port.egress = vec![TO_DB]);
    topology.change("web/web-1", |port| port.ingress = vec![FROM_WEB]);
    topology
}

fn judged(
    topology: &Topology,
    from: &str,
    text: &str,
    state: Connection,
) -> (Outcome, Vec<String>) {
    let frame = topology.frame(from, text);
    let packet = Packet::parse(Entry::Workload(topology.id(from)), 1, &frame, None).unwrap();
    let mut steps: Vec<Step> = Vec::new();
    let snapshot = topology.snapshot();
    let outcome = simulate_judged(&snapshot, &topology.state, &packet, state, &mut steps);
    let plain = simulate(&snapshot, &topology.state, &packet, 0, &mut NoTrace);
    // Flows know no chains.
    assert_eq!(plain.verdict, Verdict::Deliver(topology.id("db/db-1")));
    if outcome.install {
        assert_eq!(outcome, plain);
    }
    let chains = steps.iter().filter(|it| it.text.contains("gress: "));
    (outcome.clone(), chains.map(ToString::to_string).collect())
}

fn by(chain: ChainId, rule: u32) -> Option<Cause> {
    Some(Cause::Rule(RuleRef { chain, rule }))
}

#[test]
fn chain_and_rule_are_told_where_the_packet_enters_and_where_it_is_delivered() {
    let topology = filtered();
    let say = |text: &str, state| judged(&topology, "web/web-1", text, state);
    let (outcome, steps) = say("tcp 10.0.1.11:40000 > 10.0.2.11:80", Connection::New);
    assert_eq!(outcome.verdict, Verdict::Deliver(topology.id("db/db-1")));
    let expected = [
        "port web/web-1: ingress: no rule decides: accept",
        "port db/db-1: egress: chain to-db, rule 2 logs as `web`",
        "port db/db-1: egress: chain to-db, rule 2: accept",
    ];
    assert_eq!(steps, expected);

    let (outcome, steps) = say("icmp 10.0.1.11 > 10.0.2.11", Connection::New);
    let drop = |reason, cause| Verdict::Drop { reason, cause };
    assert_eq!(
        outcome.verdict,
        drop(DropReason::PolicyEgress, by(TO_DB, 3))
    );
    assert!(!outcome.install);
    assert_eq!(steps[1], "port db/db-1: egress: chain to-db, rule 4: drop");

    let (outcome, steps) = say("icmp 10.0.1.11 > 10.0.2.11", Connection::Established);
    assert_eq!(outcome.verdict, Verdict::Deliver(topology.id("db/db-1")));
    assert_eq!(
        steps[1],
        "port db/db-1: egress: chain to-db, rule 1: accept"
    );

    let (outcome, steps) = say("tcp 10.0.1.11:40000 > 10.0.2.11:22", Connection::New);
    let (reason, cause) = (DropReason::PolicyEgress, by(TO_DB, 2));
    assert_eq!(outcome.verdict, Verdict::Refuse { reason, cause });
    assert_eq!(
        steps[1],
        "port db/db-1: egress: chain to-db, rule 3: reject"
    );

    let (outcome, steps) = say("udp 10.0.1.11:40000 > 10.0.2.11:53", Connection::New);
    assert_eq!(
        outcome.verdict,
        drop(DropReason::PolicyIngress, by(FROM_WEB, 0))
    );
    assert_eq!(
        steps,
        ["port web/web-1: ingress: chain from-web, rule 1: drop"]
    );
}

#[test]
fn what_the_network_makes_counts_as_a_reply() {
    let topology = filtered();
    let frame = topology.frame("web/web-1", "icmp 10.0.1.11 > 10.0.2.11");
    // Out of the bridge's port to its workload.
    let entry = Entry::Device(topology.id("db/db-1"));
    let packet = Packet::parse(entry, 0, &frame, None).unwrap();
    let snapshot = topology.snapshot();
    let outcome = simulate_judged(
        &snapshot,
        &topology.state,
        &packet,
        Connection::New,
        &mut NoTrace,
    );
    assert_eq!(outcome.verdict, Verdict::Deliver(topology.id("db/db-1")));
}
