//! `describe`: all that is known of one object: what was declared, and what the answering host does with it.

use anyhow::Result;
use serde::Serialize;
use weft_api::{ConnectionsQuery, DropInfo, Enforcer, HookRules, PortInfo, PortRules};
use weft_vnet::{Kind, Model, Object, Port};

use super::policy::rules_table;
use super::{Session, objects, plural};
use crate::Done;
use crate::output::or_dash;

/// A port with all that the answering host says of it.
#[derive(Serialize)]
struct Described<'a> {
    declared: &'a Object,
    activity: Option<PortInfo>,
    drops: Vec<DropInfo>,
    /// Tracked connections.
    connections: u64,
    rules: PortRules,
}

/// Shows one object.
pub async fn describe(session: &Session, kind: Kind, name: &str) -> Result<Done> {
    let model = session.model().await?;
    let object = objects::find(session, &model, kind, name)?;
    let Object::Port(port) = &object else {
        return objects::get(session, kind, Some(name)).await;
    };
    let id = port.id.to_string();
    let activity = session.client.port_activity().await?;
    let activity = activity.into_iter().find(|it| it.id == id);
    let rules = session.client.port_rules(port.id.0).await?;
    let drops = session.client.drops().await?.into_iter();
    let is_its = |it: &DropInfo| {
        let (path, tenant) = (Some(&rules.port), Some(&rules.tenant));
        it.packets > 0 && it.port.as_ref() == path && it.tenant.as_ref() == tenant
    };
    let query = ConnectionsQuery {
        port: Some(id),
        tenant: None,
        limit: Some(0),
    };
    let described = Described {
        declared: &object,
        activity,
        drops: drops.filter(is_its).collect(),
        connections: session.client.connections(&query).await?.total,
        rules,
    };
    session
        .output
        .show(&described, || port_text(session, &model, port, &described))?;
    Ok(Done::Well)
}

fn port_text(session: &Session, model: &Model, port: &Port, described: &Described) -> String {
    let rules = &described.rules;
    let mut lines = declared(model, port, rules);
    lines.extend(described.activity.iter().flat_map(activity));
    if rules.is_here {
        let line = ("connections", described.connections.to_string());
        lines.push(line);
    }
    for drop in &described.drops {
        let DropInfo {
            reason,
            packets,
            explanation,
            ..
        } = drop;
        lines.push(("drops", format!("{packets} {reason}: {explanation}")));
    }
    for hook in &rules.hooks {
        lines.extend(enforced(hook));
    }
    let width = 14;
    let mut text = String::new();
    let mut last = "";
    for (name, value) in lines {
        // One name for several lines of a kind.
        let shown = if name == last { "" } else { name };
        text += &format!("{shown:width$}{value}\n");
        last = name;
    }
    if rules.is_here && rules.hooks.iter().any(|it| !it.rules.is_empty()) {
        text += "\n";
        text += &rules_table(session, rules);
    }
    text
}

type Line = (&'static str, String);

fn declared(model: &Model, port: &Port, rules: &PortRules) -> Vec<Line> {
    let list = |texts: Vec<String>| or_dash(Some(texts.join(", ")));
    let addresses = port.addresses.iter().map(ToString::to_string).collect();
    let host = rules.host.as_deref().unwrap_or("?");
    let mut lines = vec![
        ("port", rules.port.clone()),
        ("id", port.id.to_string()),
        ("tenant", rules.tenant.clone()),
        ("mac", port.mac.to_string()),
        ("addresses", list(addresses)),
        (
            "admin",
            if port.admin_up { "up" } else { "down" }.to_owned(),
        ),
    ];
    if let Some(binding) = &port.binding {
        lines.push(("bound to", binding.describe(host)));
    }
    if let Some(peer) = port.peer {
        lines.push(("peer", model.port_path(peer)));
    }
    lines
}

fn activity(info: &PortInfo) -> Vec<Line> {
    let traffic = |packets: u64, bytes: u64| format!("{packets} packets, {bytes} bytes");
    let mut lines = vec![("state", info.state.word().to_owned())];
    lines.extend(info.problem.clone().map(|it| ("problem", it)));
    if let (Some(key), Some(bits)) = (&info.key, info.tunnel_key) {
        lines.push(("tunnel key", format!("{key} (GRE {bits:#08x})")));
    }
    lines.extend(info.mtu.map(|it| ("mtu", it.to_string())));
    lines.push(("sent", traffic(info.ingress_packets, info.ingress_bytes)));
    lines.push(("received", traffic(info.egress_packets, info.egress_bytes)));
    lines
}

/// The chains of a hook, and how they are enforced.
fn enforced(hook: &HookRules) -> Vec<Line> {
    let name = match hook.hook.as_str() {
        "egress" => "egress",
        _ => "ingress",
    };
    let chains = match hook.chains.as_slice() {
        [] => "no chains: all packets pass".to_owned(),
        chains => format!("chains {}", chains.join(", ")),
    };
    let mut lines = vec![chains];
    let its = &hook.enforcement;
    match its.by {
        Enforcer::Nobody if hook.chains.is_empty() => {}
        Enforcer::Nobody => lines.push("no rule decides: all packets pass".to_owned()),
        Enforcer::Elsewhere => lines.push("enforced by the host that it is bound on".to_owned()),
        Enforcer::NotCompiled => {
            let why = its.why.as_deref().unwrap_or("unknown");
            lines.push(format!("not compiled, and all packets are dropped: {why}"));
        }
        Enforcer::Kernel => {
            let others = match its.ports {
                0 | 1 => String::new(),
                ports => format!(", shared by {ports} ports"),
            };
            lines.push(format!(
                "compiled: {} in {} bytes, at most {} of a lookup{others}",
                plural(its.flat_rules, "flat rule"),
                its.bytes,
                plural(its.steps_max, "step"),
            ));
            lines.push(
                match (its.established_passes, its.asks_each_packet) {
                    (true, _) => "packets of known connections pass without a lookup",
                    (false, true) => {
                        "each packet is looked up: rules ask for what differs within a connection"
                    }
                    (false, false) => "each direction of a connection is looked up once",
                }
                .to_owned(),
            );
            if its.may_exceed {
                lines.push("a packet may need more steps than the kernel makes".into());
            }
        }
    }
    lines.into_iter().map(|line| (name, line)).collect()
}
