//! Random changes of chains and groups, and who keeps up with them by what [`policy::changed`] names.

use super::Dice;
use crate::fixture::Topology;
use crate::model::{Kind, Object, Operation, Port};
use crate::policy::{
    self, Acl, Action, AddressGroup, AddressMatch, Chain, CompileError, Conditions, Group, Hook,
    PortGroup, Rule, Sets,
};
use crate::snapshot::Snapshot;
use crate::{AddressGroupId, ChainId, PortGroupId, PortId, TenantId};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

const POOL: u128 = 3;
const HOOKS: [Hook; 2] = [Hook::Ingress, Hook::Egress];

fn id(kind: u128, number: usize) -> Uuid {
    Uuid::from_u128(0xff00 + kind * 0x10 + number as u128)
}

fn prefixes(dice: &mut Dice) -> Vec<IpNet> {
    let pool = [
        "10.0.0.0/8",
        "10.0.0.0/24",
        "10.0.0.12/32",
        "10.0.1.11/32",
        "fd00::/16",
        "fd00::12/128",
    ];
    let count = dice.below(4);
    (0..count)
        .map(|_| dice.pick(&pool).parse().unwrap())
        .collect()
}

/// All groups, chains of which each jumps to the next, and the first of them on both hooks of every port: so that little
/// of what follows is refused.
pub(super) fn seed(topology: &mut Topology) {
    let tenant = *topology.model.tenants.keys().next().unwrap();
    let mut objects = Vec::new();
    for number in (0..POOL as usize).rev() {
        objects.push(Object::AddressGroup(AddressGroup {
            id: AddressGroupId(id(1, number)),
            tenant,
            name: format!("a{number}"),
            prefixes: Vec::new(),
        }));
        objects.push(Object::PortGroup(PortGroup {
            id: PortGroupId(id(2, number)),
            tenant,
            name: format!("p{number}"),
            ports: Vec::new(),
            stateful: false,
        }));
        let jump = Rule {
            action: Action::Jump(ChainId(id(0, number + 1))),
            ..Rule::default()
        };
        objects.push(Object::Chain(Chain {
            id: ChainId(id(0, number)),
            tenant,
            name: format!("c{number}"),
            rules: (number + 1 < POOL as usize)
                .then_some(jump)
                .into_iter()
                .collect(),
        }));
    }
    for port in topology.model.ports.values() {
        let mut port = (**port).clone();
        port.ingress = vec![ChainId(id(0, 0))];
        port.egress = vec![ChainId(id(0, 0))];
        objects.push(Object::Port(port));
    }
    topology.put(objects);
}

/// Refused as a whole where it makes no sense, which is most of what is random: then nothing changes.
pub(super) fn change(topology: &mut Topology, dice: &mut Dice) {
    let tenant = *topology.model.tenants.keys().next().unwrap();
    let number = dice.below(POOL as usize);
    let operation = match dice.below(8) {
        0 | 1 => Operation::Put(Object::Chain(chain(dice, tenant, number))),
        2 => Operation::Put(Object::AddressGroup(AddressGroup {
            id: AddressGroupId(id(1, number)),
            tenant,
            name: format!("a{number}"),
            prefixes: prefixes(dice),
        })),
        3 => Operation::Members {
            group: AddressGroupId(id(1, number)),
            add: prefixes(dice),
            remove: prefixes(dice),
        },
        4 => Operation::Put(Object::PortGroup(PortGroup {
            id: PortGroupId(id(2, number)),
            tenant,
            name: format!("p{number}"),
            ports: topology
                .model
                .ports
                .keys()
                .copied()
                .filter(|_| dice.one_in(3))
                .collect(),
            stateful: false,
        })),
        5 => {
            let kinds = [
                (Kind::Chain, 0),
                (Kind::AddressGroup, 1),
                (Kind::PortGroup, 2),
            ];
            let (kind, offset) = dice.pick(&kinds);
            let id = id(offset, number);
            Operation::Delete { kind, id }
        }
        _ => match filtered(topology, dice) {
            Some(port) => Operation::Put(Object::Port(port)),
            None => return,
        },
    };
    if let Ok(model) = topology.model.apply(&[operation]) {
        topology.model = model;
    }
}

