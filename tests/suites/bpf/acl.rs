//! Compiled ACLs in the kernel: the same verdict by the same rule as the interpreted chains.

use crate::bench::{Bench, with_bench};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use weft_common::acl::{ACCEPT, DROP, NO_RULE, REJECT, UNBOUNDED};
use weft_common::limits::POLICY_HOPS_MAX;
use weft_datapath::Datapath;
use weft_vnet::policy::generator::{Dice, group, prefix, random_policy, random_sets, random_view};
use weft_vnet::policy::{Acl, Change, Decision, Sets, View, compile, evaluate, set_key, set_list};
use zerocopy::IntoBytes;

/// Packets of each policy, before and after a change of its sets.
const PACKETS: usize = 4;
/// Where the ACL is put.
const ACL: u16 = 7;
/// Number of its tenant; the addresses of another one's sets are there, too.
const TENANT: u32 = 3;

/// Policies to try; `WEFT_POLICY_CASES` asks for another number.
fn cases() -> u32 {
    let asked = std::env::var("WEFT_POLICY_CASES").ok();
    asked.and_then(|it| it.parse().ok()).unwrap_or(10_000)
}

/// What the kernel says: decision, and number of the rule.
fn judged(bench: &mut Bench, view: &View) -> (u8, u16) {
    let mut frame = vec![0; 14];
    frame.extend(view.key.as_bytes());
    let mark = u32::from(ACL) | (view.state as u32) << 16 | u32::from(view.upper_known) << 24;
    let number = bench.run_marked("judge", &frame, mark).verdict;
    (number as u8, (number >> 16) as u16)
}

fn write_sets(bench: &mut Bench, changes: impl IntoIterator<Item = Change>) {
    for (prefix, sets) in changes {
        let list = sets.as_deref().map(set_list);
        let (key, bits) = set_key(TENANT, prefix);
        let written = bench.kernel.write_set(&key, bits, list.as_ref());
        written.expect("a prefix of the table of sets");
    }
}

fn same(bench: &mut Bench, acl: &Acl, sets: &Sets, view: &View, expected: Decision) {
    let (decision, rule) = judged(bench, view);
    if decision == UNBOUNDED {
        assert!(acl.steps_max() > POLICY_HOPS_MAX, "{view:?}");
        return;
    }
    let expected = match expected {
        Decision::Accept => ACCEPT,
        Decision::Drop => DROP,
        Decision::Reject => REJECT,
    };
    let verdict = acl.lookup(view, sets).expect("as many steps as the kernel");
    let by = acl.origin(rule);
    assert_eq!((decision, by), (expected, verdict.by), "{view:?}");
    assert_eq!(rule == NO_RULE, verdict.by.is_none(), "{view:?}");
}

#[test]
fn the_kernel_decides_as_the_interpreted_chains() {
    with_bench(|bench| {
        let mut runner = TestRunner::new(Config::with_cases(cases()));
        let dice = proptest::collection::vec(any::<u8>(), 500).prop_map(Dice::new);
        let bench = std::cell::RefCell::new(bench);
        let done = runner.run(&dice, |mut dice| {
            let bench = &mut *bench.borrow_mut();
            let (policy, hook) = random_policy(&mut dice);
            let mut sets = random_sets(&mut dice);
            let acl = compile(&policy, &hook, &mut sets).expect("small chains compile");
            bench
                .kernel
                .write_acl(ACL, &acl.cells(TENANT))
                .expect("an ACL");
            let entries = sets.entries().map(|(it, sets)| (*it, Some(sets.to_vec())));
            write_sets(bench, entries.collect::<Vec<_>>());
            let packets: Vec<View> = (0..PACKETS).map(|_| random_view(&mut dice)).collect();
            for _ in 0..2 {
                for view in &packets {
                    let expected = evaluate(&hook, &policy, view, &sets).decision;
                    same(bench, &acl, &sets, view, expected);
                }
                let (group, prefix) = (group(&mut dice), prefix(&mut dice));
                write_sets(bench, sets.add(group, prefix).expect("few groups"));
                let gone = self::prefix(&mut dice);
                write_sets(bench, sets.remove(group, gone));
            }
            let entries: Vec<_> = sets.entries().map(|(it, _)| (*it, None)).collect();
            write_sets(bench, entries);
            Ok(())
        });
        done.expect("the same verdicts");
    });
}
