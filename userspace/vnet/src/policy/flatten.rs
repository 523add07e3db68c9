//! A hook's chains as one list of primitive rules: a conjunction of tests each, of which the first that matches acts.
//!
//! No state. Called by `compile.rs`; how it is done is in docs/adr/0014-compiled-chains.md:
//!
//! * A jump's target stands in place of the jump, each of its rules with the jump's tests besides its own.
//! * `return` steps to behind the copy of its chain: [`Act::Step`]. So does a rule that only logs, to the next one.
//! * An inverted condition is an inverted test. Several that are inverted together can't be one: a *guard* in front, with
//!   these tests as they are, steps to behind the rule (or behind the whole copy that the rule jumps to).
//! * Of two tests on the same address by groups one is a guard, too: a vector holds one group's members or another's.

use super::chain::{
    Action, AddressMatch, Conditions, Connection, FragmentPolicy, Group, IcmpMatch, MacMatch,
    Policy, PortRange, Rule, VlanMatch,
};
use super::compile::CompileError;
use super::evaluate::{Decision, RuleRef};
use super::validate::flattened_len;
use crate::id::ChainId;
use std::collections::BTreeMap;
use weft_common::acl::Service;
use weft_common::limits::POLICY_RULES_MAX;

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Test {
    Ethertype(Vec<u16>),
    SrcMac(MacMatch),
    DstMac(MacMatch),
    Vlan(VlanMatch),
    Tos(Vec<u8>),
    Protocol(Vec<u8>),
    Address(Side, Vec<AddressMatch>),
    SrcPort(Vec<PortRange>),
    DstPort(Vec<PortRange>),
    Icmp(Vec<IcmpMatch>),
    Fragment(FragmentPolicy),
    State(Vec<Connection>),
}

/// Which address of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    Src,
    Dst,
}

/// A test, or its opposite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Literal {
    pub(super) test: Test,
    pub(super) is_inverted: bool,
}

/// What a primitive rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Ends the lookup.
    End(Decision),
    /// On at the rule of this index, which comes later.
    Step(u16),
}

/// One rule of the flat list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Primitive {
    /// All must hold. Of each side at most one is by groups and not inverted.
    pub(super) literals: Vec<Literal>,
    /// Services that it names, a bit each (`1 << Service`); others' packets don't match it.
    pub(super) services: u8,
    pub(super) act: Act,
    /// Where it comes from; none for a guard.
    pub(super) origin: Option<RuleRef>,
    pub(super) is_logged: bool,
}

/// All services: what doesn't act on a packet need not name it.
const EVERY_SERVICE: u8 = 0b1110;

/// The chains of a hook as primitive rules, at most [`POLICY_RULES_MAX`].
pub(super) fn flatten(policy: &Policy, hook: &[ChainId]) -> Result<Vec<Primitive>, CompileError> {
    // Before anything is copied: jumps multiply.
    let count = flattened_len(policy, hook);
    if count > POLICY_RULES_MAX as u64 {
        return Err(CompileError::TooManyRules { count });
    }
    let mut flat = Flat {
        policy,
        primitives: Vec::new(),
        labels: Vec::new(),
        by_groups: BTreeMap::new(),
    };
    for chain in hook {
        let end = flat.label();
        flat.chain(*chain, &Way::default(), end)?;
        flat.place(end);
    }
    let count = flat.primitives.len();
    if count > POLICY_RULES_MAX {
        return Err(CompileError::TooManyRules {
            count: count as u64,
        });
    }
    Ok(flat.finish())
}

/// What the jumps on the way to a chain ask for.
#[derive(Clone, Default)]
struct Way {
    literals: Vec<Literal>,
    services: u8,
}

/// A place in the list that isn't known yet: index into [`Flat::labels`].
#[derive(Clone, Copy)]
struct Label(usize);

