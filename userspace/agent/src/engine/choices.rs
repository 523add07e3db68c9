//! Choices among next hops: the groups of a decision, the members that wait for a next hop, and both in words.
//!
//! A flow whose decision is a choice has a slot that names a group of `weft_datapath::FlowTable`. Members whose next
//! hop isn't known yet are for the agent; it asks for them at once, and gives the flow another group when they answer.

use super::Engine;
use super::waiting::awaited;
use weft_common::Slot;
use weft_common::limits::SELECT_BUCKETS;
use weft_common::select;
use weft_datapath::{Datapath, Error, Member};
use weft_vnet::{self as vnet, Outcome, Verdict, compile_member};

impl<D: Datapath> Engine<D> {
    /// What the kernel of this host is to do for a decision, with the groups that it takes.
    ///
    /// # Errors
    /// When there is no room for a group or its members.
    pub(super) fn slot_with_groups(&mut self, outcome: &Outcome) -> Result<Slot, Error> {
        let mut slot = self.slot_for(outcome);
        if let Verdict::Select(members) = &outcome.verdict {
            let mut group = Vec::with_capacity(members.len());
            for member in members {
                group.push(Member {
                    identity: member.next_hop.identity(),
                    slot: match member.outcome.verdict {
                        Verdict::Select(_) => self.slot_with_groups(&member.outcome)?,
                        _ => self.slot_of_member(member),
                    },
                });
            }
            let now = self.now_secs();
            slot.choice_group = self.table.group(&mut self.datapath, &group, now)?;
        }
        Ok(slot)
    }

    /// The same with the groups that there are; none when one is missing.
    pub(super) fn slot_if_installed(&self, outcome: &Outcome) -> Option<Slot> {
        let mut slot = self.slot_for(outcome);
        if let Verdict::Select(members) = &outcome.verdict {
            let member = |member: &vnet::Member| {
                Some(Member {
                    identity: member.next_hop.identity(),
                    slot: match member.outcome.verdict {
                        Verdict::Select(_) => self.slot_if_installed(&member.outcome)?,
                        _ => self.slot_of_member(member),
                    },
                })
            };
            let group: Option<Vec<Member>> = members.iter().map(member).collect();
            slot.choice_group = self.table.find_group(&group?)?;
        }
        Some(slot)
    }

    fn slot_of_member(&self, member: &vnet::Member) -> Slot {
        compile_member(member, &self.snapshot, self.host, &self.placement)
    }

    /// Asks for the next hops that members of a choice wait for.
    pub(super) fn expect_members(&mut self, outcome: &Outcome) {
        let Verdict::Select(members) = &outcome.verdict else {
            return;
        };
        for member in members {
            match awaited(&member.outcome) {
                Some(next_hop) => self.expect(next_hop),
                None => self.expect_members(&member.outcome),
            }
        }
    }

    /// A group in words: each member with its buckets, packets and actions.
    pub(super) fn describe_group(&self, group: u32) -> String {
        let members: Vec<_> = self.table.members(group).collect();
        let identities = || members.iter().map(|(member, _)| member.identity);
        let mut buckets = vec![0_u32; members.len()];
        for bucket in 0..=u8::MAX {
            let owner = select::owner(bucket, identities());
            if let Some(count) = owner.and_then(|owner| buckets.get_mut(owner)) {
                *count += 1;
            }
        }
        let each = members.iter().zip(buckets).map(|((member, _), buckets)| {
            let actions = self.describe_slot(&member.slot);
            format!("{buckets}/{SELECT_BUCKETS}:[{actions}]")
        });
        format!("select({})", each.collect::<Vec<_>>().join(","))
    }
}
