//! What compiled chains decide and take, and what doesn't compile. No state; run by cargo.

use super::super::testing::{
    addresses, always, chain_id, in_groups, policy, port, prefixes, rule, sets, tcp,
};
use super::super::*;
use super::{CompileError, compile};
use crate::Mac;
use std::time::Instant;
use weft_common::limits::{POLICY_HOPS_MAX, POLICY_MAC_MASKS_MAX, POLICY_RULES_MAX};

fn compiled(policy: &Policy, sets: &mut Sets) -> Acl {
    compile(policy, &[chain_id(0)], sets).unwrap()
}

/// A rule for each number: a source, a destination and a port of its own.
fn web_server(index: u32) -> Rule {
    let [_, b, c, d] = (index * 5).to_be_bytes();
    let first = 1024 + (index % 8_000) as u16;
    let conditions = Conditions {
        protocol: Some(vec![6]),
        src: prefixes(&format!("100.{b}.{c}.{d}/32")),
        dst: prefixes(&format!("10.{b}.{c}.0/24")),
        dst_port: port(first, first + 4),
        ..Conditions::default()
    };
    rule(conditions, Action::Accept)
}

/// The same for a security group: ports from sources, and groups now and then.
fn security_group(index: u32) -> Rule {
    let [_, _, c, d] = (index / 4 * 7).to_be_bytes();
    let first = [22, 80, 443, 8_000][index as usize % 4];
    let conditions = Conditions {
        protocol: Some(vec![6]),
        src: match index % 16 {
            0 => in_groups(&[addresses(u128::from(index % 64))]),
            _ => prefixes(&format!("10.{c}.{d}.0/24")),
        },
        dst_port: port(first, first + (index % 3) as u16),
        ..Conditions::default()
    };
    rule(conditions, Action::Accept)
}

fn with_default_deny(one: fn(u32) -> Rule, count: usize) -> Policy {
    let mut rules: Vec<Rule> = (0..count as u32 - 1).map(one).collect();
    rules.push(always(Action::Drop));
    policy(vec![rules])
}

/// Prints what they take; in a release build, by itself, the times are for orientation.
#[test]
fn as_many_rules_as_a_port_may_have_compile_and_decide() {
    for (kind, one) in [
        ("own addresses", web_server as fn(u32) -> Rule),
        ("security groups", security_group),
    ] {
        for count in [10, 100, 1_000, POLICY_RULES_MAX] {
            let policy = with_default_deny(one, count);
            let mut sets = sets(&[(addresses(0), "198.51.100.0/24")]);
            let start = Instant::now();
            let acl = compiled(&policy, &mut sets);
            let compiling = start.elapsed();
            assert_eq!(acl.rule_count(), count);
            let mut views: Vec<View> = (0..64)
                .map(|it| tcp(&format!("10.0.{it}.1"), "10.0.1.1", 80))
                .collect();
            views.push(tcp("198.51.100.7", "10.0.0.1", 22));
            views.push(tcp("192.0.2.1", "10.0.0.1", 22));
            for view in &views {
                let expected = evaluate(&[chain_id(0)], &policy, view, &sets);
                assert_eq!(acl.lookup(view, &sets), Ok(expected));
            }
            let rounds = 200;
            let start = Instant::now();
            for view in views.iter().cycle().take(rounds * views.len()) {
                std::hint::black_box(acl.lookup(view, &sets)).unwrap();
            }
            let each = start.elapsed().as_nanos() / (rounds * views.len()) as u128;
            println!(
                "{kind}, {count} rules: {} bytes, {each} ns a lookup, compiled in {compiling:?}",
                acl.bytes()
            );
        }
    }
}

#[test]
fn equal_chains_are_equal_and_sets_compile_nothing_again() {
    let from_group = Conditions {
        src: in_groups(&[addresses(1)]),
        ..Conditions::default()
    };
    let policy = policy(vec![vec![rule(from_group, Action::Drop)]]);
    let mut sets = Sets::default();
    let acl = compiled(&policy, &mut sets);
    assert_eq!(acl, compiled(&policy, &mut sets));
    let view = tcp("203.0.113.9", "10.0.0.1", 80);
    assert_eq!(acl.lookup(&view, &sets).unwrap().decision, Decision::Accept);
    let member = "203.0.113.9/32".parse().unwrap();
    assert_eq!(sets.add(addresses(1), member).unwrap().len(), 1);
    assert_eq!(acl.lookup(&view, &sets).unwrap().decision, Decision::Drop);
    sets.remove(addresses(1), member);
    assert_eq!(acl.lookup(&view, &sets).unwrap().decision, Decision::Accept);
}

#[test]
fn a_jump_by_groups_into_rules_by_groups_costs_one_step() {
    let from = |number| Conditions {
        src: in_groups(&[addresses(number)]),
        ..Conditions::default()
    };
    let inner = vec![rule(from(2), Action::Drop); 100];
    let policy = policy(vec![vec![rule(from(1), Action::Jump(chain_id(1)))], inner]);
    let mut sets = sets(&[(addresses(1), "10.0.0.0/8"), (addresses(2), "10.0.0.0/9")]);
    let acl = compiled(&policy, &mut sets);
    assert_eq!(acl.rule_count(), 101);
    for (source, expected) in [
        ("10.0.0.1", Decision::Drop),
        ("10.128.0.1", Decision::Accept),
        ("192.0.2.1", Decision::Accept),
    ] {
        let view = tcp(source, "10.0.0.9", 80);
        assert_eq!(acl.lookup(&view, &sets).unwrap().decision, expected);
    }
}

