//! A transaction at work: the model as it becomes, which operation touched what, and what is wrong so far.
//!
//! Lives as long as one [`Model::apply`].

use super::{DeviceId, Invalid, Kind, Model, Object, Port};
use crate::id::{
    AddressGroupId, BridgeId, ChainId, HostId, PortGroupId, PortId, RouterId, TenantId, ZoneId,
};
use ipnet::IpNet;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use uuid::Uuid;

/// The model as it becomes.
pub(super) struct Draft<'a> {
    /// Before the transaction.
    old: &'a Model,
    /// With the operations so far.
    pub(super) model: Model,
    /// The last operation that put the object, or changed its members.
    put_by: HashMap<(Kind, Uuid), usize>,
    /// The last operation that deleted the object, with its name.
    deleted_by: HashMap<(Kind, Uuid), usize>,
    invalid: Vec<Invalid>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(old: &'a Model) -> Self {
        let mut model = old.clone();
        model.revision += 1;
        let (put_by, deleted_by) = (HashMap::new(), HashMap::new());
        Self {
            old,
            model,
            put_by,
            deleted_by,
            invalid: Vec::new(),
        }
    }

    pub(super) fn put(&mut self, operation: usize, object: &Object) {
        let key = (object.kind(), object.id());
        self.put_by.insert(key, operation);
        self.deleted_by.remove(&key);
        match object.clone() {
            Object::Tenant(it) => drop(self.model.tenants.insert(it.id, Arc::new(it))),
            Object::Bridge(it) => drop(self.model.bridges.insert(it.id, Arc::new(it))),
            Object::Router(it) => drop(self.model.routers.insert(it.id, Arc::new(it))),
            Object::Port(it) => drop(self.model.ports.insert(it.id, Arc::new(it))),
            Object::Host(it) => drop(self.model.hosts.insert(it.id, Arc::new(it))),
            Object::TunnelZone(it) => drop(self.model.zones.insert(it.id, Arc::new(it))),
            Object::Chain(it) => drop(self.model.policy.chains.insert(it.id, Arc::new(it))),
            Object::AddressGroup(mut it) => {
                self.refuse_host_bits(operation, "/prefixes", &it.prefixes);
                it.sort();
                let groups = &mut self.model.policy.address_groups;
                groups.insert(it.id, Arc::new(it));
            }
            Object::PortGroup(it) => {
                drop(self.model.policy.port_groups.insert(it.id, Arc::new(it)));
            }
        }
    }

    pub(super) fn members(
        &mut self,
        operation: usize,
        group: AddressGroupId,
        add: &[IpNet],
        remove: &[IpNet],
    ) {
        self.refuse_host_bits(operation, "/add", add);
        self.refuse_host_bits(operation, "/remove", remove);
        let Some(shared) = self.model.policy.address_groups.get_mut(&group) else {
            let message = format!("there is no address group with the id {group}");
            return self.refuse(operation, "/group", message);
        };
        Arc::make_mut(shared).change(add, remove);
        self.put_by.insert((Kind::AddressGroup, group.0), operation);
    }

    /// Members are prefixes: what is behind the length of one would never be looked at.
    fn refuse_host_bits(&mut self, operation: usize, pointer: &str, prefixes: &[IpNet]) {
        for (index, prefix) in prefixes.iter().enumerate() {
            if *prefix != prefix.trunc() {
                let expected = prefix.trunc();
                let message = format!("{prefix} has bits beyond its prefix: expected {expected}");
                self.refuse(operation, format!("{pointer}/{index}"), message);
            }
        }
    }

    pub(super) fn delete(&mut self, operation: usize, kind: Kind, id: Uuid) {
        let existed = match kind {
            Kind::Tenant => self.model.tenants.remove(&TenantId(id)).is_some(),
            Kind::Bridge => self.model.bridges.remove(&BridgeId(id)).is_some(),
            Kind::Router => self.model.routers.remove(&RouterId(id)).is_some(),
            Kind::Port => self.model.ports.remove(&PortId(id)).is_some(),
            Kind::Host => self.model.hosts.remove(&HostId(id)).is_some(),
            Kind::TunnelZone => self.model.zones.remove(&ZoneId(id)).is_some(),
            Kind::Chain => self.model.policy.chains.remove(&ChainId(id)).is_some(),
            Kind::AddressGroup => {
                let groups = &mut self.model.policy.address_groups;
                groups.remove(&AddressGroupId(id)).is_some()
            }
            Kind::PortGroup => {
                let groups = &mut self.model.policy.port_groups;
                groups.remove(&PortGroupId(id)).is_some()
            }
        };
        if !existed {
            self.refuse(
                operation,
                "",
                format!("there is no {kind} with the id {id} to delete"),
            );
        }
        self.put_by.remove(&(kind, id));
        self.deleted_by.insert((kind, id), operation);
        let device = match kind {
            Kind::Bridge => DeviceId::Bridge(BridgeId(id)),
            Kind::Router => DeviceId::Router(RouterId(id)),
            Kind::Tenant | Kind::Port | Kind::Host | Kind::TunnelZone => return,
            Kind::Chain | Kind::AddressGroup | Kind::PortGroup => return,
        };
        self.model.ports.retain(|_, port| port.device != device);
    }

    /// Makes peerings symmetric. A port that this transaction gives a peer decides over what its peer says,
    /// unless that one was given another.
    pub(super) fn join_peers(&mut self) {
        let mut wanted: BTreeMap<PortId, PortId> = BTreeMap::new();
        let asked: Vec<(PortId, PortId)> = self
            .model
            .ports
            .values()
            .filter(|port| self.was_put(port.id))
            .filter_map(|port| Some((port.id, port.peer?)))
            .collect();
        for (port, peer) in asked {
            match self.peer_refusal(port, peer, &wanted) {
                Some(message) => self.refuse_port(port, "/peer", message),
                None => {
                    wanted.insert(port, peer);
                    wanted.insert(peer, port);
                }
            }
        }
        for (port, peer) in wanted {
            self.set_peer(port, Some(peer));
        }
        self.clear_one_sided();
    }

    /// Takes ports that are gone out of the groups that this transaction didn't say itself.
    pub(super) fn leave_groups(&mut self) {
        if !self.deletes() {
            return;
        }
        let Model { ports, policy, .. } = &mut self.model;
        for (id, group) in &mut policy.port_groups {
            let is_whole = group.ports.iter().all(|port| ports.contains_key(port));
            if !is_whole && !self.put_by.contains_key(&(Kind::PortGroup, id.0)) {
                let group = Arc::make_mut(group);
                group.ports.retain(|port| ports.contains_key(port));
            }
        }
    }

    /// Records a reason at an object: at the operation that put it, else at the one that deleted what it needs.
    pub(super) fn refuse_at(
        &mut self,
        (kind, id): (Kind, Uuid),
        pointer: impl Into<String>,
        message: impl Into<String>,
    ) {
        let operation = self.put_by.get(&(kind, id)).copied().unwrap_or(0);
        self.refuse(operation, pointer, message);
    }

    /// Records that `user` refers to an object that isn't there.
    pub(super) fn refuse_missing(
        &mut self,
        user: (Kind, Uuid),
        pointer: &str,
        missing: (Kind, Uuid),
        user_text: &str,
    ) {
        let (kind, id) = missing;
        match (
            self.put_by.get(&user).copied(),
            self.deleted_by.get(&missing).copied(),
        ) {
            (None, Some(operation)) => {
                let message = format!("this {kind} can't be deleted: {user_text} refers to it");
                self.refuse(operation, "", message);
            }
            (put, _) => {
                let message = format!("there is no {kind} with the id {id}");
                self.refuse(put.unwrap_or(0), pointer, message);
            }
        }
    }

    /// What this transaction put, as it is now.
    pub(super) fn put_objects(&self) -> Vec<Object> {
        let put = self.put_by.keys();
        put.filter_map(|(kind, id)| self.model.get(*kind, *id))
            .collect()
    }

    /// The operation that put the object, if this transaction did.
    pub(super) fn put_by(&self, kind: Kind, id: Uuid) -> Option<usize> {
        self.put_by.get(&(kind, id)).copied()
    }

    /// Whether this transaction put the object.
    pub(super) fn touched(&self, kind: Kind, id: Uuid) -> bool {
        self.put_by.contains_key(&(kind, id))
    }

    /// The first object of a kind that this transaction put, by its id.
    pub(super) fn first_put(&self, kind: Kind) -> Option<(Kind, Uuid)> {
        let put = self.put_by.keys().filter(|(its, _)| *its == kind);
        put.min_by_key(|(_, id)| *id).copied()
    }

    /// Whether this transaction deletes anything.
    pub(super) fn deletes(&self) -> bool {
        !self.deleted_by.is_empty()
    }

    /// Whether something is wrong so far.
    pub(super) fn is_refused(&self) -> bool {
        !self.invalid.is_empty()
    }

    pub(super) fn refuse(
        &mut self,
        operation: usize,
        pointer: impl Into<String>,
        message: impl Into<String>,
    ) {
        self.invalid.push(Invalid {
            operation,
            pointer: pointer.into(),
            message: message.into(),
        });
    }

    pub(super) fn finish(mut self) -> Result<Model, Vec<Invalid>> {
        if self.invalid.is_empty() {
            return Ok(self.model);
        }
        self.invalid.sort_by(|a, b| {
            (a.operation, &a.pointer, &a.message).cmp(&(b.operation, &b.pointer, &b.message))
        });
        self.invalid.dedup();
        Err(self.invalid)
    }

    fn was_put(&self, port: PortId) -> bool {
        self.touched(Kind::Port, port.0)
    }

    fn refuse_port(&mut self, port: PortId, pointer: &str, message: String) {
        self.refuse_at((Kind::Port, port.0), pointer, message);
    }

    fn peer_refusal(
        &self,
        port: PortId,
        peer: PortId,
        wanted: &BTreeMap<PortId, PortId>,
    ) -> Option<String> {
        if port == peer {
            return Some("a port can't be its own peer".to_owned());
        }
        let Some(other) = self.model.ports.get(&peer) else {
            return Some(format!("there is no port with the id {peer}"));
        };
        let taken = |by: PortId| {
            let path = self.model.port_path(peer);
            Some(format!(
                "{path} is already the peer of {}",
                self.model.port_path(by)
            ))
        };
        if let Some(&by) = wanted.get(&peer).filter(|&&by| by != port) {
            return taken(by);
        }
        match other.peer {
            Some(by) if by != port && (self.was_put(peer) || self.still_holds(by, peer)) => {
                taken(by)
            }
            _ => None,
        }
    }

    /// Whether `by` keeps `peer` after this transaction.
    fn still_holds(&self, by: PortId, peer: PortId) -> bool {
        self.model
            .ports
            .get(&by)
            .is_some_and(|port| port.peer == Some(peer))
    }

    /// Clears peers that don't answer: deleted, or cleared on their side.
    fn clear_one_sided(&mut self) {
        let one_sided: Vec<PortId> = self
            .model
            .ports
            .values()
            .filter(|port| {
                port.peer
                    .is_some_and(|peer| !self.still_holds(peer, port.id))
            })
            .map(|port| port.id)
            .collect();
        for port in one_sided {
            self.set_peer(port, None);
        }
    }

    fn set_peer(&mut self, port: PortId, peer: Option<PortId>) {
        if let Some(shared) = self.model.ports.get_mut(&port).filter(|it| it.peer != peer) {
            let port: &mut Port = Arc::make_mut(shared);
            port.peer = peer;
        }
    }

    /// The object before the transaction was the same, so that nothing about it can be newly wrong by itself.
    pub(super) fn unchanged_port(&self, port: &Port) -> bool {
        self.old
            .ports
            .get(&port.id)
            .is_some_and(|old| **old == *port)
    }
}
