//! Chains, rules and groups of a topology file: read with every mistake's place, names not looked up yet.
//!
//! No state. Called by `document`; `plan` looks the names up.

use std::collections::BTreeMap;
use std::str::FromStr;

use ipnet::IpNet;
use weft_common::frame::protocol;
use weft_vnet::Mac;
use weft_vnet::policy::{
    Conditions, Connection, FragmentPolicy, IcmpMatch, MacMatch, PortRange, VlanMatch,
};

use super::mistake::Spanned;
use super::reader::{Fields, Keys, Reader, list};
use super::yaml::{Node, Value};

/// Condition keys, which a rule and a `not` share.
const CONDITIONS: [&str; 13] = [
    "ethertype",
    "src_mac",
    "dst_mac",
    "vlan",
    "tos",
    "proto",
    "src",
    "dst",
    "src_port",
    "dst_port",
    "icmp",
    "fragment",
    "state",
];
/// What only bridges and routers know.
const OF_DEVICES: &[&str] = &["in_port", "out_port", "to", "ports"];
const RULE: Keys = Keys {
    what: "a rule",
    known: &[
        CONDITIONS[0],
        CONDITIONS[1],
        CONDITIONS[2],
        CONDITIONS[3],
        CONDITIONS[4],
        CONDITIONS[5],
        CONDITIONS[6],
        CONDITIONS[7],
        CONDITIONS[8],
        CONDITIONS[9],
        CONDITIONS[10],
        CONDITIONS[11],
        CONDITIONS[12],
        "not",
        "action",
        "chain",
        "log",
    ],
    later: OF_DEVICES,
};
const NOT: Keys = Keys {
    what: "`not`",
    known: &CONDITIONS,
    later: OF_DEVICES,
};
const ADDRESSES: Keys = Keys {
    what: "a set of addresses",
    known: &["group", "port_group"],
    later: &[],
};
const ICMP: Keys = Keys {
    what: "`icmp`",
    known: &["type", "code"],
    later: &[],
};
const PORT_GROUP: Keys = Keys {
    what: "a port group",
    known: &["ports", "stateful"],
    later: &[],
};
const ACTIONS: [&str; 7] = [
    "accept", "drop", "reject", "return", "continue", "jump", "log",
];
const DEVICE_ACTIONS: [&str; 5] = ["snat", "dnat", "reverse_snat", "reverse_dnat", "redirect"];
const STATES: [Connection; 4] = [
    Connection::New,
    Connection::Established,
    Connection::Related,
    Connection::Invalid,
];

/// A chain as a file says it.
#[derive(Clone, Debug)]
pub struct ChainEntry {
    /// Its name.
    pub name: Spanned<String>,
    /// All its rules.
    pub rules: Vec<Spanned<RuleEntry>>,
}

/// A rule as a file says it.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleEntry {
    /// All must hold.
    pub matches: ConditionsEntry,
    /// None of these may hold as a whole.
    pub not: Vec<ConditionsEntry>,
    /// What it does.
    pub action: ActionEntry,
    /// Name of its log records.
    pub log: Option<Spanned<String>>,
}

/// Conditions as a file says them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConditionsEntry {
    /// Those that name no groups: all but `src` and `dst`.
    pub plain: Conditions,
    /// Sources.
    pub src: Option<Vec<AddressEntry>>,
    /// Destinations.
    pub dst: Option<Vec<AddressEntry>>,
}

/// Some addresses as a file says them.
#[derive(Clone, Debug, PartialEq)]
pub enum AddressEntry {
    /// In a prefix.
    Prefix(IpNet),
    /// In an address group of this name.
    AddressGroup(Spanned<String>),
    /// Of the ports of a port group of this name.
    PortGroup(Spanned<String>),
}

/// What a rule does, as a file says it.
#[derive(Clone, Debug, PartialEq)]
pub enum ActionEntry {
    /// `accept`.
    Accept,
    /// `drop`.
    Drop,
    /// `reject`.
    Reject,
    /// `return`.
    Return,
    /// `continue`.
    Continue,
    /// `log`.
    Log,
    /// `jump`, to the chain of this name.
    Jump(Spanned<String>),
}

/// An address group as a file says it.
#[derive(Clone, Debug)]
pub struct AddressGroupEntry {
    /// Its name.
    pub name: Spanned<String>,
    /// All its members.
    pub prefixes: Vec<IpNet>,
}

