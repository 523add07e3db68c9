//! Taking over from an earlier agent: its flows go on as they are, and are decided again step by step. The same
//! decision leaves a flow alone, another one gives it another slot, and one that can't be told from its masked
//! key removes it, so that its next packet comes up.
//!
//! Ports, underlay records and flood lists that those flows go by keep their numbers, or rest until no flow does.

use super::Engine;
use super::flows::{Again, Decision};
use std::collections::BTreeMap;
use weft_api::AdoptedStatus;
use weft_common::flood::FloodList;
use weft_common::frame::ETHERNET_LEN;
use weft_common::peer::AddressBytes;
use weft_common::slot::Output;
use weft_common::{FlowKey, Headers, TunnelKey};
use weft_datapath::{Datapath, FlowId};
use weft_vnet::Entry;

/// What is still to be done, and what came of the rest.
#[derive(Default)]
pub struct Adoption {
    /// Flows that nobody has decided on again yet.
    pub(super) undecided: Vec<FlowId>,
    /// Underlay records by remote address, of hosts that weren't met yet.
    pub(super) remote_hosts: BTreeMap<AddressBytes, u16>,
    /// Flood lists by index, those that no domain has taken over.
    pub(super) flood_lists: BTreeMap<u32, FloodList>,
    is_running: bool,
    /// How those ended that were decided on. It stays when all is done.
    decided: AdoptedStatus,
}

impl Adoption {
    /// For `weft status`.
    pub fn report(&self) -> AdoptedStatus {
        AdoptedStatus {
            undecided: self.undecided.len() as u64,
            ..self.decided
        }
    }

    /// Notes how a flow of an agent of another ABI ended.
    pub(super) fn note_rebuilt(&mut self, is_rebuilt: bool) {
        let count = match is_rebuilt {
            true => &mut self.decided.kept,
            false => &mut self.decided.removed,
        };
        *count += 1;
    }
}

impl<D: Datapath> Engine<D> {
    /// Takes over what an earlier agent left, before anything of this agent's own is written. Without that
    /// nothing may be: it could be in use.
    pub(super) fn begin_adoption(&mut self) -> Result<(), weft_datapath::Error> {
        let earlier = self.datapath.take_over()?;
        self.recall_keys();
        let now = self.now_secs();
        for flow in &earlier.flows {
            if flow.slot.output == Output::Tunnel as u8 {
                self.peers.indices.hold(u32::from(flow.slot.peer));
            }
        }
        for index in earlier.remote_hosts.values() {
            self.peers.indices.hold(u32::from(*index));
        }
        for index in earlier.flood_lists.keys() {
            self.floods.indices.hold(*index);
        }
        for address in &earlier.own_addresses {
            self.peers.earlier_own.insert(*address);
        }
        let (undecided, removed) = self.table.adopt(&mut self.datapath, &earlier, now);
        if !earlier.flows.is_empty() {
            tracing::info!(
                flows = undecided.len(),
                "flows of an earlier weftd go on, and are decided again"
            );
        }
        self.begin_rebuilding(earlier.other_abi);
        self.adoption = Adoption {
            undecided,
            remote_hosts: earlier.remote_hosts,
            flood_lists: earlier.flood_lists,
            is_running: true,
            decided: AdoptedStatus {
                removed: removed as u64,
                ..AdoptedStatus::default()
            },
        };
        Ok(())
    }

    /// Notes the keys under which others know this host's ports and flood sets.
    fn recall_keys(&mut self) {
        let now = self.now_secs();
        let activity = self.snapshot.all_activity();
        let ports = activity.ports.values().copied();
        let floods = activity.floods.iter().map(|((_, host), key)| (*host, *key));
        for (host, bits) in ports.chain(floods) {
            if host == self.host {
                self.ports.table.recall(TunnelKey::from_bits(bits), now);
            }
        }
    }

    /// Decides again on at most so many of the earlier agent's flows. Returns whether any are left. After the last
    /// one its maps and programs are this agent's, also where they were of another ABI.
    pub fn adopt_flows(&mut self, flows_max: usize) -> bool {
        if !self.is_ready || !self.adoption.is_running {
            return false;
        }
        for _ in 0..flows_max {
            if let Some(id) = self.adoption.undecided.pop() {
                self.adopt_flow(id);
            } else if !self.rebuild_next_flow() {
                self.end_adoption();
                return false;
            }
        }
        true
    }

    fn adopt_flow(&mut self, id: FlowId) {
        let Some(flow) = self.table.get(id) else {
            return;
        };
        if self.decisions.get(id).is_some() {
            // A packet came up for it meanwhile.
            self.adoption.decided.kept += 1;
            return;
        }
        let count = match self.ports.by_index(flow.port) {
            None => {
                let now = self.now_secs();
                self.remove_flow(id, now);
                &mut self.adoption.decided.removed
            }
            Some(port) => {
                let decision = Decision::undecided(
                    Entry::Workload(port),
                    packet_of(&flow.masked),
                    ANY_HEADERS,
                    flow.mask,
                );
                match self.decide_flow(id, &decision) {
                    Again::Same => &mut self.adoption.decided.kept,
                    Again::Replaced => &mut self.adoption.decided.replaced,
                    Again::Removed => &mut self.adoption.decided.removed,
                }
            }
        };
        *count += 1;
    }

    fn end_adoption(&mut self) {
        let decided = self.adoption.decided;
        self.adoption = Adoption {
            decided,
            ..Adoption::default()
        };
        let AdoptedStatus {
            kept,
            replaced,
            removed,
            undecided: _,
        } = decided;
        if kept + replaced + removed > 0 {
            tracing::info!(
                kept,
                replaced,
                removed,
                "flows of an earlier weftd are this one's"
            );
        }
        let now = self.now_secs();
        self.table.end_adoption(&mut self.datapath, now);
        self.peers.indices.let_go();
        self.floods.indices.let_go();
        self.swap_in();
    }
}

/// Headers that no guard minds: flows have guards of their own.
pub(super) const ANY_HEADERS: Headers = Headers {
    ttl: u8::MAX,
    l3_offset: ETHERNET_LEN as u16,
    l3_length: 0,
    l4_offset: 0,
    fragment_id: 0,
};

/// A packet that takes this flow: what it doesn't match is zero.
pub(super) fn packet_of(masked: &FlowKey) -> FlowKey {
    let mut key = *masked;
    key.head.mask_id = 0;
    key
}
