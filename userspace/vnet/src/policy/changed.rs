//! What a change of the topology means for compiled policies: hooks whose rules differ, and members that come and go.
//!
//! No state. Called by whoever keeps compiled tables and sets: what isn't named stays as it is, so that a member of a
//! large group is one entry and compiles nothing.

use super::chain::{Action, Chain, Group, Policy};
use super::validate::Hook;
use crate::id::{ChainId, PortId};
use crate::model::{Model, Port};
use crate::snapshot::Snapshot;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// See the module's text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyChange {
    /// Hooks of ports that have other chains, or chains with other rules, than before; of ports that come or go, too.
    pub hooks: BTreeSet<(PortId, Hook)>,
    /// Members that no group had before under this name and prefix.
    pub come: Vec<(Group, IpNet)>,
    /// Members that are no longer.
    pub go: Vec<(Group, IpNet)>,
}

impl PolicyChange {
    fn members(&mut self, group: Group, before: &[IpNet], after: &[IpNet]) {
        let (come, go) = compare_members(before, after);
        self.come.extend(come.into_iter().map(|it| (group, it)));
        self.go.extend(go.into_iter().map(|it| (group, it)));
    }
}

/// What differs between two snapshots.
pub fn changed(old: &Snapshot, new: &Snapshot) -> PolicyChange {
    let (old, new) = (old.model(), new.model());
    let mut change = PolicyChange {
        hooks: changed_hooks(old, new),
        ..PolicyChange::default()
    };
    address_members(old, new, &mut change);
    port_members(old, new, &mut change);
    change
}

fn changed_hooks(old: &Model, new: &Model) -> BTreeSet<(PortId, Hook)> {
    let chains = differing(&old.policy.chains, &new.policy.chains);
    let mut known: BTreeMap<&[ChainId], bool> = BTreeMap::new();
    let mut hooks = BTreeSet::new();
    let ids: BTreeSet<&PortId> = old.ports.keys().chain(new.ports.keys()).collect();
    for id in ids {
        let (before, after) = (old.ports.get(id), new.ports.get(id));
        for hook in [Hook::Ingress, Hook::Egress] {
            let list = |port: Option<&'_ Arc<Port>>| -> Vec<ChainId> {
                port.map_or_else(Vec::new, |it| it.chains(hook).to_vec())
            };
            let is_moved = !same(before, after) && list(before) != list(after);
            let now = after.map_or(&[][..], |it| it.chains(hook));
            let is_changed = is_moved
                || (!chains.is_empty()
                    && *known.entry(now).or_insert_with(|| {
                        // A chain that is reached now and wasn't before is behind one that changed.
                        reachable(&new.policy, now).any(|it| chains.contains(&it))
                    }));
            if is_changed {
                hooks.insert((*id, hook));
            }
        }
    }
    hooks
}

/// Every chain that packets of a hook may meet, once.
fn reachable(policy: &Policy, chains: &[ChainId]) -> impl Iterator<Item = ChainId> {
    let mut seen = BTreeSet::new();
    let mut open = chains.to_vec();
    while let Some(id) = open.pop() {
        if let Some(chain) = policy.chains.get(&id)
            && seen.insert(id)
        {
            open.extend(targets(chain));
        }
    }
    seen.into_iter()
}

fn targets(chain: &Chain) -> impl Iterator<Item = ChainId> {
    chain.rules.iter().filter_map(|rule| match rule.action {
        Action::Jump(target) => Some(target),
        _ => None,
    })
}

/// Members of address groups: lists in order, so that one walk over both finds what differs.
fn address_members(old: &Model, new: &Model, change: &mut PolicyChange) {
    let (old, new) = (&old.policy.address_groups, &new.policy.address_groups);
    for id in differing(old, new) {
        let list = |groups: &BTreeMap<_, Arc<super::AddressGroup>>| groups.get(&id).cloned();
        let (before, after) = (list(old), list(new));
        let before = before.as_ref().map_or(&[][..], |it| &it.prefixes);
        let after = after.as_ref().map_or(&[][..], |it| &it.prefixes);
        change.members(Group::Addresses(id), before, after);
    }
}

/// Members of port groups are addresses of ports, which change without the group.
fn port_members(old: &Model, new: &Model, change: &mut PolicyChange) {
    let ports = differing(&old.ports, &new.ports);
    let (before, after) = (&old.policy.port_groups, &new.policy.port_groups);
    let mut groups = differing(before, after);
    if !ports.is_empty() {
        let has_changed = after
            .values()
            .filter(|it| it.ports.iter().any(|id| ports.contains(id)));
        groups.extend(has_changed.map(|it| it.id));
    }
    for id in groups {
        let list = |model: &Model| -> Vec<IpNet> {
            let group = model.policy.port_groups.get(&id);
            let ports = group.into_iter().flat_map(|it| &it.ports);
            let ports = ports.filter_map(|id| model.ports.get(id));
            let addresses = ports.flat_map(|port| &port.addresses);
            let prefixes: BTreeSet<IpNet> = addresses.map(|it| it.address.into()).collect();
            prefixes.into_iter().collect()
        };
        change.members(Group::Ports(id), &list(old), &list(new));
    }
}

/// Members that come and that go between two lists, both in order with each prefix once: one walk over both.
pub fn compare_members(before: &[IpNet], after: &[IpNet]) -> (Vec<IpNet>, Vec<IpNet>) {
    let (mut come, mut go) = (Vec::new(), Vec::new());
    let (mut old, mut new) = (before.iter().peekable(), after.iter().peekable());
    loop {
        match (old.peek(), new.peek()) {
            (None, None) => return (come, go),
            (Some(a), Some(b)) if a == b => {
                old.next();
                new.next();
            }
            (Some(a), b) if b.is_none_or(|b| a < b) => {
                go.push(**a);
                old.next();
            }
            _ => come.extend(new.next()),
        }
    }
}

/// Keys whose objects come, go or differ.
fn differing<K: Ord + Copy, T: PartialEq>(
    old: &BTreeMap<K, Arc<T>>,
    new: &BTreeMap<K, Arc<T>>,
) -> BTreeSet<K> {
    let gone = old.keys().filter(|key| !new.contains_key(key));
    let other = new.iter().filter(|(key, it)| !same(old.get(key), Some(it)));
    gone.chain(other.map(|(key, _)| key)).copied().collect()
}

fn same<T: PartialEq>(a: Option<&Arc<T>>, b: Option<&Arc<T>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a == b,
        (a, b) => a.is_none() && b.is_none(),
    }
}
