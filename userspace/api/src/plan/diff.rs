//! The difference between two models: operations, and lines for people.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use ipnet::IpNet;
use uuid::Uuid;
use weft_vnet::policy::{AddressGroup, Chain, Hook, compare_members};
use weft_vnet::{Kind, Model, Object, Operation, Port, Router, TenantId};

use super::{Plan, PlanLine, Sign};
use crate::export;
use crate::kinds::KINDS;

/// Rules or members that a line tells of; a change may be of thousands.
const SHOWN_MAX: usize = 8;

/// What makes `before` into `after`: first everything that comes or changes, then what goes.
pub(super) fn between(before: &Model, after: &Model) -> Plan {
    let mut plan = Plan::default();
    for object in ordered(after, after.objects()) {
        let (kind, id) = (object.kind(), object.id());
        let old = before.get(kind, id);
        if old.as_ref() == Some(&object) {
            continue;
        }
        let name = title(after, &object);
        plan.lines.push(match &old {
            None => PlanLine {
                sign: Sign::Add,
                text: name,
            },
            Some(old) => {
                let fields = changes((before, old), (after, &object)).join(", ");
                PlanLine {
                    sign: Sign::Change,
                    text: format!("{name} {fields}"),
                }
            }
        });
        plan.operations.push(step(old, object));
    }
    let gone = before
        .objects()
        .filter(|object| after.get(object.kind(), object.id()).is_none());
    let mut gone = ordered(before, gone);
    // Kinds the other way round: ports go before their devices.
    gone.sort_by_key(|object| std::cmp::Reverse(rank(object.kind())));
    for object in gone {
        let text = title(before, &object);
        plan.lines.push(PlanLine {
            sign: Sign::Remove,
            text,
        });
        plan.operations.push(Operation::Delete {
            kind: object.kind(),
            id: object.id(),
        });
    }
    plan.notes = inactive_routes(before, after);
    plan
}

/// What makes the old object the new one. Members of a group are changed one by one, however many there are.
fn step(old: Option<Object>, new: Object) -> Operation {
    if let (Some(Object::AddressGroup(old)), Object::AddressGroup(group)) = (&old, &new)
        && old.name == group.name
    {
        let (add, remove) = compare_members(&old.prefixes, &group.prefixes);
        let group = group.id;
        return Operation::Members { group, add, remove };
    }
    Operation::Put(new)
}

/// Objects in the order of kind, tenant and name.
fn ordered(model: &Model, objects: impl Iterator<Item = Object>) -> Vec<Object> {
    let mut objects: Vec<Object> = objects.collect();
    objects.sort_by_cached_key(|object| (rank(object.kind()), title(model, object)));
    objects
}

/// Kinds in an order in which nothing refers to what comes later.
fn rank(kind: Kind) -> usize {
    let order = KINDS;
    order
        .iter()
        .position(|it| *it == kind)
        .unwrap_or(order.len())
}

/// The routes that `after` doesn't use, though `before` did or didn't have them.
fn inactive_routes(before: &Model, after: &Model) -> Vec<String> {
    let told = |model: &Model| -> BTreeSet<String> {
        let routers = model.routers.values();
        let notes = routers.flat_map(|router| {
            let tenant = model.tenant_name(router.tenant);
            model
                .inactive_routes(router)
                .into_iter()
                .map(move |(route, why)| {
                    format!(
                        "route {route} of router {tenant} {} is inactive: {why}",
                        router.name
                    )
                })
        });
        notes.collect()
    };
    let before = told(before);
    told(after)
        .into_iter()
        .filter(|note| !before.contains(note))
        .collect()
}

/// "port acme web/web-1", "host h1".
fn title(model: &Model, object: &Object) -> String {
    let kind = object.kind();
    let owned =
        |tenant: TenantId, name: &str| format!("{kind} {} {name}", model.tenant_name(tenant));
    match object {
        Object::Tenant(_) | Object::Host(_) | Object::TunnelZone(_) => {
            format!("{kind} {}", object.name())
        }
        Object::Bridge(bridge) => owned(bridge.tenant, &bridge.name),
        Object::Router(router) => owned(router.tenant, &router.name),
        Object::Chain(chain) => owned(chain.tenant, &chain.name),
        Object::AddressGroup(group) => owned(group.tenant, &group.name),
        Object::PortGroup(group) => owned(group.tenant, &group.name),
        Object::Port(port) => {
            let tenant = model.device(port.device).map(|(_, tenant)| tenant);
            owned(
                tenant.unwrap_or(TenantId(Uuid::nil())),
                &model.port_path(port.id),
            )
        }
    }
}

