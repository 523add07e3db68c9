//! Why each flow is what it is, and what happens when that changes: the same decision leaves it alone, another
//! one gives it another slot, and one that can't be a flow removes it, so that its next packet comes up.

use super::Engine;
use std::collections::{BTreeSet, HashMap, HashSet};
use weft_common::limits::MAC_IDLE_TIMEOUT_SECS;
use weft_common::slot::Output;
use weft_common::{FlowKey, Headers};
use weft_datapath::{Datapath, Flow, FlowId};
use weft_vnet::{Entry, NoTrace, Outcome, Packet, StateEntry, Tag};

/// What became of a flow that was decided again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// It is as it was.
    Same,
    /// It has another slot.
    Replaced,
    /// It is gone.
    Removed,
}

/// A flow's reasons, and a packet to decide it again with.
#[derive(Clone)]
pub struct Decision {
    entry: Entry,
    key: FlowKey,
    headers: Headers,
    /// Bits that the decision looked at; the flow may match more.
    pub mask: FlowKey,
    /// What it depended on.
    pub tags: BTreeSet<Tag>,
}

/// The decisions of all flows, found by what they depended on.
#[derive(Default)]
pub struct Decisions {
    flows: HashMap<FlowId, Decision>,
    by_tag: HashMap<Tag, HashSet<FlowId>>,
}

impl Decision {
    /// The decision on `packet`.
    pub fn new(packet: &Packet<'_>, outcome: &Outcome) -> Decision {
        Decision {
            entry: packet.entry,
            key: packet.key,
            // A flow is decided for packets whose TTL doesn't end: the others are its guard's.
            headers: Headers {
                ttl: u8::MAX,
                ..packet.headers
            },
            mask: outcome.mask,
            tags: outcome.tags.clone(),
        }
    }

    /// What is known of a flow whose reasons aren't: a packet that takes it, and what it matches.
    pub fn undecided(entry: Entry, key: FlowKey, headers: Headers, mask: FlowKey) -> Decision {
        Decision {
            entry,
            key,
            headers,
            mask,
            tags: BTreeSet::new(),
        }
    }

    /// The packet without its frame: enough to decide, not enough to answer.
    fn packet(&self) -> Packet<'static> {
        Packet {
            entry: self.entry,
            frame: &[],
            key: self.key,
            headers: self.headers,
        }
    }
}

impl Decisions {
    /// Remembers a flow's decision instead of an earlier one.
    pub fn insert(&mut self, id: FlowId, decision: Decision) {
        self.remove(id);
        for tag in &decision.tags {
            self.by_tag.entry(*tag).or_default().insert(id);
        }
        self.flows.insert(id, decision);
    }

    /// Forgets a flow's decision.
    pub fn remove(&mut self, id: FlowId) {
        let Some(decision) = self.flows.remove(&id) else {
            return;
        };
        for tag in &decision.tags {
            if let Some(flows) = self.by_tag.get_mut(tag) {
                flows.remove(&id);
                if flows.is_empty() {
                    self.by_tag.remove(tag);
                }
            }
        }
    }

    /// A flow's decision.
    pub fn get(&self, id: FlowId) -> Option<&Decision> {
        self.flows.get(&id)
    }

    /// Whether any flow depends on this.
    pub fn uses(&self, tag: &Tag) -> bool {
        self.by_tag.contains_key(tag)
    }

    /// Flows that depend on any of these.
    fn concerned(&self, tags: &BTreeSet<Tag>) -> Vec<FlowId> {
        if tags.contains(&Tag::Topology) {
            return self.flows.keys().copied().collect();
        }
        let found: HashSet<FlowId> = tags
            .iter()
            .filter_map(|tag| self.by_tag.get(tag))
            .flatten()
            .copied()
            .collect();
        found.into_iter().collect()
    }
}

impl<D: Datapath> Engine<D> {
    /// Decides again the flows that these changes concern.
    pub(super) fn redecide(&mut self, dirty: &BTreeSet<Tag>) {
        if dirty.is_empty() {
            return;
        }
        for id in self.decisions.concerned(dirty) {
            self.redecide_flow(id);
        }
    }

    pub(super) fn redecide_flow(&mut self, id: FlowId) {
        self.redecided += 1;
        let Some(old) = self.decisions.get(id) else {
            return;
        };
        let old = old.clone();
        self.decide_flow(id, &old);
    }

