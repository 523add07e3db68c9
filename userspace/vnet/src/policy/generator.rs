//! Random policies, sets and packets for property tests: of the compiled tables here, and of the kernel's lookup.
//!
//! Values are drawn from small pools, so that packets hit what rules ask for, and just miss it.

use super::*;
use crate::Mac;
use crate::id::{AddressGroupId, ChainId, PortGroupId, TenantId};
use ipnet::IpNet;
use std::fmt;
use std::sync::Arc;
use uuid::Uuid;
use weft_common::key::{VLAN_PRESENT, class};
use weft_common::{FlowKey, Fragment, Network};

const CHAINS: usize = 5;

/// Of the chain with this number.
pub fn chain_id(number: u128) -> ChainId {
    ChainId(Uuid::from_u128(number))
}

/// The address group with this number.
pub fn addresses(number: u128) -> Group {
    Group::Addresses(AddressGroupId(Uuid::from_u128(number)))
}

/// The port group with this number.
pub fn ports(number: u128) -> Group {
    Group::Ports(PortGroupId(Uuid::from_u128(number)))
}

/// Chains `a`, `b`, `c`, ... with the ids 0, 1, 2, ...
pub fn policy(chains: Vec<Vec<Rule>>) -> Policy {
    let chain = |(index, rules): (usize, Vec<Rule>)| {
        let id = chain_id(index as u128);
        let name = char::from(b'a' + (index % 26) as u8).to_string();
        let chain = Chain {
            id,
            tenant: TenantId(Uuid::nil()),
            name,
            rules,
        };
        (id, Arc::new(chain))
    };
    Policy {
        chains: chains.into_iter().enumerate().map(chain).collect(),
        ..Policy::default()
    }
}

/// Numbers that stand for chance.
pub struct Dice {
    /// What is left of them.
    numbers: Vec<u8>,
    next: usize,
}

impl fmt::Debug for Dice {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used = &self.numbers[..self.next.min(self.numbers.len())];
        write!(out, "dice of {} numbers, used {used:?}", self.numbers.len())
    }
}

impl Dice {
    /// Those numbers, and then nothing but 0.
    pub fn new(numbers: Vec<u8>) -> Dice {
        Dice { numbers, next: 0 }
    }

    /// A number below `bound`; 0 when the numbers are used up.
    pub fn below(&mut self, bound: usize) -> usize {
        let number = self.numbers.get(self.next).copied().unwrap_or(0);
        self.next += 1;
        usize::from(number) % bound
    }

    /// True once in so many times.
    pub fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == bound - 1
    }

    /// One of them.
    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    fn some<T>(&mut self, one: impl Fn(&mut Self) -> T) -> Vec<T> {
        (0..self.below(3) + 1).map(|_| one(self)).collect()
    }
}

const PREFIXES: [&str; 14] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.0.0.0/16",
    "10.0.0.0/24",
    "10.0.0.128/25",
    "10.0.0.1/32",
    "10.0.1.0/24",
    "192.0.2.0/24",
    "::/0",
    "fd00::/16",
    "fd00::/64",
    "fd00::1/128",
    "fd00:0:0:1::/64",
    "2001:db8::/32",
];
const V4: [[u8; 4]; 6] = [
    [10, 0, 0, 1],
    [10, 0, 0, 129],
    [10, 0, 1, 7],
    [10, 9, 9, 9],
    [192, 0, 2, 1],
    [203, 0, 113, 9],
];
const V6: [&str; 4] = ["fd00::1", "fd00::2", "fd00:0:0:1::1", "2001:db8::9"];
const PORTS: [u16; 8] = [0, 22, 67, 80, 443, 547, 8_000, 65_535];
const PROTOCOLS: [u8; 7] = [1, 6, 17, 58, 132, 47, 0];
const MACS: [Mac; 4] = [
    Mac([2, 0, 0, 0, 0, 1]),
    Mac([2, 0, 0, 0, 0, 2]),
    Mac([2, 0, 0, 1, 0, 1]),
    Mac::BROADCAST,
];
const MASKS: [Mac; 3] = [
    Mac::BROADCAST,
    Mac([0xff, 0xff, 0xff, 0, 0, 0]),
    Mac([1, 0, 0, 0, 0, 0]),
];
const STATES: [Connection; 4] = [
    Connection::New,
    Connection::Established,
    Connection::Related,
    Connection::Invalid,
];

/// A group of a few.
pub fn group(dice: &mut Dice) -> Group {
    let number = dice.below(3) as u128;
    if dice.one_in(2) {
        ports(number)
    } else {
        addresses(number)
    }
}

/// A prefix of a few.
pub fn prefix(dice: &mut Dice) -> IpNet {
    dice.pick(&PREFIXES).parse().unwrap()
}

fn address_match(dice: &mut Dice) -> AddressMatch {
    if dice.one_in(2) {
        AddressMatch::Group(group(dice))
    } else {
        AddressMatch::Prefix(prefix(dice))
    }
}

fn port_range(dice: &mut Dice) -> PortRange {
    let (a, b) = (dice.pick(&PORTS), dice.pick(&PORTS));
    PortRange {
        first: a.min(b),
        last: a.max(b),
    }
}

fn mac_match(dice: &mut Dice) -> MacMatch {
    MacMatch {
        value: dice.pick(&MACS),
        mask: dice.pick(&MASKS),
    }
}

fn icmp_match(dice: &mut Dice) -> IcmpMatch {
    IcmpMatch {
        kind: dice.pick(&[0, 3, 8, 128, 134, 135]),
        code: dice.one_in(2).then_some(dice.below(2) as u8),
    }
}

