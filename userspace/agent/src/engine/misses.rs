//! A packet came up without a flow: decide, send it on, install.
//!
//! The order of DESIGN 1.7: the slot is written, the held packets go through it, and only then is the flow
//! published. A batch is one read of the buffers: packets of one flow in it stay in order, and what came up
//! meanwhile is in the next batch and finds the flow in the table.

use super::Engine;
use super::flows::Decision;
use super::waiting::{Held, awaited};
use std::collections::{BTreeSet, HashMap};
use weft_common::event::MissReason;
use weft_common::slot::Output;
use weft_common::{DropReason, FlowKey, Slot, SlotRef};
use weft_datapath::{Datapath, FlowId, HeldPacket, Miss};
use weft_vnet::policy::Hook;
use weft_vnet::{Emission, Entry, NoTrace, Origin, Outcome, Packet, PortId, StateEntry, Verdict};

/// Packets that the network makes because of packets that it made: an answer to an answer is as far as it goes.
const EMISSION_DEPTH_MAX: usize = 4;
/// Slots for packets without a flow that are kept for the next such packet.
const MADE_SLOTS_MAX: usize = 4096;
/// Seconds for which such a slot is kept.
const MADE_SLOT_IDLE_SECS: u64 = 10;

/// Slots of packets that have no flow: answers, and packets that the network makes. Shared by their content.
#[derive(Default)]
pub struct MadeSlots {
    slots: HashMap<Slot, (SlotRef, u64)>,
}

/// A flow whose packets have been sent on, to be published when the batch is done.
pub(super) struct Pending {
    pub(super) key: FlowKey,
    pub(super) target: SlotRef,
    pub(super) slot: Slot,
    pub(super) decision: Decision,
}

/// The hook whose chains rejected a packet that came up for this reason.
fn rejecting_hook(reason: u8) -> Option<Hook> {
    if reason == MissReason::Reject as u8 {
        Some(Hook::Ingress)
    } else if reason == MissReason::RejectEgress as u8 {
        Some(Hook::Egress)
    } else {
        None
    }
}

impl<D: Datapath> Engine<D> {
    /// Decides a batch of misses, in order, and publishes their flows.
    pub fn handle_misses(&mut self, misses: Vec<Miss>) {
        self.learned_in_batch.clear();
        let mut pending = Vec::new();
        for miss in misses {
            if miss.reason == MissReason::Probe as u8 {
                self.take_probe(&miss);
                continue;
            }
            self.misses += 1;
            self.handle_miss(miss, &mut pending);
        }
        let now = self.now_secs();
        for flow in pending {
            // A later packet of the batch may have taught what this decision depends on.
            let is_old = !flow.decision.tags.is_disjoint(&self.learned_in_batch);
            if let Some(id) = self.publish_flow(flow, now).filter(|_| is_old) {
                self.redecide_flow(id);
            }
        }
    }

    /// Counts a miss that found no room before this agent: its port has more than can be decided on.
    pub fn refuse_miss(&mut self, index: u16, generation: u8) {
        self.misses += 1;
        let port = self.ports.by_key(index, generation);
        self.count_drop(port, DropReason::MissQueueFull);
    }

    fn handle_miss(&mut self, miss: Miss, pending: &mut Vec<Pending>) {
        if !self.is_ready {
            return self.count_drop(None, DropReason::NoTopology);
        }
        let Some(port) = self.ports.by_key(miss.port, miss.generation) else {
            return self.count_drop(None, DropReason::PortDown);
        };
        let Miss {
            reason,
            packet: held,
            port: index,
            ..
        } = miss;
        let entry = Entry::Workload(port);
        let packet = match Packet::parse(entry, index, &held.frame, held.vlan_tci) {
            Ok(packet) => packet.after(&held.fragment),
            Err(reason) => return self.count_drop(Some(port), reason),
        };
        if let Some(hook) = rejecting_hook(reason) {
            return self.reject(port, &packet, hook);
        }
        let is_flow_miss = reason == MissReason::NoFlow as u8;
        if is_flow_miss && let Some(target) = self.target_of(&packet, pending) {
            return self.inject(target, index, &held, Some(port));
        }
        let outcome = self.decide(&packet, &mut NoTrace);
        let decision = Decision::new(&packet, &outcome);
        let key = packet.key;
        self.learn(&outcome.writes);
        // Of a choice, what happens to this very packet.
        let own = outcome.taken(&key);
        if let Some(next_hop) = awaited(own) {
            return self.wait(
                next_hop,
                Held {
                    entry,
                    index,
                    packet: held,
                },
            );
        }
        if let Verdict::Refuse { reason, .. } = own.verdict {
            self.refuse(entry, reason, &outcome.emit);
            if is_flow_miss && outcome.install && own.install {
                self.keep(key, &outcome, decision, pending);
            }
            return;
        }
        self.emit_all(&outcome.emit, 0);
        if let Some(mtu) = self.exceeded_mtu(own, &held) {
            return self.send_too_big(entry, own, index, &held, mtu);
        }
        match own.verdict {
            Verdict::Answered => {}
            _ if is_flow_miss && outcome.install && own.install => {
                self.send_and_keep(key, &outcome, decision, &held, pending);
            }
            _ => self.send_once(own, index, &held, Some(port)),
        }
    }

