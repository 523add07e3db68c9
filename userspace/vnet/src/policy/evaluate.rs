//! The interpreted evaluation of a hook's chains: what compiled tables are held against.
//!
//! No state. Called by `weft trace`, the audit and the property tests. It reads conditions word for word, and ends for
//! every policy, whether that was validated or not.

use super::chain::{
    Action, AddressMatch, Conditions, FragmentPolicy, MacMatch, Policy, PortRange, Rule, VlanMatch,
};
use super::sets::Sets;
use super::view::View;
use crate::id::ChainId;
use crate::mac::Mac;
use std::net::IpAddr;
use weft_common::Fragment;
use weft_common::acl::{Service, Upper};
use weft_common::key::VLAN_PRESENT;
use weft_common::limits::{POLICY_DEPTH_MAX, POLICY_RULES_MAX};

/// What becomes of a packet at a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decision {
    /// It passes.
    Accept,
    /// It is dropped in silence.
    Drop,
    /// It is dropped and its sender told.
    Reject,
}

/// A rule by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleRef {
    /// The chain that it stands in.
    pub chain: ChainId,
    /// Its index there, from 0.
    pub rule: u32,
}

/// What a hook's chains say of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What becomes of it.
    pub decision: Decision,
    /// The rule that decided; none where all chains ended without one, which accepts.
    pub by: Option<RuleRef>,
    /// Rules that write a log record, in order.
    pub logs: Vec<RuleRef>,
}

/// Evaluates the chains of a hook in their order. A chain that ends falls to the next; after the last the packet is
/// accepted.
///
/// A policy that `validate` refuses is evaluated, too: a chain that isn't there has no rules, and a packet that meets
/// more rules or deeper jumps than a port may have is dropped.
pub fn evaluate(hook: &[ChainId], policy: &Policy, view: &View, sets: &Sets) -> Verdict {
    let mut run = Run {
        policy,
        view,
        sets,
        service: view.service(),
        rules_left: POLICY_RULES_MAX,
        logs: Vec::new(),
    };
    let mut end = None;
    for chain in hook {
        end = run.chain(*chain, false, POLICY_DEPTH_MAX);
        if end.is_some() {
            break;
        }
    }
    let (decision, by) = match end {
        Some((decision, by)) => (decision, Some(by)),
        None => (Decision::Accept, None),
    };
    Verdict {
        decision,
        by,
        logs: run.logs,
    }
}

struct Run<'a> {
    policy: &'a Policy,
    view: &'a View,
    sets: &'a Sets,
    service: Option<Service>,
    rules_left: usize,
    logs: Vec<RuleRef>,
}

impl Run<'_> {
    /// None when the chain ended without a decision. `named`: a jump on the way here named the packet's service.
    fn chain(&mut self, id: ChainId, named: bool, depth: usize) -> Option<(Decision, RuleRef)> {
        let policy = self.policy;
        let chain = policy.chains.get(&id)?;
        for (index, rule) in chain.rules.iter().enumerate() {
            let place = RuleRef {
                chain: id,
                rule: index as u32,
            };
            if self.rules_left == 0 || depth == 0 {
                return Some((Decision::Drop, place));
            }
            self.rules_left -= 1;
            let named = named || self.names(rule);
            // A jump leads on to rules that may name what it doesn't.
            let may_act = named || matches!(rule.action, Action::Jump(_));
            if !may_act || !self.matches(rule) {
                continue;
            }
            if rule.log.is_some() || rule.action == Action::Log {
                self.logs.push(place);
            }
            match rule.action {
                Action::Accept => return Some((Decision::Accept, place)),
                Action::Drop | Action::Translate(_) => return Some((Decision::Drop, place)),
                Action::Reject => return Some((Decision::Reject, place)),
                Action::Return => return None,
                Action::Continue | Action::Log => {}
                Action::Jump(target) => {
                    let end = self.chain(target, named, depth - 1);
                    if end.is_some() {
                        return end;
                    }
                }
            }
        }
        None
    }

    fn names(&self, rule: &Rule) -> bool {
        self.service
            .is_none_or(|service| rule.matches.name(service))
    }

    fn matches(&self, rule: &Rule) -> bool {
        let whole = |conditions| holds(conditions, self.view, self.sets);
        whole(&rule.matches) && !rule.not.iter().any(whole)
    }
}

/// Whether all of the conditions hold.
fn holds(conditions: &Conditions, view: &View, sets: &Sets) -> bool {
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
    } = conditions;
    let head = &view.key.head;
    let (source, destination) = view.addresses().unzip();
    let ports = (view.upper() == Upper::Ports).then_some((head.l4_src, head.l4_dst));
    let [kind, code] = head.l4_src.to_be_bytes();
    let is_icmp = matches!(view.upper(), Upper::Icmp | Upper::Icmpv6);
    asked(ethertype, |list| list.contains(&view.ethertype()))
        && asked(src_mac, |it| mac_holds(it, head.src_mac))
        && asked(dst_mac, |it| mac_holds(it, head.dst_mac))
        && asked(vlan, |it| match it {
            VlanMatch::None => head.vlan == 0,
            VlanMatch::Id(id) => head.vlan == *id | VLAN_PRESENT,
        })
        && asked(tos, |list| view.is_ip() && list.contains(&head.tos))
        && asked(protocol, |list| {
            view.is_ip() && list.contains(&head.protocol)
        })
        && asked(src, |list| {
            source.is_some_and(|it| is_one_of(list, it, sets))
        })
        && asked(dst, |list| {
            destination.is_some_and(|it| is_one_of(list, it, sets))
        })
        && asked(src_port, |list| {
            ports.is_some_and(|(it, _)| is_in(list, it))
        })
        && asked(dst_port, |list| {
            ports.is_some_and(|(_, it)| is_in(list, it))
        })
        && asked(icmp, |list| {
            let one = |it: &super::IcmpMatch| it.kind == kind && it.code.is_none_or(|it| it == code);
            is_icmp && list.iter().any(one)
        })
        && asked(fragment, |it| match it {
            FragmentPolicy::Any => true,
            FragmentPolicy::First => head.fragment() == Fragment::First,
            FragmentPolicy::Later => head.fragment() == Fragment::Later,
            FragmentPolicy::Unfragmented => head.fragment() == Fragment::Whole,
        })
        && asked(state, |list| list.contains(&view.state))
        // A port knows none of these.
        && device.is_empty()
}

fn asked<T>(condition: &Option<T>, holds: impl FnOnce(&T) -> bool) -> bool {
    condition.as_ref().is_none_or(holds)
}

fn mac_holds(condition: &MacMatch, mac: [u8; 6]) -> bool {
    let MacMatch { value, mask } = *condition;
    MacMatch::bits(Mac(mac), mask) == MacMatch::bits(value, mask)
}

fn is_one_of(list: &[AddressMatch], address: IpAddr, sets: &Sets) -> bool {
    list.iter().any(|it| match it {
        AddressMatch::Prefix(prefix) => prefix.contains(&address),
        AddressMatch::Group(group) => sets.contains(*group, address),
    })
}

fn is_in(list: &[PortRange], port: u16) -> bool {
    list.iter().any(|it| (it.first..=it.last).contains(&port))
}

#[cfg(test)]
mod tests;
