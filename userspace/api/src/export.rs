//! The topology as a file that `apply` takes without a change. What it writes is plain: block
//! style down to an object, one line for what belongs together.

mod policy;

use std::fmt::Write as _;

pub use policy::{protocol_word, rule};
use weft_vnet::policy::Hook;
use weft_vnet::{DeviceId, Kind, Model, Port, RouteAction, Router, TenantId};

use crate::plan::generated_mac;
use crate::topology::Mistakes;
use crate::topology::yaml::{Node, Source, documents};

/// What of a topology to write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Selection<'a> {
    /// Only this kind; ports come with their devices.
    pub kind: Option<Kind>,
    /// Only this tenant, and nothing that belongs to none.
    pub tenant: Option<&'a str>,
}

impl Selection<'_> {
    fn has(&self, kind: Kind) -> bool {
        self.kind.is_none_or(|only| only == kind)
    }

    fn bridges(&self) -> bool {
        self.has(Kind::Bridge) || self.kind == Some(Kind::Port)
    }

    fn routers(&self) -> bool {
        self.has(Kind::Router) || self.kind == Some(Kind::Port)
    }
}

/// Writes a model as a topology file.
pub fn export(model: &Model, selection: Selection<'_>) -> String {
    let mut documents = Vec::new();
    let mut tenants: Vec<_> = model.tenants.values().collect();
    tenants.sort_by_key(|tenant| &tenant.name);
    for tenant in tenants {
        if selection.tenant.is_some_and(|only| only != tenant.name) {
            continue;
        }
        let of_tenant = [
            Kind::Tenant,
            Kind::Chain,
            Kind::AddressGroup,
            Kind::PortGroup,
        ];
        let has = of_tenant.into_iter().any(|kind| selection.has(kind));
        if has || selection.bridges() || selection.routers() {
            documents.push(tenant_document(model, selection, tenant.id));
        }
    }
    if selection.tenant.is_none() {
        documents.extend(common_document(model, selection));
    }
    documents.join("---\n")
}

/// The same documents as a JSON array, which `apply` takes as well.
///
/// # Errors
/// A topology of more values than a file may have.
pub fn export_json(model: &Model, selection: Selection<'_>) -> Result<serde_json::Value, Mistakes> {
    let source = Source::new("the export", &export(model, selection));
    let documents = documents(&source).map_err(|mistake| Mistakes::new(vec![mistake]))?;
    Ok(documents.iter().map(Node::json).collect())
}

fn tenant_document(model: &Model, selection: Selection<'_>, tenant: TenantId) -> String {
    let mut out = format!("weft: v1\ntenant: {}\n", scalar(&model.tenant_name(tenant)));
    if selection.bridges() {
        let mut bridges: Vec<_> = model
            .bridges
            .values()
            .filter(|bridge| bridge.tenant == tenant)
            .collect();
        bridges.sort_by_key(|bridge| &bridge.name);
        section(&mut out, "bridges", !bridges.is_empty());
        for bridge in bridges {
            device(
                &mut out,
                model,
                &bridge.name,
                DeviceId::Bridge(bridge.id),
                None,
            );
        }
    }
    if selection.routers() {
        let mut routers: Vec<_> = model
            .routers
            .values()
            .filter(|router| router.tenant == tenant)
            .collect();
        routers.sort_by_key(|router| &router.name);
        section(&mut out, "routers", !routers.is_empty());
        for router in routers {
            device(
                &mut out,
                model,
                &router.name,
                DeviceId::Router(router.id),
                Some(router),
            );
        }
    }
    policy::write(&mut out, model, selection, tenant);
    out
}

/// What belongs to no tenant; nothing when there is nothing.
fn common_document(model: &Model, selection: Selection<'_>) -> Option<String> {
    let mut zones: Vec<_> = model.zones.values().collect();
    zones.sort_by_key(|zone| &zone.name);
    zones.retain(|_| selection.has(Kind::TunnelZone));
    let mut hosts: Vec<_> = model.hosts.values().collect();
    hosts.sort_by_key(|host| &host.name);
    hosts.retain(|_| selection.has(Kind::Host));
    if zones.is_empty() && hosts.is_empty() {
        return None;
    }
    let mut out = String::from("weft: v1\n");
    section(&mut out, "tunnel_zones", !zones.is_empty());
    for zone in zones {
        let encapsulation = format!("{:?}", zone.encapsulation).to_lowercase();
        line(
            &mut out,
            1,
            &scalar(&zone.name),
            &format!("{{ encapsulation: {encapsulation} }}"),
        );
    }
    section(&mut out, "hosts", !hosts.is_empty());
    for host in hosts {
        let zones = host.zones.iter();
        let zones = zones.map(|(zone, address)| format!("{}: {address}", scalar(zone)));
        line(
            &mut out,
            1,
            &scalar(&host.name),
            &format!("{{ zones: {} }}", flow_map(zones)),
        );
    }
    Some(out)
}

