//! The books of the flow table: which masked key goes to which slot, when a flow was last used, and when a
//! slot may be used again. The order of writes is what keeps readers right: slot, then mask, then key, then the
//! port's set of masks; and the reverse when a flow goes.

mod groups;

pub use groups::Member;

use crate::masks::{Chosen, Masks, Owner};
use crate::{Datapath, Earlier, Error, Family, SlotUse};
use groups::Groups;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use weft_common::limits::{FLOW_IDLE_TIMEOUT_SECS, MEGAFLOWS_V4_MAX, SLOT_GRACE_SECS, SLOTS_MAX};
use weft_common::{FlowKey, Slot, SlotRef};

/// One of so many flows of a full table is given up at once.
const EVICTED_PER_BATCH_SHARE: usize = 128;

/// Names a flow for as long as the agent runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowId(pub u64);

/// An installed flow.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Its name.
    pub id: FlowId,
    /// Which table it is in.
    pub family: Family,
    /// Index of the ingress port.
    pub port: u16,
    /// Whose that port was when the flow was made.
    pub owner: Owner,
    /// The masked key with its mask's number.
    pub masked: FlowKey,
    /// What is matched.
    pub mask: FlowKey,
    /// Where its packets go.
    pub target: SlotRef,
    /// What is done with them.
    pub slot: Slot,
    /// Packets and bytes of slots it had before.
    carried: SlotUse,
    /// `last_used` of the slot at the last sweep.
    seen: u64,
    /// Second of the last use that a sweep saw, or of the installation.
    pub used_at_secs: u64,
}

/// All flows of this host.
#[derive(Debug)]
pub struct FlowTable {
    flows: HashMap<FlowId, Flow>,
    by_key: HashMap<(Family, FlowKey), FlowId>,
    masks_v4: Masks,
    masks_v6: Masks,
    unused: VecDeque<u32>,
    next_unused: u32,
    retired: VecDeque<(u64, u32)>,
    groups: Groups,
    /// Whose each ingress port is.
    owners: HashMap<u16, Owner>,
    /// Flows by owner.
    owned: HashMap<Owner, usize>,
    /// Slots of an earlier agent that its flows' choices lead to.
    earlier_members: BTreeSet<u32>,
    generation: u32,
    next_id: u64,
    /// Seconds without a packet after which a flow goes.
    pub idle_timeout_secs: u64,
    /// Bound of the number of flows, at most the tables' sizes.
    pub flows_max: usize,
}

impl FlowTable {
    /// An empty table. `generation` must be above all that readers may still hold references to.
    pub fn new(generation: u32) -> FlowTable {
        FlowTable {
            flows: HashMap::new(),
            by_key: HashMap::new(),
            masks_v4: Masks::default(),
            masks_v6: Masks::default(),
            unused: VecDeque::new(),
            next_unused: 1,
            retired: VecDeque::new(),
            groups: Groups::default(),
            owners: HashMap::new(),
            owned: HashMap::new(),
            earlier_members: BTreeSet::new(),
            generation,
            next_id: 1,
            idle_timeout_secs: FLOW_IDLE_TIMEOUT_SECS,
            flows_max: MEGAFLOWS_V4_MAX as usize,
        }
    }

