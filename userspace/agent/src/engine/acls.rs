//! Chains of this host's ports in the kernel: compiled, shared where equal, and swapped without half a policy.
//!
//! Tables follow the topology by what differs between two snapshots ([`weft_vnet::policy::changed`]): a hook whose rules
//! changed is compiled again, a member that comes or goes is an entry of the table of sets. New tables are written
//! before a port's policy word names them, and old ones go some time after none does. The word's epoch rises with either:
//! what was admitted before is judged again at its next packet.

use super::Engine;
use super::rule_counts::Table;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use weft_common::acl::{Cell, NOT_COMPILED, SetKey};
use weft_common::limits::{ACLS_MAX, PORTS_MAX, SLOT_GRACE_SECS};
use weft_common::policy::Policy as PolicyWord;
use weft_datapath::Datapath;
use weft_vnet::policy::{
    Acl, CompileError, Group, Hook, PolicyChange, SetId, Sets, changed, compile, members, set_key,
    set_list,
};
use weft_vnet::{ChainId, Model, PortId, Snapshot, TenantId};

/// A compiled ACL that is in the kernel.
struct Compiled {
    tenant: TenantId,
    acl: Acl,
}

/// The sets of one tenant.
struct TenantSets {
    /// Its number in the kernel's table.
    number: u32,
    sets: Sets,
}

/// What a hook of a port has in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HookTable {
    /// Nothing: no chains, or none with a rule.
    #[default]
    None,
    /// An ACL of this number.
    Compiled(u16),
    /// Its packets come up to the agent: why.
    NotCompiled(CompileError),
}

impl HookTable {
    fn number(&self) -> u16 {
        match self {
            HookTable::None => 0,
            HookTable::Compiled(number) => *number,
            HookTable::NotCompiled(_) => NOT_COMPILED,
        }
    }
}

/// See the module's text.
#[derive(Default)]
pub struct Acls {
    /// What the tables were made of.
    seen: Option<Arc<Snapshot>>,
    tenants: BTreeMap<TenantId, TenantSets>,
    /// Above those of an earlier agent, whose ACLs may still ask for them.
    next_tenant: u32,
    compiled: BTreeMap<u16, Compiled>,
    /// Numbers that packets may still be on their way with, and since when nobody uses them.
    resting: BTreeMap<u16, u64>,
    hooks: BTreeMap<PortId, [HookTable; 2]>,
    /// Entries and words of an earlier agent have been looked at.
    has_looked: bool,
    /// Entries of the table of sets that an earlier agent wrote.
    earlier_sets: Vec<(SetKey, u8)>,
}

impl Acls {
    /// Hooks whose chains aren't in the kernel, in words.
    pub(super) fn problems(&self, model: &Model) -> Vec<String> {
        let of_port = |(id, tables): (&PortId, &[HookTable; 2])| {
            let path = model.port_path(*id);
            let hooks = [Hook::Ingress, Hook::Egress]
                .into_iter()
                .zip(tables.clone());
            let why = hooks.filter_map(move |(hook, table)| match table {
                HookTable::NotCompiled(error) => Some(format!(
                    "port {path}: its {hook} chains aren't compiled, and all packets there are dropped: {error}"
                )),
                _ => None,
            });
            why.collect::<Vec<_>>()
        };
        self.hooks.iter().flat_map(of_port).collect()
    }

    /// A port is bound no more: bound again, under another index, it gets its word anew.
    pub(super) fn forget(&mut self, port: PortId) {
        self.hooks.remove(&port);
    }

    /// What a port's hook has in the kernel.
    pub(super) fn table(&self, port: PortId, hook: Hook) -> HookTable {
        let tables = self.hooks.get(&port);
        tables.map_or(HookTable::None, |it| it[hook as usize].clone())
    }

    /// The tables of a port's hook, if it has any.
    pub(super) fn compiled_table(&self, port: PortId, hook: Hook) -> Option<Table<'_>> {
        let HookTable::Compiled(number) = self.hooks.get(&port)?[hook as usize] else {
            return None;
        };
        let Compiled { tenant, acl } = self.compiled.get(&number)?;
        Some(Table {
            number,
            acl,
            sets: self.tenants.get(tenant).map(|it| &it.sets),
        })
    }

    /// Ports that use tables of this number.
    pub(super) fn users_of(&self, number: u16) -> usize {
        let uses = |it: &&[HookTable; 2]| it.contains(&HookTable::Compiled(number));
        self.hooks.values().filter(uses).count()
    }

    /// Tables in use, hooks that have some, and hooks whose chains aren't compiled.
    pub(super) fn sizes(&self) -> [u64; 3] {
        let hooks = || self.hooks.values().flatten();
        let is_compiled = |it: &&HookTable| matches!(it, HookTable::Compiled(_));
        let is_not = |it: &&HookTable| matches!(it, HookTable::NotCompiled(_));
        [
            self.compiled.len() as u64,
            hooks().filter(is_compiled).count() as u64,
            hooks().filter(is_not).count() as u64,
        ]
    }

    /// Numbers of sets that a hook asks for, of its tenant.
    fn asks_for(&self, table: &HookTable, sets: &BTreeSet<(TenantId, SetId)>) -> bool {
        let HookTable::Compiled(number) = table else {
            return false;
        };
        self.compiled
            .get(number)
            .is_some_and(|it| it.acl.set_ids().any(|set| sets.contains(&(it.tenant, set))))
    }

    fn free_number(&self) -> Option<u16> {
        let is_free = |it: &u16| !self.compiled.contains_key(it) && !self.resting.contains_key(it);
        (1..ACLS_MAX as u16).find(is_free)
    }
}

