//! Taking over from an earlier agent of another ABI: its programs go on with its maps while this agent fills maps of
//! its own beside them, decides what its flows match, and then swaps every attachment.
//!
//! What its packets are matched by is all that is read of its flows. A decision is made for each by a packet that is
//! its masked key, as for a flow that is adopted; where none can be told, the first packet after the swap comes up.
//! Until the swap nobody reads what comes up at the earlier agent's programs: new flows wait, as without an agent.

use super::Engine;
use super::adoption::{ANY_HEADERS, packet_of};
use super::flows::Decision;
use super::misses::Pending;
use std::collections::BTreeSet;
use weft_common::Slot;
use weft_datapath::{Datapath, EarlierKey, Error, OtherAbi};
use weft_vnet::{Entry, NoTrace, Outcome, Packet, PortId, Tag};

/// How far it is.
#[derive(Default)]
pub enum Swap {
    /// There is nothing of another ABI, or nothing any more.
    #[default]
    Done,
    /// Flows are rebuilt.
    Beside(Rebuilding),
    /// All runs by this agent's programs, but what the other ABI's agent left couldn't be put away, for this reason.
    Unfinished(String),
}

/// Flows of another ABI that are rebuilt.
pub struct Rebuilding {
    version: u32,
    left: Vec<EarlierKey>,
    rebuilt: usize,
    left_to_misses: usize,
}

impl Swap {
    /// Whether packets are still forwarded by programs of another ABI.
    pub(super) fn is_beside(&self) -> bool {
        matches!(self, Swap::Beside(_))
    }

    /// For `weft status`.
    pub(super) fn problem(&self) -> Option<String> {
        match self {
            Swap::Done => None,
            Swap::Beside(rebuilding) => Some(format!(
                "rebuilding {} flows of an earlier weftd with ABI {} beside it: new flows wait",
                rebuilding.left.len(),
                rebuilding.version
            )),
            Swap::Unfinished(why) => Some(format!(
                "what an earlier weftd of another ABI left isn't put away: {why}"
            )),
        }
    }
}

impl<D: Datapath> Engine<D> {
    /// Notes what is to be rebuilt.
    pub(super) fn begin_rebuilding(&mut self, other: Option<OtherAbi>) {
        let Some(OtherAbi { version, keys }) = other else {
            return;
        };
        tracing::info!(
            flows = keys.len(),
            abi = version,
            "rebuilding the flows of an earlier weftd with another ABI beside it"
        );
        self.swap = Swap::Beside(Rebuilding {
            version,
            left: keys,
            rebuilt: 0,
            left_to_misses: 0,
        });
    }

    /// Decides on what the next flow matches; false when all have been decided on.
    pub(super) fn rebuild_next_flow(&mut self) -> bool {
        let Swap::Beside(rebuilding) = &mut self.swap else {
            return false;
        };
        let Some(key) = rebuilding.left.pop() else {
            return false;
        };
        let is_rebuilt = self.rebuild_flow(&key);
        self.adoption.note_rebuilt(is_rebuilt);
        if let Swap::Beside(rebuilding) = &mut self.swap {
            match is_rebuilt {
                true => rebuilding.rebuilt += 1,
                false => rebuilding.left_to_misses += 1,
            }
        }
        true
    }

    /// Makes a flow with the earlier one's match. False when its packets don't share one decision any more.
    fn rebuild_flow(&mut self, earlier: &EarlierKey) -> bool {
        let key = packet_of(&earlier.masked);
        let Some(port) = self.ports.by_index(key.head.port) else {
            return false;
        };
        let packet = Packet {
            entry: Entry::Workload(port),
            frame: &[],
            key,
            headers: ANY_HEADERS,
        };
        let outcome = self.decide(&packet, &mut NoTrace);
        let fits = earlier.mask.masked(&outcome.mask) == outcome.mask;
        let is_flow = outcome.install && outcome.writes.is_empty() && fits;
        if !is_flow || self.table.len() >= self.table.flows_max {
            return false;
        }
        let mut decision = Decision::new(&packet, &outcome);
        decision.mask = earlier.mask;
        match self.reserved_slot(&outcome) {
            Ok((target, slot)) => {
                self.expect_members(&outcome);
                let now = self.now_secs();
                let flow = Pending {
                    key,
                    target,
                    slot,
                    decision,
                };
                self.publish_flow(flow, now).is_some()
            }
            Err(error) => {
                tracing::debug!(%error, "a flow is left to its next packet");
                false
            }
        }
    }

    fn reserved_slot(&mut self, outcome: &Outcome) -> Result<(weft_common::SlotRef, Slot), Error> {
        let slot = self.slot_with_groups(outcome)?;
        Ok((self.table.reserve(&mut self.datapath, &slot)?, slot))
    }

    /// From here on packets are forwarded by this agent's programs, at one interface after the other.
    pub(super) fn swap_in(&mut self) {
        let Swap::Beside(rebuilding) = std::mem::take(&mut self.swap) else {
            return;
        };
        self.datapath.start_swap();
        for attached in self.ports.underlay.values_mut() {
            *attached = None;
        }
        self.attach_underlay_interfaces();
        let mut dirty = BTreeSet::new();
        self.attach_ports_again(&mut dirty);
        self.end_swap();
        tracing::info!(
            rebuilt = rebuilding.rebuilt,
            left_to_misses = rebuilding.left_to_misses,
            abi = rebuilding.version,
            "an earlier weftd with another ABI is replaced"
        );
        self.redecide(&dirty);
        self.wake_waiting(&dirty);
    }

    /// A port whose interface isn't what it was goes down, until the next look at the host's network or at what the
    /// kernel refused.
    fn attach_ports_again(&mut self, dirty: &mut BTreeSet<Tag>) {
        let bound = self.ports.bound.iter();
        let ports: Vec<PortId> = bound
            .filter(|(_, bound)| bound.attachment.is_some())
            .map(|(id, _)| *id)
            .collect();
        for id in ports {
            let Some(bound) = self.ports.bound.get(&id) else {
                continue;
            };
            let attached = self.datapath.attach_port(bound.key.index, &bound.interface);
            let problem = match attached {
                Ok(attachment) if Some(attachment) == bound.attachment => continue,
                Ok(_) => "its interface was made anew".to_owned(),
                Err(error) => error.to_string(),
            };
            tracing::error!(problem, port = %id, "a port could not be swapped");
            self.go_down(id, Some(&problem), dirty);
        }
    }

    /// Tries again to put away what the other ABI's agent left.
    pub(super) fn retry_swap(&mut self) {
        if let Swap::Unfinished(_) = self.swap {
            self.end_swap();
        }
    }

    fn end_swap(&mut self) {
        self.swap = match self.datapath.end_swap() {
            Ok(()) => Swap::Done,
            Err(error) => {
                if !matches!(self.swap, Swap::Unfinished(_)) {
                    tracing::error!(%error, "what an earlier weftd of another ABI left isn't put away");
                }
                Swap::Unfinished(error.to_string())
            }
        };
    }
}
