//! What hosts learn from packets and share: entries of replicated tables, and the tables of MACs and neighbours.
//!
//! Owned by the agent, which applies what the store tells and what [`crate::Outcome::writes`] says. Read by
//! [`crate::simulate()`]. Bounded; no clock: whoever owns an entry removes it.

use crate::id::{BridgeId, HostId, PortId};
use crate::mac::Mac;
use crate::tag::Tag;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use weft_common::limits::{MACS_PER_PORT_MAX, UNREACHABLE_MAX};

/// One entry of a replicated table, owned by the host that wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "table", rename_all = "snake_case")]
pub enum StateEntry {
    /// The port is live on this host, which takes its packets under this key.
    PortActivity {
        /// The port.
        port: PortId,
        /// The host.
        host: HostId,
        /// Index and generation.
        tunnel_key: u32,
    },
    /// The host has ports of this flood domain, and takes flooded frames for them under this key.
    FloodActivity {
        /// Id of the flood domain.
        bridge: BridgeId,
        /// The host.
        host: HostId,
        /// Index and generation.
        tunnel_key: u32,
    },
    /// A frame from this MAC came in at this port.
    Mac {
        /// Id of the flood domain.
        bridge: BridgeId,
        /// The source.
        mac: Mac,
        /// The ingress port.
        port: PortId,
    },
    /// A next hop on this port of a router has this MAC.
    Neighbour {
        /// The router's port.
        router_port: PortId,
        /// The next hop.
        address: IpAddr,
        /// Its MAC.
        mac: Mac,
    },
}

impl StateEntry {
    /// Names the entry in its table: a later one with this key replaces it.
    pub fn key(&self) -> String {
        match self {
            StateEntry::PortActivity {
                port,
                host: _,
                tunnel_key: _,
            } => format!("port/{port}"),
            StateEntry::FloodActivity {
                bridge,
                host,
                tunnel_key: _,
            } => {
                format!("flood/{bridge}/{host}")
            }
            StateEntry::Mac {
                bridge,
                mac,
                port: _,
            } => format!("mac/{bridge}/{mac}"),
            StateEntry::Neighbour {
                router_port,
                address,
                mac: _,
            } => {
                format!("neighbour/{router_port}/{address}")
            }
        }
    }
}

/// Learned MACs and neighbours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowState {
    macs: HashMap<(BridgeId, Mac), PortId>,
    neighbours: HashMap<(PortId, IpAddr), Mac>,
    /// Next hops that didn't answer: this host's own experience, told to nobody.
    unreachable: HashSet<(PortId, IpAddr)>,
    /// Entries of both tables by port, for the bound.
    counts: HashMap<PortId, usize>,
}

impl FlowState {
    /// Takes an entry in. The tag says whose decisions it concerns; none when it changed nothing, or when the
    /// port has as many entries as it may. Activity isn't kept here.
    pub fn apply(&mut self, entry: &StateEntry) -> Option<Tag> {
        match *entry {
            StateEntry::Mac { bridge, mac, port } => {
                let old = self.macs.get(&(bridge, mac)).copied();
                if old == Some(port) || self.is_full(port) {
                    return None;
                }
                self.macs.insert((bridge, mac), port);
                self.count(old, Some(port));
                Some(Tag::Mac(bridge, mac))
            }
            StateEntry::Neighbour {
                router_port,
                address,
                mac,
            } => {
                let old = self.neighbours.get(&(router_port, address)).copied();
                if old == Some(mac) || (old.is_none() && self.is_full(router_port)) {
                    return None;
                }
                self.neighbours.insert((router_port, address), mac);
                self.unreachable.remove(&(router_port, address));
                self.count(old.map(|_| router_port), Some(router_port));
                Some(Tag::Neighbour(router_port, address))
            }
            StateEntry::PortActivity { .. } | StateEntry::FloodActivity { .. } => None,
        }
    }

    /// Takes an entry out, unless another one has replaced it. The tag says whose decisions that concerns.
    pub fn remove(&mut self, entry: &StateEntry) -> Option<Tag> {
        match *entry {
            StateEntry::Mac { bridge, mac, port } => {
                self.macs
                    .get(&(bridge, mac))
                    .filter(|held| **held == port)?;
                self.macs.remove(&(bridge, mac));
                self.count(Some(port), None);
                Some(Tag::Mac(bridge, mac))
            }
            StateEntry::Neighbour {
                router_port,
                address,
                mac,
            } => {
                self.neighbours
                    .get(&(router_port, address))
                    .filter(|held| **held == mac)?;
                self.neighbours.remove(&(router_port, address));
                self.count(Some(router_port), None);
                Some(Tag::Neighbour(router_port, address))
            }
            StateEntry::PortActivity { .. } | StateEntry::FloodActivity { .. } => None,
        }
    }

