//! What rules of ports' chains have counted.
//!
//! The kernel counts a rule where a lookup ends at it. Packets that need none are in their connection's counters: those
//! of the opener's hook count for the rule that admitted the connection, those of the other hook for the rule that lets
//! established packets pass. What tables that are replaced, and connections that are taken out, had counted is carried
//! on here, by rule: one that moved in its chain is found again by what it says.

use super::Engine;
use super::acls::HookTable;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use weft_common::acl::Cell;
use weft_common::connection::{BY_NETWORK, Connection, ConnectionKeyV6, Traffic};
use weft_common::frame::protocol;
use weft_common::key::class;
use weft_common::{FlowKey, Fragment, Network};
use weft_datapath::{Datapath, Family, Tracked};
use weft_vnet::policy::{Acl, Connection as State, Hook, Policy, Rule, RuleRef, Sets, View};
use weft_vnet::{ChainId, PortId};

/// Type of an ICMP and of an ICMPv6 echo reply, in the upper half of a key's field.
const ECHO_REPLY: [u16; 2] = [0, 129 << 8];
/// Both hooks.
pub(super) const HOOKS: [Hook; 2] = [Hook::Ingress, Hook::Egress];

/// Packets and bytes by rule.
pub(super) type Counts = BTreeMap<RuleRef, Traffic>;
/// By number of an ACL: the rule by which it lets all established packets pass.
pub(super) type PassingRules = HashMap<u16, Option<RuleRef>>;

/// See the module's text.
#[derive(Default)]
pub struct RuleCounts {
    hooks: BTreeMap<(PortId, Hook), HookCounts>,
}

#[derive(Default)]
struct HookCounts {
    /// Of tables and connections that are gone.
    carried: Counts,
    /// What the tables of now had counted when this port began to use them: others did before.
    before: Arc<Vec<Cell>>,
    /// First epoch under which the tables of now admit connections.
    since: u32,
}

/// A compiled ACL with the sets that it asks.
#[derive(Clone, Copy)]
pub(super) struct Table<'a> {
    pub(super) number: u16,
    pub(super) acl: &'a Acl,
    pub(super) sets: Option<&'a Sets>,
}

impl<D: Datapath> Engine<D> {
    /// Chains of these ports are about to be compiled again: what was counted until now is kept. `before`: chains as
    /// they were when the tables of now were made.
    pub(super) fn carry_rule_counts(&mut self, ports: &BTreeSet<PortId>, before: Option<&Policy>) {
        let bound = &self.ports.bound;
        let counts = &mut self.rule_counts;
        counts.hooks.retain(|(id, _), _| bound.contains_key(id));
        let mut moves = Moves::default();
        for id in ports {
            for hook in HOOKS {
                let counted = self.table_counts(*id, hook);
                let place = self.rule_counts.hooks.entry((*id, hook)).or_default();
                add_all(&mut place.carried, &counted);
                if let Some(before) = before {
                    let now = &self.snapshot.model().policy;
                    let carried = std::mem::take(&mut place.carried);
                    let moved = carried
                        .into_iter()
                        .filter_map(|(rule, its)| Some((moves.of(before, now, rule)?, its)));
                    place.carried = moved.collect();
                }
            }
        }
    }

    /// These ports have tables, which their words don't name yet. Those in `fresh` nobody has used.
    pub(super) fn begin_rule_counts(&mut self, ports: &BTreeSet<PortId>, fresh: &BTreeSet<u16>) {
        let mut known: BTreeMap<u16, Arc<Vec<Cell>>> = BTreeMap::new();
        for id in ports {
            let Some(index) = self.ports.bound.get(id).map(|it| it.key.index) else {
                continue;
            };
            for hook in HOOKS {
                let before = match self.acls.table(*id, hook) {
                    HookTable::Compiled(number) if !fresh.contains(&number) => known
                        .entry(number)
                        .or_insert_with(|| {
                            Arc::new(self.datapath.acl_counters(number).unwrap_or_default())
                        })
                        .clone(),
                    _ => Arc::default(),
                };
                let since = self.datapath.policy(index).epoch.wrapping_add(1).max(1);
                let place = self.rule_counts.hooks.entry((*id, hook)).or_default();
                (place.before, place.since) = (before, since);
            }
        }
    }

    /// A connection is about to be taken out: what it counted stays.
    pub(super) fn keep_counts_of(&mut self, tracked: &Tracked) {
        let Some(port) = self.ports.by_index(tracked.entry.key.tail.port) else {
            return;
        };
        for hook in HOOKS {
            let counted = self.connection_count(port, hook, tracked, &mut PassingRules::new());
            if let Some((rule, traffic)) = counted {
                let place = self.rule_counts.hooks.entry((port, hook)).or_default();
                add(place.carried.entry(rule).or_default(), traffic);
            }
        }
    }