fn conditions(dice: &mut Dice) -> Conditions {
    let mut it = Conditions::default();
    for _ in 0..dice.pick(&[0, 0, 1, 1, 2, 3]) {
        match dice.below(14) {
            0 => it.ethertype = Some(dice.some(|dice| dice.pick(&[0x800, 0x806, 0x86dd, 0x88cc]))),
            1 => it.src_mac = Some(mac_match(dice)),
            2 => it.dst_mac = Some(mac_match(dice)),
            3 => it.vlan = Some(dice.pick(&[VlanMatch::None, VlanMatch::Id(0), VlanMatch::Id(5)])),
            4 => it.tos = Some(dice.some(|dice| dice.pick(&[0, 4, 255]))),
            5 => it.protocol = Some(dice.some(|dice| dice.pick(&PROTOCOLS))),
            6 | 7 => it.src = Some(dice.some(address_match)),
            8 | 9 => it.dst = Some(dice.some(address_match)),
            10 => it.src_port = Some(dice.some(port_range)),
            11 => it.dst_port = Some(dice.some(port_range)),
            12 => it.icmp = Some(dice.some(icmp_match)),
            _ => match dice.below(3) {
                0 => {
                    it.fragment = Some(dice.pick(&[
                        FragmentPolicy::Any,
                        FragmentPolicy::First,
                        FragmentPolicy::Later,
                        FragmentPolicy::Unfragmented,
                    ]));
                }
                _ => it.state = Some(dice.some(|dice| dice.pick(&STATES))),
            },
        }
    }
    it
}

/// A rule of the chain of this index: it jumps to later ones only.
fn random_rule(dice: &mut Dice, chain: usize) -> Rule {
    let jumps = chain + 1 < CHAINS && dice.one_in(3);
    let action = if jumps {
        Action::Jump(chain_id(
            (chain + 1 + dice.below(CHAINS - chain - 1)) as u128,
        ))
    } else {
        dice.pick(&[
            Action::Accept,
            Action::Drop,
            Action::Reject,
            Action::Return,
            Action::Continue,
            Action::Log,
        ])
    };
    let inverted = if dice.one_in(3) { 1 + dice.below(2) } else { 0 };
    Rule {
        matches: conditions(dice),
        not: (0..inverted).map(|_| conditions(dice)).collect(),
        action,
        log: dice.one_in(6).then(|| "log".to_owned()),
    }
}

/// Matches no packet of [`random_view`].
fn nobody() -> Rule {
    let matches = Conditions {
        tos: Some(vec![77]),
        ..Conditions::default()
    };
    Rule {
        matches,
        ..Rule::default()
    }
}

/// Chains, and those of them that a hook has.
pub fn random_policy(dice: &mut Dice) -> (Policy, Vec<ChainId>) {
    let chains = (0..CHAINS)
        .map(|chain| {
            let mut rules: Vec<Rule> = (0..dice.below(6))
                .map(|_| random_rule(dice, chain))
                .collect();
            // So that rules lie in several blocks.
            if dice.one_in(4) {
                let place = dice.below(rules.len() + 1);
                let count = dice.below(150);
                rules.splice(place..place, (0..count).map(|_| nobody()));
            }
            rules
        })
        .collect();
    let hook = (0..1 + dice.below(2)).map(|it| chain_id(it as u128));
    (policy(chains), hook.collect())
}

/// Members of the groups.
pub fn random_sets(dice: &mut Dice) -> Sets {
    let mut sets = Sets::default();
    for _ in 0..dice.below(8) {
        sets.add(group(dice), prefix(dice)).unwrap();
    }
    for _ in 0..dice.below(3) {
        sets.remove(group(dice), prefix(dice));
    }
    sets
}

/// A packet.
pub fn random_view(dice: &mut Dice) -> View {
    let mut key = FlowKey::default();
    let network = dice.pick(&[
        Network::Ipv4,
        Network::Ipv4,
        Network::Ipv6,
        Network::Ipv6,
        Network::Arp,
        Network::Other,
    ]);
    let is_ip = matches!(network, Network::Ipv4 | Network::Ipv6);
    let fragment = match dice.below(6) {
        0 if is_ip => Fragment::First,
        1 if is_ip => Fragment::Later,
        _ => Fragment::Whole,
    };
    key.head.class = class(0, network, fragment);
    key.head.src_mac = dice.pick(&MACS).0;
    key.head.dst_mac = dice.pick(&MACS).0;
    key.head.vlan = dice.pick(&[0, 0, VLAN_PRESENT, 5 | VLAN_PRESENT]);
    let upper_known = fragment != Fragment::Later || dice.one_in(2);
    if is_ip {
        key.head.tos = dice.pick(&[0, 4, 255]);
        key.head.protocol = dice.pick(&PROTOCOLS);
        upper(dice, &mut key, upper_known);
    } else if network == Network::Arp {
        key.head.protocol = 1;
    } else {
        key.head.l4_src = dice.pick(&[0x88cc, 0]);
    }
    if network == Network::Ipv6 {
        let address = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().octets();
        key.src = address(dice.pick(&V6));
        key.dst = address(dice.pick(&V6));
    } else if network != Network::Other {
        key.set_src_v4(dice.pick(&V4));
        key.set_dst_v4(dice.pick(&V4));
    }
    View {
        key,
        upper_known,
        state: dice.pick(&STATES),
    }
}

fn upper(dice: &mut Dice, key: &mut FlowKey, is_known: bool) {
    if !is_known {
        return;
    }
    match key.head.protocol {
        6 | 17 | 132 => {
            (key.head.l4_src, key.head.l4_dst) = (dice.pick(&PORTS), dice.pick(&PORTS));
        }
        1 | 58 => {
            let kind = dice.pick(&[0_u8, 3, 8, 128, 134, 135]);
            key.head.l4_src = u16::from_be_bytes([kind, dice.below(2) as u8]);
        }
        _ => {}
    }
}