    /// Takes over the flows of an earlier agent as they are: they keep their slots, and nothing else gets those.
    /// One that can't be is withdrawn. Only for a table that is empty, and has given out no slot. Returns the
    /// flows, to be decided again, and how many were withdrawn. What their choices lead to stays until
    /// [`FlowTable::end_adoption`].
    pub fn adopt(
        &mut self,
        datapath: &mut impl Datapath,
        earlier: &Earlier,
        now_secs: u64,
    ) -> (Vec<FlowId>, usize) {
        let mut taken: HashSet<u32> = earlier.member_slots.iter().copied().collect();
        self.earlier_members.clone_from(&earlier.member_slots);
        self.groups.keep(&earlier.groups);
        let mut adopted = Vec::with_capacity(earlier.flows.len());
        let mut withdrawn = 0;
        for flow in &earlier.flows {
            let port = flow.masked.head.port;
            let owner = self.owner_of(port);
            let number = u32::from(flow.masked.head.mask_id);
            let is_whole = (1..SLOTS_MAX).contains(&flow.target.slot)
                && flow.is_sound()
                && !taken.contains(&flow.target.slot)
                && self
                    .masks_mut(flow.family)
                    .adopt(port, owner, number, &flow.mask);
            if !is_whole {
                withdrawn += 1;
                if let Err(error) = datapath.withdraw(flow.family, &flow.masked) {
                    tracing::error!(%error, "a damaged flow of an earlier weftd stays");
                    taken.insert(flow.target.slot);
                }
                continue;
            }
            taken.insert(flow.target.slot);
            let id = self.next_id();
            self.by_key.insert((flow.family, flow.masked), id);
            *self.owned.entry(owner).or_default() += 1;
            let flow = Flow {
                id,
                family: flow.family,
                port,
                owner,
                masked: flow.masked,
                mask: flow.mask,
                target: flow.target,
                slot: flow.slot,
                carried: SlotUse::default(),
                seen: datapath.slot_use(flow.target.slot).last_used,
                used_at_secs: now_secs,
            };
            self.flows.insert(id, flow);
            adopted.push(id);
        }
        self.next_unused = taken.iter().max().map_or(1, |highest| highest + 1);
        self.unused = (1..self.next_unused)
            .filter(|slot| !taken.contains(slot))
            .collect();
        (adopted, withdrawn)
    }

    /// All adopted flows have been decided on: what their choices led to is let go.
    pub fn end_adoption(&mut self, datapath: &mut impl Datapath, now_secs: u64) {
        for slot in std::mem::take(&mut self.earlier_members) {
            datapath.retire_slot(slot);
            self.retired.push_back((now_secs, slot));
        }
        self.groups.let_go();
    }

    /// Writes a slot that nothing refers to yet. One that names a group keeps the group until it is retired.
    ///
    /// # Errors
    /// [`Error::Full`] when every slot is in use.
    pub fn reserve(&mut self, datapath: &mut impl Datapath, slot: &Slot) -> Result<SlotRef, Error> {
        let index = match self.unused.pop_front() {
            Some(index) => index,
            None if self.next_unused < SLOTS_MAX => {
                self.next_unused += 1;
                self.next_unused - 1
            }
            None => {
                return Err(Error::Full {
                    what: "slots",
                    limit: u64::from(SLOTS_MAX),
                });
            }
        };
        self.generation = self.generation.wrapping_add(1).max(1);
        let target = SlotRef {
            slot: index,
            generation: self.generation,
        };
        datapath.clear_slot_use(index);
        let written = datapath.write_slot(
            index,
            &Slot {
                generation: self.generation,
                ..*slot
            },
        );
        if let Err(error) = written {
            self.unused.push_back(index);
            return Err(error);
        }
        if let Some(group) = slot.select_group() {
            self.groups.hold(index, group);
        }
        Ok(target)
    }

    /// Gives a slot back, for use after the grace period. Its readers find another generation from now on.
    pub fn retire(&mut self, datapath: &mut impl Datapath, target: SlotRef, now_secs: u64) {
        datapath.retire_slot(target.slot);
        self.groups.release(target.slot, now_secs);
        self.retired.push_back((now_secs, target.slot));
    }

