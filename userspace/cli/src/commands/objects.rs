//! `get`: objects of the topology, and how they are found by name.

use anyhow::{Result, bail};
use weft_api::export;
use weft_api::kinds::collection;
use weft_vnet::policy::Hook;
use weft_vnet::{DeviceId, Host, Kind, Model, Object, Port, Route, TenantId};

use super::Session;
use crate::Done;
use crate::output::or_dash;

/// Shows objects of a kind, or one of them.
pub async fn get(session: &Session, kind: Kind, name: Option<&str>) -> Result<Done> {
    let model = session.model().await?;
    if let Some(tenant) = &session.tenant {
        model.find_tenant(tenant)?;
    }
    let mut objects = match name {
        Some(name) => vec![find(session, &model, kind, name)?],
        None => listed(session, &model, kind),
    };
    objects.sort_by_key(|object| (tenant_of(&model, object), name_of(&model, object)));
    let shown = match name {
        Some(_) => objects.iter().flat_map(|it| details(&model, it)).collect(),
        None => Vec::new(),
    };
    let shown: String = shown.into_iter().map(|line| line + "\n").collect();
    let table = || table(session, &model, kind, &objects) + &shown;
    match objects.as_slice() {
        [one] if name.is_some() => session.output.show(one, table)?,
        many => session.output.show(many, table)?,
    }
    Ok(Done::Well)
}

/// The object of a kind that a name means.
pub fn find(session: &Session, model: &Model, kind: Kind, name: &str) -> Result<Object> {
    if kind == Kind::Port {
        let id = model.find_port(session.tenant.as_deref(), name)?;
        if let Some(port) = model.get(kind, id.0) {
            return Ok(port);
        }
    }
    let objects = listed(session, model, kind);
    let mut found: Vec<&Object> = objects.iter().filter(|it| it.name() == name).collect();
    match (found.pop(), found.is_empty()) {
        (Some(one), true) => Ok(one.clone()),
        (None, _) => {
            let mut known: Vec<&str> = objects.iter().map(Object::name).collect();
            known.sort_unstable();
            known.truncate(8);
            match known.as_slice() {
                [] => bail!("there is no {kind} `{name}`, nor any other"),
                known => bail!("there is no {kind} `{name}`; there is {}", known.join(", ")),
            }
        }
        (Some(last), false) => {
            found.push(last);
            let tenants: Vec<String> = found.iter().map(|it| tenant_of(model, it)).collect();
            bail!(
                "several tenants have a {kind} `{name}`: say --tenant {}",
                tenants.join(" or ")
            )
        }
    }
}

/// Objects of a kind, of the tenant that was asked for.
fn listed(session: &Session, model: &Model, kind: Kind) -> Vec<Object> {
    let owned = |object: &Object| match object {
        Object::Host(_) | Object::TunnelZone(_) => true,
        _ => session.wants(&tenant_of(model, object)),
    };
    model
        .objects()
        .filter(|object| object.kind() == kind && owned(object))
        .collect()
}

/// Name of the tenant that an object belongs to; empty if to none.
pub fn tenant_of(model: &Model, object: &Object) -> String {
    let tenant: Option<TenantId> = match object {
        Object::Tenant(tenant) => Some(tenant.id),
        Object::Bridge(bridge) => Some(bridge.tenant),
        Object::Router(router) => Some(router.tenant),
        Object::Port(port) => model.device(port.device).map(|(_, tenant)| tenant),
        Object::Chain(chain) => Some(chain.tenant),
        Object::AddressGroup(group) => Some(group.tenant),
        Object::PortGroup(group) => Some(group.tenant),
        Object::Host(_) | Object::TunnelZone(_) => None,
    };
    tenant.map_or_else(String::new, |tenant| model.tenant_name(tenant))
}

fn name_of(model: &Model, object: &Object) -> String {
    match object {
        Object::Port(port) => model.port_path(port.id),
        object => object.name().to_owned(),
    }
}

fn table(session: &Session, model: &Model, kind: Kind, objects: &[Object]) -> String {
    if objects.is_empty() {
        return format!("no {}\n", collection(kind).replace('_', " "));
    }
    let columns: &[&str] = match kind {
        Kind::Tenant => &["NAME", "BRIDGES", "ROUTERS"],
        Kind::Bridge => &["TENANT", "NAME", "PORTS"],
        Kind::Router => &["TENANT", "NAME", "PORTS", "ROUTES"],
        Kind::Port => &[
            "TENANT",
            "NAME",
            "MAC",
            "ADDRESSES",
            "BOUND TO",
            "PEER",
            "ADMIN",
        ],
        Kind::Host => &["NAME", "ZONES", "PORTS"],
        Kind::TunnelZone => &["NAME", "ENCAPSULATION", "HOSTS"],
        Kind::Chain => &["TENANT", "NAME", "RULES", "PORTS"],
        Kind::AddressGroup => &["TENANT", "NAME", "MEMBERS"],
        Kind::PortGroup => &["TENANT", "NAME", "MEMBERS", "STATEFUL"],
    };
    let right = [
        "PORTS", "ROUTES", "BRIDGES", "ROUTERS", "HOSTS", "RULES", "MEMBERS",
    ];
    let rows = objects.iter().map(|object| row(model, object)).collect();
    let notes = objects.iter().map(|object| notes(model, object));
    session.output.table(columns, &right, rows) + &notes.collect::<String>()
}