    /// Decides again on a flow, by the packet of an earlier decision.
    pub(super) fn decide_flow(&mut self, id: FlowId, old: &Decision) -> Again {
        let now = self.now_secs();
        let packet = old.packet();
        let outcome = self.decide(&packet, &mut NoTrace);
        // A flow may match more than is looked at now: it goes on, and another with fewer bits comes beside it.
        let fits = |flow: &&Flow| flow.mask.masked(&outcome.mask) == outcome.mask;
        let stays = outcome.install && outcome.writes.is_empty();
        let Some(flow) = self.table.get(id).filter(|_| stays).filter(fits) else {
            self.remove_flow(id, now);
            return Again::Removed;
        };
        let before = flow.slot;
        let slot = self.slot_with_groups(&outcome);
        let mut again = Again::Same;
        if !matches!(&slot, Ok(slot) if *slot == before) {
            let replaced = slot.and_then(|slot| {
                let target = self.table.reserve(&mut self.datapath, &slot)?;
                self.table
                    .replace(&mut self.datapath, id, target, &slot, now)
            });
            if let Err(error) = replaced {
                tracing::warn!(%error, "a changed flow is removed instead");
                self.remove_flow(id, now);
                return Again::Removed;
            }
            again = Again::Replaced;
        }
        self.decisions.insert(id, Decision::new(&packet, &outcome));
        self.expect_members(&outcome);
        again
    }

    /// Whether a flow that depends on this forwards by itself all the same.
    pub(super) fn others_forward(&self, tag: &Tag) -> bool {
        let concerned = self.decisions.concerned(&[*tag].into());
        let flows = concerned.iter().filter_map(|id| self.table.get(*id));
        flows
            .map(|flow| flow.slot.output)
            .any(|output| output != Output::Agent as u8)
    }

    /// Removes a flow; its next packet comes up.
    pub(super) fn remove_flow(&mut self, id: FlowId, now: u64) {
        self.table.remove(&mut self.datapath, id, now);
        self.decisions.remove(id);
    }

    /// Makes room in a full table for a flow of this ingress port: the idlest go, of its own tenant when that has
    /// its share, else of the one that has most.
    pub(super) fn evict(&mut self, index: u16) {
        let now = self.now_secs();
        for id in self.table.idlest(index) {
            self.remove_flow(id, now);
            self.evicted += 1;
        }
    }

    /// Removes every flow of an ingress port.
    pub(super) fn remove_flows_of_port(&mut self, index: u16) {
        let now = self.now_secs();
        let ids: Vec<FlowId> = self
            .table
            .iter()
            .filter(|flow| flow.port == index)
            .map(|flow| flow.id)
            .collect();
        for id in ids {
            self.remove_flow(id, now);
        }
    }

    /// Removes flows that were idle for too long.
    pub(super) fn sweep_flows(&mut self, now: u64) {
        let gone: Vec<Flow> = self.table.sweep(&mut self.datapath, now);
        for flow in gone {
            self.decisions.remove(flow.id);
        }
    }

    /// Forgets addresses that this host learned and that no flow has used for too long.
    pub(super) fn forget_idle_addresses(&mut self, now: u64) {
        let learned = self
            .published
            .values()
            .filter_map(|entry| Some((entry.clone(), tag_of(entry)?)));
        let mut idle = Vec::new();
        for (entry, tag) in learned {
            let key = entry.key();
            let used = self.learned_used.entry(key.clone()).or_insert(now);
            if self.decisions.uses(&tag) {
                *used = now;
            } else if now.saturating_sub(*used) >= MAC_IDLE_TIMEOUT_SECS {
                idle.push((key, entry));
            }
        }
        for (key, entry) in idle {
            self.learned_used.remove(&key);
            self.withdraw(&key);
            let dirty: BTreeSet<Tag> = self.state.remove(&entry).into_iter().collect();
            self.redecide(&dirty);
        }
    }
}

/// Whether a packet taught it.
pub(super) fn is_learned(entry: &StateEntry) -> bool {
    tag_of(entry).is_some()
}

/// The tag of decisions that used a learned address.
fn tag_of(entry: &StateEntry) -> Option<Tag> {
    match entry {
        StateEntry::Mac {
            bridge,
            mac,
            port: _,
        } => Some(Tag::Mac(*bridge, *mac)),
        StateEntry::Neighbour {
            router_port,
            address,
            mac: _,
        } => Some(Tag::Neighbour(*router_port, *address)),
        StateEntry::PortActivity { .. } | StateEntry::FloodActivity { .. } => None,
    }
}
