//! The books of the select groups. Like slots, a group is immutable once a slot names it: another choice is another
//! group, and the slots of members that both have are the same. So flows share groups, a member that leaves moves
//! the packets of its own buckets only, and a packet gets the old choice or the new one.

use super::FlowTable;
use crate::{Buckets, Datapath, Error};
use std::collections::{BTreeSet, HashMap};
use weft_common::limits::{SELECT_BUCKETS, SELECT_DEPTH_MAX, SELECT_GROUPS_MAX, SLOT_GRACE_SECS};
use weft_common::{FlowKey, Slot, SlotRef, select};

/// One of the decisions that a group chooses among.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// What its buckets are computed from: see [`select::owner`].
    pub identity: u64,
    /// What is done with its packets.
    pub slot: Slot,
}

/// A group in the kernel.
#[derive(Debug)]
struct Group {
    members: Vec<Member>,
    /// Slots that name it.
    users: u32,
    /// Second since which it has had no user.
    unused_since: u64,
}

/// The slot of a member, in all groups that have it.
#[derive(Debug)]
struct Shared {
    target: SlotRef,
    groups: u32,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Groups {
    groups: HashMap<u32, Group>,
    by_members: HashMap<Vec<Member>, u32>,
    slots: HashMap<Slot, Shared>,
    /// The group that each slot names.
    named: HashMap<u32, u32>,
    unused: Vec<u32>,
    /// Indices below were in use at some time; 0 is never used.
    indices: u32,
    /// Those that flows of an earlier agent choose by.
    earlier: BTreeSet<u32>,
}

impl Groups {
    /// A slot that names a group was written.
    pub(super) fn hold(&mut self, slot: u32, group: u32) {
        self.named.insert(slot, group);
        if let Some(group) = self.groups.get_mut(&group) {
            group.users += 1;
        }
    }

    /// A slot is retired.
    pub(super) fn release(&mut self, slot: u32, now_secs: u64) {
        let group = self.named.remove(&slot);
        if let Some(group) = group.and_then(|group| self.groups.get_mut(&group)) {
            group.users = group.users.saturating_sub(1);
            group.unused_since = now_secs;
        }
    }

    /// Keeps an earlier agent's groups as they are. Only before any was made.
    pub(super) fn keep(&mut self, groups: &BTreeSet<u32>) {
        self.indices = groups.last().copied().unwrap_or(0);
        self.unused = (1..self.indices)
            .filter(|index| !groups.contains(index))
            .collect();
        self.earlier.clone_from(groups);
    }

    /// No flow chooses by an earlier agent's groups any more.
    pub(super) fn let_go(&mut self) {
        self.unused.extend(std::mem::take(&mut self.earlier));
    }

    fn take_index(&mut self) -> Result<u32, Error> {
        if let Some(index) = self.unused.pop() {
            return Ok(index);
        }
        if self.indices + 1 >= SELECT_GROUPS_MAX {
            return Err(Error::Full {
                what: "select groups",
                limit: u64::from(SELECT_GROUPS_MAX),
            });
        }
        self.indices += 1;
        Ok(self.indices)
    }
}

impl FlowTable {
    /// The group that chooses among these members, made if there is none yet. It stays for as long as a slot names
    /// it, and [`SLOT_GRACE_SECS`] longer.
    ///
    /// # Errors
    /// [`Error::Full`] when all groups or slots are in use.
    pub fn group(
        &mut self,
        datapath: &mut impl Datapath,
        members: &[Member],
        now_secs: u64,
    ) -> Result<u32, Error> {
        if let Some(index) = self.find_group(members) {
            if let Some(group) = self.groups.groups.get_mut(&index) {
                group.unused_since = now_secs;
            }
            return Ok(index);
        }
        let index = self.groups.take_index()?;
        let written = self
            .member_slots(datapath, members, now_secs)
            .and_then(|targets| datapath.write_group(index, &buckets(members, &targets)));
        if let Err(error) = written {
            self.groups.unused.push(index);
            return Err(error);
        }
        let group = Group {
            members: members.to_vec(),
            users: 0,
            unused_since: now_secs,
        };
        self.groups.by_members.insert(members.to_vec(), index);
        self.groups.groups.insert(index, group);
        Ok(index)
    }