struct Flat<'a> {
    policy: &'a Policy,
    /// A step's target is the number of a label until the end.
    primitives: Vec<(Primitive, Option<Label>)>,
    labels: Vec<usize>,
    /// Sides that a chain, or one that it jumps to, tests by groups.
    by_groups: BTreeMap<ChainId, [bool; 2]>,
}

impl Flat<'_> {
    fn label(&mut self) -> Label {
        self.labels.push(0);
        Label(self.labels.len() - 1)
    }

    fn place(&mut self, label: Label) {
        self.labels[label.0] = self.primitives.len();
    }

    fn finish(self) -> Vec<Primitive> {
        let labels = self.labels;
        let target = |label: Label| Act::Step(labels[label.0] as u16);
        self.primitives
            .into_iter()
            .map(|(primitive, label)| Primitive {
                act: label.map_or(primitive.act, target),
                ..primitive
            })
            .collect()
    }

    fn chain(&mut self, id: ChainId, way: &Way, end: Label) -> Result<(), CompileError> {
        let policy = self.policy;
        let rules = policy.chains.get(&id).map_or(&[][..], |it| &it.rules);
        for (index, rule) in rules.iter().enumerate() {
            let origin = RuleRef {
                chain: id,
                rule: index as u32,
            };
            self.rule(origin, rule, way, end)?;
        }
        Ok(())
    }

    fn rule(
        &mut self,
        origin: RuleRef,
        rule: &Rule,
        way: &Way,
        end: Label,
    ) -> Result<(), CompileError> {
        let is_logged = rule.log.is_some() || rule.action == Action::Log;
        if matches!(rule.action, Action::Continue) && !is_logged {
            return Ok(());
        }
        let behind = self.label();
        let own = literals(&rule.matches, false)?;
        let mut literals_all: Vec<Literal> = way.literals.iter().chain(&own).cloned().collect();
        for conditions in &rule.not {
            let group = literals(conditions, true)?;
            match group.as_slice() {
                // "Not (nothing at all)" never holds.
                [] => {
                    self.place(behind);
                    return Ok(());
                }
                [single] => literals_all.push(single.clone()),
                _ => self.guard(literals(conditions, false)?, &literals_all, behind),
            }
        }
        let own_services = Service::ALL.into_iter().filter(|it| rule.matches.name(*it));
        let services = own_services.fold(way.services, |all, it| all | 1 << it as u8);
        let inner = self.separate(literals_all, rule, behind);
        if let Action::Jump(target) = rule.action {
            if is_logged {
                let next = self.label();
                let act = Act::Step(0);
                self.push(
                    inner.clone(),
                    EVERY_SERVICE,
                    act,
                    Some(origin),
                    true,
                    Some(next),
                );
                self.place(next);
            }
            let way = Way {
                literals: inner,
                services,
            };
            self.chain(target, &way, behind)?;
        } else {
            let (act, label) = match rule.action {
                Action::Accept => (Act::End(Decision::Accept), None),
                Action::Drop => (Act::End(Decision::Drop), None),
                Action::Reject => (Act::End(Decision::Reject), None),
                Action::Return => (Act::Step(0), Some(end)),
                Action::Continue | Action::Log => (Act::Step(0), Some(behind)),
                Action::Jump(_) | Action::Translate(_) => return Err(CompileError::NotAtPort),
            };
            self.push(inner, services, act, Some(origin), is_logged, label);
        }
        self.place(behind);
        Ok(())
    }

    /// Makes the literals such that one vector a side can tell: what is by groups and too many becomes a guard.
    fn separate(&mut self, all: Vec<Literal>, rule: &Rule, behind: Label) -> Vec<Literal> {
        let mut kept = Vec::new();
        let mut taken = match rule.action {
            // Else each rule of the target that asks for a group, too, would need a guard of its own.
            Action::Jump(target) => self.groups_in(target),
            _ => [false; 2],
        };
        for literal in all.into_iter().rev() {
            match by_groups(&literal).map(|side| side as usize) {
                Some(side) if taken[side] => {
                    let opposite = Literal {
                        is_inverted: true,
                        ..literal
                    };
                    let (act, label) = (Act::Step(0), Some(behind));
                    self.push(vec![opposite], EVERY_SERVICE, act, None, false, label);
                }
                Some(side) => {
                    taken[side] = true;
                    kept.push(literal);
                }
                None => kept.push(literal),
            }
        }
        kept.reverse();
        kept
    }

    /// Steps to `behind` where all of `group` hold. The rule's other tests are there to spare steps, as far as they fit.
    fn guard(&mut self, group: Vec<Literal>, others: &[Literal], behind: Label) {
        let mut literals = group;
        for other in others {
            let clashes = by_groups(other).is_some();
            if !clashes {
                literals.push(other.clone());
            }
        }
        let (act, label) = (Act::Step(0), Some(behind));
        self.push(literals, EVERY_SERVICE, act, None, false, label);
    }

    fn push(
        &mut self,
        literals: Vec<Literal>,
        services: u8,
        act: Act,
        origin: Option<RuleRef>,
        is_logged: bool,
        label: Option<Label>,
    ) {
        let primitive = Primitive {
            literals,
            services,
            act,
            origin,
            is_logged,
        };
        self.primitives.push((primitive, label));
    }

    fn groups_in(&mut self, id: ChainId) -> [bool; 2] {
        if let Some(known) = self.by_groups.get(&id) {
            return *known;
        }
        let policy = self.policy;
        let rules = policy.chains.get(&id).map_or(&[][..], |it| &it.rules);
        let mut found = [false; 2];
        for rule in rules {
            let lists = std::iter::once(&rule.matches).chain(&rule.not);
            for conditions in lists {
                found[0] |= conditions.src.as_ref().is_some_and(|it| has_groups(it));
                found[1] |= conditions.dst.as_ref().is_some_and(|it| has_groups(it));
            }
            if let Action::Jump(target) = rule.action {
                let inner = self.groups_in(target);
                found = [found[0] || inner[0], found[1] || inner[1]];
            }
        }
        self.by_groups.insert(id, found);
        found
    }
}

