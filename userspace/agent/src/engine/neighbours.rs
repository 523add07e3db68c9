//! What the kernel answers ARP and neighbour solicitations by, kept in line with the topology.
//!
//! Entries are those of the networks in which this host has workloads, made by the function that the simulation is held
//! against. What an earlier agent wrote is answered until this one knows better: the keys mean the same to both. New
//! entries come before the ports that ask by them, and old ones go after.

use super::Engine;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use weft_common::limits::PORTS_MAX;
use weft_common::neighbour::{Asker, HEARS, Neighbour, NeighbourKey, ROUTER};
use weft_common::peer::address_bytes;
use weft_datapath::Datapath;
use weft_vnet::neighbours::{answered_under, asks_unheard, neighbours};
use weft_vnet::{BridgeId, DeviceId, FloodDomain, PortId, Snapshot};

/// Ports of this host in one network, with their indices.
type Locals = BTreeMap<PortId, u16>;

/// See the module's text.
#[derive(Default)]
pub struct Neighbours {
    /// What the entries were made of.
    seen: Option<Arc<Snapshot>>,
    locals: BTreeMap<BridgeId, Locals>,
    /// What is in the kernel.
    held: BTreeMap<NeighbourKey, Neighbour>,
    askers: BTreeMap<u16, Asker>,
    /// Entries for which the kernel has no room, by network.
    missing: BTreeMap<BridgeId, usize>,
    has_looked: bool,
}

impl<D: Datapath> Engine<D> {
    /// Brings entries and ports in line with the topology. A port that was bound just now gets its record before anything
    /// is attached to its interface.
    pub(super) fn reconcile_neighbours(&mut self) {
        self.look_at_earlier_neighbours();
        let snapshot = self.snapshot.clone();
        let (askers, locals) = self.asking_ports(&snapshot);
        let mut wanted = BTreeMap::new();
        for (id, its) in &locals {
            let Some(domain) = snapshot.flood_domain_of(*id) else {
                continue;
            };
            if !self.is_as_seen(&snapshot, domain, its) {
                wanted.insert(*id, entries(&snapshot, domain, its));
            }
        }
        let gone = self.stale_keys(&wanted, &locals);
        for (id, entries) in &wanted {
            self.put_entries(*id, entries);
        }
        self.write_askers(askers);
        self.remove_entries(&gone);
        // What went has made room.
        for (id, entries) in &wanted {
            if !gone.is_empty() && self.neighbours.missing.contains_key(id) {
                self.put_entries(*id, entries);
            }
        }
        let is_here = |id: &BridgeId, _: &mut usize| locals.contains_key(id);
        self.neighbours.missing.retain(is_here);
        self.neighbours.locals = locals;
        self.neighbours.seen = Some(snapshot);
    }

    /// How many addresses the agent has to answer for itself, in words.
    pub(super) fn neighbour_problems(&self) -> Option<String> {
        let missing: usize = self.neighbours.missing.values().sum();
        let held = self.neighbours.held.len();
        (missing > 0).then(|| {
            format!("the kernel answers for {held} addresses and has no room for {missing} more: those wait for weftd")
        })
    }

    fn look_at_earlier_neighbours(&mut self) {
        if std::mem::replace(&mut self.neighbours.has_looked, true) {
            return;
        }
        match self.datapath.neighbours() {
            Ok(held) => self.neighbours.held = held.into_iter().collect(),
            Err(error) => {
                tracing::error!(%error, "what an earlier weftd had the kernel answer can't be read");
            }
        }
        for port in 1..PORTS_MAX as u16 {
            // One that can't be read is written again.
            let asker = self.datapath.asker(port).ok();
            if asker != Some(Asker::default()) {
                self.neighbours
                    .askers
                    .insert(port, asker.unwrap_or_default());
            }
        }
    }

    /// Ports of this host whose workloads are answered, by index; and all its ports in their networks.
    fn asking_ports(
        &self,
        snapshot: &Snapshot,
    ) -> (BTreeMap<u16, Asker>, BTreeMap<BridgeId, Locals>) {
        let mut askers = BTreeMap::new();
        let mut locals: BTreeMap<BridgeId, Locals> = BTreeMap::new();
        for (id, bound) in &self.ports.bound {
            let Some(port) = snapshot.port(*id) else {
                continue;
            };
            if let Some(domain) = asks_unheard(snapshot, port) {
                let mac = answered_under(domain, port);
                let asker = Asker {
                    domain: domain.id.0.into_bytes(),
                    mac: mac.map_or([0; 6], |mac| mac.0),
                    spare: [0; 2],
                };
                askers.insert(bound.key.index, asker);
                locals
                    .entry(domain.id)
                    .or_default()
                    .insert(*id, bound.key.index);
            }
        }
        (askers, locals)
    }