    /// What a port's rules counted, but for connections that are still there.
    pub(super) fn settled_counts(&self, port: PortId, hook: Hook) -> Counts {
        let mut counts = self.table_counts(port, hook);
        if let Some(place) = self.rule_counts.hooks.get(&(port, hook)) {
            add_all(&mut counts, &place.carried);
        }
        counts
    }

    /// What the tables of a hook counted since the port uses them.
    fn table_counts(&self, port: PortId, hook: Hook) -> Counts {
        let mut counts = Counts::new();
        let Some(table) = self.acls.compiled_table(port, hook) else {
            return counts;
        };
        let cells = self.datapath.acl_counters(table.number);
        let place = self.rule_counts.hooks.get(&(port, hook));
        for (index, [packets, bytes]) in (0..).zip(cells.unwrap_or_default()) {
            let Some(rule) = table.acl.origin(index).filter(|_| packets > 0) else {
                continue;
            };
            let before = place.and_then(|it| it.before.get(usize::from(index)));
            let [packets_before, bytes_before] = before.copied().unwrap_or_default();
            let traffic = Traffic {
                packets: packets.saturating_sub(packets_before),
                bytes: bytes.saturating_sub(bytes_before),
            };
            add(counts.entry(rule).or_default(), traffic);
        }
        counts
    }

    /// What of a connection's packets no lookup counted at a hook, and the rule that they count for.
    pub(super) fn connection_count(
        &self,
        port: PortId,
        hook: Hook,
        tracked: &Tracked,
        passing: &mut PassingRules,
    ) -> Option<(RuleRef, Traffic)> {
        let table = self.acls.compiled_table(port, hook)?;
        let passes = table.acl.established_passes();
        if table.acl.reads_more() && !passes {
            return None;
        }
        let connection = &tracked.entry.connection;
        let traffic = connection.traffic[hook as usize];
        let looked_up = if opener(connection) != hook {
            u64::from(!passes)
        } else if passes {
            1
        } else {
            // Its first packet, as new, and the next one, as established.
            2
        };
        let traffic = without(traffic, looked_up)?;
        let rule = if opener(connection) == hook {
            self.admitting_rule(port, tracked)?
        } else {
            let ask = || passing_rule(&table, tracked, hook);
            match passes {
                true => (*passing.entry(table.number).or_insert_with(ask))?,
                false => ask()?,
            }
        };
        Some((rule, traffic))
    }

    /// The rule by which the chains of now admitted a connection.
    pub(super) fn admitting_rule(&self, port: PortId, tracked: &Tracked) -> Option<RuleRef> {
        let connection = &tracked.entry.connection;
        let hook = opener(connection);
        let table = self.acls.compiled_table(port, hook)?;
        let since = self.rule_counts.hooks.get(&(port, hook))?.since;
        let is_of_now = connection.opened.wrapping_sub(since) as i32 >= 0;
        let rule = table.acl.origin(connection.rule);
        rule.filter(|_| is_of_now)
    }
}

/// The hook that the connection's first packet came by.
pub(super) fn opener(connection: &Connection) -> Hook {
    match connection.flags & BY_NETWORK {
        0 => Hook::Ingress,
        _ => Hook::Egress,
    }
}

/// The rule that decides of established packets of a connection.
fn passing_rule(table: &Table, tracked: &Tracked, hook: Hook) -> Option<RuleRef> {
    let view = View {
        key: reply_key(tracked.family, &tracked.entry.key, hook),
        upper_known: true,
        state: State::Established,
    };
    let nobody = Sets::default();
    let verdict = table.acl.lookup(&view, table.sets.unwrap_or(&nobody));
    verdict.ok()?.by
}

/// What the flow key of a connection's answers at a hook has in common with its connection.
fn reply_key(family: Family, key: &ConnectionKeyV6, hook: Hook) -> FlowKey {
    let tail = key.tail;
    let mut made = FlowKey::default();
    let network = match family {
        Family::V4 => Network::Ipv4,
        Family::V6 => Network::Ipv6,
    };
    made.head.class = class(0, network, Fragment::Whole);
    made.head.protocol = tail.protocol;
    let is_sent = hook == Hook::Ingress;
    let pair = |local, remote| match is_sent {
        true => (local, remote),
        false => (remote, local),
    };
    (made.head.l4_src, made.head.l4_dst) = match tail.protocol {
        protocol::ICMP => (ECHO_REPLY[0], tail.local_l4),
        protocol::ICMPV6 => (ECHO_REPLY[1], tail.local_l4),
        _ => pair(tail.local_l4, tail.remote_l4),
    };
    match family {
        Family::V4 => {
            let key = key.v4();
            let (source, destination) = match is_sent {
                true => (key.local, key.remote),
                false => (key.remote, key.local),
            };
            made.set_src_v4(source);
            made.set_dst_v4(destination);
        }
        Family::V6 => {
            (made.src, made.dst) = match is_sent {
                true => (key.local, key.remote),
                false => (key.remote, key.local),
            };
        }
    }
    made
}