impl<D: Datapath> Engine<D> {
    /// Brings tables, sets and policy words of this host's ports in line with the topology. A port that was bound just
    /// now gets its word before anything is attached to its interface.
    pub(super) fn reconcile_acls(&mut self) {
        self.look_at_earlier_acls();
        let now = self.snapshot.clone();
        let before = self.acls.seen.replace(now.clone());
        let change = match &before {
            Some(before) if Arc::ptr_eq(before, &now) => PolicyChange::default(),
            Some(before) => changed(before, &now),
            None => PolicyChange::default(),
        };
        let mut stale = self.hooks_to_compile(&change);
        self.acls
            .hooks
            .retain(|id, _| self.ports.bound.contains_key(id));
        let touched = self.change_sets(&change);
        let policy_before = before.as_ref().map(|it| &it.model().policy);
        self.carry_rule_counts(&stale, policy_before);
        let compiled = self.compile_hooks(&stale);
        if let Err(error) = self.write_tables(&compiled) {
            tracing::error!(%error, "compiled chains could not be written: the earlier ones hold until it succeeds");
            for id in std::mem::take(&mut stale) {
                self.acls.hooks.remove(&id);
                self.close_without_tables(id);
            }
        }
        let fresh = compiled.iter().map(|(number, _)| *number).collect();
        self.begin_rule_counts(&stale, &fresh);
        let asks = |acls: &Acls, id: &PortId| {
            let tables = acls.hooks.get(id);
            tables.is_some_and(|it| it.iter().any(|it| acls.asks_for(it, &touched)))
        };
        let bound = self.ports.bound.keys().copied();
        stale.extend(bound.filter(|id| asks(&self.acls, id)));
        for id in stale {
            self.write_word(id);
        }
        self.rest_unused();
    }

    /// What an earlier agent's words and sets name is in use until each port has a word of this one.
    fn look_at_earlier_acls(&mut self) {
        if std::mem::replace(&mut self.acls.has_looked, true) {
            return;
        }
        let now = self.now_secs();
        for port in 0..PORTS_MAX as u16 {
            let word = self.datapath.policy(port);
            for number in [word.ingress, word.egress] {
                self.acls.resting.insert(number, now);
            }
        }
        self.acls.resting.remove(&0);
        self.acls.resting.remove(&NOT_COMPILED);
        let keys = self.datapath.set_keys().unwrap_or_default();
        let numbers = keys.iter().map(|(key, _)| key.tenant);
        self.acls.next_tenant = numbers.max().map_or(1, |it| it.wrapping_add(1).max(1));
        self.acls.earlier_sets = keys;
    }

    /// Ports of this host of which a hook has other rules than before, or that have no tables yet.
    fn hooks_to_compile(&self, change: &PolicyChange) -> BTreeSet<PortId> {
        let bound = &self.ports.bound;
        let changed = change.hooks.iter().map(|(id, _)| *id);
        let new = bound.keys().copied();
        let new = new.filter(|id| !self.acls.hooks.contains_key(id));
        changed
            .filter(|id| bound.contains_key(id))
            .chain(new)
            .collect()
    }

    /// Members that come and go, of tenants whose sets are in the kernel. Returns the sets that they are of.
    fn change_sets(&mut self, change: &PolicyChange) -> BTreeSet<(TenantId, SetId)> {
        let mut touched = BTreeSet::new();
        let gone = change.go.iter().map(|it| (it, false));
        // Those that come first: who moves from one prefix to another is never in none.
        let all: Vec<_> = change
            .come
            .iter()
            .map(|it| (it, true))
            .chain(gone)
            .collect();
        for ((group, prefix), comes) in all {
            let Some(tenant) = self.tenant_of_group(*group) else {
                continue;
            };
            let Some(its) = self.acls.tenants.get_mut(&tenant) else {
                continue;
            };
            let changes = match comes {
                true => its.sets.add(*group, *prefix),
                false => Ok(its.sets.remove(*group, *prefix)),
            };
            let changes = changes.unwrap_or_else(|error| {
                tracing::error!(%error, "a member of a group is left out");
                Vec::new()
            });
            touched.extend(its.sets.find(*group).map(|set| (tenant, set)));
            let number = its.number;
            for (prefix, sets) in changes {
                self.write_set(number, prefix, sets.as_deref());
            }
        }
        touched
    }