/// A port group as a file says it.
#[derive(Clone, Debug)]
pub struct PortGroupEntry {
    /// Its name.
    pub name: Spanned<String>,
    /// All its members, as (device, port).
    pub ports: Vec<Spanned<(String, String)>>,
    /// Whether they share connections.
    pub stateful: bool,
}

pub(super) fn chain(
    reader: &mut Reader<'_>,
    name: Spanned<String>,
    node: &Node,
) -> Option<ChainEntry> {
    let items = reader.items(node, "a list of rules")?;
    let mut rules = Vec::with_capacity(items.len());
    for item in items {
        let rule = rule(reader, item);
        rules.extend(rule.map(|it| Spanned::new(it, item.span)));
    }
    Some(ChainEntry { name, rules })
}

pub(super) fn address_group(
    reader: &mut Reader<'_>,
    name: Spanned<String>,
    node: &Node,
) -> Option<AddressGroupEntry> {
    let items = reader.items(node, "a list of prefixes like [203.0.113.0/24]")?;
    let mut prefixes = Vec::with_capacity(items.len());
    let mut seen = BTreeMap::new();
    for item in items {
        let Some(prefix) = address_or_prefix(reader, item) else {
            continue;
        };
        match seen.insert(prefix, item.span) {
            Some(first) => reader.duplicate(item.span, &format!("`{prefix}`"), first),
            None => prefixes.push(prefix),
        }
    }
    Some(AddressGroupEntry { name, prefixes })
}

pub(super) fn port_group(
    reader: &mut Reader<'_>,
    name: Spanned<String>,
    node: &Node,
) -> Option<PortGroupEntry> {
    let fields = reader.fields(node, &PORT_GROUP)?;
    let stateful = match fields.get("stateful") {
        Some(node) => reader.boolean(node)?.value,
        None => false,
    };
    let items = match fields.get("ports") {
        Some(node) => reader.items(node, "a list of ports like [web/web-1]")?,
        None => &[],
    };
    let ports = items.iter().filter_map(|item| reader.port_path(item));
    let ports = ports.collect();
    Some(PortGroupEntry {
        name,
        ports,
        stateful,
    })
}

/// Names of the chains of a port's hook, in order.
pub(super) fn hook(reader: &mut Reader<'_>, node: &Node) -> Option<Spanned<Vec<Spanned<String>>>> {
    let items = reader.items(node, "a list of chains like [to-web]")?;
    let names: Vec<_> = items.iter().map(|it| reader.name(it)).collect();
    let names: Option<Vec<_>> = names.into_iter().collect();
    names.map(|names| Spanned::new(names, node.span))
}

fn rule(reader: &mut Reader<'_>, node: &Node) -> Option<RuleEntry> {
    let fields = reader.fields(node, &RULE)?;
    let matches = conditions(reader, &fields);
    let not = match fields.get("not") {
        Some(node) => not(reader, node),
        None => Some(Vec::new()),
    };
    let action = action(reader, node, &fields);
    let log = match fields.get("log") {
        Some(node) => Some(reader.name(node)?),
        None => None,
    };
    Some(RuleEntry {
        matches: matches?,
        not: not?,
        action: action?,
        log,
    })
}

