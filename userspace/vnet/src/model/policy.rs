//! Chains and groups as objects of the topology: their names, what they refer to, and what ports may do with them.
//!
//! No state. Called by `validate`. What a rule may say is in [`crate::policy`]; here is whose fault it is.

use super::draft::Draft;
use super::validate::{Unique, at, is_name};
use super::{Kind, Model, Port};
use crate::id::{ChainId, TenantId};
use crate::policy::{
    Action, AddressMatch, At, Chain, Conditions, Group, Hook, Refusal, validate_chains,
    validate_group, validate_hook,
};
use std::collections::BTreeMap;
use uuid::Uuid;
use weft_common::limits::POLICY_VALUES_MAX;

const HOOKS: [Hook; 2] = [Hook::Ingress, Hook::Egress];

/// Each kind has names of its own in a tenant.
pub(super) fn names(draft: &mut Draft<'_>, model: &Model) {
    let mut unique = Unique::new("/name", "the name is taken");
    let policy = &model.policy;
    let chains = policy.chains.values();
    let chains = chains.map(|it| (Kind::Chain, it.id.0, it.tenant, &it.name));
    let groups = policy.address_groups.values();
    let groups = groups.map(|it| (Kind::AddressGroup, it.id.0, it.tenant, &it.name));
    let port_groups = policy.port_groups.values();
    let port_groups = port_groups.map(|it| (Kind::PortGroup, it.id.0, it.tenant, &it.name));
    for (kind, id, tenant, name) in chains.chain(groups).chain(port_groups) {
        let text = format!("{kind} {name}");
        unique.see(draft, (kind, tenant, name), (kind, id), &text);
        if !model.tenants.contains_key(&tenant) {
            draft.refuse_missing((kind, id), "/tenant", (Kind::Tenant, tenant.0), &text);
        }
    }
}

/// What refers to chains, groups and ports leads to one, of the same tenant. What nobody touched can only have lost
/// what was deleted.
pub(super) fn references(draft: &mut Draft<'_>, model: &Model) {
    let deletes = draft.deletes();
    for port in model.ports.values() {
        if deletes || draft.touched(Kind::Port, port.id.0) {
            of_port(draft, model, port);
        }
    }
    for chain in model.policy.chains.values() {
        if deletes || draft.touched(Kind::Chain, chain.id.0) {
            of_chain(draft, model, chain);
        }
    }
    for group in model.policy.port_groups.values() {
        let user = (Kind::PortGroup, group.id.0);
        if !draft.touched(user.0, user.1) {
            continue;
        }
        let text = format!("port group {}", group.name);
        for (index, id) in group.ports.iter().enumerate() {
            let port = model.ports.get(id);
            let tenant = port.and_then(|port| model.tenant_of(port.device));
            let to = Reference {
                to: (Kind::Port, id.0),
                // A port without a device is refused as such.
                tenant: port.map(|_| tenant.unwrap_or(group.tenant)),
            };
            to.check(draft, user, group.tenant, &format!("/ports/{index}"), &text);
        }
    }
}

fn of_port(draft: &mut Draft<'_>, model: &Model, port: &Port) {
    let Some(tenant) = model.tenant_of(port.device) else {
        return;
    };
    let path = model.port_path(port.id);
    for hook in HOOKS {
        for (index, id) in port.chains(hook).iter().enumerate() {
            let pointer = format!("/{hook}/{index}");
            chain(model, *id).check(draft, at(port), tenant, &pointer, &path);
        }
    }
}

fn of_chain(draft: &mut Draft<'_>, model: &Model, of: &Chain) {
    let user = (Kind::Chain, of.id.0);
    let text = format!("chain {}", of.name);
    for (index, rule) in of.rules.iter().enumerate() {
        let pointer = format!("/rules/{index}");
        if let Action::Jump(target) = rule.action {
            chain(model, target).check(draft, user, of.tenant, &pointer, &text);
        }
        for conditions in std::iter::once(&rule.matches).chain(&rule.not) {
            for group in groups(conditions) {
                self::group(model, group).check(draft, user, of.tenant, &pointer, &text);
            }
        }
        if let Some(name) = rule.log.as_ref().filter(|name| !is_name(name)) {
            let message = format!("`{name}` can't be the name of log records");
            draft.refuse_at(user, pointer, message);
        }
    }
}

fn groups(conditions: &Conditions) -> impl Iterator<Item = Group> {
    let lists = [&conditions.src, &conditions.dst];
    let items = lists.into_iter().flatten().flatten();
    items.filter_map(|it| match it {
        AddressMatch::Group(group) => Some(*group),
        AddressMatch::Prefix(_) => None,
    })
}

/// What an object refers to, and whose that is; nobody's where it isn't there.
struct Reference {
    to: (Kind, Uuid),
    tenant: Option<TenantId>,
}

fn chain(model: &Model, id: ChainId) -> Reference {
    let found = model.policy.chains.get(&id);
    Reference {
        to: (Kind::Chain, id.0),
        tenant: found.map(|it| it.tenant),
    }
}

