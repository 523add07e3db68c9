//! Compiled ACLs in the kernel: the same verdict by the same rule as the interpreted chains.

use crate::bench::{Bench, with_bench};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use weft_common::acl::{ACCEPT, DROP, NO_RULE, REJECT, UNBOUNDED};
use weft_common::limits::POLICY_HOPS_MAX;
use weft_datapath::Datapath;
use weft_vnet::ChainId;
use weft_vnet::policy::generator::{Dice, group, prefix, random_policy, random_sets, random_view};
use weft_vnet::policy::{
    Acl, Change, Decision, Policy, Sets, View, compile, evaluate, set_key, set_list,
};
use zerocopy::IntoBytes;

/// Packets of each policy, before and after a change of its sets.
const PACKETS: usize = 4;
/// Policies in the kernel at once: each with another tenant's sets beside its own. To put ACLs there takes some 10 ms,
/// however many they are.
const AT_ONCE: usize = 50;

/// Policies to try; `WEFT_POLICY_CASES` asks for another number.
fn cases() -> u32 {
    let asked = std::env::var("WEFT_POLICY_CASES").ok();
    asked.and_then(|it| it.parse().ok()).unwrap_or(10_000)
}

/// A policy in the kernel; its tenant and its ACL have the same number.
struct Case {
    number: u16,
    dice: Dice,
    policy: Policy,
    hook: Vec<ChainId>,
    sets: Sets,
    acl: Acl,
}

impl Case {
    fn new(number: u16, numbers: &[u8]) -> Case {
        let mut dice = Dice::new(numbers.to_vec());
        let (policy, hook) = random_policy(&mut dice);
        let mut sets = random_sets(&mut dice);
        let acl = compile(&policy, &hook, &mut sets).expect("small chains compile");
        Case {
            number,
            dice,
            policy,
            hook,
            sets,
            acl,
        }
    }

    fn run(&mut self, bench: &mut Bench) {
        let entries = self.sets.entries();
        let entries: Vec<_> = entries
            .map(|(it, sets)| (*it, Some(sets.to_vec())))
            .collect();
        self.write_sets(bench, entries);
        let packets: Vec<View> = (0..PACKETS).map(|_| random_view(&mut self.dice)).collect();
        for _ in 0..2 {
            for view in &packets {
                self.same(bench, view);
            }
            let (group, wider) = (group(&mut self.dice), prefix(&mut self.dice));
            let changes = self.sets.add(group, wider).expect("few groups");
            self.write_sets(bench, changes);
            let changes = self.sets.remove(group, prefix(&mut self.dice));
            self.write_sets(bench, changes);
        }
        let entries: Vec<_> = self.sets.entries().map(|(it, _)| (*it, None)).collect();
        self.write_sets(bench, entries);
    }

    fn write_sets(&self, bench: &mut Bench, changes: Vec<Change>) {
        for (prefix, sets) in changes {
            let list = sets.as_deref().map(set_list);
            let (key, bits) = set_key(self.number.into(), prefix);
            let written = bench.kernel.write_set(&key, bits, list.as_ref());
            written.expect("a prefix of the table of sets");
        }
    }

    /// Kernel, compiled tables and interpreted chains say the same of a packet, by the same rule.
    fn same(&self, bench: &mut Bench, view: &View) {
        let expected = evaluate(&self.hook, &self.policy, view, &self.sets);
        let (decision, rule) = judged(bench, self.number, view);
        let about = || format!("{view:?} {:?} {:?}", self.policy, self.sets);
        if decision == UNBOUNDED {
            assert!(self.acl.steps_max() > POLICY_HOPS_MAX, "{}", about());
            return;
        }
        assert_eq!(self.acl.lookup(view, &self.sets).as_ref(), Ok(&expected));
        let wanted = match expected.decision {
            Decision::Accept => ACCEPT,
            Decision::Drop => DROP,
            Decision::Reject => REJECT,
        };
        let by = self.acl.origin(rule);
        assert_eq!((decision, by), (wanted, expected.by), "{}", about());
        assert_eq!(rule == NO_RULE, by.is_none(), "{}", about());
    }
}

/// What the kernel says: decision, and number of the rule.
fn judged(bench: &mut Bench, acl: u16, view: &View) -> (u8, u16) {
    let mut frame = vec![0; 14];
    frame.extend(view.key.as_bytes());
    let mark = u32::from(acl) | (view.state as u32) << 16 | u32::from(view.upper_known) << 24;
    let number = bench.run_marked("judge", &frame, mark).verdict;
    (number as u8, (number >> 16) as u16)
}

#[test]
fn the_kernel_decides_as_the_interpreted_chains() {
    with_bench(|bench| {
        let rounds = cases().div_ceil(AT_ONCE as u32);
        let mut runner = TestRunner::new(Config::with_cases(rounds));
        let numbers = proptest::collection::vec(any::<u8>(), 500);
        let bench = std::cell::RefCell::new(bench);
        let done = runner.run(&proptest::collection::vec(numbers, AT_ONCE), |policies| {
            let bench = &mut *bench.borrow_mut();
            let cases = (1..).zip(&policies);
            let mut cases: Vec<Case> = cases.map(|(it, dice)| Case::new(it, dice)).collect();
            let acls = cases
                .iter()
                .map(|it| (it.number, it.acl.cells(it.number.into())));
            let acls: Vec<_> = acls.collect();
            bench.kernel.write_acls(&acls).expect("ACLs");
            cases.iter_mut().for_each(|case| case.run(bench));
            Ok(())
        });
        done.expect("the same verdicts");
    });
}
