//! Interpreted and compiled chains are one: random chains, sets and packets get the same decision by the same rule, and
//! the same log records.

use super::generator::{
    Dice, addresses, group, ports, prefix, random_policy, random_sets, random_view,
};
use super::*;
use proptest::prelude::*;
use weft_common::limits::POLICY_HOPS_MAX;

const PACKETS: usize = 4;

/// Policies to try; `WEFT_POLICY_CASES` asks for another number.
fn cases(usual: u32) -> u32 {
    let asked = std::env::var("WEFT_POLICY_CASES").ok();
    asked.and_then(|it| it.parse().ok()).unwrap_or(usual)
}

fn dice() -> impl Strategy<Value = Dice> {
    proptest::collection::vec(any::<u8>(), 500).prop_map(Dice::new)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(10_000)))]

    /// The interpreted evaluation is the reference; a change of sets compiles nothing again.
    #[test]
    fn compiled_chains_decide_as_interpreted_ones(mut dice in dice()) {
        let (policy, hook) = random_policy(&mut dice);
        let is_loop = |it: &Refusal| it.reason.contains("loop");
        prop_assert!(!validate_chains(&policy).iter().any(is_loop));
        let mut sets = random_sets(&mut dice);
        let acl = compile(&policy, &hook, &mut sets).unwrap();
        let packets: Vec<View> = (0..PACKETS).map(|_| random_view(&mut dice)).collect();
        for _ in 0..2 {
            for view in &packets {
                let expected = evaluate(&hook, &policy, view, &sets);
                match acl.lookup(view, &sets) {
                    Ok(found) => prop_assert_eq!(found, expected, "{:?} {:?} {:?}", view, policy, sets),
                    Err(Unbounded) => prop_assert!(acl.steps_max() > POLICY_HOPS_MAX),
                }
            }
            let (group, prefix) = (group(&mut dice), prefix(&mut dice));
            sets.add(group, prefix).unwrap();
            let other = self::prefix(&mut dice);
            sets.remove(group, other);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(1_000)))]

    /// The table of sets is what was declared, after any row of changes.
    #[test]
    fn sets_answer_as_declared(mut dice in dice()) {
        let mut sets = random_sets(&mut dice);
        for _ in 0..10 {
            let (group, prefix) = (group(&mut dice), prefix(&mut dice));
            if dice.one_in(2) {
                sets.remove(group, prefix);
            } else {
                sets.add(group, prefix).unwrap();
            }
            let (source, _) = random_view(&mut dice).addresses().unwrap_or(([10, 0, 0, 1].into(), [0; 4].into()));
            for number in 0..3 {
                for group in [addresses(number), ports(number)] {
                    let by_table = sets.find(group).is_some_and(|it| sets.of(source).contains(&it));
                    prop_assert_eq!(by_table, sets.contains(group, source));
                }
            }
        }
    }
}
