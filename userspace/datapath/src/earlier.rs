//! What an earlier agent of this host left in the kernel, for the one that takes over.

use crate::{Buckets, Family};
use std::collections::{BTreeMap, BTreeSet};
use weft_common::flood::FloodList;
use weft_common::limits::SELECT_DEPTH_MAX;
use weft_common::peer::AddressBytes;
use weft_common::{FlowKey, Slot, SlotRef};

/// All of it. Empty where there was no earlier agent.
#[derive(Clone, Debug, Default)]
pub struct Earlier {
    /// Every published flow, in no order.
    pub flows: Vec<EarlierFlow>,
    /// Remote underlay addresses with the index of their underlay record.
    pub remote_hosts: BTreeMap<AddressBytes, u16>,
    /// Own underlay addresses.
    pub own_addresses: BTreeSet<AddressBytes>,
    /// Slots that the flows' choices lead to; other flows may share them.
    pub member_slots: BTreeSet<u32>,
    /// Select groups that the flows choose by.
    pub groups: BTreeSet<u32>,
    /// Flood lists that a flow or a flood set refers to, by index.
    pub flood_lists: BTreeMap<u32, FloodList>,
    /// The earlier agent's maps where they are of another ABI. They go on forwarding, and all of the above is empty.
    pub other_abi: Option<OtherAbi>,
}

/// What is known of maps of another ABI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherAbi {
    /// Its version.
    pub version: u32,
    /// What packets are matched by there, in no order; nothing when it can't be read.
    pub keys: Vec<EarlierKey>,
}

/// What a flow of another ABI matches. Where its packets go isn't read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EarlierKey {
    /// Which table it is in.
    pub family: Family,
    /// The masked key, with its mask's number.
    pub masked: FlowKey,
    /// What is matched.
    pub mask: FlowKey,
}

/// A flow that forwards packets, for reasons that nobody remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EarlierFlow {
    /// Which table it is in.
    pub family: Family,
    /// The masked key, with its mask's number.
    pub masked: FlowKey,
    /// What is matched.
    pub mask: FlowKey,
    /// Where its packets go.
    pub target: SlotRef,
    /// What is done with them; generation 0.
    pub slot: Slot,
}

impl EarlierFlow {
    /// Whether a packet that finds this key is one that its mask lets find it.
    pub fn is_sound(&self) -> bool {
        self.target.generation != 0 && agrees(&self.masked, &self.mask)
    }
}

impl EarlierKey {
    /// Whether a packet that finds this key is one that its mask lets find it, in this family.
    pub fn is_sound(&self) -> bool {
        agrees(&self.masked, &self.mask) && Family::of(&self.masked) == self.family
    }
}

/// Whether a published key has no bits but those of its mask.
fn agrees(masked: &FlowKey, mask: &FlowKey) -> bool {
    let mut key = *masked;
    key.head.mask_id = 0;
    key.masked(mask) == key
}

impl Earlier {
    /// Follows the choices of the flows through groups and slots, and notes both.
    pub fn follow_choices(
        &mut self,
        slot: impl Fn(SlotRef) -> Option<Slot>,
        group: impl Fn(u32) -> Option<Buckets>,
    ) {
        let chosen_by = |slot: &Slot| slot.select_group();
        let mut next: BTreeSet<u32> = self
            .flows
            .iter()
            .filter_map(|flow| chosen_by(&flow.slot))
            .collect();
        for _ in 0..=SELECT_DEPTH_MAX {
            let mut further = BTreeSet::new();
            for index in next {
                if !self.groups.insert(index) {
                    continue;
                }
                for target in group(index).into_iter().flatten() {
                    if let Some(slot) = slot(target) {
                        self.member_slots.insert(target.slot);
                        further.extend(chosen_by(&slot));
                    }
                }
            }
            next = further;
        }
    }
}
