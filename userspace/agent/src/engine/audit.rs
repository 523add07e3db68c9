//! The background audit: installed flows are decided again, and the kernel's maps compared with what the agent
//! believes to be there, a few flows a second. What differs is counted, logged and mended.
//!
//! There should be nothing to find: a difference is a mistake of ours, or somebody else's hand in the maps.

use super::Engine;
use super::flows::Again;
use std::collections::HashSet;
use weft_api::AuditStatus;
use weft_common::{FlowKey, Slot};
use weft_datapath::{Datapath, Error, Family, FlowId};

/// Flows compared each second.
const FLOWS_PER_TICK: usize = 1000;
/// Seconds from the start of a round to that of the next, at least.
const ROUND_SECS_MIN: u64 = 10;

/// Where the audit is, and what it found.
#[derive(Default)]
pub struct Audit {
    /// Flows of this round that weren't compared yet.
    left: Vec<FlowId>,
    is_running: bool,
    started_at_secs: u64,
    rounds: u64,
    /// Found in the last whole round, and in this one.
    last: u64,
    found: u64,
    repaired: u64,
}

impl Audit {
    /// For `weft status`.
    pub fn report(&self) -> AuditStatus {
        AuditStatus {
            rounds: self.rounds,
            drift: self.last + self.found,
            repaired: self.repaired,
        }
    }
}

impl<D: Datapath> Engine<D> {
    /// The next step, once a second.
    pub(super) fn audit(&mut self, now: u64) {
        if !self.is_ready {
            return;
        }
        if !self.audit.is_running {
            if now.saturating_sub(self.audit.started_at_secs) < ROUND_SECS_MIN {
                return;
            }
            self.begin_round(now);
        }
        for _ in 0..FLOWS_PER_TICK {
            let Some(id) = self.audit.left.pop() else {
                break;
            };
            self.audit_flow(id, now);
        }
        if self.audit.left.is_empty() {
            self.audit.is_running = false;
            self.audit.rounds += 1;
            self.audit.last = std::mem::take(&mut self.audit.found);
        }
    }

    fn begin_round(&mut self, now: u64) {
        self.audit.left = self.table.iter().map(|flow| flow.id).collect();
        self.audit.started_at_secs = now;
        self.audit.is_running = true;
        if let Err(error) = self.audit_maps() {
            tracing::warn!(%error, "the kernel's maps can't be compared");
        }
    }

    /// What belongs to no single flow: keys of nobody, masks, ports' sets of masks.
    fn audit_maps(&mut self) -> Result<(), Error> {
        let known: HashSet<(Family, FlowKey)> = self
            .table
            .iter()
            .map(|flow| (flow.family, flow.masked))
            .collect();
        for (family, key) in self.datapath.published_keys()? {
            if !known.contains(&(family, key)) {
                self.differs("a published key belongs to no flow");
                self.datapath.withdraw(family, &key)?;
            }
        }
        for (family, number, bits, _) in self.table.masks_in_use() {
            if self.datapath.read_mask(family, number)? != bits {
                self.differs("a mask has other bits");
                self.datapath.write_mask(family, number, &bits)?;
            }
        }
        let indices: Vec<u16> = self.ports.bound.values().map(|it| it.key.index).collect();
        for index in indices {
            let mut record = self.datapath.read_port(index)?;
            let (masks_v4, masks_v6) = self.table.mask_sets(index);
            let is_live = record.ifindex != 0;
            if is_live && (record.masks_v4, record.masks_v6) != (masks_v4, masks_v6) {
                self.differs("a port has another set of masks");
                (record.masks_v4, record.masks_v6) = (masks_v4, masks_v6);
                self.datapath.write_port(index, &record)?;
            }
        }
        Ok(())
    }

    fn audit_flow(&mut self, id: FlowId, now: u64) {
        let Some(flow) = self.table.get(id) else {
            return;
        };
        let (family, masked, target, slot) = (flow.family, flow.masked, flow.target, flow.slot);
        let published = self.datapath.published(family, &masked);
        let held = self.datapath.read_slot(target.slot);
        let expected = Slot {
            generation: target.generation,
            ..slot
        };
        let is_whole = matches!(published, Ok(Some(found)) if found == target);
        if !is_whole || held != Some(expected) {
            self.differs("a flow isn't in the kernel as it was put there");
            self.put_back(id, slot, now);
        }
        let Some(decision) = self.decisions.get(id).cloned() else {
            return;
        };
        if self.decide_flow(id, &decision) != Again::Same {
            self.differs("a flow was no longer what would be decided");
        }
    }

    /// A flow gets a new slot with the same decision; one that can't goes, and its next packet comes up.
    fn put_back(&mut self, id: FlowId, slot: Slot, now: u64) {
        let put = self
            .table
            .reserve(&mut self.datapath, &slot)
            .and_then(|target| {
                self.table
                    .replace(&mut self.datapath, id, target, &slot, now)
            });
        if let Err(error) = put {
            tracing::warn!(%error, "a flow can't be mended and is removed");
            self.remove_flow(id, now);
        }
    }

    fn differs(&mut self, what: &str) {
        tracing::error!(what, "drift: found and mended");
        self.audit.found += 1;
        self.audit.repaired += 1;
    }
}