/// A port with other chains.
fn filtered(topology: &Topology, dice: &mut Dice) -> Option<Port> {
    let ports: Vec<PortId> = topology.model.ports.keys().copied().collect();
    if ports.is_empty() {
        return None;
    }
    let mut port = (*topology.model.ports[&dice.pick(&ports)]).clone();
    let chains = topology.model.policy.chains.keys().copied();
    let list = chains.filter(|_| dice.one_in(2)).collect();
    if dice.one_in(2) {
        port.ingress = list;
    } else {
        port.egress = list;
    }
    Some(port)
}

/// Jumps lead to chains of a higher number, so that there is no loop; often to none that is there.
fn chain(dice: &mut Dice, tenant: TenantId, number: usize) -> Chain {
    let rule = |dice: &mut Dice| {
        let group = match dice.below(4) {
            0 => Some(Group::Ports(PortGroupId(id(2, dice.below(POOL as usize))))),
            1 | 2 => Some(Group::Addresses(AddressGroupId(id(
                1,
                dice.below(POOL as usize),
            )))),
            _ => None,
        };
        let action = match dice.below(4) {
            0 => Action::Jump(ChainId(id(0, number + 1))),
            1 => Action::Accept,
            2 => Action::Log,
            _ => Action::Drop,
        };
        let src = group.map(|group| vec![AddressMatch::Group(group)]);
        Rule {
            matches: Conditions {
                src,
                ..Conditions::default()
            },
            action,
            ..Rule::default()
        }
    };
    Chain {
        id: ChainId(id(0, number)),
        tenant,
        name: format!("c{number}"),
        rules: (0..dice.below(3)).map(|_| rule(dice)).collect(),
    }
}

/// What a datapath keeps: members of sets and compiled hooks, changed by what is named and nothing else.
#[derive(Default)]
pub(super) struct Kept {
    sets: Sets,
    members: BTreeSet<(Group, IpNet)>,
    hooks: BTreeMap<(PortId, Hook), Result<Acl, CompileError>>,
}

impl Kept {
    pub(super) fn of(snapshot: &Snapshot) -> Kept {
        let mut kept = Kept::default();
        kept.follow(&Snapshot::default(), snapshot);
        kept
    }

    /// Takes a change, and is what it would be if it were made anew.
    pub(super) fn follow(&mut self, old: &Snapshot, new: &Snapshot) {
        let change = policy::changed(old, new);
        for member in change.go {
            assert!(
                self.members.remove(&member),
                "{member:?} goes and wasn't there"
            );
            self.sets.remove(member.0, member.1);
        }
        for member in change.come {
            assert!(self.members.insert(member), "{member:?} comes and is there");
            self.sets.add(member.0, member.1).unwrap();
        }
        for hook in change.hooks {
            let acl = policy::compile(new.policy(), new.chains(hook.0, hook.1), &mut self.sets);
            self.hooks.insert(hook, acl);
        }
        self.hooks.retain(|(port, _), _| new.port(*port).is_some());

        assert_eq!(self.members, new.members().collect());
        for (group, prefix) in new.members() {
            assert!(self.sets.contains(group, prefix.addr()));
        }
        for port in new.model().ports.keys() {
            for hook in HOOKS {
                let anew = policy::compile(new.policy(), new.chains(*port, hook), &mut self.sets);
                match self.hooks.get(&(*port, hook)) {
                    Some(kept) => assert_eq!(*kept, anew, "{port} {hook}"),
                    None => assert!(new.chains(*port, hook).is_empty(), "{port} {hook}"),
                }
            }
        }
    }
}