    /// The group that chooses among these members, if there is one.
    pub fn find_group(&self, members: &[Member]) -> Option<u32> {
        self.groups.by_members.get(members).copied()
    }

    /// What a group chooses among, with the slot of each; nothing for a group that isn't there.
    pub fn members(&self, group: u32) -> impl Iterator<Item = (&Member, SlotRef)> {
        let members = self.groups.groups.get(&group);
        members
            .into_iter()
            .flat_map(|group| &group.members)
            .filter_map(|member| Some((member, self.groups.slots.get(&member.slot)?.target)))
    }

    /// The slot whose decision a packet gets when its flow has `slot`: that slot, or the one that is chosen.
    pub fn chosen<'a>(&'a self, slot: &'a Slot, key: &FlowKey) -> Option<&'a Slot> {
        let bucket = select::bucket(key);
        let mut slot = slot;
        for _ in 0..=SELECT_DEPTH_MAX {
            let Some(group) = slot.select_group() else {
                return Some(slot);
            };
            let members = &self.groups.groups.get(&group)?.members;
            let identities = members.iter().map(|member| member.identity);
            slot = &members.get(select::owner(bucket, identities)?)?.slot;
        }
        None
    }

    /// Number of groups.
    pub fn groups_len(&self) -> usize {
        self.groups.groups.len()
    }

    /// Frees groups that no slot has named for a while.
    pub(super) fn sweep_groups(&mut self, datapath: &mut impl Datapath, now_secs: u64) {
        let is_unused = |group: &Group| {
            group.users == 0 && now_secs.saturating_sub(group.unused_since) >= SLOT_GRACE_SECS
        };
        let groups = self.groups.groups.iter();
        let unused: Vec<u32> = groups
            .filter(|(_, group)| is_unused(group))
            .map(|(index, _)| *index)
            .collect();
        for index in unused {
            let Some(group) = self.groups.groups.remove(&index) else {
                continue;
            };
            self.groups.by_members.remove(&group.members);
            self.groups.unused.push(index);
            self.drop_member_slots(datapath, &group.members, now_secs);
        }
    }

    /// The slot of each member, those that other groups have already among them.
    fn member_slots(
        &mut self,
        datapath: &mut impl Datapath,
        members: &[Member],
        now_secs: u64,
    ) -> Result<Vec<SlotRef>, Error> {
        let mut targets = Vec::with_capacity(members.len());
        for (position, member) in members.iter().enumerate() {
            if let Some(shared) = self.groups.slots.get_mut(&member.slot) {
                shared.groups += 1;
                targets.push(shared.target);
                continue;
            }
            match self.reserve(datapath, &member.slot) {
                Ok(target) => {
                    let shared = Shared { target, groups: 1 };
                    self.groups.slots.insert(member.slot, shared);
                    targets.push(target);
                }
                Err(error) => {
                    let held = members.get(..position).unwrap_or_default();
                    self.drop_member_slots(datapath, held, now_secs);
                    return Err(error);
                }
            }
        }
        Ok(targets)
    }

    fn drop_member_slots(
        &mut self,
        datapath: &mut impl Datapath,
        members: &[Member],
        now_secs: u64,
    ) {
        for member in members {
            let Some(shared) = self.groups.slots.get_mut(&member.slot) else {
                continue;
            };
            shared.groups -= 1;
            if shared.groups == 0 {
                let target = shared.target;
                self.groups.slots.remove(&member.slot);
                self.retire(datapath, target, now_secs);
            }
        }
    }
}

fn buckets(members: &[Member], targets: &[SlotRef]) -> Buckets {
    let mut buckets = [SlotRef::default(); SELECT_BUCKETS as usize];
    for (bucket, target) in (0..=u8::MAX).zip(&mut buckets) {
        let owner = select::owner(bucket, members.iter().map(|member| member.identity));
        *target = owner
            .and_then(|position| targets.get(position))
            .copied()
            .unwrap_or_default();
    }
    buckets
}
