//! What is refused, in the words that a person reads. No state; run by cargo.

use super::super::testing::{
    addresses, always, chain_id, in_groups, policy, port, ports, rule, with_address_group,
};
use super::super::{DeviceCondition, PortGroup, Translation};
use super::*;
use crate::fixture::Topology;
use crate::id::{PortGroupId, TenantId};
use uuid::Uuid;

fn texts(refusals: &[Refusal]) -> Vec<String> {
    refusals.iter().map(Refusal::to_string).collect()
}

fn on_hook(policy: &Policy, hook: Hook) -> Vec<String> {
    texts(&validate_hook(
        policy,
        hook,
        &[chain_id(0)],
        &BTreeMap::new(),
    ))
}

fn jump(target: u128) -> Rule {
    always(Action::Jump(chain_id(target)))
}

#[test]
fn a_loop_is_refused_with_its_path() {
    let looping = policy(vec![vec![jump(1)], vec![always(Action::Log), jump(0)]]);
    let expected = "chains jump in a loop: a -> b -> a";
    assert_eq!(texts(&validate_chains(&looping)), [expected]);
    let itself = policy(vec![vec![], vec![jump(1)]]);
    assert_eq!(
        texts(&validate_chains(&itself)),
        ["chains jump in a loop: b -> b"]
    );
    // The way into a loop is no part of it.
    let behind = policy(vec![
        vec![jump(1)],
        vec![jump(2)],
        vec![jump(3)],
        vec![jump(1)],
    ]);
    let expected = "chains jump in a loop: b -> c -> d -> b";
    assert_eq!(texts(&validate_chains(&behind)), [expected]);
    // Two ways to the same end are no loop.
    let joined = policy(vec![vec![jump(1), jump(2)], vec![jump(2)], vec![]]);
    assert!(validate_chains(&joined).is_empty());
}

#[test]
fn chains_inside_each_other_are_bounded() {
    let line = |length: u128| {
        let chain = |it: u128| {
            if it + 1 < length {
                vec![jump(it + 1)]
            } else {
                vec![]
            }
        };
        policy((0..length).map(chain).collect())
    };
    assert!(validate_chains(&line(POLICY_DEPTH_MAX as u128)).is_empty());
    let expected = ["chain a: more than 32 chains inside each other by jumps"];
    assert_eq!(
        texts(&validate_chains(&line(POLICY_DEPTH_MAX as u128 + 1))),
        expected
    );
    // So many that a walk without a bound would need more stack than a thread has.
    let huge = line(200_000);
    assert_eq!(texts(&validate_chains(&huge)), expected);
    assert_eq!(
        on_hook(&huge, Hook::Ingress),
        ["the rules on one ingress hook have no end"]
    );
}

#[test]
fn names_of_nothing_are_refused() {
    let from = |group| {
        let conditions = Conditions {
            src: in_groups(&[group]),
            ..Conditions::default()
        };
        rule(conditions, Action::Drop)
    };
    let nil = |last: u8| format!("00000000-0000-0000-0000-00000000000{last}");
    let unknown = policy(vec![vec![jump(7), from(addresses(1)), from(ports(2))]]);
    let expected = [
        format!("chain a, rule 1: there is no chain {} to jump to", nil(7)),
        format!("chain a, rule 2: there is no address group {}", nil(1)),
        format!("chain a, rule 3: there is no port group {}", nil(2)),
    ];
    assert_eq!(texts(&validate_chains(&unknown)), expected);
    let known = with_address_group(policy(vec![vec![from(addresses(1))]]), 1);
    assert!(validate_chains(&known).is_empty());
    let refused = validate_hook(&known, Hook::Egress, &[chain_id(9)], &BTreeMap::new());
    assert_eq!(texts(&refused), [format!("there is no chain {}", nil(9))]);
}

#[test]
fn impossible_values_are_refused() {
    let conditions = Conditions {
        vlan: Some(VlanMatch::Id(4096)),
        dst_port: port(443, 80),
        ..Conditions::default()
    };
    let expected = [
        "chain a, rule 1: VLAN 4096: expected 0 to 4095",
        "chain a, rule 1: ports 443-80: expected the lower one first",
    ];
    let wrong = policy(vec![vec![rule(conditions, Action::Drop)]]);
    assert_eq!(texts(&validate_chains(&wrong)), expected);
}