/// What to know about an object: the routes that a router doesn't use.
fn notes(model: &Model, object: &Object) -> String {
    let Object::Router(router) = object else {
        return String::new();
    };
    let note = |(route, why): (&Route, String)| {
        format!("{}: route {route} is inactive: {why}\n", router.name)
    };
    let inactive = model.inactive_routes(router);
    inactive.into_iter().map(note).collect()
}

/// What of one object has no room in a table: rules, members, and the chains of a port.
fn details(model: &Model, object: &Object) -> Vec<String> {
    match object {
        Object::Chain(chain) => {
            let rules = chain.rules.iter().zip(1..);
            rules
                .map(|(rule, number)| format!("rule {number}: {}", export::rule(model, rule)))
                .collect()
        }
        Object::AddressGroup(group) => group.prefixes.iter().map(ToString::to_string).collect(),
        Object::PortGroup(group) => group.ports.iter().map(|it| model.port_path(*it)).collect(),
        Object::Port(port) => {
            let hooks = [Hook::Ingress, Hook::Egress].into_iter();
            let hooks = hooks.filter(|hook| !port.chains(*hook).is_empty());
            let names = |hook: Hook| -> Vec<String> {
                let chains = port.chains(hook).iter();
                chains.map(|id| model.policy.chain_name(*id)).collect()
            };
            hooks
                .map(|hook| format!("{hook}: {}", names(hook).join(", ")))
                .collect()
        }
        _ => Vec::new(),
    }
}

fn row(model: &Model, object: &Object) -> Vec<String> {
    let ports = |device: DeviceId| {
        model
            .ports
            .values()
            .filter(|port| port.device == device)
            .count()
            .to_string()
    };
    let name = name_of(model, object);
    let tenant = tenant_of(model, object);
    match object {
        Object::Tenant(it) => {
            let bridges = model
                .bridges
                .values()
                .filter(|bridge| bridge.tenant == it.id);
            let routers = model
                .routers
                .values()
                .filter(|router| router.tenant == it.id);
            vec![
                name,
                bridges.count().to_string(),
                routers.count().to_string(),
            ]
        }
        Object::Bridge(it) => vec![tenant, name, ports(DeviceId::Bridge(it.id))],
        Object::Router(it) => {
            vec![
                tenant,
                name,
                ports(DeviceId::Router(it.id)),
                it.routes.len().to_string(),
            ]
        }
        Object::Port(it) => port_row(model, it, tenant, name),
        Object::Host(it) => host_row(model, it, name),
        Object::TunnelZone(it) => {
            let hosts = model
                .hosts
                .values()
                .filter(|host| host.zones.contains_key(&it.name));
            let encapsulation = format!("{:?}", it.encapsulation).to_lowercase();
            vec![name, encapsulation, hosts.count().to_string()]
        }
        Object::Chain(it) => {
            let ports = model.ports.values();
            let ports = ports.filter(|port| {
                let mut chains = port.ingress.iter().chain(&port.egress);
                chains.any(|id| *id == it.id)
            });
            let rules = it.rules.len().to_string();
            vec![tenant, name, rules, ports.count().to_string()]
        }
        Object::AddressGroup(it) => vec![tenant, name, it.prefixes.len().to_string()],
        Object::PortGroup(it) => {
            let members = it.ports.len().to_string();
            vec![tenant, name, members, it.stateful.to_string()]
        }
    }
}

fn port_row(model: &Model, port: &Port, tenant: String, name: String) -> Vec<String> {
    let bound = port.binding.as_ref().map(|binding| {
        let host = model
            .hosts
            .get(&binding.host)
            .map_or("?", |host| &host.name);
        binding.describe(host)
    });
    let addresses: Vec<String> = port.addresses.iter().map(ToString::to_string).collect();
    vec![
        tenant,
        name,
        port.mac.to_string(),
        or_dash(Some(addresses.join(","))),
        or_dash(bound),
        or_dash(port.peer.map(|peer| model.port_path(peer))),
        if port.admin_up { "up" } else { "down" }.into(),
    ]
}

fn host_row(model: &Model, host: &Host, name: String) -> Vec<String> {
    let bindings = model
        .ports
        .values()
        .filter_map(|port| port.binding.as_ref());
    let ports = bindings.filter(|binding| binding.host == host.id).count();
    let zones = host
        .zones
        .iter()
        .map(|(zone, address)| format!("{zone}={address}"));
    vec![
        name,
        or_dash(Some(zones.collect::<Vec<_>>().join(","))),
        ports.to_string(),
    ]
}