    /// Publishes `key` under `mask` with a reserved slot; the same masked key gets the new slot instead of its old.
    ///
    /// # Errors
    /// [`Error::Full`] when there is no room for a flow; the slot stays reserved.
    pub fn install(
        &mut self,
        datapath: &mut impl Datapath,
        key: &FlowKey,
        mask: &FlowKey,
        target: SlotRef,
        slot: &Slot,
        now_secs: u64,
    ) -> Result<FlowId, Error> {
        let family = Family::of(key);
        let port = key.head.port;
        let owner = self.owner_of(port);
        let chosen = self.masks(family).choose(mask, owner);
        let masked = masked(key, &chosen);
        if let Some(&id) = self.by_key.get(&(family, masked)) {
            self.replace(datapath, id, target, slot, now_secs)?;
            return Ok(id);
        }
        if self.flows.len() >= self.flows_max {
            return Err(Error::Full {
                what: "flows",
                limit: self.flows_max as u64,
            });
        }
        if chosen.is_new {
            datapath.write_mask(family, chosen.number, &chosen.bits)?;
        }
        datapath.publish(family, &masked, target)?;
        if let Some(set) = self.masks_mut(family).add(port, owner, &chosen) {
            write_set(datapath, family, port, set)?;
        }
        let id = self.next_id();
        let flow = Flow {
            id,
            family,
            port,
            owner,
            masked,
            mask: chosen.bits,
            target,
            slot: *slot,
            carried: SlotUse::default(),
            seen: 0,
            used_at_secs: now_secs,
        };
        self.by_key.insert((family, masked), id);
        self.flows.insert(id, flow);
        *self.owned.entry(owner).or_default() += 1;
        Ok(id)
    }

    /// Gives a flow another slot: one 8-byte write; the old slot is retired.
    pub fn replace(
        &mut self,
        datapath: &mut impl Datapath,
        id: FlowId,
        target: SlotRef,
        slot: &Slot,
        now_secs: u64,
    ) -> Result<(), Error> {
        let Some(flow) = self.flows.get_mut(&id) else {
            return Ok(());
        };
        datapath.publish(flow.family, &flow.masked, target)?;
        let used = datapath.slot_use(flow.target.slot);
        flow.carried.packets += used.packets;
        flow.carried.bytes += used.bytes;
        let old = std::mem::replace(&mut flow.target, target);
        flow.slot = *slot;
        flow.used_at_secs = now_secs;
        self.retire(datapath, old, now_secs);
        Ok(())
    }

    /// Removes a flow; its next packet is a miss. Returns what it was.
    pub fn remove(
        &mut self,
        datapath: &mut impl Datapath,
        id: FlowId,
        now_secs: u64,
    ) -> Option<Flow> {
        let flow = self.flows.remove(&id)?;
        self.by_key.remove(&(flow.family, flow.masked));
        self.count_out(flow.owner);
        if let Err(error) = datapath.withdraw(flow.family, &flow.masked) {
            tracing::error!(%error, flow = flow.id.0, "a flow could not be withdrawn");
        }
        let number = u32::from(flow.masked.head.mask_id);
        if let Some(set) = self
            .masks_mut(flow.family)
            .remove(flow.port, flow.owner, number)
            && let Err(error) = write_set(datapath, flow.family, flow.port, set)
        {
            tracing::error!(%error, port = flow.port, "a port's set of masks could not be written");
        }
        self.retire(datapath, flow.target, now_secs);
        Some(flow)
    }

    /// Notes which flows were used, removes those that weren't for too long, and frees slots after their grace.
    pub fn sweep(&mut self, datapath: &mut impl Datapath, now_secs: u64) -> Vec<Flow> {
        let mut idle = Vec::new();
        for flow in self.flows.values_mut() {
            let last_used = datapath.slot_use(flow.target.slot).last_used;
            if last_used != flow.seen {
                flow.seen = last_used;
                flow.used_at_secs = now_secs;
            } else if now_secs.saturating_sub(flow.used_at_secs) >= self.idle_timeout_secs {
                idle.push(flow.id);
            }
        }
        self.sweep_groups(datapath, now_secs);
        while let Some(&(since, slot)) = self.retired.front() {
            if now_secs.saturating_sub(since) < SLOT_GRACE_SECS {
                break;
            }
            self.retired.pop_front();
            self.unused.push_back(slot);
        }
        idle.into_iter()
            .filter_map(|id| self.remove(datapath, id, now_secs))
            .collect()
    }