#[test]
fn steps_are_bounded() {
    let log = |count| {
        let mut rules = vec![always(Action::Log); count];
        rules.push(always(Action::Drop));
        policy(vec![rules])
    };
    let view = tcp("10.0.0.1", "10.0.0.2", 80);
    let mut sets = Sets::default();
    let most = compiled(&log(POLICY_HOPS_MAX), &mut sets);
    assert_eq!(
        most.lookup(&view, &sets).unwrap().logs.len(),
        POLICY_HOPS_MAX
    );
    assert_eq!(most.steps_max(), POLICY_HOPS_MAX);
    let more = compiled(&log(3 * POLICY_HOPS_MAX), &mut sets);
    assert_eq!(more.steps_max(), 3 * POLICY_HOPS_MAX);
    assert_eq!(more.lookup(&view, &sets), Err(Unbounded));
}

/// The longest lookup: every step, and every block for nothing. Summaries agree where the words don't.
#[test]
fn a_lookup_with_all_steps_through_all_blocks_ends() {
    let to = |first| {
        rule(
            Conditions {
                dst_port: port(first, first),
                ..Conditions::default()
            },
            Action::Drop,
        )
    };
    let from = |text| {
        rule(
            Conditions {
                src: prefixes(text),
                ..Conditions::default()
            },
            Action::Drop,
        )
    };
    let mut rules = Vec::new();
    for block in 0..POLICY_RULES_MAX / 64 {
        rules.push(always(Action::Log));
        for index in 1..64 {
            // In each block one rule asks for the port, and another one for the source.
            rules.push(match index {
                5 => Rule {
                    matches: Conditions {
                        src: prefixes("192.0.2.0/24"),
                        ..to(80).matches
                    },
                    ..to(80)
                },
                6 => Rule {
                    matches: Conditions {
                        dst_port: port(81, 81),
                        ..from("10.0.0.0/8").matches
                    },
                    ..to(81)
                },
                _ => to(1000 + block as u16),
            });
        }
    }
    let policy = policy(vec![rules]);
    let mut sets = Sets::default();
    let acl = compiled(&policy, &mut sets);
    assert_eq!(
        (acl.rule_count(), acl.steps_max()),
        (POLICY_RULES_MAX, POLICY_HOPS_MAX)
    );
    let view = tcp("10.0.0.1", "10.0.0.2", 80);
    let verdict = acl.lookup(&view, &sets).unwrap();
    assert_eq!(
        (verdict.decision, verdict.logs.len()),
        (Decision::Accept, POLICY_HOPS_MAX)
    );
}

#[test]
fn what_is_too_much_is_refused() {
    let mut sets = Sets::default();
    let mut refused = |policy: &Policy| compile(policy, &[chain_id(0)], &mut sets).unwrap_err();
    let count = POLICY_RULES_MAX + 1;
    let many = policy(vec![vec![always(Action::Drop); count]]);
    assert_eq!(
        refused(&many),
        CompileError::TooManyRules {
            count: count as u64
        }
    );
    // Guards count, too.
    let both = Conditions {
        tos: Some(vec![4]),
        ..web_server(1).matches
    };
    let inverted = Rule {
        not: vec![both],
        ..Rule::default()
    };
    let guarded = policy(vec![vec![inverted; POLICY_RULES_MAX / 2 + 1]]);
    let count = POLICY_RULES_MAX as u64 + 2;
    assert_eq!(refused(&guarded), CompileError::TooManyRules { count });
    let mac = |bit: usize| Conditions {
        src_mac: Some(MacMatch {
            value: Mac::default(),
            mask: Mac([0, 0, 0, 0, 0, 1 << (bit % 8)]),
        }),
        dst_mac: Some(MacMatch {
            value: Mac::default(),
            mask: Mac::BROADCAST,
        }),
        ..Conditions::default()
    };
    let masks = |count| {
        policy(vec![
            (0..count).map(|it| rule(mac(it), Action::Drop)).collect(),
        ])
    };
    assert_eq!(
        refused(&masks(POLICY_MAC_MASKS_MAX)),
        CompileError::TooManyMacMasks {
            count: POLICY_MAC_MASKS_MAX + 1
        }
    );
    assert!(
        compile(
            &masks(POLICY_MAC_MASKS_MAX - 1),
            &[chain_id(0)],
            &mut Sets::default()
        )
        .is_ok()
    );
    let device = Conditions {
        device: vec![DeviceCondition::DestinationRewritten],
        ..Conditions::default()
    };
    let at_device = policy(vec![vec![rule(device, Action::Drop)]]);
    assert_eq!(refused(&at_device), CompileError::NotAtPort);
}
