//! What the kernel tracks: connections that have expired are taken out, and tenants that have as many as they may are
//! stopped.
//!
//! The tables are gone through in pieces, a few a second: a large table doesn't keep packets waiting. A tenant's limit is
//! set after each round, from what the kernel had opened before it and what was alive in it.

use super::Engine;
use std::collections::BTreeMap;
use weft_common::connection::seen_at;
use weft_common::limits::{CONNECTIONS_PER_TENANT_MAX, TENANTS_MAX};
use weft_datapath::{ConnectionPiece, Datapath, monotonic_ns};
use weft_vnet::{PortId, TenantId};

/// Entries that are read at once: room for so many is made each time, also where there are few.
const PIECE: usize = 4_096;
/// Pieces that are looked at in one second.
const PIECES_PER_SEC: usize = 5;

/// See the module's text.
#[derive(Default)]
pub struct Connections {
    /// Numbers of tenants in the kernel; 0 is none.
    tenants: BTreeMap<TenantId, u16>,
    /// By port index: number of its tenant.
    owners: BTreeMap<u16, u16>,
    /// Alive in the round that runs, by number of the tenant.
    alive: BTreeMap<u16, u64>,
    /// What the kernel had opened when the round began.
    opened: BTreeMap<u16, u64>,
    /// Entries of the last whole round.
    pub(super) tracked: u64,
    /// Those of each tenant.
    counted: BTreeMap<TenantId, u64>,
    tracked_in_round: u64,
}

impl Connections {
    /// Established ones of each tenant at the last count.
    pub(super) fn by_tenant(&self) -> &BTreeMap<TenantId, u64> {
        &self.counted
    }
}

impl<D: Datapath> Engine<D> {
    /// Notes in the kernel whose connections those of a port are.
    pub(super) fn count_for_tenant(&mut self, port: PortId, index: u16) {
        let model = self.snapshot.model();
        let tenant = model
            .ports
            .get(&port)
            .and_then(|it| model.tenant_of(it.device));
        let Some(tenant) = tenant else { return };
        let connections = &mut self.connections;
        let next = connections.tenants.len() as u16 + 1;
        if u32::from(next) >= TENANTS_MAX && !connections.tenants.contains_key(&tenant) {
            return tracing::error!("too many tenants on this host: their connections are refused");
        }
        let number = *connections.tenants.entry(tenant).or_insert(next);
        connections.owners.insert(index, number);
        if number == next {
            let opened = self.datapath.quota(number).opened;
            self.datapath
                .write_quota_limit(number, opened + CONNECTIONS_PER_TENANT_MAX);
        }
        if let Err(error) = self.datapath.write_tenant(index, number) {
            tracing::error!(%error, %port, "connections of a port aren't counted");
        }
    }

    /// Looks at the next pieces of the tables. Called about once a second.
    pub(super) fn expire_connections(&mut self) {
        if !self.is_ready || self.swap.is_beside() {
            return;
        }
        for _ in 0..PIECES_PER_SEC {
            match self.datapath.next_connections(PIECE) {
                Ok(piece) if self.expire_piece(&piece) => return self.end_round(),
                Ok(_) => {}
                Err(error) => return tracing::error!(%error, "connections can't be read"),
            }
        }
    }

    /// Whether it was a round's last piece.
    fn expire_piece(&mut self, piece: &ConnectionPiece) -> bool {
        let now = seen_at(monotonic_ns());
        for tracked in &piece.entries {
            let entry = &tracked.entry;
            if entry.connection.is_expired(entry.key.tail.protocol, now) {
                self.keep_counts_of(tracked);
                if let Err(error) = self.datapath.remove_connection(tracked) {
                    tracing::error!(%error, "an expired connection stays");
                }
                continue;
            }
            self.connections.tracked_in_round += 1;
            let owner = self.connections.owners.get(&entry.key.tail.port);
            if let (true, Some(owner)) = (tracked.is_established, owner) {
                *self.connections.alive.entry(*owner).or_default() += 1;
            }
        }
        piece.is_last
    }

    fn end_round(&mut self) {
        let connections = &mut self.connections;
        let alive = std::mem::take(&mut connections.alive);
        connections.tracked = std::mem::take(&mut connections.tracked_in_round);
        let count = |it: &u16| alive.get(it).copied().unwrap_or(0);
        let tenants = connections.tenants.iter();
        connections.counted = tenants.map(|(id, it)| (*id, count(it))).collect();
        for number in connections.tenants.values() {
            let opened = self.datapath.quota(*number).opened;
            if let Some(before) = connections.opened.insert(*number, opened) {
                let left = CONNECTIONS_PER_TENANT_MAX.saturating_sub(count(number));
                self.datapath.write_quota_limit(*number, before + left);
            }
        }
    }
}