    /// Says whose an ingress port is: quotas are per owner. Flows that were taken over before that was known, of
    /// nobody, become its owner's.
    pub fn set_owner(&mut self, port: u16, owner: Owner) {
        self.owners.insert(port, owner);
        if owner == Owner::default() || self.owned_by(Owner::default()) == 0 {
            return;
        }
        let of_nobody = |flow: &&mut Flow| flow.port == port && flow.owner == Owner::default();
        let mut given: HashMap<(Family, u32), u32> = HashMap::new();
        for flow in self.flows.values_mut().filter(of_nobody) {
            flow.owner = owner;
            let number = u32::from(flow.masked.head.mask_id);
            *given.entry((flow.family, number)).or_default() += 1;
        }
        for ((family, number), flows) in given {
            self.masks_mut(family)
                .give(Owner::default(), owner, number, flows);
            for _ in 0..flows {
                self.count_out(Owner::default());
            }
            *self.owned.entry(owner).or_default() += flows as usize;
        }
    }

    fn count_out(&mut self, owner: Owner) {
        if let Some(owned) = self.owned.get_mut(&owner) {
            *owned -= 1;
            if *owned == 0 {
                self.owned.remove(&owner);
            }
        }
    }

    fn owner_of(&self, port: u16) -> Owner {
        self.owners.get(&port).copied().unwrap_or_default()
    }

    /// Flows of an owner.
    pub fn owned_by(&self, owner: Owner) -> usize {
        self.owned.get(&owner).copied().unwrap_or_default()
    }

    /// The flows to give up, idlest first, so that one of `port` fits: of that port's owner when it has its share
    /// of the limit or more, else of whoever has most. A batch at once, since finding them walks through all.
    pub fn idlest(&self, port: u16) -> Vec<FlowId> {
        let own = self.owner_of(port);
        let count = self.owned_by(own);
        let owners = self.owned.len() + usize::from(count == 0);
        let most = self
            .owned
            .iter()
            .max_by_key(|(owner, flows)| (**flows, **owner));
        let victim = match most {
            Some((&most, _)) if count < self.flows_max / owners.max(1) => most,
            _ => own,
        };
        let mut flows: Vec<(u64, FlowId)> = self
            .flows
            .values()
            .filter(|flow| flow.owner == victim)
            .map(|flow| (flow.used_at_secs, flow.id))
            .collect();
        let batch = (self.flows_max / EVICTED_PER_BATCH_SHARE).clamp(1, flows.len().max(1));
        if batch < flows.len() {
            flows.select_nth_unstable(batch);
            flows.truncate(batch);
        }
        flows.into_iter().map(|(_, id)| id).collect()
    }

    /// The flow that a packet would take.
    pub fn find(&self, key: &FlowKey) -> Option<&Flow> {
        let family = Family::of(key);
        self.masks(family).iter().find_map(|(number, bits, _)| {
            let chosen = Chosen {
                number,
                bits: *bits,
                is_new: false,
            };
            let id = self.by_key.get(&(family, masked(key, &chosen)))?;
            self.flows.get(id)
        })
    }

    /// A flow by its name.
    pub fn get(&self, id: FlowId) -> Option<&Flow> {
        self.flows.get(&id)
    }

    /// Every flow.
    pub fn iter(&self) -> impl Iterator<Item = &Flow> {
        self.flows.values()
    }

    /// Number of flows.
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// Whether there is no flow.
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// Masks in use by family: number, bits and flows.
    pub fn masks_in_use(&self) -> Vec<(Family, u32, FlowKey, u32)> {
        let of = |family| {
            self.masks(family)
                .iter()
                .map(move |(number, bits, flows)| (family, number, *bits, flows))
        };
        of(Family::V4).chain(of(Family::V6)).collect()
    }

    /// Packets and bytes of a flow over all its slots.
    pub fn use_of(&self, datapath: &impl Datapath, flow: &Flow) -> SlotUse {
        let now = datapath.slot_use(flow.target.slot);
        SlotUse {
            packets: flow.carried.packets + now.packets,
            bytes: flow.carried.bytes + now.bytes,
            last_used: now.last_used,
        }
    }

    /// The port's sets of masks, for a record that is written anew.
    pub fn mask_sets(&self, port: u16) -> (u64, u64) {
        (self.masks_v4.set_of(port), self.masks_v6.set_of(port))
    }