    /// Whether a network's entries would be those that were made last, all of which are in the kernel.
    fn is_as_seen(&self, now: &Snapshot, domain: &FloodDomain, locals: &Locals) -> bool {
        let known = &self.neighbours;
        let Some(before) = &known.seen else {
            return false;
        };
        let is_same_domain = before
            .flood_domain_of(domain.id)
            .is_some_and(|it| std::ptr::eq(it, domain));
        let is_same_table = |id: &PortId| match now.port(*id).map(|it| it.device) {
            Some(DeviceId::Router(router)) => before
                .routing_table(router)
                .zip(now.routing_table(router))
                .is_some_and(|(old, new)| std::ptr::eq(old, new)),
            _ => true,
        };
        is_same_domain
            && known.locals.get(&domain.id) == Some(locals)
            && !known.missing.contains_key(&domain.id)
            && domain.router_ports.iter().all(is_same_table)
    }

    /// Keys in the kernel that nobody asks for any more.
    fn stale_keys(
        &self,
        wanted: &BTreeMap<BridgeId, BTreeMap<NeighbourKey, Neighbour>>,
        locals: &BTreeMap<BridgeId, Locals>,
    ) -> Vec<NeighbourKey> {
        let domains: BTreeSet<[u8; 16]> = locals.keys().map(|id| id.0.into_bytes()).collect();
        let made = wanted.iter().map(|(id, it)| (id.0.into_bytes(), it));
        let made: BTreeMap<[u8; 16], _> = made.collect();
        let held = self.neighbours.held.keys();
        let is_stale = |key: &&NeighbourKey| match made.get(&key.domain) {
            Some(entries) => !entries.contains_key(key),
            None => !domains.contains(&key.domain),
        };
        held.filter(is_stale).copied().collect()
    }

    fn put_entries(&mut self, id: BridgeId, entries: &BTreeMap<NeighbourKey, Neighbour>) {
        let mut refused = 0;
        let mut problem = None;
        for (key, neighbour) in entries {
            if self.neighbours.held.get(key) == Some(neighbour) {
                continue;
            }
            match self.datapath.write_neighbour(key, Some(neighbour)) {
                Ok(()) => _ = self.neighbours.held.insert(*key, *neighbour),
                Err(error) => {
                    refused += 1;
                    problem = Some(error);
                }
            }
        }
        let before = match refused {
            0 => self.neighbours.missing.remove(&id),
            _ => self.neighbours.missing.insert(id, refused),
        };
        if let Some(error) = problem.filter(|_| before.is_none()) {
            tracing::warn!(%error, refused, domain = %id, "the kernel doesn't answer for all addresses of a network");
        }
    }

    fn write_askers(&mut self, mut wanted: BTreeMap<u16, Asker>) {
        for port in self.neighbours.askers.keys() {
            wanted.entry(*port).or_default();
        }
        for (port, asker) in wanted {
            let before = self.neighbours.askers.get(&port);
            if before == Some(&asker) && asker != Asker::default() {
                continue;
            }
            match self.datapath.write_asker(port, &asker) {
                Ok(()) if asker == Asker::default() => _ = self.neighbours.askers.remove(&port),
                Ok(()) => _ = self.neighbours.askers.insert(port, asker),
                Err(error) => {
                    tracing::error!(%error, port, "whose questions the kernel answers could not be written");
                }
            }
        }
    }

    fn remove_entries(&mut self, gone: &[NeighbourKey]) {
        for key in gone {
            match self.datapath.write_neighbour(key, None) {
                Ok(()) => _ = self.neighbours.held.remove(key),
                Err(error) => {
                    tracing::error!(%error, "the kernel goes on answering for an address")
                }
            }
        }
    }
}

/// What the kernel is to answer in a network.
fn entries(
    snapshot: &Snapshot,
    domain: &FloodDomain,
    locals: &Locals,
) -> BTreeMap<NeighbourKey, Neighbour> {
    let entry = |(address, it): (std::net::IpAddr, weft_vnet::neighbours::Neighbour)| {
        let key = NeighbourKey {
            domain: domain.id.0.into_bytes(),
            address: address_bytes(address),
        };
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        let neighbour = Neighbour {
            mac: it.mac.0,
            flags: flag(it.is_router, ROUTER) | flag(it.hears, HEARS),
            spare: 0,
            owner: locals.get(&it.owner).copied().unwrap_or_default().into(),
        };
        (key, neighbour)
    };
    neighbours(snapshot, domain).map(entry).collect()
}