fn device(out: &mut String, model: &Model, name: &str, id: DeviceId, router: Option<&Router>) {
    let mut ports: Vec<_> = model
        .ports
        .values()
        .filter(|port| port.device == id)
        .collect();
    ports.sort_by_key(|port| &port.name);
    let routes = router.map_or(&[][..], |router| &router.routes);
    if ports.is_empty() && routes.is_empty() {
        line(out, 1, &scalar(name), "{}");
        return;
    }
    line(out, 1, &scalar(name), "");
    if !ports.is_empty() {
        line(out, 2, "ports", "");
    }
    for it in ports {
        port(out, model, it);
    }
    if !routes.is_empty() {
        line(out, 2, "routes", "");
    }
    for route in routes {
        let action = match route.action {
            RouteAction::Via(address) => format!("via: {address}"),
            RouteAction::Blackhole => "action: blackhole".into(),
            RouteAction::Reject => "action: reject".into(),
        };
        let from = route.from.map(|from| format!("from: {from}, "));
        let _ = writeln!(
            out,
            "      - {{ to: {}, {}{action}, weight: {} }}",
            route.to,
            from.unwrap_or_default(),
            route.weight
        );
    }
}

fn port(out: &mut String, model: &Model, port: &Port) {
    let mut fields: Vec<(&str, String)> = Vec::new();
    // Nobody speaks with the MAC of a bridge's interior port.
    let silent = port.peer.is_some() && matches!(port.device, DeviceId::Bridge(_));
    if !silent || port.mac != generated_mac(port.id) {
        fields.push(("mac", port.mac.to_string()));
    }
    if !port.admin_up {
        fields.push(("admin_up", "false".into()));
    }
    if !port.addresses.is_empty() {
        let addresses = port
            .addresses
            .iter()
            .map(|address| scalar(&address.to_string()));
        fields.push((
            "addresses",
            format!("[{}]", addresses.collect::<Vec<_>>().join(", ")),
        ));
    }
    if let Some(binding) = &port.binding {
        let host = model.hosts.get(&binding.host).map_or("", |host| &host.name);
        let interface = scalar(&binding.interface);
        let mut bind = vec![
            format!("host: {}", scalar(host)),
            format!("interface: {interface}"),
        ];
        bind.extend(binding.tunnel_key.map(|key| format!("tunnel_key: {key}")));
        fields.push(("bind", flow_map(bind)));
    }
    if let Some(peer) = port
        .peer
        .filter(|peer| same_tenant(model, port.id.0, peer.0))
    {
        fields.push(("peer", scalar(&model.port_path(peer))));
    }
    for (key, hook) in [("ingress", Hook::Ingress), ("egress", Hook::Egress)] {
        let chains = port.chains(hook);
        if !chains.is_empty() {
            let names = chains.iter().map(|id| model.policy.chain_name(*id));
            let names: Vec<String> = names.map(|it| scalar(&it)).collect();
            fields.push((key, format!("[{}]", names.join(", "))));
        }
    }
    let name = scalar(&port.name);
    match fields.as_slice() {
        [] => line(out, 3, &name, "{}"),
        [(key, value)] => line(out, 3, &name, &format!("{{ {key}: {value} }}")),
        _ => {
            line(out, 3, &name, "");
            for (key, value) in fields {
                line(out, 4, key, &value);
            }
        }
    }
}

/// A path names a port of the same tenant; a peer of another tenant has no name in a file.
fn same_tenant(model: &Model, a: uuid::Uuid, b: uuid::Uuid) -> bool {
    let tenant = |id| {
        let port = model.ports.get(&weft_vnet::PortId(id))?;
        model.device(port.device).map(|(_, tenant)| tenant)
    };
    tenant(a).is_some() && tenant(a) == tenant(b)
}

fn section(out: &mut String, name: &str, present: bool) {
    if present {
        line(out, 0, name, "");
    }
}

fn line(out: &mut String, depth: usize, key: &str, value: &str) {
    let space = if value.is_empty() { "" } else { " " };
    let _ = writeln!(
        out,
        "{:indent$}{key}:{space}{value}",
        "",
        indent = depth * 2
    );
}

fn flow_map(entries: impl IntoIterator<Item = String>) -> String {
    let entries: Vec<String> = entries.into_iter().collect();
    if entries.is_empty() {
        "{}".into()
    } else {
        format!("{{ {} }}", entries.join(", "))
    }
}

/// Text as YAML writes it: plain where no reader, of YAML 1.1 either, takes it for something
/// else, in double quotes otherwise.
fn scalar(text: &str) -> String {
    const WORDS: [&str; 11] = [
        "", "~", "null", "true", "false", "yes", "no", "on", "off", "y", "n",
    ];
    let first = text.chars().next().unwrap_or(' ');
    let safe = text
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
    let word = WORDS.contains(&text.to_lowercase().as_str());
    // Numbers have no second dot: addresses stay plain, `1.5` and `1e3` don't.
    let address = text
        .split('/')
        .next()
        .is_some_and(|it| it.parse::<std::net::Ipv4Addr>().is_ok());
    if safe && !word && (first.is_ascii_alphabetic() || address) {
        return text.to_owned();
    }
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_could_be_misread_is_quoted() {
        for plain in [
            "web-1",
            "web/web-1",
            "10.0.1.11",
            "10.0.1.1/24",
            "eth0.100",
            "d_1",
        ] {
            assert_eq!(scalar(plain), plain);
        }
        for quoted in [
            "",
            "null",
            "No",
            "1",
            "1.5",
            "1e3",
            "-a",
            ".inf",
            "fd00:1::b",
            "a b",
            "#x",
        ] {
            assert_eq!(scalar(quoted), format!("\"{quoted}\""));
        }
    }
}
