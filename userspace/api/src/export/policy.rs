//! Chains and groups as a topology file says them; a rule on one line, as `diff` tells it, too.

use std::fmt::Write as _;
use std::sync::Arc;

use weft_common::frame::{self, protocol};
use weft_vnet::policy::{Action, AddressMatch, Conditions, FragmentPolicy, Group, Rule, VlanMatch};
use weft_vnet::{Kind, Mac, Model, TenantId};

use super::{Selection, flow_map, line, scalar, section};

/// Writes the sections of a tenant's chains and groups.
pub(super) fn write(out: &mut String, model: &Model, selection: Selection<'_>, tenant: TenantId) {
    let policy = &model.policy;
    let mut chains: Vec<_> = policy.chains.values().collect();
    chains.retain(|it| it.tenant == tenant && selection.has(Kind::Chain));
    chains.sort_by_key(|it| &it.name);
    section(out, "chains", !chains.is_empty());
    for chain in chains {
        if chain.rules.is_empty() {
            line(out, 1, &scalar(&chain.name), "[]");
            continue;
        }
        line(out, 1, &scalar(&chain.name), "");
        for it in &chain.rules {
            let _ = writeln!(out, "    - {}", rule(model, it));
        }
    }
    let mut groups: Vec<_> = policy.address_groups.values().collect();
    groups.retain(|it| it.tenant == tenant && selection.has(Kind::AddressGroup));
    groups.sort_by_key(|it| &it.name);
    section(out, "address_groups", !groups.is_empty());
    for group in groups {
        if group.prefixes.is_empty() {
            line(out, 1, &scalar(&group.name), "[]");
            continue;
        }
        line(out, 1, &scalar(&group.name), "");
        for prefix in &group.prefixes {
            let _ = writeln!(out, "    - {}", scalar(&prefix.to_string()));
        }
    }
    let mut groups: Vec<&Arc<_>> = policy.port_groups.values().collect();
    groups.retain(|it| it.tenant == tenant && selection.has(Kind::PortGroup));
    groups.sort_by_key(|it| &it.name);
    section(out, "port_groups", !groups.is_empty());
    for group in groups {
        let ports = group.ports.iter().map(|id| scalar(&model.port_path(*id)));
        let ports: Vec<String> = ports.collect();
        let fields = [
            format!("ports: [{}]", ports.join(", ")),
            format!("stateful: {}", group.stateful),
        ];
        line(out, 1, &scalar(&group.name), &flow_map(fields));
    }
}

/// A rule as a topology file says it: `{ proto: tcp, dst_port: 80, action: accept }`.
pub fn rule(model: &Model, rule: &Rule) -> String {
    let Rule {
        matches,
        not,
        action,
        log,
    } = rule;
    let mut fields = conditions(model, matches);
    let not = not.iter().map(|it| flow_map(conditions(model, it)));
    let not: Vec<String> = not.collect();
    if !not.is_empty() {
        fields.push(format!("not: {}", one_or_list(&not)));
    }
    let word = match action {
        Action::Accept => "accept",
        Action::Drop => "drop",
        Action::Reject => "reject",
        Action::Return => "return",
        Action::Continue => "continue",
        Action::Jump(_) => "jump",
        Action::Log => "log",
        Action::Translate(translation) => translation.name(),
    };
    fields.push(format!("action: {word}"));
    if let Action::Jump(target) = action {
        let name = model.policy.chain_name(*target);
        fields.push(format!("chain: {}", scalar(&name)));
    }
    fields.extend(log.as_ref().map(|name| format!("log: {}", scalar(name))));
    flow_map(fields)
}

fn conditions(model: &Model, conditions: &Conditions) -> Vec<String> {
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
    let mut fields = Vec::new();
    let mut field = |key: &str, value: Option<String>| {
        fields.extend(value.map(|value| format!("{key}: {value}")));
    };
    field("ethertype", list(ethertype, |it| ethertype_word(*it)));
    let mac = |it: &weft_vnet::policy::MacMatch| match it.mask {
        Mac::BROADCAST => scalar(&it.value.to_string()),
        mask => scalar(&format!("{}/{mask}", it.value)),
    };
    field("src_mac", src_mac.as_ref().map(mac));
    field("dst_mac", dst_mac.as_ref().map(mac));
    field(
        "vlan",
        vlan.map(|it| match it {
            VlanMatch::None => "none".to_owned(),
            VlanMatch::Id(id) => id.to_string(),
        }),
    );
    field("tos", list(tos, u8::to_string));
    field("proto", list(protocol, |it| protocol_word(*it)));
    field("src", list(src, |it| address(model, it)));
    field("dst", list(dst, |it| address(model, it)));
    let ports = |it: &weft_vnet::policy::PortRange| match it {
        it if it.first == it.last => it.first.to_string(),
        it => format!("{}-{}", it.first, it.last),
    };
    field("src_port", list(src_port, ports));
    field("dst_port", list(dst_port, ports));
    let message = |it: &weft_vnet::policy::IcmpMatch| {
        let code = it.code.map(|code| format!("code: {code}"));
        flow_map([format!("type: {}", it.kind)].into_iter().chain(code))
    };
    field("icmp", list(icmp, message));
    let piece = fragment.map(|it| match it {
        FragmentPolicy::Any => "any",
        FragmentPolicy::First => "first",
        FragmentPolicy::Later => "later",
        FragmentPolicy::Unfragmented => "unfragmented",
    });
    field("fragment", piece.map(str::to_owned));
    field("state", list(state, ToString::to_string));
    // No file says these yet: only who reads `diff` sees them.
    for condition in device {
        field(condition.name(), Some("given".to_owned()));
    }
    fields
}

/// One thing as itself, several as a list, none as a list of none.
fn list<T>(values: &Option<Vec<T>>, text: impl Fn(&T) -> String) -> Option<String> {
    let values = values.as_ref()?;
    let texts: Vec<String> = values.iter().map(text).collect();
    Some(one_or_list(&texts))
}

fn one_or_list(texts: &[String]) -> String {
    match texts {
        [one] => one.clone(),
        several => format!("[{}]", several.join(", ")),
    }
}

fn address(model: &Model, address: &AddressMatch) -> String {
    let policy = &model.policy;
    let (key, name) = match address {
        AddressMatch::Prefix(prefix) => return scalar(&prefix.to_string()),
        AddressMatch::Group(Group::Addresses(id)) => {
            let group = policy.address_groups.get(id);
            ("group", group.map_or(id.to_string(), |it| it.name.clone()))
        }
        AddressMatch::Group(Group::Ports(id)) => {
            let group = policy.port_groups.get(id);
            let name = group.map_or(id.to_string(), |it| it.name.clone());
            ("port_group", name)
        }
    };
    flow_map([format!("{key}: {}", scalar(&name))])
}

fn ethertype_word(number: u16) -> String {
    match number {
        frame::ETHERTYPE_IPV4 => "ipv4".into(),
        frame::ETHERTYPE_IPV6 => "ipv6".into(),
        frame::ETHERTYPE_ARP => "arp".into(),
        other => format!("{other:#06x}"),
    }
}

/// A protocol as a topology file says it.
pub fn protocol_word(number: u8) -> String {
    match number {
        protocol::TCP => "tcp".into(),
        protocol::UDP => "udp".into(),
        protocol::SCTP => "sctp".into(),
        protocol::ICMP => "icmp".into(),
        protocol::ICMPV6 => "icmpv6".into(),
        protocol::GRE => "gre".into(),
        other => other.to_string(),
    }
}