    /// A group's tenant; of one that is gone by what it was.
    fn tenant_of_group(&self, group: Group) -> Option<TenantId> {
        let policy = &self.snapshot.model().policy;
        let declared = match group {
            Group::Addresses(id) => policy.address_groups.get(&id).map(|it| it.tenant),
            Group::Ports(id) => policy.port_groups.get(&id).map(|it| it.tenant),
        };
        let known = || {
            let mut tenants = self.acls.tenants.iter();
            tenants
                .find(|(_, it)| it.sets.find(group).is_some())
                .map(|(id, _)| *id)
        };
        declared.or_else(known)
    }

    fn write_set(&mut self, tenant: u32, prefix: ipnet::IpNet, sets: Option<&[SetId]>) {
        let (key, bits) = set_key(tenant, prefix);
        let list = sets.map(set_list);
        if let Err(error) = self.datapath.write_set(&key, bits, list.as_ref()) {
            tracing::error!(%error, %prefix, "the groups of an address could not be written");
        }
    }

    /// The sets of a tenant, all of them in the kernel's table.
    fn sets_of(&mut self, tenant: TenantId) -> &mut TenantSets {
        if !self.acls.tenants.contains_key(&tenant) {
            let mut its = TenantSets {
                number: self.acls.next_tenant,
                sets: Sets::default(),
            };
            self.acls.next_tenant = self.acls.next_tenant.wrapping_add(1).max(1);
            let model = self.snapshot.shared_model().clone();
            for (group, prefix) in members(&model.policy, &model.ports) {
                if self.tenant_of_group(group) != Some(tenant) {
                    continue;
                }
                if let Err(error) = its.sets.add(group, prefix) {
                    tracing::error!(%error, "a member of a group is left out");
                }
            }
            let entries: Vec<_> = its
                .sets
                .entries()
                .map(|(it, sets)| (*it, sets.to_vec()))
                .collect();
            for (prefix, sets) in entries {
                self.write_set(its.number, prefix, Some(&sets));
            }
            self.acls.tenants.insert(tenant, its);
        }
        // Inserted above, if it wasn't there.
        self.acls
            .tenants
            .entry(tenant)
            .or_insert_with(|| TenantSets {
                number: 0,
                sets: Sets::default(),
            })
    }

    /// Compiles the hooks of these ports, each list of chains once, and gives equal tables one number. Returns the
    /// tables that aren't in the kernel yet.
    fn compile_hooks(&mut self, ports: &BTreeSet<PortId>) -> Vec<(u16, Vec<Cell>)> {
        let model = self.snapshot.shared_model().clone();
        let mut known: BTreeMap<(TenantId, Vec<ChainId>), HookTable> = BTreeMap::new();
        let mut written = Vec::new();
        for id in ports {
            let Some(port) = model.ports.get(id) else {
                continue;
            };
            let Some(tenant) = model.tenant_of(port.device) else {
                continue;
            };
            let mut tables = <[HookTable; 2]>::default();
            for hook in [Hook::Ingress, Hook::Egress] {
                let place = (tenant, port.chains(hook).to_vec());
                if place.1.is_empty() {
                    continue;
                }
                if !known.contains_key(&place) {
                    let sets = &mut self.sets_of(tenant).sets;
                    let table = match compile(&model.policy, &place.1, sets) {
                        Ok(acl) => self.number_of(tenant, acl, &mut written),
                        Err(error) => HookTable::NotCompiled(error),
                    };
                    known.insert(place.clone(), table);
                }
                tables[hook as usize] = known.get(&place).cloned().unwrap_or_default();
            }
            self.acls.hooks.insert(*id, tables);
        }
        written
    }

    /// The number of an ACL: that of an equal one, or a new one, which is to be written.
    fn number_of(
        &mut self,
        tenant: TenantId,
        acl: Acl,
        written: &mut Vec<(u16, Vec<Cell>)>,
    ) -> HookTable {
        if acl.rule_count() == 0 {
            return HookTable::None;
        }
        let mut there = self.acls.compiled.iter();
        let equal = there.find(|(_, it)| it.tenant == tenant && it.acl == acl);
        if let Some((number, _)) = equal {
            return HookTable::Compiled(*number);
        }
        let Some(number) = self.acls.free_number() else {
            return HookTable::NotCompiled(CompileError::TooLarge);
        };
        let cells = acl.cells(self.sets_of(tenant).number);
        written.push((number, cells));
        self.acls.compiled.insert(number, Compiled { tenant, acl });
        HookTable::Compiled(number)
    }

