//! What rules mean, by small policies. No state; run by cargo.

use super::super::testing::{
    addresses, always, arp, chain_id, in_groups, policy, port, prefixes, rule, sets, tcp,
};
use super::super::*;
use super::*;
use weft_common::Network;
use weft_common::frame::protocol;
use weft_common::key::class;

fn decide(
    policy: &Policy,
    hook: &[u128],
    view: &View,
    sets: &Sets,
) -> (Decision, Option<(u128, u32)>) {
    let hook: Vec<ChainId> = hook.iter().map(|it| chain_id(*it)).collect();
    let verdict = evaluate(&hook, policy, view, sets);
    let by = verdict.by.map(|it| (it.chain.0.as_u128(), it.rule));
    (verdict.decision, by)
}

fn to_port(number: u16) -> Conditions {
    Conditions {
        dst_port: port(number, number),
        ..Conditions::default()
    }
}

fn web() -> View {
    tcp("203.0.113.9", "10.0.0.1", 80)
}

#[test]
fn the_first_rule_that_matches_and_ends_counts() {
    let policy = policy(vec![vec![
        rule(to_port(22), Action::Reject),
        always(Action::Continue),
        rule(to_port(80), Action::Accept),
        always(Action::Drop),
    ]]);
    let sets = Sets::default();
    assert_eq!(
        decide(&policy, &[0], &web(), &sets),
        (Decision::Accept, Some((0, 2)))
    );
    let ssh = tcp("203.0.113.9", "10.0.0.1", 22);
    assert_eq!(
        decide(&policy, &[0], &ssh, &sets),
        (Decision::Reject, Some((0, 0)))
    );
}

#[test]
fn a_chain_that_ends_falls_to_the_next_and_after_the_last_packets_pass() {
    let policy = policy(vec![
        vec![always(Action::Return), always(Action::Drop)],
        vec![rule(to_port(80), Action::Reject)],
    ]);
    let sets = Sets::default();
    assert_eq!(
        decide(&policy, &[0, 1], &web(), &sets),
        (Decision::Reject, Some((1, 0)))
    );
    assert_eq!(
        decide(&policy, &[0], &web(), &sets),
        (Decision::Accept, None)
    );
    assert_eq!(
        decide(&policy, &[], &web(), &sets),
        (Decision::Accept, None)
    );
}

#[test]
fn return_goes_back_behind_the_jump() {
    let policy = policy(vec![
        vec![always(Action::Jump(chain_id(1))), always(Action::Drop)],
        vec![rule(to_port(80), Action::Return), always(Action::Accept)],
    ]);
    let sets = Sets::default();
    assert_eq!(
        decide(&policy, &[0], &web(), &sets),
        (Decision::Drop, Some((0, 1)))
    );
    let other = tcp("203.0.113.9", "10.0.0.1", 81);
    assert_eq!(
        decide(&policy, &[0], &other, &sets),
        (Decision::Accept, Some((1, 1)))
    );
}

#[test]
fn conditions_are_inverted_alone_and_together() {
    let from_office = Conditions {
        src: in_groups(&[addresses(1)]),
        ..Conditions::default()
    };
    let web_from_office = Conditions {
        dst_port: port(80, 80),
        ..from_office.clone()
    };
    let inverted = |not: Vec<Conditions>| {
        let drop = Rule {
            not,
            ..Rule::default()
        };
        policy(vec![vec![drop]])
    };
    let sets = sets(&[(addresses(1), "203.0.113.0/24")]);
    let dropped = |not: Vec<Conditions>, view: &View| {
        decide(&inverted(not), &[0], view, &sets).0 == Decision::Drop
    };
    let (office, ssh) = (web(), tcp("203.0.113.9", "10.0.0.1", 22));
    let stranger = tcp("192.0.2.1", "10.0.0.1", 80);
    assert!(!dropped(vec![from_office.clone()], &office));
    assert!(dropped(vec![from_office.clone()], &stranger));
    // Together: all but web from the office. Each alone: neither from the office nor web.
    assert!(!dropped(vec![web_from_office.clone()], &office));
    assert!(dropped(vec![web_from_office.clone()], &ssh));
    assert!(!dropped(vec![from_office.clone(), to_port(80)], &ssh));
    assert!(!dropped(vec![from_office, to_port(80)], &stranger));
}

#[test]
fn a_condition_on_what_a_packet_has_not_does_not_hold() {
    let mut ping = web();
    ping.key.head.protocol = protocol::ICMP;
    ping.key.head.l4_src = 0x0800;
    let later = View {
        upper_known: false,
        ..web()
    };
    let icmp = Conditions {
        icmp: Some(vec![IcmpMatch {
            kind: 8,
            code: None,
        }]),
        ..Conditions::default()
    };
    let all_ports = Conditions {
        dst_port: port(0, 65_535),
        ..Conditions::default()
    };
    let holds =
        |conditions: &Conditions, view: &View| super::holds(conditions, view, &Sets::default());
    assert!(holds(&icmp, &ping) && !holds(&icmp, &web()));
    assert!(holds(&all_ports, &web()));
    assert!(!holds(&all_ports, &ping) && !holds(&all_ports, &later));
}