fn group(model: &Model, group: Group) -> Reference {
    let policy = &model.policy;
    let (to, tenant) = match group {
        Group::Addresses(id) => {
            let found = policy.address_groups.get(&id).map(|it| it.tenant);
            ((Kind::AddressGroup, id.0), found)
        }
        Group::Ports(id) => {
            let found = policy.port_groups.get(&id).map(|it| it.tenant);
            ((Kind::PortGroup, id.0), found)
        }
    };
    Reference { to, tenant }
}

impl Reference {
    fn check(
        &self,
        draft: &mut Draft<'_>,
        user: (Kind, Uuid),
        tenant: TenantId,
        pointer: &str,
        text: &str,
    ) {
        let (kind, id) = self.to;
        match self.tenant {
            None => draft.refuse_missing(user, pointer, self.to, text),
            Some(its) if its != tenant => {
                let message = format!("the {kind} with the id {id} is another tenant's");
                draft.refuse_at(user, pointer, message);
            }
            Some(_) => {}
        }
    }
}

/// What isn't taken of rules, groups and hooks that this transaction changes.
pub(super) fn rules(draft: &mut Draft<'_>, model: &Model) {
    if draft.is_refused() {
        // They rely on references that lead somewhere.
        return;
    }
    let policy = &model.policy;
    let is_put = |kind| draft.first_put(kind).is_some();
    let (is_chain_put, is_group_put) = (is_put(Kind::Chain), is_put(Kind::PortGroup));
    let chains = if is_chain_put {
        validate_chains(policy)
    } else {
        let groups = policy.address_groups.values();
        let groups = groups.filter(|it| draft.touched(Kind::AddressGroup, it.id.0));
        groups.filter_map(|it| validate_group(it)).collect()
    };
    for refusal in &chains {
        let (key, pointer) = place(refusal).unwrap_or(((Kind::Chain, Uuid::nil()), String::new()));
        draft.refuse_at(key, pointer, refusal.to_string());
    }
    if !chains.is_empty() {
        // A hook's rules have no end where chains jump in a loop.
        return;
    }
    // The chains of a port ask for the addresses of others.
    let is_member = |port: &Port| {
        let mut groups = policy.port_groups.values();
        groups.any(|it| it.ports.contains(&port.id))
    };
    let is_put = |port: &Port| draft.touched(Kind::Port, port.id.0);
    let mut ports = model.ports.values();
    let all = is_chain_put || is_group_put || ports.any(|it| is_put(it) && is_member(it));
    let ports = model.ports.values().filter(|it| all || is_put(it));
    let ports: Vec<&Port> = ports.map(|it| &**it).collect();
    hooks(draft, model, &ports);
}

/// Where in its object a refusal is.
fn place(refusal: &Refusal) -> Option<((Kind, Uuid), String)> {
    Some(match refusal.at? {
        At::Rule(chain, rule) => ((Kind::Chain, chain.0), format!("/rules/{rule}")),
        At::Chain(chain) => ((Kind::Chain, chain.0), String::new()),
        At::Group(group) => ((Kind::AddressGroup, group.0), "/prefixes".to_owned()),
    })
}

fn hooks(draft: &mut Draft<'_>, model: &Model, ports: &[&Port]) {
    // Most ports have the chains of many others.
    let mut known: BTreeMap<(Hook, &[ChainId]), Vec<Refusal>> = BTreeMap::new();
    for port in ports {
        for hook in HOOKS {
            let chains = port.chains(hook);
            if chains.len() > POLICY_VALUES_MAX {
                let count = chains.len();
                let message = format!(
                    "{count} chains on one {hook} hook: expected at most {POLICY_VALUES_MAX}"
                );
                draft.refuse_at(at(port), format!("/{hook}"), message);
                continue;
            }
            let judge = || validate_hook(&model.policy, hook, chains, &model.ports);
            for refusal in known.entry((hook, chains)).or_insert_with(judge) {
                refuse(draft, model, port, hook, refusal);
            }
        }
    }
}

/// The rule, the port, or else what was put and made the two wrong.
fn refuse(draft: &mut Draft<'_>, model: &Model, port: &Port, hook: Hook, refusal: &Refusal) {
    let rule = place(refusal).filter(|((kind, id), _)| draft.touched(*kind, *id));
    if let Some((key, pointer)) = rule {
        return draft.refuse_at(key, pointer, refusal.to_string());
    }
    if draft.touched(Kind::Port, port.id.0) {
        return draft.refuse_at(at(port), format!("/{hook}"), refusal.to_string());
    }
    let kinds = [Kind::Chain, Kind::PortGroup, Kind::Port];
    let put = kinds.into_iter().find_map(|kind| draft.first_put(kind));
    let message = format!(
        "{refusal}; it is on the {hook} of {}",
        model.port_path(port.id)
    );
    draft.refuse_at(put.unwrap_or(at(port)), "", message);
}

#[cfg(test)]
mod tests;