/// Traffic without so many of its packets, of mean size; none if nothing is left.
fn without(traffic: Traffic, packets: u64) -> Option<Traffic> {
    let left = traffic.packets.checked_sub(packets).filter(|it| *it > 0)?;
    let bytes = u128::from(traffic.bytes) * u128::from(left) / u128::from(traffic.packets);
    Some(Traffic {
        packets: left,
        bytes: bytes as u64,
    })
}

pub(super) fn add(sum: &mut Traffic, more: Traffic) {
    sum.packets = sum.packets.saturating_add(more.packets);
    sum.bytes = sum.bytes.saturating_add(more.bytes);
}

fn add_all(sum: &mut Counts, more: &Counts) {
    for (rule, traffic) in more {
        add(sum.entry(*rule).or_default(), *traffic);
    }
}

/// Where rules of chains went by a change, each chain looked at once.
#[derive(Default)]
struct Moves {
    chains: BTreeMap<ChainId, Vec<Option<u32>>>,
}

impl Moves {
    /// Where a rule is now; none when it is gone, or says something else.
    fn of(&mut self, before: &Policy, now: &Policy, rule: RuleRef) -> Option<RuleRef> {
        let places = self.chains.entry(rule.chain).or_insert_with(|| {
            let rules = |policy: &Policy| policy.chains.get(&rule.chain).cloned();
            match (rules(before), rules(now)) {
                (Some(before), Some(now)) => moved(&before.rules, &now.rules),
                _ => Vec::new(),
            }
        });
        let place = places.get(rule.rule as usize).copied().flatten()?;
        Some(RuleRef {
            chain: rule.chain,
            rule: place,
        })
    }
}

/// For each rule of before, one of now that says the same: in order where the order is the same.
fn moved(before: &[Rule], now: &[Rule]) -> Vec<Option<u32>> {
    let mut taken = vec![false; now.len()];
    let mut next = 0;
    let place = |rule: &Rule| {
        let behind = next..now.len();
        let mut candidates = behind.chain(0..next);
        let found = candidates.find(|it| !taken[*it] && now[*it] == *rule)?;
        taken[found] = true;
        next = found + 1;
        Some(found as u32)
    };
    before.iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_vnet::policy::{Action, Conditions};

    fn rule(protocol: u8) -> Rule {
        Rule {
            matches: Conditions {
                protocol: Some(vec![protocol]),
                ..Conditions::default()
            },
            action: Action::Accept,
            ..Rule::default()
        }
    }

    fn rules(numbers: &[u8]) -> Vec<Rule> {
        numbers.iter().map(|it| rule(*it)).collect()
    }

    #[test]
    fn a_rule_that_moved_is_found_by_what_it_says() {
        let places = |before: &[u8], now: &[u8]| moved(&rules(before), &rules(now));
        assert_eq!(places(&[1, 2], &[9, 1, 2]), [Some(1), Some(2)]);
        assert_eq!(places(&[1, 2, 3], &[1, 3]), [Some(0), None, Some(1)]);
        assert_eq!(places(&[1, 2], &[2, 1]), [Some(1), Some(0)]);
        // Two that say the same stay in order, and one place is one rule's.
        assert_eq!(places(&[1, 1, 1], &[1, 1]), [Some(0), Some(1), None]);
    }

    #[test]
    fn packets_that_were_looked_up_count_once() {
        let traffic = Traffic {
            packets: 4,
            bytes: 400,
        };
        let left = Traffic {
            packets: 3,
            bytes: 300,
        };
        assert_eq!(without(traffic, 1), Some(left));
        assert_eq!(without(traffic, 4), None);
        assert_eq!(without(traffic, 9), None);
    }

    #[test]
    fn answers_have_the_sender_s_side_first() {
        let mut key = ConnectionKeyV6::default();
        key.remote[8..].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        key.tail.protocol = protocol::TCP;
        (key.tail.local_l4, key.tail.remote_l4) = (80, 40000);
        let sent = reply_key(Family::V4, &key, Hook::Ingress);
        assert_eq!(
            (sent.src_v4(), sent.dst_v4()),
            ([10, 0, 0, 1], [10, 0, 0, 2])
        );
        assert_eq!((sent.head.l4_src, sent.head.l4_dst), (80, 40000));
        let received = reply_key(Family::V4, &key, Hook::Egress);
        assert_eq!(received.src_v4(), [10, 0, 0, 2]);
        assert_eq!((received.head.l4_src, received.head.l4_dst), (40000, 80));
    }
}
