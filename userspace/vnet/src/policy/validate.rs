//! What isn't taken of chains, and of chains on a port's hook; each refusal names the chain and the rule.
//!
//! No state. `apply` calls it; `compile` and the kernel rely on it.

use super::chain::{
    Action, AddressGroup, AddressMatch, Chain, Conditions, Group, Policy, PortRange, Rule,
    VlanMatch,
};
use crate::id::{AddressGroupId, ChainId, PortId};
use crate::model::Port;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use weft_common::limits::{
    ADDRESS_GROUP_MEMBERS_MAX, POLICY_DEPTH_MAX, POLICY_NOT_MAX, POLICY_RULES_MAX,
    POLICY_VALUES_MAX,
};

/// Where a port's chains are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// The workload sends.
    Ingress,
    /// The workload receives.
    Egress,
}

impl fmt::Display for Hook {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Hook::Ingress => "ingress",
            Hook::Egress => "egress",
        })
    }
}

/// Why a policy isn't taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{reason}", place(.chain, .rule))]
pub struct Refusal {
    /// Name of the chain; none where it isn't one chain's.
    pub chain: Option<String>,
    /// Index of the rule, from 0.
    pub rule: Option<usize>,
    /// What is wrong, and what was expected.
    pub reason: String,
    /// The same place by ids.
    pub at: Option<At>,
}

/// What is to be changed for a policy to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// A rule of a chain, by its index from 0.
    Rule(ChainId, usize),
    /// A chain as a whole.
    Chain(ChainId),
    /// An address group.
    Group(AddressGroupId),
}

fn place(chain: &Option<String>, rule: &Option<usize>) -> String {
    match (chain, rule) {
        (Some(chain), Some(rule)) => format!("chain {chain}, rule {}: ", rule + 1),
        (Some(chain), None) => format!("chain {chain}: "),
        _ => String::new(),
    }
}

/// What is wrong with chains and groups wherever they are used: loops, names of nothing, impossible values.
pub fn validate_chains(policy: &Policy) -> Vec<Refusal> {
    let mut check = Check::new(policy);
    for chain in policy.chains.values() {
        for (index, rule) in chain.rules.iter().enumerate() {
            check.references(chain, index, rule);
            check.values(chain, index, rule);
        }
    }
    let groups = policy.address_groups.values();
    check
        .refusals
        .extend(groups.filter_map(|it| validate_group(it)));
    loops(&mut check);
    check.refusals
}

/// What is wrong with an address group.
pub fn validate_group(group: &AddressGroup) -> Option<Refusal> {
    let count = group.prefixes.len();
    let reason = format!(
        "address group {} has {count} members: expected at most {ADDRESS_GROUP_MEMBERS_MAX}",
        group.name
    );
    (count > ADDRESS_GROUP_MEMBERS_MAX).then_some(Refusal {
        chain: None,
        rule: None,
        reason,
        at: Some(At::Group(group.id)),
    })
}

/// What is wrong with these chains on a port's hook, besides what [`validate_chains`] says. `ports` are all of the topology's.
pub fn validate_hook(
    policy: &Policy,
    hook: Hook,
    chains: &[ChainId],
    ports: &BTreeMap<PortId, Arc<Port>>,
) -> Vec<Refusal> {
    let mut check = Check::new(policy);
    for id in chains {
        if !policy.chains.contains_key(id) {
            check.refuse(None, None, format!("there is no chain {id}"));
        }
    }
    for chain in reachable(policy, chains) {
        for (index, rule) in chain.rules.iter().enumerate() {
            check.action_at_port(chain, index, rule);
            for conditions in whole(rule) {
                check.conditions_at_port(chain, index, hook, conditions, ports);
            }
        }
    }
    let count = flattened_len(policy, chains);
    if count == u64::MAX {
        // A loop, or jumps that are too deep: `validate_chains` says where.
        let reason = format!("the rules on one {hook} hook have no end");
        check.refuse(None, None, reason);
    } else if count > POLICY_RULES_MAX as u64 {
        let reason = format!(
            "{count} rules on one {hook} hook: expected at most {POLICY_RULES_MAX}, where a jump counts its target's rules each time"
        );
        check.refuse(None, None, reason);
    }
    check.refusals
}

/// Conditions of a rule, inverted or not.
fn whole(rule: &Rule) -> impl Iterator<Item = &Conditions> {
    std::iter::once(&rule.matches).chain(&rule.not)
}

struct Check<'a> {
    policy: &'a Policy,
    refusals: Vec<Refusal>,
}

impl<'a> Check<'a> {
    fn new(policy: &'a Policy) -> Self {
        Self {
            policy,
            refusals: Vec::new(),
        }
    }

    fn refuse(&mut self, chain: Option<&Chain>, rule: Option<usize>, reason: String) {
        let at = chain.map(|chain| match rule {
            Some(rule) => At::Rule(chain.id, rule),
            None => At::Chain(chain.id),
        });
        self.refusals.push(Refusal {
            chain: chain.map(|it| it.name.clone()),
            rule,
            reason,
            at,
        });
    }