    fn next_id(&mut self) -> FlowId {
        self.next_id += 1;
        FlowId(self.next_id - 1)
    }

    fn masks(&self, family: Family) -> &Masks {
        match family {
            Family::V4 => &self.masks_v4,
            Family::V6 => &self.masks_v6,
        }
    }

    fn masks_mut(&mut self, family: Family) -> &mut Masks {
        match family {
            Family::V4 => &mut self.masks_v4,
            Family::V6 => &mut self.masks_v6,
        }
    }
}

fn masked(key: &FlowKey, chosen: &Chosen) -> FlowKey {
    let mut masked = key.masked(&chosen.bits);
    masked.head.mask_id = chosen.number as u8;
    masked
}

fn write_set(
    datapath: &mut impl Datapath,
    family: Family,
    port: u16,
    set: u64,
) -> Result<(), Error> {
    let mut record = datapath.read_port(port)?;
    match family {
        Family::V4 => record.masks_v4 = set,
        Family::V6 => record.masks_v6 = set,
    }
    datapath.write_port(port, &record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Fake;

    const LARGE: Owner = 1;
    const SMALL: Owner = 2;

    struct Books {
        datapath: Fake,
        table: FlowTable,
        next: u32,
    }

    impl Books {
        /// Port 1 is the large tenant's, port 2 the small one's.
        fn new(flows_max: usize) -> Books {
            let mut table = FlowTable::new(0);
            table.flows_max = flows_max;
            table.set_owner(1, LARGE);
            table.set_owner(2, SMALL);
            Books {
                datapath: Fake::default(),
                table,
                next: 0,
            }
        }

        fn install(&mut self, port: u16, now_secs: u64) -> FlowId {
            self.next += 1;
            let (mut key, mut mask) = (FlowKey::default(), FlowKey::default());
            (key.head.port, mask.head.port) = (port, u16::MAX);
            key.set_dst_v4(self.next.to_be_bytes());
            mask.set_dst_v4([0xff; 4]);
            let slot = Slot::default();
            let (table, datapath) = (&mut self.table, &mut self.datapath);
            let target = table.reserve(datapath, &slot).unwrap();
            table
                .install(datapath, &key, &mask, target, &slot, now_secs)
                .unwrap()
        }
    }

    #[test]
    fn the_idlest_flow_makes_room() {
        let mut books = Books::new(3);
        let flows: Vec<FlowId> = [5, 3, 4].map(|now| books.install(1, now)).into();
        assert_eq!(books.table.idlest(1), [flows[1]]);
    }

    #[test]
    fn a_tenant_past_its_share_makes_room_for_those_below_theirs() {
        let mut books = Books::new(8);
        books.install(2, 0);
        let large: Vec<FlowId> = (1..8).map(|now| books.install(1, now)).collect();
        assert_eq!(
            (books.table.owned_by(LARGE), books.table.owned_by(SMALL)),
            (7, 1)
        );
        // The small tenant's flow is the idlest of all, and stays, whoever needs room.
        assert_eq!(books.table.idlest(1), [large[0]]);
        assert_eq!(books.table.idlest(2), [large[0]]);
        for _ in 0..3 {
            let gone = books.table.idlest(2)[0];
            books.table.remove(&mut books.datapath, gone, 9);
            books.install(2, 9);
        }
        assert_eq!(
            (books.table.owned_by(LARGE), books.table.owned_by(SMALL)),
            (4, 4)
        );
        let own = books.table.idlest(2)[0];
        assert_eq!(books.table.get(own).unwrap().owner, SMALL);
    }

    #[test]
    fn flows_of_nobody_become_the_owners() {
        let mut books = Books::new(8);
        books.table.owners.clear();
        books.install(1, 0);
        books.install(2, 0);
        assert_eq!(books.table.owned_by(0), 2);
        books.table.set_owner(1, LARGE);
        assert_eq!(
            (books.table.owned_by(0), books.table.owned_by(LARGE)),
            (1, 1)
        );
        assert_eq!(books.table.masks_v4.number_of(LARGE), 1);
    }
}