/// Each field that differs, as "addresses: [..] -> [..]".
fn changes((before, old): (&Model, &Object), (after, new): (&Model, &Object)) -> Vec<String> {
    match (old, new) {
        (Object::Chain(old), Object::Chain(new)) => return rules((before, old), (after, new)),
        (Object::AddressGroup(old), Object::AddressGroup(new)) => return members(old, new),
        _ => {}
    }
    let old = fields(before, old);
    let new = fields(after, new);
    let differ = new
        .iter()
        .filter(|(field, value)| old.get(*field) != Some(value));
    differ
        .map(|(field, value)| {
            let none = "none".to_owned();
            format!("{field}: {} -> {value}", old.get(field).unwrap_or(&none))
        })
        .collect()
}

/// An object's fields as the topology file calls and writes them.
fn fields(model: &Model, object: &Object) -> BTreeMap<&'static str, String> {
    let mut fields = BTreeMap::from([("name", object.name().to_owned())]);
    let tenant = |id: &TenantId| model.tenant_name(*id);
    match object {
        Object::Tenant(_) => {}
        Object::Bridge(bridge) => {
            fields.insert("tenant", tenant(&bridge.tenant));
        }
        Object::Router(router) => {
            fields.insert("tenant", tenant(&router.tenant));
            fields.insert("routes", routes(router));
        }
        Object::Port(port) => port_fields(model, port, &mut fields),
        Object::PortGroup(group) => {
            let ports = group.ports.iter().map(|id| model.port_path(*id));
            fields.insert("ports", format!("[{}]", join(ports)));
            fields.insert("stateful", group.stateful.to_string());
        }
        // What differs is told item by item.
        Object::Chain(_) | Object::AddressGroup(_) => {}
        Object::Host(host) => {
            let zones = host
                .zones
                .iter()
                .map(|(zone, address)| format!("{zone}: {address}"));
            fields.insert("zones", format!("{{{}}}", join(zones)));
        }
        Object::TunnelZone(zone) => {
            let encapsulation = format!("{:?}", zone.encapsulation).to_lowercase();
            fields.insert("encapsulation", encapsulation);
        }
    }
    fields
}

fn port_fields(model: &Model, port: &Port, fields: &mut BTreeMap<&'static str, String>) {
    let none = || "none".to_owned();
    fields.insert("mac", port.mac.to_string());
    fields.insert("admin_up", port.admin_up.to_string());
    fields.insert("addresses", format!("[{}]", join(&port.addresses)));
    let bind = port.binding.as_ref().map(|binding| {
        let host = model
            .hosts
            .get(&binding.host)
            .map_or(String::new(), |host| host.name.clone());
        binding.describe(&host)
    });
    fields.insert("bind", bind.unwrap_or_else(none));
    fields.insert(
        "peer",
        port.peer.map_or_else(none, |peer| model.port_path(peer)),
    );
    for (field, hook) in [("ingress", Hook::Ingress), ("egress", Hook::Egress)] {
        let chains = port.chains(hook).iter();
        let names = chains.map(|id| model.policy.chain_name(*id));
        fields.insert(field, format!("[{}]", join(names)));
    }
    if let Some((device, _)) = model.device(port.device) {
        fields.insert("device", device.to_owned());
    }
}

/// The rules that differ: those between what both begin with and what both end with.
fn rules((before, old): (&Model, &Chain), (after, new): (&Model, &Chain)) -> Vec<String> {
    let texts = |model: &Model, chain: &Chain| -> Vec<String> {
        let rules = chain.rules.iter();
        rules.map(|rule| export::rule(model, rule)).collect()
    };
    let (old, new) = (texts(before, old), texts(after, new));
    let same = |(a, b): &(&String, &String)| a == b;
    let head = old.iter().zip(&new).take_while(same).count();
    let (old, new) = (&old[head..], &new[head..]);
    let tail = old.iter().rev().zip(new.iter().rev());
    let tail = tail.take_while(same).count();
    let [old, new] = [old, new].map(|it| some(&it[..it.len() - tail]));
    vec![format!("rules from {} on: [{old}] -> [{new}]", head + 1)]
}

fn members(old: &AddressGroup, new: &AddressGroup) -> Vec<String> {
    let (come, go) = compare_members(&old.prefixes, &new.prefixes);
    let signed = |sign: &str, list: Vec<IpNet>| {
        let texts: Vec<String> = list.iter().map(|it| format!("{sign}{it}")).collect();
        (!texts.is_empty()).then(|| some(&texts))
    };
    let told = [signed("+", come), signed("-", go)];
    vec![format!("members: {}", join(told.into_iter().flatten()))]
}

/// A list of things, or the first of very many.
fn some(list: &[String]) -> String {
    let shown = join(list.iter().take(SHOWN_MAX));
    match list.len().checked_sub(SHOWN_MAX) {
        None | Some(0) => shown,
        Some(more) => format!("{shown} and {more} more"),
    }
}

fn routes(router: &Router) -> String {
    let routes = router.routes.iter();
    let texts = routes.map(|route| format!("{route} weight {}", route.weight));
    format!("[{}]", join(texts))
}

fn join<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    items.join(", ")
}