    /// The slot of a flow that came to be after this packet went up; none when its guard would refuse the packet or
    /// it hands each packet up: then the packet has its own outcome.
    fn target_of(&self, packet: &Packet<'_>, pending: &[Pending]) -> Option<SlotRef> {
        let key = &packet.key;
        let waiting = pending
            .iter()
            .find(|flow| flow.key.matches(&flow.decision.mask, key));
        let (target, slot) = match waiting {
            Some(flow) => (flow.target, &flow.slot),
            None => self.table.find(key).map(|flow| (flow.target, &flow.slot))?,
        };
        let slot = self.table.chosen(slot, key)?;
        let is_ended = slot.ttl_decrement != 0 && packet.headers.ttl <= slot.ttl_decrement;
        let is_for_agent = slot.output == Output::Agent as u8;
        (!is_ended && !is_for_agent).then_some(target)
    }

    fn send_and_keep(
        &mut self,
        key: FlowKey,
        outcome: &Outcome,
        decision: Decision,
        held: &HeldPacket,
        pending: &mut Vec<Pending>,
    ) {
        let port = self.ports.by_index(key.head.port);
        if self.table.len() + pending.len() >= self.table.flows_max {
            self.evict(key.head.port);
        }
        let slot = match self.slot_with_groups(outcome) {
            Ok(slot) => slot,
            Err(error) => {
                self.install_problem = Some(error.to_string());
                return self.send_once(outcome.taken(&key), key.head.port, held, port);
            }
        };
        match self.table.reserve(&mut self.datapath, &slot) {
            Ok(target) => {
                self.expect_members(outcome);
                self.inject(target, key.head.port, held, port);
                pending.push(Pending {
                    key,
                    target,
                    slot,
                    decision,
                });
            }
            // Slots that were given up rest for a while. The packet goes all the same, its kind comes up again.
            Err(error) => {
                self.install_problem = Some(error.to_string());
                self.send_once(outcome, key.head.port, held, port);
            }
        }
    }

    /// A flow that hands each of its packets to the agent: this one has had its answer.
    fn keep(
        &mut self,
        key: FlowKey,
        outcome: &Outcome,
        decision: Decision,
        pending: &mut Vec<Pending>,
    ) {
        let is_pending = pending
            .iter()
            .any(|flow| flow.key.matches(&flow.decision.mask, &key));
        if is_pending || self.table.find(&key).is_some() {
            return;
        }
        if self.table.len() + pending.len() >= self.table.flows_max {
            self.evict(key.head.port);
        }
        let made = self.slot_with_groups(outcome).and_then(|slot| {
            let target = self.table.reserve(&mut self.datapath, &slot)?;
            Ok((target, slot))
        });
        match made {
            Ok((target, slot)) => {
                self.expect_members(outcome);
                pending.push(Pending {
                    key,
                    target,
                    slot,
                    decision,
                });
            }
            // The packet has had all that it gets: the next one tries again.
            Err(error) => self.install_problem = Some(error.to_string()),
        }
    }

    pub(super) fn publish_flow(&mut self, flow: Pending, now: u64) -> Option<FlowId> {
        let Pending {
            key,
            target,
            slot,
            decision,
        } = flow;
        let mask = decision.mask;
        match self
            .table
            .install(&mut self.datapath, &key, &mask, target, &slot, now)
        {
            Ok(id) => {
                self.decisions.insert(id, decision);
                self.install_problem = None;
                Some(id)
            }
            Err(error) => {
                // The packet is on its way, and the next one of its kind comes up again: nothing is dropped.
                tracing::debug!(%error, "a flow was not installed");
                self.table.retire(&mut self.datapath, target, now);
                self.install_problem = Some(error.to_string());
                None
            }
        }
    }