/// One mapping, or a list of them.
fn not(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<ConditionsEntry>> {
    each(node, |item| {
        let fields = reader.fields(item, &NOT)?;
        if CONDITIONS.iter().all(|key| fields.get(key).is_none()) {
            // "Not everything" would be a rule that never matches.
            return reader.expected(item, &format!("a condition: {}", list(&CONDITIONS)));
        }
        conditions(reader, &fields)
    })
}

fn action(reader: &mut Reader<'_>, node: &Node, fields: &Fields<'_>) -> Option<ActionEntry> {
    let Some(word) = fields.get("action") else {
        reader.report(node.span, "found a rule without `action`, expected it");
        return None;
    };
    let target = fields.get("chain");
    let text = reader.text(word, &list(&ACTIONS))?;
    if text == "jump" {
        let Some(target) = target else {
            reader.report(word.span, "found `jump` without `chain`, expected it");
            return None;
        };
        return reader.name(target).map(ActionEntry::Jump);
    }
    if let Some(span) = fields.key_span("chain") {
        reader.report(
            span,
            format!("found `chain` with action `{text}`, expected it with `jump` only"),
        );
        return None;
    }
    match text {
        "accept" => Some(ActionEntry::Accept),
        "drop" => Some(ActionEntry::Drop),
        "reject" => Some(ActionEntry::Reject),
        "return" => Some(ActionEntry::Return),
        "continue" => Some(ActionEntry::Continue),
        "log" => Some(ActionEntry::Log),
        _ if DEVICE_ACTIONS.contains(&text) => {
            reader.later(word.span, &format!("action `{text}`"));
            None
        }
        _ => reader.expected(word, &list(&ACTIONS)),
    }
}

/// All of them are read, so that each mistake is told.
fn conditions(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<ConditionsEntry> {
    let before = reader.mistakes.len();
    let mut read = Conditions::default();
    if let Some(node) = fields.get("ethertype") {
        read.ethertype = each(node, |it| ethertype(reader, it));
    }
    read.src_mac = fields.get("src_mac").and_then(|it| mac(reader, it));
    read.dst_mac = fields.get("dst_mac").and_then(|it| mac(reader, it));
    read.vlan = fields.get("vlan").and_then(|it| vlan(reader, it));
    if let Some(node) = fields.get("tos") {
        read.tos = each(node, |it| number(reader, it, "a number from 0 to 255"));
    }
    if let Some(node) = fields.get("proto") {
        read.protocol = each(node, |it| ip_protocol(reader, it));
    }
    if let Some(node) = fields.get("src_port") {
        read.src_port = each(node, |it| port_range(reader, it));
    }
    if let Some(node) = fields.get("dst_port") {
        read.dst_port = each(node, |it| port_range(reader, it));
    }
    if let Some(node) = fields.get("icmp") {
        read.icmp = each(node, |it| icmp(reader, it));
    }
    read.fragment = fields.get("fragment").and_then(|it| fragment(reader, it));
    if let Some(node) = fields.get("state") {
        read.state = each(node, |it| state(reader, it));
    }
    let src = fields
        .get("src")
        .and_then(|it| each(it, |it| addresses(reader, it)));
    let dst = fields
        .get("dst")
        .and_then(|it| each(it, |it| addresses(reader, it)));
    let plain = read;
    (reader.mistakes.len() == before).then_some(ConditionsEntry { plain, src, dst })
}

/// One thing, or a list of them; every item is read, so that each mistake is told.
fn each<T>(node: &Node, mut one: impl FnMut(&Node) -> Option<T>) -> Option<Vec<T>> {
    let Value::Sequence(items) = &node.value else {
        return one(node).map(|it| vec![it]);
    };
    let read: Vec<Option<T>> = items.iter().map(one).collect();
    read.into_iter().collect()
}

fn number<T: FromStr>(reader: &mut Reader<'_>, node: &Node, expected: &str) -> Option<T> {
    reader.parsed::<T>(node, expected).map(|it| it.value)
}

fn ethertype(reader: &mut Reader<'_>, node: &Node) -> Option<u16> {
    let expected = "`ipv4`, `ipv6`, `arp` or a number like 0x88cc";
    let text = reader.text(node, expected)?;
    let number = match text {
        "ipv4" => Some(weft_common::frame::ETHERTYPE_IPV4),
        "ipv6" => Some(weft_common::frame::ETHERTYPE_IPV6),
        "arp" => Some(weft_common::frame::ETHERTYPE_ARP),
        _ => match text.strip_prefix("0x") {
            Some(digits) => u16::from_str_radix(digits, 16).ok(),
            None => text.parse().ok(),
        },
    };
    let is_type = |it: &u16| *it >= weft_common::frame::ETHERTYPE_MIN;
    match number.filter(is_type) {
        Some(number) => Some(number),
        None => reader.expected(node, expected),
    }
}

fn mac(reader: &mut Reader<'_>, node: &Node) -> Option<MacMatch> {
    let expected =
        "a MAC address like 02:00:00:00:01:0b, or with a mask: 02:00:00:00:00:00/ff:ff:ff:00:00:00";
    let text = reader.text(node, expected)?;
    let (value, mask) = match text.split_once('/') {
        Some((value, mask)) => (value.parse().ok(), mask.parse().ok()),
        None => (text.parse().ok(), Some(Mac::BROADCAST)),
    };
    match (value, mask) {
        (Some(value), Some(mask)) => Some(MacMatch { value, mask }),
        _ => reader.expected(node, expected),
    }
}

fn vlan(reader: &mut Reader<'_>, node: &Node) -> Option<VlanMatch> {
    let expected = "`none` or a VLAN id from 0 to 4095";
    match reader.text(node, expected)? {
        "none" => Some(VlanMatch::None),
        text => match text.parse() {
            Ok(id @ 0..=4095) => Some(VlanMatch::Id(id)),
            _ => reader.expected(node, expected),
        },
    }
}

fn ip_protocol(reader: &mut Reader<'_>, node: &Node) -> Option<u8> {
    let expected = "`tcp`, `udp`, `sctp`, `icmp`, `icmpv6`, `gre` or a number from 0 to 255";
    match reader.text(node, expected)? {
        "tcp" => Some(protocol::TCP),
        "udp" => Some(protocol::UDP),
        "sctp" => Some(protocol::SCTP),
        "icmp" => Some(protocol::ICMP),
        "icmpv6" => Some(protocol::ICMPV6),
        "gre" => Some(protocol::GRE),
        _ => number(reader, node, expected),
    }
}

fn port_range(reader: &mut Reader<'_>, node: &Node) -> Option<PortRange> {
    let expected = "a port like 80 or a range like 8000-8080";
    let text = reader.text(node, expected)?;
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) if first <= last => Some(PortRange { first, last }),
        _ => reader.expected(node, expected),
    }
}