    fn references(&mut self, chain: &Chain, index: usize, rule: &Rule) {
        if let Action::Jump(target) = rule.action
            && !self.policy.chains.contains_key(&target)
        {
            self.refuse(
                Some(chain),
                Some(index),
                format!("there is no chain {target} to jump to"),
            );
        }
        let groups: BTreeSet<Group> = whole(rule).flat_map(groups).collect();
        for group in groups {
            let missing = match group {
                Group::Addresses(id) if !self.policy.address_groups.contains_key(&id) => {
                    format!("there is no address group {id}")
                }
                Group::Ports(id) if !self.policy.port_groups.contains_key(&id) => {
                    format!("there is no port group {id}")
                }
                _ => continue,
            };
            self.refuse(Some(chain), Some(index), missing);
        }
    }

    fn values(&mut self, chain: &Chain, index: usize, rule: &Rule) {
        let inverted = rule.not.len();
        if inverted > POLICY_NOT_MAX {
            let reason = format!("{inverted} items of `not`: expected at most {POLICY_NOT_MAX}");
            self.refuse(Some(chain), Some(index), reason);
        }
        for conditions in whole(rule) {
            let count = longest_list(conditions);
            if count > POLICY_VALUES_MAX {
                let reason = format!(
                    "{count} values in one condition: expected at most {POLICY_VALUES_MAX}, or an address group"
                );
                self.refuse(Some(chain), Some(index), reason);
            }
            if let Some(VlanMatch::Id(id)) = conditions.vlan
                && id > 0x0fff
            {
                let reason = format!("VLAN {id}: expected 0 to 4095");
                self.refuse(Some(chain), Some(index), reason);
            }
            for range in [&conditions.src_port, &conditions.dst_port]
                .into_iter()
                .flatten()
                .flatten()
            {
                let PortRange { first, last } = range;
                if first > last {
                    let reason = format!("ports {first}-{last}: expected the lower one first");
                    self.refuse(Some(chain), Some(index), reason);
                }
            }
        }
    }

    fn action_at_port(&mut self, chain: &Chain, index: usize, rule: &Rule) {
        if let Action::Translate(translation) = rule.action {
            let reason = format!(
                "{} on a port's chain: put it on the router's chain",
                translation.name()
            );
            self.refuse(Some(chain), Some(index), reason);
        }
    }

    fn conditions_at_port(
        &mut self,
        chain: &Chain,
        index: usize,
        hook: Hook,
        conditions: &Conditions,
        ports: &BTreeMap<PortId, Arc<Port>>,
    ) {
        for condition in &conditions.device {
            let reason = format!(
                "`{}` has no meaning on a port's chain: only bridges and routers know it",
                condition.name()
            );
            self.refuse(Some(chain), Some(index), reason);
        }
        let sides = [
            ("source", &conditions.src, Hook::Egress),
            ("destination", &conditions.dst, Hook::Ingress),
        ];
        for (side, matches, allowed) in sides {
            for item in matches.iter().flatten() {
                let AddressMatch::Group(Group::Ports(id)) = item else {
                    continue;
                };
                let Some(group) = self.policy.port_groups.get(id) else {
                    continue;
                };
                if hook != allowed {
                    let reason = format!(
                        "{side} port group {} has no meaning on {hook} chains: expected it on {allowed} chains",
                        group.name
                    );
                    self.refuse(Some(chain), Some(index), reason);
                    continue;
                }
                // An unknown address would silently not match: a port behind it would be shut out, or let in.
                let nameless = group
                    .ports
                    .iter()
                    .find(|id| ports.get(id).is_none_or(|port| port.addresses.is_empty()));
                if let Some(port) = nameless {
                    let name = ports
                        .get(port)
                        .map_or_else(|| port.to_string(), |it| it.name.clone());
                    let reason = format!(
                        "{side} port group {}: its member {name} has no fixed address (`addresses`)",
                        group.name
                    );
                    self.refuse(Some(chain), Some(index), reason);
                }
            }
        }
    }
}

fn groups(conditions: &Conditions) -> impl Iterator<Item = Group> {
    let lists = [&conditions.src, &conditions.dst];
    let items = lists.into_iter().flatten().flatten();
    items.filter_map(|it| match it {
        AddressMatch::Group(group) => Some(*group),
        AddressMatch::Prefix(_) => None,
    })
}

/// Values of the condition that has most.
fn longest_list(conditions: &Conditions) -> usize {
    fn len<T>(list: &Option<Vec<T>>) -> usize {
        list.as_ref().map_or(0, Vec::len)
    }
    let Conditions {
        ethertype,
        src_mac: _,
        dst_mac: _,
        vlan: _,
        tos,
        protocol,
        src,
        dst,
        src_port,
        dst_port,
        icmp,
        fragment: _,
        state,
        device,
    } = conditions;
    let lists = [
        len(ethertype),
        len(tos),
        len(protocol),
        len(src),
        len(dst),
        len(src_port),
        len(dst_port),
        len(icmp),
        len(state),
        device.len(),
    ];
    lists.into_iter().max().unwrap_or(0)
}

