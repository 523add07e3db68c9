//! What `export` writes, `apply` takes without a change; and applying any file is done after once.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use proptest::prelude::*;
use weft_api::export::{Selection, export, export_json};
use weft_api::plan::plan;
use weft_api::topology::TopologyFile;
use weft_vnet::{DeviceId, Model, Port};

/// Makes decisions out of random bytes, so that proptest can shrink them.
struct Choices<'a>(std::slice::Iter<'a, u8>);

impl Choices<'_> {
    fn below(&mut self, limit: u8) -> u8 {
        self.0.next().copied().unwrap_or(0) % limit
    }

    fn yes(&mut self) -> bool {
        self.below(2) == 1
    }
}

/// Writes a valid file: what refers to something finds it, and nothing is taken twice.
fn file(choices: &mut Choices<'_>) -> String {
    let mut out = String::new();
    for tenant in 0..=choices.below(2) {
        let _ = write!(out, "weft: v1\ntenant: t{tenant}\nbridges:\n");
        let bridges = 1 + choices.below(3);
        for bridge in 0..bridges {
            let _ = write!(out, "  b{bridge}:\n    ports:\n      \"null\": {{}}\n");
            for port in 0..choices.below(4) {
                bridge_port(&mut out, choices, tenant, bridge, port);
            }
        }
        routers(&mut out, choices, bridges);
        policies(&mut out, choices);
        out.push_str("---\n");
    }
    out.push_str("weft: v1\ntunnel_zones: { z: {}, \"1\": { encapsulation: gre } }\nhosts:\n");
    for host in 0..3 {
        let zones = [
            "{}",
            "{ z: 172.30.H.1 }",
            "{ z: 172.30.H.1, \"1\": 172.30.H.2 }",
        ];
        let zones = zones[usize::from(choices.below(3))].replace('H', &host.to_string());
        let _ = writeln!(out, "  h{host}: {{ zones: {zones} }}");
    }
    out
}

/// Chains `c0` and `no`, and groups `a` and `p`.
fn policies(out: &mut String, choices: &mut Choices<'_>) {
    let rules = [
        "{ state: [established, related], action: accept }",
        "{ src: { group: a }, dst: [10.0.0.0/8, \"fd00::/16\", { group: a }], action: jump, chain: \"no\", log: \"1\" }",
        "{ not: [{ vlan: 5 }, { proto: 89, tos: [1, 2] }], dst_port: 0-65535, action: continue }",
        "{ not: { dst_mac: 02:00:00:00:00:01/ff:ff:ff:ff:ff:f0 }, icmp: { type: 8, code: 0 }, action: reject }",
        "{ ethertype: [], vlan: none, fragment: later, src_port: [53, 67-68], action: return }",
    ];
    out.push_str("chains:\n  \"no\": []\n  c0:\n    - { action: log, log: x }\n");
    for _ in 0..choices.below(4) {
        let rule = rules[usize::from(choices.below(rules.len() as u8))];
        let _ = writeln!(out, "    - {rule}");
    }
    let members = ["10.0.0.0/8", "192.0.2.1", "\"fd00::1\"", "0.0.0.0/0"];
    let members: Vec<&str> = members.into_iter().filter(|_| choices.yes()).collect();
    let _ = writeln!(out, "address_groups: {{ a: [{}] }}", members.join(", "));
    let ports = if choices.yes() { "b0/null" } else { "" };
    let stateful = choices.yes();
    let _ = writeln!(
        out,
        "port_groups: {{ p: {{ ports: [{ports}], stateful: {stateful} }} }}"
    );
}

fn bridge_port(out: &mut String, choices: &mut Choices<'_>, tenant: u8, bridge: u8, port: u8) {
    let mut fields = Vec::new();
    if choices.yes() {
        let low = choices.below(3);
        fields.push(format!(
            "mac: \"02:00:{low:02x}:{tenant:02x}:{bridge:02x}:{port:02x}\""
        ));
    }
    if choices.yes() {
        let low = choices.below(3);
        fields.push(format!(
            "addresses: [10.{low}.{bridge}.{port}, \"fd00::{low}:{port}\"]"
        ));
    }
    if choices.yes() {
        fields.push(format!("admin_up: {}", choices.yes()));
    }
    if choices.yes() {
        let host = choices.below(3);
        let number = (u32::from(tenant) << 16) | (u32::from(bridge) << 8) | u32::from(port);
        let key = if choices.yes() {
            format!(", tunnel_key: {}", number + 1)
        } else {
            String::new()
        };
        fields.push(format!(
            "bind: {{ host: h{host}, interface: v{tenant}{bridge}{port}{key} }}"
        ));
    }
    if choices.yes() {
        let list = ["[]", "[c0]", "[\"no\", c0]"];
        let list = list[usize::from(choices.below(3))];
        fields.push(format!("ingress: {list}, egress: [c0]"));
    }
    let _ = writeln!(out, "      p{port}: {{ {} }}", fields.join(", "));
}