fn has_groups(list: &[AddressMatch]) -> bool {
    list.iter().any(|it| matches!(it, AddressMatch::Group(_)))
}

/// The side that a literal tests by groups, not inverted.
fn by_groups(literal: &Literal) -> Option<Side> {
    match &literal.test {
        Test::Address(side, list) if !literal.is_inverted && has_groups(list) => Some(*side),
        _ => None,
    }
}

/// The groups of a list.
pub(super) fn groups_of(list: &[AddressMatch]) -> impl Iterator<Item = Group> {
    list.iter().filter_map(|it| match it {
        AddressMatch::Group(group) => Some(*group),
        AddressMatch::Prefix(_) => None,
    })
}

fn literals(conditions: &Conditions, is_inverted: bool) -> Result<Vec<Literal>, CompileError> {
    let Conditions {
        ethertype,
        src_mac,
        dst_mac,
        vlan,
        tos,
        protocol,
        src,
        dst,
        src_port,
        dst_port,
        icmp,
        fragment,
        state,
        device,
    } = conditions.clone();
    if !device.is_empty() {
        return Err(CompileError::NotAtPort);
    }
    let tests = [
        ethertype.map(Test::Ethertype),
        src_mac.map(Test::SrcMac),
        dst_mac.map(Test::DstMac),
        vlan.map(Test::Vlan),
        tos.map(Test::Tos),
        protocol.map(Test::Protocol),
        src.map(|it| Test::Address(Side::Src, it)),
        dst.map(|it| Test::Address(Side::Dst, it)),
        src_port.map(Test::SrcPort),
        dst_port.map(Test::DstPort),
        icmp.map(Test::Icmp),
        fragment.map(Test::Fragment),
        state.map(Test::State),
    ];
    let tests = tests.into_iter().flatten();
    Ok(tests.map(|test| Literal { test, is_inverted }).collect())
}