    /// Sends one packet the way of a decision that is for this packet only.
    pub fn send_once(
        &mut self,
        outcome: &Outcome,
        index: u16,
        held: &HeldPacket,
        port: Option<PortId>,
    ) {
        let slot = self.slot_for(outcome);
        if let Some(target) = self.made_slot(slot, port) {
            self.inject(target, index, held, port);
        }
    }

    /// Sends packets that the network makes.
    pub fn emit_all(&mut self, emissions: &[Emission], depth: usize) {
        for emission in emissions {
            self.emit(emission, depth);
        }
    }

    fn emit(&mut self, emission: &Emission, depth: usize) {
        let held = HeldPacket::made(emission.frame.clone());
        let entry = match emission.origin {
            Origin::ToPort(port) => {
                return self.send_once(&delivery(port), 0, &held, Some(port));
            }
            Origin::Workload(port) => Entry::Workload(port),
            Origin::Device(port) => Entry::Device(port),
            Origin::Router(router) => Entry::Router(router),
        };
        let port = entry.port();
        if depth >= EMISSION_DEPTH_MAX {
            return self.count_drop(port, DropReason::TooManyDevices);
        }
        let packet = match Packet::parse(entry, 0, &emission.frame, None) {
            Ok(packet) => packet,
            Err(reason) => return self.count_drop(port, reason),
        };
        let outcome = self.decide(&packet, &mut NoTrace);
        self.learn(&outcome.writes);
        let own = outcome.taken(&packet.key);
        if let Some(next_hop) = awaited(own) {
            let index = 0;
            return self.wait(
                next_hop,
                Held {
                    entry,
                    index,
                    packet: held,
                },
            );
        }
        self.emit_all(&outcome.emit, depth + 1);
        if let Some(mtu) = self.exceeded_mtu(own, &held) {
            // An error is larger than a narrow way, too.
            return self.send_too_big(entry, own, 0, &held, mtu);
        }
        if own.verdict != Verdict::Answered {
            self.send_once(own, 0, &held, port);
        }
    }

    /// Notes what a packet taught, here and for the other hosts.
    pub fn learn(&mut self, writes: &[StateEntry]) {
        for entry in writes {
            let tag = self.state.apply(entry);
            self.learned_used.insert(entry.key(), self.now_secs());
            self.publish(entry.clone());
            if let Some(tag) = tag {
                self.learned_in_batch.insert(tag);
                let dirty = [tag].into();
                self.redecide(&dirty);
                self.wake_waiting(&dirty);
            }
        }
    }

    pub(super) fn inject(
        &mut self,
        target: SlotRef,
        index: u16,
        held: &HeldPacket,
        port: Option<PortId>,
    ) {
        if let Err(error) = self.datapath.inject(target, index, held) {
            tracing::warn!(%error, "a held packet could not be sent on");
            self.count_drop(port, DropReason::OutputFailed);
        }
    }

    /// A slot for packets without a flow; the same one while packets ask for it.
    pub(super) fn made_slot(&mut self, slot: Slot, port: Option<PortId>) -> Option<SlotRef> {
        let now = self.now_secs();
        if let Some((target, used)) = self.made_slots.slots.get_mut(&slot) {
            *used = now;
            return Some(*target);
        }
        if self.made_slots.slots.len() >= MADE_SLOTS_MAX {
            self.count_drop(port, DropReason::FlowTableFull);
            return None;
        }
        match self.table.reserve(&mut self.datapath, &slot) {
            Ok(target) => {
                self.made_slots.slots.insert(slot, (target, now));
                Some(target)
            }
            Err(error) => {
                tracing::warn!(%error, "no slot for a packet");
                self.count_drop(port, DropReason::FlowTableFull);
                None
            }
        }
    }

    /// Gives up the slots of packets without a flow that no packet asked for lately.
    pub(super) fn retire_made_slots(&mut self, now: u64) {
        let (table, datapath) = (&mut self.table, &mut self.datapath);
        self.made_slots.slots.retain(|_, (target, used)| {
            let is_kept = now.saturating_sub(*used) < MADE_SLOT_IDLE_SECS;
            if !is_kept {
                table.retire(datapath, *target, now);
            }
            is_kept
        });
    }
}

/// The decision to hand a packet to a port as it is.
fn delivery(port: PortId) -> Outcome {
    Outcome {
        verdict: Verdict::Deliver(port),
        mask: FlowKey::default(),
        macs: None,
        ttl_decrement: 0,
        tags: BTreeSet::new(),
        writes: Vec::new(),
        emit: Vec::new(),
        install: false,
    }
}