    /// The port behind which a MAC was seen in a flood domain.
    pub fn mac(&self, domain: BridgeId, mac: Mac) -> Option<PortId> {
        self.macs.get(&(domain, mac)).copied()
    }

    /// The MAC of a next hop of a router's port.
    pub fn neighbour(&self, router_port: PortId, address: IpAddr) -> Option<Mac> {
        self.neighbours.get(&(router_port, address)).copied()
    }

    /// Notes that a next hop doesn't answer, until it is learned or [`FlowState::ask_again`] is told. None when as
    /// many are noted as may be.
    pub fn set_unreachable(&mut self, router_port: PortId, address: IpAddr) -> Option<Tag> {
        if self.unreachable.len() >= UNREACHABLE_MAX {
            return None;
        }
        self.unreachable.insert((router_port, address));
        Some(Tag::Neighbour(router_port, address))
    }

    /// The next packet for this next hop asks for it again.
    pub fn ask_again(&mut self, router_port: PortId, address: IpAddr) -> Option<Tag> {
        let was_there = self.unreachable.remove(&(router_port, address));
        was_there.then_some(Tag::Neighbour(router_port, address))
    }

    /// Whether a next hop didn't answer lately.
    pub fn is_unreachable(&self, router_port: PortId, address: IpAddr) -> bool {
        self.unreachable.contains(&(router_port, address))
    }

    /// Whether a port has as many entries as it may.
    pub fn is_full(&self, port: PortId) -> bool {
        self.counts
            .get(&port)
            .is_some_and(|count| *count >= MACS_PER_PORT_MAX)
    }

    /// Every learned MAC: flood domain, MAC, port. In no order.
    pub fn macs(&self) -> impl Iterator<Item = (BridgeId, Mac, PortId)> {
        self.macs
            .iter()
            .map(|(&(domain, mac), &port)| (domain, mac, port))
    }

    /// Every learned neighbour: router port, address, MAC. In no order.
    pub fn neighbours(&self) -> impl Iterator<Item = (PortId, IpAddr, Mac)> {
        self.neighbours
            .iter()
            .map(|(&(port, address), &mac)| (port, address, mac))
    }

    /// Every entry as the store keeps it, in no order.
    pub fn entries(&self) -> impl Iterator<Item = StateEntry> {
        let macs = self
            .macs()
            .map(|(bridge, mac, port)| StateEntry::Mac { bridge, mac, port });
        let neighbours =
            self.neighbours()
                .map(|(router_port, address, mac)| StateEntry::Neighbour {
                    router_port,
                    address,
                    mac,
                });
        macs.chain(neighbours)
    }

    fn count(&mut self, gone: Option<PortId>, come: Option<PortId>) {
        if let Some(port) = come {
            *self.counts.entry(port).or_default() += 1;
        }
        if let Some(port) = gone
            && let Some(count) = self.counts.get_mut(&port)
        {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&port);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn entry(mac: u32, port: u128) -> StateEntry {
        let [a, b, c, d] = mac.to_be_bytes();
        StateEntry::Mac {
            bridge: BridgeId(Uuid::from_u128(1)),
            mac: Mac([2, 0, a, b, c, d]),
            port: PortId(Uuid::from_u128(port)),
        }
    }

    #[test]
    fn only_a_change_has_a_tag() {
        let mut state = FlowState::default();
        assert!(state.apply(&entry(1, 10)).is_some());
        assert_eq!(state.apply(&entry(1, 10)), None);
        assert!(state.apply(&entry(1, 11)).is_some());
        assert_eq!(state.macs().count(), 1);
    }

    #[test]
    fn a_late_removal_spares_the_new_place() {
        let mut state = FlowState::default();
        state.apply(&entry(1, 10));
        state.apply(&entry(1, 11));
        assert_eq!(state.remove(&entry(1, 10)), None);
        assert!(state.remove(&entry(1, 11)).is_some());
        assert_eq!(state, FlowState::default());
    }

    #[test]
    fn a_port_learns_only_so_many() {
        let mut state = FlowState::default();
        for mac in 0..MACS_PER_PORT_MAX as u32 {
            assert!(state.apply(&entry(mac, 10)).is_some());
        }
        assert_eq!(state.apply(&entry(u32::MAX, 10)), None);
        assert!(state.apply(&entry(u32::MAX, 11)).is_some());
        state.remove(&entry(0, 10));
        assert!(state.apply(&entry(7_000, 10)).is_some());
    }

    #[test]
    fn keys_name_the_entry_and_not_its_value() {
        assert_eq!(entry(1, 10).key(), entry(1, 11).key());
        let id = Uuid::from_u128(1);
        assert_eq!(entry(1, 10).key(), format!("mac/{id}/02:00:00:00:00:01"));
        let json = serde_json::to_value(entry(1, 10)).unwrap();
        assert_eq!(json["table"], "mac");
        assert_eq!(
            serde_json::from_value::<StateEntry>(json).unwrap(),
            entry(1, 10)
        );
    }
}
