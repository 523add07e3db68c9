//! Chains, groups and the chains of ports in the wanted model. Their names may stand anywhere in the file, so they are
//! looked up when all else is as the file says.

use std::collections::BTreeSet;
use std::sync::Arc;

use uuid::Uuid;
use weft_vnet::policy::{
    Action, AddressGroup, AddressMatch, Chain, Conditions, Group, Hook, PortGroup, Rule,
};
use weft_vnet::{AddressGroupId, ChainId, Kind, PortGroupId, PortId, TenantId};

use super::target::Target;
use crate::topology::{
    ActionEntry, AddressEntry, ChainEntry, ConditionsEntry, Document, PortEntry, PortGroupEntry,
    RuleEntry, Spanned,
};

/// What waits to be looked up, and what the file mentions.
#[derive(Default)]
pub(super) struct Policies<'a> {
    chains: Vec<(TenantId, ChainId, &'a ChainEntry)>,
    port_groups: Vec<(TenantId, PortGroupId, &'a PortGroupEntry)>,
    hooks: Vec<(TenantId, PortId, Hook, &'a [Spanned<String>])>,
    mentioned: BTreeSet<(Kind, Uuid)>,
}

impl<'a> Target<'a> {
    /// Makes the chains and groups of a document known by name.
    pub(super) fn declare_policies(&mut self, tenant: TenantId, document: &'a Document) {
        let policy = &mut self.model.policy;
        for entry in &document.chains {
            let name = &entry.name.value;
            let mut known = policy.chains.values();
            let known = known.find(|it| it.tenant == tenant && it.name == *name);
            let id = known.map_or_else(|| ChainId(Uuid::new_v4()), |it| it.id);
            policy.chains.entry(id).or_insert_with(|| {
                Arc::new(Chain {
                    id,
                    tenant,
                    name: name.clone(),
                    rules: Vec::new(),
                })
            });
            self.places.add(Kind::Chain, id.0, "", entry.name.span);
            self.policies.mentioned.insert((Kind::Chain, id.0));
            self.policies.chains.push((tenant, id, entry));
        }
        for entry in &document.address_groups {
            let name = &entry.name.value;
            let mut known = policy.address_groups.values();
            let known = known.find(|it| it.tenant == tenant && it.name == *name);
            let id = known.map_or_else(|| AddressGroupId(Uuid::new_v4()), |it| it.id);
            let mut group = AddressGroup {
                id,
                tenant,
                name: name.clone(),
                prefixes: entry.prefixes.clone(),
            };
            group.sort();
            policy.address_groups.insert(id, Arc::new(group));
            self.places
                .add(Kind::AddressGroup, id.0, "", entry.name.span);
            self.policies.mentioned.insert((Kind::AddressGroup, id.0));
        }
        for entry in &document.port_groups {
            let name = &entry.name.value;
            let mut known = policy.port_groups.values();
            let known = known.find(|it| it.tenant == tenant && it.name == *name);
            let id = known.map_or_else(|| PortGroupId(Uuid::new_v4()), |it| it.id);
            policy.port_groups.entry(id).or_insert_with(|| {
                Arc::new(PortGroup {
                    id,
                    tenant,
                    name: name.clone(),
                    ports: Vec::new(),
                    stateful: false,
                })
            });
            self.places.add(Kind::PortGroup, id.0, "", entry.name.span);
            self.policies.mentioned.insert((Kind::PortGroup, id.0));
            self.policies.port_groups.push((tenant, id, entry));
        }
    }

    /// Notes the chains that a port is to have.
    pub(super) fn note_hooks(&mut self, tenant: TenantId, port: PortId, entry: &'a PortEntry) {
        let hooks = [
            (Hook::Ingress, &entry.ingress),
            (Hook::Egress, &entry.egress),
        ];
        for (hook, list) in hooks {
            if let Some(list) = list {
                self.places
                    .add(Kind::Port, port.0, format!("/{hook}"), list.span);
                let names = list.value.as_slice();
                self.policies.hooks.push((tenant, port, hook, names));
            }
        }
    }

    /// Removes what the file doesn't mention, in the tenants that it names.
    pub(super) fn prune_policies(&mut self) {
        let (tenants, mentioned) = (&self.tenants, &self.policies.mentioned);
        let stays =
            |tenant, kind, id| !tenants.contains(&tenant) || mentioned.contains(&(kind, id));
        let policy = &mut self.model.policy;
        policy
            .chains
            .retain(|id, it| stays(it.tenant, Kind::Chain, id.0));
        policy
            .address_groups
            .retain(|id, it| stays(it.tenant, Kind::AddressGroup, id.0));
        policy
            .port_groups
            .retain(|id, it| stays(it.tenant, Kind::PortGroup, id.0));
    }

    /// Looks up every name.
    pub(super) fn resolve_policies(&mut self) {
        for (tenant, id, entry) in std::mem::take(&mut self.policies.port_groups) {
            let ports = entry.ports.iter().enumerate();
            let ports = ports.filter_map(|(index, path)| {
                let pointer = format!("/ports/{index}");
                self.places.add(Kind::PortGroup, id.0, pointer, path.span);
                self.find_port(tenant, path)
            });
            let ports = ports.collect();
            if let Some(group) = self.model.policy.port_groups.get_mut(&id) {
                let group = Arc::make_mut(group);
                (group.ports, group.stateful) = (ports, entry.stateful);
            }
        }
        for (tenant, id, entry) in std::mem::take(&mut self.policies.chains) {
            let mut rules = Vec::with_capacity(entry.rules.len());
            for (index, rule) in entry.rules.iter().enumerate() {
                let pointer = format!("/rules/{index}");
                self.places.add(Kind::Chain, id.0, pointer, rule.span);
                rules.push(self.rule(tenant, &rule.value));
            }
            if let Some(chain) = self.model.policy.chains.get_mut(&id) {
                Arc::make_mut(chain).rules = rules;
            }
        }
        for (tenant, id, hook, names) in std::mem::take(&mut self.policies.hooks) {
            let mut chains = Vec::with_capacity(names.len());
            for (index, name) in names.iter().enumerate() {
                let pointer = format!("/{hook}/{index}");
                self.places.add(Kind::Port, id.0, pointer, name.span);
                chains.extend(self.find_chain(tenant, name));
            }
            if let Some(port) = self.model.ports.get_mut(&id) {
                let port = Arc::make_mut(port);
                match hook {
                    Hook::Ingress => port.ingress = chains,
                    Hook::Egress => port.egress = chains,
                }
            }
        }
    }

    fn rule(&mut self, tenant: TenantId, entry: &RuleEntry) -> Rule {
        let matches = self.conditions(tenant, &entry.matches);
        let not = entry.not.iter().map(|it| self.conditions(tenant, it));
        let not = not.collect();
        let action = match &entry.action {
            ActionEntry::Accept => Action::Accept,
            ActionEntry::Drop => Action::Drop,
            ActionEntry::Reject => Action::Reject,
            ActionEntry::Return => Action::Return,
            ActionEntry::Continue => Action::Continue,
            ActionEntry::Log => Action::Log,
            // A name that leads nowhere was told: the rule goes nowhere.
            ActionEntry::Jump(chain) => self
                .find_chain(tenant, chain)
                .map_or_else(Action::default, Action::Jump),
        };
        Rule {
            matches,
            not,
            action,
            log: entry.log.as_ref().map(|it| it.value.clone()),
        }
    }

    fn conditions(&mut self, tenant: TenantId, entry: &ConditionsEntry) -> Conditions {
        let mut addresses = |list: &Option<Vec<AddressEntry>>| {
            let list = list.as_ref()?;
            let found = list.iter().filter_map(|it| self.address(tenant, it));
            Some(found.collect::<Vec<_>>())
        };
        let (src, dst) = (addresses(&entry.src), addresses(&entry.dst));
        Conditions {
            src,
            dst,
            ..entry.plain.clone()
        }
    }

    fn address(&mut self, tenant: TenantId, entry: &AddressEntry) -> Option<AddressMatch> {
        let policy = &self.model.policy;
        let group = match entry {
            AddressEntry::Prefix(prefix) => return Some(AddressMatch::Prefix(*prefix)),
            AddressEntry::AddressGroup(name) => {
                let groups = policy.address_groups.values();
                let known = groups.map(|it| (it.tenant, &it.name, it.id));
                let id = found(known, tenant, name);
                Group::Addresses(self.or_unknown(id, "address group", name)?)
            }
            AddressEntry::PortGroup(name) => {
                let groups = policy.port_groups.values();
                let known = groups.map(|it| (it.tenant, &it.name, it.id));
                let id = found(known, tenant, name);
                Group::Ports(self.or_unknown(id, "port group", name)?)
            }
        };
        Some(AddressMatch::Group(group))
    }

    fn find_chain(&mut self, tenant: TenantId, name: &Spanned<String>) -> Option<ChainId> {
        let chains = self.model.policy.chains.values();
        let known = chains.map(|it| (it.tenant, &it.name, it.id));
        let id = found(known, tenant, name);
        self.or_unknown(id, "chain", name)
    }

    fn or_unknown<T>(
        &mut self,
        found: Result<T, Vec<String>>,
        what: &str,
        name: &Spanned<String>,
    ) -> Option<T> {
        let unknown = |known: Vec<String>| {
            self.unknown(name.span, &format!("{what} `{}`", name.value), &known);
        };
        found.map_err(unknown).ok()
    }
}

/// The tenant's object of a name, or the names that it has.
fn found<'n, T>(
    known: impl Iterator<Item = (TenantId, &'n String, T)>,
    tenant: TenantId,
    name: &Spanned<String>,
) -> Result<T, Vec<String>> {
    let mut names = Vec::new();
    for (_, its, id) in known.filter(|(owner, ..)| *owner == tenant) {
        if *its == name.value {
            return Ok(id);
        }
        names.push(its.clone());
    }
    Err(names)
}

#[cfg(test)]
mod tests;