    fn write_tables(&mut self, tables: &[(u16, Vec<Cell>)]) -> Result<(), weft_datapath::Error> {
        if tables.is_empty() {
            return Ok(());
        }
        self.datapath.write_acls(tables).inspect_err(|_| {
            for (number, _) in tables {
                self.acls.compiled.remove(number);
            }
        })
    }

    /// A port's tables by one word, under a new epoch; whose its connections are goes before it.
    fn write_word(&mut self, id: PortId) {
        let Some(bound) = self.ports.bound.get(&id) else {
            return;
        };
        let index = bound.key.index;
        let tables = self.acls.hooks.get(&id);
        let [ingress, egress] = tables.map_or([0, 0], |it| [it[0].number(), it[1].number()]);
        let before = self.datapath.policy(index);
        if (ingress, egress) == (0, 0) && (before.ingress, before.egress) == (0, 0) {
            return;
        }
        // The epoch goes on while there is no policy, and over the index's ports: nothing that was admitted before is.
        let epoch = before.epoch.wrapping_add(1).max(1);
        let word = PolicyWord {
            ingress,
            egress,
            epoch,
        };
        self.count_for_tenant(id, index);
        self.datapath.write_policy(index, word);
    }

    /// A port whose tables couldn't be written, and that has no earlier ones: nothing passes where there should be chains.
    fn close_without_tables(&mut self, id: PortId) {
        let Some(index) = self.ports.bound.get(&id).map(|it| it.key.index) else {
            return;
        };
        let before = self.datapath.policy(index);
        let Some(port) = self.snapshot.port(id) else {
            return;
        };
        let number = |hook| match port.chains(hook).is_empty() {
            true => 0,
            false => NOT_COMPILED,
        };
        let (ingress, egress) = (number(Hook::Ingress), number(Hook::Egress));
        if (before.ingress, before.egress) == (0, 0) && (ingress, egress) != (0, 0) {
            let epoch = before.epoch.wrapping_add(1).max(1);
            let word = PolicyWord {
                ingress,
                egress,
                epoch,
            };
            self.datapath.write_policy(index, word);
        }
    }

    /// A port's index is free again: nothing that it admitted is admitted for the next one.
    pub(super) fn forget_policy(&mut self, index: u16) {
        let before = self.datapath.policy(index);
        if before != PolicyWord::default() {
            let epoch = before.epoch.wrapping_add(1).max(1);
            let word = PolicyWord {
                ingress: 0,
                egress: 0,
                epoch,
            };
            self.datapath.write_policy(index, word);
        }
    }

    /// Tables that no hook has any more rest, until no packet can be on its way with their number; then they go.
    fn rest_unused(&mut self) {
        let used: BTreeSet<u16> = self
            .acls
            .hooks
            .values()
            .flatten()
            .map(HookTable::number)
            .collect();
        let unused = |number: &u16| !used.contains(number);
        let gone: Vec<u16> = self.acls.compiled.keys().copied().filter(unused).collect();
        let now = self.now_secs();
        for number in gone {
            self.acls.compiled.remove(&number);
            self.acls.resting.insert(number, now);
        }
    }

    /// Takes away what has rested long enough. Called about once a second.
    pub(super) fn retire_acls(&mut self, now: u64) {
        if !self.is_ready {
            return;
        }
        let has_tables = |id| self.acls.hooks.contains_key(id);
        if !self.ports.bound.keys().all(has_tables) {
            self.reconcile_acls();
        }
        let is_due = |since: u64| now > since + SLOT_GRACE_SECS;
        let due = self
            .acls
            .resting
            .iter()
            .filter(|(_, since)| is_due(**since));
        let mut due: BTreeSet<u16> = due.map(|(number, _)| *number).collect();
        if !due.is_empty() {
            // A port whose new tables couldn't be written goes by its earlier ones.
            for port in 0..PORTS_MAX as u16 {
                let word = self.datapath.policy(port);
                due.remove(&word.ingress);
                due.remove(&word.egress);
            }
        }
        for number in due {
            self.acls.resting.remove(&number);
            if let Err(error) = self.datapath.remove_acl(number) {
                tracing::error!(%error, number, "a compiled chain stays in the kernel");
            }
        }
        if self.acls.resting.is_empty() {
            for (key, bits) in std::mem::take(&mut self.acls.earlier_sets) {
                if let Err(error) = self.datapath.write_set(&key, bits, None) {
                    tracing::error!(%error, "groups of an earlier weftd stay in the kernel");
                }
            }
        }
    }
}