#[test]
fn arp_is_matched_only_where_a_rule_names_it() {
    let ethertype = Conditions {
        ethertype: Some(vec![0x0806]),
        ..Conditions::default()
    };
    let sets = Sets::default();
    let default_deny = policy(vec![vec![always(Action::Drop)]]);
    assert_eq!(
        decide(&default_deny, &[0], &arp(), &sets),
        (Decision::Accept, None)
    );
    assert_eq!(decide(&default_deny, &[0], &web(), &sets).0, Decision::Drop);
    let named = policy(vec![vec![rule(ethertype.clone(), Action::Drop)]]);
    assert_eq!(decide(&named, &[0], &arp(), &sets).0, Decision::Drop);
    // By the jump that leads there, and behind one that names nothing.
    for (jump, end) in [
        (ethertype.clone(), Conditions::default()),
        (Conditions::default(), ethertype),
    ] {
        let policy = policy(vec![
            vec![rule(jump, Action::Jump(chain_id(1)))],
            vec![rule(end, Action::Drop)],
        ]);
        assert_eq!(
            decide(&policy, &[0], &arp(), &sets),
            (Decision::Drop, Some((1, 0)))
        );
    }
}

#[test]
fn discovery_and_dhcp_are_matched_only_where_a_rule_names_them() {
    let mut solicitation = web();
    solicitation.key.head.class = class(0, Network::Ipv6, Fragment::Whole);
    solicitation.key.head.protocol = protocol::ICMPV6;
    solicitation.key.head.l4_src = 135 << 8;
    let mut dhcp = tcp("0.0.0.0", "255.255.255.255", 67);
    dhcp.key.head.protocol = protocol::UDP;
    let sets = Sets::default();
    let by_protocol = Conditions {
        protocol: Some(vec![protocol::ICMPV6, protocol::UDP]),
        ..Conditions::default()
    };
    let by_type = Conditions {
        icmp: Some(vec![IcmpMatch {
            kind: 135,
            code: None,
        }]),
        ..Conditions::default()
    };
    for (view, naming) in [(solicitation, by_type), (dhcp, to_port(67))] {
        let dropped = |conditions: &Conditions| {
            let policy = policy(vec![vec![rule(conditions.clone(), Action::Drop)]]);
            decide(&policy, &[0], &view, &sets).0 == Decision::Drop
        };
        assert!(!dropped(&Conditions::default()) && !dropped(&by_protocol));
        assert!(dropped(&naming));
    }
}

#[test]
fn logs_are_written_in_order_whatever_the_action() {
    let logged = |action| Rule {
        log: Some("it".into()),
        ..always(action)
    };
    let policy = policy(vec![
        vec![logged(Action::Jump(chain_id(1))), logged(Action::Accept)],
        vec![
            always(Action::Log),
            rule(to_port(22), Action::Log),
            logged(Action::Return),
        ],
    ]);
    let verdict = evaluate(&[chain_id(0)], &policy, &web(), &Sets::default());
    let places: Vec<_> = verdict
        .logs
        .iter()
        .map(|it| (it.chain.0.as_u128(), it.rule))
        .collect();
    assert_eq!(places, [(0, 0), (1, 0), (1, 2), (0, 1)]);
}

#[test]
fn prefixes_of_both_families_are_asked() {
    let conditions = Conditions {
        dst: prefixes("fd00::/64 10.0.0.0/30"),
        ..Conditions::default()
    };
    let holds = |view: &View| super::holds(&conditions, view, &Sets::default());
    assert!(holds(&web()));
    assert!(!holds(&tcp("10.0.0.1", "10.0.0.4", 80)));
}

#[test]
fn a_loop_that_nobody_refused_ends() {
    let twice = || {
        vec![
            always(Action::Jump(chain_id(0))),
            always(Action::Jump(chain_id(0))),
        ]
    };
    let verdict = evaluate(
        &[chain_id(0)],
        &policy(vec![twice()]),
        &web(),
        &Sets::default(),
    );
    assert_eq!(verdict.decision, Decision::Drop);
    // Without a loop, but without an end as well.
    let double = |it: u128| {
        let jump = || always(Action::Jump(chain_id(it + 1)));
        vec![jump(), jump()]
    };
    let doubling = policy((0..25).map(double).collect());
    let verdict = evaluate(&[chain_id(0)], &doubling, &web(), &Sets::default());
    assert_eq!(verdict.decision, Decision::Drop);
}