fn routers(out: &mut String, choices: &mut Choices<'_>, bridges: u8) {
    out.push_str("routers:\n");
    for router in 0..choices.below(3) {
        let _ = writeln!(out, "  r{router}:\n    ports:");
        for bridge in 0..bridges {
            let _ = writeln!(
                out,
                "      b{bridge}: {{ addresses: [10.{bridge}.0.{}/24] }}",
                router + 1
            );
        }
        if choices.yes() {
            out.push_str("    routes: [{ to: 10.9.0.0/16, via: 10.0.0.9 }, { to: 10.9.0.0/16, from: 10.1.0.0/16, via: 10.0.0.9, weight: 7 }, { to: 0.0.0.0/0, action: blackhole, weight: 7 }]\n");
        }
    }
    // Router 0 joins the bridges' spare ports, in one of two orders, or not at all.
    let joined = choices.below(3);
    let last = out.rfind("tenant: ").unwrap_or(0);
    if joined == 0 || !out[last..].contains("  r0:\n") {
        return;
    }
    for bridge in 0..bridges {
        let other = if joined == 1 {
            bridge
        } else {
            bridges - 1 - bridge
        };
        let port = format!("  b{bridge}:\n    ports:\n      \"null\": {{}}\n");
        let peered = port.replace("{}", &format!("{{ peer: r0/b{other} }}"));
        let (done, tail) = out.split_at(last);
        *out = format!("{done}{}", tail.replacen(&port, &peered, 1));
    }
}

fn applied(model: &Model, text: &str, prune: bool) -> Model {
    let file = TopologyFile::parse("f", text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let plan = plan(model, &file, prune).unwrap_or_else(|error| panic!("{error}\n{text}"));
    if plan.operations.is_empty() {
        model.clone()
    } else {
        model.apply(&plan.operations).unwrap()
    }
}

fn unchanged(model: &Model, text: &str, prune: bool) -> Result<(), TestCaseError> {
    let file = TopologyFile::parse("f", text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let plan = plan(model, &file, prune).unwrap_or_else(|error| panic!("{error}\n{text}"));
    prop_assert!(plan.operations.is_empty(), "{:#?}\nby:\n{text}", plan.lines);
    Ok(())
}

/// Everything that a file can say of a model, without the ids. A bridge's interior ports have MACs
/// that nobody speaks with; they are made anew.
fn facts(model: &Model) -> BTreeSet<String> {
    let host = |port: &Port| {
        let binding = port.binding.as_ref()?;
        Some(binding.describe(&model.hosts[&binding.host].name))
    };
    let port = |port: &Port| {
        let (_, tenant) = model.device(port.device).unwrap();
        let silent = port.peer.is_some() && matches!(port.device, DeviceId::Bridge(_));
        let mac = (!silent).then_some(port.mac);
        let peer = port.peer.map(|peer| model.port_path(peer));
        let Port {
            admin_up,
            addresses,
            ..
        } = port;
        let tenant = model.tenant_name(tenant);
        let path = model.port_path(port.id);
        let chains = [&port.ingress, &port.egress];
        let chains = chains.map(|it| it.iter().map(|id| model.policy.chain_name(*id)));
        let chains = chains.map(Iterator::collect::<Vec<_>>);
        format!(
            "{tenant} {path} {mac:?} {admin_up} {addresses:?} {:?} {peer:?} {chains:?}",
            host(port)
        )
    };
    let ports = model.ports.values().map(|it| port(it));
    let routers = model.routers.values().map(|it| {
        format!(
            "{} {} {:?}",
            model.tenant_name(it.tenant),
            it.name,
            it.routes
        )
    });
    let bridges = model
        .bridges
        .values()
        .map(|it| format!("{} {}", model.tenant_name(it.tenant), it.name));
    let hosts = model
        .hosts
        .values()
        .map(|it| format!("{} {:?}", it.name, it.zones));
    let zones = model
        .zones
        .values()
        .map(|it| format!("{} {:?}", it.name, it.encapsulation));
    ports
        .chain(routers)
        .chain(bridges)
        .chain(hosts)
        .chain(zones)
        .chain(policy_facts(model))
        .collect()
}

/// Rules with the names in the place of ids, which are drawn.
fn policy_facts(model: &Model) -> Vec<String> {
    let policy = &model.policy;
    let mut names = Vec::new();
    names.extend(
        policy
            .chains
            .values()
            .map(|it| (it.id.0, it.tenant, &it.name)),
    );
    let groups = policy.address_groups.values();
    names.extend(groups.map(|it| (it.id.0, it.tenant, &it.name)));
    let named = |text: String| {
        names.iter().fold(text, |text, (id, tenant, name)| {
            let name = format!("{} {name}", model.tenant_name(*tenant));
            text.replace(&id.to_string(), &name)
        })
    };
    let chains = policy.chains.values();
    let chains = chains.map(|it| named(format!("{} {:?}", it.id, it.rules)));
    let groups = policy.address_groups.values();
    let groups = groups.map(|it| named(format!("{} {:?}", it.id, it.prefixes)));
    let port_groups = policy.port_groups.values().map(|it| {
        let ports = it.ports.iter().map(|id| model.port_path(*id));
        let ports: Vec<String> = ports.collect();
        let tenant = model.tenant_name(it.tenant);
        format!("{tenant} {} {ports:?} {}", it.name, it.stateful)
    });
    chains.chain(groups).chain(port_groups).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn export_is_taken_without_a_change(
        first in proptest::collection::vec(any::<u8>(), 0..120),
        second in proptest::collection::vec(any::<u8>(), 0..120),
    ) {
        let one = file(&mut Choices(first.iter()));
        let two = file(&mut Choices(second.iter()));
        let before = applied(&Model::default(), &one, false);
        // Pruned, so that what the two files bind and join can't collide.
        let model = applied(&before, &two, true);
        unchanged(&model, &two, true)?;
        let text = export(&model, Selection::default());
        unchanged(&model, &text, true)?;
        let json = export_json(&model, Selection::default()).unwrap().to_string();
        unchanged(&model, &json, true)?;
        let elsewhere = applied(&Model::default(), &text, false);
        prop_assert_eq!(facts(&elsewhere), facts(&model));
        prop_assert_eq!(export(&elsewhere, Selection::default()), text);
    }
}