/// Every chain that packets of a hook may meet, once.
fn reachable<'a>(policy: &'a Policy, chains: &[ChainId]) -> Vec<&'a Chain> {
    let mut seen = BTreeSet::new();
    let mut open: Vec<ChainId> = chains.iter().rev().copied().collect();
    let mut found = Vec::new();
    while let Some(id) = open.pop() {
        let Some(chain) = policy.chains.get(&id).filter(|_| seen.insert(id)) else {
            continue;
        };
        found.push(&**chain);
        open.extend(chain.rules.iter().rev().filter_map(target));
    }
    found
}

fn target(rule: &Rule) -> Option<ChainId> {
    match rule.action {
        Action::Jump(target) => Some(target),
        _ => None,
    }
}

/// Rules of a hook where a jump counts its target's each time. Huge numbers saturate; loops, and jumps that are too deep,
/// count as the most there is.
pub(super) fn flattened_len(policy: &Policy, chains: &[ChainId]) -> u64 {
    let mut known = BTreeMap::new();
    chains.iter().fold(0, |sum, id| {
        sum.saturating_add(chain_len(policy, *id, POLICY_DEPTH_MAX, &mut known))
    })
}

fn chain_len(
    policy: &Policy,
    id: ChainId,
    depth: usize,
    known: &mut BTreeMap<ChainId, u64>,
) -> u64 {
    if let Some(len) = known.get(&id) {
        return *len;
    }
    if depth == 0 {
        return u64::MAX;
    }
    // What comes back here while it is counted is a loop.
    known.insert(id, u64::MAX);
    let rules = policy.chains.get(&id).map_or(&[][..], |it| &it.rules);
    let len = rules.iter().fold(0_u64, |sum, rule| {
        let inner = target(rule).map_or(0, |it| chain_len(policy, it, depth - 1, known));
        sum.saturating_add(1).saturating_add(inner)
    });
    known.insert(id, len);
    len
}

/// Refuses loops, each with the path that closes it, and jumps that are too deep.
fn loops(check: &mut Check<'_>) {
    let policy = check.policy;
    let mut walk = Walk {
        check,
        path: Vec::new(),
        depths: BTreeMap::new(),
        is_too_deep: false,
    };
    // By name, so that the same mistake is told in the same words, whatever the ids are.
    let mut chains: Vec<&Chain> = policy.chains.values().map(|it| &**it).collect();
    chains.sort_by_key(|it| (&it.name, it.id));
    for chain in chains {
        walk.enter(chain.id);
    }
}

struct Walk<'a, 'b> {
    check: &'a mut Check<'b>,
    /// The chains that are being walked, each jumping to the next.
    path: Vec<ChainId>,
    /// Chains inside each other from a chain on, itself counted.
    depths: BTreeMap<ChainId, usize>,
    is_too_deep: bool,
}

impl Walk<'_, '_> {
    fn enter(&mut self, id: ChainId) -> usize {
        if let Some(start) = self.path.iter().position(|it| *it == id) {
            self.refuse_loop(start);
            return 0;
        }
        let policy = self.check.policy;
        let known = self.depths.get(&id).copied();
        if self.path.len() + known.unwrap_or(1) > POLICY_DEPTH_MAX {
            self.refuse_depth();
        }
        // The walk is no deeper than chains may be, whatever it is given.
        if known.is_some() || self.is_too_deep {
            return known.unwrap_or(0);
        }
        let rules = policy.chains.get(&id).map_or(&[][..], |it| &it.rules);
        self.path.push(id);
        let targets: BTreeSet<ChainId> = rules.iter().filter_map(target).collect();
        let depth = targets.into_iter().map(|it| self.enter(it)).max();
        self.path.pop();
        let depth = depth.unwrap_or(0) + 1;
        self.depths.insert(id, depth);
        depth
    }

    fn refuse_loop(&mut self, start: usize) {
        let members = &self.path[start..];
        let names = members.iter().chain(members.first());
        let names: Vec<String> = names.map(|it| self.check.policy.chain_name(*it)).collect();
        let reason = format!("chains jump in a loop: {}", names.join(" -> "));
        let jumps = |(first, second): (&ChainId, &ChainId)| {
            let rules = &self.check.policy.chains.get(first)?.rules;
            let jump = rules.iter().position(|it| target(it) == Some(*second))?;
            Some(At::Rule(*first, jump))
        };
        let next = members.get(1).or(members.first());
        let at = members.first().zip(next).and_then(jumps);
        self.check.refusals.push(Refusal {
            chain: None,
            rule: None,
            reason,
            at,
        });
    }

    fn refuse_depth(&mut self) {
        if std::mem::replace(&mut self.is_too_deep, true) {
            return;
        }
        let policy = self.check.policy;
        let first = self.path.first().and_then(|it| policy.chains.get(it));
        let reason = format!("more than {POLICY_DEPTH_MAX} chains inside each other by jumps");
        self.check.refuse(first.map(|it| &**it), None, reason);
    }
}

#[cfg(test)]
mod tests;