fn icmp(reader: &mut Reader<'_>, node: &Node) -> Option<IcmpMatch> {
    let fields = reader.fields(node, &ICMP)?;
    let Some(kind) = fields.get("type") else {
        reader.report(node.span, "found `icmp` without `type`, expected it");
        return None;
    };
    let expected = "a number from 0 to 255";
    let kind = number(reader, kind, expected)?;
    let code = match fields.get("code") {
        Some(node) => Some(number(reader, node, expected)?),
        None => None,
    };
    Some(IcmpMatch { kind, code })
}

fn fragment(reader: &mut Reader<'_>, node: &Node) -> Option<FragmentPolicy> {
    let words = ["any", "first", "later", "unfragmented"];
    match reader.text(node, &list(&words))? {
        "any" => Some(FragmentPolicy::Any),
        "first" => Some(FragmentPolicy::First),
        "later" => Some(FragmentPolicy::Later),
        "unfragmented" => Some(FragmentPolicy::Unfragmented),
        _ => reader.expected(node, &list(&words)),
    }
}

fn state(reader: &mut Reader<'_>, node: &Node) -> Option<Connection> {
    let words = ["new", "established", "related", "invalid"];
    let text = reader.text(node, &list(&words))?;
    match words.iter().zip(STATES).find(|(word, _)| **word == text) {
        Some((_, state)) => Some(state),
        None => reader.expected(node, &list(&words)),
    }
}

fn addresses(reader: &mut Reader<'_>, node: &Node) -> Option<AddressEntry> {
    if !matches!(node.value, Value::Mapping(_)) {
        return address_or_prefix(reader, node).map(AddressEntry::Prefix);
    }
    let fields = reader.fields(node, &ADDRESSES)?;
    match (fields.get("group"), fields.get("port_group")) {
        (Some(node), None) => reader.name(node).map(AddressEntry::AddressGroup),
        (None, Some(node)) => reader.name(node).map(AddressEntry::PortGroup),
        _ => reader.expected(node, "one of `group` and `port_group`"),
    }
}

/// A prefix, or an address for the prefix that holds nothing else.
fn address_or_prefix(reader: &mut Reader<'_>, node: &Node) -> Option<IpNet> {
    let expected = "an address or prefix like 10.0.1.11, 10.0.1.0/24 or fd00:1::/64";
    let text = reader.text(node, expected)?;
    if let Ok(address) = text.parse::<std::net::IpAddr>() {
        return Some(address.into());
    }
    if text.parse::<IpNet>().is_err() {
        return reader.expected(node, expected);
    }
    reader.prefix(node).map(|it| it.value)
}

#[cfg(test)]
mod tests;
