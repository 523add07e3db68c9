//! Reading what an earlier agent left in the maps.
//!
//! Nobody else writes them: the earlier agent is gone, and the folder of pins is locked.

use crate::kernel::dump::{self, Entry};
use crate::kernel::maps::Maps;
use crate::{Earlier, EarlierFlow, Error, Family};
use aya::maps::{IterableMap, MapData};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::os::fd::AsFd;
use weft_common::flood::FloodList;
use weft_common::limits::{FLOOD_LISTS_MAX, MASKS_MAX, PORTS_MAX};
use weft_common::port::PortKind;
use weft_common::slot::Output;
use weft_common::{FlowKey, FlowKeyV4, Slot, SlotRef};
use zerocopy::{FromBytes, IntoBytes};

/// A published key and where it leads.
pub type Published = (Family, FlowKey, SlotRef);

impl Maps {
    /// See [`crate::Datapath::take_over`].
    pub fn take_over(&mut self) -> Result<Earlier, Error> {
        let masks_v4 = self.masks(Family::V4)?;
        let masks_v6 = self.masks(Family::V6)?;
        let published = self.published_flows()?;
        let mut flows = Vec::with_capacity(published.len());
        let mut kept = HashSet::new();
        for (family, masked, target) in published {
            let masks = match family {
                Family::V4 => &masks_v4,
                Family::V6 => &masks_v6,
            };
            let mask = masks.get(usize::from(masked.head.mask_id));
            let slot = self.slots.read(target.slot);
            let slot = slot.filter(|slot| slot.generation == target.generation);
            if slot.is_some() {
                kept.insert(target.slot);
            }
            // What is missing makes the flow unsound, so that it is withdrawn.
            flows.push(EarlierFlow {
                family,
                masked,
                mask: mask.copied().unwrap_or_default(),
                target: slot.map_or_else(SlotRef::default, |_| target),
                slot: Slot {
                    generation: 0,
                    ..slot.unwrap_or_default()
                },
            });
        }
        let remote_hosts = self.remote_hosts.iter().flatten();
        let remote_hosts = remote_hosts.map(|(address, index)| (address, index as u16));
        let mut earlier = Earlier {
            remote_hosts: remote_hosts.collect(),
            own_addresses: self.own_addresses.keys().flatten().collect(),
            flows,
            ..Earlier::default()
        };
        let slot = |target: SlotRef| {
            let slot = self.slots.read(target.slot)?;
            (slot.generation == target.generation && slot.generation != 0).then_some(slot)
        };
        earlier.follow_choices(slot, |group| self.slots.read_group(group));
        kept.extend(&earlier.member_slots);
        self.slots.keep(&kept);
        earlier.flood_lists = self.flood_lists_of(&earlier.flows, &earlier.member_slots)?;
        Ok(earlier)
    }

    /// The highest generation that a slot has, or that anything says of one.
    pub fn generation_max(&self) -> u32 {
        let published = self.published_flows().unwrap_or_default();
        let published = published.iter().map(|(_, _, target)| target.generation);
        published.fold(self.slots.generation_max(), u32::max)
    }

    /// Every published key with its target.
    pub fn published_flows(&self) -> Result<Vec<Published>, Error> {
        let v4 = hash(
            self.megaflows_v4.map(),
            "megaflows_v4",
            size_of::<FlowKeyV4>(),
        )?;
        let v6 = hash(
            self.megaflows_v6.map(),
            "megaflows_v6",
            size_of::<FlowKey>(),
        )?;
        let v4 = v4.iter().map(|entry| (Family::V4, entry));
        let v6 = v6.iter().map(|entry| (Family::V6, entry));
        let flows = v4.chain(v6).filter_map(|(family, (key, target))| {
            Some((family, key_of(key), SlotRef::read_from_bytes(target).ok()?))
        });
        Ok(flows.collect())
    }

    /// All masks of a family, by number.
    pub fn masks(&self, family: Family) -> Result<Vec<FlowKey>, Error> {
        let read = |number| match family {
            Family::V4 => {
                let mask = self.masks_v4.get(&number, 0);
                mask.map(|bytes| key_of(&bytes))
                    .map_err(|error| Error::map("masks_v4", &error))
            }
            Family::V6 => {
                let mask = self.masks_v6.get(&number, 0);
                mask.map(|bytes| key_of(&bytes))
                    .map_err(|error| Error::map("masks_v6", &error))
            }
        };
        (0..MASKS_MAX).map(read).collect()
    }

    fn flood_lists_of(
        &self,
        flows: &[EarlierFlow],
        members: &BTreeSet<u32>,
    ) -> Result<BTreeMap<u32, FloodList>, Error> {
        let members = members.iter().filter_map(|slot| self.slots.read(*slot));
        let mut indices: BTreeSet<u32> = flows
            .iter()
            .map(|flow| flow.slot)
            .chain(members)
            .filter(|slot| slot.output == Output::Flood as u8)
            .map(|slot| slot.flood_list)
            .collect();
        for index in 1..PORTS_MAX as u16 {
            let record = self.read_port(index)?;
            if record.kind == PortKind::FloodSet as u8 {
                indices.insert(record.flood_list);
            }
        }
        let mut lists = BTreeMap::new();
        for index in indices.into_iter().filter(|it| *it < FLOOD_LISTS_MAX) {
            let list = self.flood_lists.get(&index, 0);
            let list = list.map_err(|error| Error::map("flood_lists", &error))?;
            lists.extend(list.value().map(|list| (index, list)));
        }
        Ok(lists)
    }
}

fn hash(map: &MapData, name: &'static str, key_size: usize) -> Result<Vec<Entry>, Error> {
    dump::entries(map.fd().as_fd(), name, key_size, size_of::<SlotRef>())
}

/// The key in the first bytes of one, as either family stores it.
pub(super) fn key_of(bytes: &[u8]) -> FlowKey {
    let mut key = FlowKey::default();
    for (place, byte) in key.as_mut_bytes().iter_mut().zip(bytes) {
        *place = *byte;
    }
    key
}
