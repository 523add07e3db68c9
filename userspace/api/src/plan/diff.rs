//! The difference between two models: operations, and lines for people.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use uuid::Uuid;
use weft_vnet::{Kind, Model, Object, Operation, Port, Router, TenantId};

use super::{Plan, PlanLine, Sign};

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
        plan.operations.push(Operation::Put(object));
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

/// Objects in the order of kind, tenant and name.
fn ordered(model: &Model, objects: impl Iterator<Item = Object>) -> Vec<Object> {
    let mut objects: Vec<Object> = objects.collect();
    objects.sort_by_cached_key(|object| (rank(object.kind()), title(model, object)));
    objects
}

/// Kinds in an order in which nothing refers to what comes later.
fn rank(kind: Kind) -> usize {
    let order = [
        Kind::Tenant,
        Kind::TunnelZone,
        Kind::Host,
        Kind::Bridge,
        Kind::Router,
        Kind::Port,
    ];
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
    if let Some((device, _)) = model.device(port.device) {
        fields.insert("device", device.to_owned());
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