#[test]
fn long_lists_are_refused() {
    let ports = |count: usize| {
        let conditions = Conditions {
            src_port: Some(vec![PortRange { first: 1, last: 2 }; count]),
            ..Conditions::default()
        };
        validate_chains(&policy(vec![vec![rule(conditions, Action::Drop)]]))
    };
    assert!(ports(POLICY_VALUES_MAX).is_empty());
    let expected =
        "chain a, rule 1: 257 values in one condition: expected at most 256, or an address group";
    assert_eq!(texts(&ports(POLICY_VALUES_MAX + 1)), [expected]);
    let not = |count: usize| {
        let inverted = Rule {
            not: vec![Conditions::default(); count],
            ..Rule::default()
        };
        texts(&validate_chains(&policy(vec![vec![inverted]])))
    };
    assert!(not(POLICY_NOT_MAX).is_empty());
    let expected = "chain a, rule 1: 17 items of `not`: expected at most 16";
    assert_eq!(not(POLICY_NOT_MAX + 1), [expected]);
    let group = |count| {
        let mut policy = with_address_group(policy(Vec::new()), 1);
        let group = policy.address_groups.values_mut().next().unwrap();
        Arc::make_mut(group).prefixes = vec!["10.0.0.0/8".parse().unwrap(); count];
        texts(&validate_chains(&policy))
    };
    assert!(group(ADDRESS_GROUP_MEMBERS_MAX).is_empty());
    let expected = "address group group1 has 100001 members: expected at most 100000";
    assert_eq!(group(ADDRESS_GROUP_MEMBERS_MAX + 1), [expected]);
}

#[test]
fn what_only_devices_do_and_know_is_refused_with_rule_and_reason() {
    let out_port = Conditions {
        device: vec![DeviceCondition::OutPort(Vec::new())],
        ..Conditions::default()
    };
    let inverted = Rule {
        not: vec![out_port],
        ..Rule::default()
    };
    let device = policy(vec![
        vec![jump(1)],
        vec![
            always(Action::Log),
            always(Action::Translate(Translation::Snat)),
            inverted,
        ],
        vec![always(Action::Translate(Translation::Redirect))],
    ]);
    // The chain as such is fine: a router may use it. Nothing leads to the third one.
    assert!(validate_chains(&device).is_empty());
    let expected = [
        "chain b, rule 2: snat on a port's chain: put it on the router's chain",
        "chain b, rule 3: `out_port` has no meaning on a port's chain: only bridges and routers know it",
    ];
    assert_eq!(on_hook(&device, Hook::Ingress), expected);
}

#[test]
fn more_rules_than_a_port_may_have_are_refused_with_the_number() {
    let full = policy(vec![vec![always(Action::Log); POLICY_RULES_MAX]]);
    assert!(on_hook(&full, Hook::Egress).is_empty());
    let ten = vec![always(Action::Log); 10];
    let many = policy(vec![vec![jump(1); 400], ten]);
    let expected = "4400 rules on one egress hook: expected at most 4096, where a jump counts its target's rules each time";
    assert_eq!(on_hook(&many, Hook::Egress), [expected]);
    // Doubled sixty times over: counted, not copied.
    let double = |it: u128| {
        if it < 31 {
            vec![jump(it + 1); 16]
        } else {
            vec![]
        }
    };
    let doubled = policy((0..32).map(double).collect());
    assert_eq!(
        on_hook(&doubled, Hook::Egress),
        ["the rules on one egress hook have no end"]
    );
}

#[test]
fn a_port_group_is_asked_where_its_addresses_are_true() {
    let mut topology = Topology::two_subnets();
    topology.port("web/open", &[]);
    let group = |members: &[&str]| {
        let id = PortGroupId(Uuid::from_u128(1));
        let group = PortGroup {
            id,
            tenant: TenantId(Uuid::nil()),
            name: "web".into(),
            ports: members.iter().map(|it| topology.id(it)).collect(),
            stateful: false,
        };
        let conditions = |is_src: bool| {
            let side = in_groups(&[ports(1)]);
            let none = Conditions::default();
            if is_src {
                Conditions { src: side, ..none }
            } else {
                Conditions { dst: side, ..none }
            }
        };
        let mut policy = policy(vec![
            vec![rule(conditions(true), Action::Accept)],
            vec![rule(conditions(false), Action::Accept)],
        ]);
        policy.port_groups.insert(id, Arc::new(group));
        policy
    };
    let refused = |policy: &Policy, hook, chain| {
        texts(&validate_hook(
            policy,
            hook,
            &[chain_id(chain)],
            &topology.model.ports,
        ))
    };
    let fixed = group(&["web/web-1", "db/db-1"]);
    assert!(refused(&fixed, Hook::Egress, 0).is_empty());
    assert!(refused(&fixed, Hook::Ingress, 1).is_empty());
    assert_eq!(
        refused(&fixed, Hook::Ingress, 0),
        [
            "chain a, rule 1: source port group web has no meaning on ingress chains: expected it on egress chains"
        ]
    );
    assert_eq!(
        refused(&fixed, Hook::Egress, 1),
        [
            "chain b, rule 1: destination port group web has no meaning on egress chains: expected it on ingress chains"
        ]
    );
    let open = group(&["web/web-1", "web/open"]);
    assert_eq!(
        refused(&open, Hook::Egress, 0),
        [
            "chain a, rule 1: source port group web: its member open has no fixed address (`addresses`)"
        ]
    );
}
